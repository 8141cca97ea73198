//! A cluster in memory that does to records whatever a real one may: it duplicates, delays, reorders, truncates,
//! stalls, loses a tail, reads an old offset again, says no and appends all the same.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, time::Instant};

use crate::kafka::{
    At, Cluster, Error, Fetched, PartitionReader, PartitionWriter, Record, TopicDescription, memory::MemoryCluster,
};

/// How likely each fault is, in thousandths of a produce or a fetch; times in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Every produce and fetch takes up to so long.
    pub delay: u64,
    /// A produce takes up to `long_delay`, so that later ones overtake it.
    pub overtaken: u32,
    pub long_delay: u64,
    /// A produce lands twice.
    pub doubled: u32,
    /// A produce fails, and nothing was appended.
    pub failed: u32,
    /// A produce fails, and lands later.
    pub late: u32,
    /// A partition answers nobody for up to `long_stall`.
    pub stalled: u32,
    pub long_stall: u64,
    /// Retention overtakes the readers.
    pub truncated: u32,
    /// A leader without the newest records is elected.
    pub tail_lost: u32,
    /// A reader gets what it already had.
    pub replayed: u32,
}

impl Weather {
    /// A weather drawn at random: calm to wild.
    pub fn draw(random: &mut StdRng) -> Self {
        let mut up_to = |most: u32| if random.random_bool(0.5) { random.random_range(0..=most) } else { 0 };
        Self {
            delay: u64::from(up_to(20)),
            overtaken: up_to(100),
            long_delay: 3000,
            doubled: up_to(200),
            failed: up_to(200),
            late: up_to(100),
            stalled: up_to(10),
            long_stall: 30_000,
            truncated: up_to(20),
            tail_lost: up_to(20),
            replayed: up_to(50),
        }
    }
}

/// Nothing works for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// What is written meanwhile lands at the end.
    Held,
    /// What is written meanwhile is acknowledged and gone.
    Lost,
}

/// The cluster. Clones share everything.
#[derive(Clone)]
pub struct FaultyCluster {
    pub logs: MemoryCluster,
    shared: Arc<Shared>,
}

struct Shared {
    weather: Mutex<Weather>,
    random: Mutex<StdRng>,
    outage: watch::Sender<Option<Outage>>,
    /// Whoever connects through `view` with this number is cut off: a paused process.
    paused: watch::Sender<Option<u32>>,
    trace: Mutex<Vec<(Duration, String, usize)>>,
    /// Bytes that each viewer fetched.
    received: Mutex<BTreeMap<u32, usize>>,
    born: Instant,
}

impl FaultyCluster {
    pub fn new(logs: MemoryCluster, weather: Weather, seed: u64) -> Self {
        let shared = Shared {
            weather: Mutex::new(weather),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            outage: watch::Sender::new(None),
            paused: watch::Sender::new(None),
            trace: Mutex::default(),
            received: Mutex::default(),
            born: Instant::now(),
        };
        Self { logs, shared: Arc::new(shared) }
    }

    /// The cluster as one process sees it, which can be paused alone.
    pub fn view(&self, viewer: u32) -> View {
        View { cluster: self.clone(), viewer }
    }

    /// Pauses a process as SIGSTOP does, towards Kafka: what it reads and writes waits.
    pub fn pause(&self, viewer: Option<u32>) {
        self.shared.paused.send_replace(viewer);
    }

    pub fn set_weather(&self, weather: Weather) {
        *self.shared.weather.lock().expect("lock") = weather;
    }

    pub fn set_outage(&self, outage: Option<Outage>) {
        self.shared.outage.send_replace(outage);
    }

    /// When, where and how long every batch was: the same for the same seed.
    pub fn trace(&self) -> Vec<(Duration, String, usize)> {
        self.shared.trace.lock().expect("lock").clone()
    }

    /// Bytes of records that a viewer has fetched so far.
    pub fn received(&self, viewer: u32) -> usize {
        self.shared.received.lock().expect("lock").get(&viewer).copied().unwrap_or(0)
    }

    fn weather(&self) -> Weather {
        *self.shared.weather.lock().expect("lock")
    }

    fn chance(&self, thousandths: u32) -> bool {
        thousandths > 0 && self.shared.random.lock().expect("lock").random_range(0..1000) < thousandths
    }

    fn up_to(&self, most: u64) -> u64 {
        if most == 0 { 0 } else { self.shared.random.lock().expect("lock").random_range(0..=most) }
    }

    async fn sleep(&self, most: u64) {
        let ms = self.up_to(most);
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    async fn unpaused(&self, viewer: u32) {
        let mut paused = self.shared.paused.subscribe();
        let _ = paused.wait_for(|p| *p != Some(viewer)).await;
    }

    fn append(&self, topic: &str, partition: i32, records: Vec<Record>) -> Result<i64, Error> {
        let bytes = records.iter().map(|r| r.value.len()).sum();
        let place = format!("{topic}/{partition}");
        self.shared.trace.lock().expect("lock").push((self.shared.born.elapsed(), place, bytes));
        self.logs.append(topic, partition, records)
    }
}

/// A cluster seen by one process.
#[derive(Clone)]
pub struct View {
    cluster: FaultyCluster,
    viewer: u32,
}

impl Cluster for View {
    fn reader(&self, topic: &str, partition: i32) -> Box<dyn PartitionReader> {
        let inner = self.cluster.logs.reader(topic, partition);
        Box::new(FaultyReader { view: self.clone(), inner, topic: topic.to_owned(), partition })
    }

