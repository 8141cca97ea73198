//! The controller's state as an event log in a topic: what must outlive a process, and who may write it.
//!
//! ```text
//! let (journal, mut events) = Journal::open(cluster, &prefix.journal(), key, witness).await?;
//! // A task drains `events` for ever and folds them: Event …, Claimed …, CaughtUp, Event …
//! let epoch = journal.claim().await?;           // we lead: nothing before, everything after
//! let seq = journal.append(payload).await?;     // committed: read back, by us, still leading
//! ```
//!
//! So that the log does not grow for ever, the leader writes its state into it now and then, and cuts it there:
//!
//! ```text
//! journal.begin_snapshot().await?;              // when journal.growth() is large
//! // in `events`: SnapshotBegun(snapshot). The task takes a copy of its state, and has another one write it:
//! journal.write_snapshot(snapshot, state).await?;
//! journal.cut().await;                          // an error costs nothing but room
//! // Who reads a cut log finds in `events`: Restore …, Restored …, RestoreEnd, Event …
//! ```
//!
//! Promises: all readers see the same events in the same order ([`rule`]), or the state after them; [`append`](Journal::append) returns `Ok` iff
//! its event is among them, once, and after it was handed to `events`; once a claim was won, no event of an earlier
//! epoch is ever applied. A broker's acknowledgement means nothing here, only what was read back does. An outage of the
//! cluster fails nothing: it takes time, and [`health`](Journal::health) says so. What is waited for is bounded by the
//! caller, who may drop any future: an event whose `append` was dropped or failed may still be applied later.
//!
//! Must not know what payloads mean.
//!
//! The receiver must be drained, by a task that awaits no call of these: they wait for the reader, the reader
//! waits for room in the channel.

mod cut;
mod driver;
mod error;
mod feed;
mod head;
mod health;
mod intake;
mod leader;
mod outbox;
pub mod record;
mod replica;
pub mod rule;
pub mod snapshot;
mod tail;
#[cfg(test)]
mod tests;
mod witness;

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    kafka::{At, SharedCluster},
    secret,
};
use cut::Log;
use driver::{Driver, Screens};
pub use error::Error;
use feed::Feed;
pub use feed::Growth;
pub use head::Head;
pub use health::Health;
use intake::Intake;
use leader::Command;
use record::Codec;
pub use record::StateKey;
use replica::Replica;
pub use snapshot::Snapshot;
use tail::Tail;
pub use witness::{InvalidWitness, Witness};

/// The largest payload. A record must fit into a topic's usual message limit of 1 MiB with room to spare.
pub const MAX_PAYLOAD: usize = 512 << 10;

/// How many events wait for a slow fold before reading stops.
const EVENTS: usize = 1024;
/// How many calls wait for the driver; beyond it the callers wait.
const COMMANDS: usize = 256;

/// Draws random numbers. Tests hand in a seeded one.
type Random = Box<dyn FnMut() -> u128 + Send + Sync>;

/// A journal that is read all the time, and written by who claims it. Clones share it; it is closed when the last clone
/// or the receiver is dropped.
#[derive(Debug, Clone)]
pub struct Journal {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<View>,
    health: watch::Receiver<Health>,
    ended: Arc<OnceLock<Error>>,
    log: Arc<Log>,
}

