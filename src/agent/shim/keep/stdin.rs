//! A process's stdin: from an agent's connection to the pipe, counted.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::PollFlags,
};

/// How much is read at once.
const CHUNK: usize = 128 << 10;

/// The way from an agent to the process.
pub(super) struct Input {
    /// None when the process takes no more, or has all.
    pipe: Option<File>,
    source: Option<UnixStream>,
    /// What was read and is not in the pipe: one chunk, and what a dead agent's connection still held.
    pending: Vec<u8>,
    written: usize,
    taken: u64,
    /// What the connection holds now is all.
    ending: bool,
}

impl Input {
    pub fn new(pipe: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            fcntl(pipe, FcntlArg::F_SETPIPE_SZ(super::PIPE)).ok();
        }
        let pipe = pipe.map(File::from);
        Ok(Self { pipe, source: None, pending: Vec::new(), written: 0, taken: 0, ending: false })
    }

    /// How many bytes came; `None` if no more are taken.
    pub fn taken(&self) -> Option<u64> {
        (self.pipe.is_some() && !self.ending).then_some(self.taken)
    }

    /// Bytes come from `source` from now on.
    pub fn connect(&mut self, source: UnixStream) {
        self.disconnect();
        if self.pipe.is_some() && source.set_nonblocking(true).is_ok() {
            self.source = Some(source);
        }
    }

    /// Takes what the connection holds, which its agent counts as taken, and lets it go.
    pub fn disconnect(&mut self) {
        while self.source.is_some() && self.read() {}
        self.source = None;
    }

    /// What the connection holds now is all.
    pub fn end(&mut self) {
        self.ending = true;
        self.pass();
    }

    /// What to wait for.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let pipe = self.pipe.as_ref()?;
        if self.written < self.pending.len() {
            return Some((pipe.as_fd(), PollFlags::POLLOUT));
        }
        match &self.source {
            Some(source) => Some((source.as_fd(), PollFlags::POLLIN)),
            // Only whether the process closed it.
            None => Some((pipe.as_fd(), PollFlags::empty())),
        }
    }

    /// Moves what can be moved without waiting.
    pub fn pass(&mut self) {
        loop {
            if !self.flush() {
                return;
            }
            if self.source.is_none() || !self.read() {
                break;
            }
        }
        if self.ending && self.pending.is_empty() {
            (self.pipe, self.source) = (None, None);
        }
    }

    /// The process closed it.
    pub fn close(&mut self) {
        (self.pipe, self.source) = (None, None);
        self.pending.clear();
        self.written = 0;
    }

    /// Writes what is pending. False if the pipe is full or closed.
    fn flush(&mut self) -> bool {
        while self.written < self.pending.len() {
            let Some(pipe) = &mut self.pipe else { return false };
            match pipe.write(&self.pending[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {
                    self.close();
                    return false;
                }
            }
        }
        self.pending.clear();
        self.written = 0;
        self.pipe.is_some()
    }

    /// Reads a chunk behind what is pending. False if there is nothing now or any more.
    fn read(&mut self) -> bool {
        let Some(source) = &mut self.source else { return false };
        let length = self.pending.len();
        self.pending.resize(length + CHUNK, 0);
        let read = loop {
            match source.read(&mut self.pending[length..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let count = *read.as_ref().unwrap_or(&0);
        self.pending.truncate(length + count);
        self.taken += count as u64;
        if !matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock) && count == 0 {
            // Whoever feeds us comes again.
            self.source = None;
        }
        count > 0
    }
}
