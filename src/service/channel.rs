//! A stream of bytes in both directions with credits, on any transport that carries frames:
//! [`protocol::service`](crate::protocol::service) has them.
//!
//! One task drives a channel: it reads frames as they come, which never waits for the channel's user because credits bound
//! what may come, and writes what is due. So a stream that nobody reads holds up neither its transport nor what its own
//! other direction says.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use crate::{
    protocol::{
        allowance::{Budget, INITIAL, Window},
        service::{ALLOW, DATA, END, MAX_PAYLOAD, OUTCOME, Outcome, RESET, STOP},
    },
    tagged::{TaggedReader, TaggedWriter},
};

/// What is written at once at most, and waits at most to be written.
const WAITING: usize = 2 * MAX_PAYLOAD;

/// Pieces below this size are copied together.
const SMALL: usize = 4 << 10;

/// Bytes in both directions.
pub struct Channel {
    /// What the other side sends.
    pub reader: Reader,
    /// What is sent to it.
    pub writer: Writer,
}

/// The bytes that the other side sends. Its end is the end of all of them; bytes that broke off are an error.
/// Dropped before its end it tells the other side to stop.
pub struct Reader(Arc<Shared>);

/// Bytes to the other side. Its shutdown is their end; dropped without it, the other side sees that they are not all.
pub struct Writer(Arc<Shared>);

/// How a stream ends that was opened. When all parts of it are dropped before, it is given up.
pub struct Ending {
    outcome: oneshot::Receiver<Outcome>,
    shared: Arc<Shared>,
}

struct Shared(Mutex<State>);

