//! Snapshots and cut logs, one sentence at a time.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{LONG, MemoryCluster, TOPIC, calm, cluster, drain, key, next, open, replay, within};
use crate::{
    journal::{
        Committed, Error, Head, Journal, Snapshot, Witness,
        feed::{BESIDE_BYTES, EACH},
    },
    kafka::{self, Cluster, faulty::FaultyCluster},
};

/// A leader with its events.
struct Leader {
    journal: Journal,
    events: mpsc::Receiver<Committed>,
}

impl Leader {
    async fn new(cluster: &MemoryCluster) -> Self {
        let (journal, mut events) = open(cluster, None).await;
        replay(&mut events).await.expect("replayed");
        let this = Self { journal, events };
        within(this.journal.claim()).await.expect("claimed");
        this
    }

    async fn append(&self, payload: &str) {
        within(self.journal.append(payload.to_owned().into())).await.expect("appended");
    }

    /// Begins a snapshot, and passes over all that was handed on before.
    async fn begin(&mut self) -> Snapshot {
        within(self.journal.begin_snapshot()).await.expect("begun");
        self.begun().await
    }

    async fn begun(&mut self) -> Snapshot {
        loop {
            if let Committed::SnapshotBegun(snapshot) = next(&mut self.events).await {
                return snapshot;
            }
        }
    }

    async fn write(&self, snapshot: Snapshot, state: &[&str]) -> Result<(), Error> {
        let payloads: Vec<_> = state.iter().map(|payload| Bytes::from((*payload).to_owned())).collect();
        within(self.journal.write_snapshot(snapshot, payloads)).await
    }
}

async fn read(cluster: &MemoryCluster, witness: Option<Witness>) -> Result<Vec<Bytes>, Error> {
    let (_journal, mut events) = open(cluster, witness).await;
    replay(&mut events).await
}

