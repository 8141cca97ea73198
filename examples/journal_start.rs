//! How long a controller takes to read its journal: a snapshot and a million events behind it, on a log in memory.
//!
//! ```text
//! cargo run --release --example journal_start [EVENTS] [PAYLOADS IN THE SNAPSHOT]
//! ```

use std::sync::Arc;

use bytes::Bytes;
use remoting_kafka::{
    journal::{Committed, Journal, StateKey},
    kafka::memory::MemoryCluster,
};
use tokio::{sync::mpsc, time::Instant};

const TOPIC: &str = "rk.journal";

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<usize>().expect("a number"));
    let (events, payloads) = (numbers.next().unwrap_or(1_000_000), numbers.next().unwrap_or(100_000));
    let cluster = MemoryCluster::new();
    cluster.create(TOPIC, 1);

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

async fn open(cluster: &MemoryCluster) -> (Journal, mpsc::Receiver<Committed>) {
    Journal::open(Arc::new(cluster.clone()), TOPIC, StateKey::new([7; 32]), None).await.expect("opened")
}