/// What the reader hands on, in the order of the log.
#[derive(Debug, Clone)]
pub enum Committed {
    /// An event to apply.
    Event {
        /// Its writer's epoch.
        epoch: u32,
        /// Its number within the epoch, from 1.
        seq: u64,
        /// Its offset in the topic.
        offset: i64,
        /// What was appended.
        payload: Bytes,
    },
    /// A controller took over.
    Claimed {
        /// Its epoch; it exceeds every one before.
        epoch: u32,
        /// Whether it is this journal's.
        mine: bool,
    },
    /// A snapshot that this journal writes begins here: what belongs into it is the state of just now. See
    /// [`Journal::write_snapshot`].
    SnapshotBegun(Snapshot),
    /// What was folded so far is void: the state as of `0` follows, in [`Restored`](Self::Restored), up to
    /// [`RestoreEnd`](Self::RestoreEnd) or another one of these. Nothing else comes between but [`CaughtUp`](Self::CaughtUp)
    /// and [`Failed`](Self::Failed). Who led before leads no more.
    Restore(Snapshot),
    /// A payload of [`Journal::write_snapshot`].
    Restored {
        /// What was written.
        payload: Bytes,
    },
    /// The state is complete.
    RestoreEnd,
    /// All that was in the log when it was opened was handed on. Comes once.
    CaughtUp,
    /// The journal can't go on; nothing follows, and every call returns the same error.
    Failed(Error),
}

/// What can be seen of the journal without waiting.
#[derive(Debug, Clone, Copy)]
struct View {
    witness: Witness,
    leading: Option<u32>,
    ignored: u64,
    whole: Option<Snapshot>,
    growth: Growth,
}

impl Journal {
    /// Opens the journal in `topic`, and starts to read it from its beginning: that of all, or, where it was cut, a whole
    /// snapshot. The log is checked against `witness`, what
    /// this controller has seen of it before: here as far as its id and length go, and on the way for what it holds
    /// (then [`Committed::Failed`] comes before [`Committed::CaughtUp`]). `None` takes the journal as it is: the first
    /// start, or `--accept-rollback`.
    ///
    /// Returns Kafka's error at once if the cluster can't be reached or the topic does not exist. Ends within 90 s.
    pub async fn open(
        cluster: SharedCluster,
        topic: &str,
        key: StateKey,
        witness: Option<Witness>,
    ) -> Result<(Self, mpsc::Receiver<Committed>), Error> {
        Self::open_with(cluster, topic, key, witness, &|| Box::new(|| u128::from_ne_bytes(secret::random()))).await
    }

    async fn open_with(
        cluster: SharedCluster,
        topic: &str,
        key: StateKey,
        witness: Option<Witness>,
        random: &(dyn Fn() -> Random + Sync),
    ) -> Result<(Self, mpsc::Receiver<Committed>), Error> {
        let described = cluster.describe(topic).await?;
        if described.partitions != 1 {
            return Err(Error::Partitions { topic: topic.to_owned(), partitions: described.partitions });
        }
        let mut reader = cluster.reader(topic, 0);
        let (start, end) = (reader.offset(At::Earliest).await?, reader.offset(At::Latest).await?);
        drop(reader);
        if let Some(detail) = witness.and_then(|seen| contradiction(&seen, described.id, end)) {
            return Err(Error::RolledBack { topic: topic.to_owned(), detail });
        }

        let replica = Replica::new(topic, described.id, Codec::new(&key, topic), start, witness);
        let (commands, commands_in) = mpsc::channel(COMMANDS);
        let (events_out, events) = mpsc::channel(EVENTS);
        let (tail_out, tail_in) = mpsc::channel(1);
        let (view_out, view) = watch::channel(View {
            witness: replica.witness(),
            leading: None,
            ignored: 0,
            whole: None,
            growth: Growth::default(),
        });
        let (health_out, health) = watch::channel(Health::default());
        let ended = Arc::new(OnceLock::new());
        let tail = Tail {
            cluster: cluster.clone(),
            topic: topic.to_owned(),
            topic_id: described.id,
            position: start,
            replay_end: end,
            health: health_out.clone(),
            random: random(),
        };
        let writer = cluster.writer(topic, 0);
        let screens = Screens { view: view_out, health: health_out, ended: ended.clone() };
        let driver = Driver::new(Intake::new(replica, Feed::new(topic), end), writer, random, screens);
        tokio::spawn(tail.run(tail_out));
        tokio::spawn(driver.run(commands_in, tail_in, events_out));
        let log = Arc::new(Log::new(cluster, topic, described.id));
        Ok((Self { commands, view, health, ended, log }, events))
    }

