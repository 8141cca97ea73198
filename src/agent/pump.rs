//! The pumps between a process's pipes and its streams: one direction each, bounded, with backpressure.
//!
//! A pump holds at most [`CHUNK`] bytes and reads the next only when the last went out. So a reader that is slow uses up
//! what the pump may send, fills the pipe, and then blocks the process. The other way round, the pump allows what the
//! process has taken.

use std::{os::fd::AsFd, time::Duration};

use bytes::{BufMut, BytesMut};
use futures_util::future::BoxFuture;
use nix::fcntl::{FcntlArg, fcntl};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
};

use super::stream::{RecvHalf, SendHalf, peer_stopped};
use crate::protocol::allowance::Window;

/// How much a pump reads at once.
pub(super) const CHUNK: usize = 128 << 10;

/// Room that is worth another read.
const SHORT: usize = 16 << 10;

/// What we ask the kernel to buffer in a pipe, so that process and pump switch less often. It is a wish: users other
/// than root have a limit on all their pipes together.
pub(super) const PIPE: i32 = 1 << 20;

/// How long an exited process's pipe may be silent if something else, a process in the background, still holds it.
const LINGER: Duration = Duration::from_millis(500);

/// How a pump ended.
#[derive(Debug)]
pub(super) enum Pumped {
    /// Everything that will come went through, or whoever reads has had enough.
    Done,
    /// The stream is lost, and bytes with it.
    Lost(std::io::Error),
}

/// Widens a pipe.
pub(super) fn widen(pipe: &impl AsFd) {
    fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE)).ok();
}

/// How far an output may run.
pub(super) struct Allowance {
    /// In bytes from the start.
    up_to: watch::Receiver<u64>,
    sent: u64,
    /// Ends when nobody reads the stream any more; then the limit means nothing.
    unread: BoxFuture<'static, ()>,
}

impl Allowance {
    fn new(up_to: watch::Receiver<u64>, stream: &dyn SendHalf) -> Self {
        Self { up_to, sent: 0, unread: stream.delivered() }
    }

    /// Waits until something may be sent, and says how much.
    async fn room(&mut self) -> usize {
        let sent = self.sent;
        let up_to = tokio::select! {
            biased;
            up_to = self.up_to.wait_for(|up_to| *up_to > sent) => up_to.ok().map(|up_to| *up_to),
            () = &mut self.unread => None,
        };
        // Without a limit sending itself tells what happened: nobody reads, or nobody is there.
        let up_to = up_to.unwrap_or_else(|| {
            self.up_to = watch::channel(u64::MAX).1;
            u64::MAX
        });
        usize::try_from(up_to - sent).unwrap_or(usize::MAX)
    }

    fn note(&mut self, sent: usize) {
        self.sent = self.sent.saturating_add(sent as u64);
    }
}

/// Output: from `pipe` to `stream` as far as it may run, whose end follows that of the pipe. Once `exited`, silence ends
/// it as well. The pipe is closed when the stream's reader stops, so that the process notices.
pub(super) async fn output(
    mut pipe: impl AsyncRead + Unpin,
    stream: &mut Box<dyn SendHalf>,
    allowed: watch::Receiver<u64>,
    mut exited: watch::Receiver<bool>,
) -> Pumped {
    let mut allowance = Allowance::new(allowed, &**stream);
    let mut buffer = BytesMut::new();
    loop {
        // Before reading: what waits for a slow reader waits in the pipe, and blocks the process.
        let room = allowance.room().await;
        if buffer.capacity() - buffer.len() < SHORT {
            buffer.reserve(CHUNK);
        }
        let mut part = (&mut buffer).limit(room);
        let read = tokio::select! {
            biased;
            read = pipe.read_buf(&mut part) => read,
            () = lingered(&mut exited) => Ok(0),
        };
        // A pipe that cannot be read any more has ended for us.
        if read.unwrap_or(0) == 0 {
            break;
        }
        allowance.note(buffer.len());
        // What the stream holds on to shares our buffer, which is why it is used up before there is a new one.
        if let Err(error) = stream.send(buffer.split().freeze()).await {
            return stopped(error);
        }
    }
    match stream.shutdown().await {
        Ok(()) => Pumped::Done,
        Err(error) => stopped(error),
    }
}

/// Input: from `stream` to `pipe`, which is closed at the stream's end. A process that closes its stdin early ends it.
/// What the process took is allowed to the sender by `allow`, and everything once it takes no more: a sender that
/// waits is to see that its stream was stopped.
/// At a loss the pipe is *not* closed before the caller lets go of it: the process must not take what it has for all.
pub(super) async fn input<P: AsyncWrite + Unpin>(
    mut stream: Box<dyn RecvHalf>,
    mut pipe: P,
    mut window: Window,
    allow: watch::Sender<u64>,
) -> (Pumped, Option<P>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let read = match stream.read_buf(&mut buffer).await {
            Ok(0) => return (Pumped::Done, None),
            Ok(read) => read,
            Err(error) => return (Pumped::Lost(error), Some(pipe)),
        };
        if pipe.write_all_buf(&mut buffer).await.is_err() {
            drop(stream);
            allow.send_replace(u64::MAX);
            return (Pumped::Done, None);
        }
        if let Some(up_to) = window.consume(read as u64) {
            allow.send_replace(up_to);
        }
    }
}

async fn lingered(exited: &mut watch::Receiver<bool>) {
    if exited.wait_for(|exited| *exited).await.is_err() {
        // Nobody will say any more that it exited: its owner is about to drop us.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(LINGER).await;
}

fn stopped(error: std::io::Error) -> Pumped {
    if peer_stopped(&error) { Pumped::Done } else { Pumped::Lost(error) }
}
