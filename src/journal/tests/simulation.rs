//! A model check: two or three controllers claim, append, stand still, crash and come back over a bad network, under
//! paused time, one seed a schedule. A failing seed is printed; make it a named test.
//!
//! What is held against the journal: every reader folds the same events; an append that returned `Ok` is in the fold
//! exactly once, in its place; none that returned a definite error is; nothing of an epoch counts behind a later claim;
//! and no append that started after another's claim was won returns `Ok`.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{LONG, MemoryCluster, TOPIC, calm, cluster, key};
use crate::{
    journal::{Committed, Error, Journal, Random, Witness},
    kafka::{
        self,
        faulty::{self, Faults, FaultyCluster, Rng},
    },
};

/// How many schedules `cargo test` runs.
const SCHEDULES: u64 = 600;

/// What one reader makes of the log: claims as events without a payload.
type Fold = Vec<(u32, u64, Option<u64>)>;

/// What all controllers of a schedule did.
#[derive(Default)]
struct World {
    /// The highest epoch whose claim was seen to be won, by anybody.
    won: AtomicU32,
    payloads: AtomicU64,
    /// Payload → its seq, for each append that returned `Ok`.
    appended: Mutex<BTreeMap<u64, u64>>,
    /// Payloads whose append returned an error that says that they do not count.
    refused: Mutex<Vec<u64>>,
    /// Appends whose writer met a record of its own that it had given up.
    diverged: AtomicU64,
}

fn random(seed: u64) -> impl Fn() -> Random + Sync {
    let draws = Mutex::new(Rng(seed));
    move || {
        let mut rng = Rng(draws.lock().expect("no holder panics").next());
        Box::new(move || u128::from(rng.next()) << 64 | u128::from(rng.next()))
    }
}

/// A process: a journal, and the task that folds it.
struct Process {
    journal: Journal,
    fold: watch::Receiver<Fold>,
}

async fn start(cluster: &FaultyCluster, witness: Option<Witness>, seed: u64) -> Process {
    let opened = Journal::open_with(cluster.shared(), TOPIC, key(), witness, &random(seed)).await;
    let (journal, events) = opened.expect("opened");
    let (folded, fold) = watch::channel(Fold::new());
    tokio::spawn(fold_events(events, folded));
    Process { journal, fold }
}

async fn fold_events(mut events: mpsc::Receiver<Committed>, fold: watch::Sender<Fold>) {
    while let Some(event) = events.recv().await {
        fold.send_modify(|fold| match event {
            Committed::Claimed { epoch, .. } => fold.push((epoch, 0, None)),
            Committed::Event { epoch, seq, payload, .. } => {
                let payload = u64::from_be_bytes(payload[..8].try_into().expect("8 bytes"));
                fold.push((epoch, seq, Some(payload)));
            }
            Committed::CaughtUp => {}
            Committed::SnapshotBegun(_)
            | Committed::Restore(_)
            | Committed::Restored { .. }
            | Committed::RestoreEnd => {
                panic!("nobody writes snapshots")
            }
            Committed::Failed(error) => panic!("the journal failed: {error}"),
        });
    }
}

/// One controller's life: steps drawn from its seed.
async fn live(world: Arc<World>, cluster: FaultyCluster, mut rng: Rng) -> Process {
    let mut process = start(&cluster, None, rng.next()).await;
    let mut appends = JoinSet::new();
    for step in 0..10 + rng.below(15) {
        // Most begin with a claim.
        match if step == 0 { rng.below(3) } else { rng.below(10) } {
            0 | 1 => {
                let bound = rng.up_to(Duration::from_secs(20));
                if let Ok(claimed) = timeout(bound, process.journal.claim()).await {
                    match claimed {
                        Ok(epoch) => world.won.fetch_max(epoch, Relaxed),
                        Err(Error::Kafka(kafka::Error::Authorization { .. })) => continue,
                        Err(error) => panic!("claim: {error}"),
                    };
                }
            }
            2..=6 => {
                for _ in 0..1 + rng.below(6) {
                    let bound = rng.percent(20).then(|| rng.up_to(Duration::from_secs(2)));
                    appends.spawn(append(world.clone(), process.journal.clone(), bound));
                }
            }
            7 => {
                cluster.stop();
                sleep(rng.up_to(Duration::from_secs(30))).await;
                cluster.go_on();
            }
            8 => {
                appends.abort_all();
                let seen = process.journal.head();
                drop(process);
                process = start(&cluster, Some(seen), rng.next()).await;
            }
            _ => sleep(rng.up_to(Duration::from_secs(5))).await,
        }
        sleep(rng.up_to(Duration::from_millis(300))).await;
    }
    while let Some(append) = appends.join_next().await {
        if let Err(error) = append {
            assert!(error.is_cancelled(), "{error}");
        }
    }
    process
}

async fn append(world: Arc<World>, journal: Journal, bound: Option<Duration>) {
    let payload = world.payloads.fetch_add(1, Relaxed);
    let won = world.won.load(Relaxed);
    // Some are larger, so that fetches and batches are cut in different places.
    let mut bytes = payload.to_be_bytes().to_vec();
    bytes.resize(8 + (payload % 5 * 60) as usize, 0);
    let Ok(result) = timeout(bound.unwrap_or(LONG), journal.append(bytes.into())).await else {
        assert!(bound.is_some(), "append {payload} got stuck");
        return;
    };
    match result {
        Ok(seq) => {
            // Our reader has read this far, so its claim is the newest that was won before we started, or newer.
            assert!(journal.head().epoch >= won, "append {payload} returned Ok behind a later claim");
            world.appended.lock().expect("no holder panics").insert(payload, seq);
        }
        Err(Error::Superseded { .. } | Error::NotLeader) => {
            world.refused.lock().expect("no holder panics").push(payload);
        }
        Err(Error::Diverged { .. }) => {
            world.diverged.fetch_add(1, Relaxed);
        }
        Err(Error::Closed | Error::Kafka(kafka::Error::Authorization { .. })) => {}
        Err(error) => panic!("append {payload}: {error}"),
    }
}

