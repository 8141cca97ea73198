//! Ports of agents that have a topic of their own, made when something first comes from such an agent: also from one that does not
//! know yet that its controller was started anew, since that is what it is told through its port.
//!
//! Each has an endpoint and a queue to itself, so that a topic whose leader is gone stalls its agent alone. What the agent writes
//! comes over the partition that it shares with others, and is handed on here.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    Lane, accept, address,
    caller::Caller,
    listener::Shared,
    port::{Mouth, Port},
    route::{Down, Route},
    transport,
};
use crate::{id::AgentName, kafka::SharedCluster};

/// The ports.
pub struct Own {
    cluster: SharedCluster,
    state: Mutex<State>,
}

struct State {
    ports: BTreeMap<(AgentName, Lane), Open>,
    random: StdRng,
}

struct Open {
    port: Port,
    route: Arc<Route>,
}

/// The partition of a lane in an agent's own topic.
pub fn partition(lane: Lane) -> i32 {
    match lane {
        Lane::Control => 0,
        Lane::Bulk => 1,
    }
}

impl Own {
    /// None yet.
    pub fn new(cluster: SharedCluster, random: StdRng) -> Self {
        Self { cluster, state: Mutex::new(State { ports: BTreeMap::new(), random }) }
    }

    /// Hands a datagram on that says it is from `caller`, an agent that there is.
    pub fn receive(
        &self,
        shared: &Weak<Shared>,
        caller: &Caller,
        lane: Lane,
        datagram: Bytes,
        from: impl FnOnce(&Down) -> SocketAddr,
    ) {
        let Caller::Agent(name) = caller else { return };
        let mut state = self.state();
        let State { ports, random } = &mut *state;
        let key = (name.clone(), lane);
        if !ports.contains_key(&key) {
            let Some(shared) = shared.upgrade() else { return };
            ports.insert(key.clone(), self.open(&shared, name, lane, random));
        }
        let Some(Open { port, route }) = ports.get(&key) else { return };
        let Route::Down(down) = &**route else { return };
        // A full inbox drops.
        port.inbox.push(from(down), datagram);
        port.inbox.wake();
    }

    /// Takes the ports of an agent out, which are not there any more after this. They may have last words to say.
    pub fn forget(&self, name: &AgentName) -> Vec<Port> {
        let mut state = self.state();
        let lanes = [Lane::Control, Lane::Bulk].into_iter();
        lanes.filter_map(|lane| state.ports.remove(&(name.clone(), lane))).map(|open| open.port).collect()
    }

    /// All ports, which are not there any more after this.
    pub fn take(&self) -> Vec<Port> {
        std::mem::take(&mut self.state().ports).into_values().map(|open| open.port).collect()
    }

    fn open(&self, shared: &Arc<Shared>, name: &AgentName, lane: Lane, random: &mut StdRng) -> Open {
        let route = Arc::new(Route::Down(Down::new(lane, shared.epoch)));
        let mut rng = || StdRng::from_seed(random.random());
        let mouth = Mouth {
            writer: self.cluster.writer(&shared.config.prefix.agent_down(name), partition(lane)),
            route: route.clone(),
            local: address::CONTROLLER,
            endpoint: transport::controller_endpoint(&shared.identity, shared.epoch, rng()),
            server: Some(transport::server(&shared.config, lane, &shared.identity)),
            random: rng(),
        };
        let port = Port::speaking(mouth);
        shared.spawn(accept::serve(shared.clone(), port.endpoint.clone(), route.clone()));
        Open { port, route }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}
