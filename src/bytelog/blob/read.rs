//! Reads a blob out of a topic: the whole of it in any order, or a part in its order.

use std::{future::Future, io, ops::Range};

use bytes::Bytes;
use tokio::sync::watch;

use super::{Error, chunk::CHUNK, walk::Walk};
use crate::{
    bundle::{Archive, Place},
    kafka::{self, SharedCluster},
};

/// Takes a blob's bytes.
pub trait Sink: Send {
    /// Takes bytes that belong at `offset`. Each comes once, in any order.
    fn put(&mut self, offset: u64, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;
}

/// Forgets what it gets: only whether it is there is looked at.
pub struct Nowhere;

impl Sink for Nowhere {
    async fn put(&mut self, _: u64, _: Bytes) -> io::Result<()> {
        Ok(())
    }
}

/// How far reading came.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Bytes that were taken.
    pub done: u64,
    /// Why nothing comes now.
    pub stalled: Option<kafka::Error>,
}

/// What was passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that have the blob's name and are none of its chunks.
    pub rubbish: u64,
    /// Chunks that had come before.
    pub doubled: u64,
}

/// Reads a blob, through every outage: the caller bounds it. Errors are those that waiting does not cure.
pub async fn fetch(
    cluster: &SharedCluster,
    topic: &str,
    archive: &Archive,
    place: &Place,
    sink: &mut impl Sink,
    progress: &watch::Sender<Progress>,
) -> Result<Counts, Error> {
    let mut walk = Walk::begin(cluster, topic, archive, place, progress).await?;
    let mut missing = vec![true; walk.count()];
    let (mut left, mut doubled) = (missing.len(), 0);
    while left > 0 {
        let chunks = walk.next().await?.ok_or_else(|| walk.gone("some were deleted, or lost"))?;
        for (number, bytes) in chunks {
            if !missing[number] {
                doubled += 1;
                continue;
            }
            sink.put(number as u64 * CHUNK as u64, bytes.clone()).await?;
            missing[number] = false;
            left -= 1;
            progress.send_modify(|progress| progress.done += bytes.len() as u64);
        }
    }
    Ok(Counts { rubbish: walk.rubbish, doubled })
}

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
    let mut walk = Walk::begin(cluster, topic, archive, place, progress).await?;
    while next < end {
        let chunks = walk.next().await?.ok_or_else(|| walk.gone("some were deleted, altered, or lost"))?;
        for (number, bytes) in chunks {
            if number as u64 != next || next == end {
                continue;
            }
            let at = next * whole;
            let from = wanted.start.saturating_sub(at).min(bytes.len() as u64);
            let to = (wanted.end - at).min(bytes.len() as u64);
            sink.put(at + from, bytes.slice(from as usize..to as usize)).await?;
            next += 1;
            progress.send_modify(|progress| progress.done += to - from);
        }
    }
    Ok(())
}
