//! What the controller writes into its journal.
//!
//! An event is one version byte and postcard. Variants are only added, at the end, and a variant never changes: the
//! journal of the oldest controller must fold in the newest. The other way round there is no promise, and a controller
//! that meets an event it does not know refuses to run.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{access, bundles, scheduler};
use crate::{
    id::AgentName,
    layout::Layout,
    link::{Enrolment, SecretHash, TokenId},
    selector::Labels,
    versioned,
};

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
    /// An agent got a new secret, and is not revoked any more. Without effect if there is none.
    AgentRotated {
        /// Its name.
        name: AgentName,
        /// The hash of the new secret.
        secret: SecretHash,
        /// The secret that is valid too, and until when in milliseconds since 1970.
        kept: Option<(SecretHash, u64)>,
    },
    /// The agent has its newest secret, if that has this hash: the one before is void.
    AgentSecretRetired {
        /// Its name.
        name: AgentName,
        /// The hash of the newest secret.
        secret: SecretHash,
    },
    /// An agent may not connect before it gets a new secret, and is told so when it tries.
    AgentRevoked {
        /// Its name.
        name: AgentName,
    },
    /// There is a join token.
    TokenCreated {
        /// Its id.
        id: TokenId,
        /// All about it.
        token: Token,
    },
    /// A join token may not be used any more.
    TokenRevoked {
        /// Its id.
        id: TokenId,
    },
    /// An agent enrolled, or the same one asked again. Without effect if the token does not allow it.
    TokenUsed {
        /// By which token.
        token: TokenId,
        /// Who asked.
        enrolment: Enrolment,
        /// Under which name.
        name: AgentName,
        /// The hash of the secret that it is given.
        secret: SecretHash,
    },
    /// In snapshots: who enrolled an agent that was added before, and may ask again.
    AgentEnrolled {
        /// Its name.
        name: AgentName,
        /// By which token.
        token: TokenId,
        /// Who asked.
        enrolment: Enrolment,
    },
    /// Of who may ask the API.
    Access(access::Event),
    /// Where an agent's packets run, if not as in [`Layout`]'s default.
    AgentPlaced {
        /// Its name.
        name: AgentName,
        /// Where.
        layout: Layout,
    },
    /// Of bundles.
    Bundle(bundles::Event),
}

/// A join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The hash of its secret.
    pub secret: SecretHash,
    /// How many agents it may enrol.
    pub uses: u32,
    /// How many it has.
    pub used: u32,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: u64,
    /// The labels that its agents get.
    pub labels: Labels,
    /// What the names of its agents begin with.
    pub name_prefix: String,
    /// Whether it was revoked.
    pub revoked: bool,
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
    use crate::{
        bundle::{Archive, Digest, Place, Target},
        job::Hidden,
    };

    /// Written by the first version, and to be read for ever.
    fn golden() -> Vec<(Event, Vec<u8>)> {
        let secret = SecretHash::of(&[7; 32]);
        let hash: Vec<u8> = vec![
            0x4b, 0xb0, 0x6f, 0x8e, 0x4e, 0x3a, 0x77, 0x15, 0xd2, 0x01, 0xd5, 0x73, 0xd0, 0xaa, 0x42, 0x37, 0x62, 0xe5,
            0x5d, 0xab, 0xd6, 0x1a, 0x2c, 0x02, 0x27, 0x8f, 0xa5, 0x6c, 0xc6, 0xd2, 0x94, 0xe0,
        ];
        let labels = [("zone".to_owned(), "a".to_owned())].into();
        let name: AgentName = "b7".parse().expect("name");
        let token = Token {
            secret,
            uses: 3,
            used: 1,
            created_ms: 5,
            expires_ms: 300,
            labels: [("k".to_owned(), "v".to_owned())].into(),
            name_prefix: "b".to_owned(),
            revoked: true,
        };
        let (id, enrolment) = (TokenId([9; 8]), Enrolment([8; 16]));
        let b7 = [2, b'b', b'7'];
        vec![
            (
                Event::AgentAdded { name: name.clone(), secret, labels },
                [&[1, 0, 2, b'b', b'7'], &hash[..], &[1, 4, b'z', b'o', b'n', b'e', 1, b'a']].concat(),
            ),
            (Event::AgentRemoved { name: name.clone() }, vec![1, 1, 2, b'b', b'7']),
            // What is in it has a test of its own.
            (Event::Scheduler(scheduler::Event::AgentResumed { name: name.clone() }), vec![1, 2, 2, 2, b'b', b'7']),
            (
                Event::AgentRotated { name: name.clone(), secret, kept: Some((secret, 300)) },
                [&[1, 3][..], &b7, &hash, &[1], &hash, &[0xac, 2]].concat(),
            ),
            (Event::AgentRotated { name: name.clone(), secret, kept: None }, [&[1, 3][..], &b7, &hash, &[0]].concat()),
            (Event::AgentSecretRetired { name: name.clone(), secret }, [&[1, 4][..], &b7, &hash].concat()),
            (Event::AgentRevoked { name: name.clone() }, [&[1, 5][..], &b7].concat()),
            (
                Event::TokenCreated { id, token },
                [&[1, 6][..], &[9; 8], &hash, &[3, 1, 5, 0xac, 2, 1, 1, b'k', 1, b'v', 1, b'b', 1]].concat(),
            ),
            (Event::TokenRevoked { id }, [&[1, 7][..], &[9; 8]].concat()),
            (
                Event::TokenUsed { token: id, enrolment, name: name.clone(), secret },
                [&[1, 8][..], &[9; 8], &[8; 16], &b7, &hash].concat(),
            ),
            (
                Event::AgentEnrolled { name: name.clone(), token: id, enrolment },
                [&[1, 9][..], &b7, &[9; 8], &[8; 16]].concat(),
            ),
            (Event::Access(access::Event::Revoked { name: name.clone() }), vec![1, 10, 1, 2, b'b', b'7']),
            (Event::AgentPlaced { name, layout: Layout::PerAgent }, vec![1, 11, 2, b'b', b'7', 1]),
            (pushed(), pushed_bytes()),
            (Event::Bundle(bundles::Event::Removed { digest: Digest([3; 32]) }), [&[1, 12, 1][..], &[3; 32]].concat()),
        ]
    }

    fn pushed() -> Event {
        let place = Place { topic: 300, partition: 1, first: 1, last: 300, key: Hidden::new([9; 32]) };
        let archive = Archive { sha256: Digest([8; 32]), size: 300 };
        Event::Bundle(bundles::Event::Pushed {
            at_ms: 300,
            name: "t".parse().expect("name"),
            by: "ann".to_owned(),
            variants: [(Target::any(), (archive, place))].into(),
            signatures: Vec::new(),
        })
    }

    fn pushed_bytes() -> Vec<u8> {
        [
            &[1, 12, 0, 0xac, 2][..],
            b"\x01t\x03ann\x01\x03any",
            &[8; 32],
            &[0xac, 2, 0xac, 2, 1, 2, 0xd8, 4],
            &[9; 32],
            &[0],
        ]
        .concat()
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
