//! One segment file: batches one behind the other, named by the offset of the first, with a sparse index in memory.

use super::batch::{BatchError, HEADER, Header, Records};
use super::scan::{self, Trust};
use bytes::{Bytes, BytesMut};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One index entry for so many bytes: small enough that a lookup reads little, large enough that 1 GiB costs 1 MB.
const INDEX_EVERY: u64 = 32 * 1024;

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    position: u64,
    /// The largest timestamp in front of this position.
    timestamp_before: i64,
}

/// A segment: the active one of a partition is appended to, the others are only read and, in time, removed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub base: i64,
    pub size: u64,
    /// The largest timestamp of its batches; -1 while it is empty.
    pub max_timestamp: i64,
    /// Broker time at which it got its first batch.
    pub first_append_ms: Option<i64>,
    path: PathBuf,
    /// Kept open for the active segment only, so that a long log does not exhaust the file descriptors.
    open: Option<Arc<File>>,
    index: Vec<Entry>,
}

impl Segment {
    /// Creates an empty segment that begins at `base`.
    pub fn create(directory: &Path, base: i64) -> io::Result<Self> {
        let path = directory.join(file_name(base));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        Ok(Self::over(path, base, Some(Arc::new(file))))
    }

    /// A segment over a file that exists, as yet without its batches: `note` them, in order.
    pub fn over(path: PathBuf, base: i64, open: Option<Arc<File>>) -> Self {
        Self { base, size: 0, max_timestamp: -1, first_append_ms: None, path, open, index: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a placed batch. After an error the file ends where it did before, or the error says otherwise.
    pub fn append(&mut self, header: &Header, bytes: &[u8], now_ms: i64) -> io::Result<Arc<File>> {
        let file = Arc::clone(self.open.as_ref().expect("only the open, active segment is appended to"));
        if let Err(error) = file.write_all_at(bytes, self.size) {
            file.set_len(self.size)?;
            return Err(error);
        }
        self.note(header, now_ms);
        Ok(file)
    }

    /// Takes account of a batch that lies at the end.
    pub fn note(&mut self, header: &Header, now_ms: i64) {
        if self.index.last().is_none_or(|e| self.size - e.position >= INDEX_EVERY) {
            self.index.push(Entry {
                offset: header.base_offset,
                position: self.size,
                timestamp_before: self.max_timestamp,
            });
        }
        self.first_append_ms.get_or_insert(now_ms);
        self.size += header.size as u64;
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
    }

    /// Closes the file; it is opened again for each read.
    pub fn seal(&mut self) -> Option<Arc<File>> {
        self.open.take()
    }

    pub fn active_file(&self) -> Option<&Arc<File>> {
        self.open.as_ref()
    }

    /// A view of what is in the file now, to be read without the partition's lock.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { path: self.path.clone(), open: self.open.clone(), end: self.size }
    }

    /// A position at or before the batch that holds `offset`.
    pub fn position_before(&self, offset: i64) -> u64 {
        let after = self.index.partition_point(|e| e.offset <= offset);
        after.checked_sub(1).map_or(0, |at| self.index[at].position)
    }

    /// A position in front of the first batch that reaches `timestamp`.
    pub fn position_before_timestamp(&self, timestamp: i64) -> u64 {
        let after = self.index.partition_point(|e| e.timestamp_before < timestamp);
        after.checked_sub(1).map_or(0, |at| self.index[at].position)
    }
}

/// The name of the file of a segment.
pub(crate) fn file_name(base: i64) -> String {
    format!("{base:020}.log")
}

/// A segment file as it was at one moment. All of it blocks: for threads that may.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    path: PathBuf,
    open: Option<Arc<File>>,
    end: u64,
}

impl Snapshot {
    fn file(&self) -> io::Result<Arc<File>> {
        self.open.as_ref().map_or_else(|| File::open(&self.path).map(Arc::new), |file| Ok(Arc::clone(file)))
    }

    /// Whole batches from the one that holds `offset` on, as `Tail::read`; `position` is one from the index.
    pub fn read(&self, position: u64, offset: i64, most: usize, at_least_one: bool) -> io::Result<Bytes> {
        let file = self.file()?;
        let left = usize::try_from(self.end - position).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::zeroed(most.saturating_add(INDEX_EVERY as usize).min(left));
        file.read_exact_at(&mut bytes, position)?;
        let mut start = 0;
        let first = loop {
            match Header::read(&bytes[start..]) {
                Ok(header) if header.last_offset() < offset => start += header.size,
                Ok(header) => break header,
                Err(BatchError::Short) if 0 < start && start < left => {
                    // A large batch lies in between: go on behind it.
                    return self.read_across(position + start as u64, offset, most, at_least_one);
                }
                Err(error) => return Err(damaged(&self.path, error)),
            }
            if start >= bytes.len() {
                if start >= left {
                    return Ok(Bytes::new());
                }
                return self.read_across(position + start as u64, offset, most, at_least_one);
            }
        };
        if first.size > most {
            if !at_least_one {
                return Ok(Bytes::new());
            }
            let mut whole = BytesMut::zeroed(first.size);
            file.read_exact_at(&mut whole, position + start as u64)?;
            return Ok(whole.freeze());
        }
        let mut end = start;
        while let Ok(header) = Header::read(&bytes[end..]) {
            if end + header.size > bytes.len() || end + header.size - start > most {
                break;
            }
            end += header.size;
        }
        if end == start {
            if start == 0 {
                return Err(damaged(&self.path, BatchError::Short));
            }
            return self.read_across(position + start as u64, offset, most, at_least_one);
        }
        Ok(bytes.freeze().slice(start..end))
    }

    /// Continues `read` at a batch's start that lies beyond the bytes read so far.
    fn read_across(&self, position: u64, offset: i64, most: usize, at_least_one: bool) -> io::Result<Bytes> {
        if position >= self.end {
            return Ok(Bytes::new());
        }
        self.read(position, offset, most, at_least_one)
    }

    /// The first record from `position` on that is not older than `timestamp`: its offset and its time.
    pub fn find_timestamp(&self, position: u64, timestamp: i64, from_offset: i64) -> io::Result<Option<(i64, i64)>> {
        let mut found = None;
        let walked = scan::walk(&*self.file()?, position, self.end, Trust::Blind, |_, header, bytes| {
            if header.max_timestamp < timestamp || header.last_offset() < from_offset {
                return ControlFlow::Continue(());
            }
            found = record_reaching(header, bytes, timestamp, from_offset);
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match walked.damage {
            Some(damage) if found.is_none() => Err(damaged(&self.path, damage)),
            _ => Ok(found),
        }
    }
}

/// The first record of a batch that reaches `timestamp`. Records that are compressed, or stamped by the broker, have
/// no time of their own here: the batch's first offset is the answer.
fn record_reaching(header: &Header, bytes: &[u8], timestamp: i64, from_offset: i64) -> Option<(i64, i64)> {
    if header.compression() != 0 || header.is_log_append_time() {
        return Some((header.base_offset.max(from_offset), header.max_timestamp));
    }
    Records::new(&bytes[HEADER..], header.records).map_while(Result::ok).find_map(|record| {
        let (offset, time) =
            (header.base_offset + record.offset_delta, header.base_timestamp.saturating_add(record.timestamp_delta));
        (time >= timestamp && offset >= from_offset).then_some((offset, time))
    })
}

fn damaged(path: &Path, error: BatchError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("segment {} is damaged: {error}", path.display()))
}
