//! The reading side, for the agent's shipper: from any offsets, while the shim goes on writing.
//!
//! It never waits: at the present end it says so, and the shim's report says when there is more.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{Offsets, SpoolError, Stream, record, segment};

/// Output as it was written, or the part of it that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Of which stream.
    pub stream: Stream,
    /// Of the first byte, from the stream's beginning.
    pub offset: u64,
    /// When it was read from the process, in milliseconds since the epoch.
    pub time: u64,
    /// 1 to [`MAX_CHUNK`](super::MAX_CHUNK) bytes.
    pub bytes: Bytes,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This.
    Chunk(Chunk),
    /// Nothing now. If the shim is gone: nothing any more, and half a record at the end counts as none.
    End,
}

/// Reads a spool.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    /// What the caller has already.
    from: Offsets,
    at: Option<Place>,
}

/// Where the next record is.
#[derive(Debug)]
struct Place {
    number: u64,
    file: File,
    position: u64,
    /// What the next record of each stream must begin with.
    ends: Offsets,
}

impl Reader {
    /// Reads the spool in `dir` from these offsets on. Of a stream whose bytes there were cut it begins later: the first
    /// chunk's offset says where.
    pub fn new(dir: &Path, from: Offsets) -> Self {
        Self { dir: dir.to_owned(), from, at: None }
    }

    /// The next chunk. Blocks for a few reads of a file.
    pub fn read(&mut self) -> Result<Next, SpoolError> {
        loop {
            if self.at.is_none() {
                self.at = self.find()?;
            }
            let Some(number) = self.at.as_ref().map(|place| place.number) else { return Ok(Next::End) };
            let mut chunk = self.record()?;
            if chunk.is_none() {
                let Some(later) = self.later(number)? else { return Ok(Next::End) };
                // There is a later segment, so this one is complete, and this look at it is the last.
                chunk = self.record()?;
                if chunk.is_none() {
                    match self.leave_for(later)? {
                        Some(place) => self.at = Some(place),
                        // Its header is being written.
                        None => return Ok(Next::End),
                    }
                }
            }
            if let Some(chunk) = chunk.and_then(|chunk| rest(chunk, &self.from)) {
                return Ok(Next::Chunk(chunk));
            }
        }
    }

    /// The whole record where we are, if there is one.
    fn record(&mut self) -> Result<Option<Chunk>, SpoolError> {
        let Some(place) = &mut self.at else { return Ok(None) };
        place.record().map_err(|source| SpoolError::Io { path: segment::path(&self.dir, place.number), source })
    }

    /// The last segment that begins at or before what the caller wants, or else the first one.
    fn find(&self) -> Result<Option<Place>, SpoolError> {
        let mut found = None;
        for number in self.numbers()? {
            let Some(place) = open(&self.dir, number)? else { continue };
            if found.is_some() && !place.ends.within(&self.from) {
                break;
            }
            found = Some(place);
        }
        Ok(found)
    }

    fn later(&self, number: u64) -> Result<Option<u64>, SpoolError> {
        Ok(self.numbers()?.into_iter().find(|later| *later > number))
    }

    /// Segment `number`, now that the one where we are has no more records. `None` if it has no header yet, or was cut just now.
    fn leave_for(&self, number: u64) -> Result<Option<Place>, SpoolError> {
        let place = self.at.as_ref().expect("we are somewhere");
        let path = segment::path(&self.dir, place.number);
        let length = place.file.metadata().map_err(|source| SpoolError::Io { path: path.clone(), source })?.len();
        if place.position != length {
            return Err(SpoolError::Damaged { segment: path, position: place.position });
        }
        let Some(next) = open(&self.dir, number)? else {
            return match self.later(number)? {
                // A segment that has a successor has a header, if it was not cut meanwhile.
                Some(_) if segment::path(&self.dir, number).exists() => Err(self.damaged(number)),
                _ => Ok(None),
            };
        };
        // Between segments that were cut since, output was cut.
        let follows = if number == place.number + 1 { next.ends == place.ends } else { place.ends.within(&next.ends) };
        if follows { Ok(Some(next)) } else { Err(self.damaged(number)) }
    }

    fn damaged(&self, number: u64) -> SpoolError {
        SpoolError::Damaged { segment: segment::path(&self.dir, number), position: 0 }
    }

    fn numbers(&self) -> Result<Vec<u64>, SpoolError> {
        segment::numbers(&self.dir).map_err(|source| SpoolError::Io { path: self.dir.clone(), source })
    }
}

impl Place {
    /// The record here; `None` if there is no whole one.
    fn record(&mut self) -> io::Result<Option<Chunk>> {
        let mut head = [0; record::HEADER];
        if !read_whole(&self.file, &mut head, self.position)? {
            return Ok(None);
        }
        let Some(header) = record::decode(&head) else { return Ok(None) };
        if header.offset != self.ends.of(header.stream) {
            return Ok(None);
        }
        let mut bytes = vec![0; header.length];
        if !read_whole(&self.file, &mut bytes, self.position + record::HEADER as u64)? || !header.matches(&head, &bytes)
        {
            return Ok(None);
        }
        self.position += (record::HEADER + header.length) as u64;
        *self.ends.of_mut(header.stream) += header.length as u64;
        let record::Header { stream, offset, time, .. } = header;
        Ok(Some(Chunk { stream, offset, time, bytes: bytes.into() }))
    }
}

/// Where the spool in `dir` begins: what lies before was cut.
pub fn begins(dir: &Path) -> Result<Offsets, SpoolError> {
    let numbers = segment::numbers(dir).map_err(|source| SpoolError::Io { path: dir.to_owned(), source })?;
    for number in numbers {
        if let Some(place) = open(dir, number)? {
            return Ok(place.ends);
        }
    }
    Ok(Offsets::default())
}

/// Removes the segments of a spool, whose shim is gone, that were shipped up to `acked`. While the shim lives it does this itself
/// when it is told what was acknowledged.
pub fn cut(dir: &Path, acked: &Offsets) -> Result<(), SpoolError> {
    let failed = |path: &Path, source| SpoolError::Io { path: path.to_owned(), source };
    let numbers = segment::numbers(dir).map_err(|source| failed(dir, source))?;
    for pair in numbers.windows(2) {
        match open(dir, pair[1])? {
            Some(next) if next.ends.within(acked) => {}
            _ => return Ok(()),
        }
        let path = segment::path(dir, pair[0]);
        fs::remove_file(&path).map_err(|source| failed(&path, source))?;
    }
    Ok(())
}

/// The beginning of a segment; `None` if it has no whole header or is gone.
fn open(dir: &Path, number: u64) -> Result<Option<Place>, SpoolError> {
    let path = segment::path(dir, number);
    let look = || -> io::Result<Option<Place>> {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut head = [0; segment::HEADER];
        if !read_whole(&file, &mut head, 0)? {
            return Ok(None);
        }
        let place = |ends| Place { number, file, position: segment::HEADER as u64, ends };
        Ok(segment::decode(&head).map(place))
    };
    look().map_err(|source| SpoolError::Io { path: path.clone(), source })
}

/// Fills `buffer` from `position`; false if the file ends before.
fn read_whole(file: &File, buffer: &mut [u8], position: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, position) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// What of a chunk the caller does not have yet.
fn rest(mut chunk: Chunk, from: &Offsets) -> Option<Chunk> {
    let had = from.of(chunk.stream).saturating_sub(chunk.offset);
    if had >= chunk.bytes.len() as u64 {
        return None;
    }
    chunk.bytes = chunk.bytes.slice(had as usize..);
    chunk.offset += had;
    Some(chunk)
}
