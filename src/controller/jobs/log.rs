//! A job's output, read from the topic for somebody who asked for it.

use std::{pin::pin, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep, sleep_until, timeout},
};

use super::{Watch, attempt_key, log_name};
use crate::{
    api::{
        ApiError, Code,
        logs::{Digest, LogItem, LogQuery, LogStream},
    },
    bytelog::{self, AttemptKey, Begin, Cause, Event, Options, Positions, Reader, Stream, Until},
    clock,
    controller::Handle,
    job::{AttemptEnd, Job, JobId},
    kafka::{self, At, SharedCluster},
};

/// How long an ended attempt's output may still be on its way, since something came last.
const SHIPPING: Duration = Duration::from_secs(30);
/// The same where all that the process wrote is there, and only the record is missing that says so; or where nobody knows how
/// much there is.
const CLOSING: Duration = Duration::from_secs(3);
/// Between tries to open a log while the cluster is away.
const RETRY: Duration = Duration::from_secs(1);
/// How often a quiet answer shows that it lives.
const IDLE: Duration = Duration::from_secs(10);

const RETENTION: &str = "older than the topic keeps records";
const RECREATED: &str = "the topic was deleted and created anew";

const NOT_THERE: &str = "the topic does not have them any more; perhaps it was deleted and created anew";

/// Somebody's reading.
pub struct Reading {
    handle: Handle,
    id: JobId,
    query: LogQuery,
    watch: Watch,
    out: mpsc::Sender<LogItem>,
}

/// Why reading stopped before its end.
enum Stop {
    /// Nobody reads the answer any more.
    Unread,
    /// In words for who reads it.
    Failed(String),
}

/// What the journal knows of an attempt.
struct Known {
    partition: u32,
    first: Option<i64>,
    last: Option<i64>,
    key: AttemptKey,
    /// Whether it has ended, and what its process wrote, if that is known.
    ended: Option<Option<[u64; 2]>>,
    /// Whether it ended so long ago that its agent ships nothing more.
    settled: bool,
}

impl Reading {
    /// Reads the log of the job `id` into `out`.
    pub fn new(handle: Handle, id: JobId, query: LogQuery, out: mpsc::Sender<LogItem>) -> Result<Self, ApiError> {
        if let Some(attempt) = query.attempt {
            let known = handle
                .shared()
                .jobs
                .ask(|scheduler, _| scheduler.job(id).is_some_and(|job| job.attempts().contains_key(&attempt)));
            if !known {
                return Err(ApiError::new(Code::NotFound, format!("job {id} has no attempt {attempt} that ran")));
            }
        }
        let watch = handle.shared().jobs.watch(id);
        Ok(Self { handle, id, query, watch, out })
    }

    /// Reads to the end, which is the last item.
    pub async fn run(mut self) {
        let last = match self.read().await {
            Ok(()) => match self.handle.job_info(self.id) {
                Ok(info) => LogItem::done(&info),
                Err(error) => LogItem::Failed(error.message),
            },
            Err(Stop::Failed(why)) => LogItem::Failed(why),
            Err(Stop::Unread) => return,
        };
        let _ = self.out.send(last).await;
    }

    async fn read(&mut self) -> Result<(), Stop> {
        let mut before = 0;
        loop {
            let has_ended = self.ask(|job| job.state().is_terminal())?;
            let wanted = self.query.attempt.filter(|_| before == 0);
            let next = self.ask(|job| match wanted {
                Some(number) => Some(number),
                // Later ones in their order, the first of all the last.
                None if before > 0 => job.attempts().range(before + 1..).next().map(|(number, _)| *number),
                None => job.attempts().contains_key(&job.attempt()).then_some(job.attempt()),
            })?;
            match next {
                Some(number) => {
                    self.send(LogItem::Attempt(number)).await?;
                    self.attempt(number, before == 0).await?;
                    before = number;
                    if !self.query.follow {
                        return Ok(());
                    }
                }
                None if has_ended || !self.query.follow => return Ok(()),
                None => self.changed().await?,
            }
        }
    }

