//! Writes a blob into a topic, and reads it back.

use std::{sync::Arc, time::Duration};

use ring::digest::{Context, SHA256};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    Error,
    chunk::{CHUNK, Chunks},
    read::{Nowhere, Progress, fetch},
};
use crate::{
    backoff::Backoff,
    bundle::{Archive, Digest, Place},
    job::Hidden,
    kafka::{self, PartitionWriter, Record, SharedCluster},
    secret,
};

/// Chunks in one batch: below what a topic takes.
const BATCH: usize = 3;
/// A produce ends within 40 s by contract; this is the belt to those braces.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a batch is tried while Kafka does not take it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A blob on its way into a topic. One batch is under way at a time, so that each chunk's first record stands before those of
/// the next.
pub struct Upload {
    cluster: SharedCluster,
    topic: String,
    writer: Arc<dyn PartitionWriter>,
    archive: Archive,
    chunks: Chunks,
    place: Place,
    hash: Context,
    /// Bytes that are in no record yet: a chunk at most.
    waiting: Vec<u8>,
    batch: Vec<Record>,
    /// How many bytes were put into records.
    sealed: u64,
}

impl Upload {
    /// Into a partition of `topic`.
    pub async fn new(cluster: SharedCluster, topic: &str, partition: u32, archive: Archive) -> Result<Self, Error> {
        let id = cluster.describe(topic).await?.id;
        let key = secret::random();
        let place = Place { topic: id, partition, first: i64::MAX, last: -1, key: Hidden::new(key) };
        let writer = cluster.writer(topic, i32::try_from(partition).unwrap_or(i32::MAX));
        let chunks = Chunks::new(archive, &key);
        let (topic, hash) = (topic.to_owned(), Context::new(&SHA256));
        Ok(Self {
            cluster,
            topic,
            writer,
            archive,
            chunks,
            place,
            hash,
            waiting: Vec::new(),
            batch: Vec::new(),
            sealed: 0,
        })
    }

    /// Takes the bytes that follow.
    pub async fn put(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        let taken = self.sealed + self.waiting.len() as u64;
        if taken + bytes.len() as u64 > self.archive.size {
            return Err(Error::Announced("there are more of them"));
        }
        self.hash.update(bytes);
        while !bytes.is_empty() {
            let (some, rest) = bytes.split_at(bytes.len().min(CHUNK - self.waiting.len()));
            self.waiting.extend_from_slice(some);
            bytes = rest;
            if self.waiting.len() == CHUNK {
                self.seal();
                if self.batch.len() == BATCH {
                    self.send().await?;
                }
            }
        }
        Ok(())
    }

    /// All was put. When this returns it was read back, and says where it lies.
    pub async fn finish(mut self) -> Result<Place, Error> {
        if !self.waiting.is_empty() {
            self.seal();
        }
        if self.sealed != self.archive.size {
            return Err(Error::Announced("some are missing"));
        }
        if Digest::from_ring(&self.hash.clone().finish()) != self.archive.sha256 {
            return Err(Error::Announced("their SHA-256 is another one"));
        }
        if !self.batch.is_empty() {
            self.send().await?;
        }
        // What was acknowledged is not there before somebody else could read it.
        let progress = watch::Sender::new(Progress::default());
        fetch(&self.cluster, &self.topic, &self.archive, &self.place, &mut Nowhere, &progress).await?;
        Ok(self.place)
    }

    fn seal(&mut self) {
        self.batch.push(self.chunks.seal(self.sealed, &self.waiting));
        self.sealed += self.waiting.len() as u64;
        self.waiting.clear();
    }

    async fn send(&mut self) -> Result<(), Error> {
        let batch = std::mem::take(&mut self.batch);
        let records = batch.len() as i64;
        match self.append(batch.clone()).await {
            Ok(base) => self.note(base, records),
            Err(kafka::Error::TooLarge { .. }) if batch.len() > 1 => {
                for record in batch {
                    let base = self.append(vec![record]).await?;
                    self.note(base, 1);
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn note(&mut self, base: i64, records: i64) {
        self.place.first = self.place.first.min(base);
        self.place.last = self.place.last.max(base + records - 1);
    }

    async fn append(&self, records: Vec<Record>) -> Result<i64, kafka::Error> {
        let (mut backoff, begun) = (Backoff::kafka(), Instant::now());
        loop {
            let produce = timeout(LIMIT, self.writer.produce(records.clone())).await;
            let error = match produce.unwrap_or_else(|_| Err(hung())) {
                Ok(base) => return Ok(base),
                Err(error) => error,
            };
            if !error.is_transient() || begun.elapsed() > PATIENCE {
                return Err(error);
            }
            tracing::debug!(%error, "a blob can't be written, trying again");
            sleep(backoff.next(u64::from_ne_bytes(secret::random()))).await;
        }
    }
}

pub(super) fn hung() -> kafka::Error {
    let code = format!("nothing within {} s", LIMIT.as_secs());
    kafka::Error::Transient { broker: "the leader".to_owned(), request: "Produce", code }
}
