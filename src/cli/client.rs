//! From settings to a client of the controller.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::Failure;
use crate::{
    api::{Client, ClientError, DEFAULT_ADDRESS},
    config::{SecretSource, Settings, keys},
};

/// A client of the controller that the settings name. Nothing is sent yet.
pub fn connect(settings: &Settings) -> Result<Client, Failure> {
    let address = settings.parse::<String>(&keys::API)?.unwrap_or_else(|| format!("http://{DEFAULT_ADDRESS}"));
    let token = match settings.secret(&keys::API_TOKEN)? {
        Some(token) => token,
        None => {
            let path = settings.data_dir()?.join("api.token");
            if !path.exists() {
                let message = format!(
                    "there is no API token at {}: start `rk controller run` here, or name its token with --api-token \
                     file:PATH and its address with --api",
                    path.display()
                );
                return Err(Failure::new(super::failure::UNREACHABLE, message));
            }
            settings.read_secret(path.display().to_string(), &SecretSource::File(path.clone()))?
        }
    };
    let tls = match address.starts_with("https://") {
        true => Some(Arc::new(tls(settings)?)),
        false => None,
    };
    Ok(Client::new(&address, &token, tls)?)
}

fn tls(settings: &Settings) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    match settings.path(&keys::API_CA) {
        Some(path) => {
            for certificate in certificates(&path)? {
                roots.add(certificate).map_err(|e| Failure::usage(format!("--api-ca {}: {e}", path.display())))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::usage(e.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Failure::usage(format!("--api-ca {}: there is no certificate in it", path.display()))),
        Err(e) => Err(Failure::usage(format!("--api-ca {}: {e}; it takes a PEM file", path.display()))),
    }
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        Self::new(e.exit_code(), e.to_string())
    }
}
