//! What is compared, case by case.

use super::*;
use crate::kafka::{
    acl::{ANY_NAME, EVERYBODY},
    topics::{Installation, Mend, commands},
};

fn installation() -> Installation {
    Installation { partitions: 8, ..Installation::default() }
}

fn with_rights() -> Installation {
    Installation {
        agents_as: Some("User:agent".to_owned()),
        controller_as: Some("User:controller".to_owned()),
        per_agent: Some(["a", "b"].map(|name| name.parse().expect("a name")).into()),
        ..installation()
    }
}

/// A cluster of three brokers that is as it has to be.
fn as_wanted(desired: &Desired) -> Found {
    let mut found = Found {
        principal: "User:me".to_owned(),
        brokers: 3,
        acls: Seen::Known(desired.acls.clone()),
        users: Seen::Known(desired.users.iter().cloned().collect()),
        ..Found::default()
    };
    for topic in &desired.topics {
        let Topic { name, partitions, replication, settings } = topic.clone();
        let settings = settings.into_iter().map(|(key, value)| (key.to_owned(), value));
        found.settings.insert(name.clone(), settings.collect());
        found.topics.insert(name.clone(), FoundTopic { name, partitions, replication, in_sync: replication });
    }
    found
}

/// What is said about a cluster that is as it has to be but for a change.
fn after(installation: &Installation, change: impl FnOnce(&mut Found)) -> Vec<Difference> {
    let desired = Desired::new(installation, 3);
    let mut found = as_wanted(&desired);
    change(&mut found);
    let list = plan(&desired, &found);
    assert_eq!(list, plan(&desired, &found), "the same arguments give the same list");
    list
}

fn set(found: &mut Found, topic: &str, key: &str, value: &str) {
    let settings = found.settings.get_mut(topic).expect("it is there");
    settings.insert(key.to_owned(), value.to_owned());
}

fn topic<'a>(found: &'a mut Found, topic: &str) -> &'a mut FoundTopic {
    found.topics.get_mut(topic).expect("it is there")
}

#[test]
fn nothing_is_said_of_a_cluster_that_is_as_it_has_to_be() {
    assert_eq!(after(&installation(), |_| ()), []);
    assert_eq!(after(&with_rights(), |_| ()), []);
}

#[test]
fn an_empty_cluster_lacks_everything_in_a_fixed_order() {
    let desired = Desired::new(&with_rights(), 3);
    let found =
        Found { brokers: 3, acls: Seen::Known(Vec::new()), users: Seen::Known(BTreeSet::new()), ..Found::default() };
    let list = plan(&desired, &found);
    let count = |kind: &str| list.iter().filter(|difference| difference.kind() == kind).count();
    assert_eq!((count("create_topic"), count("add_acl"), count("add_user")), (10, 14 + 7 + 2 * 12, 2));
    assert_eq!(list.len(), 10 + 45 + 2);
    assert_eq!(list[0].topic(), Some("rk.down.control"));
    let none = Found { brokers: 3, ..Found::default() };
    assert_eq!(plan(&Desired::new(&installation(), 3), &none).len(), 8, "without principals no rights are planned");
}

#[test]
fn settings_are_compared_by_what_they_are_for() {
    for (topic, key, value, mended) in [
        ("rk.down.control", "cleanup.policy", "compact", true),
        ("rk.down.control", "compression.type", "zstd", true),
        ("rk.down.control", "message.timestamp.type", "CreateTime", true),
        ("rk.down.control", "unclean.leader.election.enable", "true", true),
        ("rk.down.control", "max.message.bytes", "1000", true),
        ("rk.down.control", "max.message.bytes", "8388608", false),
        ("rk.down.control", "retention.ms", "1000", true),
        ("rk.down.control", "retention.ms", "86400000", false),
        ("rk.down.control", "retention.ms", "-1", false),
        ("rk.down.control", "retention.bytes", "1", true),
        ("rk.down.control", "retention.bytes", "99999999999", false),
        ("rk.down.control", "retention.bytes", "-1", false),
        ("rk.down.control", "segment.bytes", "1073741824", true),
        ("rk.down.control", "segment.bytes", "1048576", false),
        ("rk.down.control", "segment.ms", "604800000", true),
        ("rk.down.control", "flush.ms", "1", false),
        ("rk.logs", "min.insync.replicas", "1", true),
        ("rk.logs", "retention.ms", "3600000", true),
        // The operator bounds what logs take; the journal has no such bound.
        ("rk.logs", "retention.bytes", "1073741824", false),
        ("rk.journal", "retention.bytes", "1073741824", true),
        ("rk.journal", "retention.ms", "604800000", true),
    ] {
        let list = after(&installation(), |found| set(found, topic, key, value));
        let expected: Vec<&str> = if mended { vec![key] } else { vec![] };
        let keys: Vec<&str> = list
            .iter()
            .map(|difference| match difference {
                Difference::Setting { key, found, .. } if found == value => *key,
                other => panic!("{topic} {key}={value}: {other}"),
            })
            .collect();
        assert_eq!(keys, expected, "{topic} {key}={value}");
    }
}

