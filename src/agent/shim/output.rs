//! One output stream: from the process's pipe through the filter into the spool, and no byte further than the spool has room for.
//!
//! What was read is in the spool, or pending here in memory until the spool takes it: at most what one read and the
//! filter's hold-back make. A full disk therefore loses nothing, and shows to the process as a full pipe.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use ring::digest::{Context, SHA256};

use super::{filter::Filter, spec::Total};
use crate::agent::spool::{MAX_CHUNK, Stream, Writer};

/// One stream of a process.
pub(super) struct Output {
    stream: Stream,
    /// Non-blocking; none once it has ended.
    pipe: Option<File>,
    filter: Box<dyn Filter>,
    /// What passed the filter and is not in the spool yet.
    pending: Vec<u8>,
    /// When the pending bytes came.
    time: u64,
    length: u64,
    hash: Context,
    /// How much more is taken before the pipe is closed by us.
    closing: Option<usize>,
}

impl Output {
    pub fn new(stream: Stream, pipe: OwnedFd, filter: Box<dyn Filter>) -> io::Result<Self> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (pending, hash) = (Vec::new(), Context::new(&SHA256));
        Ok(Self { stream, pipe: Some(pipe.into()), filter, pending, time: 0, length: 0, hash, closing: None })
    }

    /// The pipe, if output is wanted from it: not while some of it waits for the spool.
    pub fn wanted(&self, spool: &Writer) -> Option<BorrowedFd<'_>> {
        let pipe = self.pipe.as_ref()?;
        (self.pending.is_empty() && spool.room() > 0).then(|| pipe.as_fd())
    }

    /// Whether the pipe has ended.
    pub fn has_ended(&self) -> bool {
        self.pipe.is_none()
    }

    /// Whether all of it is in the spool.
    pub fn is_spooled(&self) -> bool {
        self.has_ended() && self.pending.is_empty()
    }

    /// Whether the filter holds something back that time may free.
    pub fn holds(&self) -> bool {
        !self.has_ended() && self.filter.holds()
    }

    /// Takes what one read gives. `buffer` is room for [`MAX_CHUNK`] bytes. An error is the spool's.
    pub fn read(&mut self, buffer: &mut [u8], spool: &mut Writer) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let room = spool.room().min(self.closing.unwrap_or(usize::MAX)).min(buffer.len());
        if room == 0 || !self.pending.is_empty() {
            return Ok(());
        }
        match pipe.read(&mut buffer[..room]) {
            Ok(length @ 1..) => {
                self.filter.push(&buffer[..length], &mut self.pending);
                self.time = crate::clock::unix_ms();
                if let Some(closing) = &mut self.closing {
                    *closing -= length;
                    if *closing == 0 {
                        self.end();
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.closing.is_some() {
                    self.end();
                }
            }
            // A pipe that cannot be read has ended for us.
            Ok(0) | Err(_) => self.end(),
        }
        self.spool(spool)
    }

    /// Takes what is in the pipe now and then closes it, whoever holds its other end.
    pub fn close(&mut self) {
        if let Some(pipe) = &self.pipe {
            let capacity = fcntl(pipe, FcntlArg::F_GETPIPE_SZ).ok().and_then(|size| usize::try_from(size).ok());
            self.closing = Some(capacity.unwrap_or(MAX_CHUNK).max(1));
        }
    }

    /// Whether the pipe is about to be closed by us.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some() && !self.has_ended()
    }

    /// No more came for a while.
    pub fn idle(&mut self, spool: &mut Writer) -> io::Result<()> {
        self.filter.idle(&mut self.pending);
        self.spool(spool)
    }

    /// Puts what is pending into the spool; after an error it is still pending.
    pub fn spool(&mut self, spool: &mut Writer) -> io::Result<()> {
        let mut done = 0;
        let mut result = Ok(());
        for chunk in self.pending.chunks(MAX_CHUNK) {
            result = spool.append(self.stream, self.time, chunk);
            if result.is_err() {
                break;
            }
            self.hash.update(chunk);
            self.length += chunk.len() as u64;
            done += chunk.len();
        }
        self.pending.drain(..done);
        result
    }

    /// All of it, once it is spooled.
    pub fn total(&self) -> Total {
        let digest = self.hash.clone().finish();
        Total { length: self.length, sha256: digest.as_ref().try_into().expect("SHA-256 has 32 bytes") }
    }

    fn end(&mut self) {
        self.pipe = None;
        self.filter.finish(&mut self.pending);
        self.time = crate::clock::unix_ms();
    }
}
