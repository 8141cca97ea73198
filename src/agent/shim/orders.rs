//! What the agent may ask of a shim while a process runs, and the shim's end of the socket.
//!
//! A socket in the attempt's directory, because it outlives the agent: the next one connects again. An agent that wants to know of
//! changes says [`Order::Watch`] and is told once, when something differs from what this connection was last told. So the shim
//! rings only for those who wait, one report is on its way at most, and a reader that follows the spool needs neither inotify,
//! whose instances are few for each user, nor a look at the files again and again. That the shim is gone shows as the end of the
//! connection.
//!
//! A message is its length in one byte and postcard. A shim may be older than the agent that speaks to it: what is new comes last
//! in [`Order`], and a shim that does not know it closes the connection.

use std::{
    fs, io,
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    time::Duration,
};

use nix::poll::PollFlags;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::spec::Cause;
use crate::agent::spool::Offsets;

/// More agents at once than ever meet: the oldest connection gives way.
const MAX_VISITORS: usize = 8;

/// What an agent asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Report once, as soon as there is something new.
    Watch,
    /// The output up to here was shipped: it may be cut.
    Acked(Offsets),
    /// Keep at most this many bytes of output.
    Limit(u64),
    /// Send this signal to the process group; it means nothing to the shim.
    Signal(i32),
    /// End the process: first this signal, SIGKILL after the grace.
    Cancel {
        /// The signal.
        signal: i32,
        /// How long it then has.
        grace: Duration,
    },
    /// SIGKILL at once to everything.
    Kill,
}

/// How an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The process's id.
    pub pid: u32,
    /// Where the spool ends.
    pub spooled: Offsets,
    /// Bytes on the disk.
    pub used: u64,
    /// The most bytes on the disk.
    pub limit: u64,
    /// Why no output is taken at the moment, which blocks the process once its pipe is full.
    pub blocked: Option<Blocked>,
    /// Why the process was told to end.
    pub cause: Option<Cause>,
    /// Whether the process has ended, and what is left is its output.
    pub exited: bool,
}

/// Why no output is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blocked {
    /// The spool's limit is reached: ship and acknowledge, or raise it.
    Limit,
    /// The disk refuses, with this error; usually it is full.
    Disk {
        /// The system's error.
        errno: i32,
    },
}

/// Encodes a message.
pub(super) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = postcard::to_extend(message, vec![0]).expect("messages are plain data");
    bytes[0] = u8::try_from(bytes.len() - 1).expect("messages are short");
    bytes
}

/// Takes the first whole message from `bytes`. `Err` if it is none.
pub(super) fn take<T: DeserializeOwned>(bytes: &mut Vec<u8>) -> Result<Option<T>, postcard::Error> {
    let Some((&length, rest)) = bytes.split_first() else { return Ok(None) };
    let Some(message) = rest.get(..usize::from(length)) else { return Ok(None) };
    let message = postcard::from_bytes(message)?;
    bytes.drain(..=usize::from(length));
    Ok(Some(message))
}

/// The shim's end.
pub(super) struct Desk {
    listener: UnixListener,
    visitors: Vec<Visitor>,
}

struct Visitor {
    stream: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    watches: bool,
    told: Option<Report>,
}

impl Desk {
    /// Opens the socket `path`, in place of an earlier shim's. A socket's path is short: relative is best.
    pub fn open(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, visitors: Vec::new() })
    }

    /// What to wait for.
    pub fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let visitors = self.visitors.iter().map(|visitor| {
            let more = if visitor.outbox.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            (visitor.stream.as_fd(), PollFlags::POLLIN | more)
        });
        [(self.listener.as_fd(), PollFlags::POLLIN)].into_iter().chain(visitors)
    }

    /// Takes in who came, lets go who left, and returns what was ordered. Waits for nothing.
    pub fn hear(&mut self) -> Vec<Order> {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.visitors.len() == MAX_VISITORS {
                self.visitors.remove(0);
            }
            self.visitors.push(Visitor { stream, inbox: vec![], outbox: vec![], watches: false, told: None });
        }
        let mut orders = Vec::new();
        self.visitors.retain_mut(|visitor| visitor.hear(&mut orders).is_ok());
        orders
    }

    /// Tells `report` to those who watch and don't know it yet.
    pub fn tell(&mut self, report: &Report) {
        self.visitors.retain_mut(|visitor| visitor.tell(report).is_ok());
    }
}

impl Visitor {
    fn hear(&mut self, orders: &mut Vec<Order>) -> io::Result<()> {
        let mut bytes = [0; 512];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.inbox.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            while let Some(order) = take(&mut self.inbox).map_err(io::Error::other)? {
                match order {
                    Order::Watch => self.watches = true,
                    order => orders.push(order),
                }
            }
        }
    }

    fn tell(&mut self, report: &Report) -> io::Result<()> {
        if self.watches && self.told.as_ref() != Some(report) {
            self.watches = false;
            self.told = Some(report.clone());
            self.outbox.extend(encode(report));
        }
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(length) => drop(self.outbox.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_out_of_any_pieces() {
        let orders = [Order::Watch, Order::Limit(u64::MAX), Order::Cancel { signal: 15, grace: Duration::MAX }];
        let bytes: Vec<u8> = orders.iter().flat_map(encode).collect();
        let (mut inbox, mut got) = (Vec::new(), Vec::new());
        for byte in bytes {
            inbox.push(byte);
            got.extend(take::<Order>(&mut inbox).expect("well-formed"));
        }
        assert_eq!(got, orders);
        assert!(take::<Order>(&mut vec![1, 99]).is_err());
    }

    #[test]
    fn the_longest_report_fits() {
        let most = Offsets { stdout: u64::MAX, stderr: u64::MAX };
        let report = Report {
            pid: u32::MAX,
            spooled: most,
            used: u64::MAX,
            limit: u64::MAX,
            blocked: Some(Blocked::Disk { errno: i32::MAX }),
            cause: Some(Cause::Cancelled),
            exited: true,
        };
        assert!(encode(&report).len() < 128);
    }
}
