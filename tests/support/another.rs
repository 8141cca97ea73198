//! Another client than ours, rskafka, so that what we write is read by somebody else, and what we cost is measured.

use super::user::User;
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Connects over TLS, with the user's password.
pub async fn connect(bootstrap: Vec<String>, ca: &Path, user: User) -> Client {
    let credentials = Credentials::new(user.name.to_owned(), user.password.to_owned());
    let client = ClientBuilder::new(bootstrap)
        .tls_config(trusting(ca))
        .sasl_config(SaslConfig::ScramSha512(credentials))
        .build();
    tokio::time::timeout(Duration::from_secs(20), client).await.expect("the cluster answers").unwrap()
}

/// TLS that trusts one authority.
pub fn trusting(ca: &Path) -> Arc<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(tls)
}
