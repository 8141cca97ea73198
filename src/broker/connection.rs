//! One connection: TLS if configured, frames in, answers out, one request at a time and in order, as Kafka does.
//!
//! Memory follows what has arrived, not what a length announces; before authentication a frame may hold 64 KiB. A
//! request that waits (a parked fetch) ends when its client hangs up.

use super::authorizer::Client;
use super::request::{self, Outcome};
use super::sasl::Exchange;
use super::server::Shared;
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

/// Largest frame of an authenticated client: Kafka's `socket.request.max.bytes`.
pub(crate) const LARGEST_FRAME: usize = 100 << 20;
/// Largest frame of a client that has not authenticated.
const LARGEST_FRAME_BEFORE: usize = 64 << 10;
/// The buffer grows by at least this, and at most to twice what has arrived.
const GROWTH: usize = 1 << 20;
/// So much may arrive behind a request that is still being answered.
const AHEAD: usize = 256 << 10;
/// A refused client hears of it after this, so that guessing passwords is slow.
const DENIED_PAUSE: Duration = Duration::from_millis(100);
/// A client that reads nothing for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How far a client has come.
pub(crate) enum Auth {
    /// Must name a mechanism.
    Expected,
    /// Is proving who it is.
    Proving(Exchange),
    /// Is known, or need not be.
    Done(Client),
}

/// Why a connection ended other than by the client's wish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
    #[error("not authenticated in time")]
    Slow,
    #[error("nothing arrived for too long")]
    Idle,
    #[error("frame of {0} bytes is too large{hint}", hint = if looks_like_tls(*.0) { ": the client speaks TLS, this listener does not" } else { "" })]
    TooLarge(usize),
    #[error(transparent)]
    Request(#[from] request::RequestError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A TLS client's first bytes, read as a length.
fn looks_like_tls(size: usize) -> bool {
    size >> 16 == 0x1603
}

/// Serves one connection until either side ends it.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) -> Result<(), ConnectionError> {
    let deadline = Instant::now() + shared.config.handshake_timeout;
    stream.set_nodelay(true)?;
    let Some(tls) = &shared.config.listener.tls else {
        return converse(stream, peer, shared, deadline).await;
    };
    let accepting = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
    let stream = timeout_at(deadline, accepting).await.map_err(|_| ConnectionError::Slow)?;
    converse(stream.map_err(ConnectionError::Tls)?, peer, shared, deadline).await
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    deadline: Instant,
) -> Result<(), ConnectionError> {
    let mut frames = Frames { stream, buffer: BytesMut::new() };
    let host = peer.ip();
    let mut auth = if shared.must_authenticate() { Auth::Expected } else { Auth::Done(Client::anonymous(host)) };
    while !matches!(auth, Auth::Done(_)) {
        let next = timeout_at(deadline, frames.next(LARGEST_FRAME_BEFORE));
        let Some(frame) = next.await.map_err(|_| ConnectionError::Slow)?? else { return Ok(()) };
        match request::handle(shared, host, &mut auth, frame).await? {
            Outcome::Reply(reply) => frames.send(reply).await?,
            Outcome::Silent => {}
            Outcome::Denied { reply, why } => {
                tracing::warn!(%peer, "{why}");
                tokio::time::sleep(DENIED_PAUSE).await;
                return frames.send(reply).await;
            }
        }
    }
    loop {
        let next = timeout(shared.config.idle_timeout, frames.next(LARGEST_FRAME));
        let Some(frame) = next.await.map_err(|_| ConnectionError::Idle)?? else { return Ok(()) };
        let outcome = tokio::select! {
            biased;
            outcome = request::handle(shared, host, &mut auth, frame) => outcome?,
            ended = frames.hangup() => return ended,
        };
        match outcome {
            Outcome::Reply(reply) | Outcome::Denied { reply, .. } => frames.send(reply).await?,
            Outcome::Silent => {}
        }
    }
}

struct Frames<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// The next frame without its length; none at the end.
    async fn next(&mut self, largest: usize) -> Result<Option<Bytes>, ConnectionError> {
        loop {
            let missing = match self.buffer.first_chunk::<4>() {
                None => 4,
                Some(length) => {
                    let size = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                    if size > largest {
                        return Err(ConnectionError::TooLarge(size));
                    }
                    if self.buffer.len() >= 4 + size {
                        let frame = self.buffer.split_to(4 + size).freeze();
                        return Ok(Some(frame.slice(4..)));
                    }
                    4 + size - self.buffer.len()
                }
            };
            self.buffer.reserve(missing.min(GROWTH.max(self.buffer.len())));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }

    /// Completes when the client hangs up. Keeps what arrives meanwhile, up to a bound.
    async fn hangup(&mut self) -> Result<(), ConnectionError> {
        while self.buffer.len() < AHEAD {
            self.buffer.reserve(4096);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(());
            }
        }
        std::future::pending().await
    }

    async fn send(&mut self, reply: BytesMut) -> Result<(), ConnectionError> {
        let sending = async {
            self.stream.write_all(&reply).await?;
            self.stream.flush().await
        };
        timeout(WRITE_TIMEOUT, sending).await.map_err(|_| ConnectionError::Idle)?.map_err(Into::into)
    }
}
