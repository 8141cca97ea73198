//! A TLS handshake that is watched: judged as always, and what the other side showed and asked for is kept.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};

use crate::kafka::{Error, tls::Material};

/// What a broker showed in the handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Its certificates in DER, its own first; none if it did not come so far.
    pub chain: Vec<Vec<u8>>,
    /// Whether it asked for a client certificate.
    pub wants_certificate: bool,
}

/// Settings for one handshake that fill `shown`.
pub(super) fn client_config(material: &Material, shown: Arc<Mutex<Shown>>) -> Result<Arc<ClientConfig>, Error> {
    let refused = |e: String| Error::Config(format!("TLS cannot be set up: {e}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let judge = WebPkiServerVerifier::builder_with_provider(Arc::clone(&material.roots), Arc::clone(&provider))
        .build()
        .map_err(|e| refused(e.to_string()))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| refused(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Watch { judge, shown: Arc::clone(&shown) }))
        .with_client_cert_resolver(Arc::new(Asked { client: material.client.clone(), shown }));
    Ok(Arc::new(config))
}

/// Keeps the certificates and leaves the judgement to the one that always judges.
#[derive(Debug)]
struct Watch {
    judge: Arc<WebPkiServerVerifier>,
    shown: Arc<Mutex<Shown>>,
}

impl ServerCertVerifier for Watch {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let chain = [end_entity].into_iter().chain(intermediates).map(|der| der.to_vec()).collect();
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).chain = chain;
        self.judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.judge.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.judge.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

/// Gives our certificate if there is one, and keeps that the broker asked.
#[derive(Debug)]
struct Asked {
    client: Option<Arc<CertifiedKey>>,
    shown: Arc<Mutex<Shown>>,
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).wants_certificate = true;
        self.client.clone()
    }

    // Also without one: else we were not told that the broker asks.
    fn has_certs(&self) -> bool {
        true
    }
}
