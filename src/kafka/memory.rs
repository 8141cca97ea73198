//! Record logs in memory, for tests and simulations: what a cluster does, without a cluster.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::{At, Cluster, Error, Fetched, PartitionReader, PartitionWriter, Record, TopicDescription};

/// A cluster in memory. Topics come into being with [`create`](Self::create). Clones share the logs.
#[derive(Clone, Default)]
pub struct MemoryCluster {
    topics: Arc<Mutex<BTreeMap<String, Topic>>>,
}

struct Topic {
    id: u128,
    partitions: Vec<Arc<Partition>>,
}

struct Partition {
    topic: String,
    index: i32,
    log: Mutex<Log>,
    appended: Notify,
}

#[derive(Default)]
struct Log {
    start: i64,
    records: std::collections::VecDeque<Record>,
    /// What was below `start`: simulations hold what readers make of the rest against the whole.
    #[cfg(test)]
    cut: Vec<Record>,
}

impl Log {
    fn end(&self) -> i64 {
        self.start + self.records.len() as i64
    }
}

impl Partition {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("no holder panics")
    }
}

impl MemoryCluster {
    /// No topics yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates `topic`, or makes it anew: with an empty log and another id.
    pub fn create(&self, topic: &str, partitions: i32) {
        let mut topics = self.topics.lock().expect("no holder panics");
        let id = topics.get(topic).map_or(1, |t| t.id + 1);
        let partitions = (0..partitions)
            .map(|index| {
                Arc::new(Partition { topic: topic.to_owned(), index, log: Mutex::default(), appended: Notify::new() })
            })
            .collect();
        topics.insert(topic.to_owned(), Topic { id, partitions });
    }

    /// Appends at once, as another writer would.
    pub fn append(&self, topic: &str, partition: i32, records: Vec<Record>) -> Result<i64, Error> {
        let partition = self.partition(topic, partition)?;
        let base = {
            let mut log = partition.log();
            let base = log.end();
            log.records.extend(records);
            base
        };
        partition.appended.notify_waiters();
        Ok(base)
    }

    /// Drops the records below `offset`, as retention does.
    pub fn truncate(&self, topic: &str, partition: i32, offset: i64) -> Result<(), Error> {
        let partition = self.partition(topic, partition)?;
        let mut log = partition.log();
        while log.start < offset
            && let Some(_cut) = log.records.pop_front()
        {
            #[cfg(test)]
            log.cut.push(_cut);
            log.start += 1;
        }
        Ok(())
    }

    /// Drops the records from `offset` on: what an unclean leader election does to acknowledged records.
    pub fn lose_tail(&self, topic: &str, partition: i32, offset: i64) -> Result<(), Error> {
        let partition = self.partition(topic, partition)?;
        let mut log = partition.log();
        let keep = usize::try_from(offset - log.start).unwrap_or(0);
        log.records.truncate(keep);
        Ok(())
    }

    /// The offset of the earliest record and the one behind the last.
    pub fn range(&self, topic: &str, partition: i32) -> Result<std::ops::Range<i64>, Error> {
        let partition = self.partition(topic, partition)?;
        let log = partition.log();
        Ok(log.start..log.end())
    }

    /// All records that ever were, from offset 0 on.
    #[cfg(test)]
    pub(crate) fn everything(&self, topic: &str, partition: i32) -> Result<Vec<Record>, Error> {
        let partition = self.partition(topic, partition)?;
        let log = partition.log();
        Ok(log.cut.iter().chain(&log.records).cloned().collect())
    }

    fn partition(&self, topic: &str, partition: i32) -> Result<Arc<Partition>, Error> {
        let topics = self.topics.lock().expect("no holder panics");
        usize::try_from(partition)
            .ok()
            .and_then(|index| topics.get(topic)?.partitions.get(index).cloned())
            .ok_or_else(|| Error::TopicMissing { topic: topic.to_owned() })
    }
}

impl Cluster for MemoryCluster {
    fn reader(&self, topic: &str, partition: i32) -> Box<dyn PartitionReader> {
        Box::new(MemoryPartition { cluster: self.clone(), topic: topic.to_owned(), partition })
    }

    fn writer(&self, topic: &str, partition: i32) -> Arc<dyn PartitionWriter> {
        Arc::new(MemoryPartition { cluster: self.clone(), topic: topic.to_owned(), partition })
    }