struct State {
    /// What came and was not read. Small pieces, which come after it, are put together: each would cost more than it carries.
    chunks: VecDeque<Bytes>,
    small: BytesMut,
    window: Option<Window>,
    /// What may have come in total.
    allowed: u64,
    received: u64,
    incoming: Incoming,
    reader: Option<Waker>,
    /// What waits to be written.
    out: BytesMut,
    sent: u64,
    /// What may be sent in total.
    limit: u64,
    outgoing: Outgoing,
    writer: Option<Waker>,
    due: Due,
    driver: Option<Waker>,
    /// Parts that are held by the user.
    parts: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Incoming {
    Open,
    Ended,
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outgoing {
    Open,
    /// The end or the break is to be told when what waits is written.
    Ending(u8),
    /// It was told, or the other side reads no more.
    Closed,
}

/// What is to be told beside the bytes.
#[derive(Default)]
struct Due {
    allow: Option<u64>,
    stop: bool,
}

/// What the driver writes next.
enum Next {
    Frame(u8, Bytes),
    /// The user is gone, or the direction is closed and nothing is due.
    Abandoned,
}

impl Shared {
    fn new(budget: &Budget, parts: u8) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            chunks: VecDeque::new(),
            small: BytesMut::new(),
            window: Some(Window::new(budget)),
            allowed: INITIAL,
            received: 0,
            incoming: Incoming::Open,
            reader: None,
            out: BytesMut::new(),
            sent: 0,
            limit: INITIAL,
            outgoing: Outgoing::Open,
            writer: None,
            due: Due::default(),
            driver: None,
            parts,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_part(&self) {
        let mut state = self.state();
        state.parts -= 1;
        wake(&mut state.driver);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl State {
    /// Takes a frame that came. An error if the other side breaks the protocol.
    fn take(&mut self, kind: u8, payload: Bytes) -> Result<(), &'static str> {
        match kind {
            DATA => {
                self.received = self.received.saturating_add(payload.len() as u64);
                if self.received > self.allowed {
                    return Err("more bytes than were allowed");
                }
                // Without a window nobody reads any more.
                if self.incoming == Incoming::Open && self.window.is_some() && !payload.is_empty() {
                    self.put(payload);
                    wake(&mut self.reader);
                }
            }
            END | RESET => {
                if self.incoming == Incoming::Open {
                    self.incoming = if kind == END { Incoming::Ended } else { Incoming::Broken };
                }
                wake(&mut self.reader);
            }
            ALLOW => {
                let total: [u8; 8] = payload[..].try_into().map_err(|_| "a limit of another size")?;
                self.limit = self.limit.max(u64::from_le_bytes(total));
                wake(&mut self.writer);
            }
            STOP => self.stopped(),
            _ => return Err("a frame of a kind that is not known"),
        }
        Ok(())
    }

    fn put(&mut self, payload: Bytes) {
        if payload.len() < SMALL {
            return self.small.extend_from_slice(&payload);
        }
        if !self.small.is_empty() {
            self.chunks.push_back(self.small.split().freeze());
        }
        self.chunks.push_back(payload);
    }

    /// The other side reads no more.
    fn stopped(&mut self) {
        self.outgoing = Outgoing::Closed;
        self.out.clear();
        wake(&mut self.writer);
    }

    /// The transport is gone.
    fn broken(&mut self) {
        if self.incoming == Incoming::Open {
            self.incoming = Incoming::Broken;
        }
        wake(&mut self.reader);
        self.stopped();
    }

    fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Next> {
        if let Some(total) = self.due.allow.take() {
            return Poll::Ready(Next::Frame(ALLOW, Bytes::copy_from_slice(&total.to_le_bytes())));
        }
        if std::mem::take(&mut self.due.stop) {
            return Poll::Ready(Next::Frame(STOP, Bytes::new()));
        }
        if !self.out.is_empty() {
            let part = self.out.len().min(MAX_PAYLOAD);
            let bytes = self.out.split_to(part).freeze();
            wake(&mut self.writer);
            return Poll::Ready(Next::Frame(DATA, bytes));
        }
        if let Outgoing::Ending(kind) = self.outgoing {
            self.outgoing = Outgoing::Closed;
            return Poll::Ready(Next::Frame(kind, Bytes::new()));
        }
        if self.parts == 0 {
            return Poll::Ready(Next::Abandoned);
        }
        self.driver = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state();
        let state = &mut *state;
        if state.chunks.is_empty() && !state.small.is_empty() {
            state.chunks.push_back(state.small.split().freeze());
        }
        let Some(chunk) = state.chunks.front_mut() else {
            return match state.incoming {
                Incoming::Ended => Poll::Ready(Ok(())),
                Incoming::Broken => {
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the other side broke off")))
                }
                Incoming::Open => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        let part = chunk.len().min(buf.remaining());
        buf.put_slice(&chunk[..part]);
        chunk.advance(part);
        if chunk.is_empty() {
            state.chunks.pop_front();
        }
        if let Some(total) = state.window.as_mut().and_then(|window| window.consume(part as u64)) {
            state.allowed = total;
            if state.incoming == Incoming::Open {
                state.due.allow = Some(total);
                wake(&mut state.driver);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.state();
        if state.outgoing != Outgoing::Open {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the other side reads no more")));
        }
        let room = usize::try_from(state.limit.saturating_sub(state.sent)).unwrap_or(usize::MAX);
        let part = buf.len().min(room).min(WAITING.saturating_sub(state.out.len()));
        if part == 0 && !buf.is_empty() {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.out.extend_from_slice(&buf[..part]);
        state.sent += part as u64;
        wake(&mut state.driver);
        Poll::Ready(Ok(part))
    }

    /// The driver writes what there is without being asked.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end(END);
        Poll::Ready(Ok(()))
    }
}

impl Writer {
    fn end(&self, kind: u8) {
        let mut state = self.0.state();
        if state.outgoing == Outgoing::Open {
            state.outgoing = Outgoing::Ending(kind);
            wake(&mut state.driver);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.chunks.clear();
        state.small.clear();
        state.window = None;
        state.due.allow = None;
        state.due.stop = state.incoming == Incoming::Open;
        drop(state);
        self.0.drop_part();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end(RESET);
        self.0.drop_part();
    }
}

impl Ending {
    /// Waits for it. Bytes may still wait to be read then. Cancel-safe.
    pub async fn outcome(&mut self) -> Outcome {
        match (&mut self.outcome).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::NoAnswer("the outcome was taken already".to_owned()),
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.drop_part();
    }
}

impl AsyncRead for Channel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

fn channel(shared: &Arc<Shared>) -> Channel {
    Channel { reader: Reader(shared.clone()), writer: Writer(shared.clone()) }
}

/// The side that opened the stream: `reader` and `writer` carry its frames, after whatever opened it.
/// `budget` is what its window may grow by.
pub fn opened<R, W>(reader: R, writer: W, budget: &Budget) -> (Channel, Ending)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let shared = Shared::new(budget, 3);
    let (told, outcome) = oneshot::channel();
    let driver = shared.clone();
    tokio::spawn(async move {
        let mut writer = TaggedWriter::new(writer);
        let outcome = tokio::select! {
            outcome = intake(&driver, TaggedReader::new(reader, MAX_PAYLOAD)) => outcome,
            // Without a word the stream is given up: dropping it tells the other side.
            Ok(()) = outgo(&driver, &mut writer) => return,
        };
        // What came before stays to be read.
        driver.state().broken();
        let _ = told.send(outcome.unwrap_or_else(Outcome::NoAnswer));
        let _ = writer.shutdown().await;
    });
    let ending = Ending { outcome, shared: shared.clone() };
    (channel(&shared), ending)
}

/// The side that serves a stream: what [`Serving::finish`] needs beside the channel.
pub struct Serving<R, W> {
    shared: Arc<Shared>,
    reader: TaggedReader<R>,
    writer: TaggedWriter<W>,
}

/// Takes a stream that somebody opened.
pub fn accepted<R, W>(reader: R, writer: W, budget: &Budget) -> (Channel, Serving<R, W>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let shared = Shared::new(budget, 3);
    let serving = Serving {
        shared: shared.clone(),
        reader: TaggedReader::new(reader, MAX_PAYLOAD),
        writer: TaggedWriter::new(writer),
    };
    (channel(&shared), serving)
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Serving<R, W> {
    /// Drives the channel while `work`, which holds it, runs, and tells its outcome. `None` if the opener went away first:
    /// then `work` was dropped. Also returns the transport's sending half, shut down after an outcome.
    pub async fn finish(mut self, work: impl Future<Output = Outcome>) -> (Option<Outcome>, W) {
        let told = {
            let gone = async {
                // An opener never tells an outcome.
                let _ = intake(&self.shared, self.reader).await;
                self.shared.state().broken();
            };
            let told = tell(&self.shared, &mut self.writer, work);
            tokio::select! {
                told = told => told,
                () = gone => None,
            }
        };
        (told, self.writer.into_inner())
    }
}

/// Writes what `work` sends, and last its outcome. `None` if the way broke.
async fn tell<W: AsyncWrite + Unpin>(
    shared: &Shared,
    writer: &mut TaggedWriter<W>,
    work: impl Future<Output = Outcome>,
) -> Option<Outcome> {
    let outcome = {
        let out = outgo(shared, writer);
        tokio::pin!(out);
        let outcome = tokio::select! {
            outcome = work => outcome,
            // It ends only when the way is closed: we hold a part ourselves.
            _ = &mut out => return None,
        };
        // The channel's user is gone; what it left is still written.
        shared.drop_part();
        out.await.ok()?;
        outcome
    };
    let words = postcard::to_stdvec(&shortened(&outcome)).ok()?;
    writer.write(OUTCOME, &words).await.ok()?;
    writer.shutdown().await.ok()?;
    Some(outcome)
}

/// An outcome that fits into a frame.
fn shortened(outcome: &Outcome) -> Outcome {
    let cut = |text: &str| text.chars().take(MAX_PAYLOAD / 8).collect::<String>();
    match outcome {
        Outcome::Failed(why) => Outcome::Failed(cut(why)),
        Outcome::Refused(refusal, why) => Outcome::Refused(*refusal, cut(why)),
        Outcome::NoAnswer(why) => Outcome::NoAnswer(cut(why)),
        Outcome::Done | Outcome::TimedOut => outcome.clone(),
    }
}

/// Takes what comes until the outcome; the error says how the stream broke.
async fn intake<R: AsyncRead + Unpin>(shared: &Shared, mut frames: TaggedReader<R>) -> Result<Outcome, String> {
    loop {
        match frames.next().await {
            Ok(Some((OUTCOME, words))) => {
                return postcard::from_bytes(&words).map_err(|e| format!("the other side broke the protocol: {e}"));
            }
            Ok(Some((kind, payload))) => {
                shared.state().take(kind, payload).map_err(|e| format!("the other side broke the protocol: {e}"))?;
            }
            Ok(None) => return Err("the stream ended without an outcome".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Writes what is due until the user holds no part any more. An error if the way is closed.
async fn outgo<W: AsyncWrite + Unpin>(shared: &Shared, writer: &mut TaggedWriter<W>) -> io::Result<()> {
    loop {
        match std::future::poll_fn(|cx| shared.state().poll_next(cx)).await {
            Next::Frame(kind, payload) => {
                writer.write(kind, &payload).await.inspect_err(|_| shared.state().stopped())?;
            }
            Next::Abandoned => return Ok(()),
        }
    }
}
