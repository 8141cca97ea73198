//! An agent's credential: one string that says who the agent is, proves it, and pins the controller.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::Fingerprint;
use crate::{
    id::AgentName,
    secret::{self, Secret},
};

/// `rk1.<agent name>.<secret>.<fingerprint of the controller>`.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Who the agent is.
    pub name: AgentName,
    /// What proves it: 256 random bits.
    pub secret: Secret<[u8; 32]>,
    /// Which controller it accepts.
    pub controller: Fingerprint,
}

/// SHA-256 of a secret of 256 random bits: what the controller stores. Of an agent's it is the key of the MAC on its first packets, too.
#[derive(Clone, Copy, Eq, Serialize, Deserialize)]
pub struct SecretHash(pub(crate) [u8; 32]);

/// The text is no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no agent credential ({0}); `rk agents add NAME` prints one: rk1.<name>.<secret>.<controller's fingerprint>"
)]
pub struct InvalidCredential(&'static str);

impl Credential {
    /// A new credential with a secret just drawn.
    pub fn generate(name: AgentName, controller: Fingerprint) -> Self {
        Self { name, secret: Secret::new(secret::random()), controller }
    }

    /// The string itself: a secret.
    pub fn to_text(&self) -> String {
        format!("rk1.{}.{}.{}", self.name, URL_SAFE_NO_PAD.encode(self.secret.expose()), self.controller)
    }

    /// What the controller stores.
    pub fn secret_hash(&self) -> SecretHash {
        SecretHash::of(self.secret.expose())
    }
}

impl FromStr for Credential {
    type Err = InvalidCredential;

    fn from_str(s: &str) -> Result<Self, InvalidCredential> {
        let parts: Vec<&str> = s.trim().split('.').collect();
        let [version, name, secret, controller] = parts[..] else {
            return Err(InvalidCredential("expected four parts"));
        };
        if version != "rk1" {
            return Err(InvalidCredential("expected it to start with rk1"));
        }
        let secret = URL_SAFE_NO_PAD.decode(secret).ok().and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            name: name.parse().map_err(|_| InvalidCredential("the name is malformed"))?,
            secret: Secret::new(secret.ok_or(InvalidCredential("the secret is malformed"))?),
            controller: controller.parse().map_err(|_| InvalidCredential("the fingerprint is malformed"))?,
        })
    }
}

impl SecretHash {
    /// The hash of a shown secret.
    pub fn of(secret: &[u8; 32]) -> Self {
        let hash = digest::digest(&digest::SHA256, secret);
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_survives_its_text_and_its_debug_hides_the_secret() {
        let a = Credential::generate("build-7".parse().expect("name"), Fingerprint([7; 32]));
        let b: Credential = a.to_text().parse().expect("own text");
        assert_eq!((&a.name, &a.secret, a.controller), (&b.name, &b.secret, b.controller));
        assert_eq!(a.secret_hash(), b.secret_hash());
        assert!(format!("{a:?}").contains("secret: ***"));
        for bad in ["", "rk1.a.b", "rk2.a.b.c", "rk1.a.b.c", "rk1..x.y"] {
            assert!(bad.parse::<Credential>().is_err(), "{bad}");
        }
    }
}
