//! A process's stdio as its holder gets it: it tells the agent how far output may run, and waits for the agent's word on
//! stdin.
//!
//! Nothing is buffered here. What was read allows the agent more; what may not be written yet is not taken.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};

use super::peer::{BoxReader, Sending};
use crate::protocol::allowance::{Budget, INITIAL, Window};

/// An output that counts what is read of it. Its budget is given back at its end.
struct Metered {
    inner: BoxReader,
    /// None when nothing can come any more.
    window: Option<Window>,
    limit: watch::Sender<u64>,
}

/// Meters an output; the receiver has the newest limit that the agent is to be told.
pub(super) fn metered(inner: BoxReader, budget: &Budget) -> (BoxReader, watch::Receiver<u64>) {
    let (limit, limits) = watch::channel(INITIAL);
    let window = Some(Window::new(budget));
    (Box::new(Metered { inner, window, limit }), limits)
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        let read = buf.filled().len() - before;
        let ended = result.is_err() || (read == 0 && buf.remaining() > 0);
        if ended {
            self.window = None;
        } else if let Some(up_to) = self.window.as_mut().and_then(|window| window.consume(read as u64)) {
            self.limit.send_replace(up_to);
        }
        Poll::Ready(result)
    }
}

/// A process's stdin. Its shutdown is the end; dropped without it, it is reset, and the process is not made to believe
/// that the end came.
///
/// Writing waits while the process does not read. When the process has ended, or closed its stdin, writing waits no more
/// and fails as soon as that is known.
pub struct Stdin {
    inner: Sending,
    sent: u64,
    limit: Arc<Limit>,
}

/// How far stdin may run.
struct Limit {
    up_to: AtomicU64,
    waiting: AtomicWaker,
}

/// Moves the limit of a [`Stdin`]. Its drop takes the limit away: nobody is left who could move it.
pub(super) struct Allow(Arc<Limit>);

impl Stdin {
    pub(super) fn new(inner: Sending) -> (Self, Allow) {
        let limit = Arc::new(Limit { up_to: AtomicU64::new(INITIAL), waiting: AtomicWaker::new() });
        (Self { inner, sent: 0, limit: limit.clone() }, Allow(limit))
    }
}

impl Allow {
    /// Lets it run up to this many bytes in total; never back.
    pub fn up_to(&self, bytes: u64) {
        self.0.up_to.fetch_max(bytes, Ordering::Release);
        self.0.waiting.wake();
    }
}

impl Drop for Allow {
    fn drop(&mut self) {
        self.up_to(u64::MAX);
    }
}

impl Limit {
    /// How much of `wanted` may follow on `sent`; at least one byte, unless none is wanted.
    fn poll_room(&self, cx: &mut Context<'_>, sent: u64, wanted: usize) -> Poll<usize> {
        let room = || {
            let left = self.up_to.load(Ordering::Acquire).saturating_sub(sent);
            wanted.min(usize::try_from(left).unwrap_or(usize::MAX))
        };
        if wanted == 0 {
            return Poll::Ready(0);
        }
        if room() == 0 {
            self.waiting.register(cx.waker());
        }
        // Looked at again: it may have moved between the look and the registration.
        match room() {
            0 => Poll::Pending,
            room => Poll::Ready(room),
        }
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let room = ready!(self.limit.poll_room(cx, self.sent, buf.len()));
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &buf[..room]))?;
        self.sent = self.sent.saturating_add(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
