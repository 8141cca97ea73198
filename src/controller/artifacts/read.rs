//! Reads lists and bytes.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{interval, timeout},
};

use super::super::{Handle, access::Caller};
use crate::{
    api::{
        ApiError, Code,
        artifacts::{Artifact, ArtifactList, ArtifactQuery, ArtifactState, PackItem, PackQuery},
    },
    bundle::{Digest, Place},
    bytelog::blob::{self, CHUNK, Progress, Sink},
    job::{
        JobId, Manifest, Stored,
        manifest::{File, GROUP, MAX_MANIFEST},
    },
};

/// How many files a page has.
const PAGE: usize = 10_000;
/// How long a list may take to be read.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lists that are read at once: each may take some ten megabytes.
const LISTS: usize = 2;
/// Parts that are read at once: each holds a fetch or two.
const PARTS: usize = 64;
/// What the lists that stay in memory have at most, as they lie in the topic.
const KEPT: u64 = 32 << 20;
/// How often a quiet answer shows that it lives.
const IDLE: Duration = Duration::from_secs(10);

/// Lists that were read, and how many are read at once.
pub struct Lists {
    kept: Mutex<VecDeque<(Stored, Arc<Manifest>)>>,
    lists: Semaphore,
    parts: Arc<Semaphore>,
}

impl Lists {
    /// None yet.
    pub fn new() -> Self {
        Self { kept: Mutex::default(), lists: Semaphore::new(LISTS), parts: Arc::new(Semaphore::new(PARTS)) }
    }

    fn find(&self, stored: &Stored) -> Option<Arc<Manifest>> {
        let kept = self.kept.lock().expect("no holder panics");
        kept.iter().find(|(known, _)| known == stored).map(|(_, manifest)| manifest.clone())
    }

    /// Those that came first go first.
    fn put(&self, stored: &Stored, manifest: &Arc<Manifest>) {
        let mut kept = self.kept.lock().expect("no holder panics");
        kept.push_back((stored.clone(), manifest.clone()));
        while kept.len() > 1 && kept.iter().map(|(stored, _)| stored.manifest.size).sum::<u64>() > KEPT {
            kept.pop_front();
        }
    }
}

/// A part of a job's pack that somebody reads.
pub struct Part {
    handle: Handle,
    id: JobId,
    stored: Stored,
    manifest: Arc<Manifest>,
    wanted: PackQuery,
    _turn: OwnedSemaphorePermit,
}

