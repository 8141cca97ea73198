//! Who the agents are and whether they can be worked with.
//!
//! Pure: `now` is the time since the controller took over, and nothing here waits or looks at a clock.
//!
//! Input:
//! - [`fold`](Registry::fold): an event of the journal, in its order;
//! - [`handle_session`](Registry::handle_session), [`handle_session_end`](Registry::handle_session_end),
//!   [`handle_heard`](Registry::handle_heard): what happens to agents' sessions;
//! - [`handle_probes`](Registry::handle_probes): which of the controller's own records came back.
//!
//! Output: the questions [`state`](Registry::state), [`agent`](Registry::agent), [`agents`](Registry::agents),
//! [`counts`](Registry::counts), [`secrets`](Registry::secrets), [`is_removed`](Registry::is_removed),
//! [`judge_enrolment`](Registry::judge_enrolment).
//!
//! Promise: silence is counted only on the [clock](PartitionClock) of the agent's partition, so that an outage of
//! Kafka makes nobody's state worse. A session that ends in an outage leaves the state as it was until records come
//! back.

mod clock;
mod enrol;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use super::event::{Event, Token};
use crate::{
    api::{Agent, AgentCounts, AgentState},
    id::AgentName,
    layout::Layout,
    link::{EnrolRequest, Enrolment, Profile, Program, SecretHash, TokenId},
    selector::{Labels, Selector},
};

pub use clock::{GAP, PartitionClock, QUIET};

/// Not heard for so long: `silent`. Agents speak every 5 s at least.
pub const SILENT: Duration = Duration::from_secs(6);

/// Not heard for so long: `offline`.
pub const OFFLINE: Duration = Duration::from_secs(15);

/// Numbers the sessions of this controller's life, so that the end of an old one is told from the end of a new one.
pub type SessionNumber = u64;

/// The agents.
#[derive(Debug, Default)]
pub struct Registry {
    agents: BTreeMap<AgentName, Entry>,
    /// Agents that may not come back, so that they can be told.
    removed: BTreeMap<AgentName, Removed>,
    tokens: BTreeMap<TokenId, Token>,
    clocks: Vec<PartitionClock>,
}

/// What is remembered of an agent that was removed.
#[derive(Debug, Clone, Copy)]
struct Removed {
    /// What it would authenticate by.
    secret: SecretHash,
    /// Where it would be told.
    layout: Layout,
}

#[derive(Debug)]
struct Entry {
    secret: SecretHash,
    /// The secret before, and until when it is valid too, in milliseconds since 1970.
    kept: Option<(SecretHash, u64)>,
    /// It may not come back before it gets a new secret.
    revoked: bool,
    /// Who enrolled it, and may ask again.
    enrolment: Option<(TokenId, Enrolment)>,
    given: Labels,
    layout: Layout,
    /// What it said of itself last.
    profile: Option<Profile>,
    presence: Presence,
    /// When it was last heard; only shown, never counted.
    heard_at: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum Presence {
    /// It has no session.
    Gone,
    /// Its session ended while nothing came back from its partition: this was its state, and stays it as long as the
    /// partition's clock shows the same.
    Unknown { state: AgentState, partition: u32, counted: Duration },
    /// It has a session, and was last heard when the partition's clock showed `counted`.
    Here { session: SessionNumber, partition: u32, counted: Duration, heard: u64 },
}

/// What an event changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// There is one more agent.
    Added,
    /// There is one less; if it had a session, that must end.
    Removed(Option<SessionNumber>),
    /// One may not come back; if it had a session, that must end.
    Revoked(Option<SessionNumber>),
    /// Nothing of that kind, or the event came too late.
    Nothing,
}

impl Registry {
    /// Applies an event of the journal.
    pub fn fold(&mut self, event: Event) -> Change {
        match event {
            Event::AgentAdded { name, .. } if self.agents.contains_key(&name) => Change::Nothing,
            Event::AgentAdded { name, secret, labels } => {
                self.removed.remove(&name);
                self.agents.insert(name, Entry::new(secret, labels));
                Change::Added
            }
            Event::AgentRemoved { name } => match self.agents.remove(&name) {
                Some(entry) => {
                    self.removed.insert(name, Removed { secret: entry.secret, layout: entry.layout });
                    Change::Removed(entry.session())
                }
                None => Change::Nothing,
            },
            Event::AgentRotated { name, secret, kept } => self.fold_rotated(&name, secret, kept),
            Event::AgentSecretRetired { name, secret } => self.fold_retired(&name, secret),
            Event::AgentRevoked { name } => self.fold_revoked(&name),
            Event::TokenCreated { id, token } => self.fold_token(id, token),
            Event::TokenRevoked { id } => self.fold_token_revoked(id),
            Event::TokenUsed { token, enrolment, name, secret } => {
                self.fold_token_used(EnrolRequest { token, enrolment, name }, secret)
            }
            Event::AgentEnrolled { name, token, enrolment } => {
                if let Some(entry) = self.agents.get_mut(&name) {
                    entry.enrolment = Some((token, enrolment));
                }
                Change::Nothing
            }
            Event::AgentPlaced { name, layout } => {
                if let Some(entry) = self.agents.get_mut(&name) {
                    entry.layout = layout;
                }
                Change::Nothing
            }
            Event::Scheduler(_) | Event::Access(_) | Event::Bundle(_) => Change::Nothing,
        }
    }

