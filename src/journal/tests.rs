//! The whole journal on logs in memory, under paused time: what its documentation promises, one sentence at a time.
//! [`simulation`] then mixes all faults.

mod faults;
mod simulation;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::*;
use crate::kafka::{self, Cluster, memory::MemoryCluster};
use faults::{Faults, FaultyCluster};

const TOPIC: &str = "rk.journal";
const LONG: Duration = Duration::from_secs(600);

fn key() -> StateKey {
    StateKey::new([3; 32])
}

fn cluster() -> MemoryCluster {
    let cluster = MemoryCluster::new();
    cluster.create(TOPIC, 1);
    cluster
}

async fn open(cluster: &MemoryCluster, witness: Option<Witness>) -> (Journal, mpsc::Receiver<Committed>) {
    Journal::open(Arc::new(cluster.clone()), TOPIC, key(), witness).await.expect("opened")
}

/// Opens and claims; the events are read and dropped.
async fn lead(cluster: &MemoryCluster) -> Journal {
    let (journal, events) = open(cluster, None).await;
    drain(events);
    journal.claim().await.expect("claimed");
    journal
}

fn drain(mut events: mpsc::Receiver<Committed>) {
    tokio::spawn(async move { while events.recv().await.is_some() {} });
}

/// The next thing that happens, within a bound.
async fn next(events: &mut mpsc::Receiver<Committed>) -> Committed {
    timeout(LONG, events.recv()).await.expect("in time").expect("not closed")
}

