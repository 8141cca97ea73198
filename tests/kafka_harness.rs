//! The real-Kafka harness itself: what every other test on Apache Kafka takes for granted.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use rskafka::chrono::DateTime;
use rskafka::client::Client;
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::record::Record;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::another::connect;
use support::cluster::TestCluster;
use support::embedded::Embedded;
use support::kafka::Cluster;
use support::kafka::admin::{Operation, Resource, Rule};
use support::user::{CONTROLLER, STRANGER, User};

async fn client(cluster: &Cluster, user: User) -> Client {
    connect(cluster.bootstrap(), &cluster.authority().ca(), user).await
}

async fn append(partition: &PartitionClient, value: &str) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let record = Record {
        key: None,
        value: Some(value.as_bytes().to_vec()),
        headers: BTreeMap::new(),
        timestamp: DateTime::from_timestamp_millis(now.as_millis().try_into().unwrap()).unwrap(),
    };
    let produce = partition.produce(vec![record], Compression::NoCompression);
    tokio::time::timeout(Duration::from_secs(60), produce).await.expect("a leader is found").unwrap()[0]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Java: make test-kafka"]
async fn three_nodes_serve_over_tls_and_scram_while_each_is_killed_and_comes_back() {
    let start = Instant::now();
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(3)).await.unwrap();
    println!("three nodes were up after {:.1?}", start.elapsed());

    cluster.allow_shared_layout("harness");
    cluster.admin().create_topic("harness.up.control", 1, 3).unwrap();
    let client = client(&cluster, CONTROLLER).await;
    let partition = client.partition_client("harness.up.control", 0, UnknownTopicHandling::Retry).await.unwrap();
    let mut sent = 0;
    for node in 0..cluster.nodes() {
        cluster.kill(node);
        let gap = Instant::now();
        assert_eq!(append(&partition, &format!("while node {node} is dead")).await, sent);
        println!("node {node} killed: the next append took {:.1?}", gap.elapsed());
        sent += 1;
        let back = Instant::now();
        let cluster = cluster.clone();
        tokio::task::spawn_blocking(move || {
            cluster.restart(node);
            cluster.wait_until_in_sync();
        })
        .await
        .unwrap();
        println!("node {node} was back and in sync after {:.1?}", back.elapsed());
    }
    let (records, end) = partition.fetch_records(0, 1..1_000_000, 1_000).await.unwrap();
    assert_eq!(end, sent);
    let values: Vec<_> = records.iter().map(|record| record.record.value.as_deref().unwrap()).collect();
    assert_eq!(values, [&b"while node 0 is dead"[..], b"while node 1 is dead", b"while node 2 is dead"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Java: make test-kafka"]
async fn a_user_without_rights_sees_no_topic_and_a_new_user_can_log_in() {
    let start = Instant::now();
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(1)).await.unwrap();
    println!("one node was up after {:.1?}", start.elapsed());

    cluster.admin().create_topic("harness.logs", 1, 1).unwrap();
    let stranger = client(&cluster, STRANGER).await;
    assert!(stranger.list_topics().await.unwrap().is_empty());

    let late = User { name: "late", password: "late-secret" };
    cluster.admin().set_password(late.name, late.password).unwrap();
    let read =
        Rule { user: late.name, resource: Resource::Topic, name: "harness.", prefix: true, operation: Operation::Read };
    cluster.allow(&[read]);
    let late = client(&cluster, late).await;
    assert_eq!(late.list_topics().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_keeps_rights_and_users_over_a_restart() {
    let broker = tokio::task::spawn_blocking(Embedded::start).await.unwrap();
    let broker = Arc::new(broker);
    broker.admin().create_topic("harness.logs", 1, 1).unwrap();
    let log_in = async |user: User| connect(broker.bootstrap(), &broker.authority().ca(), user).await;
    assert!(log_in(STRANGER).await.list_topics().await.unwrap().is_empty());

    let late = User { name: "late", password: "late-secret" };
    broker.admin().set_password(late.name, late.password).unwrap();
    let read =
        Rule { user: late.name, resource: Resource::Topic, name: "harness.", prefix: true, operation: Operation::Read };
    assert!(!broker.admin().holds(&read).unwrap());
    broker.admin().allow(&[read]).unwrap();
    assert_eq!(log_in(late).await.list_topics().await.unwrap().len(), 1);

    let again = Arc::clone(&broker);
    tokio::task::spawn_blocking(move || {
        again.stop();
        again.launch();
    })
    .await
    .unwrap();
    let client = log_in(late).await;
    assert_eq!(client.list_topics().await.unwrap().len(), 1);
    let controller = client.controller_client().unwrap();
    let refused = controller.create_topic("harness.more", 1, 1, 5_000).await.unwrap_err().to_string();
    assert!(refused.contains("TopicAuthorizationFailed"), "{refused}");
    tokio::task::spawn_blocking(move || drop(broker)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chosen_cluster_serves_again_after_a_node_was_stopped() {
    let cluster = Arc::new(tokio::task::spawn_blocking(TestCluster::start).await.unwrap());
    let topic = format!("{}.journal", cluster.prefix("harness"));
    let bootstrap = cluster.bootstrap().split(',').map(str::to_owned).collect();
    let client = connect(bootstrap, &cluster.ca(), CONTROLLER).await;
    let controller = client.controller_client().unwrap();
    controller.create_topic(&topic, 1, i16::try_from(cluster.nodes()).unwrap(), 10_000).await.unwrap();
    let partition = client.partition_client(&topic, 0, UnknownTopicHandling::Retry).await.unwrap();
    assert_eq!(append(&partition, "before").await, 0);
    let again = Arc::clone(&cluster);
    tokio::task::spawn_blocking(move || {
        again.kill(0);
        again.restart(0);
        again.wait_until_in_sync();
    })
    .await
    .unwrap();
    assert_eq!(append(&partition, "after").await, 1);
    tokio::task::spawn_blocking(move || drop(cluster)).await.unwrap();
}
