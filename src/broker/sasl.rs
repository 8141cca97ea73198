//! Who may connect: the mechanisms, the users, and one connection's exchange.

use super::config::Users;
use super::credentials::Credentials;
use super::scram::{self, Challenge, ClientFirst, Hash, ScramError, Verifier};
use crate::secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::digest;
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

/// The users in the form in which they are checked: those of the configuration, and what requests made of them.
///
/// A credential that was given or deleted by request counts instead of the configured password: for its mechanism,
/// and for PLAIN, which no request gives a password.
pub(crate) struct Accounts {
    configured: BTreeMap<String, Account>,
    pub credentials: Credentials,
    /// Salts the challenges for unknown users, which must look like those for known ones.
    decoy: [u8; 32],
}

struct Account {
    sha256: Verifier,
    sha512: Verifier,
    /// For PLAIN; the password itself is not kept.
    plain: digest::Digest,
}

impl Accounts {
    /// Derives what is needed from the passwords; takes a few milliseconds a user.
    pub fn new(users: &Users, credentials: Credentials) -> Self {
        let users = users.0.iter().map(|(name, password)| {
            let salt: [u8; 16] = secret::random();
            let account = Account {
                sha256: Verifier::new(Hash::Sha256, password, &salt),
                sha512: Verifier::new(Hash::Sha512, password, &salt),
                plain: digest::digest(&digest::SHA256, password.as_bytes()),
            };
            (name.clone(), account)
        });
        let configured: BTreeMap<_, _> = users.collect();
        for user in configured.keys().filter(|user| credentials.knows(user)) {
            tracing::warn!(user, "configured password is not used where a request changed or deleted the credential");
        }
        Self { configured, credentials, decoy: secret::random() }
    }

    /// The credentials that there are, with the number of iterations of each.
    pub fn described(&self) -> BTreeMap<String, BTreeMap<Hash, u32>> {
        let mut all = BTreeMap::<String, BTreeMap<Hash, u32>>::new();
        for user in self.configured.keys() {
            let both = [Hash::Sha256, Hash::Sha512].map(|hash| (hash, scram::ITERATIONS.get()));
            all.insert(user.clone(), both.into());
        }
        for ((user, hash), verifier) in self.credentials.all().iter() {
            let known = all.entry(user.clone()).or_default();
            match verifier {
                Some(verifier) => known.insert(*hash, verifier.iterations.get()),
                None => known.remove(hash),
            };
        }
        all.retain(|_, known| !known.is_empty());
        all
    }

    /// Whether the configuration names this user.
    pub fn is_configured(&self, user: &str) -> bool {
        self.configured.contains_key(user)
    }

    fn verifier(&self, user: &str, hash: Hash) -> Option<Verifier> {
        if let Some(known) = self.credentials.find(user, hash) {
            return known;
        }
        let account = self.configured.get(user)?;
        Some(match hash {
            Hash::Sha256 => account.sha256.clone(),
            Hash::Sha512 => account.sha512.clone(),
        })
    }

    fn challenge(&self, hash: Hash, first: ClientFirst) -> Challenge {
        let verifier = match self.verifier(&first.user, hash) {
            Some(verifier) => verifier,
            None => {
                let mut salted = digest::Context::new(&digest::SHA256);
                salted.update(&self.decoy);
                salted.update(first.user.as_bytes());
                let salt = salted.finish();
                Verifier::decoy(hash, &salt.as_ref()[..16], &self.decoy)
            }
        };
        Challenge::new(first, verifier, &BASE64.encode(secret::random::<18>()))
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
        let account = self.configured.get(user).filter(|_| !self.credentials.knows(user)).ok_or(BAD_CREDENTIALS)?;
        if bool::from(account.plain.as_ref().ct_eq(shown.as_ref())) {
            Ok(user.to_owned())
        } else {
            Err(BAD_CREDENTIALS)
        }
    }
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
    use crate::broker::credentials::{Change, Changed};

    fn accounts(directory: &tempfile::TempDir) -> Accounts {
        let credentials = Credentials::open(directory.path()).unwrap();
        Accounts::new(&Users::default().with("alice", "wonder"), credentials)
    }

    /// Whether a password is right, as a client finds out.
    fn lets_in(accounts: &Accounts, hash: Hash, user: &str, password: &str) -> bool {
        let first = ClientFirst::parse(format!("n,,n={user},r=abc").as_bytes()).unwrap();
        let challenge = accounts.challenge(hash, first);
        let last = scram::tests::answer(hash, &format!("n={user},r=abc"), challenge.message(), password);
        challenge.verify(last.as_bytes()).is_ok()
    }

    #[test]
    fn a_changed_or_deleted_credential_ends_the_configured_password() {
        let directory = tempfile::tempdir().unwrap();
        let open = || accounts(&directory);
        let accounts = open();
        let plain = |accounts: &Accounts| accounts.check_plain(b"\0alice\0wonder").is_ok();
        assert!(plain(&accounts) && lets_in(&accounts, Hash::Sha256, "alice", "wonder"));
        let verifier = Verifier::new(Hash::Sha512, "through the glass", b"salt");
        let changed = accounts.credentials.alter([("alice", Hash::Sha512, Change::Set(verifier))]).unwrap();
        assert_eq!(changed, [Changed::Done]);
        for accounts in [&accounts, &open()] {
            assert!(lets_in(accounts, Hash::Sha512, "alice", "through the glass"));
            assert!(!lets_in(accounts, Hash::Sha512, "alice", "wonder"));
            assert!(lets_in(accounts, Hash::Sha256, "alice", "wonder"), "the other mechanism's credential is its own");
            assert!(!plain(accounts));
        }
        let delete = |hash| accounts.credentials.alter([("alice", hash, Change::Delete { configured: true })]).unwrap();
        assert_eq!((delete(Hash::Sha512), delete(Hash::Sha256)), (vec![Changed::Done], vec![Changed::Done]));
        assert_eq!(delete(Hash::Sha256), [Changed::Absent]);
        for accounts in [&accounts, &open()] {
            assert!(!lets_in(accounts, Hash::Sha512, "alice", "through the glass"));
            assert!(!lets_in(accounts, Hash::Sha256, "alice", "wonder") && !plain(accounts));
            assert!(accounts.described().is_empty());
        }
    }

    #[test]
    fn plain_checks_name_and_password() {
        let directory = tempfile::tempdir().unwrap();
        let accounts = accounts(&directory);
        let step = |message: &[u8]| Exchange::new(Mechanism::Plain).step(&accounts, message);
        assert!(matches!(step(b"\0alice\0wonder"), Ok(Step::Done { user, .. }) if user == "alice"));
        assert!(matches!(step(b"alice\0alice\0wonder"), Ok(Step::Done { .. })));
        for bad in [&b"\0alice\0wonde"[..], b"\0bob\0wonder", b"\0alice", b"", b"\0a\0b\0c", b"bob\0alice\0wonder"] {
            assert!(step(bad).is_err());
        }
    }

    #[test]
    fn unknown_users_get_a_steady_challenge_too() {
        let directory = tempfile::tempdir().unwrap();
        let accounts = accounts(&directory);
        let salt = || {
            let step = Exchange::new(Mechanism::Scram(Hash::Sha512)).step(&accounts, b"n,,n=nobody,r=abc");
            let Ok(Step::Challenge(text)) = step else { panic!("no challenge") };
            let text = String::from_utf8(text).unwrap();
            text.split(",s=").nth(1).unwrap().to_owned()
        };
        assert_eq!(salt(), salt());
    }
}
