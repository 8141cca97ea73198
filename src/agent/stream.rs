//! What the agent asks of a stream, so that everything above runs on QUIC streams and, in tests, on pipes in memory.

use std::{io, ops::DerefMut};

use bytes::Bytes;
use futures_util::{FutureExt, TryFutureExt, future::BoxFuture};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::link::SendStream;

/// The sending half of a stream. Shutting it down finishes it; dropping it unfinished is for the caller to avoid.
pub(super) trait SendHalf: AsyncWrite + Unpin + Send + 'static {
    /// Sends `bytes` without copying them where that can be. Not cancel-safe.
    fn send(&mut self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>>;

    /// Breaks the stream: the peer sees `code` instead of an end.
    fn reset(&mut self, code: u32);

    /// Ends when the peer has everything up to the end, or will never have it.
    fn delivered(&self) -> BoxFuture<'static, ()>;
}

/// The receiving half of a stream. Dropping it tells the peer to stop.
pub(super) trait RecvHalf: AsyncRead + Unpin + Send + 'static {}

impl<T: AsyncRead + Unpin + Send + 'static> RecvHalf for T {}

impl SendHalf for SendStream {
    fn send(&mut self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        self.write_chunk(bytes).map_err(io::Error::from).boxed()
    }

    fn reset(&mut self, code: u32) {
        // It fails only if the stream is closed already, and then the peer knows.
        self.deref_mut().reset(code.into()).ok();
    }

    fn delivered(&self) -> BoxFuture<'static, ()> {
        self.stopped().map(|_| ()).boxed()
    }
}

/// The two halves of a stream whose kind no longer matters.
pub(super) struct Duplex {
    pub send: Box<dyn SendHalf>,
    pub recv: Box<dyn RecvHalf>,
}

/// Whether `error` says that the peer closed its end on purpose; anything else means that bytes may be lost.
pub(super) fn peer_stopped(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