    /// One attempt's output. Who resumes does so in the `first` one that is read.
    async fn attempt(&mut self, number: u32, first: bool) -> Result<(), Stop> {
        let known = self.known(number)?;
        let query = &self.query;
        let from = match (query.tail, query.since_ms) {
            (Some(lines), _) if first => Begin::Tail(lines),
            (_, Some(since)) => Begin::Since(i64::try_from(since).unwrap_or(i64::MAX)),
            _ => Begin::Start,
        };
        let until = if query.follow || known.ended.is_some() { Until::End } else { Until::Present };
        let mut options = Options { from, until, only: query.stream.map(stream), first: known.first, last: known.last };
        let skip = if first { [query.from_stdout, query.from_stderr, query.from_system] } else { [0; 3] };
        let shared = self.handle.shared();
        let (cluster, topic) = (shared.cluster.clone(), shared.link.prefix.logs());
        let attempt = bytelog::Attempt::new(log_name(self.id), number, &known.key);
        let partition = i32::try_from(known.partition).unwrap_or(i32::MAX);
        let mut gone_by = None;
        if let (Some(wrote), Some(last)) = (known.ended, known.last) {
            gone_by = gone(&cluster, &topic, partition, last).await;
            match gone_by {
                // What the agent still has it is about to ship again, into a topic that begins anew.
                Some(RECREATED) if !known.settled => (options.first, options.last) = (None, None),
                Some(cause) => return self.missing(wrote, Positions(skip), cause).await,
                None => {}
            }
        }
        let mut reader = self.open(cluster, &topic, partition, attempt, options).await?;
        let mut ended = known.ended;
        let mut heard = Instant::now();
        let mut idle = interval(IDLE);
        loop {
            let patience = ended.map(|wrote| heard + patience(wrote, reader.positions()));
            tokio::select! {
                biased;
                event = reader.next() => match event.map_err(failed)? {
                    Some(event) => {
                        heard = Instant::now();
                        if let Some(item) = item(event, skip) {
                            self.send(item).await?;
                        }
                    }
                    None => break,
                },
                () = self.watch.changed(), if ended.is_none() => {
                    ended = self.known(number)?.ended;
                    heard = Instant::now();
                }
                _ = idle.tick() => self.send(LogItem::Idle).await?,
                () = sleep_until(patience.unwrap_or(heard)), if patience.is_some() => break,
            }
        }
        if reader.forged() > 0 {
            shared.jobs.count_forged(reader.forged());
            tracing::warn!(job = %self.id, attempt = number, forged = reader.forged(), "records in its log were not its own");
        }
        let wrote = ended.flatten().filter(|_| !reader.is_done());
        // Where the journal knows that something was, and nothing is.
        let was_there = known.last.is_some() && reader.positions() == Positions::default();
        let cause = if was_there { NOT_THERE } else { "the agent has not shipped them yet; ask again later" };
        self.missing(wrote, reader.positions(), gone_by.unwrap_or(cause)).await
    }

    /// Opens the log; who follows waits for a cluster that is away.
    async fn open(
        &self,
        cluster: SharedCluster,
        topic: &str,
        partition: i32,
        attempt: bytelog::Attempt,
        options: Options,
    ) -> Result<Reader, Stop> {
        let mut idle = interval(IDLE);
        loop {
            let open = Reader::open(cluster.clone(), topic, partition, attempt.clone(), options.clone());
            let mut open = pin!(open);
            let opened = loop {
                tokio::select! {
                    opened = &mut open => break opened,
                    _ = idle.tick() => self.send(LogItem::Idle).await?,
                }
            };
            match opened {
                Err(bytelog::Error::Kafka(error)) if self.query.follow && error.is_transient() => sleep(RETRY).await,
                opened => return opened.map_err(failed),
            }
        }
    }

    /// Names what the process wrote and is not there.
    async fn missing(&self, wrote: Option<[u64; 2]>, positions: Positions, cause: &str) -> Result<(), Stop> {
        let Some(wrote) = wrote else { return Ok(()) };
        for (stream, to) in [(Stream::Stdout, wrote[0]), (Stream::Stderr, wrote[1])] {
            let shown = self.query.stream.is_none_or(|only| self::stream(only) == stream);
            if shown && positions[stream] < to {
                let cause = cause.to_owned();
                let (stream, from) = (named(stream), positions[stream]);
                self.send(LogItem::Gap { stream, from, to, cause }).await?;
            }
        }
        Ok(())
    }

