//! The task behind a journal: records in, events and answers out, batches to the cluster. It decides nothing: what
//! counts is the [`Intake`]'s word, who leads the [`Leader`]'s, what is sent its outbox's.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::{Instant, sleep_until, timeout},
};

use super::{
    Committed, Random, View,
    error::Error,
    health::Health,
    intake::{Intake, Read},
    leader::{Command, Leader},
    replica::Valid,
    tail::Step,
};
use crate::{
    backoff::Backoff,
    kafka::{self, PartitionWriter},
};

/// Bytes in one batch: what measurements settled on for all topics.
const BATCH_BYTES: usize = 256 << 10;
/// A produce ends within 40 s by contract; this is the belt to those braces.
const PRODUCE_LIMIT: Duration = Duration::from_secs(45);
/// Beyond these many records and bytes, callers of `append` wait.
const PENDING: (usize, usize) = (1024, 4 << 20);
/// How many records are read before it is looked what else is due.
const BURST: usize = 256;
/// When acknowledged records are sent again that the reader does not meet though it reads.
const STALL: Duration = Duration::from_secs(10);

/// A batch that was sent: its number, its length, what came of it.
type Produced = (u64, usize, Result<i64, kafka::Error>);

/// How a driver tells what it knows without being asked.
pub(super) struct Screens {
    pub(super) view: watch::Sender<View>,
    pub(super) health: watch::Sender<Health>,
    pub(super) ended: Arc<OnceLock<Error>>,
}

/// See the module.
pub(super) struct Driver {
    intake: Intake,
    leader: Leader,
    /// What was read last, and whether it is ours, until it was handed on.
    owed: Option<(Valid, bool)>,

    writer: Arc<dyn PartitionWriter>,
    producing: FuturesUnordered<BoxFuture<'static, Produced>>,
    /// How many were sent.
    batches: u64,
    batch_bytes: usize,
    backoff: Backoff,
    jitter: Random,
    retry_at: Option<Instant>,
    stalled_at: Instant,

    screens: Screens,
}

impl Driver {
    pub(super) fn new(
        intake: Intake,
        writer: Arc<dyn PartitionWriter>,
        random: &(dyn Fn() -> Random + Sync),
        screens: Screens,
    ) -> Self {
        Self {
            intake,
            leader: Leader::new(random()),
            owed: None,
            writer,
            producing: FuturesUnordered::new(),
            batches: 0,
            batch_bytes: BATCH_BYTES,
            backoff: Backoff::kafka(),
            jitter: random(),
            retry_at: None,
            stalled_at: Instant::now() + STALL,
            screens,
        }
    }

