//! One partition: appending, reading and trimming, each a short step under one lock.
//!
//! An append is in the file (not necessarily on the platter) before it returns, so that a killed process loses
//! nothing that was acknowledged. Whoever waits for records is woken by the same step.

use super::batch::{BatchError, Incoming};
use super::cache::Tail;
use super::producers::{Producers, Verdict};
use super::recovery;
use super::segment::{Segment, Snapshot};
use crate::broker::files::{self, sync_directory};
use crate::broker::settings::Settings;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// The file that keeps the first valid offset after records were deleted.
const START_FILE: &str = "start-offset";

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(
        "batch of {size} bytes is larger than max.message.bytes = {most}: send smaller batches or raise the topic's max.message.bytes"
    )]
    TooLarge { size: usize, most: usize },
    #[error("transactions are not served by the embedded broker: use an idempotent or a plain producer")]
    Transactional,
    #[error("timestamp {0} is further from the broker's clock than the topic allows: set the sender's clock right")]
    Timestamp(i64),
    #[error("sequence number does not follow the producer's last one")]
    OutOfOrder,
    #[error("a newer instance of this producer has written")]
    Fenced,
    #[error("partition was deleted")]
    Gone,
    #[error("cannot write the log: {0}")]
    Io(#[from] io::Error),
}

/// An append that is in the file.
#[derive(Debug)]
pub(crate) struct Appended {
    pub base_offset: i64,
    /// The broker's time if it stamped the batch, else -1.
    pub append_time: i64,
    pub log_start: i64,
    /// The file to sync before acknowledging, if that is wanted; none for a repeat of an earlier batch.
    pub file: Option<Arc<File>>,
}

/// Offsets at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub log_start: i64,
    pub next_offset: i64,
}

/// What a read found out under the lock.
#[derive(Debug)]
pub(crate) enum Read {
    /// Batches from memory; empty at the log's end.
    Ready(Bytes),
    /// The batches are older: read them from the file, on a thread that may block.
    OnDisk { snapshot: Snapshot, position: u64 },
    /// Before the start or beyond the end.
    OutOfRange,
    /// The topic was deleted.
    Gone,
}

/// What a sync has to do for one partition.
#[derive(Debug)]
pub(crate) struct Unsynced {
    files: Vec<Arc<File>>,
    directory: Option<PathBuf>,
}

impl Unsynced {
    /// Blocks until the data is on stable storage.
    pub fn sync(&self) -> io::Result<()> {
        self.files.iter().try_for_each(|file| file.sync_data())?;
        self.directory.as_deref().map_or(Ok(()), sync_directory)
    }
}

/// A partition's log.
#[derive(Debug)]
pub(crate) struct Partition {
    directory: PathBuf,
    inner: Mutex<Inner>,
    appended: Arc<Notify>,
}

#[derive(Debug)]
struct Inner {
    /// Never empty; the last is the active one.
    segments: Vec<Segment>,
    log_start: i64,
    next_offset: i64,
    producers: Producers,
    tail: Tail,
    /// Sealed files with bytes that no sync has covered yet.
    unsynced: Vec<Arc<File>>,
    active_unsynced: bool,
    directory_unsynced: bool,
    gone: bool,
}

