//! A cluster in memory for simulations that does to a writer and a reader what Kafka and a network do: delays, duplicates,
//! late, reordered and lost batches, errors for what was appended, and a process that stands still. It also counts.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    At, Cluster, Error, Fetched, PartitionReader, PartitionWriter, Record, SharedCluster, TopicDescription,
    memory::MemoryCluster,
};

/// Chances in percent, and what they may cost. By default nothing goes wrong and nothing takes time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// The longest delay before and after a call.
    pub(crate) delay: Duration,
    /// The longest time until a batch lands that was given up.
    pub(crate) late: Duration,
    /// A call fails.
    pub(crate) error: u64,
    /// A produce that fails lands all the same, later.
    pub(crate) lands: u64,
    /// A batch lands a second time, later.
    pub(crate) twice: u64,
    /// A batch is acknowledged and lost.
    pub(crate) loses: u64,
    /// A produce is refused for want of a right.
    pub(crate) deny: u64,
    /// A fetch brings no more than a few records.
    pub(crate) few: u64,
    /// A fetch brings nothing, though something is there.
    pub(crate) holds: u64,
    /// The broker's limit.
    pub(crate) max_batch: Option<usize>,
}

/// Bytes that are a few records.
const FEW: usize = 300;

/// SplitMix64: a seed's numbers are the same everywhere and for ever.
#[derive(Debug, Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(most.as_micros() as u64 + 1))
    }
}

/// One process's way to the cluster.
#[derive(Clone)]
pub(crate) struct FaultyCluster {
    inner: MemoryCluster,
    state: Arc<Mutex<State>>,
    /// Wakes in the order of the waiting, which `watch` does not: a seed must give the same schedule again.
    resumed: Arc<Notify>,
}

struct State {
    faults: Faults,
    rng: Rng,
    stopped: bool,
    fail: bool,
    deny: bool,
    produces: usize,
    fetches: usize,
    fetched: usize,
}

impl FaultyCluster {
    pub(crate) fn new(inner: &MemoryCluster, faults: Faults, seed: u64) -> Self {
        let rng = Rng(seed);
        let state =
            State { faults, rng, stopped: false, fail: false, deny: false, produces: 0, fetches: 0, fetched: 0 };
        Self { inner: inner.clone(), state: Arc::new(Mutex::new(state)), resumed: Arc::default() }
    }

    pub(crate) fn shared(&self) -> SharedCluster {
        Arc::new(self.clone())
    }

    /// The process stands still: calls neither start nor return. What is under way in the network goes on.
    pub(crate) fn stop(&self) {
        self.with(|state| state.stopped = true);
    }

    pub(crate) fn go_on(&self) {
        self.with(|state| state.stopped = false);
        self.resumed.notify_waiters();
    }

    /// All calls fail.
    pub(crate) fn fail(&self, fail: bool) {
        self.with(|state| state.fail = fail);
    }

    /// The right to write is missing.
    pub(crate) fn deny(&self, deny: bool) {
        self.with(|state| state.deny = deny);
    }

    /// Changes what goes wrong from here on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.with(|state| change(&mut state.faults));
    }

    /// How many batches were sent.
    pub(crate) fn produces(&self) -> usize {
        self.with(|state| state.produces)
    }

    /// How many fetches there were, and how many records they brought.
    pub(crate) fn fetches(&self) -> (usize, usize) {
        self.with(|state| (state.fetches, state.fetched))
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().expect("no holder panics"))
    }

    async fn running(&self) {
        loop {
            let resumed = self.resumed.notified();
            if !self.with(|state| state.stopped) {
                return;
            }
            resumed.await;
        }
    }

    async fn delay(&self) {
        let delay = self.with(|state| state.rng.up_to(state.faults.delay));
        sleep(delay).await;
        self.running().await;
    }

    async fn delete(&self, topic: &str, partition: i32, offset: i64) -> Result<(), Error> {
        self.running().await;
        if self.with(|state| state.deny || state.rng.percent(state.faults.deny)) {
            return Err(Error::Authorization { detail: "delete on the topic".to_owned() });
        }
        self.delay().await;
        if self.fails() {
            let (lands, late) =
                self.with(|state| (state.rng.percent(state.faults.lands), state.rng.up_to(state.faults.late)));
            if lands && !self.with(|state| state.fail) {
                let (inner, topic) = (self.inner.clone(), topic.to_owned());
                tokio::spawn(async move {
                    sleep(late).await;
                    inner.truncate(&topic, partition, offset).expect("the topic is there");
                });
            }
            return Err(transient("DeleteRecords"));
        }
        self.inner.truncate(topic, partition, offset)?;
        self.delay().await;
        Ok(())
    }

    /// Whether this call fails.
    fn fails(&self) -> bool {
        self.with(|state| state.fail || state.rng.percent(state.faults.error))
    }
}

impl Cluster for FaultyCluster {
    fn reader(&self, topic: &str, partition: i32) -> Box<dyn PartitionReader> {
        Box::new(FaultyReader { cluster: self.clone(), inner: self.inner.reader(topic, partition) })
    }

