//! One output of a resumable execution: from the process's pipe into files, where it stays until the user has it.
//!
//! `splice(2)` moves bytes from the pipe to the file inside one system call, so that at no moment a byte is in neither: an agent that is
//! killed leaves each byte either in the pipe, which the keeper holds, or in a file, whose length says how many came.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    future::pending,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use nix::fcntl::{SpliceFFlags, splice};
use tokio::io::{Interest, unix::AsyncFd};

use crate::protocol::exec::KEPT;

/// A file is removed when the user has all of it.
const SEGMENT: u64 = 2 << 20;

/// What is kept of one output.
pub(super) struct Retained {
    dir: PathBuf,
    /// Its files begin with it.
    name: &'static str,
    /// In order, without gaps.
    segments: VecDeque<Segment>,
    end: u64,
    acked: u64,
    /// Nothing more comes.
    pub ended: bool,
}

struct Segment {
    file: File,
    path: PathBuf,
    start: u64,
}

/// What came of a look into the pipe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// So many bytes.
    Some(u64),
    /// None now.
    Nothing,
    /// None any more.
    End,
}

impl Retained {
    /// What an earlier agent left in `dir` of the output `name`, or nothing.
    pub fn open(dir: &Path, name: &'static str) -> io::Result<Self> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let start =
                path.file_name().and_then(|file| file.to_str()?.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
            if let Some(start) = start {
                let file = OpenOptions::new().read(true).write(true).open(&path)?;
                found.push(Segment { file, path, start });
            }
        }
        found.sort_by_key(|segment: &Segment| segment.start);
        let end = match found.last() {
            Some(last) => last.start + last.file.metadata()?.len(),
            None => 0,
        };
        let acked = found.first().map_or(0, |first| first.start);
        let dir = dir.to_owned();
        Ok(Self { dir, name, segments: found.into(), end, acked, ended: false })
    }

    /// How many bytes came.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The first byte that can still be had.
    pub fn start(&self) -> u64 {
        self.segments.front().map_or(self.end, |first| first.start)
    }

    /// How many bytes the user confirmed; after an agent's end some less.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Whether more may be taken from the process.
    pub fn has_room(&self) -> bool {
        self.end - self.acked < KEPT
    }

    /// The user has this many bytes.
    pub fn ack(&mut self, up_to: u64) {
        self.acked = self.acked.max(up_to.min(self.end));
        while self.segments.len() > 1 && self.segments[1].start <= self.acked {
            if let Some(first) = self.segments.pop_front() {
                fs::remove_file(first.path).ok();
            }
        }
    }

    /// Up to `most` bytes from `offset` on, at least one if there is one.
    pub fn read(&mut self, offset: u64, most: usize) -> io::Result<Bytes> {
        let Some(index) = self.segments.iter().rposition(|segment| segment.start <= offset) else {
            return Ok(Bytes::new());
        };
        let ends = self.segments.get(index + 1).map_or(self.end, |next| next.start);
        let length = usize::try_from(ends - offset).unwrap_or(usize::MAX).min(most);
        let segment = &self.segments[index];
        // Not by a positioned read, whose buffer would have to be filled with zeros before.
        let mut file = &segment.file;
        file.seek(SeekFrom::Start(offset - segment.start))?;
        let mut bytes = Vec::with_capacity(length);
        file.take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes.into())
    }

    /// Moves up to `most` bytes from `pipe` to a file. Waits for nothing.
    fn drain(&mut self, pipe: &File, most: usize) -> io::Result<Drained> {
        let full = self.segments.back().is_none_or(|last| self.end - last.start >= SEGMENT);
        if full {
            let path = self.dir.join(format!("{}.{:020}", self.name, self.end));
            let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).mode(0o600).open(&path)?;
            self.segments.push_back(Segment { file, path, start: self.end });
        }
        let last = self.segments.back().expect("there is one");
        let mut at = i64::try_from(self.end - last.start).map_err(io::Error::other)?;
        match splice(pipe, None, &last.file, Some(&mut at), most, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Ok(0) => Ok(Drained::End),
            Ok(length) => {
                self.end += length as u64;
                Ok(Drained::Some(length as u64))
            }
            Err(nix::errno::Errno::EAGAIN) => Ok(Drained::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what the pipe has, and waits until it has something. Cancel-safe.
    pub async fn take(&mut self, pipe: &AsyncFd<File>, most: usize) -> io::Result<Drained> {
        pipe.async_io(Interest::READABLE, |file| match self.drain(file, most)? {
            Drained::Nothing => Err(io::ErrorKind::WouldBlock.into()),
            drained => Ok(drained),
        })
        .await
    }

    /// Takes what comes while nobody is there, as far as it is kept; waits for ever if there is nothing to take. Cancel-safe.
    pub async fn put_aside(&mut self, pipe: Option<&AsyncFd<File>>) {
        match pipe.filter(|_| !self.ended && self.has_room()) {
            Some(pipe) => self.ended = !matches!(self.take(pipe, 1 << 20).await, Ok(Drained::Some(_))),
            None => pending().await,
        }
    }

    /// [`Self::take`] without waiting.
    pub fn take_now(&mut self, pipe: &AsyncFd<File>, most: usize) -> io::Result<Drained> {
        self.drain(pipe.get_ref(), most)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pipe() -> (AsyncFd<File>, std::io::PipeWriter) {
        let (read, write) = io::pipe().expect("pipe");
        let read: std::os::fd::OwnedFd = read.into();
        nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).expect("set");
        (crate::agent::shim::keep::watched(read.into()).expect("registered"), write)
    }

    #[tokio::test]
    async fn what_came_is_kept_until_it_is_acked_and_found_again_by_the_next_agent() {
        let dir = tempfile::tempdir().expect("dir");
        let (pipe, mut write) = pipe();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 3) as u8).collect();
        let whole = bytes.clone();
        let writer = std::thread::spawn(move || write.write_all(&whole));
        let mut kept = Retained::open(dir.path(), "out").expect("open");
        while kept.take(&pipe, 128 << 10).await.expect("taken") != Drained::End {}
        writer.join().expect("joined").expect("written");
        assert_eq!((kept.start(), kept.end()), (0, 3_000_000));
        kept.ack(2_500_000);
        drop(kept);
        let mut kept = Retained::open(dir.path(), "out").expect("open");
        assert!(kept.start() > 0 && kept.start() <= 2_500_000, "{}", kept.start());
        let (mut at, mut got) = (2_500_000, Vec::new());
        while at < kept.end() {
            let part = kept.read(at, 100_000).expect("read");
            at += part.len() as u64;
            got.extend_from_slice(&part);
        }
        assert!(got == bytes[2_500_000..]);
    }

    #[tokio::test]
    async fn a_silent_pipe_gives_nothing_and_an_unread_output_is_bounded() {
        let dir = tempfile::tempdir().expect("dir");
        let (pipe, mut write) = pipe();
        let mut kept = Retained::open(dir.path(), "err").expect("open");
        assert_eq!(kept.take_now(&pipe, 10).expect("looked"), Drained::Nothing);
        let piece = vec![1; 32 << 10];
        while kept.has_room() {
            write.write_all(&piece).expect("written");
            kept.take_now(&pipe, 1 << 20).expect("taken");
        }
        assert_eq!(kept.end(), KEPT);
        kept.ack(1);
        assert!(kept.has_room());
    }
}