#[test]
fn partitions_and_replicas_are_told_and_never_changed() {
    for (partitions, text) in [(4, "has 4 partitions and 8 are wanted"), (16, "has 16 partitions and 8 are wanted")] {
        let list = after(&installation(), |found| topic(found, "rk.logs").partitions = partitions);
        assert_eq!((list.len(), list[0].mend()), (1, Mend::ByHand));
        assert!(list[0].to_string().contains(text), "{}", list[0]);
    }
    let list = after(&installation(), |found| {
        let topic = topic(found, "rk.down.bulk");
        (topic.replication, topic.in_sync) = (1, 1);
    });
    assert_eq!((list.len(), list[0].mend()), (1, Mend::ByHand));
    assert!(list[0].to_string().contains("kafka-reassign-partitions"), "{}", list[0]);
    let more = |found: &mut Found| (topic(found, "rk.logs").replication, topic(found, "rk.logs").in_sync) = (5, 5);
    assert_eq!(after(&installation(), more), []);
}

#[test]
fn a_topic_with_one_replica_is_not_told_to_wait_for_two() {
    // It was made when the cluster had one broker.
    let list = after(&installation(), |found| {
        let topic = topic(found, "rk.logs");
        (topic.replication, topic.in_sync) = (1, 1);
        set(found, "rk.logs", "min.insync.replicas", "1");
    });
    assert_eq!(list.iter().map(Difference::kind).collect::<Vec<_>>(), ["replication"]);
}

#[test]
fn replicas_that_are_too_few_for_writes_are_a_warning_with_its_reason() {
    let list = after(&installation(), |found| topic(found, "rk.logs").in_sync = 1);
    assert_eq!(list, [Difference::Blocked { topic: "rk.logs".to_owned(), needed: 2, in_sync: 1 }]);
    assert!(!list[0].counts() && list[0].to_string().contains("takes no writes now"), "{}", list[0]);
    let list = after(&installation(), |found| set(found, "rk.logs", "min.insync.replicas", "3"));
    assert_eq!(list, [Difference::Fragile { topic: "rk.logs".to_owned(), replication: 3 }]);
    let desired = Desired::new(&installation(), 1);
    let list = plan(&desired, &Found { brokers: 1, ..as_wanted(&desired) });
    assert_eq!(list, [Difference::FewBrokers(1)]);
}

#[test]
fn what_we_may_not_see_is_told_and_counts() {
    let list = after(&with_rights(), |found| {
        found.settings.remove("rk.logs");
        found.acls = Seen::Refused("User:me needs Describe on the cluster".to_owned());
        found.users = Seen::Refused("User:me needs Describe on the cluster".to_owned());
    });
    let kinds: Vec<_> = list.iter().map(Difference::kind).collect();
    assert_eq!(kinds, ["unseen_settings", "unseen_acls", "unseen_users"]);
    assert!(list.iter().all(|difference| difference.mend() == Mend::ByHand));
    assert!(list[0].to_string().contains("User:me may not read them (DescribeConfigs)"), "{}", list[0]);
    // Somebody who may see them needs the commands nevertheless.
    let commands = commands::of_differences(&list, "k:1");
    assert!(commands.contains("--operation Read --operation Describe --topic rk.agent.a.down\n"), "{commands}");
    assert!(commands.contains("--entity-name rk-agent-b --add-config"), "{commands}");
}

#[test]
fn a_cluster_without_an_authorizer_is_a_warning() {
    let list = after(&with_rights(), |found| (found.acls, found.users) = (Seen::Absent, Seen::Absent));
    assert_eq!(list, [Difference::NoAuthorizer, Difference::NoUsers]);
    assert!(list.iter().all(|difference| !difference.counts()));
}

