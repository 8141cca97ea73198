//! Stores what was gathered.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::gather::{self, Gathered, Gathering, Step, Wanted};
use crate::{
    backoff::Backoff,
    bundle::{Archive, Digest, Place},
    bytelog::blob::{Appender, BATCH, CHUNK},
    job::{
        Hidden, Manifest, Stored,
        manifest::{GROUP, MAX_MANIFEST},
    },
    kafka::{self, SharedCluster},
    secret,
};

/// How often what changes meanwhile is begun anew.
const TRIES: u32 = 3;
/// Between looks for a topic that cannot be asked for.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// How often it is noted how far it is, at most.
const NOTE: Duration = Duration::from_millis(200);

/// How far an attempt's artifacts are stored, for the next agent. A hint: not synced, and what is lost of it is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    topic: u128,
    pack: Archive,
    key: Hidden<[u8; 32]>,
    /// How many bytes of the pack are in the topic.
    sent: u64,
    first: i64,
    last: i64,
    index: Vec<i64>,
}

/// Stores the artifacts of one attempt.
pub struct Store<'a> {
    /// Where.
    pub cluster: &'a SharedCluster,
    /// The topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// What.
    pub wanted: Wanted,
    /// Where it is noted how far it is.
    pub note: PathBuf,
    /// Why nothing gets there.
    pub stalled: watch::Sender<Option<kafka::Error>>,
}

/// What was stored, or why nothing was, and what was left out.
pub type Outcome = (Result<Stored, String>, Vec<String>);

