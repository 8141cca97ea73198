//! The fixed topics: what they have to be like, and the commands that make them. Pure; [`ensure`] does it.

mod ensure;

use super::Prefix;

pub use ensure::{Report, ensure};

const MINUTE: u64 = 60_000;
const MIB: u64 = 1 << 20;

/// What a batch may take; what is packed stays far below.
const MAX_MESSAGE: u64 = MIB;

/// A topic as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The name.
    pub name: String,
    /// The number of partitions, fixed for ever: an agent's partition depends on it.
    pub partitions: i32,
    /// The number of replicas.
    pub replication: i16,
    /// Kafka's settings by name.
    pub settings: Vec<(&'static str, String)>,
}

/// The topics of an installation with `partitions` partitions a lane, on a cluster of `brokers` brokers.
pub fn plan(prefix: &Prefix, partitions: i32, brokers: usize) -> Vec<Topic> {
    let replication = i16::try_from(brokers.clamp(1, 3)).unwrap_or(3);
    let packets = |name: String, bytes: u64| Topic {
        name,
        partitions,
        replication,
        settings: settings(&[
            ("retention.ms", (15 * MINUTE).to_string()),
            ("retention.bytes", bytes.to_string()),
            ("segment.ms", (5 * MINUTE).to_string()),
            ("segment.bytes", (64 * MIB).to_string()),
            // QUIC copes with a lost tail: being there counts for more.
            ("min.insync.replicas", "1".to_owned()),
        ]),
    };
    let journal = Topic {
        name: prefix.journal(),
        partitions: 1,
        replication,
        settings: settings(&[
            // Kept for ever; cut by the controller, up to a snapshot.
            ("retention.ms", "-1".to_owned()),
            ("retention.bytes", "-1".to_owned()),
            ("min.insync.replicas", if replication == 3 { "2" } else { "1" }.to_owned()),
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
            ("min.insync.replicas", if replication == 3 { "2" } else { "1" }.to_owned()),
        ]),
    };
    vec![
        packets(prefix.down_control(), 256 * MIB),
        packets(prefix.up_control(), 256 * MIB),
        packets(prefix.down_bulk(), 1024 * MIB),
        packets(prefix.up_bulk(), 1024 * MIB),
        journal,
        logs,
    ]
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

impl Topic {
    /// A setting by its name.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// The most disk that all replicas take together; `None` where nothing bounds it.
    pub fn most_bytes(&self) -> Option<u64> {
        let number = |name| self.setting(name)?.parse::<u64>().ok();
        // Retention deletes whole segments, and never the one that is being written.
        let partition = number("retention.bytes")? + number("segment.bytes").unwrap_or(1024 * MIB);
        Some(partition * u64::try_from(self.partitions).ok()? * u64::try_from(self.replication).ok()?)
    }

    /// The command that creates it.
    pub fn command(&self, bootstrap: &str) -> String {
        let Self { name, partitions, replication, .. } = self;
        let settings: String = self.settings.iter().map(|(key, value)| format!(" --config {key}={value}")).collect();
        format!(
            "kafka-topics.sh --bootstrap-server {bootstrap} --create --if-not-exists --topic {name} \
             --partitions {partitions} --replication-factor {replication}{settings}"
        )
    }
}

/// The commands that create `topics`, one a line; they leave alone what is there.
pub fn commands(topics: &[Topic], bootstrap: &str) -> String {
    topics.iter().map(|topic| topic.command(bootstrap) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_brokers_keep_three_replicas_and_what_must_not_be_lost_wants_two_of_them() {
        let topics = plan(&Prefix::default(), 8, 5);
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
            ]
        );
    }

    #[test]
    fn fewer_brokers_keep_as_many_replicas_as_there_are() {
        for (brokers, replication) in [(0, 1), (1, 1), (2, 2), (3, 3)] {
            for topic in plan(&Prefix::default(), 8, brokers) {
                assert_eq!(topic.replication, replication, "{brokers}");
                let insync = if replication == 3 && ["rk.journal", "rk.logs"].contains(&topic.name.as_str()) {
                    "2"
                } else {
                    "1"
                };
                assert_eq!(topic.setting("min.insync.replicas"), Some(insync));
            }
        }
    }

    #[test]
    fn a_command_carries_every_setting() {
        let prefix: Prefix = "ci".parse().expect("a prefix");
        let topics = plan(&prefix, 4, 3);
        assert_eq!(
            topics[0].command("k1:9092"),
            "kafka-topics.sh --bootstrap-server k1:9092 --create --if-not-exists --topic ci.down.control \
             --partitions 4 --replication-factor 3 --config cleanup.policy=delete --config compression.type=producer \
             --config message.timestamp.type=LogAppendTime --config max.message.bytes=1048576 \
             --config unclean.leader.election.enable=false --config retention.ms=900000 \
             --config retention.bytes=268435456 --config segment.ms=300000 --config segment.bytes=67108864 \
             --config min.insync.replicas=1"
        );
        assert_eq!(commands(&topics, "k1:9092").lines().count(), 6);
    }

    #[test]
    fn the_disk_that_packets_take_is_bounded() {
        let topics = plan(&Prefix::default(), 8, 1);
        let most: Vec<_> = topics.iter().map(Topic::most_bytes).collect();
        assert_eq!(
            most,
            [Some(8 * 320 * MIB), Some(8 * 320 * MIB), Some(8 * 1088 * MIB), Some(8 * 1088 * MIB), None, None]
        );
    }
}
