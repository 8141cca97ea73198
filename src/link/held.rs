//! What an agent authenticates by and accepts now. It changes while sessions live: the controller gives it a new
//! secret, and tells of its next key.

use std::sync::{Arc, RwLock};

use super::{Credential, Fingerprint, SecretHash};

/// The credential that an agent holds. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Held(Arc<RwLock<State>>);

#[derive(Debug)]
struct State {
    credential: Arc<Credential>,
    hash: SecretHash,
    /// The key that the controller said it will have.
    next: Option<Fingerprint>,
}

impl From<Arc<Credential>> for Held {
    fn from(credential: Arc<Credential>) -> Self {
        let hash = credential.secret_hash();
        Self(Arc::new(RwLock::new(State { credential, hash, next: None })))
    }
}

impl Held {
    /// The credential.
    pub fn credential(&self) -> Arc<Credential> {
        self.0.read().expect("no holder panics").credential.clone()
    }

    /// Connections that are dialled from now on show this one. The name must be the same.
    pub fn replace(&self, credential: Arc<Credential>) {
        let mut state = self.0.write().expect("no holder panics");
        debug_assert_eq!(state.credential.name, credential.name);
        state.hash = credential.secret_hash();
        state.credential = credential;
    }

    /// Accepts a controller with this key too.
    pub fn pin_next(&self, next: Option<Fingerprint>) {
        self.0.write().expect("no holder panics").next = next;
    }

    /// The keys that a controller may have: the credential's, and the one that it announced.
    pub fn pins(&self) -> Vec<Fingerprint> {
        let state = self.0.read().expect("no holder panics");
        [Some(state.credential.controller), state.next].into_iter().flatten().collect()
    }

    pub(super) fn hash(&self) -> SecretHash {
        self.0.read().expect("no holder panics").hash
    }
}
