//! Bundles that the controller knows: what they consist of and where that lies, as the fold of their events; and archives on their
//! way into the topic.
//!
//! An archive is written by the controller alone, read back, and then waits in memory to become a part of a bundle, which is what
//! the journal remembers. One that nobody makes a bundle of is forgotten.

mod commands;
mod upload;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, RwLock, RwLockReadGuard},
};

use serde::{Deserialize, Serialize};

pub use upload::Uploads;

use crate::{
    api::{self, ApiError, Code},
    bundle::{self, Archive, Digest, Name, Place, Target, Ticket, Used, sign::Signature},
};

/// The most bundles that there are at once.
const MAX_BUNDLES: usize = 10_000;
/// The most names of one.
const MAX_NAMES: usize = 64;
/// The shortest beginning of a digest that means one.
const SHORTEST: usize = 6;

/// Something that became true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// There is a bundle, or it has one more name or signature, or its archives lie elsewhere.
    Pushed {
        /// When, in milliseconds since 1970.
        at_ms: u64,
        /// What it is called.
        name: Name,
        /// Who says so.
        by: String,
        /// Its archives.
        variants: BTreeMap<Target, (Archive, Place)>,
        /// Who vouches for it.
        signatures: Vec<Signature>,
    },
    /// There is none any more.
    Removed {
        /// Which.
        digest: Digest,
    },
}

/// All bundles. Clones are the same.
#[derive(Clone, Default)]
pub struct Catalogue(Arc<RwLock<BTreeMap<Digest, Known>>>);

/// One bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    variants: BTreeMap<Target, (Archive, Place)>,
    signatures: BTreeSet<Signature>,
    /// When it got each of its names last.
    names: BTreeMap<Name, u64>,
    by: String,
}

impl Known {
    fn pushed_ms(&self) -> u64 {
        self.names.values().copied().max().unwrap_or(0)
    }
}

impl Catalogue {
    /// Applies an event of the journal.
    pub fn fold(&self, event: Event) {
        let mut known = self.0.write().expect("no holder panics");
        match event {
            Event::Pushed { at_ms, name, by, variants, signatures } => {
                let digest = bundle::digest(&plain(&variants));
                let bundle = known.entry(digest).or_insert_with(|| Known {
                    variants: BTreeMap::new(),
                    signatures: BTreeSet::new(),
                    names: BTreeMap::new(),
                    by: String::new(),
                });
                bundle.variants = variants;
                bundle.signatures.extend(signatures);
                while bundle.signatures.len() > bundle::MAX_SIGNATURES {
                    bundle.signatures.pop_first();
                }
                bundle.names.insert(name, at_ms);
                while bundle.names.len() > MAX_NAMES
                    && let Some(oldest) =
                        bundle.names.iter().min_by_key(|(_, at_ms)| **at_ms).map(|(name, _)| name.clone())
                {
                    bundle.names.remove(&oldest);
                }
                bundle.by = by;
            }
            Event::Removed { digest } => drop(known.remove(&digest)),
        }
    }

    /// Forgets all.
    pub fn forget(&self) {
        self.0.write().expect("no holder panics").clear();
    }

    /// Events that give the same.
    pub fn snapshot(&self) -> Vec<Event> {
        let known = self.read();
        let events = known.values().flat_map(|bundle| {
            bundle.names.iter().map(|(name, at_ms)| Event::Pushed {
                at_ms: *at_ms,
                name: name.clone(),
                by: bundle.by.clone(),
                variants: bundle.variants.clone(),
                signatures: bundle.signatures.iter().cloned().collect(),
            })
        });
        events.collect()
    }

    /// The bundle that `text` means: `NAME` for the newest of it, `NAME@DIGEST`, `DIGEST`, where a beginning of a digest will do
    /// that no other has.
    pub fn find(&self, text: &str) -> Result<Used, ApiError> {
        let known = self.read();
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (Some(name), Some(digest)),
            None if text.starts_with("sha256:") => (None, Some(text)),
            None => (Some(text), None),
        };
        let name = name.map(str::parse::<Name>).transpose();
        let Some(digest) = digest else {
            let newest = match &name {
                Ok(Some(name)) => newest(&known, name).map(|digest| Used { digest, name: name.clone() }),
                _ => None,
            };
            return newest.map_or_else(|| by_digest(&known, text), Ok);
        };
        let name = name.map_err(|error| ApiError::new(Code::Invalid, error.to_string()))?;
        let found = by_digest(&known, digest)?;
        Ok(Used { name: name.unwrap_or(found.name), ..found })
    }

    /// What an agent needs to come to it.
    pub fn ticket(&self, used: &Used) -> Ticket {
        let known = self.read();
        let bundle = known.get(&used.digest);
        Ticket {
            used: used.clone(),
            variants: bundle.map(|bundle| bundle.variants.clone()).unwrap_or_default(),
            signatures: bundle.map(|bundle| bundle.signatures.iter().cloned().collect()).unwrap_or_default(),
        }
    }

    /// Where an archive lies.
    fn place(&self, archive: &Archive) -> Option<Place> {
        let known = self.read();
        let mut all = known.values().flat_map(|bundle| bundle.variants.values());
        all.find(|(there, _)| there == archive).map(|(_, place)| place.clone())
    }

    /// One more would be too many.
    fn is_full(&self) -> bool {
        self.read().len() >= MAX_BUNDLES
    }

    /// As the API shows it.
    fn show(&self, digest: &Digest) -> Option<api::bundles::Bundle> {
        let known = self.read();
        known.get(digest).map(|bundle| show(&known, *digest, bundle))
    }

    /// All as the API shows them, the newest first.
    fn list(&self) -> Vec<api::bundles::Bundle> {
        let known = self.read();
        let mut all: Vec<_> = known.iter().map(|(digest, bundle)| show(&known, *digest, bundle)).collect();
        all.sort_by(|a, b| b.pushed_ms.cmp(&a.pushed_ms).then(a.digest.cmp(&b.digest)));
        all
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Digest, Known>> {
        self.0.read().expect("no holder panics")
    }
}