    fn known(&self, number: u32) -> Result<Known, Stop> {
        let jobs = &self.handle.shared().jobs;
        let (partition, floor) = (jobs.log_partition(self.id), jobs.log_floor(self.id, number));
        self.ask(|job| {
            let attempt = job.attempts().get(&number)?;
            let place = attempt.log;
            let ended = attempt.end.as_ref().map(|end| match end {
                AttemptEnd::Ended { stdout, stderr, .. } => Some([stdout.length, stderr.length]),
                AttemptEnd::Lost { .. } => None,
            });
            Some(Known {
                partition: place.map_or(partition, |place| place.partition),
                first: place.map(|place| place.first).or(floor),
                last: place.map(|place| place.last),
                key: AttemptKey::new(*attempt_key(self.id, job, number).expose()),
                ended,
                settled: job
                    .ended_ms()
                    .is_some_and(|at_ms| u128::from(clock::unix_ms().saturating_sub(at_ms)) >= SHIPPING.as_millis()),
            })
        })?
        .ok_or_else(|| Stop::Failed(format!("attempt {number} was returned; ask again for the next one")))
    }

    fn ask<T>(&self, question: impl FnOnce(&Job) -> T) -> Result<T, Stop> {
        let answer = self.handle.shared().jobs.ask(|scheduler, _| scheduler.job(self.id).map(question));
        answer.ok_or_else(|| Stop::Failed(format!("job {} was forgotten meanwhile", self.id)))
    }

    /// Waits until something is new about the job.
    async fn changed(&mut self) -> Result<(), Stop> {
        let mut idle = interval(IDLE);
        loop {
            tokio::select! {
                () = self.watch.changed() => return Ok(()),
                _ = idle.tick() => self.send(LogItem::Idle).await?,
            }
        }
    }

    async fn send(&self, item: LogItem) -> Result<(), Stop> {
        self.out.send(item).await.map_err(|_| Stop::Unread)
    }
}

/// Why nothing is there any more of an attempt whose last record was at `last`. What can't be found out is not gone.
async fn gone(cluster: &SharedCluster, topic: &str, partition: i32, last: i64) -> Option<&'static str> {
    let mut reader = cluster.reader(topic, partition);
    let ends = timeout(CLOSING, async {
        Ok::<_, kafka::Error>((reader.offset(At::Earliest).await?, reader.offset(At::Latest).await?))
    });
    let (earliest, latest) = ends.await.ok()?.ok()?;
    if latest <= last {
        Some(RECREATED)
    } else if earliest > last {
        Some(RETENTION)
    } else {
        None
    }
}

/// How long more may come of an attempt whose process wrote so much, when so much of it is there.
fn patience(wrote: Option<[u64; 2]>, there: Positions) -> Duration {
    match wrote {
        Some([stdout, stderr]) if there[Stream::Stdout] < stdout || there[Stream::Stderr] < stderr => SHIPPING,
        _ => CLOSING,
    }
}

fn item(event: Event, skip: [u64; 3]) -> Option<LogItem> {
    Some(match event {
        Event::Chunk { stream, offset, time, mut bytes } => {
            let had = skip[stream as usize].saturating_sub(offset);
            if had >= bytes.len() as u64 {
                return None;
            }
            let bytes = bytes.split_off(had as usize);
            LogItem::Chunk { stream: named(stream), offset: offset + had, time_ms: time, bytes }
        }
        Event::Gap { stream, bytes, .. } if bytes.end <= skip[stream as usize] => return None,
        Event::Gap { stream, bytes, cause } => LogItem::Gap {
            from: bytes.start.max(skip[stream as usize]),
            to: bytes.end,
            stream: named(stream),
            cause: match cause {
                Cause::Retention => RETENTION,
                Cause::Recreated => RECREATED,
                Cause::Lost => "the cluster acknowledged and lost them",
            }
            .to_owned(),
        },
        Event::End { stream, total, digest } => LogItem::End {
            stream: named(stream),
            total,
            verdict: match digest {
                bytelog::Digest::Matches => Digest::Right,
                bytelog::Digest::Differs => Digest::Wrong,
                bytelog::Digest::Incomplete => Digest::Unknown,
            },
        },
    })
}

fn named(stream: Stream) -> LogStream {
    match stream {
        Stream::Stdout => LogStream::Stdout,
        Stream::Stderr => LogStream::Stderr,
        Stream::System => LogStream::System,
    }
}

fn stream(named: LogStream) -> Stream {
    match named {
        LogStream::Stdout => Stream::Stdout,
        LogStream::Stderr => Stream::Stderr,
        LogStream::System => Stream::System,
    }
}

fn failed(error: bytelog::Error) -> Stop {
    Stop::Failed(error.to_string())
}
