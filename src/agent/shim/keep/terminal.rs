//! The terminal of a process, of which the keeper holds the side that its user is at.
//!
//! An agent cannot take it over as it takes a pipe: opened through `/proc` it would be another terminal. So the keeper moves what the
//! process writes into a pipe, which the agent then reads as any other. It holds a chunk at most and takes no more while the
//! pipe is full, so that without an agent a process that writes much waits, and loses nothing.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::PollFlags,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetwinsize},
};

use crate::protocol::exec::Size;

/// How much is read at once: what the kernel buffers of a terminal.
const CHUNK: usize = 4 << 10;

/// How much is still taken when the process has ended and others hold its terminal.
const REST: usize = 64 << 10;

/// The user's side of a terminal.
pub(super) struct Terminal {
    side: File,
    /// None when everything went through it.
    pipe: Option<File>,
    /// What was read and is not in the pipe.
    pending: Vec<u8>,
    written: usize,
    /// Once only what is there now counts: how much of it at most.
    rest: Option<usize>,
}

impl Terminal {
    /// A new one, and the end of the pipe from which its output is read.
    pub fn open(size: Size) -> io::Result<(Self, OwnedFd)> {
        let side = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&side)?;
        unlockpt(&side)?;
        // So that one erase takes away one character and not one byte.
        let mut modes = tcgetattr(&side)?;
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&side, OptionalActions::Now, &modes)?;
        tcsetwinsize(&side, winsize(size))?;
        let (output, pipe) = io::pipe()?;
        let pipe = OwnedFd::from(pipe);
        for end in [&side, &pipe] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let (side, pipe) = (side.into(), Some(pipe.into()));
        Ok((Self { side, pipe, pending: Vec::new(), written: 0, rest: None }, output.into()))
    }

    /// The file that is the process's side.
    pub fn name(&self) -> io::Result<OsString> {
        Ok(OsStr::from_bytes(ptsname(&self.side, Vec::new())?.as_bytes()).to_owned())
    }

    /// Where what the user types is written to.
    pub fn input(&self) -> io::Result<OwnedFd> {
        Ok(self.side.try_clone()?.into())
    }

    /// Gives it this size. Whoever is in its foreground is told, also if that is no news: a user who just came sees nothing yet.
    pub fn resize(&self, size: Size) {
        let wanted = winsize(size);
        let is_so = |now: Winsize| (now.ws_col, now.ws_row) == (wanted.ws_col, wanted.ws_row);
        if !tcgetwinsize(&self.side).is_ok_and(is_so) {
            tcsetwinsize(&self.side, wanted).ok();
        } else if let Ok(group) = tcgetpgrp(&self.side) {
            killpg(Pid::from_raw(group.as_raw_nonzero().get()), Signal::SIGWINCH).ok();
        }
    }

    /// What to wait for; nothing when everything went through it.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let pipe = self.pipe.as_ref()?;
        let waits = self.written < self.pending.len();
        Some(if waits { (pipe.as_fd(), PollFlags::POLLOUT) } else { (self.side.as_fd(), PollFlags::POLLIN) })
    }

    /// Takes what is there now, and no more: whoever still holds it may write on. False if nothing of it is left to do.
    pub fn finish(&mut self) -> bool {
        self.rest.get_or_insert(REST);
        self.pass();
        self.pipe.is_some()
    }

    /// Moves a chunk without waiting, and not more: others wait too. Of the rest it moves all that it can.
    pub fn pass(&mut self) {
        while self.flush() {
            if !self.read() {
                // Behind what is in the pipe there is now its end.
                self.pipe = None;
            } else if self.rest.is_none() {
                self.flush();
                return;
            }
        }
    }

    /// Writes what is pending. False if the pipe is full or was closed.
    fn flush(&mut self) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        while self.written < self.pending.len() {
            match pipe.write(&self.pending[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // There is always a reader: ourselves.
                Err(_) => return false,
            }
        }
        self.pending.clear();
        self.written = 0;
        true
    }

    /// Reads a chunk. False if there is nothing any more: the last that held the other side has closed it.
    fn read(&mut self) -> bool {
        let most = self.rest.unwrap_or(CHUNK).min(CHUNK);
        self.pending.resize(most, 0);
        let read = loop {
            match self.side.read(&mut self.pending) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let length = *read.as_ref().unwrap_or(&0);
        self.pending.truncate(length);
        match (read, &mut self.rest) {
            (Ok(1..), Some(rest)) => *rest -= length,
            (Ok(1..), None) => {}
            // Nothing now.
            (Err(error), None) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return false,
        }
        true
    }
}

fn winsize(size: Size) -> Winsize {
    Winsize { ws_col: size.columns, ws_row: size.rows, ws_xpixel: 0, ws_ypixel: 0 }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    const SIZE: Size = Size { columns: 80, rows: 24 };

    fn open() -> (Terminal, File, File) {
        let (terminal, output) = Terminal::open(SIZE).expect("a terminal");
        let name = terminal.name().expect("it has a name");
        use std::os::unix::fs::OpenOptionsExt;
        let open = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(name);
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
        (terminal, open.expect("opened"), output.into())
    }

    /// What is in the pipe; the second is whether it has ended.
    fn drain(output: &mut File) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let ended = output.read_to_end(&mut bytes).is_ok();
        (bytes, ended)
    }

    #[test]
    fn what_is_written_comes_as_a_terminal_has_it_and_ends_when_the_last_closes_it() {
        let (mut terminal, mut process, mut output) = open();
        process.write_all(b"a\nb").expect("written");
        terminal.pass();
        assert_eq!(drain(&mut output), (b"a\r\nb".to_vec(), false));
        terminal.resize(Size { columns: 100, rows: 30 });
        let size = tcgetwinsize(&process).expect("a size");
        assert_eq!((size.ws_col, size.ws_row), (100, 30));
        process.write_all(b"c").expect("written");
        drop(process);
        while terminal.interest().is_some() {
            terminal.pass();
        }
        assert_eq!(drain(&mut output), (b"c".to_vec(), true));
    }

    #[test]
    fn a_full_pipe_makes_the_writer_wait_and_costs_no_byte() {
        let (mut terminal, process, mut output) = open();
        fcntl(&process, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
        let (mut process, mut sent, mut got) = (process, 0_u64, 0_u64);
        for round in 0.. {
            let written = process.write(&[b'x'; 1000]).unwrap_or(0);
            sent += written as u64;
            terminal.pass();
            if written == 0 && terminal.written < terminal.pending.len() {
                break;
            }
            assert!(round < 10_000, "it never waits");
        }
        assert!(sent > 64 << 10);
        loop {
            let (bytes, ended) = drain(&mut output);
            assert!(bytes.iter().all(|byte| *byte == b'x'));
            got += bytes.len() as u64;
            if ended {
                break;
            }
            // It is still held, and yet it ends.
            terminal.finish();
        }
        assert_eq!(got, sent);
    }
}
