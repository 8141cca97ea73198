//! Topic settings: Kafka's names, what they may be here, and what they mean to the log.
//!
//! Every setting of Kafka's that a client may send is known. Those that one node which keeps batches verbatim can't
//! honour are refused where ignoring them would change what is kept; the rest are kept and described, without effect.

use std::collections::BTreeMap;

/// What the broker uses where a topic does not say.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    pub retention_ms: i64,
    pub retention_bytes: i64,
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub max_message_bytes: usize,
}

/// A topic's settings as the log uses them.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// None: for ever.
    pub retention_ms: Option<i64>,
    /// None: without bound.
    pub retention_bytes: Option<u64>,
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub max_message_bytes: usize,
    pub log_append_time: bool,
    pub timestamp_after_max_ms: i64,
    pub timestamp_before_max_ms: i64,
    pub min_insync_replicas: i64,
}

/// Kafka's numbers for the types of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// One setting that a topic may have.
#[derive(Debug)]
pub(crate) struct Known {
    pub name: &'static str,
    pub kind: Kind,
    default: &'static str,
    allowed: Allowed,
}

#[derive(Debug)]
enum Allowed {
    AtLeast(i64),
    OneOf(&'static [&'static str]),
    /// The only value that is served, and why no other is.
    Only(&'static str, &'static str),
    Any,
}

/// A setting that is refused; the text names setting, value and cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub String);

use Allowed::{Any, AtLeast, OneOf, Only};

const fn known(name: &'static str, kind: Kind, default: &'static str, allowed: Allowed) -> Known {
    Known { name, kind, default, allowed }
}

/// Kafka 4.1's topic settings, by name. An empty default comes from the broker's own configuration.
static KNOWN: &[Known] = &[
    known("cleanup.policy", Kind::List, "delete", Only("delete", "the embedded broker does not compact")),
    known(
        "compression.type",
        Kind::String,
        "producer",
        Only("producer", "the embedded broker keeps batches as producers sent them"),
    ),
    known("delete.retention.ms", Kind::Long, "86400000", AtLeast(0)),
    known("file.delete.delay.ms", Kind::Long, "60000", AtLeast(0)),
    known("flush.messages", Kind::Long, "9223372036854775807", AtLeast(1)),
    known("flush.ms", Kind::Long, "9223372036854775807", AtLeast(0)),
    known("follower.replication.throttled.replicas", Kind::List, "", Any),
    known("index.interval.bytes", Kind::Int, "4096", AtLeast(0)),
    known("leader.replication.throttled.replicas", Kind::List, "", Any),
    known("local.retention.bytes", Kind::Long, "-2", AtLeast(-2)),
    known("local.retention.ms", Kind::Long, "-2", AtLeast(-2)),
    known("max.compaction.lag.ms", Kind::Long, "9223372036854775807", AtLeast(1)),
    known("max.message.bytes", Kind::Int, "", AtLeast(0)),
    known("message.timestamp.after.max.ms", Kind::Long, "3600000", AtLeast(0)),
    known("message.timestamp.before.max.ms", Kind::Long, "9223372036854775807", AtLeast(0)),
    known("message.timestamp.type", Kind::String, "CreateTime", OneOf(&["CreateTime", "LogAppendTime"])),
    known("min.cleanable.dirty.ratio", Kind::Double, "0.5", Any),
    known("min.compaction.lag.ms", Kind::Long, "0", AtLeast(0)),
    known("min.insync.replicas", Kind::Int, "1", AtLeast(1)),
    known("preallocate", Kind::Boolean, "false", OneOf(&["true", "false"])),
    known("remote.log.copy.disable", Kind::Boolean, "false", OneOf(&["true", "false"])),
    known("remote.log.delete.on.disable", Kind::Boolean, "false", OneOf(&["true", "false"])),
    known("remote.storage.enable", Kind::Boolean, "false", Only("false", "the embedded broker has no remote storage")),
    known("retention.bytes", Kind::Long, "", AtLeast(-1)),
    known("retention.ms", Kind::Long, "", AtLeast(-1)),
    known("segment.bytes", Kind::Int, "", AtLeast(14)),
    known("segment.index.bytes", Kind::Int, "10485760", AtLeast(4)),
    known("segment.jitter.ms", Kind::Long, "0", AtLeast(0)),
    known("segment.ms", Kind::Long, "", AtLeast(1)),
    known("unclean.leader.election.enable", Kind::Boolean, "false", OneOf(&["true", "false"])),
];

