//! Partitions that are added to a topic.

use super::*;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};

fn topic(name: &str, count: i32) -> CreatePartitionsTopic {
    let name = TopicName(StrBytes::from_string(name.to_owned()));
    CreatePartitionsTopic::default().with_name(name).with_count(count).with_assignments(None)
}

#[test]
fn a_topic_grows_in_every_version_and_keeps_its_records() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Node::configured(Config { data: directory.path().to_owned(), ..Config::default() });
    let mut node = open();
    node.shared.topics.create("there", 2, Default::default(), false).unwrap();
    let id = node.shared.topics.named("there").unwrap().id;
    let settings = node.shared.topics.named("there").unwrap().settings();
    let append = |node: &Node, index| {
        let now = crate::broker::clock::now_ms();
        let topic = node.shared.topics.named("there").unwrap();
        let log = topic.partition(index).unwrap();
        log.append(&produced(&[b"x"], now, None), &settings, now).unwrap().base_offset
    };
    assert_eq!(append(&node, 1), 0);
    let mut count = 2;
    let code = |node: &mut Node, version, topics: Vec<CreatePartitionsTopic>, only| {
        let request = CreatePartitionsRequest::default().with_topics(topics).with_validate_only(only);
        node.call(&request, version).results.iter().map(|r| r.error_code).collect::<Vec<_>>()
    };
    for version in all_versions(ApiKey::CreatePartitions) {
        count += 1;
        assert_eq!(code(&mut node, version, vec![topic("there", count)], true), [0]);
        assert_eq!(node.shared.topics.named("there").unwrap().partitions.len() as i32, count - 1, "only asked");
        assert_eq!(code(&mut node, version, vec![topic("there", count)], false), [0]);
        assert_eq!(append(&node, count - 1), 0);
    }
    assert_eq!(append(&node, 1), 1, "the old partitions go on");
    drop(node);
    let mut node = open();
    let grown = node.shared.topics.named("there").unwrap();
    assert_eq!((grown.id, grown.partitions.len() as i32), (id, count));
    assert_eq!((append(&node, 1), append(&node, count - 1)), (2, 1));
    let here = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
    let elsewhere = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(2)]);
    let assigned = |n, to: &[&CreatePartitionsAssignment]| {
        vec![topic("there", count + n).with_assignments(Some(to.iter().map(|a| (*a).clone()).collect()))]
    };
    for (topics, expected) in [
        (vec![topic("there", count)], 37),
        (vec![topic("there", 1)], 37),
        (vec![topic("there", -1)], 37),
        (vec![topic("there", i32::MAX)], 37),
        (vec![topic("absent", 3)], 3),
        (vec![topic("there", count + 1), topic("there", count + 1)], 42),
        (assigned(1, &[&elsewhere]), 39),
        (assigned(1, &[&here, &here]), 39),
        (assigned(2, &[&here, &here]), 0),
    ] {
        assert_eq!(code(&mut node, 3, topics, false), [expected]);
    }
}