impl Handle {
    /// The files that a job left.
    pub(in crate::controller) async fn artifacts_for(
        &self,
        caller: &Caller,
        prefix: &str,
        query: &ArtifactQuery,
    ) -> Result<ArtifactList, ApiError> {
        let info = self.job_for(caller, prefix)?;
        let (id, attempt) = (info.id, info.attempt);
        let list = |state, info| ArtifactList {
            job: id,
            attempt,
            state,
            info,
            files: Vec::new(),
            more: 0,
            left_out: Vec::new(),
        };
        let Some(left) = info.artifacts.clone() else {
            let wanted = self.shared().jobs.ask(|scheduler, _| scheduler.job(id).map(|job| job.spec().artifacts.len()));
            return match (wanted, info.has_ended()) {
                (Some(1..), false) => Ok(list(ArtifactState::Pending, None)),
                (Some(1..), true) => Err(ApiError::new(
                    Code::NotFound,
                    format!("job {id} was lost, or ended before it had an agent: nothing is known of what it left"),
                )),
                _ => Err(ApiError::new(
                    Code::NotFound,
                    format!("job {id} was not asked to leave files; `rk run --artifact PATTERN` does"),
                )),
            };
        };
        if left.missing.is_some() {
            return Ok(list(ArtifactState::Missing, Some(left)));
        }
        if left.forgotten_ms.is_some() {
            return Ok(list(ArtifactState::Forgotten, Some(left)));
        }
        let manifest = self.manifest(id, &self.stored(id)?).await?;
        let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE);
        let start = match query.after.as_str() {
            "" => 0,
            after => manifest.files.partition_point(|file| file.path.as_str() <= after),
        };
        let page: Vec<Artifact> = manifest.files[start..].iter().take(limit).map(show).collect();
        Ok(ArtifactList {
            more: (manifest.files.len() - start - page.len()) as u64,
            files: page,
            left_out: manifest.left_out.clone(),
            ..list(ArtifactState::Stored, Some(left))
        })
    }

    /// One file of a job, whose bytes can be read then.
    pub(in crate::controller) async fn artifact_for(
        &self,
        caller: &Caller,
        prefix: &str,
        path: &str,
    ) -> Result<(File, Part), ApiError> {
        let id = self.job_for(caller, prefix)?.id;
        let stored = self.stored(id)?;
        let manifest = self.manifest(id, &stored).await?;
        let Some(file) = manifest.file(path).cloned() else {
            let message = format!("job {id} left no file {path:?}; `rk artifacts ls {id}` lists them");
            return Err(ApiError::new(Code::NotFound, message));
        };
        let wanted = PackQuery { from: file.offset, to: file.offset + file.size };
        Ok((file, self.part(id, stored, manifest, wanted).await?))
    }

    /// A part of a job's pack.
    pub(in crate::controller) async fn pack_for(
        &self,
        caller: &Caller,
        prefix: &str,
        wanted: PackQuery,
    ) -> Result<Part, ApiError> {
        let id = self.job_for(caller, prefix)?.id;
        let stored = self.stored(id)?;
        let manifest = self.manifest(id, &stored).await?;
        if wanted.from > wanted.to || wanted.to > manifest.pack.size {
            let message = format!("there are no such bytes; the files of job {id} have {} in all", manifest.pack.size);
            return Err(ApiError::new(Code::Invalid, message));
        }
        self.part(id, stored, manifest, wanted).await
    }

    async fn part(
        &self,
        id: JobId,
        stored: Stored,
        manifest: Arc<Manifest>,
        wanted: PackQuery,
    ) -> Result<Part, ApiError> {
        let turn = timeout(PATIENCE, self.shared().lists.parts.clone().acquire_owned()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(ApiError::new(Code::Busy, "too many read artifacts at once; try again"));
        };
        Ok(Part { handle: self.clone(), id, stored, manifest, wanted, _turn })
    }

    /// Where the files of a job lie.
    fn stored(&self, id: JobId) -> Result<Stored, ApiError> {
        let left = self.shared().jobs.ask(|scheduler, _| scheduler.job(id).and_then(|job| job.left().cloned()));
        let Some(left) = left else {
            return Err(ApiError::new(Code::NotFound, format!("job {id} has left no files, at least not yet")));
        };
        left.stored().cloned().ok_or_else(|| {
            let message = format!("job {id} has no files; `rk artifacts ls {id}` says why");
            ApiError::new(if left.forgotten_ms.is_some() { Code::Gone } else { Code::NotFound }, message)
        })
    }

    /// The list of a job's files.
    async fn manifest(&self, id: JobId, stored: &Stored) -> Result<Arc<Manifest>, ApiError> {
        let shared = self.shared();
        if let Some(manifest) = shared.lists.find(stored) {
            return Ok(manifest);
        }
        let progress = watch::Sender::new(Progress::default());
        let read = async {
            let _turn = shared.lists.lists.acquire().await;
            if let Some(manifest) = shared.lists.find(stored) {
                return Ok(manifest);
            }
            let archive = stored.manifest;
            if archive.size > MAX_MANIFEST {
                return Err(ApiError::new(Code::Gone, format!("the list of artifacts of job {id} is too large")));
            }
            let mut whole = Whole(Vec::new());
            let topic = shared.link.prefix.artifacts();
            blob::fetch_range(&shared.cluster, &topic, &archive, &stored.place, 0..archive.size, &mut whole, &progress)
                .await
                .map_err(|error| api_error(id, error))?;
            let altered = |why: String| ApiError::new(Code::Gone, format!("artifacts of job {id}: {why}"));
            if Digest::of(&whole.0) != archive.sha256 {
                return Err(altered("their list is not what the agent wrote (SHA-256)".to_owned()));
            }
            let manifest = Manifest::decode(&whole.0).map_err(|error| altered(error.to_string()))?;
            let manifest = Arc::new(manifest);
            shared.lists.put(stored, &manifest);
            Ok(manifest)
        };
        timeout(PATIENCE, read).await.unwrap_or_else(|_| {
            let why = progress.borrow().stalled.as_ref().map_or("it takes too long".to_owned(), ToString::to_string);
            Err(ApiError::new(Code::KafkaUnreachable, format!("the artifacts of job {id} can't be read now: {why}")))
        })
    }
}

