//! Walks over the chunks of a blob in the order of the log, through every outage.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Error, Progress,
    chunk::{Chunks, Seen},
};
use crate::{
    backoff::Backoff,
    bundle::{Archive, Place},
    kafka::{self, At, PartitionReader, SharedCluster},
    secret,
};

/// One fetch's worth of records: four chunks.
const FETCH_BYTES: usize = 1 << 20;
/// Everything that is asked for is there.
const WAIT: Duration = Duration::from_millis(500);
/// A fetch ends within its wait and 10 s by contract; this is the belt to those braces.
const LIMIT: Duration = Duration::from_secs(20);
/// After so many fetches in a row that bring nothing it is asked where the log ends. A broker that holds us back brings
/// nothing either, nor does a leader whose followers are not back yet.
const IDLE: u32 = 6;

/// What the next records are.
pub(super) struct Walk<'a> {
    cluster: &'a SharedCluster,
    topic: &'a str,
    place: &'a Place,
    chunks: Chunks,
    progress: &'a watch::Sender<Progress>,
    backoff: Backoff,
    reader: Box<dyn PartitionReader>,
    position: i64,
    idle: u32,
    /// Records that have the blob's name and are none of its chunks.
    pub(super) rubbish: u64,
}

impl<'a> Walk<'a> {
    /// Waits until the topic can be looked up.
    pub(super) async fn begin(
        cluster: &'a SharedCluster,
        topic: &'a str,
        archive: &Archive,
        place: &'a Place,
        progress: &'a watch::Sender<Progress>,
    ) -> Result<Self, Error> {
        let mut walk = Self {
            cluster,
            topic,
            place,
            chunks: Chunks::new(*archive, place.key.expose()),
            progress,
            backoff: Backoff::kafka(),
            reader: reader(cluster, topic, place),
            position: place.first,
            idle: 0,
            rubbish: 0,
        };
        while let Err(error) = look(walk.cluster, topic, place).await? {
            walk.pause(error).await;
        }
        Ok(walk)
    }

    /// How many chunks the blob has.
    pub(super) fn count(&self) -> usize {
        self.chunks.count()
    }

    /// The chunks of the next fetch, with their numbers; `None` behind the last offset that has one. Errors are those that
    /// waiting does not cure.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<(usize, Bytes)>>, Error> {
        if self.position > self.place.last {
            return Ok(None);
        }
        let fetched = timeout(LIMIT, self.reader.fetch(self.position, FETCH_BYTES, WAIT)).await;
        let fetched = match fetched.unwrap_or_else(|_| Err(hung(self.topic))) {
            Ok(fetched) => fetched,
            Err(kafka::Error::OffsetOutOfRange { .. }) => return Err(self.gone("they were deleted, or lost")),
            Err(error) if error.is_transient() => {
                self.pause(error).await;
                return Ok(Some(Vec::new()));
            }
            Err(error) => return Err(error.into()),
        };
        self.idle = if fetched.next_offset > self.position { 0 } else { self.idle + 1 };
        if self.idle == IDLE {
            self.idle = 0;
            match self.reader.offset(At::Latest).await {
                Ok(end) if end <= self.place.last => return Err(self.gone("the log ends before them")),
                Ok(_) => {}
                Err(error) if error.is_transient() => {
                    self.pause(error).await;
                    return Ok(Some(Vec::new()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.backoff.reset();
        self.progress.send_if_modified(|progress| progress.stalled.take().is_some());
        self.position = fetched.next_offset.max(self.position);
        let mut chunks = Vec::new();
        for (offset, record) in fetched.records {
            match self.chunks.open(&record) {
                Seen::Chunk(number, bytes) => chunks.push((number, bytes)),
                Seen::Other => {}
                Seen::Rubbish => self.pass_over(offset),
            }
        }
        Ok(Some(chunks))
    }

    /// Warns at the first and at every thousandth: whoever may write there could else fill our log.
    fn pass_over(&mut self, offset: i64) {
        if self.rubbish.is_multiple_of(1000) {
            let (topic, partition, so_far) = (self.topic, self.place.partition, self.rubbish + 1);
            tracing::warn!(topic, partition, offset, so_far, "passed over a forged record of a blob");
        }
        self.rubbish += 1;
    }

    async fn pause(&mut self, error: kafka::Error) {
        tracing::debug!(%error, "a blob can't be read, trying again");
        self.progress.send_modify(|progress| progress.stalled = Some(error));
        sleep(self.backoff.next(u64::from_ne_bytes(secret::random()))).await;
    }

    /// That its records are not there.
    pub(super) fn gone(&self, why: &'static str) -> Error {
        Error::Gone { topic: self.topic.to_owned(), why }
    }
}

/// Whether the records may still be there, judged by the topic and the ends of its log.
pub async fn is_there(cluster: &SharedCluster, topic: &str, place: &Place) -> Result<bool, Error> {
    match look(cluster, topic, place).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error.into()),
        Err(Error::Gone { .. }) => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut reader = reader(cluster, topic, place);
    Ok(reader.offset(At::Earliest).await? <= place.first && reader.offset(At::Latest).await? > place.last)
}

fn reader(cluster: &SharedCluster, topic: &str, place: &Place) -> Box<dyn PartitionReader> {
    cluster.reader(topic, i32::try_from(place.partition).unwrap_or(i32::MAX))
}

/// Whether the topic is still the one. The inner error may pass.
async fn look(cluster: &SharedCluster, topic: &str, place: &Place) -> Result<Result<(), kafka::Error>, Error> {
    let gone = |why| Err(Error::Gone { topic: topic.to_owned(), why });
    match cluster.describe(topic).await {
        Ok(found) if found.id != place.topic && found.id != 0 && place.topic != 0 => {
            gone("the topic was deleted and created anew")
        }
        Ok(found) if i64::from(place.partition) >= i64::from(found.partitions) => gone("their partition is not there"),
        Ok(_) => Ok(Ok(())),
        Err(error) if error.is_transient() => Ok(Err(error)),
        Err(error) => Err(error.into()),
    }
}

fn hung(topic: &str) -> kafka::Error {
    let code = format!("nothing within {} s", LIMIT.as_secs());
    kafka::Error::Transient { broker: topic.to_owned(), request: "Fetch", code }
}
