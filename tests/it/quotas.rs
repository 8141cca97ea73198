//! Clusters that hold their users back.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use remoting_kafka::kafka::{At, Cluster, KafkaCluster, Prefix, config::Mechanism};

use crate::{
    rig::{Rig, noise, run, sha256},
    support::{
        cluster::TestCluster,
        kafka,
        user::{ADMIN, AGENT, CONTROLLER},
    },
};

const QUOTAS: [(&str, f64); 2] = [("producer_byte_rate", 1_048_576.0), ("request_percentage", 20.0)];

/// Quotas of the controller's and the agents' user, as long as it lives.
struct Quotas(&'static kafka::Cluster);

impl Quotas {
    fn set(cluster: &'static kafka::Cluster) -> Self {
        let quotas = Self(cluster);
        quotas.alter(Some);
        quotas
    }

    fn alter(&self, to: impl Fn(f64) -> Option<f64>) {
        let mut admin = self.0.admin();
        for user in [CONTROLLER, AGENT] {
            for (key, value) in QUOTAS {
                admin.set_quota(user.name, key, to(value)).unwrap();
            }
        }
    }
}

impl Drop for Quotas {
    fn drop(&mut self) {
        self.alter(|_| None);
    }
}

#[test]
#[ignore = "needs Apache Kafka's quotas: make test-kafka"]
fn under_quotas_a_command_goes_on_at_their_speed_and_no_record_is_there_twice() {
    let rig = Rig::prepare("quota", 1);
    let TestCluster::Kafka(cluster) = rig.cluster else { panic!("RK_TEST_KAFKA=3 gives Apache Kafka") };
    rig.start_controller();
    let mut agent = rig.agent("a", &[]);
    let quotas = Quotas::set(cluster);
    // Kafka looks at eleven seconds: so much passes before it holds anybody back.
    let bytes = noise(16 << 20);
    let start = Instant::now();
    let ran = run(rig.rk(&["exec", "a", "--", "cat"]), &bytes).ok();
    let took = start.elapsed();
    assert_eq!((ran.stdout.len(), sha256(&ran.stdout)), (bytes.len(), sha256(&bytes)));
    println!("16 MiB there and back at 1 MiB/s took {took:.1?}");
    assert!(took > Duration::from_secs(4), "the quota was not felt: {took:?}");
    rig.run(&["exec", "a", "--", "true"]).ok();
    drop(quotas);
    assert!(agent.ended().is_none());

    // Packets are sealed under numbers of their own: no two are equal unless one was sent again by mistake.
    let prefix: Prefix = rig.prefix.parse().unwrap();
    for topic in [prefix.down_bulk(), prefix.up_bulk()] {
        let values = rig.block_on(values(&rig, &topic));
        let different: BTreeSet<&[u8]> = values.iter().map(|value| &value[..]).collect();
        assert!(!values.is_empty());
        assert_eq!(different.len(), values.len(), "{topic}: a record is there twice");
    }
}

async fn values(rig: &Rig, topic: &str) -> Vec<bytes::Bytes> {
    let brokers = rig.cluster.bootstrap().split(',').map(str::to_owned).collect();
    let cluster = KafkaCluster::new(ADMIN.kafka(Mechanism::ScramSha512, brokers, &rig.cluster.ca())).unwrap();
    let mut reader = cluster.reader(topic, 0);
    let (mut next, end) = (reader.offset(At::Earliest).await.unwrap(), reader.offset(At::Latest).await.unwrap());
    let mut values = Vec::new();
    while next < end {
        let fetched = reader.fetch(next, 4 << 20, Duration::from_secs(5)).await.unwrap();
        values.extend(fetched.records.into_iter().map(|(_, record)| record.value));
        next = fetched.next_offset;
    }
    values
}
