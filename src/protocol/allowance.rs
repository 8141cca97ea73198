//! How much a sender of stdio may send, decided by the receiver: the rule that both ends share.
//!
//! All stdio streams of an agent run on one QUIC connection. What one of them may have in flight is bounded here, for each
//! stream by itself, so that a stream that nobody reads takes nothing from the others. Limits are totals counted from the
//! stream's first byte of stdio: announcing one twice, or only the newest of several, is the same.
//!
//! Promises: a limit never falls, is never more than [`MOST`] ahead of what was consumed, and always moves on before half
//! of the window is left, so that a sender whose receiver reads never waits for ever. What windows take beyond
//! [`INITIAL`] comes out of a [`Budget`] and goes back into it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What may be sent without being asked for, in bytes.
pub const INITIAL: u64 = 256 << 10;

/// The most that may be sent ahead of what was consumed, in bytes. Less than a stream's window in QUIC, so that it is
/// always this rule that a sender waits for.
pub const MOST: u64 = 8 << 20;

/// What all windows of a process together may be above [`INITIAL`] each, in bytes. Clones are the same.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicU64>);

/// The receiver's side of one stream.
#[derive(Debug)]
pub struct Window {
    budget: Budget,
    consumed: u64,
    /// What was announced last. Never below `consumed`, except for a sender that does as it likes.
    limit: u64,
    /// How far `limit` is put ahead of `consumed`. What it is above [`INITIAL`] was taken from `budget`.
    size: u64,
    /// What `consumed` was when the window last grew, or did not because the budget was used up.
    grown: u64,
}

