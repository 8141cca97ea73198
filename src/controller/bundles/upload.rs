//! Archives on their way into the topic.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{MutexGuard as Held, Semaphore, SemaphorePermit},
    time::Instant,
};

use crate::bundle::{Archive, Place};

/// How many are written at once.
const AT_ONCE: usize = 4;
/// How long one that was written waits to become a part of a bundle.
const KEPT: Duration = Duration::from_secs(3600);
/// How many wait.
const MOST: usize = 256;

/// All of them.
pub struct Uploads {
    slots: Semaphore,
    /// One is written into a partition at a time, so that nobody who reads it reads another.
    partitions: Vec<tokio::sync::Mutex<()>>,
    written: Mutex<BTreeMap<Archive, (Instant, Place)>>,
}

/// Leave to write one.
pub struct Turn<'a> {
    /// Where.
    pub partition: u32,
    _slot: SemaphorePermit<'a>,
    _partition: Held<'a, ()>,
}

impl Uploads {
    /// Into a topic with so many partitions.
    pub fn new(partitions: u32) -> Self {
        let partitions = (0..partitions.max(1)).map(|_| tokio::sync::Mutex::default()).collect();
        Self { slots: Semaphore::new(AT_ONCE), partitions, written: Mutex::default() }
    }

    /// Waits until it may be written.
    pub async fn turn(&self, archive: &Archive) -> Turn<'_> {
        let [a, b, c, d, ..] = archive.sha256.0;
        let index = u32::from_be_bytes([a, b, c, d]) as usize % self.partitions.len();
        // First the partition: who waits for one must not hold up the others.
        let partition = self.partitions[index].lock().await;
        let slot = self.slots.acquire().await.expect("it is never closed");
        Turn { partition: index as u32, _slot: slot, _partition: partition }
    }

    /// It was written, and read back.
    pub fn note(&self, archive: Archive, place: Place) {
        let mut written = self.written();
        written.retain(|_, (since, _)| since.elapsed() < KEPT);
        if written.len() >= MOST
            && let Some(oldest) = written.iter().min_by_key(|(_, (since, _))| *since).map(|(archive, _)| *archive)
        {
            written.remove(&oldest);
        }
        written.insert(archive, (Instant::now(), place));
    }

    /// Where it was written.
    pub fn place(&self, archive: &Archive) -> Option<Place> {
        self.written().get(archive).map(|(_, place)| place.clone())
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<Archive, (Instant, Place)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
