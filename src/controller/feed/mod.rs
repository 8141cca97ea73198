//! What happens, for other systems: an event in `<prefix>.events` for each turn in the lives of agents and jobs, and for
//! each entry of the audit log.
//!
//! ```text
//! journal, read back ┐
//! looks at agents    ┼→ queue → writer → Kafka
//! audit log          ┘
//! ```
//!
//! Nobody who tells something waits. What Kafka does not take in time is dropped, the oldest first, and counted. What
//! stands in the journal is told by the controller that leads; the next one tells the end of it again where its
//! predecessor did not, under the same ids, so that readers can drop what they had.

mod event;
mod glance;
mod presence;
mod queue;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::watch, time::Instant};

use super::audit::Entry;
use crate::{api::AgentState, clock, id::AgentName, kafka::Prefix};
pub use event::Happening;
use event::{Id, Place};
pub use glance::Glance;
use presence::Presence;
use queue::{Line, Queue};
pub use writer::write;

/// As many of the journal's last events are told again at most.
const REPEATED: usize = 1024;
/// A warning is not repeated before this.
const SELDOM: Duration = Duration::from_secs(60);

/// Where it is told what happens. Clones are the same.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    topic: String,
    source: String,
    /// The id of the journal's topic.
    journal: u128,
    /// That in which this controller leads.
    epoch: OnceLock<u32>,
    /// What this controller saw so far that stands in no journal.
    seen: AtomicU64,
    state: Mutex<State>,
    /// Events that are told and neither written nor dropped.
    waiting: watch::Sender<usize>,
    written: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    /// What the journal's last events told while this controller only followed.
    followed: VecDeque<(Place, Happening)>,
    queue: Queue,
    presence: Presence,
    warned_of_drops: Option<Instant>,
}

impl Feed {
    /// The feed of the controller whose journal's topic has this id.
    pub fn new(prefix: &Prefix, journal: u128) -> Self {
        Self(Arc::new(Shared {
            topic: prefix.events(),
            source: format!("/rk/{prefix}"),
            journal,
            epoch: OnceLock::new(),
            seen: AtomicU64::new(0),
            state: Mutex::default(),
            waiting: watch::Sender::new(0),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }))
    }

    /// This controller leads from now on: what it tells is written.
    pub fn lead(&self, epoch: u32) {
        if self.0.epoch.set(epoch).is_err() {
            return;
        }
        let mut state = self.lock();
        for (place, happening) in std::mem::take(&mut state.followed) {
            self.push(&mut state, Id::Journal(place), happening, Some(place));
        }
    }

    /// An event of the journal told something.
    pub fn journalled(&self, epoch: u32, seq: u64, happening: Happening) {
        let place = Place { journal: self.0.journal, epoch, seq };
        let mut state = self.lock();
        if self.0.epoch.get().is_some() {
            return self.push(&mut state, Id::Journal(place), happening.at(clock::unix_ms()), None);
        }
        if state.followed.len() == REPEATED {
            state.followed.pop_front();
        }
        state.followed.push_back((place, happening));
    }

    /// Somebody asked the API for something.
    pub fn access(&self, at_ms: u64, entry: &Entry<'_>) {
        let mut state = self.lock();
        self.see(&mut state, Happening::access(at_ms, entry));
    }

    /// This is how agents are, `now` after this controller took over.
    pub fn look(&self, now: Duration, at_ms: u64, states: &[(AgentName, AgentState)]) {
        let mut state = self.lock();
        for (name, agent) in state.presence.look(now, states) {
            self.see(&mut state, Happening::presence(at_ms, &name, agent));
        }
    }

    /// How many events were written.
    pub fn written(&self) -> u64 {
        self.0.written.load(Relaxed)
    }

    /// How many were dropped.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        *self.0.waiting.borrow()
    }

    /// Waits until none waits. Bounded by the caller.
    pub async fn idle(&self) {
        // The sender lives as long as this.
        let _ = self.0.waiting.subscribe().wait_for(|waiting| *waiting == 0).await;
    }

    fn see(&self, state: &mut State, happening: Happening) {
        // Before it leads it has nothing to say of its own.
        let Some(epoch) = self.0.epoch.get().copied() else { return };
        let seq = self.0.seen.fetch_add(1, Relaxed) + 1;
        self.push(state, Id::Seen(Place { journal: self.0.journal, epoch, seq }), happening, None);
    }

    fn push(&self, state: &mut State, id: Id, happening: Happening, repeats: Option<Place>) {
        let value = Bytes::from(happening.render(&self.0.source, id));
        let key = Bytes::copy_from_slice(happening.subject().as_bytes());
        let dropped = state.queue.push(Line { key, value, repeats, is_access: happening.is_access() });
        self.0.waiting.send_modify(|waiting| *waiting = (*waiting + 1).saturating_sub(dropped));
        if dropped == 0 {
            return;
        }
        let so_far = self.0.dropped.fetch_add(dropped as u64, Relaxed) + dropped as u64;
        if seldom(&mut state.warned_of_drops) {
            let topic = &self.0.topic;
            tracing::warn!(topic, so_far, "Kafka takes events more slowly than they happen: the oldest are dropped");
        }
    }

    /// Takes the oldest events, of about `most` bytes.
    fn take(&self, most: usize) -> Vec<Line> {
        self.lock().queue.batch(most)
    }

    /// Leaves out what another controller has written up to this place; if it wrote nothing that can be found, all that it
    /// could have.
    fn skip_written(&self, last: Option<Place>) {
        let skipped = self.lock().queue.retain_repeated(|place| last.is_some_and(|last| place > last));
        self.0.waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(skipped));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder panics")
    }
}

/// Whether it is time to warn again; notes that it was done.
fn seldom(warned: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let due = warned.is_none_or(|at| now.duration_since(at) >= SELDOM);
    if due {
        *warned = Some(now);
    }
    due
}