    fn writer(&self, topic: &str, partition: i32) -> Arc<dyn PartitionWriter> {
        let stalled_until = Mutex::new(Instant::now());
        Arc::new(FaultyWriter { view: self.clone(), topic: topic.to_owned(), partition, stalled_until })
    }

    fn describe<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<TopicDescription, Error>> {
        self.cluster.logs.describe(topic)
    }

    fn delete_records<'a>(&'a self, topic: &'a str, partition: i32, offset: i64) -> BoxFuture<'a, Result<(), Error>> {
        self.cluster.logs.delete_records(topic, partition, offset)
    }
}

fn transient(request: &'static str) -> Error {
    Error::Transient { broker: "memory".to_owned(), request, code: "NOT_ENOUGH_REPLICAS".to_owned() }
}

struct FaultyReader {
    view: View,
    inner: Box<dyn PartitionReader>,
    topic: String,
    partition: i32,
}

impl PartitionReader for FaultyReader {
    fn fetch(&mut self, offset: i64, max_bytes: usize, max_wait: Duration) -> BoxFuture<'_, Result<Fetched, Error>> {
        Box::pin(async move {
            let cluster = &self.view.cluster;
            let weather = cluster.weather();
            cluster.sleep(weather.delay / 4).await;
            let mut outage = cluster.shared.outage.subscribe();
            if outage.borrow().is_some() {
                let over = outage.wait_for(Option::is_none);
                if tokio::time::timeout(max_wait, over).await.is_err() {
                    return Err(transient("fetch"));
                }
            }
            let mut offset = offset;
            if cluster.chance(weather.replayed) {
                let start = cluster.logs.range(&self.topic, self.partition)?.start;
                offset = (offset - cluster.up_to(20) as i64).max(start);
            }
            let fetched = self.inner.fetch(offset, max_bytes, max_wait).await;
            cluster.unpaused(self.view.viewer).await;
            if let Ok(fetched) = &fetched {
                let bytes: usize = fetched.records.iter().map(|(_, r)| r.key.len() + r.value.len()).sum();
                *self.view.cluster.shared.received.lock().expect("lock").entry(self.view.viewer).or_default() += bytes;
            }
            fetched
        })
    }

    fn offset(&mut self, at: At) -> BoxFuture<'_, Result<i64, Error>> {
        self.inner.offset(at)
    }
}

struct FaultyWriter {
    view: View,
    topic: String,
    partition: i32,
    stalled_until: Mutex<Instant>,
}

impl PartitionWriter for FaultyWriter {
    fn produce(&self, records: Vec<Record>) -> BoxFuture<'_, Result<i64, Error>> {
        Box::pin(async move {
            let (cluster, topic, partition) = (&self.view.cluster, &self.topic, self.partition);
            cluster.unpaused(self.view.viewer).await;
            let weather = cluster.weather();
            if cluster.chance(weather.stalled) {
                let until = Instant::now() + Duration::from_millis(cluster.up_to(weather.long_stall));
                *self.stalled_until.lock().expect("lock") = until;
            }
            let until = *self.stalled_until.lock().expect("lock");
            tokio::time::sleep_until(until).await;
            cluster.sleep(weather.delay).await;
            if cluster.chance(weather.overtaken) {
                cluster.sleep(weather.long_delay).await;
            }
            let outage = *cluster.shared.outage.borrow();
            match outage {
                Some(Outage::Lost) => return Ok(0),
                Some(Outage::Held) => {
                    let mut outage = cluster.shared.outage.subscribe();
                    let over = outage.wait_for(Option::is_none);
                    if tokio::time::timeout(Duration::from_secs(30), over).await.is_err() {
                        return Err(transient("produce"));
                    }
                }
                None => {}
            }
            if cluster.chance(weather.failed) {
                return Err(transient("produce"));
            }
            if cluster.chance(weather.late) {
                let (cluster, topic) = (cluster.clone(), topic.clone());
                tokio::spawn(async move {
                    cluster.sleep(60_000).await;
                    let _ = cluster.append(&topic, partition, records);
                });
                return Err(transient("produce"));
            }
            if cluster.chance(weather.doubled) {
                cluster.append(topic, partition, records.clone())?;
            }
            let base = cluster.append(topic, partition, records)?;
            if cluster.chance(weather.truncated) {
                let end = cluster.logs.range(topic, partition)?.end;
                cluster.logs.truncate(topic, partition, end - cluster.up_to(20) as i64)?;
            }
            if cluster.chance(weather.tail_lost) {
                let end = cluster.logs.range(topic, partition)?.end;
                cluster.logs.lose_tail(topic, partition, end - cluster.up_to(10) as i64)?;
            }
            Ok(base)
        })
    }
}
