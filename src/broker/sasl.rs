//! Who may connect: the mechanisms, the users, and one connection's exchange.

use super::config::Users;
use super::scram::{Challenge, ClientFirst, Hash, ScramError, Verifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;

/// The mechanisms, by the names that clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    Scram(Hash),
}

/// Every mechanism that is served, the strongest first.
pub(crate) const MECHANISMS: [(&str, Mechanism); 3] = [
    ("SCRAM-SHA-512", Mechanism::Scram(Hash::Sha512)),
    ("SCRAM-SHA-256", Mechanism::Scram(Hash::Sha256)),
    ("PLAIN", Mechanism::Plain),
];

/// The mechanism of this name.
pub(crate) fn mechanism(name: &str) -> Option<Mechanism> {
    MECHANISMS.iter().find(|(known, _)| *known == name).map(|(_, mechanism)| *mechanism)
}

/// An exchange that failed; the text goes to the client, as Kafka's does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Authentication failed: {0}")]
pub(crate) struct Denied(pub &'static str);

const BAD_CREDENTIALS: Denied = Denied("invalid user name or password");

/// The users in the form in which they are checked.
pub(crate) struct Accounts {
    users: BTreeMap<String, Account>,
    /// Salts the challenges for unknown users, which must look like those for known ones.
    decoy: [u8; 32],
    random: SystemRandom,
}

struct Account {
    sha256: Verifier,
    sha512: Verifier,
    /// For PLAIN; the password itself is not kept.
    plain: digest::Digest,
}

impl Accounts {
    /// Derives what is needed from the passwords; takes a few milliseconds a user.
    pub fn new(users: &Users) -> Self {
        let random = SystemRandom::new();
        let mut decoy = [0; 32];
        fill(&random, &mut decoy);
        let users = users.0.iter().map(|(name, password)| {
            let mut salt = [0; 16];
            fill(&random, &mut salt);
            let account = Account {
                sha256: Verifier::new(Hash::Sha256, password, &salt),
                sha512: Verifier::new(Hash::Sha512, password, &salt),
                plain: digest::digest(&digest::SHA256, password.as_bytes()),
            };
            (name.clone(), account)
        });
        let users = users.collect();
        Self { users, decoy, random }
    }

    fn challenge(&self, hash: Hash, first: ClientFirst) -> Challenge {
        let verifier = match (self.users.get(&first.user), hash) {
            (Some(account), Hash::Sha256) => account.sha256.clone(),
            (Some(account), Hash::Sha512) => account.sha512.clone(),
            (None, _) => {
                let mut salted = digest::Context::new(&digest::SHA256);
                salted.update(&self.decoy);
                salted.update(first.user.as_bytes());
                let salt = salted.finish();
                Verifier::decoy(hash, &salt.as_ref()[..16], &self.decoy)
            }
        };
        let mut nonce = [0; 18];
        fill(&self.random, &mut nonce);
        Challenge::new(first, verifier, &BASE64.encode(nonce))
    }

    fn check_plain(&self, message: &[u8]) -> Result<String, Denied> {
        let text = std::str::from_utf8(message).map_err(|_| Denied("malformed PLAIN message"))?;
        let mut parts = text.split('\0');
        let (Some(identity), Some(user), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Denied("malformed PLAIN message"));
        };
        if !identity.is_empty() && identity != user {
            return Err(Denied("acting for another user is not served"));
        }
        let shown = digest::digest(&digest::SHA256, password.as_bytes());
        let account = self.users.get(user).ok_or(BAD_CREDENTIALS)?;
        if bool::from(account.plain.as_ref().ct_eq(shown.as_ref())) {
            Ok(user.to_owned())
        } else {
            Err(BAD_CREDENTIALS)
        }
    }
}

fn fill(random: &SystemRandom, bytes: &mut [u8]) {
    random.fill(bytes).expect("the operating system has random numbers");
}

/// One connection's exchange after it named its mechanism.
pub(crate) struct Exchange {
    mechanism: Mechanism,
    challenge: Option<Box<Challenge>>,
}

/// What an exchange's step came to.
pub(crate) enum Step {
    /// Send this and wait for more.
    Challenge(Vec<u8>),
    /// Send this; the user is who they say.
    Done { user: String, answer: Vec<u8> },
}

impl Exchange {
    pub fn new(mechanism: Mechanism) -> Self {
        Self { mechanism, challenge: None }
    }

    /// Takes the client's next message.
    pub fn step(&mut self, accounts: &Accounts, message: &[u8]) -> Result<Step, Denied> {
        let hash = match self.mechanism {
            Mechanism::Plain => {
                return accounts.check_plain(message).map(|user| Step::Done { user, answer: Vec::new() });
            }
            Mechanism::Scram(hash) => hash,
        };
        let denied = |error| match error {
            ScramError::Malformed => Denied("malformed SCRAM message"),
            ScramError::Unsupported => Denied("channel binding and delegation tokens are not served"),
            ScramError::Credentials => BAD_CREDENTIALS,
        };
        let Some(challenge) = self.challenge.take() else {
            let first = ClientFirst::parse(message).map_err(denied)?;
            let challenge = accounts.challenge(hash, first);
            let answer = challenge.message().as_bytes().to_vec();
            self.challenge = Some(Box::new(challenge));
            return Ok(Step::Challenge(answer));
        };
        let answer = challenge.verify(message).map_err(denied)?;
        Ok(Step::Done { user: challenge.user().to_owned(), answer: answer.into_bytes() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_checks_name_and_password() {
        let accounts = Accounts::new(&Users::default().with("alice", "wonder"));
        let step = |message: &[u8]| Exchange::new(Mechanism::Plain).step(&accounts, message);
        assert!(matches!(step(b"\0alice\0wonder"), Ok(Step::Done { user, .. }) if user == "alice"));
        assert!(matches!(step(b"alice\0alice\0wonder"), Ok(Step::Done { .. })));
        for bad in [&b"\0alice\0wonde"[..], b"\0bob\0wonder", b"\0alice", b"", b"\0a\0b\0c", b"bob\0alice\0wonder"] {
            assert!(step(bad).is_err());
        }
    }

    #[test]
    fn unknown_users_get_a_steady_challenge_too() {
        let accounts = Accounts::new(&Users::default().with("alice", "wonder"));
        let salt = || {
            let step = Exchange::new(Mechanism::Scram(Hash::Sha512)).step(&accounts, b"n,,n=nobody,r=abc");
            let Ok(Step::Challenge(text)) = step else { panic!("no challenge") };
            let text = String::from_utf8(text).unwrap();
            text.split(",s=").nth(1).unwrap().to_owned()
        };
        assert_eq!(salt(), salt());
    }
}
