//! The server's side of SCRAM (RFC 5802, RFC 7677) and what is kept of a password.
//!
//! Pure but for the nonce that is handed in: a first message makes a challenge, a final one makes a verdict.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use subtle::ConstantTimeEq;

/// Kafka's own default, for passwords that come in clear from a file beside the broker.
pub(crate) const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");

/// The two hashes that Kafka has for SCRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Hash {
    #[serde(rename = "SCRAM-SHA-256")]
    Sha256,
    #[serde(rename = "SCRAM-SHA-512")]
    Sha512,
}

impl Hash {
    /// Bytes of a key or a salted password.
    pub fn length(self) -> usize {
        self.digest().output_len()
    }

    fn mac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn derivation(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// What the server keeps of a password: enough to verify a proof, not enough to make one.
#[derive(Clone)]
pub(crate) struct Verifier {
    pub hash: Hash,
    pub iterations: NonZeroU32,
    pub salt: Vec<u8>,
    pub stored_key: Vec<u8>,
    pub server_key: Vec<u8>,
}

impl Verifier {
    pub fn new(hash: Hash, password: &str, salt: &[u8]) -> Self {
        let mut salted = vec![0; hash.length()];
        pbkdf2::derive(hash.derivation(), ITERATIONS, salt, password.as_bytes(), &mut salted);
        Self::from_salted(hash, ITERATIONS, salt, &salted)
    }

    /// From what a client made of the password with this salt and so many iterations.
    pub fn from_salted(hash: Hash, iterations: NonZeroU32, salt: &[u8], salted: &[u8]) -> Self {
        let client_key = mac(hash, salted, b"Client Key");
        Self {
            hash,
            iterations,
            salt: salt.to_vec(),
            stored_key: digest::digest(hash.digest(), client_key.as_ref()).as_ref().to_vec(),
            server_key: mac(hash, salted, b"Server Key").as_ref().to_vec(),
        }
    }

    /// A verifier that no password satisfies, for a user that does not exist: made as fast as a known user's is found.
    pub fn decoy(hash: Hash, salt: &[u8], secret: &[u8]) -> Self {
        let (salt, key) = (salt.to_vec(), secret.to_vec());
        Self { hash, iterations: ITERATIONS, salt, stored_key: key.clone(), server_key: key }
    }
}

/// Why an exchange ended without success. The client is told no more than Kafka would tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScramError {
    #[error("malformed SCRAM message")]
    Malformed,
    #[error("channel binding and delegation tokens are not served")]
    Unsupported,
    #[error("invalid credentials")]
    Credentials,
}

/// The client's first message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFirst {
    pub user: String,
    nonce: String,
    /// The message without its header, as the proof covers it.
    bare: String,
    /// The header, which the final message repeats.
    header: String,
}

impl ClientFirst {
    pub fn parse(message: &[u8]) -> Result<Self, ScramError> {
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
        let mut parts = text.splitn(3, ',');
        let (binding, authorization) = (parts.next().unwrap_or(""), parts.next().ok_or(ScramError::Malformed)?);
        let bare = parts.next().ok_or(ScramError::Malformed)?;
        if binding.starts_with("p=") {
            return Err(ScramError::Unsupported);
        }
        if !matches!(binding, "n" | "y") {
            return Err(ScramError::Malformed);
        }
        let mut attributes = bare.split(',');
        let user = attributes.next().and_then(|a| a.strip_prefix("n=")).ok_or(ScramError::Malformed)?;
        let nonce = attributes.next().and_then(|a| a.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if nonce.is_empty() {
            return Err(ScramError::Malformed);
        }
        if attributes.any(|a| a.eq_ignore_ascii_case("tokenauth=true")) {
            return Err(ScramError::Unsupported);
        }
        let user = user.replace("=2C", ",").replace("=3D", "=");
        if let Some(identity) = authorization.strip_prefix("a=")
            && identity.replace("=2C", ",").replace("=3D", "=") != user
        {
            return Err(ScramError::Unsupported);
        }
        Ok(Self { user, nonce: nonce.to_owned(), bare: bare.to_owned(), header: format!("{binding},{authorization},") })
    }
}

/// An exchange between the server's challenge and the client's proof.
pub(crate) struct Challenge {
    first: ClientFirst,
    verifier: Verifier,
    nonce: String,
    server_first: String,
}

impl Challenge {
    /// Answers a first message; `server_nonce` is printable and has no comma.
    pub fn new(first: ClientFirst, verifier: Verifier, server_nonce: &str) -> Self {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        Self { first, verifier, nonce, server_first }
    }

