//! The writing side: whole records or nothing, within a limit, and what was shipped is cut away.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, IoSlice, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    Offsets, Stream,
    record::{self, MAX_CHUNK},
    segment,
};

/// The least limit: two segments with some output in each must fit, else cutting could never make room.
const LEAST_LIMIT: u64 = 256 << 10;

/// The largest segment. Smaller ones are cut sooner, larger ones cost fewer files.
const LARGEST_SEGMENT: u64 = 4 << 20;

/// Writes a spool.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    limit: u64,
    /// The last segment.
    active: File,
    /// Its length up to the last whole record.
    length: u64,
    /// A write failed and the half record behind `length` is still there.
    torn: bool,
    /// The segments that were not cut, the active one last.
    kept: VecDeque<Kept>,
    /// Bytes of all of them.
    used: u64,
    ends: Offsets,
    /// Finished segments that are not on the disk yet.
    unsynced: Vec<File>,
    /// The same of the active one.
    active_unsynced: bool,
    /// The same of the directory's entries.
    dir_unsynced: bool,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    starts: Offsets,
    length: u64,
}

impl Writer {
    /// Begins a spool in `dir`, which is made; one of a shim that never started its process is replaced. At most `limit` bytes
    /// are on the disk at once, 256 KiB at least.
    pub fn create(dir: &Path, limit: u64) -> io::Result<Self> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(dir)?;
        let starts = Offsets::default();
        let active = begin(dir, 0, &starts)?;
        let length = segment::HEADER as u64;
        Ok(Self {
            dir: dir.to_owned(),
            limit: limit.max(LEAST_LIMIT),
            active,
            length,
            torn: false,
            kept: VecDeque::from([Kept { number: 0, starts, length }]),
            used: length,
            ends: starts,
            unsynced: Vec::new(),
            // Without output nothing would be missed.
            active_unsynced: false,
            dir_unsynced: false,
        })
    }

    /// How many bytes of output may be read now, at most [`MAX_CHUNK`]; 0 if the limit is reached.
    pub fn room(&self) -> usize {
        let overhead = (record::HEADER + segment::HEADER) as u64;
        let room = self.limit.saturating_sub(self.used + overhead);
        // Few bytes at the limit would become many small records, and still block.
        if room < 4096 { 0 } else { room.min(MAX_CHUNK as u64) as usize }
    }

    /// Appends output of `stream` that came at `time` (milliseconds since the epoch), 1 to [`MAX_CHUNK`] bytes. Whole or, if it
    /// fails, not at all: then the same may be tried again later.
    pub fn append(&mut self, stream: Stream, time: u64, bytes: &[u8]) -> io::Result<()> {
        let size = (record::HEADER + bytes.len()) as u64;
        if self.length + size > self.segment_size() && self.length > segment::HEADER as u64 {
            self.roll()?;
        }
        if self.torn {
            self.active.set_len(self.length)?;
            self.torn = false;
        }
        let header = record::header(stream, self.ends.of(stream), time, bytes);
        self.active_unsynced = true;
        self.dir_unsynced |= self.length == segment::HEADER as u64;
        if let Err(error) = write_both(&self.active, &header, bytes) {
            self.torn = self.active.set_len(self.length).is_err();
            return Err(error);
        }
        self.length += size;
        self.used += size;
        self.kept.back_mut().expect("the active segment is kept").length = self.length;
        *self.ends.of_mut(stream) += bytes.len() as u64;
        Ok(())
    }

    /// Removes the segments whose bytes were all shipped: both streams up to `acked`.
    pub fn cut(&mut self, acked: &Offsets) -> io::Result<()> {
        while let [first, second, ..] = self.kept.make_contiguous()
            && second.starts.within(acked)
        {
            match fs::remove_file(segment::path(&self.dir, first.number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.used -= first.length;
            self.kept.pop_front();
        }
        // Of segments that are not there any more nothing needs to be synced.
        let finished = self.kept.len() - 1;
        self.unsynced.drain(..self.unsynced.len().saturating_sub(finished));
        Ok(())
    }

    /// Puts on the disk what is not there yet.
    pub fn sync(&mut self) -> io::Result<()> {
        while let Some(file) = self.unsynced.first() {
            file.sync_data()?;
            self.unsynced.remove(0);
        }
        if self.active_unsynced {
            self.active.sync_data()?;
            self.active_unsynced = false;
        }
        if self.dir_unsynced {
            File::open(&self.dir)?.sync_all()?;
            self.dir_unsynced = false;
        }
        Ok(())
    }

    /// Whether [`Self::sync`] has something to do.
    pub fn is_unsynced(&self) -> bool {
        self.active_unsynced || self.dir_unsynced || !self.unsynced.is_empty()
    }

    /// Where each stream stands.
    pub fn ends(&self) -> Offsets {
        self.ends
    }

    /// Bytes on the disk.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// The most bytes on the disk.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Changes the limit. Below what is used, nothing is taken until it was cut.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit.max(LEAST_LIMIT);
    }

    fn segment_size(&self) -> u64 {
        (self.limit / 8).min(LARGEST_SEGMENT)
    }

    fn roll(&mut self) -> io::Result<()> {
        if self.torn {
            self.active.set_len(self.length)?;
            self.torn = false;
        }
        let number = self.kept.back().expect("the active segment is kept").number + 1;
        let next = begin(&self.dir, number, &self.ends)?;
        let finished = std::mem::replace(&mut self.active, next);
        if self.active_unsynced {
            self.unsynced.push(finished);
        }
        self.length = segment::HEADER as u64;
        self.used += self.length;
        self.kept.push_back(Kept { number, starts: self.ends, length: self.length });
        (self.active_unsynced, self.dir_unsynced) = (true, true);
        Ok(())
    }
}

/// Makes segment `number`, with its header or not at all.
fn begin(dir: &Path, number: u64, starts: &Offsets) -> io::Result<File> {
    let path = segment::path(dir, number);
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    // What a failed try left.
    file.set_len(0)?;
    file.write_all(&segment::header(starts)).inspect_err(|_| {
        fs::remove_file(&path).ok();
    })?;
    Ok(file)
}

/// Writes both without copying them together.
fn write_both(mut file: &File, header: &[u8], bytes: &[u8]) -> io::Result<()> {
    let mut slices = [IoSlice::new(header), IoSlice::new(bytes)];
    let mut slices = &mut slices[..];
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
