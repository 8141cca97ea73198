//! The embedded broker's configuration.

use super::Error;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What the embedded broker is told. `Config::default()` is a plaintext listener without users over `./broker-data`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of the logs; created if missing, and locked against a second broker.
    pub data: PathBuf,
    /// How clients are received.
    pub listener: ListenerConfig,
    /// Users who may do everything, by their names. If there is one, access control lists count: everybody else may do
    /// only what a list in the data directory allows them, which is nothing at first. Default none: lists count for
    /// nothing, and everybody who may connect may do everything. A client that need not log in is `ANONYMOUS`.
    pub super_users: BTreeSet<String>,
    /// Host name or address that clients are told to connect to. None: the address that the listener is bound to,
    /// or `localhost` if that is all interfaces. It must be one that every client can reach.
    pub advertised_host: Option<String>,
    /// Port that clients are told to connect to. None: the listener's.
    pub advertised_port: Option<u16>,
    /// Age at which records go, for topics that don't set `retention.ms`. None: never. Default 7 days.
    pub retention: Option<Duration>,
    /// Size per partition at which the oldest records go, for topics that don't set `retention.bytes`. Default none.
    pub retention_bytes: Option<u64>,
    /// Size at which a new segment file begins, for topics that don't set `segment.bytes`. Records go only segment by
    /// segment: smaller follows retention closer, larger means fewer files. Default 64 MiB.
    pub segment_bytes: u64,
    /// Age at which a new segment file begins, for topics that don't set `segment.ms`. Default 7 days.
    pub segment_age: Duration,
    /// How often retention is looked after. Default 5 s.
    pub retention_check: Duration,
    /// Largest record batch, for topics that don't set `max.message.bytes`. Default 1 MiB and 12 bytes, as Kafka's.
    pub max_message_bytes: usize,
    /// When written records are forced to stable storage. See [`Sync`].
    pub sync: Sync,
    /// Bytes of each partition's newest batches that are kept in memory too. Default 4 MiB: a reader that is no
    /// further behind never reads a file.
    pub cache_bytes: usize,
    /// Connections at a time; further ones are closed at once. Default 4096.
    pub max_connections: usize,
    /// Time that a client has for TLS and authentication together. Default 10 s.
    pub handshake_timeout: Duration,
    /// A connection on which nothing arrives for so long is closed. Default 10 minutes, as Kafka's.
    pub idle_timeout: Duration,
    /// How many milliseconds the stamps on records are off the clock; for tests of what a wrong clock does. Default 0.
    pub clock_offset_ms: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("broker-data"),
            listener: ListenerConfig::default(),
            super_users: BTreeSet::new(),
            advertised_host: None,
            advertised_port: None,
            retention: Some(Duration::from_secs(7 * 24 * 3600)),
            retention_bytes: None,
            segment_bytes: 64 << 20,
            segment_age: Duration::from_secs(7 * 24 * 3600),
            retention_check: Duration::from_secs(5),
            max_message_bytes: (1 << 20) + 12,
            sync: Sync::default(),
            cache_bytes: 4 << 20,
            max_connections: 4096,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            clock_offset_ms: 0,
        }
    }
}

/// When written records are forced to stable storage.
///
/// Whatever is chosen, an acknowledged record is with the operating system: it outlives the death of the broker's
/// process. The choice is about the death of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before every acknowledgement: a power cut loses nothing; each produce waits for the disk.
    Always,
    /// At this interval: a power cut loses at most so much. The default, with 1 s.
    Every(Duration),
    /// When the operating system likes.
    Never,
}

impl Default for Sync {
    fn default() -> Self {
        Self::Every(Duration::from_secs(1))
    }
}

/// How clients are received: encrypted or not, with or without passwords.
#[derive(Clone, Default)]
pub struct ListenerConfig {
    /// TLS; none: plaintext, which belongs on loopback only.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who may connect, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; none: everybody. Requests can add users, for the two
    /// SCRAM mechanisms, and change or delete these. What each may do: [`Config::super_users`].
    pub sasl: Option<Users>,
}

impl ListenerConfig {
    /// No encryption, no passwords.
    pub fn plaintext() -> Self {
        Self::default()
    }

    /// TLS with the certificate chain and key in PEM files. With `client_ca`, clients must show a certificate that
    /// one of its authorities signed.
    ///
    /// # Errors
    /// A file that is missing, no PEM, or does not fit the other.
    pub fn tls_from_pem(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|e| pem(key, &e))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Tls(e.to_string()))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path)? {
                    roots.add(authority).map_err(|e| Error::Tls(format!("{}: {e}", path.display())))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|e| Error::Tls(format!("{}: {e}", path.display())))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder
            .with_single_cert(chain, private)
            .map_err(|e| Error::Tls(format!("{} with {}: {e}", certificate.display(), key.display())))?;
        Ok(Self { tls: Some(Arc::new(config)), sasl: None })
    }

    /// The same with users, who must authenticate.
    #[must_use]
    pub fn with_users(mut self, users: Users) -> Self {
        self.sasl = Some(users);
        self
    }
}

impl fmt::Debug for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerConfig").field("tls", &self.tls.is_some()).field("sasl", &self.sasl).finish()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| pem(path, &e))?;
    let chain = read.collect::<Result<Vec<_>, _>>().map_err(|e| pem(path, &e))?;
    if chain.is_empty() {
        return Err(Error::Tls(format!("{} holds no certificate", path.display())));
    }
    Ok(chain)
}

fn pem(path: &Path, error: &rustls::pki_types::pem::Error) -> Error {
    Error::Tls(format!("{}: {error}", path.display()))
}

/// Names and passwords of those who may connect.
#[derive(Clone, Default)]
pub struct Users(pub(crate) BTreeMap<String, String>);

impl Users {
    /// Adds a user, or gives a known one a new password.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.0.insert(name.into(), password.into());
        self
    }
}

impl<N: Into<String>, P: Into<String>> FromIterator<(N, P)> for Users {
    fn from_iter<I: IntoIterator<Item = (N, P)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, password)| (name.into(), password.into())).collect())
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, "***"))).finish()
    }
}