impl Part {
    /// Reads it into `out`, the last item of which says how that ended.
    pub async fn run(self, out: mpsc::Sender<PackItem>) {
        let progress = watch::Sender::new(Progress::default());
        let mut sink = Pieces(out.clone());
        let (shared, wanted) = (self.handle.shared(), self.wanted);
        let topic = shared.link.prefix.artifacts();
        let (place, pack) = (self.place(), self.manifest.pack);
        let range = wanted.from..wanted.to;
        let read = blob::fetch_range(&shared.cluster, &topic, &pack, &place, range, &mut sink, &progress);
        tokio::pin!(read);
        let mut idle = interval(IDLE);
        let last = loop {
            tokio::select! {
                read = &mut read => break match read {
                    Ok(()) => PackItem::Done,
                    Err(error) => match api_error(self.id, error) {
                        ApiError { code: Code::Gone, message } => PackItem::Gone(message),
                        error => PackItem::Failed(error.message),
                    },
                },
                _ = idle.tick() => if out.try_send(PackItem::Idle).is_err() && out.is_closed() {
                    return;
                },
            }
        };
        let _ = out.send(last).await;
    }

    /// Where the chunks lie that are wanted: from the group of the first to the beginning of the one behind the last.
    fn place(&self) -> Place {
        let group = |at: u64| usize::try_from(at / (CHUNK * GROUP) as u64).unwrap_or(usize::MAX);
        let index = &self.manifest.index;
        let first = index.get(group(self.wanted.from)).copied().unwrap_or(self.stored.first);
        let behind = group(self.wanted.to.saturating_sub(1)).saturating_add(1);
        let last = index.get(behind).map_or(self.manifest.last, |offset| offset - 1);
        Place { first, last, ..self.stored.place.clone() }
    }
}

struct Whole(Vec<u8>);

impl Sink for Whole {
    async fn put(&mut self, _: u64, bytes: Bytes) -> io::Result<()> {
        self.0.extend_from_slice(&bytes);
        Ok(())
    }
}

struct Pieces(mpsc::Sender<PackItem>);

impl Sink for Pieces {
    async fn put(&mut self, _: u64, bytes: Bytes) -> io::Result<()> {
        self.0.send(PackItem::Bytes(bytes)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn show(file: &File) -> Artifact {
    let File { path, size, sha256, offset, mode, modified_ns } = file.clone();
    Artifact { path, size, sha256, mode, modified_ns, offset }
}

fn api_error(id: JobId, error: blob::Error) -> ApiError {
    match error {
        blob::Error::Gone { topic, why } => {
            let cure = format!("`rk jobs retry {id}` runs the job again");
            ApiError::new(Code::Gone, format!("artifacts of job {id} are gone from topic {topic} ({why}); {cure}"))
        }
        blob::Error::Kafka(error) if error.is_transient() => {
            ApiError::new(Code::KafkaUnreachable, format!("the artifacts of job {id} can't be read now: {error}"))
        }
        error => ApiError::new(Code::Internal, format!("the artifacts of job {id} can't be read: {error}")),
    }
}
