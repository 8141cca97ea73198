//! An attempt's output: from the spool into the topic.
//!
//! It is read as it comes, shipped at once, and cut from the spool when the topic has it. Nothing ends this but its end: what
//! Kafka refuses is tried again, and told as what stands in the attempt's way.

use std::{pin::pin, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    Key, Shared,
    files::{Files, Ticket},
};
use crate::{
    agent::spool::{self, Next, Offsets, SpoolError},
    backoff::Backoff,
    bytelog::{self, Acked, AttemptKey, End, Format, JobKey, Shipper, Stream},
    clock,
    job::{LogFormat, LogPlace, StreamEnd},
    protocol::jobs::Report,
};

/// Between tries.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// How often it is noted how far output was shipped, at most.
const NOTE: Duration = Duration::from_millis(200);
/// How often the controller is told where output lies.
const TELL: u64 = 8 << 20;

/// What the one who follows the process says to the one who ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct News {
    /// Where the spool ends.
    pub spooled: Offsets,
    /// Nothing is added any more; and how the streams ended, if that is known.
    pub ended: Option<Option<[StreamEnd; 2]>>,
}

/// Ships an attempt's output.
pub struct Shipping<'a> {
    pub shared: &'a Shared,
    pub key: Key,
    pub files: Files<'a>,
    pub ticket: &'a Ticket,
    pub news: watch::Receiver<News>,
    /// What the topic has.
    pub acked: watch::Sender<Offsets>,
    /// Why nothing gets there.
    pub stalled: watch::Sender<Option<String>>,
}

