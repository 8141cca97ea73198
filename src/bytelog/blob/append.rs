//! Writes the chunks of a blob for who may not read them back.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::chunk::Chunks;
use crate::{
    backoff::Backoff,
    bundle::Archive,
    kafka::{self, PartitionWriter, Record, SharedCluster},
    secret,
};

/// Chunks in one batch: below what a topic takes.
pub const BATCH: usize = 3;
/// A produce ends within 40 s by contract; this is the belt to those braces.
const LIMIT: Duration = Duration::from_secs(60);

/// Appends chunks, batch after batch: those of a batch are acknowledged before the next one begins, so that what is read first
/// of each chunk is in their order.
pub struct Appender {
    writer: Arc<dyn PartitionWriter>,
    chunks: Chunks,
}

impl Appender {
    /// Into a partition of `topic`, signed with `key`.
    pub fn new(cluster: &SharedCluster, topic: &str, partition: u32, archive: Archive, key: &[u8; 32]) -> Self {
        let writer = cluster.writer(topic, i32::try_from(partition).unwrap_or(i32::MAX));
        Self { writer, chunks: Chunks::new(archive, key) }
    }

    /// Appends up to [`BATCH`] chunks, the first of which begins at `offset` of the blob, and returns the offsets that they got. Never
    /// gives up: what stands in the way is told in `stalled`, and the caller bounds it. An error is one that waiting cannot cure.
    pub async fn append(
        &self,
        offset: u64,
        pieces: &[Vec<u8>],
        stalled: &watch::Sender<Option<kafka::Error>>,
    ) -> Result<Vec<i64>, kafka::Error> {
        let mut records = Vec::with_capacity(pieces.len());
        let mut at = offset;
        for piece in pieces {
            records.push(self.chunks.seal(at, piece));
            at += piece.len() as u64;
        }
        match self.produce(records.clone(), stalled).await {
            Ok(base) => Ok((base..).take(records.len()).collect()),
            Err(kafka::Error::TooLarge { .. }) if records.len() > 1 => {
                let mut all = Vec::with_capacity(records.len());
                for record in records {
                    all.push(self.produce(vec![record], stalled).await?);
                }
                Ok(all)
            }
            Err(error) => Err(error),
        }
    }

    async fn produce(
        &self,
        records: Vec<Record>,
        stalled: &watch::Sender<Option<kafka::Error>>,
    ) -> Result<i64, kafka::Error> {
        let mut backoff = Backoff::kafka();
        loop {
            let produce = timeout(LIMIT, self.writer.produce(records.clone())).await;
            let error = match produce.unwrap_or_else(|_| Err(super::write::hung())) {
                Ok(base) => {
                    stalled.send_if_modified(|stalled| stalled.take().is_some());
                    return Ok(base);
                }
                Err(error @ kafka::Error::TooLarge { .. }) => return Err(error),
                // A right that is missing too: whoever forgot it adds it.
                Err(error) => error,
            };
            tracing::debug!(%error, "a blob can't be written, trying again");
            stalled.send_replace(Some(error));
            sleep(backoff.next(u64::from_ne_bytes(secret::random()))).await;
        }
    }
}
