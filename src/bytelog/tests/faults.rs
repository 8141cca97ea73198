//! A cluster that does to a log what Kafka and a network do: delays, batches that land twice, late or not at all, errors for
//! what was appended; and that counts what is read.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::TOPIC;
use crate::kafka::{
    At, Cluster, Error, Fetched, PartitionReader, PartitionWriter, Record, SharedCluster, TopicDescription,
    memory::MemoryCluster,
};

/// Chances in percent, and what they may cost.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    /// The longest delay before and after a call.
    pub(super) delay: Duration,
    /// The longest time until a batch lands that was given up.
    pub(super) late: Duration,
    /// A call fails.
    pub(super) error: u64,
    /// A produce that fails lands all the same, later.
    pub(super) lands: u64,
    /// A batch lands a second time, later.
    pub(super) twice: u64,
    /// A batch is acknowledged and lost.
    pub(super) loses: u64,
    /// The broker's limit.
    pub(super) max_batch: Option<usize>,
}

/// SplitMix64: a seed's numbers are the same everywhere and for ever.
#[derive(Debug, Clone)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(most.as_micros() as u64 + 1))
    }
}

/// One process's way to the cluster.
#[derive(Clone)]
pub(super) struct FaultyCluster {
    inner: MemoryCluster,
    state: Arc<Mutex<State>>,
    stopped: Arc<watch::Sender<bool>>,
}

struct State {
    faults: Faults,
    rng: Rng,
    deny: bool,
    fetches: usize,
    fetched: usize,
    produces: usize,
}

impl FaultyCluster {
    pub(super) fn new(inner: &MemoryCluster, faults: Faults, seed: u64) -> Self {
        let state = State { faults, rng: Rng(seed), deny: false, fetches: 0, fetched: 0, produces: 0 };
        Self { inner: inner.clone(), state: Arc::new(Mutex::new(state)), stopped: Arc::new(watch::Sender::new(false)) }
    }

    pub(super) fn shared(&self) -> SharedCluster {
        Arc::new(self.clone())
    }

    /// Produces do not return while it is stopped.
    pub(super) fn stop(&self, stop: bool) {
        self.stopped.send_replace(stop);
    }

    /// The right to write is missing.
    pub(super) fn deny(&self, deny: bool) {
        self.with(|state| state.deny = deny);
    }

    /// From here on what is acknowledged is there.
    pub(super) fn lose_nothing(&self) {
        self.with(|state| state.faults.loses = 0);
    }

    /// How many fetches there were, and how many records they brought.
    pub(super) fn fetches(&self) -> (usize, usize) {
        self.with(|state| (state.fetches, state.fetched))
    }

    pub(super) fn produces(&self) -> usize {
        self.with(|state| state.produces)
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().expect("no holder panics"))
    }

    async fn delay(&self) {
        let delay = self.with(|state| state.rng.up_to(state.faults.delay));
        sleep(delay).await;
    }

    fn fails(&self) -> bool {
        self.with(|state| state.rng.percent(state.faults.error))
    }

    fn land_later(&self, records: Vec<Record>) {
        let late = self.with(|state| state.rng.up_to(state.faults.late));
        let inner = self.inner.clone();
        tokio::spawn(async move {
            sleep(late).await;
            inner.append(TOPIC, 0, records).expect("the topic is there");
        });
    }

    async fn produce(&self, records: Vec<Record>) -> Result<i64, Error> {
        self.with(|state| state.produces += 1);
        let _ = self.stopped.subscribe().wait_for(|stopped| !stopped).await;
        let (deny, limit) = self.with(|state| (state.deny, state.faults.max_batch));
        if deny {
            return Err(Error::Authorization { detail: "write on the topic".to_owned() });
        }
        let bytes = records.iter().map(Record::approximate_size).sum();
        if limit.is_some_and(|limit| bytes > limit) {
            return Err(Error::TooLarge { topic: TOPIC.to_owned(), bytes });
        }
        self.delay().await;
        if self.fails() {
            if self.with(|state| state.rng.percent(state.faults.lands)) {
                self.land_later(records);
            }
            return Err(transient("Produce"));
        }
        if self.with(|state| state.rng.percent(state.faults.loses)) {
            return Ok(self.inner.range(TOPIC, 0)?.end);
        }
        let base = self.inner.append(TOPIC, 0, records.clone())?;
        if self.with(|state| state.rng.percent(state.faults.twice)) {
            self.land_later(records);
        }
        self.delay().await;
        if self.fails() { Err(transient("Produce")) } else { Ok(base) }
    }
}

impl Cluster for FaultyCluster {
    fn reader(&self, topic: &str, partition: i32) -> Box<dyn PartitionReader> {
        Box::new(FaultyReader { cluster: self.clone(), inner: self.inner.reader(topic, partition) })
    }

    fn writer(&self, _: &str, _: i32) -> Arc<dyn PartitionWriter> {
        Arc::new(self.clone())
    }

    fn describe<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<TopicDescription, Error>> {
        self.inner.describe(topic)
    }

    fn delete_records<'a>(&'a self, topic: &'a str, partition: i32, offset: i64) -> BoxFuture<'a, Result<(), Error>> {
        self.inner.delete_records(topic, partition, offset)
    }
}

impl PartitionWriter for FaultyCluster {
    fn produce(&self, records: Vec<Record>) -> BoxFuture<'_, Result<i64, Error>> {
        Box::pin(async move {
            let produce = timeout(Duration::from_secs(40), FaultyCluster::produce(self, records)).await;
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
            let fetched = self.inner.fetch(offset, max_bytes, max_wait).await?;
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
