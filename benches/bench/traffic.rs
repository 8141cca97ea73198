//! What passes through topics, read from the topics themselves.

use std::time::Duration;

use remoting_kafka::kafka::{At, Cluster};

use crate::stage::Stage;

/// Where each partition ended.
pub struct Marks(Vec<(String, i32, i64)>);

/// Records and their bytes, keys included.
#[derive(Default)]
pub struct Traffic {
    pub records: usize,
    pub bytes: usize,
}

impl Stage {
    /// Marks the present ends of the control topics.
    pub async fn traffic_start(&self) -> Marks {
        self.marks(&[self.prefix.down_control(), self.prefix.up_control()]).await
    }

    /// Marks the present ends of these topics.
    pub async fn marks(&self, topics: &[String]) -> Marks {
        let mut marks = Vec::new();
        for topic in topics {
            for partition in 0..i32::try_from(self.partitions).unwrap() {
                let end = self.cluster.reader(topic, partition).offset(At::Latest).await.unwrap();
                marks.push((topic.clone(), partition, end));
            }
        }
        Marks(marks)
    }

    /// What came since, of the records with a key that `counts`.
    pub async fn traffic_since(&self, marks: &Marks, counts: impl Fn(&[u8]) -> bool) -> Traffic {
        let mut total = Traffic::default();
        for mark in &marks.0 {
            let traffic = self.since(mark, &counts).await;
            total.records += traffic.records;
            total.bytes += traffic.bytes;
        }
        total
    }

    /// Bytes that all agents together read since: each one all of its down partition.
    pub async fn received_since(&self, marks: &Marks, members: &[usize]) -> usize {
        let mut received = 0;
        for mark in marks.0.iter().filter(|mark| mark.0 == self.prefix.down_control()) {
            received += self.since(mark, &|_: &[u8]| true).await.bytes * members[usize::try_from(mark.1).unwrap()];
        }
        received
    }

    async fn since(&self, mark: &(String, i32, i64), counts: &impl Fn(&[u8]) -> bool) -> Traffic {
        let (topic, partition, mut next) = mark.clone();
        let mut reader = self.cluster.reader(&topic, partition);
        let end = reader.offset(At::Latest).await.unwrap();
        let mut traffic = Traffic::default();
        while next < end {
            let fetched = reader.fetch(next, 8 << 20, Duration::from_secs(1)).await.unwrap();
            for (_, record) in fetched.records.iter().filter(|(offset, _)| *offset < end) {
                let key = &record.key[..];
                if counts(key) {
                    traffic.records += 1;
                    traffic.bytes += key.len() + record.value.len();
                }
            }
            next = fetched.next_offset;
        }
        traffic
    }
}
