//! TLS towards the brokers: our side's settings, and what a failed handshake means.

use std::{fs, io, sync::Arc};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as TlsError, InvalidMessage, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{
    Error, Hop,
    config::{ClientCertificate, Pem, Roots, Tls},
};

/// Reads the files that `tls` names and makes a client's settings of them.
pub(super) fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Config(format!("TLS cannot be set up: {e}")))?
        .with_root_certificates(root_store(&tls.roots)?);
    let config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { chain, key }) => builder
            .with_client_auth_cert(certificates(chain)?, private_key(key)?)
            .map_err(|e| Error::Config(format!("{} does not fit {}: {e}", name(key), name(chain))))?,
    };
    Ok(Arc::new(config))
}

/// What the files of `tls` hold, for handshakes that are watched.
pub(super) struct Material {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) client: Option<Arc<CertifiedKey>>,
}

impl Material {
    /// Reads the files.
    pub(super) fn read(tls: &Tls) -> Result<Self, Error> {
        let client = match &tls.client {
            None => None,
            Some(ClientCertificate { chain, key }) => {
                let provider = rustls::crypto::ring::default_provider();
                let certified = CertifiedKey::from_der(certificates(chain)?, private_key(key)?, &provider);
                let misfit = |e| Error::Config(format!("{} does not fit {}: {e}", name(key), name(chain)));
                Some(Arc::new(certified.map_err(misfit)?))
            }
        };
        Ok(Self { roots: Arc::new(root_store(&tls.roots)?), client })
    }
}

fn root_store(roots: &Roots) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Pem(pem) => {
            for certificate in certificates(pem)? {
                store
                    .add(certificate)
                    .map_err(|e| Error::Config(format!("{} holds a certificate that is refused: {e}", name(pem))))?;
            }
        }
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                let what = "this machine has no certificate authorities; name the PEM file of the brokers' authority";
                return Err(Error::Config(what.to_owned()));
            }
        }
    }
    Ok(store)
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(pem)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|e| Error::Config(format!("{} is no PEM file of certificates: {e}", name(pem))))?;
    match certificates.is_empty() {
        true => Err(Error::Config(format!("{} holds no certificate (BEGIN CERTIFICATE){}", name(pem), convert(&text)))),
        false => Ok(certificates),
    }
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read(pem)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let encrypted = text.windows(21).any(|w| w == b"ENCRYPTED PRIVATE KEY");
        let file = name(pem);
        Error::Config(match encrypted {
            true => format!(
                "the private key in {file} is encrypted; decrypt it with `openssl pkcs8 -in {file} -out key.pem` and \
                 keep the result readable by this user alone"
            ),
            false => format!("{file} holds no private key (BEGIN PRIVATE KEY){}", convert(&text)),
        })
    })
}

/// How a key store of Java becomes PEM.
fn convert(content: &[u8]) -> &'static str {
    match content {
        [0xfe, 0xed, 0xfe, 0xed, ..] => {
            "; it is a Java key store: convert it with `keytool -importkeystore -srckeystore FILE -destkeystore s.p12 \
             -deststoretype PKCS12`, then `openssl pkcs12 -in s.p12 -nodes -out store.pem`"
        }
        [0x30, 0x82, ..] => {
            "; it looks like PKCS #12 or DER: convert it with `openssl pkcs12 -in FILE -nodes -out store.pem`"
        }
        _ => "",
    }
}

fn read(pem: &Pem) -> Result<Vec<u8>, Error> {
    match pem {
        Pem::File(path) => fs::read(path).map_err(|e| Error::Config(format!("{} cannot be read: {e}", path.display()))),
        Pem::Text(text) => Ok(text.expose().as_bytes().to_vec()),
    }
}

fn name(pem: &Pem) -> String {
    match pem {
        Pem::File(path) => path.display().to_string(),
        Pem::Text(_) => "the given PEM text".to_owned(),
    }
}

/// Whether a handshake broke off, or one side refused the other.
pub(super) fn hop(error: &io::Error) -> Hop {
    if error.get_ref().is_some_and(|inner| inner.is::<TlsError>()) { Hop::Tls } else { Hop::Handshake }
}

/// What a handshake's failure means and what cures it.
pub(super) fn explain(error: &io::Error, host: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match inner {
        Some(error) => explain_tls(error, host),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "the broker hung up in the handshake; this port probably speaks no TLS: use the port of the TLS \
                 listener, or turn TLS off"
                    .to_owned()
            }
            _ => error.to_string(),
        },
    }
}

fn explain_tls(error: &TlsError, host: &str) -> String {
    match error {
        TlsError::InvalidCertificate(problem) => explain_certificate(problem, host),
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            "the port answers without TLS; use the port of the TLS listener, or turn TLS off".to_owned()
        }
        TlsError::AlertReceived(
            alert @ (AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure),
        ) => format!(
            "the broker refused the handshake ({alert:?}); it asks for a client certificate that its authority signed: \
             give one with its key"
        ),
        TlsError::AlertReceived(alert) => format!("the broker refused the handshake ({alert:?})"),
        other => other.to_string(),
    }
}

fn explain_certificate(problem: &CertificateError, host: &str) -> String {
    match problem {
        CertificateError::UnknownIssuer => {
            "the broker's certificate is signed by an authority that we do not trust; name the PEM file of the \
             authority that signed it"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "the broker's certificate is not for {host:?} but for {}; connect by one of these names, or have the \
             certificate made for this one",
            presented.join(", ")
        ),
        CertificateError::NotValidForName => {
            format!("the broker's certificate is not for {host:?}; connect by a name that it holds")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the broker's certificate has expired; have it renewed (and compare this machine's clock)".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet; compare this machine's clock with the broker's".to_owned()
        }
        CertificateError::BadSignature => {
            "the broker's certificate is not signed by the authority that it names; is the authority's PEM file an old \
             one of the same name?"
                .to_owned()
        }
        other => format!("the broker's certificate is refused: {other}"),
    }
}
