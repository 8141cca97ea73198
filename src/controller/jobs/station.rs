//! One agent's stream of orders and reports, for as long as its session lives.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::sleep};

use super::{
    super::peer::{BoxReader, Peer, Sending},
    Jobs, ORDERS, Station,
};
use crate::{
    frame::{FrameError, Incoming, Outgoing},
    id::AgentName,
    job::JobId,
    link::Lane,
    protocol::{
        Open,
        jobs::{Event, Hello, Mark, Order, Report},
    },
    selector::Labels,
};

/// Between a stream that broke and the next one of the same session.
const PAUSE: Duration = Duration::from_secs(1);

/// How often agents are shown how far the journal was read.
const MARK: Duration = Duration::from_secs(30);

/// What an agent may list; one that lists more has another fault than too many jobs.
const MAX_INVENTORY: usize = 100_000;

/// What a station needs to know of its agent.
pub struct Posting {
    /// Its session.
    pub peer: Arc<dyn Peer>,
    /// Its control lane's partition.
    pub partition: u32,
    /// What selectors see of it.
    pub labels: Labels,
    /// What the operator decided about an older journal.
    pub accept_rollback: bool,
}

/// Serves the agent until its session ends.
pub async fn serve(jobs: Arc<Jobs>, posting: Posting, mark: impl Fn() -> Mark + Send) {
    let name = posting.peer.name().clone();
    loop {
        match stream(&jobs, &posting, &mark).await {
            _ if posting.peer.is_closed() => return,
            Ok(never) => match never {},
            // One that doesn't know jobs, or refuses this controller, says so again.
            Err(error) => tracing::debug!(agent = %name, %error, "its stream of jobs broke"),
        }
        tokio::select! {
            _ = posting.peer.closed() => return,
            () = sleep(PAUSE) => {}
        }
    }
}

/// One stream, to its end.
async fn stream(
    jobs: &Arc<Jobs>,
    posting: &Posting,
    mark: &(impl Fn() -> Mark + Send),
) -> Result<std::convert::Infallible, FrameError> {
    let peer = &posting.peer;
    let (send, recv) = peer.open(Lane::Control).await.map_err(|error| FrameError::Io(std::io::Error::other(error)))?;
    let mut out = Outgoing::new(send);
    let mut shown = mark();
    out.put(&Open::Jobs(Hello { mark: shown, accept_rollback: posting.accept_rollback }))?;
    out.send().await?;
    let mut events = Incoming::<BoxReader, Event>::new(recv);
    let mut inventory = Vec::new();
    let (slots, draining) = loop {
        match events.next().await? {
            Event::Report { job, attempt, report } if inventory.len() < MAX_INVENTORY => {
                inventory.push((job, attempt, report));
            }
            Event::Ready { slots, draining } => break (slots, draining),
            Event::RolledBack(theirs) => {
                tracing::error!(
                    agent = %peer.name(), epoch = theirs.epoch, offset = theirs.offset,
                    "the agent was shown a later journal than this one, and takes no jobs; if the journal was restored on \
                     purpose, start with --accept-rollback"
                );
                return Err(FrameError::Ended);
            }
            _ => return Err(FrameError::Io(std::io::Error::other("it broke the protocol"))),
        }
    };
    let mut present = Present::enter(jobs, posting, slots, draining, inventory);
    let mut tick = tokio::time::interval(MARK);
    tick.reset();
    loop {
        tokio::select! {
            event = events.next() => {
                present.take(event?);
                continue;
            }
            order = present.orders.recv() => match order {
                Some(order) => out.put(&order)?,
                // It took none for too long.
                None => return Err(FrameError::Ended),
            },
            _ = tick.tick() => {
                let now = mark();
                if now == shown {
                    continue;
                }
                shown = now;
                out.put(&Order::Mark(now))?;
            }
        }
        // Whatever else is there goes out together.
        while let Ok(order) = present.orders.try_recv() {
            out.put(&order)?;
        }
        send_all(&mut out, &mut events, &mut present).await?;
    }
}

/// Sends what was put, and goes on reading meanwhile: an agent that waits for us to read must not wait for ever.
async fn send_all(
    out: &mut Outgoing<Sending>,
    events: &mut Incoming<BoxReader, Event>,
    present: &mut Present<'_>,
) -> Result<(), FrameError> {
    loop {
        tokio::select! {
            biased;
            sent = out.send() => return Ok(sent?),
            event = events.next() => present.take(event?),
        }
    }
}

/// An agent that has said what it has. When this is dropped it has no stream any more.
struct Present<'a> {
    jobs: &'a Jobs,
    name: AgentName,
    number: u64,
    orders: mpsc::Receiver<Order>,
}

impl<'a> Present<'a> {
    fn enter(
        jobs: &'a Jobs,
        posting: &Posting,
        slots: u32,
        draining: bool,
        inventory: Vec<(JobId, u32, Report)>,
    ) -> Self {
        let name = posting.peer.name().clone();
        let (sender, orders) = mpsc::channel(ORDERS);
        let number = jobs.change(|state, now| {
            state.stations_made += 1;
            let number = state.stations_made;
            state.stations.insert(name.clone(), Station { number, orders: sender });
            let (partition, labels) = (posting.partition, posting.labels.clone());
            let session = super::super::scheduler::Session { partition, labels, slots, inventory };
            // Whom it does not know was removed a moment ago, and its session ends.
            if state.scheduler.handle_session(now, &name, session) && draining {
                state.scheduler.handle_draining(now, &name, true);
            }
            number
        });
        Self { jobs, name, number, orders }
    }

    fn take(&mut self, event: Event) {
        let Self { jobs, name, number, .. } = self;
        jobs.change(|state, now| {
            if state.stations.get(name).is_none_or(|station| station.number != *number) {
                return;
            }
            match event {
                Event::Report { job, attempt, report } => {
                    state.scheduler.handle_report(now, name, job, attempt, report);
                }
                Event::Draining(draining) => state.scheduler.handle_draining(now, name, draining),
                Event::Trouble { job, attempt, trouble: Some(trouble) } => {
                    let theirs = state.scheduler.job(job).and_then(|job| job.attempts().get(&attempt));
                    if theirs.is_some_and(|attempt| attempt.agent == *name) {
                        let trouble = trouble.chars().take(500).collect();
                        state.troubles.insert((job, attempt), trouble);
                    }
                }
                Event::Trouble { job, attempt, trouble: None } => drop(state.troubles.remove(&(job, attempt))),
                Event::Ready { .. } | Event::RolledBack(_) => {}
            }
        });
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let Self { jobs, name, number, .. } = self;
        jobs.change(|state, now| {
            let newest = state.stations.get(name).is_none_or(|station| station.number == *number);
            if newest {
                state.stations.remove(name);
                state.scheduler.handle_session_end(now, name);
            }
        });
    }
}