impl Shipping<'_> {
    /// Ships to the end. Takes as long as it takes.
    pub async fn run(mut self) {
        let mut backoff = RETRY;
        while let Err(error) = self.ship().await {
            if let bytelog::Error::Recreated { .. } = error {
                self.files.forget_shipped();
                self.shared.forget_topic();
            }
            self.stalled.send_replace(Some(format!("its output cannot be shipped: {error}")));
            sleep(backoff.next(rand::random())).await;
        }
        self.stalled.send_replace(None);
    }

    async fn ship(&mut self) -> Result<(), bytelog::Error> {
        let something = |news: &News| news.ended.is_some() || news.spooled != Offsets::default();
        if self.news.wait_for(something).await.is_err() {
            return Ok(());
        }
        let topic = &self.shared.settings.topic;
        let topic_id = self.shared.topic_id().await?;
        let (start, from) = self.start();
        let job = JobKey::new(self.key.0.to_string()).expect("an id has 16 characters");
        let attempt = bytelog::Attempt::new(job, self.key.1, &AttemptKey::new(*self.ticket.key.expose()));
        let format = match self.ticket.format {
            LogFormat::Sealed => Format::Sealed,
            LogFormat::Open => Format::Open,
        };
        let config = bytelog::Config { format, ..bytelog::Config::default() };
        let partition = i32::try_from(self.ticket.partition).unwrap_or(i32::MAX);
        let cluster = self.shared.cluster.clone();
        let shipper = Shipper::start_in(cluster, (topic, topic_id), partition, attempt, start, config);
        let view = shipper.view();
        let mut course = Course { shipper, track: Track { view, told: None, noted: Instant::now() } };
        let mut reader = spool::Reader::new(&self.files.0.spool(), from);
        loop {
            let news = *self.news.borrow_and_update();
            self.all(&mut reader, &mut course).await?;
            if let Some(ends) = news.ended {
                return self.finish(course, ends).await;
            }
            tokio::select! {
                changed = self.news.changed() => if changed.is_err() {
                    return Ok(());
                },
                _ = course.track.view.changed() => self.progress(&mut course.track, false)?,
            }
        }
    }

    /// Where to begin: what was shipped was cut, so that a lost note of it is no loss.
    fn start(&self) -> (Acked, Offsets) {
        let mut start = self.files.shipped();
        let begins = spool::begins(&self.files.0.spool()).unwrap_or_default();
        let positions = &mut start.positions;
        positions[Stream::Stdout] = positions[Stream::Stdout].max(begins.stdout);
        positions[Stream::Stderr] = positions[Stream::Stderr].max(begins.stderr);
        (start, offsets(&start))
    }

    /// All that is in the spool now.
    async fn all(&self, reader: &mut spool::Reader, course: &mut Course) -> Result<(), bytelog::Error> {
        loop {
            let chunk = match reader.read() {
                Ok(Next::Chunk(chunk)) => chunk,
                Ok(Next::End) => return Ok(()),
                // What the host's death left; the rest of it is gone.
                Err(SpoolError::Damaged { .. }) => return Ok(()),
                Err(error @ SpoolError::Io { .. }) => {
                    self.stalled.send_replace(Some(error.to_string()));
                    sleep(NOTE).await;
                    continue;
                }
            };
            let stream = match chunk.stream {
                spool::Stream::Stdout => Stream::Stdout,
                spool::Stream::Stderr => Stream::Stderr,
            };
            let time = i64::try_from(chunk.time).unwrap_or(i64::MAX);
            loop {
                tokio::select! {
                    biased;
                    // Dropped and called again, it goes on where it was.
                    taken = course.shipper.ship(stream, chunk.offset, time, &chunk.bytes) => break taken?,
                    _ = course.track.view.changed() => self.progress(&mut course.track, false)?,
                }
            }
            if course.track.view.has_changed().unwrap_or(false) {
                self.progress(&mut course.track, false)?;
            }
        }
    }

    async fn finish(&self, mut course: Course, ends: Option<[StreamEnd; 2]>) -> Result<(), bytelog::Error> {
        let end = |end: StreamEnd| End { total: end.length, sha256: end.sha256 };
        let notes = self.files.notes();
        let had = course.shipper.taken()[Stream::System].min(notes.len() as u64);
        let now = i64::try_from(clock::unix_ms()).unwrap_or(i64::MAX);
        // They are few: no more than there is room for.
        course.shipper.ship(Stream::System, had, now, &notes[had as usize..]).await?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &notes);
        let system =
            End { total: notes.len() as u64, sha256: digest.as_ref().try_into().expect("SHA-256 has 32 bytes") };
        let Course { shipper, mut track } = course;
        let done = async {
            let mut shipper = shipper;
            match ends {
                Some([stdout, stderr]) => shipper.finish([end(stdout), end(stderr), system]).await,
                None => shipper.flush().await,
            }
        };
        // Not dropped in between: the ends would be written again.
        let mut done = pin!(done);
        loop {
            tokio::select! {
                biased;
                done = &mut done => {
                    done?;
                    return self.progress(&mut track, true);
                }
                Ok(()) = track.view.changed() => self.progress(&mut track, false)?,
            }
        }
    }

    /// Tells how far it is.
    fn progress(&self, course: &mut Track, last: bool) -> Result<(), bytelog::Error> {
        let view = course.view.borrow_and_update().clone();
        if let Some(error) = view.failed {
            return Err(error);
        }
        let stalled = view.stalled.map(|error| format!("its output waits for Kafka: {error}"));
        self.stalled.send_if_modified(|was| std::mem::replace(was, stalled.clone()) != stalled);
        let now = offsets(&view.acked);
        self.acked.send_if_modified(|was| std::mem::replace(was, now) != now);
        let total = now.stdout + now.stderr;
        if let (Some(first), Some(batch)) = (view.first, view.acked.batch)
            && (last || course.told.is_none_or(|told| total >= told + TELL))
        {
            course.told = Some(total);
            let place = LogPlace { partition: self.ticket.partition, first, last: batch.max(first) };
            self.shared.report(self.key, Report::Logged(place));
        }
        if last || course.noted.elapsed() >= NOTE {
            course.noted = Instant::now();
            self.files.note_shipped(&view.acked);
        }
        Ok(())
    }
}

/// A shipper under way.
struct Course {
    shipper: Shipper,
    track: Track,
}

/// What is known of it.
struct Track {
    view: watch::Receiver<bytelog::View>,
    /// The bytes that were shipped when the controller was last told.
    told: Option<u64>,
    noted: Instant,
}

fn offsets(acked: &Acked) -> Offsets {
    Offsets { stdout: acked.positions[Stream::Stdout], stderr: acked.positions[Stream::Stderr] }
}

impl Shared {
    /// The logs' topic's id. Asked once, and again when it was found to be another.
    async fn topic_id(&self) -> Result<u128, bytelog::Error> {
        if let Some(id) = *self.topic_id.lock().expect("no holder panics") {
            return Ok(id);
        }
        let id = self.cluster.describe(&self.settings.topic).await?.id;
        *self.topic_id.lock().expect("no holder panics") = Some(id);
        Ok(id)
    }

    fn forget_topic(&self) {
        *self.topic_id.lock().expect("no holder panics") = None;
    }
}
