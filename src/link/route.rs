//! From a synthetic address to a record's key and envelope.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;

use super::{
    Lane, SecretHash, address,
    packet::{Header, Incarnation, Kind, MAC},
    proof,
};
use crate::id::AgentName;

/// How a socket addresses what it sends.
#[derive(Debug)]
pub enum Route {
    /// An agent sends everything to the controller, under its own name.
    Up(Up),
    /// A controller sends to many, each under the addressee's name.
    Down(Down),
}

/// An agent's way to its controller.
#[derive(Debug)]
pub struct Up {
    pub name: AgentName,
    pub hash: SecretHash,
    pub lane: Lane,
    pub incarnation: Incarnation,
    /// The highest epoch that an authenticated controller has shown; shared by the lanes.
    pub epoch: Arc<AtomicU32>,
}

impl Up {
    /// The envelope of what is sent now.
    pub fn header(&self) -> Header {
        Header { kind: Kind::Up, incarnation: self.incarnation, epoch: self.epoch.load(Ordering::Relaxed) }
    }

    /// The MAC of a handshake datagram.
    pub fn prove(&self, header: &Header, datagram: &[u8]) -> Option<[u8; MAC]> {
        // A long header too short to carry an id is nothing that quinn sends; its MAC is as good as none.
        Some(proof::prove(&self.hash, &self.name, header, self.lane, datagram).unwrap_or_default())
    }
}

/// A controller's ways to its agents on one partition.
#[derive(Debug)]
pub struct Down {
    pub lane: Lane,
    pub epoch: u32,
    peers: Mutex<Peers>,
}

/// Runs of an agent that are remembered: the current one, and older ones that are still being told to go.
const RUNS_PER_AGENT: usize = 4;
/// Addresses that have proven nothing, remembered only to answer with a stateless reset.
const TRANSIENT: usize = 4096;

#[derive(Debug, Default)]
struct Peers {
    known: BTreeMap<SocketAddr, (AgentName, Incarnation)>,
    /// The addresses of each agent that has proven itself, oldest first.
    proven: BTreeMap<AgentName, VecDeque<SocketAddr>>,
    transient: VecDeque<SocketAddr>,
}

impl Down {
    /// No peers yet.
    pub fn new(lane: Lane, epoch: u32) -> Self {
        Self { lane, epoch, peers: Mutex::default() }
    }

    /// Remembers who is behind an address, and returns the address. What has proven itself by a MAC is never pushed
    /// out by what has not.
    pub fn learn(&self, name: &AgentName, incarnation: Incarnation, proven: bool) -> SocketAddr {
        let address = address::agent(name, self.lane, incarnation);
        let mut guard = self.peers.lock().expect("no holder panics");
        let peers = &mut *guard;
        let new = !peers.known.contains_key(&address);
        if new {
            peers.known.insert(address, (name.clone(), incarnation));
        }
        if proven {
            let runs = peers.proven.entry(name.clone()).or_default();
            if !runs.contains(&address) {
                runs.push_back(address);
                peers.transient.retain(|a| *a != address);
                if runs.len() > RUNS_PER_AGENT {
                    let oldest = runs.pop_front().expect("not empty");
                    peers.known.remove(&oldest);
                }
            }
        } else if new {
            peers.transient.push_back(address);
            if peers.transient.len() > TRANSIENT {
                let oldest = peers.transient.pop_front().expect("not empty");
                peers.known.remove(&oldest);
            }
        }
        address
    }

    /// Who is behind an address.
    pub fn peer(&self, address: SocketAddr) -> Option<(AgentName, Incarnation)> {
        self.peers.lock().expect("no holder panics").known.get(&address).cloned()
    }

    /// The key and envelope of what is sent to an address.
    pub fn header(&self, to: SocketAddr) -> Option<(Bytes, Header)> {
        let (name, incarnation) = self.peer(to)?;
        let key = Bytes::copy_from_slice(name.as_str().as_bytes());
        Some((key, Header { kind: Kind::Down, incarnation, epoch: self.epoch }))
    }
}
