//! A broker in this process, and clients for it.

use remoting_kafka::broker::{self, Config, ListenerConfig, Users};
use remoting_kafka::certs;
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use rskafka::record::Record;
use rskafka::{BackoffConfig, chrono};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Everything that a test waits for is there sooner.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running broker.
pub struct Running {
    pub address: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), broker::Error>>,
}

impl Running {
    pub async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(broker::run(listener, config, async {
            let _ = stopped.await;
        }));
        Self { address, stop: Some(stop), task }
    }

    /// A plaintext broker over `data`.
    pub async fn plain(data: &Path) -> Self {
        Self::start(Config { data: data.to_owned(), ..Config::default() }).await
    }

    pub async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(PATIENCE, &mut self.task).await.unwrap().unwrap().unwrap();
    }

    pub async fn client(&self) -> Client {
        client(&self.address).await
    }
}

/// A client that gives up after a few attempts.
pub fn impatient(address: &str) -> ClientBuilder {
    builder(address).backoff_config(BackoffConfig {
        init_backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(50),
        base: 2.0,
        deadline: Some(Duration::from_millis(60)),
    })
}

pub fn builder(address: &str) -> ClientBuilder {
    ClientBuilder::new(vec![address.to_owned()]).backoff_config(BackoffConfig {
        init_backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(200),
        base: 2.0,
        deadline: Some(Duration::from_secs(10)),
    })
}

pub async fn client(address: &str) -> Client {
    tokio::time::timeout(PATIENCE, builder(address).build()).await.unwrap().unwrap()
}

/// The first partition of a topic, which is created if it is missing.
pub async fn partition(client: &Client, topic: &str) -> PartitionClient {
    let _ = client.controller_client().unwrap().create_topic(topic, 1, 1, 5_000).await;
    client.partition_client(topic, 0, UnknownTopicHandling::Retry).await.unwrap()
}

pub fn record(value: impl Into<Vec<u8>>) -> Record {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let timestamp = chrono::DateTime::from_timestamp_millis(now).unwrap();
    Record { key: None, value: Some(value.into()), headers: Default::default(), timestamp }
}

pub async fn produce(partition: &PartitionClient, value: impl Into<Vec<u8>>) -> i64 {
    let produced = partition.produce(vec![record(value)], Compression::NoCompression);
    tokio::time::timeout(PATIENCE, produced).await.unwrap().unwrap()[0]
}

/// TLS and one user.
pub fn secured(data: &Path) -> (Config, rustls::ClientConfig) {
    let files = certs::write_server(&data.join("tls"), &certs::LOOPBACK).unwrap();
    let listener = ListenerConfig::tls_from_pem(&files.certificate, &files.key, None).unwrap();
    let listener = listener.with_users(Users::default().with("alice", "correct horse"));
    (Config { data: data.join("data"), listener, ..Config::default() }, trusting(&files.authority))
}

pub fn trusting(authority: &Path) -> rustls::ClientConfig {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

pub fn mechanisms(password: &str) -> [SaslConfig; 3] {
    let credentials = || Credentials::new("alice".to_owned(), password.to_owned());
    [SaslConfig::Plain(credentials()), SaslConfig::ScramSha256(credentials()), SaslConfig::ScramSha512(credentials())]
}
