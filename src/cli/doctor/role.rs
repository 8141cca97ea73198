//! What each role needs of each topic, and the record that tries it.
//!
//! Such a record changes nothing, because all readers pass over it:
//!
//! - in packet topics it is a probe with a number that no controller has drawn, under a key that no agent's name can be;
//! - in the logs its key is no job's, and in the blobs and the artifacts no digest;
//! - in the journal it is not sealed, and who has no state key writes nothing there that counts. It must not stand where
//!   a log that was cut begins: see [`rights`](super::rights).

use bytes::{Bytes, BytesMut};

use crate::{
    id::AgentName,
    kafka::{Prefix, Record, topics::Topic},
    link::packet::{Header, Incarnation, Kind},
};

/// A key that no agent's name can be: it starts with a dash.
const KEY: &[u8] = b"-doctor";

/// Whose view it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// All topics.
    Controller,
    /// What an agent reads and writes.
    Agent,
}

/// What a role does with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// It writes.
    pub write: bool,
    /// It reads.
    pub read: bool,
}

impl Role {
    /// What the role needs of a topic; none if it has no business with it. `own` is the agent, if it has a topic of its own.
    pub fn need(self, prefix: &Prefix, own: Option<&AgentName>, topic: &Topic) -> Option<Need> {
        let name = &topic.name;
        let is = |names: &[String]| names.contains(name);
        let down = is(&[prefix.down_control(), prefix.down_bulk()]);
        let up = is(&[prefix.up_control(), prefix.up_bulk()]);
        let need = match self {
            // It writes up as well: by its own records it sees that a partition works.
            Self::Controller if name == &prefix.up_control() => Need { write: true, read: true },
            Self::Controller if [prefix.journal(), prefix.blobs()].contains(name) => Need { write: true, read: true },
            Self::Controller => Need { write: down, read: !down },
            Self::Agent => Need {
                write: up || is(&[prefix.logs(), prefix.artifacts()]),
                read: own.map_or(down, |agent| name == &prefix.agent_down(agent)) || name == &prefix.blobs(),
            },
        };
        (need.write || need.read).then_some(need)
    }
}

/// A record for `topic` that every reader passes over. `nonce` tells it from others.
pub fn harmless(prefix: &Prefix, topic: &str, nonce: u64) -> Record {
    if topic == prefix.journal() {
        return Record::new("", "rk doctor");
    }
    if [prefix.logs(), prefix.blobs(), prefix.artifacts()].iter().any(|name| name == topic) {
        return Record::new(KEY, "rk doctor");
    }
    let header = Header { kind: Kind::Probe, incarnation: Incarnation { starts: 0, random: 0 }, epoch: 0 };
    let mut value = BytesMut::new();
    header.encode(&mut value);
    value.extend_from_slice(&nonce.to_le_bytes());
    Record::new(KEY, Bytes::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::AgentName,
        kafka::topics::{Desired, Installation},
    };

    #[test]
    fn an_agent_writes_up_and_logs_and_reads_down_and_has_nothing_to_do_with_the_journal() {
        let prefix = Prefix::default();
        let needs = |role: Role| -> Vec<String> {
            let need = |topic: &Topic| {
                let Need { write, read } = role.need(&prefix, None, topic)?;
                Some(format!("{}{}{}", topic.name, if write { " w" } else { "" }, if read { " r" } else { "" }))
            };
            let installation = Installation { partitions: 1, ..Installation::default() };
            Desired::new(&installation, 1).topics.iter().filter_map(need).collect()
        };
        assert_eq!(
            needs(Role::Agent),
            ["down.control r", "up.control w", "down.bulk r", "up.bulk w", "logs w", "blobs r", "artifacts w"]
                .map(|need| format!("rk.{need}"))
        );
        let all = [
            "down.control w",
            "up.control w r",
            "down.bulk w",
            "up.bulk r",
            "journal w r",
            "logs r",
            "blobs w r",
            "artifacts r",
        ];
        assert_eq!(needs(Role::Controller), all.map(|need| format!("rk.{need}")));
    }

    #[test]
    fn every_reader_passes_over_what_the_doctor_writes() {
        let prefix = Prefix::default();
        assert!(std::str::from_utf8(KEY).expect("text").parse::<AgentName>().is_err());
        for topic in [prefix.down_control(), prefix.up_control(), prefix.down_bulk(), prefix.up_bulk()] {
            let record = harmless(&prefix, &topic, 7);
            let mut value = record.value;
            assert_eq!(Header::decode(&mut value).map(|header| header.kind), Ok(Kind::Probe));
            assert_eq!(record.key, KEY);
        }
        // The first byte of a sealed record is 1.
        assert_ne!(harmless(&prefix, &prefix.journal(), 7).value[0], 1);
        assert!(harmless(&prefix, &prefix.logs(), 7).headers.is_empty());
    }
}