    /// Runs until the handles or the receiver are dropped, or the journal can't go on.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut tail: mpsc::Receiver<Result<Step, Error>>,
        events: mpsc::Sender<Committed>,
    ) {
        let error = loop {
            self.send_due();
            let reading = self.owed.is_some() || self.intake.feed().has_next() || self.intake.has_next();
            let timer = self.timer();
            let step = tokio::select! {
                biased;
                () = events.closed() => return,
                Some(produced) = self.producing.next(), if !self.producing.is_empty() => {
                    self.produced(produced);
                    Ok(())
                }
                room = events.reserve(), if reading => match room {
                    Ok(room) => {
                        drop(room);
                        self.advance(&events)
                    }
                    Err(_) => return,
                },
                step = tail.recv(), if !reading => match step {
                    Some(step) => step.and_then(|step| self.take(step)),
                    None => Err(Error::Closed),
                },
                command = commands.recv(), if self.has_room() => match command {
                    Some(command) => {
                        self.leader.handle(command, &self.intake);
                        self.pursue();
                        Ok(())
                    }
                    None => return,
                },
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    self.tick();
                    Ok(())
                }
            };
            if let Err(error) = step {
                break error;
            }
        };
        tracing::error!(%error, "the journal can't go on");
        // First the error, then the end of the channels: a caller that sees the end finds the reason.
        let _ = self.screens.ended.set(error.clone());
        drop((self, commands));
        let _ = events.send(Committed::Failed(error)).await;
    }

    /// Hands on what was read and reads on, until there is no room, nothing more, or enough for once.
    fn advance(&mut self, events: &mpsc::Sender<Committed>) -> Result<(), Error> {
        for _ in 0..BURST {
            if !self.hand_on(events) {
                break;
            }
            // First the event, then the answers: who was answered finds the event handed on.
            if let Some((valid, mine)) = self.owed.take() {
                self.settle(&valid, mine);
            }
            match self.intake.read(|record| self.leader.wrote(record))? {
                Read::Nothing => break,
                Read::Passed => self.passed(),
                Read::Valid(valid, mine) => self.owed = Some((valid, mine)),
                Read::CaughtUp => self.pursue(),
            }
        }
        self.show();
        Ok(())
    }

    /// Returns whether all that was read is handed on.
    fn hand_on(&mut self, events: &mpsc::Sender<Committed>) -> bool {
        while let Some(committed) = self.intake.feed_mut().next() {
            if let Err(TrySendError::Full(committed) | TrySendError::Closed(committed)) = events.try_send(committed) {
                self.intake.feed_mut().put_back(committed);
                return false;
            }
        }
        true
    }

    /// A record counts, and was handed on.
    fn settle(&mut self, valid: &Valid, mine: bool) {
        if mine {
            self.show();
            self.backoff.reset();
            self.stalled_at = Instant::now() + STALL;
        }
        self.leader.read(valid);
        self.pursue();
        self.passed();
    }

    fn take(&mut self, step: Step) -> Result<(), Error> {
        if let Step::Jumped { .. } = step {
            self.leader.jumped();
        }
        self.intake.take(step)?;
        self.passed();
        self.show();
        Ok(())
    }

    /// The reader's position may have changed.
    fn passed(&mut self) {
        let position = self.intake.replica().position();
        if self.owed.is_none() && self.leader.outbox().is_some_and(|outbox| outbox.passed(position)) {
            self.retry_later();
        }
    }

    /// Sends again after a while. The delays grow until a record of ours counts: should that never be, for whatever
    /// reason, the topic does not fill up with copies.
    fn retry_later(&mut self) {
        if self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + self.backoff.next((self.jitter)() as u64));
        }
    }

    fn pursue(&mut self) {
        if self.intake.is_ready() {
            self.leader.pursue(self.intake.replica());
        }
    }

    fn send_due(&mut self) {
        let (number, batch_bytes) = (self.batches, self.batch_bytes);
        if self.retry_at.is_some() {
            return;
        }
        let outbox = self.leader.outbox();
        let Some(batch) = outbox.and_then(|outbox| outbox.next_batch(number, batch_bytes)) else { return };
        self.batches += 1;
        let writer = self.writer.clone();
        let length = batch.len();
        let records = batch.into_iter().map(|sealed| kafka::Record::new("", sealed)).collect();
        let produce = async move {
            let produced = timeout(PRODUCE_LIMIT, writer.produce(records)).await;
            (number, length, produced.unwrap_or_else(|_| Err(hung())))
        };
        self.producing.push(produce.boxed());
    }

    fn produced(&mut self, (number, length, result): Produced) {
        let position = self.intake.replica().position();
        match result {
            Ok(base) => {
                self.stalled_at = Instant::now() + STALL;
                self.screens.health.send_if_modified(|health| health.writing.take().is_some());
                if self.leader.outbox().is_some_and(|outbox| outbox.acked(number, base, length, position)) {
                    self.retry_later();
                }
            }
            Err(kafka::Error::TooLarge { .. }) if length > 1 => {
                self.batch_bytes = (self.batch_bytes / 2).max(1);
                self.leader.outbox().into_iter().for_each(|outbox| outbox.failed(number));
            }
            Err(error @ (kafka::Error::TooLarge { .. } | kafka::Error::Authorization { .. })) => {
                if matches!(error, kafka::Error::Authorization { .. }) {
                    self.screens.health.send_modify(|health| health.writing = Some(error.clone()));
                }
                self.leader.refused(number, &error.into());
            }
            Err(error) => {
                tracing::debug!(%error, "the journal can't be written, trying again");
                self.leader.outbox().into_iter().for_each(|outbox| outbox.failed(number));
                self.screens.health.send_modify(|health| health.writing = Some(error));
                self.retry_later();
            }
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.retry_at = self.retry_at.filter(|&at| at > now);
        if self.stalled_at <= now {
            self.stalled_at = now + STALL;
            // While nothing can be read, it says nothing that nothing comes back.
            if self.screens.health.borrow().reading.is_none() {
                self.leader.outbox().into_iter().for_each(|outbox| outbox.distrust());
            }
        }
    }

    fn timer(&mut self) -> Option<Instant> {
        let stalled_at = self.leader.outbox().filter(|outbox| outbox.awaits()).map(|_| ());
        let stalled_at = stalled_at.map(|()| self.stalled_at);
        self.retry_at.into_iter().chain(stalled_at).min()
    }

    fn has_room(&self) -> bool {
        let (records, bytes) = self.leader.size();
        records < PENDING.0 && bytes < PENDING.1
    }

    fn show(&self) {
        let (replica, feed) = (self.intake.replica(), self.intake.feed());
        self.screens.view.send_replace(View {
            witness: replica.witness(),
            leading: self.leader.epoch(),
            ignored: replica.ignored(),
            whole: feed.whole(),
            growth: feed.growth(),
        });
    }
}

fn hung() -> kafka::Error {
    let code = format!("nothing within {} s", PRODUCE_LIMIT.as_secs());
    kafka::Error::Transient { broker: "journal".to_owned(), request: "Produce", code }
}
