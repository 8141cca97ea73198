//! Who vouches for a bundle: Ed25519 signatures over its digest, and the keys as everybody else writes them (PEM, PKCS #8 and
//! SubjectPublicKeyInfo).

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};

use super::Digest;

/// The DER prefix of an Ed25519 SubjectPublicKeyInfo (RFC 8410); 32 key bytes follow.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What is signed begins so: no signature of something else is taken for one of a bundle.
const CONTEXT: &[u8] = b"remoting-kafka bundle signature 1\n";

/// A public key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PublicKey([u8; 32]);

/// A private key.
pub struct SigningKey {
    pkcs8: Vec<u8>,
    pair: Ed25519KeyPair,
}

/// A signature of a bundle's digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signature {
    /// Whose.
    pub key: PublicKey,
    /// The signature, in base64.
    pub signature: String,
}

/// The text holds no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no Ed25519 {0} key in it; `rk bundle keygen` makes a pair")]
pub struct InvalidKey(&'static str);

impl SigningKey {
    /// Draws a new one.
    pub fn generate() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("the system has randomness");
        Self::from_pkcs8(pkcs8.as_ref().to_vec()).expect("a key just made is valid")
    }

    /// Reads PEM.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        let der = blocks(pem, "PRIVATE KEY").next().ok_or(InvalidKey("private"))?;
        Self::from_pkcs8(der).ok_or(InvalidKey("private"))
    }

    fn from_pkcs8(pkcs8: Vec<u8>) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).ok()?;
        Some(Self { pkcs8, pair })
    }

    /// The key as PEM: a secret.
    pub fn to_pem(&self) -> String {
        block("PRIVATE KEY", &self.pkcs8)
    }

    /// What others know it by.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes"))
    }

    /// Vouches for a bundle.
    pub fn sign(&self, digest: &Digest) -> Signature {
        let signature = self.pair.sign(&message(digest));
        Signature { key: self.public(), signature: STANDARD.encode(signature.as_ref()) }
    }
}

impl PublicKey {
    /// Reads all keys of a PEM file.
    pub fn all_from_pem(pem: &str) -> Result<Vec<Self>, InvalidKey> {
        let keys: Option<Vec<Self>> = blocks(pem, "PUBLIC KEY").map(|der| Self::from_spki(&der)).collect();
        keys.filter(|keys| !keys.is_empty()).ok_or(InvalidKey("public"))
    }

    fn from_spki(der: &[u8]) -> Option<Self> {
        Some(Self(der.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?))
    }

    /// The key as PEM.
    pub fn to_pem(&self) -> String {
        block("PUBLIC KEY", &[&SPKI_PREFIX, &self.0[..]].concat())
    }

    /// Whether this signature of its own is good.
    pub fn verifies(&self, digest: &Digest, signature: &Signature) -> bool {
        let Ok(bytes) = STANDARD.decode(&signature.signature) else { return false };
        signature.key == *self && UnparsedPublicKey::new(&ED25519, self.0).verify(&message(digest), &bytes).is_ok()
    }
}

/// Whether one of `keys` vouches for the bundle.
pub fn is_signed(digest: &Digest, signatures: &[Signature], keys: &[PublicKey]) -> bool {
    keys.iter().any(|key| signatures.iter().any(|signature| key.verifies(digest, signature)))
}

fn message(digest: &Digest) -> Vec<u8> {
    [CONTEXT, &digest.0].concat()
}

fn blocks<'a>(pem: &'a str, label: &str) -> impl Iterator<Item = Vec<u8>> + use<'a> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut rest = pem;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&begin)?;
        let (body, after) = after.split_once(&end)?;
        rest = after;
        let text: String = body.split_ascii_whitespace().collect();
        // One that is malformed is no key, which its reader says.
        Some(STANDARD.decode(text).unwrap_or_default())
    })
}

fn block(label: &str, der: &[u8]) -> String {
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for PublicKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        let bytes = STANDARD.decode(text).map_err(|_| InvalidKey("public"))?;
        bytes.try_into().map(Self).map_err(|_| InvalidKey("public"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_its_bundle_and_its_key_alone() {
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let signature = key.sign(&one);
        assert!(is_signed(&one, std::slice::from_ref(&signature), &[other.public(), key.public()]));
        assert!(!is_signed(&two, std::slice::from_ref(&signature), &[key.public()]));
        assert!(!is_signed(&one, std::slice::from_ref(&signature), &[other.public()]));
        assert!(!is_signed(&one, &[], &[key.public()]));
        // One that says to be another's is nobody's.
        let stolen = Signature { key: other.public(), ..signature };
        assert!(!is_signed(&one, &[stolen], &[key.public(), other.public()]));
    }

    #[test]
    fn keys_are_read_as_they_are_written_and_several_from_one_file() {
        let keys = [SigningKey::generate(), SigningKey::generate()];
        let pem: String = keys.iter().map(|key| key.public().to_pem()).collect();
        assert_eq!(PublicKey::all_from_pem(&pem), Ok(keys.iter().map(SigningKey::public).collect()));
        assert_eq!(SigningKey::from_pem(&keys[0].to_pem()).expect("a key").public(), keys[0].public());
        for bad in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", &keys[0].to_pem()] {
            assert!(PublicKey::all_from_pem(bad).is_err(), "{bad}");
        }
        assert!(SigningKey::from_pem(&pem).is_err());
    }
}
