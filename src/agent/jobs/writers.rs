//! One connection for each partition of the logs, whoever ships there: a short job is over before a connection of its own
//! would have logged in.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures_util::future::BoxFuture;

use crate::kafka::{Cluster, Error, PartitionReader, PartitionWriter, SharedCluster, TopicDescription};

/// A cluster that gives out the same writer of a partition again.
struct Writers {
    cluster: SharedCluster,
    /// As many as there are partitions of the topics that are written to.
    writers: Mutex<BTreeMap<(String, i32), Arc<dyn PartitionWriter>>>,
}

/// The cluster with shared writers. Their calls may overlap.
pub fn shared(cluster: SharedCluster) -> SharedCluster {
    Arc::new(Writers { cluster, writers: Mutex::default() })
}

impl Cluster for Writers {
    fn reader(&self, topic: &str, partition: i32) -> Box<dyn PartitionReader> {
        self.cluster.reader(topic, partition)
    }

    fn writer(&self, topic: &str, partition: i32) -> Arc<dyn PartitionWriter> {
        let mut writers = self.writers.lock().expect("no holder panics");
        let writer = writers.entry((topic.to_owned(), partition));
        Arc::clone(writer.or_insert_with(|| self.cluster.writer(topic, partition)))
    }

    fn describe<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<TopicDescription, Error>> {
        self.cluster.describe(topic)
    }

    fn delete_records<'a>(&'a self, topic: &'a str, partition: i32, offset: i64) -> BoxFuture<'a, Result<(), Error>> {
        self.cluster.delete_records(topic, partition, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{Record, memory::MemoryCluster};

    #[tokio::test]
    async fn a_partition_has_one_writer_and_another_has_another() {
        let memory = MemoryCluster::new();
        memory.create("t", 2);
        let cluster = shared(Arc::new(memory.clone()));
        let [a, b, c] = [0, 0, 1].map(|partition| cluster.writer("t", partition));
        assert!(Arc::ptr_eq(&a, &b) && !Arc::ptr_eq(&a, &c));
        assert!(!Arc::ptr_eq(&cluster.writer("u", 0), &a));
        for writer in [a, b, c] {
            writer.produce(vec![Record::new("k", "v")]).await.expect("produced");
        }
        assert_eq!((memory.range("t", 0).expect("range"), memory.range("t", 1).expect("range")), (0..2, 0..1));
    }
}
