//! A download that is under way, for all who wait for it.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    task::{JoinError, spawn_blocking},
    time::{Instant, sleep},
};

use super::{
    Failure, Shared,
    cache::{Making, Pin, Unkept},
};
use crate::{
    backoff::Backoff,
    bundle::{Archive, Place},
    bytelog::blob::{self, Progress, Sink},
};

/// Between looks at what another process makes.
const LOOK: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));

/// How long is waited for room that others use.
const ROOM: Duration = Duration::from_secs(10);

type End = Option<Result<Arc<Pin>, Failure>>;

/// What who waits looks at.
pub struct Flight {
    progress: watch::Sender<Progress>,
    end: watch::Sender<End>,
}

/// Waits for the download of an archive, which begins if there is none.
pub fn join(
    shared: &Arc<Shared>,
    archive: &Archive,
    place: &Place,
) -> (watch::Receiver<Progress>, watch::Receiver<End>) {
    let mut flights = shared.flights();
    let flight = flights.entry(archive.sha256).or_insert_with(|| {
        let flight = Flight { progress: watch::Sender::default(), end: watch::Sender::default() };
        let (progress, end) = (flight.progress.clone(), flight.end.clone());
        tokio::spawn(run(shared.clone(), *archive, place.clone(), progress, end));
        flight
    });
    (flight.progress.subscribe(), flight.end.subscribe())
}

async fn run(
    shared: Arc<Shared>,
    archive: Archive,
    place: Place,
    progress: watch::Sender<Progress>,
    end: watch::Sender<End>,
) {
    let work = make(&shared, &archive, &place, &progress);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            made = &mut work => {
                shared.flights().remove(&archive.sha256);
                end.send_replace(Some(made.map(Arc::new)));
                return;
            }
            () = end.closed() => {
                // Who comes holds this lock, so that nobody joins one that is given up.
                let mut flights = shared.flights();
                if end.receiver_count() == 0 {
                    flights.remove(&archive.sha256);
                    return;
                }
            }
        }
    }
}

async fn make(
    shared: &Shared,
    archive: &Archive,
    place: &Place,
    progress: &watch::Sender<Progress>,
) -> Result<Pin, Failure> {
    let (mut look, begun) = (LOOK, Instant::now());
    let making = loop {
        if let Some(pin) = shared.cache.pin(&archive.sha256).map_err(|error| failed(error.into()))? {
            return Ok(pin);
        }
        let (cache, wanted) = (shared.cache.clone(), *archive);
        // A process that just ended may still be using its own.
        match spawn_blocking(move || cache.begin(&wanted)).await.map_err(broken)? {
            Ok(Some(making)) => break making,
            Ok(None) => {}
            Err(Unkept::InUse { .. }) if begun.elapsed() < ROOM => {}
            Err(error) => return Err(failed(error)),
        }
        sleep(look.next(rand::random())).await;
    };
    let mut sink = Disk(Arc::new(making.file().map_err(|error| failed(error.into()))?));
    let fetched = blob::fetch(&shared.cluster, &shared.topic, archive, place, &mut sink, progress).await;
    let counts = fetched.map_err(|error| match error {
        blob::Error::Sink(error) => failed(error.into()),
        error => Failure::Refused(error.to_string()),
    })?;
    if counts.rubbish > 0 {
        tracing::warn!(digest = %archive.sha256.short(), records = counts.rubbish, "forged records of a bundle were passed over");
    }
    drop(sink);
    let pin = blocking(move || Making::finish(making)).await?;
    tracing::info!(digest = %archive.sha256.short(), bytes = archive.size, "a bundle was fetched");
    Ok(pin)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Unkept> + Send + 'static) -> Result<T, Failure> {
    spawn_blocking(work).await.map_err(broken)?.map_err(failed)
}

fn broken(error: JoinError) -> Failure {
    Failure::NoRoom(format!("it was not unpacked: {error}"))
}

fn failed(error: Unkept) -> Failure {
    match error {
        Unkept::TooLarge { .. } | Unkept::Altered => Failure::Refused(error.to_string()),
        Unkept::Archive(crate::bundle::archive::Error::Io { .. }) | Unkept::InUse { .. } | Unkept::Disk(_) => {
            Failure::NoRoom(error.to_string())
        }
        Unkept::Archive(_) => Failure::Refused(error.to_string()),
    }
}

/// Writes what comes where it belongs.
struct Disk(Arc<File>);

impl Sink for Disk {
    async fn put(&mut self, offset: u64, bytes: Bytes) -> io::Result<()> {
        let file = self.0.clone();
        spawn_blocking(move || file.write_all_at(&bytes, offset)).await.map_err(io::Error::other)?
    }
}
