//! How long a controller takes to read its journal: a snapshot and a million events behind it, on a log in memory or on
//! the embedded broker.
//!
//! ```text
//! cargo run --release --example journal_start memory|broker [EVENTS] [PAYLOADS IN THE SNAPSHOT]
//! ```

#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::sync::Arc;

use bytes::Bytes;
use remoting_kafka::{
    broker,
    journal::{Committed, Journal, StateKey},
    kafka::{self, KafkaCluster, Prefix, SharedCluster, memory::MemoryCluster, topics},
};
use tokio::{net::TcpListener, sync::mpsc, time::Instant};

const TOPIC: &str = "rk.journal";

#[tokio::main]
async fn main() {
    let mut words = std::env::args().skip(1);
    let folder = tempfile::tempdir().expect("a folder");
    let cluster: SharedCluster = match words.next().as_deref() {
        None | Some("memory") => {
            let cluster = MemoryCluster::new();
            cluster.create(TOPIC, 1);
            Arc::new(cluster)
        }
        Some("broker") => Arc::new(embedded(folder.path()).await),
        Some(other) => panic!("{other} is neither memory nor broker"),
    };
    let mut numbers = words.map(|number| number.parse::<usize>().expect("a number"));
    let (events, payloads) = (numbers.next().unwrap_or(1_000_000), numbers.next().unwrap_or(100_000));

    let (journal, mut committed) = open(&cluster).await;
    journal.claim().await.expect("claimed");
    journal.begin_snapshot().await.expect("begun");
    let begun = loop {
        if let Some(Committed::SnapshotBegun(snapshot)) = committed.recv().await {
            break snapshot;
        }
    };
    let draining = tokio::spawn(async move { while committed.recv().await.is_some() {} });
    let start = Instant::now();
    let state = (0..payloads).map(|i| Bytes::from(vec![i as u8; 500]));
    journal.write_snapshot(begun, state).await.expect("written");
    println!("a snapshot of {payloads} payloads of 500 bytes: written and read back in {:?}", start.elapsed());
    journal.cut().await.expect("cut");

    let start = Instant::now();
    let mut last = None;
    for i in 0..events {
        let payload = Bytes::from(vec![i as u8; 60 + i % 91]);
        last = Some(journal.enqueue(payload).await.expect("taken"));
    }
    if let Some(last) = last {
        last.await.expect("appended");
    }
    println!("{events} events of 60 to 150 bytes: written and read back in {:?}", start.elapsed());
    drop(journal);
    draining.abort();

    for _ in 0..3 {
        let start = Instant::now();
        let (_journal, mut committed) = open(&cluster).await;
        let mut handed = 0;
        let mut batch = Vec::with_capacity(1024);
        'replay: while committed.recv_many(&mut batch, 1024).await > 0 {
            for committed in batch.drain(..) {
                match committed {
                    Committed::Event { .. } | Committed::Restored { .. } => handed += 1,
                    Committed::CaughtUp => break 'replay,
                    Committed::Failed(error) => panic!("{error}"),
                    _ => {}
                }
            }
        }
        assert_eq!(handed, events + payloads);
        let took = start.elapsed();
        println!("start from the snapshot: {took:?}, {:?} a payload", took / handed as u32);
    }
}

async fn embedded(folder: &std::path::Path) -> KafkaCluster {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let brokers = vec![socket.local_addr().expect("bound").to_string()];
    let config = broker::Config { data: folder.to_owned(), ..broker::Config::default() };
    tokio::spawn(broker::run(socket, config, std::future::pending()));
    let cluster = KafkaCluster::new(kafka::Config { brokers, ..kafka::Config::default() }).expect("settings");
    topics::ensure(&cluster, &"rk".parse::<Prefix>().expect("a prefix"), 1).await.expect("topics");
    cluster
}

async fn open(cluster: &SharedCluster) -> (Journal, mpsc::Receiver<Committed>) {
    Journal::open(cluster.clone(), TOPIC, StateKey::new([7; 32]), None).await.expect("opened")
}
