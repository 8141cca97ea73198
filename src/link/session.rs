//! An authenticated session, seen from the controller.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use quinn::{Connection, VarInt};
use tokio::sync::{Mutex, watch};

use super::{
    Lane, LinkError, Profile, SecretHash,
    hello::{Hello, ToAgent, close},
    listener::Shared,
    packet::Incarnation,
    stream::{Lease, RecvStream, SendStream, wrap},
};
use crate::{frame, id::AgentName};

/// An authenticated session with one agent. Clones are handles of the same.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Weak<Shared>,
    name: AgentName,
    incarnation: Incarnation,
    attempt: u32,
    profile: Profile,
    secret: SecretHash,
    control: Connection,
    orders: Mutex<Orders>,
    bulk: watch::Sender<Option<Bulk>>,
    connect_timeout: Duration,
    bulk_idle: Duration,
}

/// Why an agent may not have its session any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dismissal {
    /// It was removed.
    Removed,
    /// It was revoked.
    Revoked,
    /// The secret by which it authenticated was rotated out.
    SecretVoid,
}

/// The rest of the hello stream, on which the agent gets orders.
struct Orders {
    stream: quinn::SendStream,
    /// The bulk lane that was ordered and has not come yet.
    bulk: Option<Leased>,
}

#[derive(Clone)]
struct Bulk {
    attempt: u32,
    connection: Connection,
    streams: Arc<watch::Sender<usize>>,
}