#[test]
fn a_missing_rule_is_one_that_no_other_rule_covers() {
    let read = Acl::on_topic("User:agent", "rk.down.bulk", Read);
    let without = |found: &mut Found, more: &[Acl]| {
        let Seen::Known(acls) = &mut found.acls else { panic!("they are known") };
        acls.retain(|acl| *acl != read);
        acls.extend(more.iter().cloned());
    };
    assert_eq!(after(&with_rights(), |found| without(found, &[])), [Difference::AddAcl(read.clone())]);
    let wider = Acl::on_topics_below("User:agent", "rk.down.", Read);
    assert_eq!(after(&with_rights(), |found| without(found, &[wider])), []);
    let everybody = Acl { principal: EVERYBODY.to_owned(), ..read.clone() };
    assert_eq!(after(&with_rights(), |found| without(found, &[everybody])), []);
    let deny = Acl { permission: Permission::Deny, ..Acl::on_topic(EVERYBODY, ANY_NAME, Read) };
    let list = after(&with_rights(), |found| without(found, &[deny]));
    assert!(list.iter().all(|difference| matches!(difference, Difference::Denied { .. })), "{list:?}");
    assert_eq!(
        list.len(),
        8,
        "two lanes, two agents with topics of their own, the controller, and blobs for each agent"
    );
}

#[test]
fn only_an_agents_rules_on_our_topics_can_be_too_wide() {
    let with = |acl: Acl| {
        after(&with_rights(), |found| {
            let Seen::Known(acls) = &mut found.acls else { panic!("they are known") };
            acls.push(acl);
        })
    };
    for (acl, topic) in [
        (Acl::on_topic("User:agent", "rk.journal", Read), Some("rk.journal")),
        (Acl::on_topics_below("User:agent", "rk.", Operation::Write), Some("rk.agent.a.down")),
        (Acl::on_topic("User:agent", ANY_NAME, All), Some("rk.agent.a.down")),
        (Acl::on_topic("User:rk-agent-a", "rk.agent.b.down", Read), Some("rk.agent.b.down")),
        (Acl::on_topic("User:rk-agent-a", "rk.logs", Delete), Some("rk.logs")),
        (Acl::on_topic("User:agent", "rk.journal", Operation::Describe), None),
        (Acl::on_topic("User:agent", "other.topic", All), None),
        (Acl::on_topics_below("User:agent", "rk.down.", Read), None),
        (Acl::on_topic("User:controller", "rk.journal", All), None),
        (Acl::on_topic("User:somebody", "rk.journal", All), None),
    ] {
        let list = with(acl.clone());
        let expected = topic.map(|topic| Difference::WideAcl { acl: acl.clone(), topic: topic.to_owned() });
        assert_eq!(list, expected.into_iter().collect::<Vec<_>>(), "{acl}");
        assert!(list.iter().all(|difference| !difference.counts()));
    }
}

#[test]
fn a_topic_of_an_agent_that_is_not_known_is_an_orphan_and_no_more_than_that() {
    let gone = "rk.agent.gone.down";
    let add = |found: &mut Found| {
        for name in [gone, "rk.agent.a.down", "rk.agent.x.y.down", "rk.mine", "rk2.agent.z.down"] {
            let there = FoundTopic { name: name.to_owned(), partitions: 2, replication: 3, in_sync: 3 };
            found.topics.entry(name.to_owned()).or_insert(there);
        }
    };
    let list = after(&with_rights(), add);
    assert_eq!(list, [Difference::Orphan { topic: gone.to_owned(), agent: "gone".to_owned() }]);
    assert!(!list[0].counts());
}

#[test]
fn a_user_without_a_login_is_named() {
    let list = after(&with_rights(), |found| found.users = Seen::Known(["rk-agent-a".to_owned()].into()));
    assert_eq!(list, [Difference::AddUser("rk-agent-b".to_owned())]);
    assert_eq!(list[0].mend(), Mend::ByHand);
}

#[test]
fn the_most_disk_that_packets_take_is_known() {
    let most = Desired::new(&installation(), 3).most_bytes();
    assert_eq!(most, 3 * 8 * 2 * (320 + 1088) * (1 << 20));
}
