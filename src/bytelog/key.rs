//! What a log is sealed under: one key for each attempt of a job, derived, so that a controller keeps a single secret for
//! a job and an agent is given no more than its attempt.
//!
//! ```text
//! attempt key = HKDF-SHA256(job secret, job ‖ attempt)
//! record key  = HKDF-SHA256(attempt key, "log" ‖ salt)            salt: 128 bits, drawn by each start of a shipper
//! ```

use std::fmt;

use bytes::Bytes;
use ring::{
    aead::{AES_256_GCM, LessSafeKey, UnboundKey},
    hkdf, hmac,
};

use crate::secret::Secret;

/// The longest job key in bytes. It is part of every record.
pub const MAX_JOB_KEY: usize = 64;

/// What names a job in a topic: the Kafka key of its records. 1 to [`MAX_JOB_KEY`] bytes, which mean nothing here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobKey(Bytes);

/// The key is empty or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job's key in the log has {0} bytes; 1 to {MAX_JOB_KEY} are possible")]
pub struct InvalidJobKey(usize);

impl JobKey {
    /// Checks the length.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, InvalidJobKey> {
        let bytes = bytes.into();
        if (1..=MAX_JOB_KEY).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(InvalidJobKey(bytes.len())) }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobKey({})", self.0.escape_ascii())
    }
}

/// The secret of one job, which stays with the controller. Random, 32 bytes.
#[derive(Debug, Clone)]
pub struct JobSecret(Secret<[u8; 32]>);

impl JobSecret {
    /// Takes 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Secret::new(bytes))
    }

    /// The key of one attempt. Whoever has it can read and write this attempt's log, and no other.
    pub fn attempt(&self, job: &JobKey, attempt: u32) -> AttemptKey {
        let attempt = attempt.to_be_bytes();
        AttemptKey::new(expand(&prk(b"remoting-kafka job", self.0.expose()), &[&job.0, &attempt]))
    }
}

/// The key of one attempt's log: what an agent is given together with the attempt. `HKDF-SHA256(job secret, job ‖ attempt)`;
/// records are sealed under `HKDF-SHA256(attempt key, "log" ‖ salt)`.
#[derive(Debug, Clone)]
pub struct AttemptKey(Secret<[u8; 32]>);

impl AttemptKey {
    /// Takes the bytes of a key that came over a session.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Secret::new(bytes))
    }

    /// The bytes, to send them over a session.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    pub(super) fn root(&self) -> hkdf::Prk {
        prk(b"remoting-kafka attempt", self.0.expose())
    }
}

/// What one start of a shipper seals or signs under. A salt is used for one format only.
pub(super) struct RecordKey {
    pub(super) seal: LessSafeKey,
    pub(super) mac: hmac::Key,
}

impl RecordKey {
    pub(super) fn new(root: &hkdf::Prk, salt: &[u8; 16]) -> Self {
        let key = expand(root, &[b"log", salt]);
        let seal = UnboundKey::new(&AES_256_GCM, &key).expect("a key has 32 bytes");
        Self { seal: LessSafeKey::new(seal), mac: hmac::Key::new(hmac::HMAC_SHA256, &key) }
    }
}

fn prk(label: &[u8], secret: &[u8]) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, label).extract(secret)
}

fn expand(prk: &hkdf::Prk, info: &[&[u8]]) -> [u8; 32] {
    let mut key = [0; 32];
    let okm = prk.expand(info, hkdf::HKDF_SHA256).expect("32 bytes are within HKDF's reach");
    okm.fill(&mut key).expect("as long as SHA-256's output");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_of_each_job_has_a_key_of_its_own() {
        let job = |bytes: &'static [u8]| JobKey::new(bytes).expect("fits");
        let (one, other) = (JobSecret::new([1; 32]), JobSecret::new([2; 32]));
        let keys = [
            one.attempt(&job(b"a"), 1),
            one.attempt(&job(b"a"), 2),
            one.attempt(&job(b"b"), 1),
            one.attempt(&job(b"a\0"), 1),
            other.attempt(&job(b"a"), 1),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|before| before.expose() != key.expose()), "{i}");
        }
        assert_eq!(one.attempt(&job(b"a"), 1).expose(), keys[0].expose());
        assert_eq!(format!("{:?}", keys[0]), "AttemptKey(***)");
    }

    #[test]
    fn a_job_key_has_a_length() {
        assert!(JobKey::new(vec![0; 64]).is_ok());
        assert_eq!(JobKey::new(vec![0; 65]), Err(InvalidJobKey(65)));
        assert!(JobKey::new("").is_err());
    }
}
