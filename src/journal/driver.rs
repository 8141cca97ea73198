//! The task behind a journal: records in, events and answers out, batches to the cluster. It decides nothing: what
//! counts is the [`Replica`]'s word, what is sent the [`Outbox`]'s.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Committed, Random, View,
    error::Error,
    health::Health,
    outbox::Outbox,
    record::{Kind, Record},
    replica::{Replica, Valid},
};
use crate::{
    backoff::Backoff,
    kafka::{self, Fetched, PartitionWriter},
};

/// Bytes in one batch: what design and measurements settled on for all topics.
const BATCH_BYTES: usize = 256 << 10;
/// A produce ends within 40 s by contract; this is the belt to those braces.
const PRODUCE_LIMIT: Duration = Duration::from_secs(45);
/// Beyond these, callers of `append` wait.
const PENDING: (usize, usize) = (1024, 4 << 20);
/// When acknowledged records are sent again that the reader does not meet though it reads.
const STALL: Duration = Duration::from_secs(10);

pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

#[derive(Debug)]
pub(super) enum Command {
    Claim { reply: Reply<u32> },
    Append { payload: Bytes, reply: Reply<u64> },
}

/// A batch that was sent: its number, its length, what came of it.
type Produced = (u64, usize, Result<i64, kafka::Error>);

/// See the module.
pub(super) struct Driver {
    replica: Replica,
    /// Where the log ended when it was opened.
    replay_end: i64,
    caught_up: bool,
    /// Fetched and not yet read, and where the fetch ended.
    fetched: VecDeque<(i64, kafka::Record)>,
    fetched_end: i64,

    /// Ours while we lead, or try to. A claim's record has no waiter: `claimants` are asked instead.
    outbox: Option<Outbox<Option<Reply<u64>>>>,
    claimants: Vec<Reply<u32>>,
    /// Why we do not lead.
    lost: Error,

    writer: Arc<dyn PartitionWriter>,
    producing: FuturesUnordered<BoxFuture<'static, Produced>>,
    batch_bytes: usize,
    backoff: Backoff,
    retry_at: Option<Instant>,
    stalled_at: Instant,

    random: Random,
    view: watch::Sender<View>,
    health: watch::Sender<Health>,
    ended: Arc<OnceLock<Error>>,
}

impl Driver {
    pub(super) fn new(
        replica: Replica,
        replay_end: i64,
        writer: Arc<dyn PartitionWriter>,
        random: Random,
        view: watch::Sender<View>,
        health: watch::Sender<Health>,
        ended: Arc<OnceLock<Error>>,
    ) -> Self {
        Self {
            fetched_end: replica.position(),
            replica,
            replay_end,
            caught_up: false,
            fetched: VecDeque::new(),
            outbox: None,
            claimants: Vec::new(),
            lost: Error::NotLeader,
            writer,
            producing: FuturesUnordered::new(),
            batch_bytes: BATCH_BYTES,
            backoff: Backoff::kafka(),
            retry_at: None,
            stalled_at: Instant::now() + STALL,
            random,
            view,
            health,
            ended,
        }
    }

