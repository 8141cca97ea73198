//! The controller's long-lived key: who it is towards agents, and the root of all keys that it derives.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest, hkdf,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::{Deserialize, Serialize};

/// SHA-256 of a controller's public key (its SubjectPublicKeyInfo): what an agent's credential pins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a SubjectPublicKeyInfo in DER.
    pub fn of(spki: &[u8]) -> Self {
        let hash = digest::digest(&digest::SHA256, spki);
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bytes = URL_SAFE_NO_PAD.decode(s).map_err(|_| "a fingerprint is 43 characters of base64url")?;
        Ok(Self(bytes.try_into().map_err(|_| "a fingerprint is 43 characters of base64url")?))
    }
}

/// An Ed25519 key pair. Everything that an operator must keep, and give to a standby.
pub struct Identity {
    pkcs8: Vec<u8>,
    key: Ed25519KeyPair,
    /// What other keys derive from: the first key of all, which a successor inherits.
    root: Vec<u8>,
}

/// The DER prefix of an Ed25519 SubjectPublicKeyInfo (RFC 8410); 32 key bytes follow.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
const ROOT_BEGIN: &str = "-----BEGIN REMOTING KAFKA ROOT-----";
const ROOT_END: &str = "-----END REMOTING KAFKA ROOT-----";

/// The text is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no controller identity: expected one PEM block PRIVATE KEY with an Ed25519 key (PKCS #8)")]
pub struct InvalidIdentity;

impl Identity {
    /// Draws a new one.
    pub fn generate() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("the system has randomness");
        Self::from_pkcs8(pkcs8.as_ref().to_vec()).expect("a key just made is valid")
    }

    /// Reads what [`to_pem`](Self::to_pem) wrote.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidIdentity> {
        let mut identity = Self::from_pkcs8(block(pem, PEM_BEGIN, PEM_END)?)?;
        if pem.contains(ROOT_BEGIN) {
            identity.root = block(pem, ROOT_BEGIN, ROOT_END)?;
        }
        Ok(identity)
    }

    /// This key in the place of `before`: what derived from that derives from this.
    pub fn in_place_of(mut self, before: &Self) -> Self {
        self.root.clone_from(&before.root);
        self
    }

    /// The key as PEM: a secret.
    pub fn to_pem(&self) -> String {
        let mut pem = String::new();
        write_block(&mut pem, PEM_BEGIN, &self.pkcs8, PEM_END);
        if self.root != self.pkcs8 {
            write_block(&mut pem, ROOT_BEGIN, &self.root, ROOT_END);
        }
        pem
    }

    /// What agents pin.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.spki())
    }

    /// A key for one purpose, named by `label`; two labels give unrelated keys.
    pub fn derive(&self, label: &str) -> [u8; 32] {
        let mut key = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"remoting-kafka identity")
            .extract(&self.root)
            .expand(&[label.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .expect("32 bytes are within HKDF's reach");
        key
    }

    /// The public key as SubjectPublicKeyInfo in DER.
    pub(crate) fn spki(&self) -> Vec<u8> {
        [&SPKI_PREFIX, self.key.public_key().as_ref()].concat()
    }

    /// The private key as PKCS #8 in DER.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message).as_ref().to_vec()
    }

    fn from_pkcs8(pkcs8: Vec<u8>) -> Result<Self, InvalidIdentity> {
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map_err(|_| InvalidIdentity)?;
        Ok(Self { root: pkcs8.clone(), pkcs8, key })
    }
}

fn block(pem: &str, begin: &str, end: &str) -> Result<Vec<u8>, InvalidIdentity> {
    let body = pem.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).ok_or(InvalidIdentity)?.0;
    let text: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(text).map_err(|_| InvalidIdentity)
}

fn write_block(pem: &mut String, begin: &str, bytes: &[u8], end: &str) {
    pem.push_str(begin);
    pem.push('\n');
    for line in STANDARD.encode(bytes).as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str(end);
    pem.push('\n');
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_pem_and_derives_the_same_keys() {
        let a = Identity::generate();
        let b = Identity::from_pem(&a.to_pem()).expect("own pem");
        assert_eq!(a.fingerprint(), b.fingerprint());
        assert_eq!(a.derive("x"), b.derive("x"));
        assert_ne!(a.derive("x"), a.derive("y"));
        assert_eq!(a.fingerprint().to_string().parse(), Ok(a.fingerprint()));
        assert_eq!(Identity::from_pem("nonsense").err(), Some(InvalidIdentity));
    }

    #[test]
    fn a_successor_has_a_key_of_its_own_and_derives_the_same_keys() {
        let first = Identity::generate();
        let second = Identity::generate().in_place_of(&first);
        let third = Identity::generate().in_place_of(&second);
        for identity in [&second, &third] {
            let read = Identity::from_pem(&identity.to_pem()).expect("own pem");
            assert_eq!(read.fingerprint(), identity.fingerprint());
            assert_ne!(read.fingerprint(), first.fingerprint());
            assert_eq!(read.derive("journal"), first.derive("journal"));
        }
        let cut = second.to_pem().replace(ROOT_END, "");
        assert_eq!(Identity::from_pem(&cut).err(), Some(InvalidIdentity), "half a root is none");
    }
}