    /// The user that the exchange is about.
    pub fn user(&self) -> &str {
        &self.first.user
    }

    /// The message for the client.
    pub fn message(&self) -> &str {
        &self.server_first
    }

    /// Checks the client's proof; the answer proves in turn that the server knows the password.
    pub fn verify(&self, message: &[u8]) -> Result<String, ScramError> {
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
        let (unproved, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let proof = BASE64.decode(proof).map_err(|_| ScramError::Malformed)?;
        let mut attributes = unproved.split(',');
        let binding = attributes.next().and_then(|a| a.strip_prefix("c=")).ok_or(ScramError::Malformed)?;
        let nonce = attributes.next().and_then(|a| a.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if BASE64.decode(binding).ok().as_deref() != Some(self.first.header.as_bytes()) {
            return Err(ScramError::Malformed);
        }
        if nonce != self.nonce {
            return Err(ScramError::Credentials);
        }
        let covered = format!("{},{},{unproved}", self.first.bare, self.server_first);
        let hash = self.verifier.hash;
        let signature = mac(hash, &self.verifier.stored_key, covered.as_bytes());
        if proof.len() != signature.as_ref().len() {
            return Err(ScramError::Credentials);
        }
        let client_key: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let shown = digest::digest(hash.digest(), &client_key);
        if !bool::from(shown.as_ref().ct_eq(&self.verifier.stored_key)) {
            return Err(ScramError::Credentials);
        }
        let signature = mac(hash, &self.verifier.server_key, covered.as_bytes());
        Ok(format!("v={}", BASE64.encode(signature.as_ref())))
    }
}

fn mac(hash: Hash, key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hash.mac(), key), data)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A client's last message, for the first one `bare` and the server's answer to it.
    pub(crate) fn answer(hash: Hash, bare: &str, server_first: &str, password: &str) -> String {
        let field = |name: &str| server_first.split(',').find_map(|a| a.strip_prefix(name)).unwrap();
        let salt = BASE64.decode(field("s=")).unwrap();
        let mut salted = vec![0; hash.length()];
        let iterations = field("i=").parse().unwrap();
        pbkdf2::derive(hash.derivation(), iterations, &salt, password.as_bytes(), &mut salted);
        let client_key = mac(hash, &salted, b"Client Key");
        let stored_key = digest::digest(hash.digest(), client_key.as_ref());
        let unproved = format!("c=biws,r={}", field("r="));
        let signature = mac(hash, stored_key.as_ref(), format!("{bare},{server_first},{unproved}").as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        format!("{unproved},p={}", BASE64.encode(proof))
    }

    /// The exchange that RFC 7677 prints.
    #[test]
    fn the_exchange_of_the_standard_is_accepted() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::new(Hash::Sha256, "pencil", &salt);
        let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        assert_eq!(first.user, "user");
        let challenge = Challenge::new(first, verifier, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
        assert_eq!(
            challenge.message(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(challenge.verify(last.as_bytes()).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let forged = last.replace("dHz", "dHy");
        assert_eq!(challenge.verify(forged.as_bytes()), Err(ScramError::Credentials));
    }

    #[test]
    fn escaped_names_are_read() {
        assert_eq!(ClientFirst::parse(b"n,,n=a=2Cb=3Dc,r=x").unwrap().user, "a,b=c");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(first in ".{0,80}", last in ".{0,120}") {
            let _ = ClientFirst::parse(first.as_bytes());
            let good = ClientFirst::parse(b"n,,n=u,r=x").unwrap();
            let (salt, stored_key, server_key) = (vec![1], vec![2], vec![3]);
            let verifier = Verifier { hash: Hash::Sha512, iterations: ITERATIONS, salt, stored_key, server_key };
            let _ = Challenge::new(good, verifier, "y").verify(last.as_bytes());
        }
    }
}
