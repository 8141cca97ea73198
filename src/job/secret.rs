//! Secrets that travel: sealed journal and encrypted streams carry them, nothing that people read does.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::secret::Secret;

/// A [`Secret`] that can be written in binary formats. Text formats get `***`, and reading it from text is refused, so
/// that a value that was shown once is never taken for the secret.
#[derive(Clone)]
pub struct Hidden<T>(Secret<T>);

impl<T> Hidden<T> {
    /// Hides `value`.
    pub fn new(value: T) -> Self {
        Self(Secret::new(value))
    }

    /// The value itself: each call is a place where a secret leaves its wrapper.
    pub fn expose(&self) -> &T {
        self.0.expose()
    }
}

impl<T: AsRef<[u8]>> PartialEq for Hidden<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T: AsRef<[u8]>> Eq for Hidden<T> {}

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Serialize> Serialize for Hidden<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str("***")
        } else {
            self.expose().serialize(serializer)
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Hidden<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Err(D::Error::custom("a secret is not read from text"));
        }
        T::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_people_read_shows_it() {
        let secret = Hidden::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).expect("json"), "\"***\"");
        assert!(serde_json::from_str::<Hidden<Vec<u8>>>("\"***\"").is_err());
        let bytes = postcard::to_stdvec(&secret).expect("postcard");
        assert_eq!(bytes, b"\x07hunter2");
        assert_eq!(postcard::from_bytes(&bytes), Ok(secret));
    }
}