fn plain(variants: &BTreeMap<Target, (Archive, Place)>) -> bundle::Variants {
    variants.iter().map(|(target, (archive, _))| (target.clone(), *archive)).collect()
}

fn newest(known: &BTreeMap<Digest, Known>, name: &Name) -> Option<Digest> {
    let named = known.iter().filter_map(|(digest, bundle)| Some((bundle.names.get(name)?, digest)));
    named.max().map(|(_, digest)| *digest)
}

fn by_digest(known: &BTreeMap<Digest, Known>, text: &str) -> Result<Used, ApiError> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_digest =
        digits.len() >= SHORTEST && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let mut found = known.iter().filter(|(digest, _)| is_digest && digest.to_string().starts_with(digits));
    match (found.next(), found.next()) {
        (Some((digest, bundle)), None) => {
            // The one that it got last.
            let name = bundle.names.iter().max_by_key(|(_, at_ms)| **at_ms).map(|(name, _)| name.clone());
            let name = name.unwrap_or_else(|| "bundle".parse().expect("a name"));
            Ok(Used { digest: *digest, name })
        }
        (Some(_), Some(_)) => {
            Err(ApiError::new(Code::Invalid, format!("several bundles begin with {digits}; write more of the digest")))
        }
        (None, _) => {
            let shown: String = text.chars().take(100).collect();
            let message = format!("there is no bundle {shown}; `rk bundle ls` lists them, `rk bundle push` makes one");
            Err(ApiError::new(Code::NotFound, message))
        }
    }
}

fn show(known: &BTreeMap<Digest, Known>, digest: Digest, bundle: &Known) -> api::bundles::Bundle {
    let names: Vec<Name> = bundle.names.keys().cloned().collect();
    let keys: BTreeSet<_> = bundle.signatures.iter().map(|signature| signature.key.clone()).collect();
    api::bundles::Bundle {
        digest,
        newest: names.iter().filter(|name| newest(known, name) == Some(digest)).cloned().collect(),
        names,
        variants: plain(&bundle.variants),
        pushed_ms: bundle.pushed_ms(),
        by: bundle.by.clone(),
        signed_by: keys.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Hidden;

    fn pushed(at_ms: u64, name: &str, byte: u8) -> Event {
        let archive = Archive { sha256: Digest([byte; 32]), size: 7 };
        let place = Place { topic: 1, partition: 0, first: 0, last: 0, key: Hidden::new([1; 32]) };
        Event::Pushed {
            at_ms,
            name: name.parse().expect("name"),
            by: "ann".to_owned(),
            variants: [(Target::any(), (archive, place))].into(),
            signatures: Vec::new(),
        }
    }

    fn digest(event: &Event) -> Digest {
        let Event::Pushed { variants, .. } = event else { panic!("pushed") };
        bundle::digest(&plain(variants))
    }

    #[test]
    fn a_name_means_its_newest_and_a_digest_or_its_beginning_means_one() {
        let catalogue = Catalogue::default();
        let events = [pushed(1, "tools", 1), pushed(2, "tools", 2), pushed(3, "other", 1)];
        events.iter().for_each(|event| catalogue.fold(event.clone()));
        let [one, two] = [digest(&events[0]), digest(&events[1])];
        let find = |text: &str| catalogue.find(text).map(|used| (used.digest, used.name.to_string()));
        assert_eq!(find("tools"), Ok((two, "tools".to_owned())));
        assert_eq!(find("other"), Ok((one, "other".to_owned())));
        assert_eq!(find(&format!("sha256:{one}")), Ok((one, "other".to_owned())));
        assert_eq!(find(&format!("tools@sha256:{one}")), Ok((one, "tools".to_owned())));
        assert_eq!(find(&one.to_string()[..8]), Ok((one, "other".to_owned())));
        for bad in ["nothing", "abcdef", "sha256:", "tools@", "a b@ff", &one.to_string()[..3], "ä"] {
            assert!(catalogue.find(bad).is_err(), "{bad}");
        }
        let again = Catalogue::default();
        catalogue.snapshot().into_iter().for_each(|event| again.fold(event));
        assert_eq!(*again.read(), *catalogue.read());
        let used = catalogue.find("tools").expect("there");
        assert!(catalogue.ticket(&used).choose(&Target::here()).is_ok());
        catalogue.fold(Event::Removed { digest: two });
        assert_eq!(find("tools"), Ok((one, "tools".to_owned())), "the one before it");
        assert!(catalogue.ticket(&used).variants.is_empty());
    }
}