    /// Events that, folded by an empty registry, give the same agents.
    pub fn snapshot(&self) -> impl Iterator<Item = Event> + '_ {
        let removed = self.removed.iter().flat_map(|(name, removed)| {
            let Removed { secret, layout } = *removed;
            let added = Event::AgentAdded { name: name.clone(), secret, labels: Labels::new() };
            let placed = (layout != Layout::default()).then(|| Event::AgentPlaced { name: name.clone(), layout });
            [Some(added), placed, Some(Event::AgentRemoved { name: name.clone() })].into_iter().flatten()
        });
        let here = self.agents.iter().flat_map(|(name, entry)| {
            let (secret, labels) = (entry.secret, entry.given.clone());
            let added = Event::AgentAdded { name: name.clone(), secret, labels };
            std::iter::once(added).chain(Self::snapshot_entry(name, entry))
        });
        let tokens = self.tokens.iter().map(|(id, token)| Event::TokenCreated { id: *id, token: token.clone() });
        removed.chain(here).chain(tokens)
    }

    /// The agent has a session. Returns false if there is no such agent, or it was revoked: the session must end.
    pub fn handle_session(
        &mut self,
        now: Duration,
        name: &AgentName,
        session: SessionNumber,
        partition: u32,
        profile: Profile,
    ) -> bool {
        let counted = self.counted(partition);
        let Some(entry) = self.agents.get_mut(name).filter(|entry| !entry.revoked) else { return false };
        entry.presence = Presence::Here { session, partition, counted, heard: 0 };
        entry.profile = Some(profile);
        entry.heard_at = Some(now);
        true
    }

    /// The agent says what its program is. Without effect if it has a newer session.
    pub fn handle_program(&mut self, name: &AgentName, session: SessionNumber, program: Program) {
        let here = self.agents.get_mut(name).filter(|entry| entry.session() == Some(session));
        if let Some(profile) = here.and_then(|entry| entry.profile.as_mut()) {
            profile.program = Some(program);
        }
    }

    /// The session ended. Without effect if the agent has a newer one.
    pub fn handle_session_end(&mut self, now: Duration, name: &AgentName, session: SessionNumber) {
        let Some(state) = self.state(name) else { return };
        let Some(entry) = self.agents.get_mut(name) else { return };
        let Presence::Here { session: current, partition, .. } = entry.presence else { return };
        if current != session {
            return;
        }
        let clock = self.clocks.get(partition as usize);
        entry.presence = match clock {
            Some(clock) if !clock.is_working(now) => Presence::Unknown { state, partition, counted: clock.counted() },
            _ => Presence::Gone,
        };
    }

    /// The session's count of what was heard is `heard`; a greater one than before means that the agent spoke.
    pub fn handle_heard(&mut self, now: Duration, name: &AgentName, session: SessionNumber, heard: u64) {
        let Some(entry) = self.agents.get_mut(name) else { return };
        let Presence::Here { session: current, partition, counted, heard: before } = &mut entry.presence else {
            return;
        };
        if *current == session && heard > *before {
            *before = heard;
            *counted = self.clocks.get(*partition as usize).map_or(Duration::ZERO, PartitionClock::counted);
            entry.heard_at = Some(now);
        }
    }

    /// The controller's latest record on each control partition came back so long ago.
    pub fn handle_probes(&mut self, now: Duration, ages: impl IntoIterator<Item = Duration>) {
        for (partition, age) in ages.into_iter().enumerate() {
            if partition == self.clocks.len() {
                self.clocks.push(PartitionClock::default());
            }
            self.clocks[partition].probe(now, age);
        }
    }

    /// Whether the agent can be worked with; `None` if there is no such agent.
    pub fn state(&self, name: &AgentName) -> Option<AgentState> {
        self.agents.get(name).map(|entry| self.state_of(entry))
    }

    /// One agent as the API shows it, without what only its live session knows.
    pub fn agent(&self, now: Duration, name: &AgentName) -> Option<Agent> {
        self.agents.get(name).map(|entry| self.view(now, name, entry))
    }

    /// The agents that `selector` selects, by name.
    pub fn agents(&self, now: Duration, selector: &Selector) -> Vec<Agent> {
        let all = self.agents.iter();
        all.filter(|(_, entry)| selector.matches(&entry.labels())).map(|(n, e)| self.view(now, n, e)).collect()
    }

    /// Everybody's state.
    pub fn states(&self) -> Vec<(AgentName, AgentState)> {
        self.agents.iter().map(|(name, entry)| (name.clone(), self.state_of(entry))).collect()
    }

    /// What selectors see of an agent.
    pub fn labels(&self, name: &AgentName) -> Labels {
        self.agents.get(name).map(Entry::labels).unwrap_or_default()
    }

    /// How many agents are in which state.
    pub fn counts(&self) -> AgentCounts {
        let mut counts = AgentCounts::default();
        for entry in self.agents.values() {
            match self.state_of(entry) {
                AgentState::Online => counts.online += 1,
                AgentState::Silent => counts.silent += 1,
                AgentState::Offline | AgentState::Revoked => counts.offline += 1,
            }
        }
        counts
    }

    /// Where an agent's packets run, also one's that was removed.
    pub fn layout(&self, name: &AgentName) -> Layout {
        let here = self.agents.get(name).map(|entry| entry.layout);
        here.or_else(|| self.removed.get(name).map(|removed| removed.layout)).unwrap_or_default()
    }

    /// Whether there is such an agent.
    pub fn contains(&self, name: &AgentName) -> bool {
        self.agents.contains_key(name)
    }

    /// Whether the agent was removed and not added again.
    pub fn is_removed(&self, name: &AgentName) -> bool {
        self.removed.contains_key(name)
    }

    /// The partitions from which nothing comes back at `now`.
    pub fn unreachable_partitions(&self, now: Duration) -> Vec<u32> {
        let all = self.clocks.iter().enumerate();
        all.filter(|(_, clock)| !clock.is_working(now)).map(|(partition, _)| partition as u32).collect()
    }

    /// Whether records come back from `partition` at `now`.
    pub fn is_reachable(&self, now: Duration, partition: u32) -> bool {
        self.clocks.get(partition as usize).is_some_and(|clock| clock.is_working(now))
    }

    fn counted(&self, partition: u32) -> Duration {
        self.clocks.get(partition as usize).map_or(Duration::ZERO, PartitionClock::counted)
    }

    fn state_of(&self, entry: &Entry) -> AgentState {
        match entry.presence {
            Presence::Gone => AgentState::Offline,
            Presence::Unknown { state, partition, counted } if self.counted(partition) == counted => state,
            Presence::Unknown { .. } => AgentState::Offline,
            Presence::Here { partition, counted, .. } => match self.counted(partition).saturating_sub(counted) {
                silence if silence >= OFFLINE => AgentState::Offline,
                silence if silence >= SILENT => AgentState::Silent,
                _ => AgentState::Online,
            },
        }
    }

    fn view(&self, now: Duration, name: &AgentName, entry: &Entry) -> Agent {
        let millis = |d: Duration| d.as_millis().try_into().unwrap_or(u64::MAX);
        Agent {
            name: name.clone(),
            state: if entry.revoked { AgentState::Revoked } else { self.state_of(entry) },
            labels: entry.labels(),
            given_labels: entry.given.clone(),
            layout: entry.layout,
            version: entry.profile.as_ref().map(|profile| profile.version.clone()),
            digest: entry.profile.as_ref().and_then(|profile| profile.program.as_ref()?.digest),
            update: entry.profile.as_ref().and_then(|profile| profile.program.as_ref()?.update.clone()),
            pid: entry.profile.as_ref().filter(|_| entry.session().is_some()).map(|profile| profile.pid),
            last_heard_ms: entry.heard_at.map(|at| millis(now.saturating_sub(at))),
            round_trip_us: None,
            partition: 0,
            drained: false,
            slots: 0,
            jobs: 0,
        }
    }
}

impl Entry {
    fn new(secret: SecretHash, given: Labels) -> Self {
        let presence = Presence::Gone;
        Self {
            secret,
            kept: None,
            revoked: false,
            enrolment: None,
            given,
            layout: Layout::default(),
            profile: None,
            presence,
            heard_at: None,
        }
    }

    fn session(&self) -> Option<SessionNumber> {
        match self.presence {
            Presence::Here { session, .. } => Some(session),
            Presence::Gone | Presence::Unknown { .. } => None,
        }
    }

    /// What the agent was given wins over what it says of itself.
    fn labels(&self) -> Labels {
        let mut labels = self.profile.as_ref().map(|profile| profile.labels.clone()).unwrap_or_default();
        labels.extend(self.given.clone());
        labels
    }
}
