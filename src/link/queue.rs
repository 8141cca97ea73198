//! What one socket has to send: datagrams packed into records, connection by connection.
//!
//! Bounded in bytes. Quinn learns from `WouldBlock` that it is full, and keeps what it has. Destinations are served in
//! turn, so that a busy agent does not hold up its neighbours.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::packet::{self, Header, MAC};
use crate::kafka::Record;

/// Bytes that wait before quinn has to: two produce requests' worth beyond the four in flight keep a stream going, and
/// a call behind them waits a few milliseconds at most.
const CAPACITY: usize = 1 << 20;

/// The largest record: of a size that brokers copy quickly, far below every sane `max.message.bytes`.
pub const MAX_RECORD: usize = 256 << 10;

/// The queue. Shared by the socket (in) and the writer (out).
pub struct Queue {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Default)]
struct State {
    /// Destinations that have something, in turn.
    turns: VecDeque<SocketAddr>,
    pending: BTreeMap<SocketAddr, VecDeque<Pending>>,
    /// Sum of all pending values.
    bytes: usize,
    /// Pollers that found the queue full, by their id.
    waiting: BTreeMap<u64, Waker>,
    next_poller: u64,
    closed: bool,
}

struct Pending {
    key: Bytes,
    /// What `value` begins with. The MACs in it are made for it: what comes under another goes into another record.
    header: Header,
    value: BytesMut,
}

impl Queue {
    /// An empty queue.
    pub fn new() -> Self {
        Self { state: Mutex::default(), filled: Notify::new() }
    }

    /// Queues the datagrams of one transmit to `to`, or returns false if the queue is full. Where `prove` gives a MAC
    /// it follows the datagram.
    pub fn push<'a>(
        &self,
        to: SocketAddr,
        key: &Bytes,
        header: &Header,
        datagrams: impl Iterator<Item = &'a [u8]>,
        prove: impl Fn(&[u8]) -> Option<[u8; MAC]>,
    ) -> bool {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.closed {
            return true;
        }
        if state.bytes >= CAPACITY {
            return false;
        }
        for datagram in datagrams {
            let pending = state.pending.entry(to).or_default();
            if pending.is_empty() {
                state.turns.push_back(to);
            }
            let fits =
                |p: &Pending| p.header == *header && p.value.len() + datagram.len() + packet::OVERHEAD <= MAX_RECORD;
            if !pending.back().is_some_and(fits) {
                let mut value = BytesMut::with_capacity(packet::HEADER + packet::OVERHEAD + datagram.len());
                header.encode(&mut value);
                state.bytes += value.len();
                pending.push_back(Pending { key: key.clone(), header: *header, value });
            }
            let value = &mut pending.back_mut().expect("just pushed").value;
            let before = value.len();
            packet::put_datagram(value, datagram, prove(datagram));
            state.bytes += value.len() - before;
        }
        drop(guard);
        self.filled.notify_one();
        true
    }

    /// Waits until there is something, then takes at least one record and up to about `limit` bytes, one record from
    /// each destination in turn. `None` when the queue is closed and empty.
    pub async fn take(&self, limit: usize) -> Option<Vec<Record>> {
        loop {
            {
                let mut state = self.state();
                if !state.turns.is_empty() {
                    return Some(state.take(limit));
                }
                if state.closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    /// An id for a poller of this queue.
    pub fn poller(&self) -> u64 {
        let mut state = self.state();
        state.next_poller += 1;
        state.next_poller
    }

    /// Ready if and only if the next [`push`](Self::push) would be taken.
    pub fn poll_room(&self, poller: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.closed || state.bytes < CAPACITY {
            return Poll::Ready(());
        }
        state.waiting.insert(poller, cx.waker().clone());
        Poll::Pending
    }

    /// Forgets a poller.
    pub fn leave(&self, poller: u64) {
        self.state().waiting.remove(&poller);
    }

    /// Takes nothing more in; what is queued may still be taken out.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.wake();
        drop(state);
        self.filled.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    fn take(&mut self, limit: usize) -> Vec<Record> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(to) = self.turns.pop_front() {
            let pending = self.pending.get_mut(&to).expect("a turn has something");
            let next = pending.front().expect("a turn has something").value.len();
            if !batch.is_empty() && bytes + next > limit {
                self.turns.push_front(to);
                break;
            }
            let Pending { key, value, .. } = pending.pop_front().expect("just seen");
            if pending.is_empty() {
                self.pending.remove(&to);
            } else {
                self.turns.push_back(to);
            }
            bytes += next;
            batch.push(Record::new(key, value.freeze()));
        }
        self.bytes -= bytes;
        if self.bytes < CAPACITY {
            self.wake();
        }
        batch
    }

    fn wake(&mut self) {
        for (_, waker) in std::mem::take(&mut self.waiting) {
            waker.wake();
        }
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} bytes)", self.state().bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::iter::once;

    use super::{super::packet::Kind, *};

    const HEADER: Header =
        Header { kind: Kind::Down, incarnation: packet::Incarnation { starts: 1, random: 2 }, epoch: 3 };

    fn to(port: u16) -> SocketAddr {
        SocketAddr::new([0; 16].into(), port)
    }

    fn push(queue: &Queue, port: u16, datagram: &[u8]) -> bool {
        queue.push(to(port), &Bytes::from(vec![port as u8]), &HEADER, once(datagram), |_| None)
    }

    #[tokio::test]
    async fn destinations_take_turns_and_their_datagrams_share_records() {
        let queue = Queue::new();
        for _ in 0..40 {
            assert!(push(&queue, 1, &[7; 10_000]));
        }
        assert!(push(&queue, 2, &[8; 100]));
        let batch = queue.take(MAX_RECORD + 1000).await.expect("open");
        let keys: Vec<_> = batch.iter().map(|r| r.key[0]).collect();
        assert_eq!(keys, [1, 2], "the small one is not behind all of the big one");
        assert!(batch[0].value.len() > 200_000 && batch[0].value.len() <= MAX_RECORD);
        assert_eq!(queue.take(MAX_RECORD).await.expect("open").len(), 1);
        queue.close();
        assert!(queue.take(1).await.is_none());
    }

    #[tokio::test]
    async fn what_is_sent_under_another_epoch_has_a_record_of_its_own() {
        let queue = Queue::new();
        let next = Header { epoch: HEADER.epoch + 1, ..HEADER };
        for header in [HEADER, HEADER, next, next] {
            assert!(queue.push(to(1), &Bytes::from_static(b"a"), &header, once(&[7; 9][..]), |_| None));
        }
        for header in [HEADER, next] {
            let mut value = queue.take(1).await.expect("open").remove(0).value;
            assert_eq!(Header::decode(&mut value), Ok(header));
            assert_eq!(packet::Datagrams::new(&header, value).count(), 2);
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_wakes_when_there_is_room() {
        let queue = Queue::new();
        let poller = queue.poller();
        while push(&queue, 1, &[0; 16_000]) {}
        std::future::poll_fn(|cx| {
            assert!(queue.poll_room(poller, cx).is_pending());
            Poll::Ready(())
        })
        .await;
        let room = std::future::poll_fn(|cx| queue.poll_room(poller, cx));
        let (batch, ()) = tokio::join!(queue.take(MAX_RECORD), room);
        assert!(!batch.expect("open").is_empty());
        assert!(push(&queue, 1, &[0; 16_000]), "ready means that the next push is taken");
    }
}