impl Store<'_> {
    /// Stores them. Takes as long as it takes; dropped in between, the next one goes on.
    pub async fn run(&self) -> Outcome {
        let mut changed = String::new();
        for _ in 0..TRIES {
            match self.once().await {
                Ok(outcome) => return outcome,
                Err(Again(path)) => changed = path,
            }
        }
        (Err(format!("{changed} changes while it is stored; end what writes it before the job ends")), Vec::new())
    }

    async fn once(&self) -> Result<Outcome, Again> {
        let topic = self.topic_id().await;
        let noted = self.noted().filter(|note| note.topic == topic);
        let sent = noted.as_ref().map(|note| (note.pack, note.sent));
        let mut gathering = match gather::begin(self.wanted.clone(), sent) {
            Ok(gathering) => gathering,
            Err(error) => return Ok((Err(format!("they cannot be read: {error}")), Vec::new())),
        };
        let (gathered, from) = match gathering.steps.recv().await {
            Some(Step::Found(gathered, from)) => (*gathered, from),
            Some(Step::Failed(why)) => return Ok((Err(why), Vec::new())),
            _ => return Ok((Err("they cannot be read: the thread that read them is gone".to_owned()), Vec::new())),
        };
        let Gathered { mut manifest, left_out, .. } = gathered;
        let said = manifest.left_out.clone();
        if manifest.files.is_empty() {
            let patterns: Vec<&str> = self.wanted.globs.iter().map(|glob| glob.as_str()).collect();
            return Ok((Err(format!("no file that can be kept matches {}", patterns.join(", "))), said));
        }
        let mut note = noted.filter(|note| from > 0 && note.sent == from).unwrap_or_else(|| {
            let key = Hidden::new(secret::random());
            Note { topic, pack: manifest.pack, key, sent: 0, first: i64::MAX, last: -1, index: Vec::new() }
        });
        // Known before the first byte: what was sent under a key that is lost counts for nothing.
        self.put(&note);
        if let Err(error) = self.send(&mut gathering, &mut note).await? {
            return Ok((Err(format!("the topic {} does not take them: {error}", self.topic)), said));
        }
        (manifest.index, manifest.last) = (note.index.clone(), note.last);
        let stored = self.list(&manifest, left_out, &note).await;
        // One that was made anew meanwhile has a part of it at most.
        if self.topic_id().await != topic {
            return Err(Again(format!("the topic {}", self.topic)));
        }
        Ok((stored, said))
    }

    /// Sends the pack from where it stands. The outer error: it is to be begun anew.
    async fn send(&self, gathering: &mut Gathering, note: &mut Note) -> Result<Result<(), kafka::Error>, Again> {
        let appender = Appender::new(self.cluster, self.topic, self.partition, note.pack, note.key.expose());
        let mut noted = Instant::now();
        let mut done = false;
        while !done {
            let mut pieces = Vec::with_capacity(BATCH);
            while pieces.len() < BATCH && !done {
                match gathering.steps.recv().await {
                    Some(Step::Piece(piece)) => pieces.push(piece),
                    Some(Step::Done) => done = true,
                    Some(Step::Changed(path) | Step::Failed(path)) => return Err(Again(path)),
                    Some(Step::Found(..)) | None => return Err(Again("the work directory".to_owned())),
                }
            }
            if pieces.is_empty() {
                break;
            }
            let offsets = match appender.append(note.sent, &pieces, &self.stalled).await {
                Ok(offsets) => offsets,
                Err(error) => return Ok(Err(error)),
            };
            for (piece, offset) in pieces.iter().zip(offsets) {
                let number = usize::try_from(note.sent / CHUNK as u64).unwrap_or(usize::MAX);
                if number == note.index.len() * GROUP {
                    note.index.push(offset);
                }
                note.first = note.first.min(offset);
                note.last = offset;
                note.sent += piece.len() as u64;
            }
            if noted.elapsed() >= NOTE {
                noted = Instant::now();
                self.put(note);
            }
        }
        self.put(note);
        Ok(Ok(()))
    }

    /// Sends the list.
    async fn list(&self, manifest: &Manifest, left_out: u32, note: &Note) -> Result<Stored, String> {
        let bytes = manifest.encode();
        let archive = Archive { sha256: Digest::of(&bytes), size: bytes.len() as u64 };
        if archive.size > MAX_MANIFEST {
            return Err(format!("their list has {} bytes, {MAX_MANIFEST} are taken; name fewer files", archive.size));
        }
        let appender = Appender::new(self.cluster, self.topic, self.partition, archive, note.key.expose());
        let (mut at, mut first, mut last) = (0, i64::MAX, -1);
        for batch in bytes.chunks(CHUNK * BATCH) {
            let pieces: Vec<Vec<u8>> = batch.chunks(CHUNK).map(<[u8]>::to_vec).collect();
            let offsets = appender.append(at, &pieces, &self.stalled).await;
            let offsets = offsets.map_err(|error| format!("the topic {} does not take them: {error}", self.topic))?;
            first = offsets.first().map_or(first, |offset| first.min(*offset));
            last = offsets.last().copied().unwrap_or(last);
            at += batch.len() as u64;
        }
        let place = Place { topic: note.topic, partition: self.partition, first, last, key: note.key.clone() };
        Ok(Stored {
            manifest: archive,
            place,
            first: first.min(note.first),
            files: u32::try_from(manifest.files.len()).unwrap_or(u32::MAX),
            bytes: manifest.files.iter().map(|file| file.size).sum(),
            left_out,
        })
    }

    async fn topic_id(&self) -> u128 {
        let mut backoff = RETRY;
        loop {
            match self.cluster.describe(self.topic).await {
                Ok(found) => {
                    self.stalled.send_if_modified(|stalled| stalled.take().is_some());
                    return found.id;
                }
                // A topic or a right that is missing too: whoever forgot it makes it.
                Err(error) => drop(self.stalled.send_replace(Some(error))),
            }
            sleep(backoff.next(rand::random())).await;
        }
    }

    fn noted(&self) -> Option<Note> {
        postcard::from_bytes(&std::fs::read(&self.note).ok()?).ok()
    }

    fn put(&self, note: &Note) {
        use std::{io::Write, os::unix::fs::OpenOptionsExt};
        let new = self.note.with_extension("new");
        let bytes = postcard::to_stdvec(note).expect("plain data");
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
        let written = file.and_then(|mut file| file.write_all(&bytes)).and_then(|()| std::fs::rename(&new, &self.note));
        if let Err(error) = written {
            tracing::debug!("{}: {error}", self.note.display());
        }
    }
}

/// Something changed meanwhile: it is begun anew.
struct Again(String);