/// The payloads up to the end of the replay, or how it failed.
async fn replay(events: &mut mpsc::Receiver<Committed>) -> Result<Vec<Bytes>, Error> {
    let mut payloads = Vec::new();
    loop {
        match next(events).await {
            Committed::Event { payload, .. } => payloads.push(payload),
            Committed::Claimed { .. } => {}
            Committed::CaughtUp => return Ok(payloads),
            Committed::Failed(error) => return Err(error),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_come_back_in_order_and_outlive_the_journal() {
    let cluster = cluster();
    let (journal, mut events) = open(&cluster, None).await;
    assert!(matches!(next(&mut events).await, Committed::CaughtUp));
    assert!(matches!(journal.append("early".into()).await, Err(Error::NotLeader)));
    assert_eq!(journal.claim().await.expect("claimed"), 1);
    assert_eq!(journal.claim().await.expect("leads already"), 1);
    assert!(matches!(next(&mut events).await, Committed::Claimed { epoch: 1, mine: true }));
    for (seq, payload) in [(1, "a"), (2, "b")] {
        assert_eq!(journal.append(payload.into()).await.expect("appended"), seq);
        match next(&mut events).await {
            Committed::Event { epoch: 1, seq: got, payload: bytes, .. } => {
                assert_eq!((got, &bytes[..]), (seq, payload.as_bytes()));
            }
            other => panic!("{other:?}"),
        }
    }
    let head = journal.head();
    assert_eq!((head.epoch, head.offset, journal.leading(), journal.ignored()), (1, 2, Some(1), 0));
    drop(journal);
    assert!(timeout(LONG, events.recv()).await.expect("in time").is_none());

    let (journal, mut events) = open(&cluster, Some(head)).await;
    assert_eq!(replay(&mut events).await.expect("replayed"), ["a", "b"]);
    assert_eq!(journal.head(), head);
    assert_eq!(journal.claim().await.expect("claimed"), 2);
}

#[tokio::test(start_paused = true)]
async fn many_appends_share_few_batches() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, Faults::none(), 1);
    let (journal, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    drain(events);
    journal.claim().await.expect("claimed");
    faulty.stop();
    let appends: Vec<_> = (0..5000u32)
        .map(|i| {
            let journal = journal.clone();
            tokio::spawn(async move { journal.append(i.to_string().into()).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = faulty.produces();
    faulty.go_on();
    for append in appends {
        append.await.expect("no panic").expect("appended");
    }
    let batches = faulty.produces() - before;
    assert!(batches < 100, "{batches} batches");
    assert_eq!(memory.range(TOPIC, 0).expect("range"), 0..5001);
}

#[tokio::test(start_paused = true)]
async fn a_second_claim_supersedes_the_first_and_nothing_of_it_counts_any_more() {
    let cluster = cluster();
    let first = lead(&cluster).await;
    first.append("one".into()).await.expect("appended");
    let second = lead(&cluster).await;
    let error = first.append("late".into()).await.expect_err("superseded");
    assert!(matches!(error, Error::Superseded { by: 2 }), "{error}");
    assert_eq!((first.leading(), second.leading()), (None, Some(2)));
    second.append("two".into()).await.expect("appended");
    let (_journal, mut events) = open(&cluster, None).await;
    assert_eq!(replay(&mut events).await.expect("replayed"), ["one", "two"]);
    assert_eq!(first.claim().await.expect("claimed again"), 3);
    assert_eq!(first.append("three".into()).await.expect("appended"), 1);
}

#[tokio::test(start_paused = true)]
async fn bytes_of_others_and_copies_change_nothing() {
    let cluster = cluster();
    let journal = lead(&cluster).await;
    journal.append("one".into()).await.expect("appended");
    let mut reader = cluster.reader(TOPIC, 0);
    let log = reader.fetch(0, 1 << 20, LONG).await.expect("fetched");
    for (_, record) in log.records {
        cluster.append(TOPIC, 0, vec![record]).expect("a copy");
    }
    let garbage = ["", "\u{1}short", &"x".repeat(400)].map(|value| kafka::Record::new("k", value.to_owned()));
    cluster.append(TOPIC, 0, garbage.into()).expect("garbage");
    journal.append("two".into()).await.expect("appended");
    assert_eq!(journal.ignored(), 5);
    let (_journal, mut events) = open(&cluster, Some(journal.head())).await;
    assert_eq!(replay(&mut events).await.expect("replayed"), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_delays_appends_and_is_shown() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, Faults::none(), 1);
    let (journal, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    drain(events);
    journal.claim().await.expect("claimed");
    let mut health = journal.health();
    assert!(health.borrow().is_reachable());
    faulty.fail(true);
    let appending = tokio::spawn({
        let journal = journal.clone();
        async move { journal.append("through".into()).await }
    });
    let seen = timeout(LONG, health.wait_for(|h| h.reading.is_some() && h.writing.is_some())).await.expect("in time");
    assert!(seen.expect("open").to_string().starts_with("Kafka unreachable: "));
    assert!(timeout(LONG, journal.append("dropped".into())).await.is_err(), "the caller bounds it");
    faulty.fail(false);
    assert_eq!(timeout(LONG, appending).await.expect("in time").expect("no panic").expect("appended"), 1);
    timeout(LONG, health.wait_for(Health::is_reachable)).await.expect("in time").expect("open");
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_missing_is_told_to_the_caller() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, Faults::none(), 1);
    let (journal, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    drain(events);
    faulty.deny(true);
    let refused = |error| matches!(error, Error::Kafka(kafka::Error::Authorization { .. }));
    assert!(refused(journal.claim().await.expect_err("no right")));
    faulty.deny(false);
    journal.claim().await.expect("claimed");
    journal.append("one".into()).await.expect("appended");
    faulty.deny(true);
    assert!(refused(journal.append("two".into()).await.expect_err("no right")));
    assert!(!journal.health().borrow().is_reachable());
    faulty.deny(false);
    assert_eq!(journal.append("three".into()).await.expect("appended"), 2);
    assert!(journal.health().borrow().is_reachable());
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_fits_nowhere_is_refused_and_the_others_go_on() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, Faults { max_batch: Some(10_000), ..Faults::none() }, 1);
    let (journal, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    drain(events);
    journal.claim().await.expect("claimed");
    let error = journal.append(vec![0; MAX_PAYLOAD + 1].into()).await.expect_err("above our limit");
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    let error = journal.append(vec![0; 20_000].into()).await.expect_err("above the topic's limit");
    assert!(matches!(error, Error::Kafka(kafka::Error::TooLarge { .. })), "{error}");
    // Together above the topic's limit: split.
    let appends: Vec<_> = (0..20).map(|_| journal.append(vec![1; 4000].into())).collect();
    for result in futures_util::future::join_all(appends).await {
        result.expect("appended");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_drain_stops_the_reading_and_loses_nothing() {
    let cluster = cluster();
    let journal = lead(&cluster).await;
    let (_slow, mut events) = open(&cluster, None).await;
    let appends: Vec<_> = (0..3000u32).map(|i| journal.append(i.to_string().into())).collect();
    for result in futures_util::future::join_all(appends).await {
        result.expect("appended");
    }
    assert_eq!(events.len(), EVENTS);
    let mut seen = 0;
    while seen < 3000 {
        if let Committed::Event { seq, .. } = next(&mut events).await {
            seen += 1;
            assert_eq!(seq, seen);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_older_or_other_journal_is_refused_unless_it_is_accepted() {
    let cluster = cluster();
    let journal = lead(&cluster).await;
    for payload in ["one", "two", "three"] {
        journal.append(payload.into()).await.expect("appended");
    }
    let seen = journal.head();
    drop(journal);
    let refused = async |cluster: &MemoryCluster, seen| {
        let result = Journal::open(Arc::new(cluster.clone()), TOPIC, key(), Some(seen)).await;
        let error = match result {
            Ok((journal, mut events)) => {
                let error = replay(&mut events).await.expect_err("refused on the way");
                assert!(matches!(journal.claim().await, Err(Error::RolledBack { .. })));
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
    other.append("x".into()).await.expect("appended");
    drop(other);
    refused(&cluster, seen).await;
    open(&cluster, None).await;
    // Made anew.
    cluster.create(TOPIC, 1);
    refused(&cluster, seen).await;
    refused(&cluster, Witness { topic_id: 0, ..seen }).await;
    let (journal, _events) = open(&cluster, None).await;
    assert_eq!(journal.claim().await.expect("accepted"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_its_beginning_is_an_error_that_says_so() {
    let cluster = cluster();
    let journal = lead(&cluster).await;
    journal.append("one".into()).await.expect("appended");
    cluster.truncate(TOPIC, 0, 1).expect("truncated");
    let error = Journal::open(Arc::new(cluster.clone()), TOPIC, key(), None).await.expect_err("truncated");
    assert!(matches!(error, Error::Truncated { start: 1, .. }), "{error}");
    // Who has read it already does not mind.
    journal.append("two".into()).await.expect("appended");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_shrinks_or_is_made_anew_under_us_ends_the_journal() {
    for anew in [false, true] {
        let cluster = cluster();
        let (journal, mut events) = open(&cluster, None).await;
        journal.claim().await.expect("claimed");
        journal.append("one".into()).await.expect("appended");
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
        assert!(matches!(failed, Error::RolledBack { .. }), "{failed}");
        assert!(matches!(journal.append("two".into()).await, Err(Error::RolledBack { .. })));
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

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_given_up_and_lands_late_supersedes_nobody_newer() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, Faults::none(), 1);
    let (old, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    drain(events);
    faulty.stop();
    assert!(timeout(Duration::from_secs(1), old.claim()).await.is_err());
    let new = lead(&memory).await;
    new.append("one".into()).await.expect("appended");
    faulty.go_on();
    new.append("two".into()).await.expect("appended");
    let start = Instant::now();
    while old.head() != new.head() {
        assert!(start.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((old.leading(), new.leading()), (None, Some(1)));
}