    /// Runs until the handles or the receiver are dropped, or the journal can't go on.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut tail: mpsc::Receiver<Result<Fetched, Error>>,
        events: mpsc::Sender<Committed>,
    ) {
        let error = loop {
            self.send_due();
            let reading = !self.fetched.is_empty() || self.catches_up();
            let timer = self.timer();
            let step = tokio::select! {
                biased;
                () = events.closed() => return,
                Some(produced) = self.producing.next(), if !self.producing.is_empty() => self.produced(produced),
                permit = events.reserve(), if reading => match permit {
                    Ok(permit) => self.read_one(permit),
                    Err(_) => return,
                },
                fetched = tail.recv(), if !reading => match fetched {
                    Some(Ok(fetched)) => self.take(fetched),
                    Some(Err(error)) => Err(error),
                    None => Err(Error::Closed),
                },
                command = commands.recv(), if self.has_room() => match command {
                    Some(command) => self.handle(command),
                    None => return,
                },
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => self.tick(),
            };
            if let Err(error) = step {
                break error;
            }
        };
        tracing::error!(%error, "the journal can't go on");
        // First the error, then the end of the channels: a caller that sees the end finds the reason.
        let _ = self.ended.set(error.clone());
        drop((self, commands));
        let _ = events.send(Committed::Failed(error)).await;
    }

    fn handle(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Claim { reply } => {
                self.claimants.push(reply);
                self.pursue_claim();
            }
            // Nobody waits any more, and nothing was sent: the event need not be.
            Command::Append { reply, .. } if reply.is_closed() => {}
            Command::Append { payload, reply } => match &mut self.outbox {
                Some(outbox) if outbox.won() => {
                    let nonce = nonce(&mut self.random);
                    outbox.push(self.replica.codec(), nonce, payload, Some(reply));
                }
                _ => answer(reply, Err(self.lost.clone())),
            },
        }
        Ok(())
    }

    fn take(&mut self, fetched: Fetched) -> Result<(), Error> {
        self.fetched = fetched.records.into();
        self.fetched_end = fetched.next_offset;
        if self.fetched.is_empty() {
            self.pass(self.fetched_end)?;
        }
        Ok(())
    }

    /// Reads one record, or says that the replay is over.
    fn read_one(&mut self, permit: mpsc::Permit<'_, Committed>) -> Result<(), Error> {
        if self.catches_up() {
            self.caught_up = true;
            permit.send(Committed::CaughtUp);
            self.pursue_claim();
            return Ok(());
        }
        let Some((offset, record)) = self.fetched.pop_front() else { return Ok(()) };
        // A fetch starts with its batch, which may start before what was asked for.
        if offset < self.replica.position() {
            return Ok(());
        }
        if let Some(Valid { record, head }) = self.replica.read(offset, &record.value)? {
            let ours = self.outbox.take_if(|outbox| outbox.wrote(&record));
            permit.send(committed(&record, offset, ours.is_some()));
            match ours {
                Some(mut outbox) => match outbox.read_back(record.seq, head) {
                    Ok(waiter) => {
                        self.outbox = Some(outbox);
                        self.confirm(record.seq, waiter);
                    }
                    Err(_) => self.abdicate(outbox, Error::Diverged { epoch: record.epoch }),
                },
                None if record.kind == Kind::Claim => self.superseded(record.epoch),
                None => {}
            }
        }
        let position = if self.fetched.is_empty() { self.fetched_end } else { self.replica.position() };
        self.pass(position)?;
        Ok(())
    }

    /// A record of ours counts.
    fn confirm(&mut self, seq: u64, waiter: Option<Reply<u64>>) {
        self.stalled_at = Instant::now() + STALL;
        self.show();
        match waiter {
            Some(reply) => answer(reply, Ok(seq)),
            None => self.pursue_claim(),
        }
    }

    /// Another's claim won.
    fn superseded(&mut self, by: u32) {
        let led = !matches!(self.lost, Error::NotLeader) || self.outbox.as_ref().is_some_and(Outbox::won);
        if led {
            self.lost = Error::Superseded { by };
        }
        if let Some(outbox) = self.outbox.take() {
            self.abdicate(outbox, self.lost.clone());
        }
        self.pursue_claim();
    }

    fn abdicate(&mut self, outbox: Outbox<Option<Reply<u64>>>, why: Error) {
        for reply in outbox.into_waiters().flatten() {
            answer(reply, Err(why.clone()));
        }
        self.lost = why;
        self.show();
    }

    /// Brings those who wait for a claim nearer to it.
    fn pursue_claim(&mut self) {
        self.claimants.retain(|reply| !reply.is_closed());
        if !self.caught_up || self.claimants.is_empty() {
            return;
        }
        match &self.outbox {
            Some(outbox) if outbox.won() => {
                let epoch = outbox.epoch();
                self.claimants.drain(..).for_each(|reply| answer(reply, Ok(epoch)));
            }
            Some(_) => {}
            None => match self.replica.epoch().checked_add(1) {
                Some(epoch) => {
                    let (writer, nonce) = ((self.random)(), nonce(&mut self.random));
                    let prev = self.replica.head();
                    self.outbox = Some(Outbox::claim(self.replica.codec(), epoch, prev, writer, nonce, None));
                }
                None => self.claimants.drain(..).for_each(|reply| answer(reply, Err(Error::EpochsExhausted))),
            },
        }
    }

    /// The reader stands at `position`.
    fn pass(&mut self, position: i64) -> Result<(), Error> {
        self.replica.skip_to(position)?;
        if let Some(outbox) = &mut self.outbox {
            outbox.passed(self.replica.position());
        }
        self.show();
        Ok(())
    }

    fn send_due(&mut self) {
        if self.retry_at.is_some() {
            return;
        }
        let Some((number, batch)) = self.outbox.as_mut().and_then(|outbox| outbox.next_batch(self.batch_bytes)) else {
            return;
        };
        let writer = self.writer.clone();
        let length = batch.len();
        let records = batch.into_iter().map(|sealed| kafka::Record::new("", sealed)).collect();
        let produce = async move {
            let produced = timeout(PRODUCE_LIMIT, writer.produce(records)).await;
            (number, length, produced.unwrap_or_else(|_| Err(hung())))
        };
        self.producing.push(produce.boxed());
    }

    fn produced(&mut self, (number, length, result): Produced) -> Result<(), Error> {
        let Some(outbox) = &mut self.outbox else { return Ok(()) };
        match result {
            Ok(base) => {
                self.backoff.reset();
                self.stalled_at = Instant::now() + STALL;
                self.health.send_if_modified(|health| health.writing.take().is_some());
                outbox.acked(number, base, length, self.replica.position());
            }
            Err(kafka::Error::TooLarge { .. }) if length > 1 => {
                self.batch_bytes = (self.batch_bytes / 2).max(1);
                outbox.failed(number);
            }
            Err(error @ (kafka::Error::TooLarge { .. } | kafka::Error::Authorization { .. })) => {
                self.refused(number, error);
            }
            Err(error) => {
                tracing::debug!(%error, "the journal can't be written, trying again");
                outbox.failed(number);
                self.health.send_modify(|health| health.writing = Some(error));
                self.retry_at = Some(Instant::now() + self.backoff.next((self.random)() as u64));
            }
        }
        Ok(())
    }

    /// A batch will not be taken however often it is sent.
    fn refused(&mut self, number: u64, error: kafka::Error) {
        if matches!(error, kafka::Error::Authorization { .. }) {
            self.health.send_modify(|health| health.writing = Some(error.clone()));
        }
        let error = Error::from(error);
        let Some(outbox) = &mut self.outbox else { return };
        outbox.cut(number).into_iter().flatten().for_each(|reply| answer(reply, Err(error.clone())));
        if !outbox.won() {
            self.outbox = None;
            self.claimants.drain(..).for_each(|reply| answer(reply, Err(error.clone())));
        }
    }

    fn tick(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        self.retry_at = self.retry_at.filter(|&at| at > now);
        if self.stalled_at <= now {
            self.stalled_at = now + STALL;
            // While nothing can be read, that nothing comes back says nothing.
            let reads = self.health.borrow().reading.is_none();
            self.outbox.as_mut().filter(|_| reads).into_iter().for_each(Outbox::distrust);
        }
        Ok(())
    }

    fn timer(&self) -> Option<Instant> {
        let stalled_at = self.outbox.as_ref().filter(|outbox| outbox.awaits()).map(|_| self.stalled_at);
        self.retry_at.into_iter().chain(stalled_at).min()
    }

    fn has_room(&self) -> bool {
        let (records, bytes) = self.outbox.as_ref().map_or((0, 0), Outbox::size);
        records < PENDING.0 && bytes < PENDING.1
    }

    fn catches_up(&self) -> bool {
        !self.caught_up && self.replica.position() >= self.replay_end
    }

    fn show(&self) {
        let leading = self.outbox.as_ref().filter(|outbox| outbox.won()).map(Outbox::epoch);
        let view = View { witness: self.replica.witness(), leading, ignored: self.replica.ignored() };
        self.view.send_replace(view);
    }
}

fn committed(record: &Record, offset: i64, mine: bool) -> Committed {
    let (epoch, seq) = (record.epoch, record.seq);
    match record.kind {
        Kind::Claim => Committed::Claimed { epoch, mine },
        Kind::Event | Kind::Other(_) => Committed::Event { epoch, seq, offset, payload: record.payload.clone() },
    }
}

/// The caller may have dropped its future: then nobody wants the answer.
fn answer<T>(reply: Reply<T>, result: Result<T, Error>) {
    let _ = reply.send(result);
}

fn nonce(random: &mut Random) -> [u8; 12] {
    *random().to_ne_bytes().first_chunk().expect("12 of 16 bytes")
}

fn hung() -> kafka::Error {
    let code = format!("nothing within {} s", PRODUCE_LIMIT.as_secs());
    kafka::Error::Transient { broker: "journal".to_owned(), request: "Produce", code }
}
