//! The `kafka` layer against brokers: the embedded one, which needs nothing, and Apache Kafka (ignored: it needs Java).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod apache;
mod doors;
mod embedded;
mod journal;
mod logs;

use std::time::Duration;

use remoting_kafka::kafka::{Cluster, Config, KafkaCluster, PartitionReader, Record, config::Mechanism};
use support::user::User;

/// Where a cluster is and how to get in.
#[derive(Clone)]
struct Door {
    brokers: Vec<String>,
    ca: std::path::PathBuf,
}

impl Door {
    /// Settings for TLS and a password.
    fn config(&self, user: User, mechanism: Mechanism) -> Config {
        user.kafka(mechanism, self.brokers.clone(), &self.ca)
    }

    fn cluster(&self, user: User) -> KafkaCluster {
        KafkaCluster::new(self.config(user, Mechanism::ScramSha512)).unwrap()
    }
}

/// Reads from `offset` on until `count` records are there.
async fn read(reader: &mut dyn PartitionReader, mut offset: i64, count: usize) -> Vec<(i64, Record)> {
    let mut records = Vec::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while records.len() < count {
        assert!(tokio::time::Instant::now() < deadline, "{} records of {count}", records.len());
        match reader.fetch(offset, 1 << 20, Duration::from_millis(500)).await {
            Ok(fetched) => {
                offset = fetched.next_offset;
                records.extend(fetched.records);
            }
            Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}"),
        }
    }
    records
}

/// Appends, again and again while the error is one that passes.
async fn append(cluster: &dyn Cluster, topic: &str, records: Vec<Record>) -> i64 {
    let writer = cluster.writer(topic, 0);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match writer.produce(records.clone()).await {
            Ok(offset) => return offset,
            Err(error) if error.is_transient() && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}
