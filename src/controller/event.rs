//! What the controller writes into its journal.
//!
//! An event is one version byte and postcard. Variants are only added, at the end, and a variant never changes: the
//! journal of the oldest controller must fold in the newest. The other way round there is no promise, and a controller
//! that meets an event it does not know refuses to run.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{access, scheduler};
use crate::{id::AgentName, link::SecretHash, selector::Labels, versioned};

const VERSION: u8 = 1;

/// Something that became true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// An agent may connect. Without effect if there is one of this name.
    AgentAdded {
        /// Its name.
        name: AgentName,
        /// The hash of its secret.
        secret: SecretHash,
        /// The labels it was given.
        labels: Labels,
    },
    /// An agent may not connect any more, and is told so when it tries. Without effect if there is none.
    AgentRemoved {
        /// Its name.
        name: AgentName,
    },
    /// Of jobs, or of agents as those who get them.
    Scheduler(scheduler::Event),
    /// Of who may ask.
    Access(access::Event),
}

/// The payload is no event that this program knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the journal holds an event that this version does not know ({0}); run a controller at least as new as the last one"
)]
pub struct UnknownEvent(String);

impl Event {
    /// The journal's payload.
    pub fn encode(&self) -> Bytes {
        versioned::encode(VERSION, self)
    }

    /// Reads a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, UnknownEvent> {
        versioned::decode(VERSION, payload).map_err(UnknownEvent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by the first version, and to be read for ever.
    fn golden() -> Vec<(Event, Vec<u8>)> {
        let secret = SecretHash::of(&[7; 32]);
        let hash: Vec<u8> = vec![
            0x4b, 0xb0, 0x6f, 0x8e, 0x4e, 0x3a, 0x77, 0x15, 0xd2, 0x01, 0xd5, 0x73, 0xd0, 0xaa, 0x42, 0x37, 0x62, 0xe5,
            0x5d, 0xab, 0xd6, 0x1a, 0x2c, 0x02, 0x27, 0x8f, 0xa5, 0x6c, 0xc6, 0xd2, 0x94, 0xe0,
        ];
        let labels = [("zone".to_owned(), "a".to_owned())].into();
        let name: AgentName = "b7".parse().expect("name");
        vec![
            (
                Event::AgentAdded { name: name.clone(), secret, labels },
                [&[1, 0, 2, b'b', b'7'], &hash[..], &[1, 4, b'z', b'o', b'n', b'e', 1, b'a']].concat(),
            ),
            (Event::AgentRemoved { name: name.clone() }, vec![1, 1, 2, b'b', b'7']),
            // What is in it has a test of its own.
            (Event::Scheduler(scheduler::Event::AgentResumed { name: name.clone() }), vec![1, 2, 2, 2, b'b', b'7']),
            (Event::Access(access::Event::Revoked { name }), vec![1, 3, 1, 2, b'b', b'7']),
        ]
    }

    #[test]
    fn events_have_the_bytes_that_they_always_had() {
        for (event, bytes) in golden() {
            assert_eq!(event.encode(), bytes, "{event:?}");
            assert_eq!(Event::decode(&bytes), Ok(event));
        }
    }

    #[test]
    fn an_event_of_a_newer_version_is_refused_with_the_cure() {
        for bytes in [&[][..], &[2, 0], &[1, 200]] {
            let message = Event::decode(bytes).expect_err("unknown").to_string();
            assert!(message.contains("at least as new"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Event::decode(&bytes);
        }
    }
}