impl Budget {
    /// A budget of this many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// What is left.
    pub fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Window {
    /// The window of a stream on which nothing came yet.
    pub fn new(budget: &Budget) -> Self {
        Self { budget: budget.clone(), consumed: 0, limit: INITIAL, size: INITIAL, grown: 0 }
    }

    /// Notes that `bytes` more were consumed; returns the limit to announce, if there is a new one.
    pub fn consume(&mut self, bytes: u64) -> Option<u64> {
        self.consumed = self.consumed.saturating_add(bytes);
        if self.limit.saturating_sub(self.consumed) > self.size / 2 {
            return None;
        }
        if self.consumed - self.grown >= self.size {
            self.grow();
        }
        let limit = self.consumed.saturating_add(self.size);
        (limit > self.limit).then(|| {
            self.limit = limit;
            limit
        })
    }

    /// Doubles the window, if it may be larger and the budget has room.
    fn grow(&mut self) {
        self.grown = self.consumed;
        let more = self.size.min(MOST - self.size);
        if more > 0 && self.budget.take(more) {
            self.size += more;
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.budget.give(self.size - INITIAL);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_limit_is_announced_when_half_of_the_window_is_used_and_not_before() {
        let mut window = Window::new(&Budget::new(0));
        assert_eq!(window.consume(INITIAL / 2 - 1), None);
        assert_eq!(window.consume(1), Some(INITIAL + INITIAL / 2));
        assert_eq!(window.consume(0), None, "nothing changed");
        assert_eq!(window.consume(INITIAL / 2), Some(2 * INITIAL));
    }

    #[test]
    fn a_window_that_is_used_up_again_and_again_grows_to_the_most_and_gives_it_back() {
        let budget = Budget::new(100 << 20);
        let mut window = Window::new(&budget);
        let (mut consumed, mut ahead) = (0, INITIAL);
        while consumed < 64 << 20 {
            consumed += 64 << 10;
            if let Some(limit) = window.consume(64 << 10) {
                assert!(limit - consumed >= ahead, "it does not shrink");
                ahead = limit - consumed;
            }
        }
        assert_eq!((ahead, budget.left()), (MOST, (100 << 20) - (MOST - INITIAL)));
        drop(window);
        assert_eq!(budget.left(), 100 << 20);
    }

    #[test]
    fn without_budget_a_window_stays_small_and_grows_when_another_gives_some_back() {
        let budget = Budget::new(INITIAL);
        let (mut first, mut second) = (Window::new(&budget), Window::new(&budget));
        assert_eq!(first.consume(INITIAL), Some(INITIAL + 2 * INITIAL));
        assert_eq!((second.consume(INITIAL), budget.left()), (Some(2 * INITIAL), 0));
        drop(first);
        assert_eq!((second.consume(INITIAL), budget.left()), (Some(2 * INITIAL + 2 * INITIAL), 0));
        drop(second);
        assert_eq!(budget.left(), INITIAL);
    }

    #[test]
    fn a_sender_that_ignores_the_limit_breaks_nothing() {
        let budget = Budget::new(1 << 30);
        let mut window = Window::new(&budget);
        assert_eq!(window.consume(1 << 40), Some((1 << 40) + 2 * INITIAL));
        assert_eq!(window.consume(u64::MAX), Some(u64::MAX));
        assert_eq!(window.consume(u64::MAX), None);
        drop(window);
        assert_eq!(budget.left(), 1 << 30);
    }

    /// One step of the world between several senders and their receivers.
    #[derive(Debug, Clone)]
    enum Step {
        /// A sender sends up to this many bytes.
        Send(usize, u64),
        /// A receiver consumes up to this many of those that came.
        Consume(usize, u64),
        /// The newest limit arrives at its sender.
        Deliver(usize),
    }

    const STREAMS: usize = 4;

    fn step() -> impl Strategy<Value = Step> {
        let (stream, bytes) = (0..STREAMS, prop_oneof![0..1000u64, 0..200_000u64, 0..20_000_000u64]);
        (stream, bytes, 0..3u8).prop_map(|(stream, bytes, kind)| match kind {
            0 => Step::Send(stream, bytes),
            1 => Step::Consume(stream, bytes),
            _ => Step::Deliver(stream),
        })
    }

    struct Stream {
        window: Window,
        sent: u64,
        consumed: u64,
        newest: u64,
        allowed: u64,
    }

    impl Stream {
        fn take(&mut self, step: &Step) {
            match step {
                Step::Send(_, bytes) => self.sent += bytes.min(&(self.allowed - self.sent)),
                Step::Consume(_, bytes) => {
                    let bytes = *bytes.min(&(self.sent - self.consumed));
                    self.consumed += bytes;
                    if let Some(limit) = self.window.consume(bytes) {
                        assert!(limit > self.newest, "{limit} is announced after {}", self.newest);
                        self.newest = limit;
                    }
                }
                Step::Deliver(_) => self.allowed = self.newest,
            }
            assert!(self.sent - self.consumed <= MOST, "{} bytes wait", self.sent - self.consumed);
            assert!(self.newest > self.consumed, "who has read everything has allowed more");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_in_between_nobody_is_stuck_memory_is_bounded_and_the_budget_comes_back(
            budget in 0..40_000_000u64,
            steps in proptest::collection::vec(step(), 0..400),
        ) {
            let shared = Budget::new(budget);
            let new = |_| Stream {
                window: Window::new(&shared), sent: 0, consumed: 0, newest: INITIAL, allowed: INITIAL,
            };
            let mut streams: Vec<Stream> = (0..STREAMS).map(new).collect();
            for step in steps {
                let (Step::Send(at, _) | Step::Consume(at, _) | Step::Deliver(at)) = step;
                streams[at].take(&step);
                let above: u64 = streams.iter().map(|stream| stream.window.size - INITIAL).sum();
                prop_assert_eq!(above + shared.left(), budget);
                let waiting: u64 = streams.iter().map(|stream| stream.sent - stream.consumed).sum();
                prop_assert!(waiting <= STREAMS as u64 * INITIAL + budget, "{} bytes wait", waiting);
            }
            for stream in &mut streams {
                // A receiver that reads on, and messages that arrive, always bring the sender on.
                for _ in 0..3 {
                    let before = stream.sent;
                    for step in [Step::Consume(0, u64::MAX), Step::Deliver(0), Step::Send(0, u64::MAX)] {
                        stream.take(&step);
                    }
                    prop_assert!(stream.sent > before);
                }
            }
            drop(streams);
            prop_assert_eq!(shared.left(), budget);
        }
    }
}
