//! Broken topics, clocks and quotas.

use remoting_kafka::{
    broker::ListenerConfig,
    kafka::{Config, config::Mechanism},
};

use super::{Room, examine, make_topics};
use crate::{
    rig::Rig,
    support::{
        cluster::TestCluster,
        embedded::Embedded,
        kafka::admin::Admin,
        user::{ADMIN, CONTROLLER},
    },
};

/// A broker without TLS and logins, its stamps off by so many milliseconds, with the fixed topics.
fn open_broker(clock_offset_ms: i64) -> (Embedded, String) {
    let broker = Embedded::start_with(
        |_, _| {},
        move |config, _| {
            config.listener = ListenerConfig::plaintext();
            config.super_users.clear();
            config.clock_offset_ms = clock_offset_ms;
        },
    );
    let address = format!("127.0.0.1:{}", broker.port());
    make_topics(Config { brokers: vec![address.clone()], ..Config::default() }, "rk");
    (broker, address)
}

#[test]
fn a_missing_topic_is_named() {
    let (_broker, address) = open_broker(0);
    let room = Room::new();
    let examined = examine("missing topic", room.doctor(&address, &["--prefix", "other"]));
    examined.fails(1, "topic", &["other.down.control", "does not exist"]);
    let examined = examine("another number of partitions", room.doctor(&address, &["--partitions", "3"]));
    examined.fails(64, "topic", &["rk.down.control", "2 partitions"]);
}

#[test]
fn topics_with_settings_that_harm_are_named_with_the_command() {
    for (topic, key, value, parts) in [
        ("rk.up.control", "max.message.bytes", "1000", ["max.message.bytes is 1000", "1048576"]),
        ("rk.journal", "min.insync.replicas", "2", ["min.insync.replicas is 2", "1 replicas are in sync"]),
    ] {
        let (broker, address) = open_broker(0);
        Admin::connect(broker.port()).unwrap().set_topic_config(topic, key, value).unwrap();
        let examined = examine(&format!("{key} {value}"), Room::new().doctor(&address, &[]));
        examined.fails(1, "topic", &[topic, parts[0], parts[1], "kafka-configs.sh"]);
    }
}

#[test]
fn a_clock_that_is_ten_minutes_off_is_a_broken_hop() {
    for (offset, way) in [(600_000, "ahead of"), (-600_000, "behind")] {
        let (_broker, address) = open_broker(offset);
        let examined = examine(&format!("clock {way}"), Room::new().doctor(&address, &[]));
        examined.fails(1, "clock", &[way, "time server"]);
    }
    let (_broker, address) = open_broker(30_000);
    let examined = examine("clock 30 s", Room::new().doctor(&address, &[]));
    examined.warns("clock", &["ahead of"]);
}

fn apache(rig: &Rig) -> &crate::support::kafka::Cluster {
    let TestCluster::Kafka(cluster) = rig.cluster else { panic!("RK_TEST_KAFKA=3 gives Apache Kafka") };
    cluster
}

fn make(rig: &Rig) {
    let brokers = rig.cluster.bootstrap().split(',').map(str::to_owned).collect();
    make_topics(ADMIN.kafka(Mechanism::ScramSha512, brokers, &rig.cluster.ca()), &rig.prefix);
}

#[test]
#[ignore = "needs Apache Kafka's topic settings: make test-kafka"]
fn settings_that_only_apache_kafka_has_are_named() {
    for (name, key, value) in [
        ("logs", "cleanup.policy", "compact"),
        ("up.bulk", "compression.type", "zstd"),
        ("down.control", "max.message.bytes", "1000"),
        ("journal", "min.insync.replicas", "4"),
    ] {
        let rig = Rig::prepare("settings", 2);
        make(&rig);
        let topic = format!("{}.{name}", rig.prefix);
        apache(&rig).admin().set_topic_config(&topic, key, value).unwrap();
        let command = rig.kafka(rig.rk(&["doctor"]), CONTROLLER);
        let examined = examine(&format!("{key} {value}"), command);
        examined.fails(1, "topic", &[&topic, &format!("{key} is {value}"), "--add-config"]);
    }
}

#[test]
#[ignore = "needs Apache Kafka's quotas: make test-kafka"]
fn a_quota_in_force_is_told() {
    struct Quota<'a>(&'a crate::support::kafka::Cluster);
    impl Drop for Quota<'_> {
        fn drop(&mut self) {
            self.0.admin().set_quota(CONTROLLER.name, "producer_byte_rate", None).unwrap();
        }
    }
    let rig = Rig::prepare("quota", 2);
    make(&rig);
    let cluster = apache(&rig);
    cluster.admin().set_quota(CONTROLLER.name, "producer_byte_rate", Some(5.0)).unwrap();
    let quota = Quota(cluster);
    let examined = examine("quota", rig.kafka(rig.rk(&["doctor"]), CONTROLLER));
    drop(quota);
    examined.warns("quota", &["held us back", "producer_byte_rate"]);
}
