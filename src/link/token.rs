//! A join token: one string with which agents whose names are not known ahead ask for a credential.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::{Fingerprint, SecretHash};
use crate::secret::{self, Secret};

/// Names a join token: 64 random bits, written as 16 hexadecimal digits. No secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 8]);

/// `rkt1.<id>.<secret>.<fingerprint of the controller>`.
#[derive(Clone, Debug)]
pub struct JoinToken {
    /// Which token it is.
    pub id: TokenId,
    /// What proves that its holder was given it: 256 random bits.
    pub secret: Secret<[u8; 32]>,
    /// Which controller its holder accepts.
    pub controller: Fingerprint,
}

/// The text is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token ({0}); `rk tokens create` prints one: rkt1.<id>.<secret>.<controller's fingerprint>")]
pub struct InvalidToken(&'static str);

impl JoinToken {
    /// A new token with an id and a secret just drawn.
    pub fn generate(controller: Fingerprint) -> Self {
        Self { id: TokenId(secret::random()), secret: Secret::new(secret::random()), controller }
    }

    /// The string itself: a secret.
    pub fn to_text(&self) -> String {
        format!("rkt1.{}.{}.{}", self.id, URL_SAFE_NO_PAD.encode(self.secret.expose()), self.controller)
    }

    /// What the controller stores.
    pub fn secret_hash(&self) -> SecretHash {
        SecretHash::of(self.secret.expose())
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(s: &str) -> Result<Self, InvalidToken> {
        let parts: Vec<&str> = s.trim().split('.').collect();
        let [version, id, secret, controller] = parts[..] else {
            return Err(InvalidToken("expected four parts"));
        };
        if version != "rkt1" {
            return Err(InvalidToken("expected it to start with rkt1"));
        }
        let secret = URL_SAFE_NO_PAD.decode(secret).ok().and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            id: id.parse().map_err(|_| InvalidToken("the id is malformed"))?,
            secret: Secret::new(secret.ok_or(InvalidToken("the secret is malformed"))?),
            controller: controller.parse().map_err(|_| InvalidToken("the fingerprint is malformed"))?,
        })
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl FromStr for TokenId {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        // One spelling each, so that an id in a record's key has no twin.
        let wrong = "a token's id is 16 of 0-9 and a-f; `rk tokens ls` lists them";
        if s.len() != 16 || !s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong);
        }
        Ok(Self(u64::from_str_radix(s, 16).map_err(|_| wrong)?.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_its_debug_hides_the_secret() {
        let a = JoinToken::generate(Fingerprint([7; 32]));
        let b: JoinToken = a.to_text().parse().expect("own text");
        assert_eq!((a.id, &a.secret, a.controller), (b.id, &b.secret, b.controller));
        assert!(format!("{a:?}").contains("secret: ***"));
        let text = a.to_text();
        for bad in ["", "rkt1.a.b", &text.replace("rkt1", "rk1"), &text.replace("rkt1.", "rkt1.0"), &text[..40]] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
        }
        assert_eq!("00ff00ff00ff00ff".parse(), Ok(TokenId([0, 255, 0, 255, 0, 255, 0, 255])));
        for bad in ["00FF00ff00ff00ff", "+0ff00ff00ff00ff", "0", "00ff00ff00ff00ff0"] {
            assert!(bad.parse::<TokenId>().is_err(), "{bad}");
        }
    }
}
