//! Streams as the layers above hold them: quinn's, and a lease that keeps the lane open while they live.

use std::{
    io,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};

/// Counts the streams of a lane.
#[derive(Debug, Clone)]
pub(super) struct Lease(#[allow(dead_code, reason = "held for its drop")] Arc<Counted>);

#[derive(Debug)]
struct Counted(Arc<watch::Sender<usize>>);

impl Lease {
    /// One more stream, until the last clone is dropped.
    pub fn new(streams: &Arc<watch::Sender<usize>>) -> Self {
        streams.send_modify(|n| *n += 1);
        Self(Arc::new(Counted(streams.clone())))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// The sending half of a stream. Derefs to quinn's, for `finish`, `reset`, `stopped` and priorities.
#[derive(Debug)]
pub struct SendStream {
    inner: quinn::SendStream,
    _lease: Option<Lease>,
}

/// The receiving half of a stream. Derefs to quinn's, for `read_chunk` and `stop`.
#[derive(Debug)]
pub struct RecvStream {
    inner: quinn::RecvStream,
    _lease: Option<Lease>,
}

pub(super) fn wrap(
    (send, recv): (quinn::SendStream, quinn::RecvStream),
    lease: Option<Lease>,
) -> (SendStream, RecvStream) {
    (SendStream { inner: send, _lease: lease.clone() }, RecvStream { inner: recv, _lease: lease })
}

impl Deref for SendStream {
    type Target = quinn::SendStream;

    fn deref(&self) -> &quinn::SendStream {
        &self.inner
    }
}

impl DerefMut for SendStream {
    fn deref_mut(&mut self) -> &mut quinn::SendStream {
        &mut self.inner
    }
}

impl Deref for RecvStream {
    type Target = quinn::RecvStream;

    fn deref(&self) -> &quinn::RecvStream {
        &self.inner
    }
}

impl DerefMut for RecvStream {
    fn deref_mut(&mut self) -> &mut quinn::RecvStream {
        &mut self.inner
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.inner), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.inner), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.inner), cx)
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.inner), cx, buf)
    }
}
