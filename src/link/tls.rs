//! TLS 1.3 inside QUIC, with raw public keys (RFC 7250): the controller shows its key, the agent compares it with the
//! one that its credential pins. There is no certificate, so nothing expires and nothing is parsed.

use std::sync::{Arc, Mutex};

use quinn::{
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
    rustls::{
        self, DigitallySignedStruct, SignatureScheme,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key},
        pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
        server::AlwaysResolvesServerRawPublicKeys,
        sign::CertifiedKey,
        version::TLS13,
    },
};

use super::{Fingerprint, Identity};

/// The protocols that this version speaks, best first. The two sides agree on one in the handshake or not at all.
pub const PROTOCOLS: [&str; 1] = ["rk/1"];

/// What a side is asked that has none of ours: which it has. More than there will be for long, and more cost only bytes.
const ASKED: u32 = 32;

/// The name in the handshake. Nobody looks at it: the key is what counts.
pub const SERVER_NAME: &str = "controller";

/// The controller's side.
pub fn server(identity: &Identity, protocols: &[&str]) -> Arc<QuicServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let key = PrivatePkcs8KeyDer::from(identity.pkcs8().to_vec());
    let key = provider.key_provider.load_private_key(key.into()).expect("an identity holds an Ed25519 key");
    let certified = CertifiedKey::new(vec![CertificateDer::from(identity.spki())], key);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring speaks TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    config.alpn_protocols = wire(protocols);
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(QuicServerConfig::try_from(config).expect("ring has the initial cipher suite"))
}

/// What an agent saw of a controller's key.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// The key, if it is accepted.
    pub accepted: Arc<Mutex<Option<Fingerprint>>>,
    /// The key, if it is not.
    pub refused: Arc<Mutex<Option<Fingerprint>>>,
}

/// The agent's side, which accepts a controller with one of `pins` alone, and notes which it saw.
pub fn client(pins: Vec<Fingerprint>, keys: Keys) -> Arc<QuicClientConfig> {
    client_of(pins, keys, wire(&PROTOCOLS))
}

/// One that offers every version that there may be, to hear which the controller has.
pub fn asking(pins: Vec<Fingerprint>, keys: Keys) -> Arc<QuicClientConfig> {
    client_of(pins, keys, (1..=ASKED).map(|version| format!("rk/{version}").into_bytes()).collect())
}

/// The number of a version.
pub fn number(protocol: &[u8]) -> Option<u32> {
    std::str::from_utf8(protocol).ok()?.strip_prefix("rk/")?.parse().ok()
}

fn wire(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

fn client_of(pins: Vec<Fingerprint>, keys: Keys, protocols: Vec<Vec<u8>>) -> Arc<QuicClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pin { pins, algorithms, keys }))
        .with_no_client_auth();
    config.alpn_protocols = protocols;
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Arc::new(QuicClientConfig::try_from(config).expect("ring has the initial cipher suite"))
}

#[derive(Debug)]
struct Pin {
    pins: Vec<Fingerprint>,
    algorithms: WebPkiSupportedAlgorithms,
    keys: Keys,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Fingerprint::of(end_entity);
        if self.pins.contains(&found) {
            *self.keys.accepted.lock().expect("no holder panics") = Some(found);
            return Ok(ServerCertVerified::assertion());
        }
        *self.keys.refused.lock().expect("no holder panics") = Some(found);
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
