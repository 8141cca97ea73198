//! Ships what a job writes from its spool into the topic.
//!
//! Promises: every byte gets into the topic, whatever the cluster does meanwhile; [`Acked::positions`] never runs ahead of
//! what is there, so that the spool may be cut up to it; what waits in memory is bounded, and beyond that
//! [`Shipper::ship`] waits. Retries end only with a missing right, a record that the topic does not take, or a topic that
//! was made anew. Bytes may get there twice, and out of order within what is in flight: readers cope.
//!
//! Nothing waits for more: while nothing is in flight, whatever there is is sent. Small batches go one at a time, large
//! ones up to four.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};

use super::{
    Random, Stream,
    error::Error,
    flight::{Flight, Landed},
    ledger::{Acked, Ledger},
    meta::Positions,
    pack::{Draft, Packer},
    random,
    record::{Attempt, Format, Sealer},
};
use crate::kafka::{self, PartitionWriter, SharedCluster};

/// From so many waiting bytes on a further batch is sent while others are in flight.
const EAGER: usize = 64 << 10;
/// How often it is looked whether the topic is still the same one, at least.
const ID_CHECK: Duration = Duration::from_secs(30);
/// How long that may take.
const ID_LIMIT: Duration = Duration::from_secs(5);

/// How a shipper packs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether others can read the bytes. Default: sealed.
    pub format: Format,
    /// The most bytes of a record. Default 256 KiB; at most half of `max_batch`'s bound is sensible.
    pub max_record: usize,
    /// The most bytes of a batch, about: half of the topic's `max.message.bytes`, so that whatever surrounds the bytes has
    /// room. Default 512 KiB, for the usual 1 MiB.
    pub max_batch: usize,
    /// Batches in flight at once. Default 4. More only hide the way there and back, and make readers keep more.
    pub in_flight: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::Sealed, max_record: 256 << 10, max_batch: 512 << 10, in_flight: 4 }
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How many bytes it has.
    pub total: u64,
    /// The SHA-256 of all of them.
    pub sha256: [u8; 32],
}

/// What can be seen of a shipper without waiting.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Up to where everything is in the topic.
    pub acked: Acked,
    /// The lowest offset at which a batch of this shipper or of those before it stands: the log is read from there on.
    pub first: Option<i64>,
    /// Why nothing gets there at present; it is tried again.
    pub stalled: Option<kafka::Error>,
    /// Why the shipper has ended.
    pub failed: Option<Error>,
    /// How many records are in the topic together with all before them.
    records: u64,
}

/// Ships one attempt's streams. What is still in flight is given up when this is dropped.
pub struct Shipper {
    shared: Arc<Shared>,
    view: watch::Receiver<View>,
    topic: Topic,
    driver: AbortHandle,
}

/// The topic as it was at the start.
#[derive(Clone)]
struct Topic {
    cluster: SharedCluster,
    name: String,
    id: u128,
}

impl Topic {
    /// Fails if the topic was made anew since. What can't be found out now is passed over.
    async fn check(&self) -> Result<(), Error> {
        let Ok(Ok(found)) = timeout(ID_LIMIT, self.cluster.describe(&self.name)).await else { return Ok(()) };
        let same = found.id == self.id || found.id == 0 || self.id == 0;
        if same { Ok(()) } else { Err(Error::Recreated { topic: self.name.clone() }) }
    }
}

/// Between the caller and the driver.
struct Shared {
    packer: Mutex<Packer>,
    /// There is something to send.
    pushed: Notify,
    /// There may be room again.
    taken: Notify,
}

impl Shared {
    fn packer(&self) -> MutexGuard<'_, Packer> {
        self.packer.lock().expect("no holder panics")
    }
}

impl Shipper {
    /// Starts at `start`: [`Acked::default`] for a new log, else what an earlier shipper of the attempt reported last, or
    /// less. Returns Kafka's error at once if the topic can't be looked up. Ends within 30 s.
    pub async fn start(
        cluster: SharedCluster,
        topic: &str,
        partition: i32,
        attempt: Attempt,
        start: Acked,
        config: Config,
    ) -> Result<Self, Error> {
        Self::start_with(cluster, topic, partition, attempt, start, config, random()).await
    }

