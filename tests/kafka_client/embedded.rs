//! On the embedded broker.

use remoting_kafka::{
    broker::{self, ListenerConfig, Users},
    kafka::{Config, Error, Hop, KafkaCluster, config::Mechanism},
};
use std::path::Path;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{
    Door, doors, journal, logs,
    support::{
        certs::Authority,
        ports,
        user::{ADMIN, USERS},
    },
};

/// A broker that lives as long as the test's runtime.
struct Embedded {
    door: Door,
    folder: TempDir,
}

async fn serve(listener: ListenerConfig, folder: &Path) -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let config = broker::Config { data: folder.join("data"), listener, ..broker::Config::default() };
    tokio::spawn(async move { broker::run(socket, config, std::future::pending()).await.unwrap() });
    address.to_string()
}

/// A broker whose certificate is for `host`, and where the first bootstrap address is dead.
async fn start_as(host: &str) -> Embedded {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let node = authority.server("node", &[host]);
    let users: Users = USERS.iter().map(|user| (user.name, user.password)).collect();
    let listener =
        ListenerConfig::tls_from_pem(&node.with_extension("crt"), &node.with_extension("key"), None).unwrap();
    let address = serve(listener.with_users(users), folder.path()).await;
    let door = Door { brokers: vec![ports::DEAD.to_owned(), address], ca: authority.ca() };
    Embedded { door, folder }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_as_they_went() {
    let embedded = start_as("127.0.0.1").await;
    logs::records_come_back_as_they_went(&embedded.door.cluster(ADMIN), "one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_batches_at_once_all_arrive_once() {
    let embedded = start_as("127.0.0.1").await;
    logs::many_batches_at_once_all_arrive_once(&embedded.door.cluster(ADMIN), "many").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_cut_at_a_snapshot_and_goes_on() {
    let embedded = start_as("127.0.0.1").await;
    journal::a_journal_is_cut_at_a_snapshot_and_goes_on(&embedded.door.cluster(ADMIN), "cut").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_once_and_compared_then() {
    let embedded = start_as("127.0.0.1").await;
    logs::topics_are_made_once_and_compared_then(&embedded.door.cluster(ADMIN), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_password_mechanism_opens_and_a_wrong_password_is_named() {
    let embedded = start_as("127.0.0.1").await;
    doors::every_password_mechanism_opens(&embedded.door).await;
    doors::a_wrong_password_is_named(&embedded.door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_authority_and_a_wrong_protocol_are_named() {
    let embedded = start_as("127.0.0.1").await;
    doors::a_wrong_authority_is_named(&embedded.door, &embedded.folder.path().join("other")).await;
    doors::no_tls_at_a_tls_port_is_named(&embedded.door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_is_named() {
    let embedded = start_as("kafka.example.org").await;
    let error = embedded.door.cluster(ADMIN).check().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { hop: Hop::Tls, .. }), "{error}");
    assert!(error.to_string().contains("not for \"127.0.0.1\" but for"), "{error}");
    assert!(error.to_string().contains("kafka.example.org"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_at_a_plaintext_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let address = serve(ListenerConfig::plaintext(), folder.path()).await;
    let plain = Config { brokers: vec![address.clone()], ..Config::default() };
    assert_eq!(KafkaCluster::new(plain.clone()).unwrap().check().await.unwrap(), 1);

    let authority = Authority::new(folder.path());
    let door = Door { brokers: vec![address], ca: authority.ca() };
    let error = door.cluster(ADMIN).check().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { hop: Hop::Handshake, .. }), "{error}");
    assert!(error.to_string().contains("TLS off"), "{error}");

    let login = door.config(ADMIN, Mechanism::Plain);
    let error = KafkaCluster::new(Config { tls: None, ..login }).unwrap().check().await.unwrap_err();
    assert!(matches!(error, Error::Login { .. }), "{error}");
}
