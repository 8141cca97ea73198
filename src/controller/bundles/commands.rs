//! What can be asked of the controller about bundles.

use std::collections::BTreeMap;

use super::{
    super::{Handle, access::Caller, event},
    Event,
};
use crate::{
    api::{
        ApiError, Code,
        bundles::{Bundle, BundleList, PushBundle},
    },
    bundle::{self, Archive, MAX_SIGNATURES, MAX_SIZE, MAX_USED, MAX_VARIANTS, Place, Ticket, Used, sign},
    bytelog::blob::{self, Upload},
    clock,
    controller::bundles::upload::Turn,
};

/// An archive that is being uploaded.
pub struct Uploading<'a> {
    handle: &'a Handle,
    archive: Archive,
    upload: Upload,
    _turn: Turn<'a>,
}

impl Handle {
    /// All bundles.
    pub fn bundles(&self) -> BundleList {
        BundleList { bundles: self.shared().catalogue.list() }
    }

    /// The bundle that `text` means.
    pub fn bundle(&self, text: &str) -> Result<Bundle, ApiError> {
        let used = self.shared().catalogue.find(text)?;
        self.shared().catalogue.show(&used.digest).ok_or_else(gone)
    }

    /// Whether an archive's records are in the topic.
    pub async fn has_blob(&self, archive: &Archive) -> Result<bool, ApiError> {
        Ok(self.blob_place(archive).await?.is_some())
    }

    /// Where an archive's records are, if they are there.
    async fn blob_place(&self, archive: &Archive) -> Result<Option<Place>, ApiError> {
        let shared = self.shared();
        let places = [shared.uploads.place(archive), shared.catalogue.place(archive)];
        for place in places.into_iter().flatten() {
            if blob::is_there(&shared.cluster, &shared.link.prefix.blobs(), &place).await.map_err(failed)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Begins to take an archive, whose bytes follow.
    pub async fn upload(&self, archive: Archive) -> Result<Uploading<'_>, ApiError> {
        if archive.size > MAX_SIZE {
            let message = format!("an archive has at most {MAX_SIZE} bytes, and this one {}", archive.size);
            return Err(ApiError::new(Code::TooLarge, message));
        }
        let shared = self.shared();
        let turn = shared.uploads.turn(&archive).await;
        let topic = shared.link.prefix.blobs();
        let upload = Upload::new(shared.cluster.clone(), &topic, turn.partition, archive).await.map_err(failed)?;
        Ok(Uploading { handle: self, archive, upload, _turn: turn })
    }

    /// Makes a bundle of archives. It is in the journal when this returns.
    pub async fn push_bundle(&self, request: PushBundle, by: &str) -> Result<Bundle, ApiError> {
        let PushBundle { name, variants, signatures } = request;
        let invalid = |message: String| Err(ApiError::new(Code::Invalid, message));
        if variants.is_empty() || variants.len() > MAX_VARIANTS || signatures.len() > MAX_SIGNATURES {
            return invalid(format!(
                "a bundle has 1 to {MAX_VARIANTS} variants, and {MAX_SIGNATURES} signatures at most"
            ));
        }
        let (digest, shared) = (bundle::digest(&variants), self.shared());
        if signatures.iter().any(|signature| !signature.key.verifies(&digest, signature)) {
            return invalid("a signature is not good for this bundle; sign it anew (`rk bundle sign`)".to_owned());
        }
        if let Some(keys) = &shared.require_signed {
            let known = shared.catalogue.ticket(&Used { digest, name: name.clone() }).signatures;
            if !sign::is_signed(&digest, &[signatures.clone(), known].concat(), keys) {
                let message =
                    "this controller takes only bundles that a key of its --require-signed has signed; use --sign";
                return Err(ApiError::new(Code::Forbidden, message));
            }
        }
        if shared.catalogue.is_full() {
            return invalid("there are too many bundles; remove some (`rk bundle rm`)".to_owned());
        }
        let mut placed = BTreeMap::new();
        for (target, archive) in variants {
            let Some(place) = self.blob_place(&archive).await? else {
                let short = archive.sha256.short();
                let message = format!("the archive {short} for {target} is not there; push it (`rk bundle push`)");
                return Err(ApiError::new(Code::NotFound, message));
            };
            placed.insert(target, (archive, place));
        }
        let event = Event::Pushed {
            at_ms: clock::unix_ms(),
            name: name.clone(),
            by: by.to_owned(),
            variants: placed,
            signatures,
        };
        shared.store.commit(event::Event::Bundle(event)).await?;
        tracing::info!(%name, digest = %digest.short(), "a bundle was pushed");
        shared.catalogue.show(&digest).ok_or_else(gone)
    }

    /// Forgets a bundle. Agents that have it keep it while they have room, and its records stay until Kafka deletes them.
    pub async fn remove_bundle(&self, text: &str) -> Result<Bundle, ApiError> {
        let bundle = self.bundle(text)?;
        self.shared().store.commit(event::Event::Bundle(Event::Removed { digest: bundle.digest })).await?;
        Ok(bundle)
    }

    /// The bundles that these texts mean now.
    pub(in crate::controller) fn used(&self, texts: &[String]) -> Result<Vec<Used>, ApiError> {
        if texts.len() > MAX_USED {
            return Err(ApiError::new(Code::Invalid, format!("a command uses at most {MAX_USED} bundles")));
        }
        texts.iter().map(|text| self.shared().catalogue.find(text)).collect()
    }

    /// What an agent needs to come to them.
    pub(in crate::controller) fn tickets(&self, texts: &[String]) -> Result<Vec<Ticket>, ApiError> {
        Ok(self.used(texts)?.iter().map(|used| self.shared().catalogue.ticket(used)).collect())
    }
}

impl Caller {
    /// Names are everybody's: who is limited to some agents must not choose what runs on others.
    pub fn check_push(&self) -> Result<(), ApiError> {
        self.check_unlimited("only one that is not can push bundles, which all may use").map_err(ApiError::from)
    }
}

impl Uploading<'_> {
    /// Takes the bytes that follow.
    pub async fn put(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        self.upload.put(bytes).await.map_err(failed)
    }

    /// All were put. When this returns it was read back.
    pub async fn finish(self) -> Result<(), ApiError> {
        let place = self.upload.finish().await.map_err(failed)?;
        self.handle.shared().uploads.note(self.archive, place);
        Ok(())
    }
}

fn failed(error: blob::Error) -> ApiError {
    let code = match &error {
        blob::Error::Kafka(error) if error.is_transient() => Code::KafkaUnreachable,
        blob::Error::Announced(_) => Code::Invalid,
        _ => Code::Internal,
    };
    ApiError::new(code, format!("the archive: {error}"))
}

fn gone() -> ApiError {
    ApiError::new(Code::NotFound, "the bundle was removed meanwhile; push it again (`rk bundle push`)")
}