fn start(cluster: &MemoryCluster) -> i64 {
    cluster.range(TOPIC, 0).expect("range").start
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_cut_log_starts_with_the_snapshot_and_goes_on_with_the_events_after_its_begin() {
    let cluster = cluster();
    let mut leader = Leader::new(&cluster).await;
    leader.append("one").await;
    leader.append("two").await;
    let snapshot = leader.begin().await;
    leader.append("beside").await;
    leader.write(snapshot, &["state of one and two", "more of it"]).await.expect("written");
    leader.append("behind").await;
    let whole = ["one", "two", "beside", "behind"];
    assert_eq!(read(&cluster, None).await.expect("replayed"), whole, "who starts before it skips it");
    assert_eq!(leader.journal.snapshot(), Some(snapshot));
    assert_eq!(leader.journal.growth().records, 3, "the begin, and what came since");
    within(leader.journal.cut()).await.expect("cut");
    assert_eq!(start(&cluster), snapshot.offset);

    let seen = leader.journal.head();
    let (journal, mut events) = open(&cluster, Some(seen)).await;
    assert!(matches!(next(&mut events).await, Committed::Restore(at) if at == snapshot));
    let restored = ["state of one and two", "more of it", "beside", "behind"];
    assert_eq!(replay(&mut events).await.expect("replayed"), restored);
    assert_eq!((journal.head(), journal.snapshot(), journal.growth()), (seen, Some(snapshot), leader.journal.growth()));
    assert_eq!(within(journal.claim()).await.expect("claimed"), 2);
    assert_eq!(within(journal.append("on".into())).await.expect("appended"), 1);
}

#[tokio::test(start_paused = true)]
async fn snapshots_follow_one_another_and_one_of_many_parts_takes_little_memory() {
    let cluster = cluster();
    let mut leader = Leader::new(&cluster).await;
    for round in 1..4 {
        leader.append("event").await;
        let snapshot = leader.begin().await;
        let state = (0..round * 100_000u32).map(|i| Bytes::from(i.to_string()));
        within(leader.journal.write_snapshot(snapshot, state)).await.expect("written");
        within(leader.journal.cut()).await.expect("cut");
        assert_eq!(start(&cluster), snapshot.offset);
        let payloads = read(&cluster, Some(leader.journal.head())).await.expect("replayed");
        assert!(payloads.iter().eq((0..round * 100_000).map(|i| i.to_string()).collect::<Vec<_>>().iter()));
    }
    let end = cluster.range(TOPIC, 0).expect("range").end;
    assert!(end < 50, "{end} records for 5 MB");
}

#[tokio::test(start_paused = true)]
async fn a_torn_snapshot_counts_for_nothing() {
    let cluster = cluster();
    let mut leader = Leader::new(&cluster).await;
    leader.append("one").await;
    // The caller gives up, then another snapshot is begun.
    let first = leader.begin().await;
    let mut endless = tokio::spawn({
        let journal = leader.journal.clone();
        async move { journal.write_parts(first, std::iter::repeat_n(Bytes::from_static(b"part"), 100_000), 10).await }
    });
    while cluster.range(TOPIC, 0).expect("range").end < 20 {
        tokio::task::yield_now().await;
    }
    let second = leader.begin().await;
    let torn = within(&mut endless).await.expect("no panic").expect_err("torn");
    assert!(matches!(torn, Error::Torn), "{torn}");
    assert!(matches!(leader.write(first, &[]).await, Err(Error::Torn)));
    assert_eq!(leader.journal.snapshot(), None);
    within(leader.journal.cut()).await.expect("nothing to cut");
    assert_eq!(start(&cluster), 0);

    // Another controller takes over.
    let next = Leader::new(&cluster).await;
    assert!(matches!(leader.write(second, &["x"]).await, Err(Error::Superseded { by: 2 })));
    next.append("two").await;
    assert_eq!(next.journal.snapshot(), None);
    assert_eq!(read(&cluster, None).await.expect("replayed"), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_fits_nowhere_tears_its_snapshot_and_nothing_else() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, kafka::faulty::Faults { max_batch: Some(10_000), ..calm() }, 1);
    let (journal, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    let mut leader = Leader { journal, events };
    within(leader.journal.claim()).await.expect("claimed");
    let snapshot = leader.begin().await;
    let big = "x".repeat(20_000);
    let error = leader.write(snapshot, &["small", &big]).await.expect_err("too large");
    assert!(matches!(error, Error::Kafka(kafka::Error::TooLarge { .. })), "{error}");
    leader.append("one").await;
    let snapshot = leader.begin().await;
    leader.write(snapshot, &["small"]).await.expect("written");
    let too_large = vec![Bytes::from(vec![0; crate::journal::MAX_PAYLOAD + 1])];
    let snapshot = leader.begin().await;
    assert!(matches!(within(leader.journal.write_snapshot(snapshot, too_large)).await, Err(Error::TooLarge { .. })));
    leader.append("two").await;
    assert_eq!(read(&memory, None).await.expect("replayed"), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_the_cut_overtakes_goes_on_at_the_snapshot() {
    let memory = cluster();
    let mut leader = Leader::new(&memory).await;
    leader.append("one").await;
    let faulty = FaultyCluster::new(&memory, calm(), 1);
    let (journal, mut events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    assert_eq!(replay(&mut events).await.expect("replayed"), ["one"]);
    faulty.stop();
    leader.append("missed").await;
    let snapshot = leader.begin().await;
    leader.append("beside").await;
    leader.write(snapshot, &["one and missed"]).await.expect("written");
    within(leader.journal.cut()).await.expect("cut");
    leader.append("last").await;
    faulty.go_on();
    // The fetch that was parked may bring what was there when it ended.
    let mut state = vec![Bytes::from_static(b"one")];
    let mut restored = false;
    while state.last().is_none_or(|last| last != "last") {
        match next(&mut events).await {
            Committed::Restore(_) => (state, restored) = (Vec::new(), true),
            Committed::Restored { payload } | Committed::Event { payload, .. } => state.push(payload),
            Committed::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert!(restored);
    assert_eq!(state, ["one and missed", "beside", "last"]);
    assert_eq!(within(journal.claim()).await.expect("claimed"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_the_cut_overtakes_leads_no_more_and_may_claim_again() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, calm(), 1);
    let (old, mut events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    within(old.claim()).await.expect("claimed");
    within(old.append("one".into())).await.expect("appended");
    faulty.stop();
    let waiting = within(old.enqueue("lost".into())).await.expect("taken");
    let mut leader = Leader::new(&memory).await;
    let snapshot = leader.begin().await;
    leader.write(snapshot, &["one"]).await.expect("written");
    within(leader.journal.cut()).await.expect("cut");
    faulty.go_on();
    let error = within(waiting).await.expect_err("it leads no more");
    assert!(matches!(error, Error::Diverged { epoch: 1 } | Error::Superseded { .. }), "{error}");
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    assert_eq!(within(old.claim()).await.expect("claimed again"), 3);
    within(old.append("two".into())).await.expect("appended");
    assert_eq!(read(&memory, None).await.expect("replayed"), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_was_rolled_back_to_an_older_snapshot_is_refused() {
    let cluster = cluster();
    let mut leader = Leader::new(&cluster).await;
    leader.append("one").await;
    let snapshot = leader.begin().await;
    leader.write(snapshot, &["old"]).await.expect("written");
    let copies = range(&cluster, snapshot.offset).await;
    let early = leader.journal.head();
    leader.append("revoked").await;
    let seen = leader.journal.head();
    // Somebody with every right in Kafka copies the snapshot to the end, and cuts the log there.
    let forged = cluster.append(TOPIC, 0, copies).expect("appended");
    assert_eq!(read(&cluster, Some(seen)).await.expect("copies change nothing"), ["one", "revoked"]);
    cluster.truncate(TOPIC, 0, forged).expect("truncated");
    let error = read(&cluster, Some(seen)).await.expect_err("rolled back");
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    let error = read(&cluster, Some(early)).await.expect_err("what was seen stands before it, and can't be newer");
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    // Without a witness nobody can know.
    assert_eq!(read(&cluster, None).await.expect("accepted"), ["old"]);
}

#[tokio::test(start_paused = true)]
async fn a_witness_of_what_was_cut_away_accepts_a_newer_snapshot_only() {
    let cluster = cluster();
    let mut leader = Leader::new(&cluster).await;
    leader.append("one").await;
    let seen = leader.journal.head();
    leader.append("two").await;
    let snapshot = leader.begin().await;
    leader.write(snapshot, &["state"]).await.expect("written");
    within(leader.journal.cut()).await.expect("cut");
    let first_version = Witness { seq: 0, ..seen };
    for accepted in [seen, first_version, leader.journal.head(), Witness { epoch: 0, seq: 99, ..seen }] {
        assert_eq!(read(&cluster, Some(accepted)).await.expect("accepted"), ["state"]);
    }
    for refused in [
        Witness { epoch: 2, ..seen },
        Witness { seq: snapshot.seq, ..seen },
        Witness { offset: snapshot.offset, ..seen },
        Witness { head: Head([1; 32]), ..leader.journal.head() },
    ] {
        let error = read(&cluster, Some(refused)).await.expect_err("refused");
        assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_log_that_lost_its_snapshots_end_is_refused() {
    let cluster = cluster();
    let mut leader = Leader::new(&cluster).await;
    leader.append("one").await;
    let snapshot = leader.begin().await;
    leader.write(snapshot, &["state"]).await.expect("written");
    within(leader.journal.cut()).await.expect("cut");
    cluster.lose_tail(TOPIC, 0, snapshot.offset + 2).expect("lost");
    let error = read(&cluster, None).await.expect_err("torn");
    assert!(matches!(error, Error::Truncated { start, .. } if start == snapshot.offset), "{error}");
    cluster.lose_tail(TOPIC, 0, snapshot.offset).expect("lost");
    let error = read(&cluster, None).await.expect_err("nothing is left");
    assert!(matches!(error, Error::Truncated { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_is_not_allowed_costs_nothing_but_room() {
    let memory = cluster();
    let faulty = FaultyCluster::new(&memory, calm(), 1);
    let (journal, events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    let mut leader = Leader { journal, events };
    within(leader.journal.claim()).await.expect("claimed");
    leader.append("one").await;
    let snapshot = leader.begin().await;
    leader.write(snapshot, &["state"]).await.expect("written");
    faulty.deny(true);
    let error = within(leader.journal.cut()).await.expect_err("no right");
    assert!(matches!(error, Error::Kafka(kafka::Error::Authorization { .. })), "{error}");
    assert_eq!(start(&memory), 0);
    faulty.deny(false);
    leader.append("two").await;
    within(leader.journal.cut()).await.expect("cut");
    assert_eq!(read(&memory, None).await.expect("replayed"), ["state", "two"]);
    // Cut further by another.
    memory.truncate(TOPIC, 0, snapshot.offset + 1).expect("truncated");
    within(leader.journal.cut()).await.expect("it is cut already");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_made_anew_is_founded_with_the_state_of_its_leader() {
    let cluster = cluster();
    let mut leader = Leader::new(&cluster).await;
    leader.append("one").await;
    cluster.create(TOPIC, 1);
    while !matches!(next(&mut leader.events).await, Committed::Failed(Error::Recreated { .. })) {}
    assert!(matches!(within(leader.journal.append("two".into())).await, Err(Error::Recreated { .. })));
    // Somebody with an empty disk was quicker.
    let stranger = Leader::new(&cluster).await;
    stranger.append("stranger").await;
    let (_standby, mut standby) = open(&cluster, None).await;

    let mut founder = Leader::new(&cluster).await;
    assert_eq!(within(founder.journal.claim_above(7)).await.expect("claimed"), 8);
    assert_eq!(within(founder.journal.claim_above(7)).await.expect("leads"), 8);
    within(founder.journal.begin_founding()).await.expect("begun");
    let snapshot = founder.begun().await;
    founder.append("beside").await;
    founder.write(snapshot, &["one"]).await.expect("written");
    founder.append("two").await;
    let mut state = Vec::new();
    while state.last().is_none_or(|last: &Bytes| last != "two") {
        match next(&mut standby).await {
            Committed::Restore(_) => state.clear(),
            Committed::Restored { payload } | Committed::Event { payload, .. } => state.push(payload),
            _ => {}
        }
    }
    assert_eq!(state, ["one", "beside", "two"]);
    assert_eq!(read(&cluster, Some(founder.journal.head())).await.expect("replayed"), ["one", "beside", "two"]);
    within(founder.journal.cut()).await.expect("cut");
    assert_eq!(read(&cluster, Some(founder.journal.head())).await.expect("replayed"), ["one", "beside", "two"]);
    assert!(matches!(within(stranger.journal.append("x".into())).await, Err(Error::Superseded { by: 8 })));
}

#[tokio::test(start_paused = true)]
async fn a_founding_that_is_torn_leaves_what_came_since_and_its_writer_is_told() {
    let cluster = cluster();
    let stranger = Leader::new(&cluster).await;
    stranger.append("stranger").await;
    let (_standby, mut standby) = open(&cluster, None).await;
    let mut founder = Leader::new(&cluster).await;
    within(founder.journal.begin_founding()).await.expect("begun");
    let snapshot = founder.begun().await;
    founder.append("since").await;
    let endless = tokio::spawn({
        let journal = founder.journal.clone();
        async move { journal.write_parts(snapshot, std::iter::repeat_n(Bytes::from_static(b"part"), 100_000), 10).await }
    });
    while cluster.range(TOPIC, 0).expect("range").end < 20 {
        tokio::task::yield_now().await;
    }
    drain(founder.events);
    let taker = Leader::new(&cluster).await;
    assert!(within(endless).await.expect("no panic").is_err());
    assert!(matches!(within(founder.journal.append("x".into())).await, Err(Error::Superseded { by: 3 })));
    taker.append("after").await;
    assert_eq!(read(&cluster, None).await.expect("replayed"), ["since", "after"]);
    let mut state = Vec::new();
    while state.last().is_none_or(|last: &Bytes| last != "after") {
        match next(&mut standby).await {
            Committed::Restore(_) => state.clear(),
            Committed::Restored { payload } | Committed::Event { payload, .. } => state.push(payload),
            _ => {}
        }
    }
    assert_eq!(state, ["since", "after"]);
}

/// The log's records from `start` on.
async fn range(cluster: &MemoryCluster, start: i64) -> Vec<kafka::Record> {
    let fetched = cluster.reader(TOPIC, 0).fetch(start, 100 << 20, LONG).await.expect("fetched");
    fetched.records.into_iter().map(|(_, record)| record).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cut_spares_a_topic_that_was_made_anew() {
    let cluster = cluster();
    let mut leader = Leader::new(&cluster).await;
    leader.append("one").await;
    let snapshot = leader.begin().await;
    leader.write(snapshot, &["state"]).await.expect("written");
    cluster.create(TOPIC, 1);
    cluster.append(TOPIC, 0, vec![kafka::Record::new("", "x"); 100]).expect("appended");
    assert!(matches!(within(leader.journal.cut()).await, Err(Error::Recreated { .. })));
    assert_eq!(start(&cluster), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_a_cut_to_an_older_snapshot_overtakes_says_so() {
    let memory = cluster();
    let mut leader = Leader::new(&memory).await;
    leader.append("one").await;
    let snapshot = leader.begin().await;
    leader.write(snapshot, &["old"]).await.expect("written");
    let copies = range(&memory, snapshot.offset).await;
    leader.append("two").await;
    let faulty = FaultyCluster::new(&memory, calm(), 1);
    let (_reader, mut events) = Journal::open(faulty.shared(), TOPIC, key(), None).await.expect("opened");
    assert_eq!(replay(&mut events).await.expect("replayed"), ["one", "two"]);
    faulty.stop();
    leader.append("three").await;
    let forged = memory.append(TOPIC, 0, copies).expect("appended");
    memory.truncate(TOPIC, 0, forged).expect("truncated");
    faulty.go_on();
    let failed = loop {
        match next(&mut events).await {
            Committed::Failed(error) => break error,
            Committed::Restore(at) => panic!("it took the copy of {at:?}"),
            _ => {}
        }
    };
    assert!(matches!(failed, Error::RolledBack { .. }), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_follows_a_torn_founding_founds_too() {
    let cluster = cluster();
    let stranger = Leader::new(&cluster).await;
    stranger.append("stranger").await;
    let mut founder = Leader::new(&cluster).await;
    within(founder.journal.begin_founding()).await.expect("begun");
    let torn = founder.begun().await;
    let second = founder.begin().await;
    assert!(matches!(founder.write(torn, &["state"]).await, Err(Error::Torn)));
    founder.write(second, &["state"]).await.expect("written");
    assert_eq!(read(&cluster, None).await.expect("replayed"), ["state"]);
    founder.append("event").await;
    // Now all have it, and an ordinary one is skipped.
    let third = founder.begin().await;
    founder.write(third, &["state and event"]).await.expect("written");
    assert_eq!(read(&cluster, None).await.expect("replayed"), ["state", "event"]);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_in_which_too_much_else_came_is_torn_and_its_writer_is_told() {
    let cluster = cluster();
    let mut leader = Leader::new(&cluster).await;
    let snapshot = leader.begin().await;
    let Leader { journal, events } = leader;
    drain(events);
    let event = Bytes::from(vec![0; 1000]);
    for _ in 0..=BESIDE_BYTES / (event.len() + EACH) {
        within(journal.enqueue(event.clone())).await.expect("taken");
    }
    // The last events are still under way when the end is sealed.
    let torn = within(journal.write_snapshot(snapshot, [])).await.expect_err("torn");
    assert!(matches!(torn, Error::Torn), "{torn}");
    assert_eq!(journal.snapshot(), None);
}
