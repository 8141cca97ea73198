//! Reads a part of a blob, in its order.

use std::ops::Range;

use tokio::{sync::watch, time::timeout};

use super::{
    Error,
    chunk::{CHUNK, Chunks, Seen},
    read::{FETCH_BYTES, IDLE, LIMIT, Pauses, Progress, Sink, WAIT, hung, look},
};
use crate::{
    bundle::{Archive, Place},
    kafka::{self, SharedCluster},
};

/// Reads the bytes `wanted` of a blob whose chunks were written in their order, and that lie between the first and the last offset of
/// `place`: in their order, each once, through every outage, which the caller bounds. What is out of its turn, as a writer that was
/// killed and went on leaves it, comes again in it.
pub async fn fetch_range(
    cluster: &SharedCluster,
    topic: &str,
    archive: &Archive,
    place: &Place,
    wanted: Range<u64>,
    sink: &mut impl Sink,
    progress: &watch::Sender<Progress>,
) -> Result<(), Error> {
    let whole = CHUNK as u64;
    let (mut next, end) = (wanted.start / whole, wanted.end.min(archive.size).div_ceil(whole));
    if wanted.is_empty() {
        return Ok(());
    }
    let mut pauses = Pauses::new(progress);
    let gone = |why| Error::Gone { topic: topic.to_owned(), why };
    while let Err(error) = look(cluster, topic, place).await? {
        pauses.wait(error).await;
    }
    let chunks = Chunks::new(*archive, place.key.expose());
    let (mut position, mut idle) = (place.first, 0);
    let mut reader = cluster.reader(topic, i32::try_from(place.partition).unwrap_or(i32::MAX));
    while next < end && position <= place.last {
        let fetched = timeout(LIMIT, reader.fetch(position, FETCH_BYTES, WAIT)).await;
        let fetched = match fetched.unwrap_or_else(|_| Err(hung(topic))) {
            Ok(fetched) => fetched,
            Err(kafka::Error::OffsetOutOfRange { .. }) => return Err(gone("they were deleted, or lost")),
            Err(error) if error.is_transient() => {
                pauses.wait(error).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        pauses.over();
        idle = if fetched.next_offset > position { 0 } else { idle + 1 };
        if idle == IDLE {
            return Err(gone("the log ends before them"));
        }
        position = fetched.next_offset.max(position);
        for (offset, record) in fetched.records {
            match chunks.open(&record) {
                Seen::Chunk(number, bytes) if number as u64 == next && next < end => {
                    let at = next * whole;
                    let from = wanted.start.saturating_sub(at).min(bytes.len() as u64);
                    let to = (wanted.end - at).min(bytes.len() as u64);
                    sink.put(at + from, bytes.slice(from as usize..to as usize)).await?;
                    next += 1;
                    progress.send_modify(|progress| progress.done += to - from);
                }
                Seen::Rubbish => {
                    tracing::warn!(topic, place.partition, offset, "passed over a forged record of a blob")
                }
                Seen::Chunk(..) | Seen::Other => {}
            }
        }
    }
    if next < end {
        return Err(gone("some were deleted, altered, or lost"));
    }
    Ok(())
}
