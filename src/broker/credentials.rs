//! SCRAM credentials that came by request, kept durably beside the users of the configuration.
//!
//! Promises that a change is on stable storage before it is acknowledged. A deletion of what the configuration gives is
//! kept too, so that it outlives a restart. Changing blocks on the disk; looking up never does.

use super::files;
use super::scram::{Hash, Verifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

const FILE: &str = "scram.json";
const VERSION: u32 = 1;
/// All of them together; the file is written as a whole.
const MOST: usize = 100_000;

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    credentials: Vec<StoredCredential>,
}

#[derive(Serialize, Deserialize)]
struct StoredCredential {
    user: String,
    mechanism: Hash,
    /// None: it was deleted.
    keys: Option<StoredKeys>,
}

#[derive(Serialize, Deserialize)]
struct StoredKeys {
    iterations: NonZeroU32,
    salt: String,
    stored_key: String,
    server_key: String,
}

/// None: deleted, whatever the configuration says.
type Table = BTreeMap<(String, Hash), Option<Verifier>>;

/// Holds the credentials.
pub(crate) struct Credentials {
    file: PathBuf,
    table: RwLock<Arc<Table>>,
    /// Whoever changes credentials holds this all the while.
    changing: Mutex<()>,
}

/// What to do with a credential.
pub(crate) enum Change {
    Set(Verifier),
    /// Delete it, and if `configured`, the one that the configuration gives.
    Delete {
        configured: bool,
    },
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    Done,
    /// There was nothing to delete.
    Absent,
    /// There are too many.
    Full,
}

impl Credentials {
    /// Reads what is in `directory`, if there is something. Blocks.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let file = directory.join(FILE);
        let mut table = Table::new();
        if let Some(stored) = files::read_json::<Stored>(&file)? {
            if stored.version != VERSION {
                return Err(files::damaged(&file, &format!("its version {} is not {VERSION}", stored.version)));
            }
            for credential in stored.credentials {
                let damaged = || files::damaged(&file, &format!("the keys of user {} are malformed", credential.user));
                let keys = credential.keys.as_ref().map(|keys| keys.read(credential.mechanism).ok_or_else(damaged));
                let verifier = keys.transpose()?;
                table.insert((credential.user, credential.mechanism), verifier);
            }
        }
        Ok(Self { file, table: RwLock::new(Arc::new(table)), changing: Mutex::new(()) })
    }

    /// Every credential that requests have given or deleted.
    pub fn all(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What requests have made of a credential; the inner none is one that was deleted.
    pub fn find(&self, user: &str, hash: Hash) -> Option<Option<Verifier>> {
        self.all().get(&(user.to_owned(), hash)).cloned()
    }

    /// Whether requests have given or deleted a credential of this user.
    pub fn knows(&self, user: &str) -> bool {
        [Hash::Sha256, Hash::Sha512].into_iter().any(|hash| self.find(user, hash).is_some())
    }

    /// Makes each change that can be made; the answers come in the same order. Blocks.
    ///
    /// # Errors
    /// The file can't be written: nothing was changed.
    pub fn alter<'a>(&self, changes: impl IntoIterator<Item = (&'a str, Hash, Change)>) -> io::Result<Vec<Changed>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.all());
        let mut answers = Vec::new();
        for (user, hash, change) in changes {
            let full = table.len() >= MOST;
            let key = (user.to_owned(), hash);
            let there = table.get(&key).map(Option::is_some);
            answers.push(match change {
                Change::Set(_) if full && there.is_none() => Changed::Full,
                Change::Set(verifier) => {
                    table.insert(key, Some(verifier));
                    Changed::Done
                }
                Change::Delete { configured } => match there {
                    Some(false) => Changed::Absent,
                    None if !configured => Changed::Absent,
                    _ if configured => {
                        table.insert(key, None);
                        Changed::Done
                    }
                    _ => {
                        table.remove(&key);
                        Changed::Done
                    }
                },
            });
        }
        if answers.contains(&Changed::Done) {
            let stored = Stored { version: VERSION, credentials: table.iter().map(StoredCredential::of).collect() };
            let content = serde_json::to_vec_pretty(&stored).map_err(io::Error::other)?;
            files::replace_private(&self.file, &content)?;
            *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        }
        Ok(answers)
    }
}

impl StoredCredential {
    fn of(((user, mechanism), verifier): (&(String, Hash), &Option<Verifier>)) -> Self {
        let keys = verifier.as_ref().map(|verifier| StoredKeys {
            iterations: verifier.iterations,
            salt: BASE64.encode(&verifier.salt),
            stored_key: BASE64.encode(&verifier.stored_key),
            server_key: BASE64.encode(&verifier.server_key),
        });
        Self { user: user.clone(), mechanism: *mechanism, keys }
    }
}

impl StoredKeys {
    fn read(&self, hash: Hash) -> Option<Verifier> {
        let salt = BASE64.decode(&self.salt).ok()?;
        let key = |text: &str| BASE64.decode(text).ok().filter(|key| key.len() == hash.length());
        let (stored_key, server_key) = (key(&self.stored_key)?, key(&self.server_key)?);
        Some(Verifier { hash, iterations: self.iterations, salt, stored_key, server_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn set(credentials: &Credentials, user: &str) {
        let verifier = Verifier::new(Hash::Sha256, "password", b"salt");
        assert_eq!(credentials.alter([(user, Hash::Sha256, Change::Set(verifier))]).unwrap(), [Changed::Done]);
    }

    #[test]
    fn credentials_outlive_the_process_and_are_nobody_elses() {
        let directory = tempfile::tempdir().unwrap();
        let credentials = Credentials::open(directory.path()).unwrap();
        set(&credentials, "alice");
        set(&credentials, "bob");
        let before = credentials.find("alice", Hash::Sha256).unwrap().unwrap();
        let delete = Change::Delete { configured: false };
        assert_eq!(credentials.alter([("bob", Hash::Sha256, delete)]).unwrap(), [Changed::Done]);
        let again = Credentials::open(directory.path()).unwrap();
        let after = again.find("alice", Hash::Sha256).unwrap().unwrap();
        assert_eq!((before.stored_key, before.server_key), (after.stored_key, after.server_key));
        assert_eq!(again.all().len(), 1, "nothing is left of bob");
        assert!(again.find("alice", Hash::Sha512).is_none());
        let mode = std::fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn keys_that_do_not_fit_their_mechanism_are_named() {
        let directory = tempfile::tempdir().unwrap();
        set(&Credentials::open(directory.path()).unwrap(), "alice");
        let path = directory.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap().replace("SCRAM-SHA-256", "SCRAM-SHA-512");
        std::fs::write(&path, text).unwrap();
        let error = Credentials::open(directory.path()).err().unwrap().to_string();
        assert!(error.contains("scram.json can't be read: the keys of user alice are malformed"), "{error}");
    }

    proptest! {
        #[test]
        fn garbage_in_the_file_never_panics(content in proptest::collection::vec(any::<u8>(), 0..100), cut in 0..400usize) {
            let directory = tempfile::tempdir().unwrap();
            set(&Credentials::open(directory.path()).unwrap(), "alice");
            let path = directory.path().join(FILE);
            let mut good = std::fs::read(&path).unwrap();
            good.truncate(cut);
            good.extend_from_slice(&content);
            std::fs::write(&path, &good).unwrap();
            let _ = Credentials::open(directory.path());
            std::fs::write(&path, &content).unwrap();
            prop_assert!(Credentials::open(directory.path()).is_err());
        }
    }
}
