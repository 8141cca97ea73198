//! The controller's connection ids: they name the epoch that issued them and prove that a controller with this
//! identity did.
//!
//! `epoch:4 ‖ random:8 ‖ MAC:4`. A controller answers a packet for an unknown connection with a stateless reset only
//! if the id is genuine and of an epoch not above its own. So agents of a restarted controller learn at once that
//! their session is gone, while an old controller that wakes up resets nobody's newer session.

use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ring::hmac;

const LENGTH: usize = 16;

/// Issues and checks the ids of one epoch.
pub struct EpochIds {
    key: hmac::Key,
    epoch: u32,
    random: StdRng,
}

impl EpochIds {
    /// Ids of `epoch`, under a key derived from the controller's identity.
    pub fn new(key: &[u8; 32], epoch: u32, seed: [u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), epoch, random: StdRng::from_seed(seed) }
    }
}

impl ConnectionIdGenerator for EpochIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; LENGTH];
        id[..4].copy_from_slice(&self.epoch.to_be_bytes());
        self.random.fill(&mut id[4..12]);
        let mac = hmac::sign(&self.key, &id[..12]);
        id[12..].copy_from_slice(&mac.as_ref()[..4]);
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let id: &[u8; LENGTH] = id[..].try_into().map_err(|_| InvalidCid)?;
        let epoch = u32::from_be_bytes(id[..4].try_into().expect("four bytes"));
        let mac = hmac::sign(&self.key, &id[..12]);
        if epoch <= self.epoch && mac.as_ref()[..4] == id[12..] { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// An agent's connection ids: random, and none is ever taken for genuine, so that an agent sends no resets.
pub struct SilentIds(pub StdRng);

impl ConnectionIdGenerator for SilentIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        self.0.fill(&mut id);
        ConnectionId::new(&id)
    }

    fn validate(&self, _: &ConnectionId) -> Result<(), InvalidCid> {
        Err(InvalidCid)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_by_its_own_and_later_epochs_only() {
        let key = [1; 32];
        let id = EpochIds::new(&key, 5, [0; 32]).generate_cid();
        for (epoch, taken) in [(4, false), (5, true), (6, true)] {
            assert_eq!(EpochIds::new(&key, epoch, [9; 32]).validate(&id).is_ok(), taken, "epoch {epoch}");
        }
        assert!(EpochIds::new(&[2; 32], 5, [0; 32]).validate(&id).is_err(), "another identity");
        assert!(EpochIds::new(&key, 5, [0; 32]).validate(&ConnectionId::new(&[0; 8])).is_err(), "another length");
        let mut bent = id.to_vec();
        bent[7] ^= 1;
        assert!(EpochIds::new(&key, 5, [0; 32]).validate(&ConnectionId::new(&bent)).is_err(), "a bent bit");
    }
}
