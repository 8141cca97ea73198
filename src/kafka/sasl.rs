//! Logging in: which bytes go to the broker, and what its refusal means.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{SaslAuthenticateRequest, SaslHandshakeRequest},
    protocol::StrBytes,
};
use ring::pbkdf2;
use rsasl::{
    callback::{Context, Request, SessionCallback, SessionData},
    mechanisms::scram::properties::{Iterations, Salt, SaltedPassword},
    prelude::{Mechname, SASLClient, SASLConfig, SessionError, State},
    property::{AuthId, OAuthBearerToken, Password},
};
use std::{num::NonZeroU32, sync::Arc, time::Duration};

use super::{
    Error,
    config::{Login, Mechanism, Sasl},
    connection::Connection,
    token::Tokens,
};
use crate::secret::Secret;

/// More rounds than any sane broker asks for (Kafka: 4,096 to 16,384): a broker may not keep us busy for minutes.
const MOST_ITERATIONS: u32 = 1_000_000;

/// What logs a cluster's connections in. Remembers what is costly: the salted password, the token.
pub(super) struct Authenticator {
    mechanism: Mechanism,
    secrets: Secrets,
}

enum Secrets {
    Password(Arc<Passphrase>),
    Token(Tokens),
}

impl Authenticator {
    pub(super) fn new(sasl: &Sasl) -> Self {
        let mechanism = sasl.mechanism();
        let secrets = match sasl {
            Sasl::Plain(login) | Sasl::ScramSha256(login) | Sasl::ScramSha512(login) => {
                Secrets::Password(Arc::new(Passphrase { mechanism, login: login.clone(), salted: Mutex::default() }))
            }
            Sasl::OauthBearer(source) => Secrets::Token(Tokens::new(source.clone())),
        };
        Self { mechanism, secrets }
    }

    /// Logs `connection` in. Returns how long the login lasts, where the broker limits it.
    pub(super) async fn login(&self, connection: &Connection, limit: Duration) -> Result<Option<Duration>, Error> {
        let refused = |detail: String| Error::Login { broker: connection.broker().to_string(), detail };
        let config = match &self.secrets {
            Secrets::Password(password) => {
                SASLConfig::builder().with_defaults().with_callback(Shared(Arc::clone(password)))
            }
            Secrets::Token(tokens) => {
                SASLConfig::builder().with_defaults().with_callback(Bearer(tokens.current().await.map_err(&refused)?))
            }
        }
        .map_err(|e| refused(e.to_string()))?;
        let name = self.mechanism.name();
        self.handshake(connection, limit).await?;
        let mechname = Mechname::parse(name.as_bytes()).expect("our names are well-formed");
        let mut session = SASLClient::new(config).start_suggested(&[mechname]).map_err(|e| refused(e.to_string()))?;
        let mut received: Option<Bytes> = None;
        let mut lifetime = None;
        loop {
            if let Some(received) = &received {
                check_iterations(self.mechanism, received).map_err(&refused)?;
            }
            let mut message = Vec::new();
            let state = session.step(received.as_deref(), &mut message).map_err(|e| refused(self.explain(&e)))?;
            if state.has_sent_message() {
                let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
                let response = connection.call(&request, limit).await?;
                if response.error_code != 0 {
                    let said = response.error_message.as_ref().map(|m| m.to_string()).unwrap_or_default();
                    return Err(refused(self.cure(&said)));
                }
                lifetime = u64::try_from(response.session_lifetime_ms).ok().filter(|ms| *ms > 0);
                received = Some(response.auth_bytes);
            }
            // A token's login ends with the broker's first answer: empty, or JSON that says what is wrong.
            let token_answer = received.as_deref().filter(|_| self.mechanism == Mechanism::OauthBearer);
            if let Some(answer) = token_answer.filter(|answer| !answer.is_empty()) {
                return Err(refused(self.cure(&String::from_utf8_lossy(answer))));
            }
            if matches!(state, State::Finished(_)) || token_answer.is_some() {
                return Ok(lifetime.map(Duration::from_millis));
            }
        }
    }

    async fn handshake(&self, connection: &Connection, limit: Duration) -> Result<(), Error> {
        let name = self.mechanism.name();
        let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(name));
        let response = connection.call(&request, limit).await?;
        let detail = match ResponseError::try_from_code(response.error_code) {
            None => return Ok(()),
            Some(ResponseError::UnsupportedSaslMechanism) => {
                let offered: Vec<_> = response.mechanisms.iter().map(|m| m.as_str()).collect();
                format!("{name} is not enabled at this listener; it offers {}", offered.join(", "))
            }
            Some(ResponseError::IllegalSaslState) => {
                "this listener takes no SASL login; leave it out, or use the port of a SASL listener".to_owned()
            }
            Some(other) => super::code::name(other),
        };
        Err(Error::Login { broker: connection.broker().to_string(), detail })
    }

    fn cure(&self, said: &str) -> String {
        let said = if said.is_empty() { "no reason given" } else { said };
        match &self.secrets {
            Secrets::Password(p) => format!(
                "the broker said {said:?}; check user {:?}, its password, and that it exists for {}",
                p.login.user,
                self.mechanism.name()
            ),
            Secrets::Token(tokens) => {
                format!("the broker said {said:?}; check the token from {tokens}: its end, audience and issuer")
            }
        }
    }

    fn explain(&self, error: &SessionError) -> String {
        match error {
            SessionError::MutualAuthenticationFailed => {
                "the broker could not prove that it knows our password; this may be an impostor".to_owned()
            }
            other => self.cure(&other.to_string()),
        }
    }
}