    fn writer(&self, topic: &str, partition: i32) -> Arc<dyn PartitionWriter> {
        Arc::new(FaultyWriter { cluster: self.clone(), topic: topic.to_owned(), partition })
    }

    fn describe<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<TopicDescription, Error>> {
        self.inner.describe(topic)
    }

    fn delete_records<'a>(&'a self, topic: &'a str, partition: i32, offset: i64) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let delete = timeout(Duration::from_secs(30), self.delete(topic, partition, offset)).await;
            delete.unwrap_or_else(|_| Err(transient("DeleteRecords")))
        })
    }
}

struct FaultyWriter {
    cluster: FaultyCluster,
    topic: String,
    partition: i32,
}

impl FaultyWriter {
    fn append(&self, records: Vec<Record>) -> Result<i64, Error> {
        self.cluster.inner.append(&self.topic, self.partition, records)
    }

    fn land_later(&self, records: Vec<Record>) {
        let late = self.cluster.with(|state| state.rng.up_to(state.faults.late));
        let (inner, topic, partition) = (self.cluster.inner.clone(), self.topic.clone(), self.partition);
        tokio::spawn(async move {
            sleep(late).await;
            inner.append(&topic, partition, records).expect("the topic is there");
        });
    }

    async fn attempt(&self, records: Vec<Record>) -> Result<i64, Error> {
        let cluster = &self.cluster;
        cluster.with(|state| state.produces += 1);
        cluster.running().await;
        let (deny, limit) =
            cluster.with(|state| (state.deny || state.rng.percent(state.faults.deny), state.faults.max_batch));
        if deny {
            return Err(Error::Authorization { detail: "write on the topic".to_owned() });
        }
        let bytes = records.iter().map(Record::approximate_size).sum();
        if limit.is_some_and(|limit| bytes > limit) {
            return Err(Error::TooLarge { topic: self.topic.clone(), bytes });
        }
        cluster.delay().await;
        if cluster.fails() {
            let (lands, fail) = cluster.with(|state| (state.rng.percent(state.faults.lands), state.fail));
            if lands && !fail {
                self.land_later(records);
            }
            cluster.delay().await;
            return Err(transient("Produce"));
        }
        if cluster.with(|state| state.rng.percent(state.faults.loses)) {
            return Ok(cluster.inner.range(&self.topic, self.partition)?.end);
        }
        let base = self.append(records.clone())?;
        if cluster.with(|state| state.rng.percent(state.faults.twice)) {
            self.land_later(records);
        }
        cluster.delay().await;
        if cluster.fails() { Err(transient("Produce")) } else { Ok(base) }
    }
}

impl PartitionWriter for FaultyWriter {
    fn produce(&self, records: Vec<Record>) -> BoxFuture<'_, Result<i64, Error>> {
        Box::pin(async move {
            let produce = timeout(Duration::from_secs(40), self.attempt(records)).await;
            produce.unwrap_or_else(|_| Err(transient("Produce")))
        })
    }
}

struct FaultyReader {
    cluster: FaultyCluster,
    inner: Box<dyn PartitionReader>,
}

impl PartitionReader for FaultyReader {
    fn fetch(&mut self, offset: i64, max_bytes: usize, max_wait: Duration) -> BoxFuture<'_, Result<Fetched, Error>> {
        Box::pin(async move {
            self.cluster.delay().await;
            if self.cluster.fails() {
                return Err(transient("Fetch"));
            }
            if self.cluster.with(|state| state.faults.holds > 0 && state.rng.percent(state.faults.holds)) {
                sleep(max_wait).await;
                return Ok(Fetched { records: Vec::new(), next_offset: offset, high_watermark: offset });
            }
            let most = self.cluster.with(|state| if state.rng.percent(state.faults.few) { FEW } else { max_bytes });
            let fetched = self.inner.fetch(offset, most, max_wait).await;
            self.cluster.running().await;
            let fetched = fetched?;
            self.cluster.with(|state| {
                state.fetches += 1;
                state.fetched += fetched.records.len();
            });
            Ok(fetched)
        })
    }

    fn offset(&mut self, at: At) -> BoxFuture<'_, Result<i64, Error>> {
        self.inner.offset(at)
    }
}

fn transient(request: &'static str) -> Error {
    Error::Transient { broker: "memory".to_owned(), request, code: "NETWORK_EXCEPTION".to_owned() }
}

/// Runs a schedule in a runtime of its own under paused time, so that it depends on nothing but its seed; if it
/// fails, says of which `what` the seed was.
pub(crate) fn run<T>(what: &str, seed: u64, schedule: impl AsyncFnOnce(u64) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime needs nothing");
    let run = std::panic::AssertUnwindSafe(|| runtime.block_on(schedule(seed)));
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        eprintln!("{what} failed with seed {seed}");
        std::panic::resume_unwind(panic)
    })
}
