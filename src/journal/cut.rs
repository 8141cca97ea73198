//! Snapshots as their writer sees them, and the cutting of the log behind them.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;

use super::{
    Error, Growth, Journal, MAX_PAYLOAD, Pending, Snapshot,
    leader::Command,
    snapshot::{PART_BYTES, Part},
};
use crate::kafka::{self, SharedCluster};

/// How many parts are under way at once: enough to keep the connection busy, and few, since events wait behind them.
const AHEAD: usize = 8;

/// Where the log lies.
pub(super) struct Log {
    cluster: SharedCluster,
    topic: String,
    topic_id: u128,
    /// Whether it was said that the log can't be cut.
    warned: AtomicBool,
}

impl Log {
    pub(super) fn new(cluster: SharedCluster, topic: &str, topic_id: u128) -> Self {
        Self { cluster, topic: topic.to_owned(), topic_id, warned: AtomicBool::new(false) }
    }

    async fn cut(&self, offset: i64) -> Result<(), Error> {
        // The offset means nothing in another log under the same name.
        let found = self.cluster.describe(&self.topic).await?.id;
        if found != self.topic_id && found != 0 && self.topic_id != 0 {
            return Err(Error::Recreated { topic: self.topic.clone() });
        }
        match self.cluster.delete_records(&self.topic, 0, offset).await {
            // Cut further already.
            Ok(()) | Err(kafka::Error::OffsetOutOfRange { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Journal {
    /// Begins a snapshot, as the leader, and returns once its begin was read back. Then, or a little before, comes
    /// [`Committed::SnapshotBegun`](super::Committed::SnapshotBegun) in the place whose state the snapshot is to hold:
    /// who folds takes a copy of the state there and gives it to [`write_snapshot`](Self::write_snapshot).
    /// A snapshot that is under way is torn by it, and any is torn by a claim; torn ones count for nothing.
    pub async fn begin_snapshot(&self) -> Result<(), Error> {
        self.ask(|reply| Command::Begin { founding: false, reply }).await.map(|_| ())
    }

    /// Begins a snapshot that *replaces* all that is before it: every other reader forgets its state here, and takes the
    /// snapshot's. For a topic that was deleted and created anew while a leader was alive ([`Error::Recreated`]):
    ///
    /// 1. [`open`](Self::open) the new topic without a witness, and pass over what it hands on;
    /// 2. [`claim_above`](Self::claim_above) the epoch that was led in;
    /// 3. `begin_founding`, and fold from its `SnapshotBegun` on into the state that is there already;
    /// 4. [`write_snapshot`](Self::write_snapshot); trust nothing before it has returned. If it is torn, begin another.
    ///
    /// If another controller claims before the snapshot is whole, the journal fails with [`Error::Superseded`].
    pub async fn begin_founding(&self) -> Result<(), Error> {
        self.ask(|reply| Command::Begin { founding: true, reply }).await.map(|_| ())
    }

    /// Writes the state as of `snapshot` in as many payloads of up to [`MAX_PAYLOAD`] as it takes, and returns once they
    /// were read back as a whole snapshot. Takes no more than a few at once from the iterator; events go on meanwhile.
    ///
    /// [`Error::Torn`] if it can't become whole: another was begun, or more than 32 MiB of events came between. Any error,
    /// and a future that is dropped, leaves a torn snapshot, which counts for nothing.
    pub async fn write_snapshot(
        &self,
        snapshot: Snapshot,
        payloads: impl IntoIterator<Item = Bytes, IntoIter: Send> + Send,
    ) -> Result<(), Error> {
        self.write_parts(snapshot, payloads, PART_BYTES).await
    }

    pub(super) async fn write_parts(
        &self,
        of: Snapshot,
        payloads: impl IntoIterator<Item = Bytes, IntoIter: Send> + Send,
        part_bytes: usize,
    ) -> Result<(), Error> {
        let mut parts = Parts { journal: self, of, count: 0, waiting: VecDeque::new() };
        let mut part = Part::default();
        for payload in payloads {
            if payload.len() > MAX_PAYLOAD {
                return Err(Error::TooLarge { bytes: payload.len(), limit: MAX_PAYLOAD });
            }
            if let Some(full) = part.push(&payload, part_bytes) {
                parts.send(full).await?;
            }
        }
        if let Some(last) = part.finish() {
            parts.send(last).await?;
        }
        parts.end().await
    }

    /// The newest whole snapshot that was read.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.view.borrow().whole
    }

    /// How much came into the log since that snapshot was begun, or since its beginning: when to begin another.
    pub fn growth(&self) -> Growth {
        self.view.borrow().growth
    }

    /// Deletes what is before the newest whole snapshot from the log; without one it does nothing. Readers that are
    /// behind go on at the snapshot. Bounded by the cluster's 60 s.
    ///
    /// An error costs nothing but room in the topic, and may be passed over: the next cut makes up for it. It is logged
    /// once.
    pub async fn cut(&self) -> Result<(), Error> {
        let Some(Snapshot { offset, .. }) = self.snapshot() else { return Ok(()) };
        let cut = self.log.cut(offset).await;
        if let Err(error) = &cut
            && !self.log.warned.swap(true, Relaxed)
        {
            let topic = &self.log.topic;
            tracing::warn!(topic, %error, "the journal's old records can't be deleted; it goes on and grows");
        }
        cut
    }
}

/// The parts of one snapshot on their way.
struct Parts<'a> {
    journal: &'a Journal,
    of: Snapshot,
    count: u64,
    waiting: VecDeque<Pending>,
}

impl Parts<'_> {
    async fn send(&mut self, part: Bytes) -> Result<(), Error> {
        if self.waiting.len() >= AHEAD
            && let Some(first) = self.waiting.pop_front()
        {
            first.await?;
        }
        let of = self.of;
        self.waiting.push_back(self.journal.pend(|reply| Command::Part { of, part, reply }).await?);
        self.count += 1;
        Ok(())
    }

    async fn end(self) -> Result<(), Error> {
        for part in self.waiting {
            part.await?;
        }
        let (of, parts) = (self.of, self.count);
        self.journal.ask(|reply| Command::End { of, parts, reply }).await?;
        // It was read, so what became of it is seen: it is whole, or one is that was begun later, which is as good.
        let whole = self.journal.snapshot().map(|whole| (whole.epoch, whole.seq));
        if whole >= Some((of.epoch, of.seq)) { Ok(()) } else { Err(Error::Torn) }
    }
}
