//! What came for one socket and quinn has not read yet. Bounded: a reader waits a while for room, and then drops.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::sync::Notify;

/// Datagrams that wait. 16 KiB each at most, so 32 MiB; quinn reads as fast as it can, so this fills only when the
/// process does not get the processor.
const CAPACITY: usize = 2048;

/// A bounded queue of datagrams with the synthetic address they come from.
pub struct Inbox {
    state: Mutex<State>,
    drained: Notify,
}

#[derive(Default)]
struct State {
    datagrams: VecDeque<(SocketAddr, Bytes)>,
    reader: Option<Waker>,
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> Self {
        Self { state: Mutex::default(), drained: Notify::new() }
    }

    /// Puts a datagram in; false if it is full.
    pub fn push(&self, from: SocketAddr, datagram: Bytes) -> bool {
        let mut state = self.state();
        if state.datagrams.len() >= CAPACITY {
            return false;
        }
        state.datagrams.push_back((from, datagram));
        true
    }

    /// Tells quinn that something came: once for all datagrams of a fetch.
    pub fn wake(&self) {
        let waker = self.state().reader.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until quinn has read something.
    pub async fn drained(&self) {
        self.wake();
        self.drained.notified().await;
    }

    /// Takes up to `limit` datagrams, or registers to be woken.
    pub fn poll_take(
        &self,
        cx: &mut Context<'_>,
        limit: usize,
        mut each: impl FnMut(usize, SocketAddr, &[u8]),
    ) -> Poll<usize> {
        let mut state = self.state();
        let n = limit.min(state.datagrams.len());
        if n == 0 {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken: Vec<_> = state.datagrams.drain(..n).collect();
        drop(state);
        self.drained.notify_one();
        for (i, (from, datagram)) in taken.iter().enumerate() {
            each(i, *from, datagram);
        }
        Poll::Ready(n)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbox({} datagrams)", self.state().datagrams.len())
    }
}
