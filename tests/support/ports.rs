//! Free ports for servers that are killed and come back on the same port.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener};
use std::sync::Mutex;

/// A free port, drawn below the range from which the system takes the ports of outgoing connections (32768 on
/// Linux). A port from that range can be taken while its server is down, even by a client that keeps
/// trying to reach it: it connects to itself.
pub fn free(host: IpAddr) -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap();
    for _ in 0..1000 {
        let port = 10_000 + u16::try_from(uuid::Uuid::new_v4().as_u128() % 22_000).unwrap();
        if !taken.contains(&port) && TcpListener::bind((host, port)).is_ok() {
            taken.insert(port);
            return port;
        }
    }
    panic!("no free port on {host}");
}

/// An address where nobody listens: the first of every bootstrap list.
pub const DEAD: &str = "127.0.0.1:1";