    /// Takes the journal over, and returns the epoch once the claim was read back as winning: whoever led before is
    /// superseded. Waits until the log was read up to its end as it was at the start; a claim that lost a race is made
    /// again. Returns at once if this journal leads already. If the future is dropped the claim may still be won.
    pub async fn claim(&self) -> Result<u32, Error> {
        self.claim_above(0).await
    }

    /// [`claim`](Self::claim) with an epoch that also exceeds `above`: one that was seen elsewhere, in a journal that is
    /// gone. If this journal leads with a lower one it gives that up:
    /// what was not answered gets [`Error::Diverged`].
    pub async fn claim_above(&self, above: u32) -> Result<u32, Error> {
        self.ask(|reply| Command::Claim { above, reply }).await
    }

    /// Appends an event, and returns its seq once it was read back as valid under the claim that this journal won. Many
    /// may be called at once: they share requests. One that starts after another has returned is behind it; use
    /// [`enqueue`](Self::enqueue) for an order without waiting.
    ///
    /// An error means that the event does not count, for [`Error::Superseded`], [`Error::NotLeader`] and
    /// [`Error::TooLarge`]; after another, or if the future is dropped, it may still be applied later.
    pub async fn append(&self, payload: Bytes) -> Result<u64, Error> {
        self.queue(payload, false).await?.await
    }

    /// [`append`](Self::append) in two steps: returns as soon as the event has its place behind all that were enqueued
    /// before, and what it returns waits for the rest. Waits itself only while too much is under way. If its future is
    /// dropped before it has returned the event does not count; if the [`Pending`] is, the event goes its way all the same.
    ///
    /// The order is that of the calls, for those that count: one that fails does not hold up later ones.
    pub async fn enqueue(&self, payload: Bytes) -> Result<Pending, Error> {
        self.queue(payload, true).await
    }

    async fn queue(&self, payload: Bytes, kept: bool) -> Result<Pending, Error> {
        if payload.len() > MAX_PAYLOAD {
            return Err(Error::TooLarge { bytes: payload.len(), limit: MAX_PAYLOAD });
        }
        self.pend(|reply| Command::Append { payload, kept, reply }).await
    }

    /// What was read so far: the high-water mark that the caller keeps in a file and shows to agents.
    pub fn head(&self) -> Witness {
        self.view.borrow().witness
    }

    /// The epoch in which this journal leads, as far as it was read.
    pub fn leading(&self) -> Option<u32> {
        self.view.borrow().leading
    }

    /// How many records were read that do not count: copies, late ones, other writers'.
    pub fn ignored(&self) -> u64 {
        self.view.borrow().ignored
    }

    /// Whether the cluster can be reached, as it changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    async fn pend(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<u64, Error>>) -> Command,
    ) -> Result<Pending, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        Ok(Pending { answer, ended: self.ended.clone() })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(end(&self.ended)))
    }

    async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| end(&self.ended))
    }
}

/// An event that was enqueued: waits for its seq, as [`Journal::append`] does.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<Result<u64, Error>>,
    ended: Arc<OnceLock<Error>>,
}

impl Future for Pending {
    type Output = Result<u64, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(answer.unwrap_or_else(|_| Err(end(&self.ended))))
    }
}

/// Why the journal ended.
fn end(ended: &OnceLock<Error>) -> Error {
    ended.get().cloned().unwrap_or(Error::Closed)
}

/// Why a log with this id and end can't be the one that was `seen`.
fn contradiction(seen: &Witness, id: u128, end: i64) -> Option<String> {
    if seen.topic_id != id && seen.topic_id != 0 && id != 0 {
        return Some("the topic was deleted and created anew".to_owned());
    }
    let offset = seen.offset;
    (offset >= end).then(|| format!("it ends at offset {end}, and offset {offset} was seen before"))
}
