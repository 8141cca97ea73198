//! The topics of the two layouts.
//!
//! `shared`: four packet topics that serve any number of agents. `per-agent`: a topic down to each agent beside them, so
//! that Kafka keeps agents apart too. Journal, logs, blobs, artifacts and events are the same in both.

use std::time::Duration;

use super::{MIB, Topic};
use crate::{id::AgentName, kafka::Prefix};

const MINUTE: u64 = 60_000;

/// How long the archives of bundles are kept, unless told otherwise: agents have what they use, and it can be pushed again.
pub(super) const BLOBS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long the artifacts of jobs are kept, unless told otherwise.
pub(super) const ARTIFACTS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long what is stored in chunks is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    /// The archives of bundles.
    pub blobs: Duration,
    /// The artifacts of jobs.
    pub artifacts: Duration,
}

impl Default for Kept {
    fn default() -> Self {
        Self { blobs: BLOBS_KEPT, artifacts: ARTIFACTS_KEPT }
    }
}

/// What a batch may take; what is packed stays far below.
const MAX_MESSAGE: u64 = MIB;

/// Partitions of a topic down to one agent: 0 is its control lane, 1 its bulk lane.
const LANES: i32 = 2;

/// The topics of the `shared` layout with `partitions` partitions a lane, on a cluster of `brokers` brokers.
pub(super) fn shared(prefix: &Prefix, partitions: i32, brokers: usize, how_long: Kept) -> Vec<Topic> {
    let replication = replicas(brokers);
    // What is acknowledged must be on two disks, where there are three.
    let kept = ("min.insync.replicas", if replication == 3 { "2" } else { "1" }.to_owned());
    let journal = Topic {
        name: prefix.journal(),
        partitions: 1,
        replication,
        settings: settings(&[
            // Kept for ever; cut by the controller, up to a snapshot.
            ("retention.ms", "-1".to_owned()),
            ("retention.bytes", "-1".to_owned()),
            kept.clone(),
        ]),
    };
    let logs = Topic {
        name: prefix.logs(),
        partitions,
        replication,
        settings: settings(&[
            ("retention.ms", (7 * 24 * 60 * MINUTE).to_string()),
            ("retention.bytes", "-1".to_owned()),
            // An agent cuts its spool when a record was acknowledged.
            kept.clone(),
        ]),
    };
    // Who writes one of them has no right on the other: agents cannot hinder the code of others.
    let chunks = [(prefix.blobs(), how_long.blobs), (prefix.artifacts(), how_long.artifacts)];
    let [blobs, artifacts] = chunks.map(|(name, how_long)| Topic {
        name,
        partitions,
        replication,
        settings: settings(&[
            ("retention.ms", how_long.as_millis().to_string()),
            ("retention.bytes", "-1".to_owned()),
            kept.clone(),
        ]),
    });
    vec![
        packets(prefix.down_control(), partitions, replication, 256 * MIB),
        packets(prefix.up_control(), partitions, replication, 256 * MIB),
        packets(prefix.down_bulk(), partitions, replication, 1024 * MIB),
        packets(prefix.up_bulk(), partitions, replication, 1024 * MIB),
        journal,
        logs,
        blobs,
        artifacts,
    ]
}

/// The topic in which other systems read what happens to agents and jobs.
pub(super) fn events(prefix: &Prefix, brokers: usize) -> Topic {
    let replication = replicas(brokers);
    let settings = settings(&[
        ("retention.ms", (7 * 24 * 60 * MINUTE).to_string()),
        // Whoever reaches the API's port adds to it: each wrong token is an event.
        ("retention.bytes", (1024 * MIB).to_string()),
        ("segment.bytes", (64 * MIB).to_string()),
        ("min.insync.replicas", if replication == 3 { "2" } else { "1" }.to_owned()),
    ]);
    // One partition: all events have one order.
    Topic { name: prefix.events(), partitions: 1, replication, settings }
}

/// The topic down to one agent of the `per-agent` layout.
pub(super) fn of_agent(prefix: &Prefix, agent: &AgentName, brokers: usize) -> Topic {
    packets(prefix.agent_down(agent), LANES, replicas(brokers), 256 * MIB)
}

