//! The comparison. Pure: what is wanted and what was found go in, a list comes out.

use std::collections::{BTreeMap, BTreeSet};

use super::{Desired, Difference, Found, Seen, Topic};
use crate::kafka::{
    FoundTopic,
    acl::{
        Acl,
        Operation::{self, All, Alter, AlterConfigs, Delete, Read, Write},
        Permission,
    },
};

/// How `found` differs from `desired`: first the topics in their order, then the access rules, then the users, and last
/// what is only worth a warning. The same arguments give the same list.
pub fn plan(desired: &Desired, found: &Found) -> Vec<Difference> {
    let mut list = Vec::new();
    for topic in &desired.topics {
        match found.topics.get(&topic.name) {
            Some(there) => list.extend(of_topic(topic, there, found)),
            None => list.push(Difference::CreateTopic(topic.clone())),
        }
    }
    list.extend(of_acls(desired, found));
    list.extend(of_users(desired, found));
    list.extend(orphans(desired, found));
    if found.brokers < 3 {
        list.push(Difference::FewBrokers(found.brokers));
    }
    // Stable: the order within each of the two stays.
    list.sort_by_key(|difference| !difference.counts());
    list
}

fn of_topic(topic: &Topic, there: &FoundTopic, found: &Found) -> Vec<Difference> {
    let mut list = Vec::new();
    let name = || topic.name.clone();
    if there.partitions != topic.partitions {
        list.push(Difference::Partitions { topic: name(), found: there.partitions, wanted: topic.partitions });
    }
    if there.replication < topic.replication {
        list.push(Difference::Replication { topic: name(), found: there.replication, wanted: topic.replication });
    }
    match found.settings.get(&topic.name) {
        Some(settings) => {
            list.extend(of_settings(topic, there, settings));
            list.extend(of_quorum(there, settings));
        }
        None => list.push(Difference::UnseenSettings { topic: name(), principal: found.principal.clone() }),
    }
    list
}

fn of_settings(topic: &Topic, there: &FoundTopic, settings: &BTreeMap<String, String>) -> Vec<Difference> {
    let wrong = |(key, wanted): &(&'static str, String)| {
        let found = settings.get(*key)?;
        // More acknowledgements than a topic with too few replicas can give would stop its writes.
        let too_few = *key == "min.insync.replicas" && there.replication < topic.replication;
        if too_few || fits(topic, key, wanted, found) {
            return None;
        }
        Some(Difference::Setting { topic: topic.name.clone(), key, found: found.clone(), wanted: wanted.clone() })
    };
    topic.settings.iter().filter_map(wrong).collect()
}

/// Whether `found` serves as well as what is wanted. What keeps more than we need is left alone.
fn fits(topic: &Topic, key: &str, wanted: &str, found: &str) -> bool {
    let numbers = || Some((found.parse::<i64>().ok()?, wanted.parse::<i64>().ok()?));
    let at_least = || numbers().is_some_and(|(found, wanted)| found >= wanted);
    match key {
        "max.message.bytes" | "min.insync.replicas" => at_least(),
        // −1 is for ever.
        "retention.ms" => found == "-1" || (wanted != "-1" && at_least()),
        // Where time bounds what is kept, a bound on the disk beside it is the operator's choice.
        "retention.bytes" if wanted == "-1" => found == "-1" || topic.setting("retention.ms") != Some("-1"),
        "retention.bytes" => found == "-1" || at_least(),
        "segment.ms" | "segment.bytes" => numbers().is_some_and(|(found, wanted)| found <= wanted),
        _ => found == wanted,
    }
}

fn of_quorum(there: &FoundTopic, settings: &BTreeMap<String, String>) -> Option<Difference> {
    let needed = settings.get("min.insync.replicas")?.parse::<i16>().ok()?;
    let topic = there.name.clone();
    if needed > there.in_sync {
        Some(Difference::Blocked { topic, needed, in_sync: there.in_sync })
    } else if needed > 1 && needed == there.replication {
        Some(Difference::Fragile { topic, replication: there.replication })
    } else {
        None
    }
}

fn of_acls(desired: &Desired, found: &Found) -> Vec<Difference> {
    if desired.acls.is_empty() {
        return Vec::new();
    }
    let acls = match &found.acls {
        Seen::Unasked => return Vec::new(),
        Seen::Absent => return vec![Difference::NoAuthorizer],
        Seen::Refused(detail) => {
            return vec![Difference::UnseenAcls { needed: desired.acls.clone(), detail: detail.clone() }];
        }
        Seen::Known(acls) => acls,
    };
    let mut list = Vec::new();
    for needed in &desired.acls {
        if let Some(by) = acls.iter().find(|acl| acl.denies(needed)) {
            list.push(Difference::Denied { needed: needed.clone(), by: by.clone() });
        } else if !acls.iter().any(|acl| acl.grants(needed)) {
            list.push(Difference::AddAcl(needed.clone()));
        }
    }
    let topics: BTreeSet<&str> = desired.topics.iter().map(|topic| topic.name.as_str()).collect();
    let narrow = acls.iter().filter(|acl| desired.narrow.contains(&acl.principal));
    list.extend(narrow.filter_map(|acl| {
        let topic = topics.iter().find(|topic| is_wide(acl, topic, &desired.acls))?;
        Some(Difference::WideAcl { acl: acl.clone(), topic: (*topic).to_owned() })
    }));
    list
}

/// Whether a rule allows something that does harm on a topic, and that its principal does not need there.
fn is_wide(acl: &Acl, topic: &str, needed: &[Acl]) -> bool {
    const HARM: [Operation; 5] = [Read, Write, Delete, Alter, AlterConfigs];
    acl.permission == Permission::Allow
        && acl.is_about_topic(topic)
        && HARM.iter().filter(|operation| acl.operation == All || acl.operation == **operation).any(|operation| {
            let step = Acl::on_topic(&acl.principal, topic, *operation);
            !needed.iter().any(|needed| needed.grants(&step))
        })
}

fn of_users(desired: &Desired, found: &Found) -> Vec<Difference> {
    if desired.users.is_empty() {
        return Vec::new();
    }
    match &found.users {
        Seen::Unasked => Vec::new(),
        Seen::Absent => vec![Difference::NoUsers],
        Seen::Refused(detail) => {
            vec![Difference::UnseenUsers { needed: desired.users.clone(), detail: detail.clone() }]
        }
        Seen::Known(users) => {
            let missing = desired.users.iter().filter(|user| !users.contains(*user));
            missing.cloned().map(Difference::AddUser).collect()
        }
    }
}

fn orphans(desired: &Desired, found: &Found) -> Vec<Difference> {
    let orphan = |topic: &String| {
        let agent = desired.prefix.agent_of(topic)?;
        let known = desired.per_agent.as_ref().is_some_and(|known| known.contains(&agent));
        (!known).then(|| Difference::Orphan { topic: topic.clone(), agent: agent.to_string() })
    };
    found.topics.keys().filter_map(orphan).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