impl Partition {
    /// Opens the directory, which must exist, and repairs what a crash left. `cache` bounds the tail in memory.
    pub fn open(directory: PathBuf, cache: usize, now_ms: i64) -> io::Result<Self> {
        let log_start = files::read_number(&directory.join(START_FILE))?.unwrap_or(0);
        let found = recovery::recover(&directory, log_start, now_ms)?;
        if found.cut > 0 {
            tracing::warn!(
                directory = %directory.display(), bytes = found.cut, next_offset = found.next_offset,
                "cut an unfinished write off the end of the log"
            );
        }
        for path in &found.set_aside {
            tracing::error!(path = %path.display(), "set a segment aside that lies beyond damage in the log");
        }
        let first = found.segments.first().map_or(0, |s| s.base);
        Ok(Self {
            directory,
            appended: Arc::new(Notify::new()),
            inner: Mutex::new(Inner {
                log_start: log_start.clamp(first, found.next_offset),
                next_offset: found.next_offset,
                segments: found.segments,
                producers: found.producers,
                tail: Tail::new(cache),
                unsynced: Vec::new(),
                active_unsynced: true,
                directory_unsynced: true,
                gone: false,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock would be a bug; what it left is still a log that a restart can repair.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn extent(&self) -> Extent {
        let inner = self.lock();
        Extent { log_start: inner.log_start, next_offset: inner.next_offset }
    }

    /// Completes at the next append or deletion after this call.
    pub fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.appended).notified_owned()
    }

    /// Appends one batch as a producer sent it.
    pub fn append(&self, batch: &[u8], settings: &Settings, now_ms: i64) -> Result<Appended, AppendError> {
        if batch.len() > settings.max_message_bytes {
            return Err(AppendError::TooLarge { size: batch.len(), most: settings.max_message_bytes });
        }
        let append_time = settings.log_append_time.then_some(now_ms);
        let incoming = Incoming::check(batch, append_time)?;
        if incoming.header.is_transactional() || incoming.header.is_control() {
            return Err(AppendError::Transactional);
        }
        let stamp = incoming.header.max_timestamp;
        if append_time.is_none()
            && (stamp.saturating_sub(now_ms) > settings.timestamp_after_max_ms
                || now_ms.saturating_sub(stamp) > settings.timestamp_before_max_ms)
        {
            return Err(AppendError::Timestamp(stamp));
        }
        let appended = self.lock().append(incoming, &self.directory, settings, now_ms)?;
        self.appended.notify_waiters();
        Ok(appended)
    }

    /// Reads whole batches from the one that holds `offset` on; the first whatever its size if `at_least_one`.
    pub fn read(&self, offset: i64, most: usize, at_least_one: bool) -> Read {
        let inner = self.lock();
        if inner.gone {
            return Read::Gone;
        }
        if offset < inner.log_start || offset > inner.next_offset {
            return Read::OutOfRange;
        }
        if offset == inner.next_offset {
            return Read::Ready(Bytes::new());
        }
        if let Some(bytes) = inner.tail.read(offset, most, at_least_one) {
            return Read::Ready(bytes);
        }
        let after = inner.segments.partition_point(|s| s.base <= offset);
        let segment = &inner.segments[after.saturating_sub(1)];
        Read::OnDisk { snapshot: segment.snapshot(), position: segment.position_before(offset) }
    }

    /// The first record that is not older than `timestamp`: offset and time. Blocks.
    pub fn find_timestamp(&self, timestamp: i64) -> io::Result<Option<(i64, i64)>> {
        let (candidates, log_start): (Vec<_>, _) = {
            let inner = self.lock();
            let reach = inner.segments.iter().filter(|s| s.max_timestamp >= timestamp);
            let candidates = reach.map(|s| (s.snapshot(), s.position_before_timestamp(timestamp)));
            (candidates.collect(), inner.log_start)
        };
        for (snapshot, position) in candidates {
            if let Some(found) = snapshot.find_timestamp(position, timestamp, log_start)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The largest timestamp in the log and the first record that has it. Blocks.
    pub fn find_max_timestamp(&self) -> io::Result<Option<(i64, i64)>> {
        let largest = self.lock().segments.iter().map(|s| s.max_timestamp).max();
        largest.filter(|t| *t >= 0).map_or(Ok(None), |timestamp| self.find_timestamp(timestamp))
    }

    /// Makes `offset` the first valid one (the log's end for -1) and remembers that across restarts. Blocks.
    pub fn delete_before(&self, offset: i64) -> Result<i64, DeleteError> {
        let removed = {
            let mut inner = self.lock();
            let offset = if offset == -1 { inner.next_offset } else { offset };
            if offset < 0 || offset > inner.next_offset {
                return Err(DeleteError::OutOfRange);
            }
            if offset <= inner.log_start {
                return Ok(inner.log_start);
            }
            files::replace(&self.directory.join(START_FILE), offset.to_string().as_bytes())?;
            inner.log_start = offset;
            inner.take_segments_before_start()
        };
        remove(&removed);
        Ok(self.extent().log_start)
    }

    /// Rolls and drops segments as the topic's settings say. Blocks. Returns how many were dropped.
    pub fn retain(&self, settings: &Settings, now_ms: i64) -> io::Result<usize> {
        let removed = {
            let mut inner = self.lock();
            if inner.gone {
                return Ok(0);
            }
            inner.producers.expire(now_ms);
            let active = inner.segments.len() - 1;
            let over = inner.is_old(settings, now_ms) || inner.is_expired(active, settings, now_ms);
            if over && inner.active().size > 0 {
                inner.roll(&self.directory)?;
            }
            inner.take_unretained(settings, now_ms)
        };
        remove(&removed);
        Ok(removed.len())
    }

    /// What has been written since the last call.
    pub fn take_unsynced(&self) -> Option<Unsynced> {
        let mut inner = self.lock();
        let mut files = std::mem::take(&mut inner.unsynced);
        if std::mem::take(&mut inner.active_unsynced) {
            files.extend(inner.active().active_file().cloned());
        }
        let directory = std::mem::take(&mut inner.directory_unsynced).then(|| self.directory.clone());
        (!files.is_empty() || directory.is_some()).then_some(Unsynced { files, directory })
    }

    /// Ends all reading and appending, and wakes those who wait.
    pub fn close(&self) {
        self.lock().gone = true;
        self.appended.notify_waiters();
    }
}

/// Why records were not deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeleteError {
    #[error("offset lies beyond the end of the log")]
    OutOfRange,
    #[error("cannot write the log's start: {0}")]
    Io(#[from] io::Error),
}

impl Inner {
    fn active(&self) -> &Segment {
        self.segments.last().expect("a partition has an active segment")
    }

    fn append(
        &mut self,
        incoming: Incoming,
        directory: &Path,
        settings: &Settings,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        if self.gone {
            return Err(AppendError::Gone);
        }
        match self.producers.check(&incoming.header) {
            Verdict::Append => {}
            Verdict::OutOfOrder => return Err(AppendError::OutOfOrder),
            Verdict::Fenced => return Err(AppendError::Fenced),
            Verdict::Duplicate { base_offset, timestamp } => {
                let append_time = if settings.log_append_time { timestamp } else { -1 };
                return Ok(Appended { base_offset, append_time, log_start: self.log_start, file: None });
            }
        }
        let active = self.active();
        let full = active.size > 0 && active.size + incoming.header.size as u64 > settings.segment_bytes;
        if full || (active.size > 0 && self.is_old(settings, now_ms)) {
            self.roll(directory)?;
        }
        let (header, bytes) = incoming.place(self.next_offset);
        let active = self.segments.last_mut().expect("a partition has an active segment");
        let file = active.append(&header, &bytes, now_ms)?;
        self.active_unsynced = true;
        self.next_offset = header.last_offset() + 1;
        self.producers.record(&header, now_ms);
        self.tail.push(&header, bytes);
        Ok(Appended {
            base_offset: header.base_offset,
            append_time: if settings.log_append_time { header.max_timestamp } else { -1 },
            log_start: self.log_start,
            file: Some(file),
        })
    }

    /// Begins a new segment at the log's end.
    fn roll(&mut self, directory: &Path) -> io::Result<()> {
        let next = Segment::create(directory, self.next_offset)?;
        let sealed = self.segments.last_mut().and_then(Segment::seal);
        if std::mem::replace(&mut self.active_unsynced, true) {
            self.unsynced.extend(sealed);
        }
        self.directory_unsynced = true;
        self.segments.push(next);
        Ok(())
    }

    fn is_old(&self, settings: &Settings, now_ms: i64) -> bool {
        self.active().first_append_ms.is_some_and(|first| now_ms.saturating_sub(first) >= settings.segment_ms)
    }

    fn is_expired(&self, at: usize, settings: &Settings, now_ms: i64) -> bool {
        let Some(retention) = settings.retention_ms else { return false };
        let segment = &self.segments[at];
        // As in Kafka: a segment whose records carry no usable time ages by the broker's clock.
        let newest = if segment.max_timestamp > 0 { Some(segment.max_timestamp) } else { segment.first_append_ms };
        segment.size > 0 && newest.is_some_and(|newest| now_ms.saturating_sub(newest) > retention)
    }

    /// Takes out the oldest segments that time and size no longer cover, never the active one.
    fn take_unretained(&mut self, settings: &Settings, now_ms: i64) -> Vec<Segment> {
        let mut total: u64 = self.segments.iter().map(|s| s.size).sum();
        let mut count = 0;
        while count + 1 < self.segments.len() {
            let size = self.segments[count].size;
            let over = settings.retention_bytes.is_some_and(|most| total - size >= most);
            if !over && !self.is_expired(count, settings, now_ms) {
                break;
            }
            total -= size;
            count += 1;
        }
        let removed = self.segments.drain(..count).collect();
        self.log_start = self.log_start.max(self.segments[0].base);
        removed
    }

    /// Takes out the segments that lie wholly before the log's start.
    fn take_segments_before_start(&mut self) -> Vec<Segment> {
        let keep = self.segments.partition_point(|s| s.base <= self.log_start).saturating_sub(1);
        self.segments.drain(..keep).collect()
    }
}

/// Removes files of segments that are no longer part of the log; readers that have one open finish undisturbed.
fn remove(segments: &[Segment]) {
    for segment in segments {
        if let Err(error) = std::fs::remove_file(segment.path()) {
            tracing::warn!(path = %segment.path().display(), %error, "cannot remove a segment that is no longer kept");
        }
    }
}