/// A SCRAM server says how many rounds of hashing it wants (`i=`): too many would block us.
fn check_iterations(mechanism: Mechanism, message: &[u8]) -> Result<(), String> {
    if !matches!(mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha512) {
        return Ok(());
    }
    let asked = message.split(|b| *b == b',').find_map(|part| part.strip_prefix(b"i="));
    let Some(asked) = asked else { return Ok(()) };
    let rounds = std::str::from_utf8(asked).ok().and_then(|text| text.parse::<u32>().ok());
    match rounds {
        Some(rounds) if rounds <= MOST_ITERATIONS => Ok(()),
        _ => Err(format!("the broker asks for {} SCRAM iterations", String::from_utf8_lossy(asked))),
    }
}

/// Name, password, and the password salted as the broker last asked for.
struct Passphrase {
    mechanism: Mechanism,
    login: Login,
    salted: Mutex<Option<Salted>>,
}

#[derive(Clone)]
struct Salted {
    salt: Vec<u8>,
    iterations: u32,
    key: Secret<Vec<u8>>,
}

impl Passphrase {
    /// Thousands of rounds of hashing, done once per salt and not once per connection.
    fn salted(&self, salt: &[u8], iterations: u32) -> Option<Secret<Vec<u8>>> {
        let (algorithm, size) = match self.mechanism {
            Mechanism::ScramSha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
            Mechanism::ScramSha512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
            _ => return None,
        };
        let rounds = NonZeroU32::new(iterations)?;
        let mut cached = self.salted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = cached.as_ref().filter(|s| s.salt == salt && s.iterations == iterations) {
            return Some(known.key.clone());
        }
        let mut key = vec![0; size];
        pbkdf2::derive(algorithm, rounds, salt, self.login.password.expose().as_bytes(), &mut key);
        let key = Secret::new(key);
        *cached = Some(Salted { salt: salt.to_vec(), iterations, key: key.clone() });
        Some(key)
    }
}

struct Shared(Arc<Passphrase>);

impl SessionCallback for Shared {
    fn callback(&self, _: &SessionData, context: &Context<'_>, request: &mut Request<'_>) -> Result<(), SessionError> {
        if request.is::<SaltedPassword>()
            && let (Some(salt), Some(iterations)) = (context.get_ref::<Salt>(), context.get_ref::<Iterations>())
            && let Some(key) = self.0.salted(salt, *iterations)
        {
            request.satisfy::<SaltedPassword>(key.expose())?;
        }
        request
            .satisfy::<AuthId>(&self.0.login.user)?
            .satisfy::<Password>(self.0.login.password.expose().as_bytes())?;
        Ok(())
    }
}

struct Bearer(Secret<String>);

impl SessionCallback for Bearer {
    fn callback(&self, _: &SessionData, _: &Context<'_>, request: &mut Request<'_>) -> Result<(), SessionError> {
        request.satisfy::<OAuthBearerToken>(self.0.expose())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_cannot_ask_for_hours_of_hashing() {
        let check = |message: &[u8]| check_iterations(Mechanism::ScramSha256, message);
        assert_eq!(check(b"r=abc,s=c2FsdA==,i=4096"), Ok(()));
        assert!(check(b"r=abc,s=c2FsdA==,i=4294967295").is_err());
        assert!(check(b"r=abc,s=c2FsdA==,i=99999999999999").is_err());
        assert_eq!(check(b"v=xyz"), Ok(()));
    }

    #[test]
    fn the_salted_password_is_that_of_rfc_7677_and_is_kept() {
        let login = Login { user: "user".to_owned(), password: Secret::new("pencil".to_owned()) };
        let password = Passphrase { mechanism: Mechanism::ScramSha256, login, salted: Mutex::default() };
        let salt = b"[m\x99h\x9d\x125\x8e\xec\xa0K\x14\x126\xfa\x81";
        let key = password.salted(salt, 4096).expect("a key");
        // HMAC(SaltedPassword, "Client Key") is what the RFC's example proves; here only that it is stable.
        assert_eq!(key, password.salted(salt, 4096).expect("the kept key"));
        assert_ne!(key, password.salted(b"other", 4096).expect("another key"));
    }
}