fn replicas(brokers: usize) -> i16 {
    i16::try_from(brokers.clamp(1, 3)).unwrap_or(3)
}

fn packets(name: String, partitions: i32, replication: i16, bytes: u64) -> Topic {
    let settings = settings(&[
        ("retention.ms", (15 * MINUTE).to_string()),
        ("retention.bytes", bytes.to_string()),
        ("segment.ms", (5 * MINUTE).to_string()),
        ("segment.bytes", (64 * MIB).to_string()),
        // QUIC copes with a lost tail: being there counts for more.
        ("min.insync.replicas", "1".to_owned()),
    ]);
    Topic { name, partitions, replication, settings }
}

fn settings(own: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let common = [
        ("cleanup.policy", "delete".to_owned()),
        // Packets do not compress, and readers expect what writers wrote.
        ("compression.type", "producer".to_owned()),
        // A writer's clock may be wrong: a stamp too far ahead would be refused, one too far behind deleted.
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("max.message.bytes", MAX_MESSAGE.to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
    common.into_iter().chain(own.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_brokers_keep_three_replicas_and_what_must_not_be_lost_wants_two_of_them() {
        let topics = shared(&Prefix::default(), 8, 5, Kept::default());
        let seen: Vec<_> = topics
            .iter()
            .map(|t| (t.name.as_str(), t.partitions, t.replication, t.setting("min.insync.replicas")))
            .collect();
        assert_eq!(
            seen,
            [
                ("rk.down.control", 8, 3, Some("1")),
                ("rk.up.control", 8, 3, Some("1")),
                ("rk.down.bulk", 8, 3, Some("1")),
                ("rk.up.bulk", 8, 3, Some("1")),
                ("rk.journal", 1, 3, Some("2")),
                ("rk.logs", 8, 3, Some("2")),
                ("rk.blobs", 8, 3, Some("2")),
                ("rk.artifacts", 8, 3, Some("2")),
            ]
        );
    }

    #[test]
    fn fewer_brokers_keep_as_many_replicas_as_there_are() {
        for (brokers, replication) in [(0, 1), (1, 1), (2, 2), (3, 3)] {
            for topic in shared(&Prefix::default(), 8, brokers, Kept::default()) {
                assert_eq!(topic.replication, replication, "{brokers}");
                let kept = ["rk.journal", "rk.logs", "rk.blobs", "rk.artifacts"].contains(&topic.name.as_str());
                let insync = if replication == 3 && kept { "2" } else { "1" };
                assert_eq!(topic.setting("min.insync.replicas"), Some(insync));
            }
        }
    }

    #[test]
    fn the_disk_that_packets_take_is_bounded() {
        let topics = shared(&Prefix::default(), 8, 1, Kept::default());
        let most: Vec<_> = topics.iter().map(Topic::most_bytes).collect();
        assert_eq!(
            most,
            [
                Some(8 * 320 * MIB),
                Some(8 * 320 * MIB),
                Some(8 * 1088 * MIB),
                Some(8 * 1088 * MIB),
                None,
                None,
                None,
                None
            ]
        );
    }

    #[test]
    fn events_are_kept_for_a_week_and_on_a_bounded_disk() {
        let topic = events(&Prefix::default(), 3);
        assert_eq!((topic.name.as_str(), topic.partitions, topic.replication), ("rk.events", 1, 3));
        let seen = ["cleanup.policy", "retention.ms", "min.insync.replicas"].map(|key| topic.setting(key));
        assert_eq!(seen, [Some("delete"), Some("604800000"), Some("2")]);
        assert_eq!(topic.most_bytes(), Some(3 * 1088 * MIB));
        assert_eq!(events(&Prefix::default(), 1).setting("min.insync.replicas"), Some("1"));
    }

    #[test]
    fn an_agents_own_topic_has_a_partition_for_each_lane_and_is_bounded() {
        let topic = of_agent(&Prefix::default(), &"a".parse().expect("a name"), 3);
        assert_eq!((topic.name.as_str(), topic.partitions, topic.replication), ("rk.agent.a.down", 2, 3));
        assert_eq!(topic.most_bytes(), Some(2 * 3 * 320 * MIB));
        assert_eq!(topic.setting("retention.ms"), Some("900000"));
    }
}
