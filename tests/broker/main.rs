//! The embedded broker as its clients see it.

#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod java;
mod kill;
mod support;

use rskafka::client::error::{Error as ClientError, ProtocolError};
use rskafka::client::partition::{Compression, OffsetAt};
use std::sync::Arc;
use std::time::Duration;
use support::{PATIENCE, Running, builder, impatient, mechanisms, partition, produce, record, secured};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_produced_is_fetched_in_order() {
    let data = tempfile::tempdir().unwrap();
    let broker = Running::plain(data.path()).await;
    let log = partition(&broker.client().await, "orders").await;
    for n in 0..100u32 {
        assert_eq!(produce(&log, n.to_string()).await, i64::from(n));
    }
    let (records, end) = log.fetch_records(10, 1..1_000_000, 1_000).await.unwrap();
    assert_eq!(end, 100);
    let values: Vec<_> = records.iter().map(|r| String::from_utf8(r.record.value.clone().unwrap()).unwrap()).collect();
    assert_eq!(values, (10..100).map(|n| n.to_string()).collect::<Vec<_>>());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_fetch_is_woken_by_the_produce() {
    let data = tempfile::tempdir().unwrap();
    let broker = Running::plain(data.path()).await;
    let log = Arc::new(partition(&broker.client().await, "pings").await);
    let parked = Arc::new(partition(&broker.client().await, "pings").await);
    produce(&log, "first").await;
    let mut took = Vec::new();
    for offset in 1..50i64 {
        let reader = Arc::clone(&parked);
        let fetch = tokio::spawn(async move { reader.fetch_records(offset, 1..1_000_000, 10_000).await.unwrap() });
        tokio::time::sleep(Duration::from_millis(5)).await;
        let start = tokio::time::Instant::now();
        produce(&log, "ping").await;
        let (records, _) = tokio::time::timeout(PATIENCE, fetch).await.unwrap().unwrap();
        took.push(start.elapsed());
        assert_eq!(records[0].offset, offset);
    }
    took.sort();
    println!("produce + parked fetch: p50 {:?}, max {:?}", took[took.len() / 2], took[took.len() - 1]);
    assert!(took[took.len() / 2] < Duration::from_millis(50), "{took:?}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_topics_and_the_logs_start_outlive_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let broker = Running::plain(data.path()).await;
    let log = partition(&broker.client().await, "kept").await;
    for n in 0..10u8 {
        produce(&log, vec![n; 100]).await;
    }
    log.delete_records(4, 1_000).await.unwrap();
    broker.stop().await;

    let broker = Running::plain(data.path()).await;
    let log = partition(&broker.client().await, "kept").await;
    assert_eq!(log.get_offset(OffsetAt::Earliest).await.unwrap(), 4);
    assert_eq!(log.get_offset(OffsetAt::Latest).await.unwrap(), 10);
    let (records, _) = log.fetch_records(4, 1..1_000_000, 1_000).await.unwrap();
    assert_eq!(records.len(), 6);
    assert_eq!(produce(&log, "next").await, 10);
    let before = log.fetch_records(3, 1..1_000, 100).await.unwrap_err();
    assert!(
        matches!(before, ClientError::ServerError { protocol_error: ProtocolError::OffsetOutOfRange, .. }),
        "{before:?}"
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mechanism_lets_the_right_password_in_over_tls() {
    let data = tempfile::tempdir().unwrap();
    let (config, tls) = secured(data.path());
    let broker = Running::start(config).await;
    for (n, sasl) in mechanisms("correct horse").into_iter().enumerate() {
        let connecting = builder(&broker.address).tls_config(Arc::new(tls.clone())).sasl_config(sasl).build();
        let client = tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap();
        let log = partition(&client, "secret").await;
        assert_eq!(produce(&log, "x").await, n as i64);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mechanism_lets_a_wrong_password_in() {
    let data = tempfile::tempdir().unwrap();
    let (config, tls) = secured(data.path());
    let broker = Running::start(config).await;
    for sasl in mechanisms("battery staple") {
        let connecting = impatient(&broker.address).tls_config(Arc::new(tls.clone())).sasl_config(sasl).build();
        let error = tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap_err();
        println!("{error}");
    }
    let without = impatient(&broker.address).tls_config(Arc::new(tls)).build();
    assert!(tokio::time::timeout(PATIENCE, without).await.unwrap().is_err(), "no SASL at all");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_above_the_limit_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let broker = Running::plain(data.path()).await;
    let log = partition(&broker.client().await, "large").await;
    let just = log.produce(vec![record(vec![0; 1_048_400])], Compression::NoCompression).await;
    assert_eq!(just.unwrap(), [0]);
    let error = log.produce(vec![record(vec![0; 1_100_000])], Compression::NoCompression).await.unwrap_err();
    assert!(
        matches!(error, ClientError::ServerError { protocol_error: ProtocolError::MessageTooLarge, .. }),
        "{error:?}"
    );
    broker.stop().await;
}