    /// The same for who knows the topic's id already: asks nothing and waits for nothing.
    pub fn start_in(
        cluster: SharedCluster,
        (topic, topic_id): (&str, u128),
        partition: i32,
        attempt: Attempt,
        start: Acked,
        config: Config,
    ) -> Self {
        Self::begin(cluster, (topic, topic_id), partition, attempt, start, config, random())
    }

    pub(super) async fn start_with(
        cluster: SharedCluster,
        topic: &str,
        partition: i32,
        attempt: Attempt,
        start: Acked,
        config: Config,
        random: Random,
    ) -> Result<Self, Error> {
        let topic_id = cluster.describe(topic).await?.id;
        Ok(Self::begin(cluster, (topic, topic_id), partition, attempt, start, config, random))
    }

    fn begin(
        cluster: SharedCluster,
        (topic, topic_id): (&str, u128),
        partition: i32,
        attempt: Attempt,
        start: Acked,
        config: Config,
        mut random: Random,
    ) -> Self {
        let packer = Packer::new(config.max_record, config.max_batch, start.positions);
        let shared = Arc::new(Shared { packer: Mutex::new(packer), pushed: Notify::new(), taken: Notify::new() });
        let (view_out, view) = watch::channel(View { acked: start, first: start.first, ..View::default() });
        let writer = cluster.writer(topic, partition);
        let topic = Topic { cluster, name: topic.to_owned(), id: topic_id };
        let driver = Driver {
            shared: Arc::clone(&shared),
            writer,
            topic: topic.clone(),
            sealer: Arc::new(Sealer::new(attempt, config.format, random().to_be_bytes())),
            ledger: Ledger::new(topic_id, start),
            view: view_out,
            in_flight: config.in_flight.max(1),
            checked: Instant::now(),
            random,
        };
        let driver = tokio::spawn(driver.run()).abort_handle();
        Self { shared, view, topic, driver }
    }

    /// Takes bytes of `stream` that begin at `offset` and were written at `time` (milliseconds since 1970). Bytes that were
    /// taken already are passed over. Returns when all are taken, which says nothing about their getting there; waits while
    /// two batches wait. If the future is dropped, [`taken`](Self::taken) says how far it came.
    ///
    /// [`Error::OutOfOrder`] if bytes between are missing; the shipper's own error once it has ended.
    pub async fn ship(&mut self, stream: Stream, offset: u64, time: i64, bytes: &[u8]) -> Result<(), Error> {
        let end = offset.saturating_add(bytes.len() as u64);
        loop {
            self.check()?;
            let (more, taken) = {
                let mut packer = self.shared.packer();
                let taken = packer.taken()[stream];
                let skip = taken.checked_sub(offset).ok_or(Error::OutOfOrder { stream, offset, taken })?;
                if taken >= end {
                    return Ok(());
                }
                // Below the length of `bytes`, as `taken` is below `end`.
                (packer.push(stream, time, &bytes[skip as usize..]), taken)
            };
            self.shared.pushed.notify_one();
            if more == 0 {
                tokio::select! {
                    () = self.shared.taken.notified() => {}
                    // Failed or gone: the check above says which.
                    _ = self.view.wait_for(|view| view.failed.is_some()) => {}
                }
            } else if taken + more as u64 >= end {
                return Ok(());
            }
        }
    }

    /// Up to where bytes were taken.
    pub fn taken(&self) -> Positions {
        self.shared.packer().taken()
    }

    /// Up to where everything is in the topic: the spool may be cut there. Keep it for the next start.
    pub fn acked(&self) -> Acked {
        self.view.borrow().acked
    }

    /// What can be seen, as it changes.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Waits until all that was taken is in the topic. Takes as long as an outage does: the caller bounds it.
    pub async fn flush(&mut self) -> Result<Acked, Error> {
        let begun = self.shared.packer().begun();
        let done = self.view.wait_for(|view| view.failed.is_some() || view.records >= begun).await;
        let view = done.map_err(|_| Error::Closed)?.clone();
        view.failed.map_or(Ok(view.acked), Err)
    }

