//! Remote method invocation: [`remoc`]'s remote traits, channels and functions on a service's stream.
//!
//! The service hands a client of its trait to each caller. A call that its caller drops, also by [`within`], is cancelled on the
//! other side; a stream that breaks ends all its calls with [`Error::NoAnswer`].

use std::{
    io,
    pin::Pin,
    task::{Context as Poller, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, Sink, Stream, TryStreamExt, future::BoxFuture};
use remoc::{Connect, RemoteSend, rch::base, rtc::CallError};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::{Channel, Context, Ending, Failure, Outcome, Service, Writer};

pub use remoc;

/// How a call ended that did not end well. Exactly one of these; `E` is the service's own error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error<E> {
    /// The service says that it could not.
    #[error(transparent)]
    Remote(E),
    /// Nobody knows: the agent or the way is gone.
    #[error("there is no answer: {0}")]
    NoAnswer(String),
    /// The caller gave it up, or its time was over; it was stopped on the other side.
    #[error("the call was cancelled")]
    Cancelled,
}

impl<E> From<CallError> for Error<E> {
    fn from(error: CallError) -> Self {
        Self::NoAnswer(error.to_string())
    }
}

/// Waits for a call no longer than `deadline`; then it is [`Error::Cancelled`], here and on the other side.
pub async fn within<T, E>(deadline: Duration, call: impl Future<Output = Result<T, Error<E>>>) -> Result<T, Error<E>> {
    tokio::time::timeout(deadline, call).await.unwrap_or(Err(Error::Cancelled))
}

/// A service that makes a client for each caller, and a future that serves it until all copies of the client are gone.
pub fn service<C, F, W>(make: F) -> impl Service
where
    C: RemoteSend,
    F: Fn(Context) -> (C, W) + Send + Sync + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    move |context: Context, channel: Channel| -> BoxFuture<'static, Result<(), Failure>> {
        let (client, served) = make(context);
        async move {
            let (sink, stream) = framed(channel);
            let connect = Connect::framed(remoc::Cfg::default(), sink, stream);
            let (connection, mut clients, _none): (_, base::Sender<C>, base::Receiver<()>) =
                connect.await.map_err(|e| Failure::new(format!("the caller speaks no RMI: {e}")))?;
            let serve = async {
                clients.send(client).await.map_err(|e| Failure::new(format!("the caller took no client: {e}")))?;
                served.await;
                Ok(())
            };
            tokio::select! {
                biased;
                served = serve => served,
                ended = connection => ended.map_err(|e| Failure::new(format!("the stream broke: {e}"))),
            }
        }
        .boxed()
    }
}

/// A client of a remote trait, and the stream that carries its calls. Dropped, the stream is given up.
pub struct Remote<C> {
    /// What calls are made on.
    pub client: C,
    connection: JoinHandle<()>,
    _ending: Ending,
}

impl<C> Drop for Remote<C> {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Takes the client that the service behind a stream hands out. An error says how the stream ended instead.
pub async fn connect<C: RemoteSend>(channel: Channel, mut ending: Ending) -> Result<Remote<C>, Outcome> {
    let connect = async {
        let (sink, stream) = framed(channel);
        let connect = Connect::framed(remoc::Cfg::default(), sink, stream);
        let (connection, _none, mut clients): (_, base::Sender<()>, base::Receiver<C>) =
            connect.await.map_err(|e| e.to_string())?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a stream with remote methods broke");
            }
        });
        match clients.recv().await {
            Ok(Some(client)) => Ok((client, connection)),
            Ok(None) => Err("the service hands out no client".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    };
    match connect.await {
        Ok((client, connection)) => Ok(Remote { client, connection, _ending: ending }),
        // The outcome is the better word, if there is one: a refusal, a session that ended.
        Err(error) => Err(match tokio::time::timeout(LAST_WORD, ending.outcome()).await {
            Ok(outcome) if outcome != Outcome::Done => outcome,
            _ => Outcome::NoAnswer(error),
        }),
    }
}

/// How long the outcome of a stream that broke is waited for.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The most that a message of remoc has on the stream: a chunk and what stands before it, well above both.
const MAX_FRAME: usize = 1 << 20;

/// Messages on a service's stream, each behind its length.
fn framed(channel: Channel) -> (Eager, impl Stream<Item = io::Result<Bytes>> + Send + Sync + Unpin) {
    let codec = || LengthDelimitedCodec::builder().little_endian().max_frame_length(MAX_FRAME).new_codec();
    let sink = Eager(FramedWrite::new(channel.writer, codec()));
    (sink, FramedRead::new(channel.reader, codec()).map_ok(bytes::BytesMut::freeze))
}

/// Hands each message to the stream at once, as far as there is room. remoc flushes what was fed only after 20 ms in which
/// nothing else came, which each call and each answer would wait for; the stream itself gathers what comes together.
struct Eager(FramedWrite<Writer, LengthDelimitedCodec>);

impl Sink<Bytes> for Eager {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Sink::<Bytes>::poll_ready(Pin::new(&mut self.0), cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Bytes) -> io::Result<()> {
        let mut frames = Pin::new(&mut self.0);
        frames.as_mut().start_send(message)?;
        // What finds no room now goes with the next message or flush, which are waited for.
        match Sink::<Bytes>::poll_flush(frames, &mut Poller::from_waker(Waker::noop())) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Sink::<Bytes>::poll_flush(Pin::new(&mut self.0), cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Sink::<Bytes>::poll_close(Pin::new(&mut self.0), cx)
    }
}
