//! The credential that the agent holds, and the file in its data directory where it keeps one that it was not started
//! with: what it got for a join token, or in place of a secret that was rotated.
//!
//! The file wins over what the agent is given at its start if it was made from that: then it is the newer one. If the
//! agent is given another, an operator has replaced it, and that wins. The file is replaced whole, and on the disk before
//! anybody hears that it is.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::Error;
use crate::{
    link::{Credential, Fingerprint, Held, SecretHash, TokenId},
    private_file::{self, PrivateFileError},
};

/// What the agent got its first credential by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// By a credential whose secret has this hash.
    Given(SecretHash),
    /// By a join token.
    Token(TokenId),
}

/// What the file holds: the credential, its origin, and the key that the controller announced, a line each.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub credential: Arc<Credential>,
    pub origin: Origin,
    pub next: Option<Fingerprint>,
}

/// The credential that the agent holds. Clones are handles of the same.
#[derive(Clone)]
pub(super) struct Wallet(Arc<Inner>);

struct Inner {
    path: PathBuf,
    held: Held,
    /// What is on the disk, or would be.
    stored: Mutex<Stored>,
}

impl Wallet {
    /// The wallet of an agent whose data is in `dir`, and that was started with `given`.
    pub fn open(dir: &Path, given: &Arc<Credential>) -> Result<Self, Error> {
        let hash = given.secret_hash();
        let is_newer = |stored: &Stored| {
            stored.credential.name == given.name
                && (stored.origin == Origin::Given(hash) || stored.credential.secret_hash() == hash)
        };
        let fresh = || Stored { credential: given.clone(), origin: Origin::Given(hash), next: None };
        let stored = Stored::read(dir)?.filter(is_newer).unwrap_or_else(fresh);
        let held = Held::from(stored.credential.clone());
        held.pin_next(stored.next);
        Ok(Self(Arc::new(Inner { path: path(dir), held, stored: Mutex::new(stored) })))
    }

    /// What connections show.
    pub fn held(&self) -> &Held {
        &self.0.held
    }

    /// Holds the credential that the controller gave, once it is on the disk. The error says why not.
    pub async fn take(&self, text: &str) -> Result<(), String> {
        let credential: Credential = text.parse().map_err(|_| "what came is no credential".to_owned())?;
        let holds = self.0.held.credential();
        if credential.name != holds.name || !self.0.held.pins().contains(&credential.controller) {
            return Err("what came is the credential of another agent or controller".to_owned());
        }
        self.change(move |stored| stored.credential = Arc::new(credential)).await?;
        tracing::info!("took a new secret");
        Ok(())
    }

    /// Accepts a controller with the key that this one will have next, once that is on the disk. The error says why not.
    pub async fn pin_next(&self, text: &str) -> Result<(), String> {
        let next: Fingerprint = text.parse().map_err(|_| "what came is no fingerprint".to_owned())?;
        if self.0.held.pins().contains(&next) {
            return Ok(());
        }
        self.change(move |stored| stored.next = Some(next)).await?;
        tracing::info!("accepts the controller's next key {next} too");
        Ok(())
    }

    /// The controller showed this one of the accepted keys. If it is the announced one, the one before is not accepted any
    /// more: it may have been replaced because somebody else has it.
    pub async fn met(&self, controller: Fingerprint) {
        let holds = self.0.held.credential();
        if holds.controller == controller {
            return;
        }
        let changed = self.change(move |stored| {
            let held = &stored.credential;
            let (name, secret) = (held.name.clone(), held.secret.clone());
            stored.credential = Arc::new(Credential { name, secret, controller });
            stored.next = None;
        });
        match changed.await {
            Ok(()) => {
                tracing::info!("the controller has its new key {controller}; the one before is not accepted any more")
            }
            Err(error) => tracing::warn!("the controller's old key stays accepted: {error}"),
        }
    }

    /// Changes what is stored, on the disk first.
    async fn change(&self, change: impl FnOnce(&mut Stored) + Send + 'static) -> Result<(), String> {
        let inner = self.0.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let mut stored = inner.stored.lock().expect("no holder panics");
            let mut new = stored.clone();
            change(&mut new);
            new.write(&inner.path)?;
            inner.held.replace(new.credential.clone());
            inner.held.pin_next(new.next);
            *stored = new;
            Ok(())
        });
        match changed.await {
            Ok(result) => result.map_err(|e: PrivateFileError| format!("it can't store it: {e}")),
            Err(_) => Err("the agent stops".to_owned()),
        }
    }
}

impl Stored {
    /// What is in the file in `dir`; `None` if there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = path(dir);
        let bytes = match private_file::read(&path) {
            Ok(bytes) => bytes,
            Err(PrivateFileError::Missing { .. }) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let text = String::from_utf8_lossy(&bytes);
        let stored = Self::parse(&text).ok_or_else(|| {
            let cure = "remove it, and start the agent with a new credential or join token";
            io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no credential; {cure}", path.display()))
        });
        stored.map(Some).map_err(|error| Error::Data { dir: dir.to_owned(), error })
    }

    /// Keeps it in `dir`; on the disk when this returns.
    pub fn keep(&self, dir: &Path) -> Result<(), PrivateFileError> {
        self.write(&path(dir))
    }

