//! The link as the controller uses it: a seam, so that everything above can be tried on streams in memory.

use std::{
    io,
    ops::DerefMut,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    id::AgentName,
    link::{Dismissal, Lane, LinkError, Listener, Profile, SecretHash, SendStream, Session},
    protocol::CANCELLED,
};

/// The receiving half of a stream. Dropping it before its end tells the sender to stop.
pub type BoxReader = Box<dyn AsyncRead + Send + Unpin>;

/// The sending half of a stream. Its shutdown is its end; without it, it has to be reset.
pub trait Writer: AsyncWrite + Send + Unpin {
    /// Gives the stream up: the receiver sees that what came is not all.
    fn reset(&mut self);
}

impl Writer for SendStream {
    fn reset(&mut self) {
        let _ = self.deref_mut().reset(CANCELLED.into());
    }
}

/// An authenticated session with one agent.
pub trait Peer: Send + Sync + 'static {
    /// Who authenticated.
    fn name(&self) -> &AgentName;
    /// What the agent said of itself.
    fn profile(&self) -> Profile;
    /// Opens a stream. Nothing is sent before the first byte is written.
    fn open(&self, lane: Lane) -> BoxFuture<'_, Result<(Sending, BoxReader), LinkError>>;
    /// A number that grows whenever the agent was heard.
    fn heard(&self) -> u64;
    /// Waits for the session's end.
    fn closed(&self) -> BoxFuture<'_, LinkError>;
    /// Whether it has ended.
    fn is_closed(&self) -> bool;
    /// Ends it because the agent may not have it any more.
    fn dismiss(&self, why: Dismissal);
    /// The hash of the secret by which the agent authenticated.
    fn secret(&self) -> SecretHash;
    /// How long a round trip takes.
    fn round_trip(&self) -> Duration;
}

impl Peer for Session {
    fn name(&self) -> &AgentName {
        Session::name(self)
    }

    fn profile(&self) -> Profile {
        Session::profile(self).clone()
    }

    fn open(&self, lane: Lane) -> BoxFuture<'_, Result<(Sending, BoxReader), LinkError>> {
        Box::pin(async move {
            let (send, recv) = self.open_stream(lane).await?;
            Ok((Sending::new(send), Box::new(recv) as BoxReader))
        })
    }

    fn heard(&self) -> u64 {
        Session::heard(self)
    }

    fn closed(&self) -> BoxFuture<'_, LinkError> {
        Box::pin(Session::closed(self))
    }

    fn is_closed(&self) -> bool {
        Session::is_closed(self)
    }

    fn dismiss(&self, why: Dismissal) {
        Session::dismiss(self, why);
    }

    fn secret(&self) -> SecretHash {
        Session::secret(self)
    }

    fn round_trip(&self) -> Duration {
        Session::round_trip(self)
    }
}

/// The open endpoints of all partitions.
pub trait Endpoints: Send + Sync + 'static {
    /// An agent's control partition.
    fn partition_of(&self, name: &AgentName) -> u32;
    /// How long ago the controller's own record came back from a control partition.
    fn probe_age(&self, partition: u32) -> Duration;
    /// Waits until a controller with a higher epoch, which is returned, was seen.
    fn fenced(&self) -> BoxFuture<'_, u32>;
    /// Packets that were not let through, by reason.
    fn dropped(&self) -> Vec<(&'static str, u64)>;
    /// Says goodbye to the agents. Ends within 2 s.
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl Endpoints for Listener {
    fn partition_of(&self, name: &AgentName) -> u32 {
        Listener::partition_of(self, name)
    }

    fn probe_age(&self, partition: u32) -> Duration {
        Listener::probe_age(self, partition)
    }

    fn fenced(&self) -> BoxFuture<'_, u32> {
        Box::pin(Listener::fenced(self))
    }

    fn dropped(&self) -> Vec<(&'static str, u64)> {
        Listener::dropped(self).counts()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Listener::close(self))
    }
}

/// A sending half that is reset when it is dropped before its shutdown, so that a receiver never takes a part for the
/// whole: a child must not see a clean end of its stdin because a command line was killed.
pub struct Sending {
    writer: Box<dyn Writer>,
    finished: bool,
}

impl Sending {
    /// Guards `writer`.
    pub fn new(writer: impl Writer + 'static) -> Self {
        Self { writer: Box::new(writer), finished: false }
    }
}

impl AsyncWrite for Sending {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.writer).poll_shutdown(cx);
        if let Poll::Ready(Ok(())) = result {
            self.finished = true;
        }
        result
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.finished {
            self.writer.reset();
        }
    }
}