/// All settings, by name.
pub(crate) fn all() -> &'static [Known] {
    KNOWN
}

/// The setting of this name.
pub(crate) fn find(name: &str) -> Option<&'static Known> {
    KNOWN.binary_search_by(|k| k.name.cmp(name)).ok().map(|at| &KNOWN[at])
}

impl Known {
    /// The value of a topic that does not say.
    pub fn default_value(&self, defaults: &Defaults) -> String {
        match self.name {
            "max.message.bytes" => defaults.max_message_bytes.to_string(),
            "retention.bytes" => defaults.retention_bytes.to_string(),
            "retention.ms" => defaults.retention_ms.to_string(),
            "segment.bytes" => defaults.segment_bytes.to_string(),
            "segment.ms" => defaults.segment_ms.to_string(),
            _ => self.default.to_owned(),
        }
    }

    fn check(&self, value: &str) -> Result<(), Refused> {
        let refuse = |why: &str| Err(Refused(format!("Invalid value {value} for configuration {}: {why}", self.name)));
        match self.allowed {
            Any => Ok(()),
            Only(only, _) if value.trim() == only => Ok(()),
            Only(only, why) => refuse(&format!("{why}, use {only}")),
            OneOf(choices) if choices.iter().any(|c| c.eq_ignore_ascii_case(value.trim())) => Ok(()),
            OneOf(choices) => refuse(&format!("must be one of {}", choices.join(", "))),
            AtLeast(least) => {
                let largest = if self.kind == Kind::Int { i64::from(i32::MAX) } else { i64::MAX };
                match value.trim().parse::<i64>() {
                    Ok(number) if (least..=largest).contains(&number) => Ok(()),
                    Ok(_) => refuse(&format!("must be at least {least} and at most {largest}")),
                    Err(_) => refuse("not a number"),
                }
            }
        }
    }
}

/// Checks one setting that a client sent.
pub(crate) fn check(name: &str, value: &str) -> Result<(), Refused> {
    find(name).ok_or_else(|| Refused(format!("Unknown topic config name: {name}")))?.check(value)
}

impl Settings {
    /// What the checked settings `given` mean, with the broker's own defaults for the rest.
    pub fn new(given: &BTreeMap<String, String>, defaults: &Defaults) -> Self {
        let number = |name: &str| {
            let value = given.get(name).cloned().or_else(|| find(name).map(|k| k.default_value(defaults)));
            value.and_then(|v| v.trim().parse::<i64>().ok()).unwrap_or(0)
        };
        let bounded = |name: &str| Some(number(name)).filter(|n| *n >= 0);
        Self {
            retention_ms: bounded("retention.ms"),
            retention_bytes: bounded("retention.bytes").map(i64::cast_unsigned),
            segment_bytes: u64::try_from(number("segment.bytes")).unwrap_or(u64::MAX),
            segment_ms: number("segment.ms"),
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or(0),
            log_append_time: given
                .get("message.timestamp.type")
                .is_some_and(|t| t.trim().eq_ignore_ascii_case("LogAppendTime")),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            min_insync_replicas: number("min.insync.replicas"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn defaults() -> Defaults {
        Defaults {
            retention_ms: 604_800_000,
            retention_bytes: -1,
            segment_bytes: 1 << 26,
            segment_ms: 604_800_000,
            max_message_bytes: 1 << 20,
        }
    }

    pub(crate) fn settings(given: &[(&str, &str)]) -> Settings {
        let given = given.iter().map(|(k, v)| (String::from(*k), String::from(*v))).collect();
        Settings::new(&given, &defaults())
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_allowed() {
        assert!(KNOWN.is_sorted_by_key(|k| k.name));
        for known in KNOWN {
            assert_eq!(known.check(&known.default_value(&defaults())), Ok(()), "{}", known.name);
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_with_the_cure() {
        let refused = check("cleanup.policy", "compact").unwrap_err().0;
        assert!(refused.contains("does not compact, use delete"), "{refused}");
        assert!(check("no.such.setting", "1").is_err());
        assert!(check("segment.bytes", "9999999999").is_err());
        assert!(check("retention.ms", "-2").is_err());
        assert!(check("message.timestamp.type", "LogAppendTime").is_ok());
    }

    #[test]
    fn minus_one_keeps_for_ever() {
        assert_eq!(settings(&[("retention.ms", "-1")]).retention_ms, None);
        assert_eq!(settings(&[]).retention_ms, Some(604_800_000));
    }
}
