//! Writing, reading and topics, on any broker.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use remoting_kafka::kafka::{At, Cluster, Error, KafkaCluster, Prefix, Record, topics};

use crate::{append, read};

pub async fn make(cluster: &KafkaCluster, prefix: &str, partitions: i32) -> Prefix {
    let prefix: Prefix = prefix.parse().unwrap();
    topics::ensure(cluster, &prefix, partitions).await.unwrap();
    prefix
}

pub async fn records_come_back_as_they_went(cluster: &KafkaCluster, prefix: &str) {
    let topic = make(cluster, prefix, 2).await.up_control();
    let mut reader = cluster.reader(&topic, 0);
    assert_eq!(reader.offset(At::Latest).await.unwrap(), 0);
    let rich = Record {
        key: Bytes::from_static(b"web-1"),
        value: Bytes::from(vec![7; 300_000]),
        headers: vec![("stream".to_owned(), Bytes::from_static(b"out")), ("empty".to_owned(), Bytes::new())],
    };
    let first = vec![rich, Record::new("", "plain")];
    assert_eq!(append(cluster, &topic, first.clone()).await, 0);
    let writer = cluster.writer(&topic, 0);
    assert_eq!(writer.produce(vec![Record::new("k", "")]).await.unwrap(), 2);
    let expected: Vec<_> = (0..).zip(first.into_iter().chain([Record::new("k", "")])).collect();
    assert_eq!(read(reader.as_mut(), 0, 3).await, expected);
    assert_eq!(read(reader.as_mut(), 1, 2).await, expected[1..]);

    // A parked fetch wakes at once; one that waits in vain comes back empty.
    let start = Instant::now();
    let (fetched, produced) = tokio::join!(reader.fetch(3, 1 << 20, Duration::from_secs(20)), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        writer.produce(vec![Record::new("", "late")]).await
    });
    assert_eq!((produced.unwrap(), fetched.unwrap().records), (3, vec![(3, Record::new("", "late"))]));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let fetched = reader.fetch(4, 1 << 20, Duration::from_millis(50)).await.unwrap();
    assert_eq!((fetched.records.len(), fetched.next_offset, fetched.high_watermark), (0, 4, 4));

    // Deleted records are out of range, and so is what is not there yet.
    cluster.delete_records(&topic, 0, 2).await.unwrap();
    assert_eq!(reader.offset(At::Earliest).await.unwrap(), 2);
    for offset in [1, 1000] {
        let error = reader.fetch(offset, 1 << 20, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, Error::OffsetOutOfRange { offset: o, .. } if o == offset), "{error}");
    }
    assert_eq!(read(reader.as_mut(), 2, 2).await.len(), 2);

    let error = writer.produce(vec![Record::new("", vec![0; 1_200_000])]).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert_eq!(writer.produce(vec![Record::new("", "after it")]).await.unwrap(), 4);

    let missing = format!("{prefix}.missing");
    let error = cluster.reader(&missing, 0).offset(At::Latest).await.unwrap_err();
    assert!(matches!(error, Error::TopicMissing { .. }), "{error}");
    let error = cluster.writer(&missing, 0).produce(vec![Record::new("", "")]).await.unwrap_err();
    assert!(matches!(error, Error::TopicMissing { .. }), "{error}");
    assert!(matches!(cluster.describe(&missing).await, Err(Error::TopicMissing { .. })));
    let error = cluster.reader(&topic, 9).offset(At::Latest).await.unwrap_err();
    assert!(error.to_string().contains("has 2 partitions"), "{error}");
}

pub async fn many_batches_at_once_all_arrive_once(cluster: &KafkaCluster, prefix: &str) {
    let topic = make(cluster, prefix, 1).await.up_bulk();
    let writer = cluster.writer(&topic, 0);
    let batches = (0..200).map(|n| writer.produce(vec![Record::new("", format!("{n:05}").repeat(2000))]));
    let offsets: BTreeSet<i64> =
        futures_util::future::join_all(batches).await.into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(offsets, (0..200).collect());
    let mut reader = cluster.reader(&topic, 0);
    let values: BTreeSet<Bytes> = read(reader.as_mut(), 0, 200).await.into_iter().map(|(_, r)| r.value).collect();
    assert_eq!(values.len(), 200);
}

pub async fn topics_are_made_once_and_compared_then(cluster: &KafkaCluster, brokers: usize) {
    let prefix: Prefix = "ensure".parse().unwrap();
    let report = topics::ensure(cluster, &prefix, 3).await.unwrap();
    assert_eq!((report.brokers, report.created.len()), (brokers, 8));
    assert_eq!(report.warnings.len(), usize::from(brokers < 3), "{:?}", report.warnings);
    let again = topics::ensure(cluster, &prefix, 3).await.unwrap();
    assert_eq!((again.created.len(), again.warnings), (0, report.warnings));
    let described = cluster.describe(&prefix.down_bulk()).await.unwrap();
    assert_eq!((described.partitions, usize::from(described.replication.unsigned_abs())), (3, brokers.min(3)));
    assert_ne!(described.id, 0);
    let error = topics::ensure(cluster, &prefix, 4).await.unwrap_err();
    assert!(error.to_string().contains("has 3 partitions and 4 are wanted"), "{error}");
}