    fn write(&self, path: &Path) -> Result<(), PrivateFileError> {
        let origin = match self.origin {
            Origin::Given(hash) => format!("given {}", URL_SAFE_NO_PAD.encode(hash.0)),
            Origin::Token(id) => format!("token {id}"),
        };
        let next = self.next.map(|next| format!("next {next}\n")).unwrap_or_default();
        private_file::replace(path, format!("{}\n{origin}\n{next}", self.credential.to_text()).as_bytes())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let credential = Arc::new(lines.next()?.parse::<Credential>().ok()?);
        let origin = match lines.next()?.split_once(' ')? {
            ("given", hash) => Origin::Given(SecretHash(URL_SAFE_NO_PAD.decode(hash).ok()?.try_into().ok()?)),
            ("token", id) => Origin::Token(id.parse().ok()?),
            _ => return None,
        };
        let next = match lines.next() {
            Some(line) => Some(line.strip_prefix("next ")?.parse().ok()?),
            None => None,
        };
        Some(Self { credential, origin, next })
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("credential")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const CONTROLLER: Fingerprint = Fingerprint([7; 32]);

    fn credential(name: &str, controller: Fingerprint) -> Arc<Credential> {
        Arc::new(Credential::generate(name.parse().expect("name"), controller))
    }

    fn holds(wallet: &Wallet) -> SecretHash {
        wallet.held().credential().secret_hash()
    }

    #[tokio::test]
    async fn what_it_took_wins_until_it_is_given_another() {
        let dir = tempfile::tempdir().expect("dir");
        let [first, second, third] = [(); 3].map(|()| credential("a", CONTROLLER));
        let wallet = Wallet::open(dir.path(), &first).expect("opened");
        assert_eq!(holds(&wallet), first.secret_hash());
        wallet.take(&second.to_text()).await.expect("taken");
        assert_eq!(holds(&wallet), second.secret_hash());
        let mode = fs::metadata(path(dir.path())).expect("stored").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        for given in [&first, &second] {
            assert_eq!(holds(&Wallet::open(dir.path(), given).expect("opened")), second.secret_hash());
        }
        let wallet = Wallet::open(dir.path(), &third).expect("opened");
        assert_eq!(holds(&wallet), third.secret_hash(), "an operator gave it this one");
        wallet.take(&second.to_text()).await.expect("taken");
        assert_eq!(holds(&Wallet::open(dir.path(), &third).expect("opened")), second.secret_hash());
        assert_eq!(holds(&Wallet::open(dir.path(), &first).expect("opened")), first.secret_hash());
    }

    #[tokio::test]
    async fn what_belongs_to_another_or_cannot_be_stored_is_not_taken() {
        let dir = tempfile::tempdir().expect("dir");
        let first = credential("a", CONTROLLER);
        let wallet = Wallet::open(dir.path(), &first).expect("opened");
        let others = [credential("b", CONTROLLER).to_text(), credential("a", Fingerprint([8; 32])).to_text()];
        for other in others.iter().map(String::as_str).chain(["", "rk1"]) {
            wallet.take(other).await.expect_err("not its own");
        }
        fs::create_dir(path(dir.path())).expect("in the way");
        let error = wallet.take(&credential("a", CONTROLLER).to_text()).await.expect_err("no room");
        assert!(error.contains("can't store"), "{error}");
        assert_eq!(holds(&wallet), first.secret_hash());
    }

    #[tokio::test]
    async fn both_keys_are_accepted_until_the_controller_has_shown_the_next_one() {
        let dir = tempfile::tempdir().expect("dir");
        let next = Fingerprint([8; 32]);
        let given = credential("a", CONTROLLER);
        let wallet = Wallet::open(dir.path(), &given).expect("opened");
        wallet.met(CONTROLLER).await;
        wallet.pin_next("nonsense").await.expect_err("no fingerprint");
        wallet.pin_next(&next.to_string()).await.expect("pinned");
        for wallet in [&wallet, &Wallet::open(dir.path(), &given).expect("opened")] {
            assert_eq!(wallet.held().pins(), [CONTROLLER, next]);
        }
        wallet.met(CONTROLLER).await;
        assert_eq!(wallet.held().pins(), [CONTROLLER, next]);
        wallet.met(next).await;
        for wallet in [&wallet, &Wallet::open(dir.path(), &given).expect("opened")] {
            assert_eq!(wallet.held().pins(), [next]);
            assert_eq!(holds(wallet), given.secret_hash());
        }
    }

    #[test]
    fn a_file_that_is_broken_or_open_to_others_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let given = credential("a", CONTROLLER);
        private_file::create(&path(dir.path()), b"nonsense\n").expect("written");
        let error = Wallet::open(dir.path(), &given).err().expect("refused");
        assert!(error.to_string().contains("remove it") && error.exit_code() == 64, "{error}");
        fs::set_permissions(path(dir.path()), fs::Permissions::from_mode(0o644)).expect("chmod");
        let error = Wallet::open(dir.path(), &given).err().expect("refused");
        assert!(error.to_string().contains("chmod 600") && error.exit_code() == 77, "{error}");
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let origins = [Origin::Given(SecretHash::of(&[1; 32])), Origin::Token(TokenId([2; 8]))];
        for (origin, next) in origins.into_iter().zip([None, Some(Fingerprint([3; 32]))]) {
            let dir = tempfile::tempdir().expect("dir");
            let stored = Stored { credential: credential("a", CONTROLLER), origin, next };
            stored.keep(dir.path()).expect("kept");
            let read = Stored::read(dir.path()).expect("read").expect("there");
            assert_eq!((read.origin, read.next), (origin, next));
            assert_eq!(read.credential.secret, stored.credential.secret);
        }
    }
}