    fn describe<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<TopicDescription, Error>> {
        Box::pin(async move {
            let topics = self.topics.lock().expect("no holder panics");
            let found = topics.get(topic).ok_or_else(|| Error::TopicMissing { topic: topic.to_owned() })?;
            Ok(TopicDescription { id: found.id, partitions: found.partitions.len() as i32, replication: 1 })
        })
    }

    fn delete_records<'a>(&'a self, topic: &'a str, partition: i32, offset: i64) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.truncate(topic, partition, offset) })
    }
}

struct MemoryPartition {
    cluster: MemoryCluster,
    topic: String,
    partition: i32,
}

impl PartitionReader for MemoryPartition {
    fn fetch(&mut self, offset: i64, max_bytes: usize, max_wait: Duration) -> BoxFuture<'_, Result<Fetched, Error>> {
        Box::pin(async move {
            let partition = self.cluster.partition(&self.topic, self.partition)?;
            let deadline = tokio::time::Instant::now() + max_wait;
            loop {
                let appended = partition.appended.notified();
                tokio::pin!(appended);
                appended.as_mut().enable();
                let fetched = read(&partition, offset, max_bytes)?;
                if !fetched.records.is_empty() {
                    return Ok(fetched);
                }
                if tokio::time::timeout_at(deadline, appended).await.is_err() {
                    return Ok(fetched);
                }
            }
        })
    }

    fn offset(&mut self, at: At) -> BoxFuture<'_, Result<i64, Error>> {
        Box::pin(async move {
            let range = self.cluster.range(&self.topic, self.partition)?;
            Ok(match at {
                At::Earliest => range.start,
                At::Latest => range.end,
            })
        })
    }
}

impl PartitionWriter for MemoryPartition {
    fn produce(&self, records: Vec<Record>) -> BoxFuture<'_, Result<i64, Error>> {
        Box::pin(async move { self.cluster.append(&self.topic, self.partition, records) })
    }
}

fn read(partition: &Partition, offset: i64, max_bytes: usize) -> Result<Fetched, Error> {
    let log = partition.log();
    if offset < log.start || offset > log.end() {
        return Err(Error::OffsetOutOfRange { topic: partition.topic.clone(), partition: partition.index, offset });
    }
    let mut fetched = Fetched { records: Vec::new(), next_offset: offset, high_watermark: log.end() };
    let mut bytes = 0;
    for record in log.records.iter().skip((offset - log.start) as usize) {
        bytes += record.approximate_size();
        if bytes > max_bytes && !fetched.records.is_empty() {
            break;
        }
        // A copy, as a real fetch makes one: nobody may come to depend on shared buffers.
        let value = Bytes::copy_from_slice(&record.value);
        fetched.records.push((fetched.next_offset, Record { value, ..record.clone() }));
        fetched.next_offset += 1;
    }
    Ok(fetched)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_parked_fetch_wakes_when_a_record_comes() {
        let cluster = MemoryCluster::new();
        cluster.create("t", 1);
        let mut reader = cluster.reader("t", 0);
        let writer = cluster.writer("t", 0);
        let (fetched, produced) =
            tokio::join!(reader.fetch(0, 1000, SECOND), writer.produce(vec![Record::new("k", "v")]));
        assert_eq!(produced.expect("produced"), 0);
        let fetched = fetched.expect("fetched");
        assert_eq!(fetched.records, [(0, Record::new("k", "v"))]);
        assert_eq!((fetched.next_offset, fetched.high_watermark), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_offset_that_retention_took_is_out_of_range() {
        let cluster = MemoryCluster::new();
        cluster.create("t", 1);
        cluster.append("t", 0, vec![Record::new("", "1"), Record::new("", "2")]).expect("appended");
        cluster.truncate("t", 0, 1).expect("truncated");
        let mut reader = cluster.reader("t", 0);
        assert!(matches!(reader.fetch(0, 1, SECOND).await, Err(Error::OffsetOutOfRange { .. })));
        assert_eq!(reader.offset(At::Earliest).await.expect("offset"), 1);
        assert_eq!(reader.fetch(1, 1, SECOND).await.expect("fetched").records.len(), 1);
        assert!(reader.fetch(2, 1, SECOND).await.expect("waited").records.is_empty());
    }
}
