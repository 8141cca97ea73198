//! The hash that stands for a whole journal.

use std::fmt;

use ring::digest;

/// The hash over all valid records so far, in log order: `SHA-256(the head before ‖ the sealed record)`. All zeros before
/// the first. So the hash of the last valid record also stands for every one before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Head(pub [u8; 32]);

impl Head {
    /// The head after the valid record `sealed`.
    pub fn after(self, sealed: &[u8]) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&self.0);
        hash.update(sealed);
        Self(hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head({self})")
    }
}
