//! The pumps between a process's pipes and its streams: one direction each, bounded, with backpressure.
//!
//! A pump holds at most [`CHUNK`] bytes and reads the next only when the last went out. So a reader that is slow fills
//! the stream's window, then the pipe, and then blocks the process.

use std::{os::fd::AsFd, time::Duration};

use bytes::BytesMut;
use nix::fcntl::{FcntlArg, fcntl};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
};

use super::stream::{RecvHalf, SendHalf, peer_stopped};

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

/// Output: from `pipe` to `stream`, whose end follows that of the pipe. Once `exited`, silence ends it as well.
/// The pipe is closed when the stream's reader stops, so that the process notices.
pub(super) async fn output(
    mut pipe: impl AsyncRead + Unpin,
    stream: &mut Box<dyn SendHalf>,
    mut exited: watch::Receiver<bool>,
) -> Pumped {
    let mut buffer = BytesMut::new();
    loop {
        if buffer.capacity() - buffer.len() < SHORT {
            buffer.reserve(CHUNK);
        }
        let read = tokio::select! {
            biased;
            read = pipe.read_buf(&mut buffer) => read,
            () = lingered(&mut exited) => Ok(0),
        };
        // A pipe that cannot be read any more has ended for us.
        if read.unwrap_or(0) == 0 {
            break;
        }
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
/// At a loss the pipe is *not* closed before the caller lets go of it: the process must not take what it has for all.
pub(super) async fn input<P: AsyncWrite + Unpin>(mut stream: Box<dyn RecvHalf>, mut pipe: P) -> (Pumped, Option<P>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match stream.read_buf(&mut buffer).await {
            Ok(0) => return (Pumped::Done, None),
            Ok(_) => {}
            Err(error) => return (Pumped::Lost(error), Some(pipe)),
        }
        if pipe.write_all_buf(&mut buffer).await.is_err() {
            return (Pumped::Done, None);
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
