//! The streams of a user who is there, and the pumps between them and what is kept.

use std::{
    fs::File,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, unix::AsyncFd},
    net::UnixStream,
    sync::watch,
};

use super::{
    super::{
        events::Events,
        pump::CHUNK,
        stream::{Duplex, RecvHalf, SendHalf},
    },
    retained::{Drained, Retained},
};
use crate::{
    frame::Incoming,
    protocol::{
        CANCELLED,
        allowance::{INITIAL, Window},
        exec::{CONFIRM, Channel, Event, Refusal, Steer},
    },
};

/// How much of a pipe is taken at once.
const PIECE: usize = 256 << 10;

/// Where a user goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// With the first byte of a new process.
    Start,
    /// With what it misses of one that runs.
    Later {
        /// The bytes of stdout and stderr that it has; a new user does not know.
        has: Option<[u64; 2]>,
    },
}

/// Streams that a controller opened for an execution.
pub(super) struct Attachment {
    pub events: Events,
    pub orders: Incoming<Box<dyn RecvHalf>, Steer>,
    pub stdin: Box<dyn RecvHalf>,
    pub outputs: [Box<dyn SendHalf>; 2],
    /// Which user it is.
    pub user: u32,
    /// Where it goes on.
    pub from: From,
    /// Of stderr's stream nothing is read.
    _err: Box<dyn RecvHalf>,
}

impl Attachment {
    pub fn new(
        send: Box<dyn SendHalf>,
        orders: Incoming<Box<dyn RecvHalf>, Steer>,
        in_out: Duplex,
        err: Duplex,
        user: u32,
        from: From,
    ) -> Self {
        let outputs = [in_out.send, err.send];
        Self { events: Events::new(send), orders, stdin: in_out.recv, outputs, user, from, _err: err.recv }
    }

    /// Tells its controller why it is the end of it, though not of the execution.
    pub async fn refuse(mut self, why: &str) {
        let event = Event::Refused(Refusal::Gone(why.to_owned()));
        if self.events.say(&event).await.is_ok() {
            let _ = self.events.finish().await;
        }
    }

    /// Lets it go so that its controller sees that it is not the end.
    pub fn reset(mut self) {
        self.events.reset(CANCELLED);
        self.outputs.iter_mut().for_each(|stream| stream.reset(CANCELLED));
    }
}

/// What a controller said of each output.
pub(super) struct Limits {
    /// How far it may run on the streams at hand.
    pub allowed: [watch::Sender<u64>; 2],
    /// What the user has.
    pub acked: [watch::Sender<u64>; 2],
}

impl Limits {
    pub fn new(acked: [u64; 2]) -> Self {
        Self {
            allowed: [watch::Sender::new(INITIAL), watch::Sender::new(INITIAL)],
            acked: acked.map(watch::Sender::new),
        }
    }

    pub fn allow(&self, channel: Channel, up_to: u64) {
        raise(&self.allowed[index(channel)], up_to);
    }

    pub fn ack(&self, channel: Channel, up_to: u64) {
        raise(&self.acked[index(channel)], up_to);
    }
}

fn index(channel: Channel) -> usize {
    match channel {
        Channel::InOut => 0,
        Channel::Err => 1,
    }
}

fn raise(limit: &watch::Sender<u64>, up_to: u64) {
    limit.send_if_modified(|limit| {
        let further = up_to > *limit;
        *limit = up_to.max(*limit);
        further
    });
}

/// Output: from what is kept and from `pipe` to `stream`, from byte `at` on, to its end. Cancel-safe in that nothing of what is kept
/// is lost. An error: the stream is lost.
pub(super) async fn output(
    kept: &mut Retained,
    pipe: Option<&AsyncFd<File>>,
    stream: &mut Box<dyn SendHalf>,
    mut at: u64,
    (mut allowed, mut acked): (watch::Receiver<u64>, watch::Receiver<u64>),
    mut exited: watch::Receiver<bool>,
) -> io::Result<()> {
    let begin = at;
    let mut unread = stream.delivered();
    loop {
        kept.ack(*acked.borrow_and_update());
        if at < kept.end() {
            let sent = at - begin;
            let up_to = tokio::select! {
                biased;
                up_to = allowed.wait_for(|up_to| *up_to > sent) => up_to.map_or(u64::MAX, |up_to| *up_to),
                () = &mut unread => return Err(io::ErrorKind::BrokenPipe.into()),
            };
            let room = usize::try_from(up_to - sent).unwrap_or(usize::MAX);
            let bytes = kept.read(at, room.min(CHUNK))?;
            let length = bytes.len() as u64;
            stream.send(bytes).await?;
            at += length;
            continue;
        }
        let Some(pipe) = pipe.filter(|_| !kept.ended) else { break };
        if *exited.borrow() {
            // What is not there now will not be read: its writer outlived the process.
            let room = kept.has_room();
            if !room || !matches!(kept.take_now(pipe, PIECE), Ok(Drained::Some(_))) {
                kept.ended = room;
            }
            if room {
                continue;
            }
        }
        let has_room = kept.has_room();
        tokio::select! {
            biased;
            taken = kept.take(pipe, PIECE), if has_room => {
                // A pipe that cannot be read has ended for us.
                kept.ended = !matches!(taken, Ok(Drained::Some(_)));
            }
            changed = acked.changed(), if !has_room => {
                changed.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            }
            changed = exited.changed(), if has_room => {
                changed.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            }
            () = &mut unread => return Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
    stream.shutdown().await
}

/// How stdin ended.
#[derive(Debug)]
pub(super) enum StdinEnd {
    /// All of it went to the keeper.
    Whole,
    /// The process takes no more.
    Closed,
    /// The stream is lost.
    Lost(io::Error),
}

/// What is said of stdin.
pub(super) struct StdinTold {
    /// How far it may run on the stream at hand.
    pub allow: watch::Sender<u64>,
    /// What need not be sent again.
    pub confirm: watch::Sender<u64>,
}

/// Stdin: from `stream` to the keeper. `taken` is exact whenever this is dropped.
pub(super) async fn stdin(
    stream: &mut Box<dyn RecvHalf>,
    keeper: &mut UnixStream,
    taken: &AtomicU64,
    mut window: Window,
    told: &StdinTold,
) -> StdinEnd {
    let mut buffer = BytesMut::new();
    let mut confirmed = taken.load(Ordering::Relaxed);
    loop {
        buffer.reserve(CHUNK);
        match stream.read_buf(&mut buffer).await {
            Ok(0) => return StdinEnd::Whole,
            Ok(_) => {}
            Err(error) => return StdinEnd::Lost(error),
        }
        while !buffer.is_empty() {
            let written = match keeper.write_buf(&mut buffer).await {
                Ok(written @ 1..) => written as u64,
                Ok(0) | Err(_) => return StdinEnd::Closed,
            };
            let total = taken.fetch_add(written, Ordering::Relaxed) + written;
            if let Some(up_to) = window.consume(written) {
                told.allow.send_replace(up_to);
            }
            if total - confirmed >= CONFIRM {
                confirmed = total;
                told.confirm.send_replace(total);
            }
        }
    }
}
