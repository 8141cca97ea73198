//! The whole journal on logs in memory, under paused time: what its documentation promises, one sentence at a time.
//! [`simulation`] then mixes all faults.

mod refusals;
mod simulation;
mod snapshots;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::*;
use crate::kafka::{
    self, Cluster,
    faulty::{Faults, FaultyCluster},
    memory::MemoryCluster,
};

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

/// A good network, which all the same delivers in small pieces.
fn calm() -> Faults {
    Faults { delay: Duration::from_millis(1), few: 50, ..Faults::default() }
}

async fn open(cluster: &MemoryCluster, witness: Option<Witness>) -> (Journal, mpsc::Receiver<Committed>) {
    Journal::open(Arc::new(cluster.clone()), TOPIC, key(), witness).await.expect("opened")
}

/// Opens and claims; the events are read and dropped.
async fn lead(cluster: &MemoryCluster) -> Journal {
    let (journal, events) = open(cluster, None).await;
    drain(events);
    within(journal.claim()).await.expect("claimed");
    journal
}

/// What takes for ever fails.
async fn within<F: Future>(future: F) -> F::Output {
    timeout(LONG, future).await.expect("in time")
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
            Committed::Claimed { .. } | Committed::SnapshotBegun(_) | Committed::RestoreEnd => {}
            Committed::Restore(_) => payloads.clear(),
            Committed::Restored { payload } => payloads.push(payload),
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
    assert!(matches!(within(journal.append("early".into())).await, Err(Error::NotLeader)));
    assert_eq!(within(journal.claim()).await.expect("claimed"), 1);
    assert_eq!(within(journal.claim()).await.expect("leads already"), 1);
    assert!(matches!(next(&mut events).await, Committed::Claimed { epoch: 1, mine: true }));
    for (seq, payload) in [(1, "a"), (2, "b")] {
        assert_eq!(within(journal.append(payload.into())).await.expect("appended"), seq);
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
    assert_eq!(within(journal.claim()).await.expect("claimed"), 2);
}

#[tokio::test(start_paused = true)]
async fn many_appends_share_few_batches() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, calm(), 1);
    let (journal, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    drain(events);
    within(journal.claim()).await.expect("claimed");
    faulty.stop();
    let appends: Vec<_> = (0..5000u32)
        .map(|i| {
            let journal = journal.clone();
            tokio::spawn(async move { within(journal.append(i.to_string().into())).await })
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
async fn events_that_are_enqueued_keep_their_order_and_share_batches() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, calm(), 1);
    let (journal, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    drain(events);
    assert!(matches!(within(journal.enqueue("x".into())).await.expect("taken").await, Err(Error::NotLeader)));
    within(journal.claim()).await.expect("claimed");
    let before = faulty.produces();
    let mut pending = Vec::new();
    for i in 0..5000u32 {
        pending.push(within(journal.enqueue(i.to_string().into())).await.expect("taken"));
    }
    for (seq, pending) in (1..).zip(pending) {
        assert_eq!(within(pending).await.expect("appended"), seq);
    }
    assert!(faulty.produces() - before < 100, "{} batches", faulty.produces() - before);
    let (_journal, mut events) = open(&memory, None).await;
    let expected: Vec<_> = (0..5000u32).map(|i| i.to_string()).collect();
    assert_eq!(replay(&mut events).await.expect("replayed"), expected);
    // Who waits learns why it ends.
    let waiting = within(journal.enqueue("y".into())).await.expect("taken");
    memory.create(TOPIC, 1);
    assert!(matches!(within(waiting).await, Err(Error::Recreated { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_enqueued_counts_though_nobody_waits_for_it() {
    let cluster = cluster();
    let journal = lead(&cluster).await;
    drop(within(journal.enqueue("one".into())).await.expect("taken"));
    within(journal.append("two".into())).await.expect("appended");
    let (_journal, mut events) = open(&cluster, None).await;
    assert_eq!(replay(&mut events).await.expect("replayed"), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_claim_supersedes_the_first_and_nothing_of_it_counts_any_more() {
    let cluster = cluster();
    let first = lead(&cluster).await;
    within(first.append("one".into())).await.expect("appended");
    let second = lead(&cluster).await;
    let error = within(first.append("late".into())).await.expect_err("superseded");
    assert!(matches!(error, Error::Superseded { by: 2 }), "{error}");
    assert_eq!((first.leading(), second.leading()), (None, Some(2)));
    within(second.append("two".into())).await.expect("appended");
    let (_journal, mut events) = open(&cluster, None).await;
    assert_eq!(replay(&mut events).await.expect("replayed"), ["one", "two"]);
    assert_eq!(within(first.claim()).await.expect("claimed again"), 3);
    assert_eq!(within(first.append("three".into())).await.expect("appended"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_above_ones_own_epoch_leaves_open_what_becomes_of_what_is_under_way() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, calm(), 1);
    let (journal, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    drain(events);
    assert_eq!(within(journal.claim_above(0)).await.expect("claimed"), 1);
    assert_eq!(within(journal.claim_above(0)).await.expect("it leads"), 1);
    let under_way = within(journal.enqueue("one".into())).await.expect("taken");
    let (answer, epoch) = tokio::join!(within(under_way), within(journal.claim_above(5)));
    assert_eq!(epoch.expect("claimed"), 6);
    assert!(matches!(answer, Err(Error::Diverged { epoch: 1 })), "{answer:?}");
    within(journal.append("two".into())).await.expect("appended");
    let (_journal, mut events) = open(&memory, None).await;
    let payloads = replay(&mut events).await.expect("replayed");
    assert_eq!(payloads.last().expect("not empty"), "two");
    let error = within(journal.claim_above(u32::MAX)).await.expect_err("none is left");
    assert!(matches!(error, Error::EpochsExhausted), "{error}");
}

#[tokio::test(start_paused = true)]
async fn bytes_of_others_and_copies_change_nothing() {
    let cluster = cluster();
    let journal = lead(&cluster).await;
    within(journal.append("one".into())).await.expect("appended");
    let mut reader = cluster.reader(TOPIC, 0);
    let log = reader.fetch(0, 1 << 20, LONG).await.expect("fetched");
    for (_, record) in log.records {
        cluster.append(TOPIC, 0, vec![record]).expect("a copy");
    }
    let garbage = ["", "\u{1}short", &"x".repeat(400)].map(|value| kafka::Record::new("k", value.to_owned()));
    cluster.append(TOPIC, 0, garbage.into()).expect("garbage");
    within(journal.append("two".into())).await.expect("appended");
    assert_eq!(journal.ignored(), 5);
    let (_journal, mut events) = open(&cluster, Some(journal.head())).await;
    assert_eq!(replay(&mut events).await.expect("replayed"), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_delays_appends_and_is_shown() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, calm(), 1);
    let (journal, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    drain(events);
    within(journal.claim()).await.expect("claimed");
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
    let faulty = FaultyCluster::new(&memory, calm(), 1);
    let (journal, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    drain(events);
    faulty.deny(true);
    let refused = |error| matches!(error, Error::Kafka(kafka::Error::Authorization { .. }));
    assert!(refused(within(journal.claim()).await.expect_err("no right")));
    faulty.deny(false);
    within(journal.claim()).await.expect("claimed");
    within(journal.append("one".into())).await.expect("appended");
    faulty.deny(true);
    assert!(refused(within(journal.append("two".into())).await.expect_err("no right")));
    assert!(!journal.health().borrow().is_reachable());
    faulty.deny(false);
    assert_eq!(within(journal.append("three".into())).await.expect("appended"), 2);
    assert!(journal.health().borrow().is_reachable());
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_fits_nowhere_is_refused_and_the_others_go_on() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, Faults { max_batch: Some(10_000), ..calm() }, 1);
    let (journal, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    drain(events);
    within(journal.claim()).await.expect("claimed");
    let error = within(journal.append(vec![0; MAX_PAYLOAD + 1].into())).await.expect_err("above our limit");
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    let error = within(journal.append(vec![0; 20_000].into())).await.expect_err("above the topic's limit");
    assert!(matches!(error, Error::Kafka(kafka::Error::TooLarge { .. })), "{error}");
    // Together above the topic's limit: split.
    let appends: Vec<_> = (0..20).map(|_| journal.append(vec![1; 4000].into())).collect();
    for result in within(futures_util::future::join_all(appends)).await {
        result.expect("appended");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_drain_stops_the_reading_and_loses_nothing() {
    let cluster = cluster();
    let journal = lead(&cluster).await;
    let (_slow, mut events) = open(&cluster, None).await;
    let appends: Vec<_> = (0..3000u32).map(|i| journal.append(i.to_string().into())).collect();
    for result in within(futures_util::future::join_all(appends)).await {
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
async fn a_claim_that_was_given_up_and_lands_late_supersedes_nobody_newer() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, calm(), 1);
    let (old, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    drain(events);
    faulty.stop();
    assert!(timeout(Duration::from_secs(1), old.claim()).await.is_err());
    let new = lead(&memory).await;
    within(new.append("one".into())).await.expect("appended");
    faulty.go_on();
    within(new.append("two".into())).await.expect("appended");
    let start = Instant::now();
    while old.head() != new.head() {
        assert!(start.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((old.leading(), new.leading()), (None, Some(1)));
}
