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
    Held, Lane, address,
    caller::Caller,
    notice::{Sent, Subject},
    packet::{Header, Incarnation, Kind, MAC},
    proof,
};

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
    pub caller: Caller,
    pub held: Held,
    pub lane: Lane,
    pub incarnation: Incarnation,
    /// The highest epoch that an authenticated controller has shown; shared by the lanes.
    pub epoch: Arc<AtomicU32>,
    /// Handshakes that were sent; shared by the lanes.
    pub sent: Arc<Sent>,
}

impl Up {
    /// The envelope of what is sent now.
    pub fn header(&self) -> Header {
        Header { kind: Kind::Up, incarnation: self.incarnation, epoch: self.epoch.load(Ordering::Relaxed) }
    }

    /// The MAC of a handshake datagram that is sent now.
    pub fn prove(&self, header: &Header, datagram: &[u8]) -> Option<[u8; MAC]> {
        // A long header too short to carry an id is nothing that quinn sends; its MAC is as good as none.
        let mac = proof::prove(&self.held.hash(), &self.caller, header, self.lane, datagram).unwrap_or_default();
        self.sent.note(Subject::of(header, self.lane, datagram, Some(mac)));
        Some(mac)
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
/// The same of a join token: many use it at once.
const RUNS_PER_TOKEN: usize = 64;
/// Addresses that have proven nothing, remembered only to answer with a stateless reset.
const TRANSIENT: usize = 4096;

#[derive(Debug, Default)]
struct Peers {
    known: BTreeMap<SocketAddr, (Caller, Incarnation)>,
    /// The addresses of each caller that has proven itself, oldest first.
    proven: BTreeMap<Caller, VecDeque<SocketAddr>>,
    transient: VecDeque<SocketAddr>,
}

impl Down {
    /// No peers yet.
    pub fn new(lane: Lane, epoch: u32) -> Self {
        Self { lane, epoch, peers: Mutex::default() }
    }

    /// Remembers who is behind an address, and returns the address. What has proven itself by a MAC is never pushed
    /// out by what has not.
    pub fn learn(&self, caller: &Caller, incarnation: Incarnation, proven: bool) -> SocketAddr {
        let address = address::agent(caller, self.lane, incarnation);
        let mut guard = self.peers.lock().expect("no holder panics");
        let peers = &mut *guard;
        let new = !peers.known.contains_key(&address);
        if new {
            peers.known.insert(address, (caller.clone(), incarnation));
        }
        if proven {
            let runs = peers.proven.entry(caller.clone()).or_default();
            if !runs.contains(&address) {
                runs.push_back(address);
                peers.transient.retain(|a| *a != address);
                let most = if matches!(caller, Caller::Token(_)) { RUNS_PER_TOKEN } else { RUNS_PER_AGENT };
                if runs.len() > most {
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
    pub fn peer(&self, address: SocketAddr) -> Option<(Caller, Incarnation)> {
        self.peers.lock().expect("no holder panics").known.get(&address).cloned()
    }

    /// The key and envelope of what is sent to an address.
    pub fn header(&self, to: SocketAddr) -> Option<(Bytes, Header)> {
        let (caller, incarnation) = self.peer(to)?;
        let key = Bytes::copy_from_slice(caller.text().as_bytes());
        Some((key, Header { kind: Kind::Down, incarnation, epoch: self.epoch }))
    }
}
