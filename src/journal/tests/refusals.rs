//! Journals that must not be taken as they are: rolled back, cut, made anew, written by a newer version.

use std::sync::Arc;

use bytes::Bytes;

use super::{LONG, MemoryCluster, TOPIC, cluster, key, lead, next, open, replay, within};
use crate::{
    journal::{Committed, Error, Head, Journal, Witness, record},
    kafka::{self, Cluster},
};

#[tokio::test(start_paused = true)]
async fn an_empty_older_or_other_journal_is_refused_unless_it_is_accepted() {
    let cluster = cluster();
    let journal = lead(&cluster).await;
    for payload in ["one", "two", "three"] {
        within(journal.append(payload.into())).await.expect("appended");
    }
    let seen = journal.head();
    drop(journal);
    let refused = async |cluster: &MemoryCluster, seen| {
        let result = Journal::open(Arc::new(cluster.clone()), TOPIC, key(), Some(seen)).await;
        let error = match result {
            Ok((journal, mut events)) => {
                let error = replay(&mut events).await.expect_err("refused on the way");
                assert!(matches!(within(journal.claim()).await, Err(Error::RolledBack { .. })));
                error
            }
            Err(error) => error,
        };
        assert!(matches!(error, Error::RolledBack { .. }), "{error}");
        assert!(error.to_string().contains("--accept-rollback"), "{error}");
    };
    // Another log that is as long: same offsets, other records.
    refused(&cluster, Witness { head: Head([1; 32]), ..seen }).await;
    refused(&cluster, Witness { epoch: 9, ..seen }).await;
    refused(&cluster, Witness { topic_id: 99, ..seen }).await;
    refused(&cluster, Witness { offset: seen.offset + 1, ..seen }).await;
    // The tail was lost, then others wrote in its place.
    cluster.lose_tail(TOPIC, 0, 2).expect("lost");
    refused(&cluster, seen).await;
    drop(lead(&cluster).await);
    let other = lead(&cluster).await;
    assert!(other.head().offset >= seen.offset - 1);
    within(other.append("x".into())).await.expect("appended");
    drop(other);
    refused(&cluster, seen).await;
    open(&cluster, None).await;
    // Made anew.
    cluster.create(TOPIC, 1);
    refused(&cluster, seen).await;
    refused(&cluster, Witness { topic_id: 0, ..seen }).await;
    let (journal, _events) = open(&cluster, None).await;
    assert_eq!(within(journal.claim()).await.expect("accepted"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_its_beginning_is_an_error_that_says_so() {
    let cluster = cluster();
    let journal = lead(&cluster).await;
    within(journal.append("one".into())).await.expect("appended");
    for start in [1, 2] {
        cluster.truncate(TOPIC, 0, start).expect("truncated");
        let (_journal, mut events) = open(&cluster, None).await;
        let error = replay(&mut events).await.expect_err("truncated");
        assert!(matches!(error, Error::Truncated { start: at, .. } if at == start), "{error}");
    }
    // Who has read it already does not mind.
    within(journal.append("two".into())).await.expect("appended");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_shrinks_or_is_made_anew_under_us_ends_the_journal() {
    for anew in [false, true] {
        let cluster = cluster();
        let (journal, mut events) = open(&cluster, None).await;
        within(journal.claim()).await.expect("claimed");
        within(journal.append("one".into())).await.expect("appended");
        if anew {
            cluster.create(TOPIC, 1);
            cluster.append(TOPIC, 0, vec![kafka::Record::new("", "x"); 10]).expect("it outgrows our offset");
        } else {
            cluster.lose_tail(TOPIC, 0, 1).expect("lost");
        }
        let failed = loop {
            if let Committed::Failed(error) = next(&mut events).await {
                break error;
            }
        };
        let expected = |error: &Error| {
            if anew { matches!(error, Error::Recreated { .. }) } else { matches!(error, Error::RolledBack { .. }) }
        };
        assert!(expected(&failed), "{failed}");
        assert!(expected(&within(journal.append("two".into())).await.expect_err("ended")));
        assert!(events.recv().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_newer_version_is_not_passed_over() {
    let cluster = cluster();
    let journal = lead(&cluster).await;
    let head = journal.head();
    let codec = record::Codec::new(&key(), TOPIC);
    let mut reader = cluster.reader(TOPIC, 0);
    let claim = reader.fetch(0, 1 << 20, LONG).await.expect("fetched").records[0].1.value.clone();
    let writer = codec.open(&claim).expect("our claim").writer;
    let record = record::Record {
        kind: record::Kind::Other(77),
        epoch: 1,
        writer,
        seq: 1,
        prev: head.head,
        payload: Bytes::new(),
    };
    cluster.append(TOPIC, 0, vec![kafka::Record::new("", codec.seal(&record, [0; 12]))]).expect("appended");
    let (_journal, mut events) = open(&cluster, Some(head)).await;
    let error = replay(&mut events).await.expect_err("unknown");
    assert!(matches!(error, Error::Newer { offset: 1, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_missing_or_has_many_partitions_is_refused() {
    let cluster = MemoryCluster::new();
    let open = async || Journal::open(Arc::new(cluster.clone()), TOPIC, key(), None).await.expect_err("refused");
    assert!(matches!(open().await, Error::Kafka(kafka::Error::TopicMissing { .. })));
    cluster.create(TOPIC, 2);
    assert!(matches!(open().await, Error::Partitions { partitions: 2, .. }));
}
