//! The registry together with the live sessions: one lock, never held across a wait.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    event::Event,
    peer::{Endpoints, Peer},
    registry::{Change, Registry, SessionNumber},
    update,
};
use crate::{
    api::{Agent, AgentState},
    id::AgentName,
    link::{Dismissal, Fingerprint, Program, SecretHash},
    selector::Selector,
};

/// Agents and their sessions.
pub struct Directory {
    started: Instant,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    registry: Registry,
    sessions: BTreeMap<AgentName, Live>,
    last: SessionNumber,
}

struct Live {
    number: SessionNumber,
    peer: Arc<dyn Peer>,
    /// By which secret the agent could come back: that of its authentication, or a newer one that it took since.
    secret: SecretHash,
    /// The controller's next key, if the agent was told of one.
    next_key: Option<Fingerprint>,
}

/// What a look at one agent's session says.
pub enum Standing {
    /// No such agent.
    Unknown,
    /// It has no session, or was not heard for too long.
    Offline,
    /// It can be worked with.
    Here(Arc<dyn Peer>),
}

impl Directory {
    /// Nobody yet.
    pub fn new() -> Self {
        Self { started: Instant::now(), state: RwLock::default() }
    }

    /// The time since the controller took over.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Forgets all agents: the journal begins anew. Only before there are sessions.
    pub fn forget(&self) {
        self.write().registry = Registry::default();
    }

    /// Applies an event of the journal; a removed or revoked agent's session ends.
    pub fn fold(&self, event: Event) {
        let gone = match &event {
            Event::AgentRemoved { name } | Event::AgentRevoked { name } => Some(name.clone()),
            _ => None,
        };
        let mut state = self.write();
        let why = match state.registry.fold(event) {
            Change::Removed(_) => Dismissal::Removed,
            Change::Revoked(_) => Dismissal::Revoked,
            Change::Added | Change::Nothing => return,
        };
        if let Some(live) = gone.and_then(|name| state.sessions.remove(&name)) {
            drop(state);
            live.peer.dismiss(why);
        }
    }

    /// An agent has a session. A task waits for its end.
    pub fn enter(self: &Arc<Self>, peer: Arc<dyn Peer>, partition: u32) {
        let (now, name) = (self.now(), peer.name().clone());
        let number = {
            let mut state = self.write();
            state.last += 1;
            let number = state.last;
            if !state.registry.handle_session(now, &name, number, partition, peer.profile()) {
                // It was removed or revoked between its authentication and now.
                let revoked = state.registry.is_revoked(&name);
                drop(state);
                peer.dismiss(if revoked { Dismissal::Revoked } else { Dismissal::Removed });
                return;
            }
            state
                .sessions
                .insert(name.clone(), Live { number, peer: peer.clone(), secret: peer.secret(), next_key: None });
            number
        };
        tracing::info!(agent = %name, "online");
        let directory = Arc::downgrade(self);
        if peer.profile().program.and_then(|program| program.update).is_some_and(|update| !update.stage.is_end()) {
            tokio::spawn(update::follow(directory.clone(), peer.clone()));
        }
        tokio::spawn(async move {
            let reason = peer.closed().await;
            let Some(directory) = directory.upgrade() else { return };
            if directory.leave(&name, number) {
                tracing::info!(agent = %name, %reason, "its session ended");
            }
        });
    }

    /// The agent behind `peer` says what its program is, and how its last change stands.
    pub fn describe(&self, peer: &Arc<dyn Peer>, program: Program) {
        let mut state = self.write();
        let State { registry, sessions, .. } = &mut *state;
        if let Some(live) = sessions.get(peer.name()).filter(|live| Arc::ptr_eq(&live.peer, peer)) {
            registry.handle_program(peer.name(), live.number, program);
        }
    }

    /// A session has ended. False if the agent has a newer one.
    fn leave(&self, name: &AgentName, number: SessionNumber) -> bool {
        let now = self.now();
        let mut state = self.write();
        state.registry.handle_session_end(now, name, number);
        let newest = state.sessions.get(name).is_some_and(|live| live.number == number);
        if newest {
            state.sessions.remove(name);
        }
        newest
    }