impl Session {
    pub(super) fn new(
        shared: &Arc<Shared>,
        name: AgentName,
        incarnation: Incarnation,
        hello: Hello,
        secret: SecretHash,
        control: Connection,
        orders: quinn::SendStream,
    ) -> Self {
        let inner = Inner {
            shared: Arc::downgrade(shared),
            name,
            incarnation,
            attempt: hello.attempt,
            profile: hello.profile,
            secret,
            control,
            orders: Mutex::new(Orders { stream: orders, bulk: None }),
            bulk: watch::Sender::new(None),
            connect_timeout: shared.config.connect_timeout,
            bulk_idle: shared.config.bulk_idle,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Who authenticated.
    pub fn name(&self) -> &AgentName {
        &self.inner.name
    }

    /// What the agent said of itself.
    pub fn profile(&self) -> &Profile {
        &self.inner.profile
    }

    /// Opens a stream, and the bulk lane first if it is not open yet. Ends within twice `connect_timeout`. The agent
    /// learns of the stream with its first byte.
    pub async fn open_stream(&self, lane: Lane) -> Result<(SendStream, RecvStream), LinkError> {
        let limit = self.inner.connect_timeout;
        let opened = tokio::time::timeout(2 * limit, async {
            match lane {
                Lane::Control => {
                    let pair = self.inner.control.open_bi().await.map_err(|e| ended(&e))?;
                    Ok(wrap(pair, None))
                }
                Lane::Bulk => self.open_bulk_stream().await,
            }
        });
        opened.await.unwrap_or(Err(LinkError::NoAnswer(limit)))
    }

    /// A number that grows whenever something authentic came from the agent.
    pub fn heard(&self) -> u64 {
        let of = |connection: &Connection| {
            let frames = connection.stats().frame_rx;
            frames.acks + frames.ping + frames.stream
        };
        of(&self.inner.control) + self.bulk().map_or(0, |bulk| of(&bulk.connection))
    }

    /// Gives an order in these bytes, which may be none that this version knows.
    #[cfg(test)]
    pub(crate) async fn order_bytes(&self, bytes: &[u8]) {
        tokio::io::AsyncWriteExt::write_all(&mut self.inner.orders.lock().await.stream, bytes)
            .await
            .expect("a session");
    }

    /// Waits until the session has ended and says why.
    pub async fn closed(&self) -> LinkError {
        let error = self.inner.control.closed().await;
        if let Some(bulk) = self.bulk() {
            bulk.connection.close(close::GOING_AWAY, b"the session ended");
        }
        ended(&error)
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.inner.control.close_reason().is_some()
    }

    /// The hash of the secret by which it authenticated.
    pub fn secret(&self) -> SecretHash {
        self.inner.secret
    }

    /// Ends the session because the agent may not have it any more.
    pub fn dismiss(&self, why: Dismissal) {
        match why {
            Dismissal::Removed => self.close(close::REMOVED, "the agent was removed"),
            Dismissal::Revoked => self.close(close::REVOKED, "the agent was revoked"),
            // It comes back, and is let in or not.
            Dismissal::SecretVoid => self.close(close::GOING_AWAY, "the secret of this session is void"),
        }
    }

    /// The smoothed round-trip time of the control lane.
    pub fn round_trip(&self) -> Duration {
        self.inner.control.rtt()
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.inner.incarnation
    }

    /// Whether both are handles of the same session.
    pub(super) fn is(&self, other: &Session) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether the agent, in the same process, opened this one after the other.
    pub(super) fn is_later_than(&self, other: &Session) -> bool {
        self.inner.incarnation == other.inner.incarnation && self.inner.attempt > other.inner.attempt
    }

    pub(super) fn close(&self, code: VarInt, reason: &str) {
        if let Some(bulk) = self.bulk() {
            bulk.connection.close(code, reason.as_bytes());
        }
        self.inner.control.close(code, reason.as_bytes());
    }

    /// Takes the bulk lane that the agent dialled. It is closed when it has had no stream for a while.
    pub(super) fn attach_bulk(&self, attempt: u32, connection: Connection, hello: quinn::SendStream) {
        let Some(shared) = self.inner.shared.upgrade() else { return };
        // Attempts are counted over both lanes: one from before this session is a dial that the agent gave up with the
        // session before, and that arrived late.
        if attempt < self.inner.attempt || self.bulk().is_some_and(|bulk| bulk.attempt > attempt) {
            return connection.close(close::REPLACED, b"overtaken");
        }
        let streams = Arc::new(watch::Sender::new(0));
        let bulk = Bulk { attempt, connection: connection.clone(), streams: streams.clone() };
        let before = self.inner.bulk.send_replace(Some(bulk));
        if let Some(before) = before {
            before.connection.close(close::REPLACED, b"the bulk lane was opened again");
        }
        let idle = self.inner.bulk_idle;
        shared.spawn(async move {
            // Kept open as long as the lane: its end would tell the agent that the controller is gone.
            let _hello = hello;
            let mut count = streams.subscribe();
            loop {
                tokio::select! {
                    biased;
                    _ = connection.closed() => return,
                    unused = count.wait_for(|n| *n == 0) => if unused.is_err() { return },
                }
                tokio::select! {
                    biased;
                    _ = connection.closed() => return,
                    used = tokio::time::timeout(idle, count.wait_for(|n| *n > 0)) => {
                        if used.is_err() {
                            return connection.close(close::IDLE, b"unused");
                        }
                    }
                }
            }
        });
    }

    async fn open_bulk_stream(&self) -> Result<(SendStream, RecvStream), LinkError> {
        loop {
            let bulk = self.live_bulk().await?;
            let lease = Lease::new(&bulk.streams);
            match bulk.connection.open_bi().await {
                Ok(pair) => return Ok(wrap(pair, Some(lease))),
                // It was closed between the look and the use: the next look orders another.
                Err(_) if !self.is_closed() => {}
                Err(error) => return Err(ended(&error)),
            }
        }
    }

    /// The open bulk lane; ordered from the agent if there is none. An order stands until it is fulfilled, also when
    /// the one who waited for it gave up: the agent tries as long as the session lasts.
    async fn live_bulk(&self) -> Result<Bulk, LinkError> {
        let is_live = |bulk: &Option<Bulk>| bulk.as_ref().is_some_and(|b| b.connection.close_reason().is_none());
        let mut changes = self.inner.bulk.subscribe();
        if is_live(&changes.borrow()) {
            return Ok(self.bulk().expect("just seen"));
        }
        let mut orders = self.inner.orders.lock().await;
        let shared =
            self.inner.shared.upgrade().ok_or_else(|| LinkError::Ended("the controller stopped".to_owned()))?;
        if !is_live(&changes.borrow_and_update()) && orders.bulk.is_none() {
            let leased = Leased { partition: shared.lease(), shared: shared.clone() };
            let order = ToAgent::OpenBulk { partition: leased.partition };
            orders.bulk = Some(leased);
            frame::write(&mut orders.stream, &order).await.map_err(|e| LinkError::Ended(e.to_string()))?;
        }
        let limit = self.inner.connect_timeout;
        let opened = tokio::time::timeout(limit, async {
            tokio::select! {
                biased;
                bulk = changes.wait_for(is_live) => Ok(bulk.ok().and_then(|bulk| bulk.clone())),
                error = self.inner.control.closed() => Err(ended(&error)),
            }
        });
        let bulk = match opened.await {
            Ok(bulk) => bulk?.ok_or_else(|| LinkError::Ended("the session was dropped".to_owned()))?,
            Err(_) => return Err(LinkError::NoAnswer(limit)),
        };
        if let Some(leased) = orders.bulk.take() {
            let connection = bulk.connection.clone();
            shared.spawn(async move {
                let _leased = leased;
                connection.closed().await;
            });
        }
        Ok(bulk)
    }

    fn bulk(&self) -> Option<Bulk> {
        self.inner.bulk.borrow().clone()
    }
}

/// A bulk partition, given back when dropped.
struct Leased {
    shared: Arc<Shared>,
    partition: u32,
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.shared.release(self.partition);
    }
}

fn ended(error: &quinn::ConnectionError) -> LinkError {
    LinkError::Ended(error.to_string())
}