    /// Waits until all is in the topic, then writes how the streams ended, in the order of [`Stream::ALL`], and waits for
    /// that too. May be called again if it was dropped or the caller is not sure.
    pub async fn finish(&mut self, ends: [End; 3]) -> Result<Acked, Error> {
        let all = self.taken();
        for (stream, end) in Stream::ALL.into_iter().zip(&ends) {
            let (taken, total) = (all[stream], end.total);
            if taken != total {
                return Err(Error::Length { stream, total, taken });
            }
        }
        // So that whoever reads an end knows that what is missing in front of it is lost: also what went into a topic that
        // is no more.
        self.flush().await?;
        self.topic.check().await?;
        {
            let mut packer = self.shared.packer();
            Stream::ALL.into_iter().zip(ends).for_each(|(stream, end)| packer.end(stream, end.sha256));
        }
        self.shared.pushed.notify_one();
        self.flush().await
    }

    fn check(&self) -> Result<(), Error> {
        if let Some(error) = &self.view.borrow().failed {
            return Err(error.clone());
        }
        if self.driver.is_finished() { Err(Error::Closed) } else { Ok(()) }
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

struct Driver {
    shared: Arc<Shared>,
    writer: Arc<dyn PartitionWriter>,
    topic: Topic,
    sealer: Arc<Sealer>,
    ledger: Ledger,
    view: watch::Sender<View>,
    in_flight: usize,
    checked: Instant,
    random: Random,
}

impl Driver {
    async fn run(mut self) {
        let error = self.drive().await;
        self.view.send_modify(|view| view.failed = Some(error));
    }

    /// Until something happens that no retry cures. Dropping it gives up what is in flight.
    async fn drive(&mut self) -> Error {
        let mut flights = JoinSet::new();
        loop {
            while let Some(batch) = self.next_batch(flights.len()) {
                self.send(batch, &mut flights);
            }
            tokio::select! {
                biased;
                Some(landed) = flights.join_next() => {
                    let landed = landed.expect("nobody aborts it, and it does not panic");
                    if let Err(error) = self.landed(landed).await {
                        return error;
                    }
                }
                () = self.shared.pushed.notified() => {}
            }
        }
    }

    fn next_batch(&mut self, in_flight: usize) -> Option<Vec<Draft>> {
        if in_flight >= self.in_flight {
            return None;
        }
        if let Some(body) = self.ledger.index() {
            let before = self.ledger.acked().positions;
            return Some(vec![Draft { stream: Stream::System, before, bytes: Vec::new(), body }]);
        }
        let mut packer = self.shared.packer();
        let due = if in_flight == 0 { packer.size() > 0 } else { packer.size() >= EAGER };
        let batch = due.then(|| packer.take())?;
        drop(packer);
        self.shared.taken.notify_one();
        Some(batch)
    }

    fn send(&mut self, batch: Vec<Draft>, flights: &mut JoinSet<Landed>) {
        let (number, meta) = self.ledger.send(&batch);
        let flight = Flight {
            number,
            meta,
            batch,
            sealer: Arc::clone(&self.sealer),
            writer: Arc::clone(&self.writer),
            view: self.view.clone(),
            seed: (self.random)() as u64,
        };
        flights.spawn(flight.run());
    }

    async fn landed(&mut self, landed: Landed) -> Result<(), Error> {
        let base = landed.result?;
        let went_back = self.ledger.landed(landed.number, base, landed.bound).is_err();
        if went_back || landed.retried || self.checked.elapsed() >= ID_CHECK {
            // What was acknowledged in a topic that is no more must not be cut from the spool.
            self.topic.check().await?;
            self.checked = Instant::now();
        }
        let (acked, records) = (self.ledger.acked(), self.ledger.records());
        self.view.send_modify(|view| {
            view.stalled = None;
            (view.acked, view.first, view.records) = (acked, acked.first, records);
        });
        Ok(())
    }
}
