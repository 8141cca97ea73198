//! Packet records of a rogue's making. What an agent proves with a MAC is built here a second time, from its description alone.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::{BufMut, Bytes, BytesMut};
use quinn::rustls::{
    self, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};
use remoting_kafka::{
    kafka::Record,
    link::{
        Credential,
        packet::{Header, Incarnation, Kind, is_long, put_datagram, source_connection_id},
    },
};
use ring::{digest, hmac};

/// What a record of packets begins with.
pub fn header(record: &Record) -> Option<Header> {
    Header::decode(&mut record.value.clone()).ok()
}

/// A record with this envelope and body under `key`.
pub fn record(key: &str, header: &Header, body: &[u8]) -> Record {
    let mut value = BytesMut::new();
    header.encode(&mut value);
    value.put_slice(body);
    Record::new(Bytes::copy_from_slice(key.as_bytes()), value.freeze())
}

/// A record with one datagram; its MAC is `mac` if it is one of a handshake.
pub fn with_datagram(key: &str, header: &Header, datagram: &[u8], mac: [u8; 16]) -> Record {
    let mut body = BytesMut::new();
    let mac = (header.kind == Kind::Up && is_long(datagram)).then_some(mac);
    put_datagram(&mut body, datagram, mac);
    record(key, header, &body)
}

/// What the holder of `credential` proves a datagram of its control lane with, under the name `name`.
pub fn prove(credential: &Credential, name: &str, header: &Header, datagram: &[u8]) -> [u8; 16] {
    let hash = digest::digest(&digest::SHA256, credential.secret.expose());
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, hash.as_ref()));
    mac.update(b"rk1 handshake");
    mac.update(&[name.len() as u8]);
    mac.update(name.as_bytes());
    mac.update(&header.incarnation.to_bytes());
    mac.update(&header.epoch.to_le_bytes());
    mac.update(&[0]);
    mac.update(source_connection_id(datagram).unwrap());
    mac.sign().as_ref()[..16].try_into().unwrap()
}

/// The envelope of an agent's packets.
pub fn up(incarnation: Incarnation, epoch: u32) -> Header {
    Header { kind: Kind::Up, incarnation, epoch }
}

/// First flights of QUIC connections, as many as wanted, each of a connection of its own: what a controller can't tell from the
/// first packet of an agent.
pub struct Initials {
    endpoint: Endpoint,
    config: ClientConfig,
}

impl Initials {
    pub fn new() -> Initials {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"rk/1".to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
        Initials { endpoint, config: ClientConfig::new(Arc::new(crypto)) }
    }

    /// The next one: 1,200 bytes.
    pub fn next(&mut self) -> Bytes {
        let to: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let now = Instant::now();
        let (handle, mut connection) = self.endpoint.connect(now, self.config.clone(), to, "controller").unwrap();
        let mut buffer = Vec::new();
        let transmit = connection.poll_transmit(now, 1, &mut buffer).unwrap();
        self.endpoint.handle_event(handle, quinn_proto::EndpointEvent::drained());
        buffer.truncate(transmit.size);
        buffer.into()
    }
}

/// Takes a raw key, as agents do, and never sees one: nothing that answers is read.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