/// What happened in schedules, lest they show nothing.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    confirmed: usize,
    refused: usize,
    claims: usize,
    ignored: u64,
    diverged: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.confirmed += other.confirmed;
        self.refused += other.refused;
        self.claims += other.claims;
        self.ignored += other.ignored;
        self.diverged += other.diverged;
    }
}

async fn schedule(seed: u64) -> Tally {
    let mut rng = Rng(seed);
    let memory = cluster();
    let world = Arc::new(World::default());
    let faults = Faults {
        delay: Duration::from_millis([2, 50, 500][rng.below(3) as usize]),
        late: Duration::from_millis([10, 1000, 60_000][rng.below(3) as usize]),
        error: [0, 5, 30][rng.below(3) as usize],
        lands: [0, 50, 100][rng.below(3) as usize],
        twice: [0, 10, 50][rng.below(3) as usize],
        loses: [0, 0, 20][rng.below(3) as usize],
        deny: [0, 0, 10][rng.below(3) as usize],
        few: 50,
        max_batch: rng.percent(30).then_some(1000),
    };
    let clusters: Vec<_> =
        (0..2 + rng.below(2)).map(|_| FaultyCluster::new(&memory, faults.clone(), rng.next())).collect();
    let mut lives = JoinSet::new();
    for cluster in &clusters {
        lives.spawn(live(world.clone(), cluster.clone(), Rng(rng.next())));
    }
    let mut processes = Vec::new();
    while let Some(process) = lives.join_next().await {
        processes.push(process.expect("no panic"));
    }
    sleep(faults.late).await;
    for cluster in &clusters {
        cluster.change(|faults| *faults = Faults { max_batch: faults.max_batch, ..calm() });
        cluster.go_on();
    }
    settle(&world, &memory, &mut processes).await
}

/// The network is good again: one controller takes over, all read up to its last event, and what they have is compared.
async fn settle(world: &World, memory: &MemoryCluster, processes: &mut Vec<Process>) -> Tally {
    let last = &processes[0].journal;
    timeout(LONG, last.claim()).await.expect("in time").expect("claimed");
    let end = u64::MAX;
    timeout(LONG, last.append(end.to_be_bytes().to_vec().into())).await.expect("in time").expect("appended");
    let witness = last.head();
    let good = FaultyCluster::new(memory, calm(), 0);
    processes.push(start(&good, Some(witness), 0).await);
    let fresh = processes.last().expect("pushed").journal.clone();
    let mut folds = Vec::new();
    for process in processes {
        let ended = |fold: &Fold| fold.last().is_some_and(|last| last.2 == Some(end));
        let fold = timeout(LONG, process.fold.wait_for(ended)).await.expect("in time").expect("alive");
        folds.push(fold.clone());
    }
    for fold in &folds {
        assert_eq!(fold, &folds[0], "two readers differ");
    }
    check(world, &folds[0]);
    Tally {
        confirmed: world.appended.lock().expect("no holder panics").len(),
        refused: world.refused.lock().expect("no holder panics").len(),
        claims: folds[0].iter().filter(|event| event.2.is_none()).count(),
        ignored: fresh.ignored(),
        diverged: world.diverged.load(Relaxed),
    }
}

fn check(world: &World, fold: &Fold) {
    let mut seqs = BTreeMap::new();
    let (mut epoch, mut next) = (0, 0);
    for &(of, seq, payload) in fold {
        let Some(payload) = payload else {
            assert!(of > epoch, "claim {of} counts behind {epoch}");
            (epoch, next) = (of, 1);
            continue;
        };
        assert_eq!((of, seq), (epoch, next), "an event counts out of its turn");
        next += 1;
        assert_eq!(seqs.insert(payload, seq), None, "payload {payload} counts twice");
    }
    for (payload, seq) in world.appended.lock().expect("no holder panics").iter() {
        assert_eq!(seqs.get(payload), Some(seq), "append {payload} returned Ok({seq})");
    }
    for payload in world.refused.lock().expect("no holder panics").iter() {
        assert_eq!(seqs.get(payload), None, "append {payload} was refused");
    }
}

fn run(seed: u64) -> Tally {
    faulty::run("the journal's simulation", seed, schedule)
}

#[test]
fn whatever_the_network_does_all_readers_agree_and_what_was_confirmed_counts_once() {
    let mut tally = Tally::default();
    (0..SCHEDULES).for_each(|seed| tally.add(run(seed)));
    eprintln!("{SCHEDULES} schedules: {tally:?}");
    let enough = SCHEDULES as usize;
    assert!(tally.confirmed > 5 * enough && tally.refused > enough && tally.claims > 2 * enough, "{tally:?}");
    assert!(tally.ignored > 5 * SCHEDULES && tally.diverged > 0, "{tally:?}");
}

#[test]
fn a_seed_gives_the_same_schedule_again() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
