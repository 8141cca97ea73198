//! How to reach a cluster: addresses, TLS, login, patience.
//!
//! Plain data with defaults. It knows no flags, no environment and no YAML (the `config` layer does), and reading the
//! files it names is left to those who connect.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::secret::Secret;

/// Where the cluster is and how to get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Bootstrap addresses, `host:port` (IPv6 as `[::1]:9092`). A dead one costs a fraction of a second; name at least
    /// two where there are several brokers. Default: `localhost:9092`.
    pub brokers: Vec<String>,
    /// TLS towards the brokers. Default: none, which suits only a loopback or otherwise protected network.
    pub tls: Option<Tls>,
    /// The login. Default: none.
    pub sasl: Option<Sasl>,
    /// What brokers see in their logs and quotas. Default: `rk`; see [`client_id`].
    pub client_id: String,
    /// How long DNS, TCP, TLS and login of one broker may take together. Default: 10 s.
    pub connect_timeout: Duration,
    /// How long a name lookup and a TCP connect may take before the next address gets its turn as the only hope.
    /// Default: 3 s. A further address is tried after 250 ms already, at the same time.
    pub tcp_timeout: Duration,
    /// How long a broker may take to answer, apart from waits that we ask for. Default: 30 s. At most 30 s.
    pub request_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: vec!["localhost:9092".to_owned()],
            tls: None,
            sasl: None,
            client_id: "rk".to_owned(),
            connect_timeout: Duration::from_secs(10),
            tcp_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// The `client.id` of one of ours, `rk-<role>-<name>`, so that admins can find it and set quotas. Characters that
/// Kafka's metrics cannot name become `_`.
pub fn client_id(role: &str, name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    format!("rk-{role}-{name}").chars().map(fits).collect()
}

impl Config {
    /// Refuses what cannot work, before anybody waits for a timeout.
    pub fn check(&self) -> Result<(), Error> {
        if self.brokers.is_empty() {
            return Err(Error::Config("no broker address is given; name at least one as host:port".to_owned()));
        }
        for broker in &self.brokers {
            broker.parse::<Address>().map_err(Error::Config)?;
        }
        if let (None, Some(Sasl::Plain(_) | Sasl::OauthBearer(_))) = (&self.tls, &self.sasl) {
            tracing::warn!("the Kafka password goes over the network unencrypted: PLAIN and OAUTHBEARER want TLS");
        }
        Ok(())
    }

    /// The name in Kafka's access rules, as far as we can know it.
    pub fn principal(&self) -> String {
        match &self.sasl {
            Some(Sasl::Plain(login) | Sasl::ScramSha256(login) | Sasl::ScramSha512(login)) => {
                format!("User:{}", login.user)
            }
            Some(Sasl::OauthBearer(_)) => "User:<the token's subject>".to_owned(),
            None if self.tls.as_ref().is_some_and(|tls| tls.client.is_some()) => {
                "User:<the certificate's subject>".to_owned()
            }
            None => "User:ANONYMOUS".to_owned(),
        }
    }
}

/// A broker's `host:port`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong =
            || format!("broker address {s:?} is refused; write host:port, for example kafka-1.example.org:9093");
        let (host, port) = s.trim().rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        if host.is_empty() || host.contains(['/', ' ']) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// TLS towards the brokers. The broker's name is always checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Whom we trust to sign the brokers' certificates. Default: the system's authorities.
    pub roots: Roots,
    /// Our own certificate, where brokers ask for one.
    pub client: Option<ClientCertificate>,
}

/// Whom we trust to sign.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Roots {
    /// The authorities that this machine trusts.
    #[default]
    System,
    /// Only these.
    Pem(Pem),
}

/// A client certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate and those between it and the authority.
    pub chain: Pem,
    /// Its private key, not encrypted. May be the same file.
    pub key: Pem,
}

/// PEM, in a file or at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file, read anew whenever a client is made.
    File(PathBuf),
    /// The text itself.
    Text(Secret<String>),
}

/// How we log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sasl {
    /// `PLAIN`: the password goes over the wire; only inside TLS.
    Plain(Login),
    /// `SCRAM-SHA-256`.
    ScramSha256(Login),
    /// `SCRAM-SHA-512`.
    ScramSha512(Login),
    /// `OAUTHBEARER`.
    OauthBearer(TokenSource),
}

impl Sasl {
    /// A login by name and password with `mechanism`.
    pub fn password(mechanism: Mechanism, login: Login) -> Result<Self, Error> {
        match mechanism {
            Mechanism::Plain => Ok(Self::Plain(login)),
            Mechanism::ScramSha256 => Ok(Self::ScramSha256(login)),
            Mechanism::ScramSha512 => Ok(Self::ScramSha512(login)),
            Mechanism::OauthBearer => {
                Err(Error::Config("OAUTHBEARER takes a token file or a token command, not a password".to_owned()))
            }
        }
    }

    /// Its mechanism.
    pub fn mechanism(&self) -> Mechanism {
        match self {
            Self::Plain(_) => Mechanism::Plain,
            Self::ScramSha256(_) => Mechanism::ScramSha256,
            Self::ScramSha512(_) => Mechanism::ScramSha512,
            Self::OauthBearer(_) => Mechanism::OauthBearer,
        }
    }
}

/// A Kafka user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: Secret<String>,
}

/// Where an OAuth token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A file that somebody renews; it is read for every login.
    File(PathBuf),
    /// A program (with arguments, no shell) that prints a token. It runs again when the last token has less than a
    /// fifth of its life left, or for each login if the token does not say when it ends.
    Command(Vec<String>),
}

/// A SASL mechanism, by Kafka's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
}

impl Mechanism {
    const ALL: [Self; 4] = [Self::Plain, Self::ScramSha256, Self::ScramSha512, Self::OauthBearer];

    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }
}

impl FromStr for Mechanism {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|m| m.name().eq_ignore_ascii_case(s)).ok_or_else(|| {
            format!("SASL mechanism {s:?} is not supported; use SCRAM-SHA-512, SCRAM-SHA-256, PLAIN or OAUTHBEARER")
        })
    }
}

/// Kafka's `security.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum Protocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl Protocol {
    /// Whether it is TLS.
    pub fn tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether it wants a login.
    pub fn sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Ok(match s.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => Self::Plaintext,
            "SSL" => Self::Ssl,
            "SASL_PLAINTEXT" => Self::SaslPlaintext,
            "SASL_SSL" => Self::SaslSsl,
            _ => {
                return Err(format!(
                    "security protocol {s:?} is unknown; use PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_shape() {
        for (text, host) in [("a.example:9092", "a.example"), ("[::1]:9093", "::1"), ("10.0.0.1:1", "10.0.0.1")] {
            let address: Address = text.parse().expect("an address");
            assert_eq!((address.host.as_str(), address.to_string().as_str()), (host, text));
        }
        for wrong in ["", "host", "host:", ":9092", "host:0", "host:99999", "http://host:1", "a b:1"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_client_id_names_role_and_agent() {
        assert_eq!(client_id("agent", "web 1/ü"), "rk-agent-web_1__");
    }

    #[test]
    fn a_password_shows_nowhere() {
        let login = Login { user: "rk".to_owned(), password: Secret::new("hunter2".to_owned()) };
        let config = Config { sasl: Some(Sasl::Plain(login)), ..Config::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