    /// Looks at probes and sessions; about once a second. Sessions whose secret is void at `now_ms`, in milliseconds since
    /// 1970, end.
    pub fn look(&self, endpoints: &dyn Endpoints, partitions: u32, now_ms: u64) {
        let now = self.now();
        let ages: Vec<Duration> = (0..partitions).map(|partition| endpoints.probe_age(partition)).collect();
        let mut state = self.write();
        let State { registry, sessions, .. } = &mut *state;
        registry.handle_probes(now, ages);
        for (name, live) in &*sessions {
            registry.handle_heard(now, name, live.number, live.peer.heard());
        }
        let is_void = |name, live: &Live| {
            let secrets = registry.secrets(now_ms, name);
            secrets.is_none_or(|secrets| secrets.find(|hash| *hash == live.secret).is_none())
        };
        let void = sessions.iter().filter(|(name, live)| is_void(name, live)).map(|(_, live)| live.peer.clone());
        let void: Vec<_> = void.collect();
        drop(state);
        for peer in void {
            tracing::info!(agent = %peer.name(), "the secret of its session is void");
            peer.dismiss(Dismissal::SecretVoid);
        }
    }

    /// The agent's session and the secret by which it could come back.
    pub fn live(&self, name: &AgentName) -> Option<(Arc<dyn Peer>, SecretHash)> {
        self.read().sessions.get(name).map(|live| (live.peer.clone(), live.secret))
    }

    /// Sessions whose agents were not told of the key that the controller has next.
    pub fn untold(&self, next: Fingerprint) -> Vec<Arc<dyn Peer>> {
        let state = self.read();
        state.sessions.values().filter(|live| live.next_key != Some(next)).map(|live| live.peer.clone()).collect()
    }

    /// The agent behind `peer` was told of the key that the controller has next.
    pub fn told(&self, peer: &Arc<dyn Peer>, next: Fingerprint) {
        let mut state = self.write();
        if let Some(live) = state.sessions.get_mut(peer.name()).filter(|live| Arc::ptr_eq(&live.peer, peer)) {
            live.next_key = Some(next);
        }
    }

    /// The agent behind `peer` took a new secret.
    pub fn took(&self, peer: &Arc<dyn Peer>, secret: SecretHash) {
        let mut state = self.write();
        if let Some(live) = state.sessions.get_mut(peer.name()).filter(|live| Arc::ptr_eq(&live.peer, peer)) {
            live.secret = secret;
        }
    }

    /// The agent's session, if it can be worked with.
    pub fn standing(&self, name: &AgentName) -> Standing {
        let state = self.read();
        match (state.registry.state(name), state.sessions.get(name)) {
            (None, _) => Standing::Unknown,
            (Some(AgentState::Offline), _) | (_, None) => Standing::Offline,
            (_, Some(live)) if live.peer.is_closed() => Standing::Offline,
            (_, Some(live)) => Standing::Here(live.peer.clone()),
        }
    }

    /// One agent.
    pub fn agent(&self, name: &AgentName, endpoints: &dyn Endpoints) -> Option<Agent> {
        let state = self.read();
        let agent = state.registry.agent(self.now(), name)?;
        Some(state.complete(agent, endpoints))
    }

    /// The agents that `selector` selects.
    pub fn agents(&self, selector: &Selector, endpoints: &dyn Endpoints) -> Vec<Agent> {
        let state = self.read();
        let agents = state.registry.agents(self.now(), selector);
        agents.into_iter().map(|agent| state.complete(agent, endpoints)).collect()
    }

    /// Answers a question to the registry.
    pub fn ask<T>(&self, question: impl FnOnce(&Registry) -> T) -> T {
        question(&self.read().registry)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("no holder panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("no holder panics")
    }
}

impl State {
    fn complete(&self, mut agent: Agent, endpoints: &dyn Endpoints) -> Agent {
        agent.partition = endpoints.partition_of(&agent.name);
        agent.round_trip_us = self
            .sessions
            .get(&agent.name)
            .map(|live| live.peer.round_trip().as_micros().try_into().unwrap_or(u64::MAX));
        agent
    }
}
