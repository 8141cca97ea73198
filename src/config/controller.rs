//! Settings of a controller.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{Error, Settings, keys};
use crate::{
    certs::{self, Validity},
    controller::{Config, Limits, scheduler},
    kafka::topics::Manage,
};

impl Settings {
    /// The controller's settings.
    pub fn controller(&self) -> Result<Config, Error> {
        let usual = scheduler::Config::default();
        let jobs = scheduler::Config {
            deadline: self.duration(&keys::LOST_AFTER)?,
            keep: self.duration(&keys::KEEP_JOBS_FOR)?.unwrap_or(usual.keep),
            keep_jobs: self.number(&keys::KEEP_JOBS)?.unwrap_or(usual.keep_jobs),
            artifacts_age: self.duration(&keys::ARTIFACTS_AGE)?.unwrap_or(usual.artifacts_age),
            artifacts_keep: self.number(&keys::ARTIFACTS_KEEP)?.unwrap_or(usual.artifacts_keep),
            ..usual
        };
        let default = Config::default();
        Ok(Config {
            link: self.link()?,
            data: self.data_dir()?,
            wait_for_kafka: self.duration(&keys::WAIT_FOR_KAFKA)?.unwrap_or(default.wait_for_kafka),
            tls: self.api_tls()?,
            accept_rollback: self.switch(&keys::ACCEPT_ROLLBACK)?,
            limits: self.limits()?,
            jobs,
            layout: self.parse(&keys::LAYOUT)?.unwrap_or_default(),
            certificates: self.certificates(),
            events: self.switch(&keys::EVENTS)?,
            require_signed: self.require_signed()?,
            ..default
        })
    }

    /// How often the API may be asked.
    fn limits(&self) -> Result<Limits, Error> {
        let usual = Limits::default();
        Ok(Limits {
            token: self.number(&keys::TOKEN_RATE)?.unwrap_or(usual.token),
            address: self.number(&keys::FAILURE_RATE)?.unwrap_or(usual.address),
            loopback: self.switch(&keys::LIMIT_LOOPBACK)?,
        })
    }

    /// The certificates that are in use. What cannot be read is told where it is used.
    fn certificates(&self) -> Vec<(String, Validity)> {
        let used = [&keys::LISTEN_CERT, &keys::TLS_CERT, &keys::TLS_CA];
        let read = |key| {
            let path = self.path(key)?;
            let validity = certs::expiry_of(&std::fs::read(&path).ok()?).ok()?;
            Some((path.display().to_string(), validity))
        };
        used.into_iter().filter_map(read).collect()
    }

    /// What is done about the topics before it starts.
    pub fn topics_manage(&self) -> Result<Manage, Error> {
        Ok(self.parse(&keys::TOPICS_MANAGE)?.unwrap_or_default())
    }

    fn api_tls(&self) -> Result<Option<Arc<ServerConfig>>, Error> {
        let (cert, key) = match (self.path(&keys::LISTEN_CERT), self.path(&keys::LISTEN_KEY)) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(self.missing(&keys::LISTEN_CERT, "a key needs its certificate")),
            (Some(cert), key) => (cert.clone(), key.unwrap_or(cert)),
        };
        let refused = |path: &Path, e: &dyn std::fmt::Display| Error::Value {
            origin: self.origin(&keys::LISTEN_CERT),
            problem: format!("{}: {e}; it takes PEM files with a certificate chain and its key", path.display()),
        };
        let chain = CertificateDer::pem_file_iter(&cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| refused(&cert, &e))?;
        let private = PrivateKeyDer::from_pem_file(&key).map_err(|e| refused(&key, &e))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|e| refused(&cert, &e))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Arc::new(config)))
    }
}
