//! Synthetic addresses: QUIC wants socket addresses, we have names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ring::digest;

use super::{Lane, caller::Caller, packet::Incarnation};

/// The controller's address, the same for ever: to an agent a restarted controller is the same peer.
pub const CONTROLLER: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x0100, 0, 0, 0, 0, 0, 0, 1)), 1);

/// The address of one lane of one run of a caller: 128 bits of a hash, so that two never meet.
pub fn agent(caller: &Caller, lane: Lane, incarnation: Incarnation) -> SocketAddr {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&[lane as u8]);
    hash.update(&incarnation.to_bytes());
    hash.update(caller.text().as_bytes());
    let hash = hash.finish();
    let bits: [u8; 16] = hash.as_ref()[..16].try_into().expect("SHA-256 has 32 bytes");
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(bits)), 2)
}

/// The control partition of a caller: a stable hash of its name.
pub fn partition(caller: &Caller, partitions: u32) -> u32 {
    let hash = digest::digest(&digest::SHA256, caller.text().as_bytes());
    let head: [u8; 8] = hash.as_ref()[..8].try_into().expect("SHA-256 has 32 bytes");
    (u64::from_be_bytes(head) % u64::from(partitions.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_never_changes_once_released() {
        let of = |name: &str| partition(&Caller::Agent(name.parse().expect("name")), 8);
        assert_eq!([of("a"), of("b"), of("build-1"), of("build-2")], [2, 2, 4, 3]);
        let spread: std::collections::BTreeSet<u32> = (0..100).map(|i| of(&format!("agent-{i}"))).collect();
        assert_eq!(spread.len(), 8);
    }
}
