//! A process under its shim, followed to its end.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep,
};

use super::{
    Told,
    ending::{self, Ending},
    files::Ticket,
    id,
    run::This,
    ship::News,
};
use crate::{
    agent::{
        adopt::{self, Decision},
        shim::{Blocked, Order, Shim, spec::Started},
        spool,
    },
    backoff::Backoff,
    job::Cancel,
    protocol::jobs::Report,
};

/// Between looks at a shim that is about to start its process, or to end: soon at first, since short jobs end at once.
const LOOK: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));

/// Follows a process.
pub struct Process<'a> {
    pub this: &'a This<'a>,
    pub ticket: &'a Ticket,
    pub news: &'a watch::Sender<News>,
    pub acked: watch::Receiver<spool::Offsets>,
    pub stalled: watch::Receiver<Option<String>>,
    pub blocked: Option<String>,
    /// The hook that goes with a cancel, once it was begun.
    pub on_cancel: Option<JoinHandle<()>>,
}

impl Process<'_> {
    /// Until its end is known, and a hook that was begun has ended.
    pub async fn run(
        &mut self,
        started: Option<Started>,
        told: &mut mpsc::UnboundedReceiver<Told>,
        released: &mut bool,
    ) -> Ending {
        let ending = self.end(started, told, released).await;
        if let Some(hook) = self.on_cancel.take() {
            let _ = hook.await;
        }
        ending
    }

    /// Begins the hook that goes with a cancel: beside the rest, since it has a minute, and the process its signal at once.
    fn begin_hook(&self) -> JoinHandle<()> {
        let (shared, key, attempt) = (self.this.shared.clone(), self.this.key, self.this.attempt.clone());
        let ticket = self.ticket.clone();
        tokio::spawn(async move {
            let this = This { shared: &shared, key, attempt };
            // It is noted, and changes nothing.
            let _ = this.hook("on-cancel", &ticket).await;
        })
    }

    async fn end(
        &mut self,
        mut started: Option<Started>,
        told: &mut mpsc::UnboundedReceiver<Told>,
        released: &mut bool,
    ) -> Ending {
        let mut cancelled = None;
        let mut look = LOOK;
        loop {
            if let Some(started) = started.take() {
                let boot = uuid::Uuid::parse_str(&started.boot).map_or(0, |boot| boot.as_u128());
                self.this
                    .shared
                    .report(self.this.key, Report::Started { agent_ms: started.time, pid: started.pid, boot });
            }
            if let Ok(shim) = Shim::connect(&self.this.attempt).await {
                self.attend(shim, told, released, &mut cancelled).await;
            }
            match adopt::look(&self.this.attempt).map(adopt::decide) {
                Ok(Decision::Adopt(seen)) => {
                    // It ends in a moment, or has just begun.
                    if let Some(seen) = seen
                        && !self.is_told()
                    {
                        started = Some(seen);
                    }
                    sleep(look.next(rand::random())).await;
                }
                Ok(Decision::Report(exit)) => return ending::of_exit(exit),
                Ok(Decision::Lost(lost)) => {
                    self.this.sweep(lost).await;
                    return ending::of_loss(lost);
                }
                // A shim that died before it began leaves what it needs.
                Ok(Decision::Start { .. }) => {
                    if let Err(error) = self.this.shared.settings.launcher.start(&self.this.attempt).await {
                        tracing::warn!("attempt {}: {error}", id(self.this.key));
                        sleep(Duration::from_secs(1)).await;
                    }
                }
                Ok(Decision::Foreign) => std::future::pending::<()>().await,
                Err(error) => {
                    tracing::error!("attempt {} cannot be looked at: {error}", id(self.this.key));
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Whether it was reported that the process runs.
    fn is_told(&self) -> bool {
        let state = self.this.shared.lock();
        state.attempts.get(&self.this.key).is_some_and(|entry| !matches!(entry.report, Some(Report::Claimed)))
    }

    /// Until the shim is gone.
    async fn attend(
        &mut self,
        mut shim: Shim,
        told: &mut mpsc::UnboundedReceiver<Told>,
        released: &mut bool,
        cancelled: &mut Option<Cancel>,
    ) {
        if let Some(Cancel { signal, grace }) = *cancelled {
            let _ = shim.order(Order::Cancel { signal, grace }).await;
        }
        let acked = *self.acked.borrow_and_update();
        let _ = shim.order(Order::Acked(acked)).await;
        loop {
            tokio::select! {
                report = shim.changed() => {
                    let Some(report) = report else { return };
                    self.blocked = report.blocked.map(|blocked| words(blocked, report.limit));
                    self.news.send_if_modified(|news| {
                        std::mem::replace(&mut news.spooled, report.spooled) != report.spooled
                    });
                    self.trouble();
                }
                Ok(()) = self.acked.changed() => {
                    let acked = *self.acked.borrow_and_update();
                    let _ = shim.order(Order::Acked(acked)).await;
                }
                Ok(()) = self.stalled.changed() => {
                    self.stalled.borrow_and_update();
                    self.trouble();
                }
                Some(order) = told.recv() => match order {
                    Told::Cancel(cancel) => {
                        // Each session says it again.
                        match cancelled.replace(cancel) {
                            Some(before) if before == cancel => continue,
                            Some(_) => {}
                            None => self.on_cancel = Some(self.begin_hook()),
                        }
                        self.this.files().note_cancelled(&cancel);
                        let Cancel { signal, grace } = cancel;
                        let _ = shim.order(Order::Cancel { signal, grace }).await;
                    }
                    // Of one that runs nobody says so but a controller that gave it up.
                    Told::Release => *released = true,
                },
            }
        }
    }

    fn trouble(&self) {
        let trouble = self.blocked.clone().or_else(|| self.stalled.borrow().clone());
        self.this.shared.trouble(self.this.key, trouble);
    }
}

fn words(blocked: Blocked, limit: u64) -> String {
    match blocked {
        Blocked::Limit => {
            format!(
                "it waits: {limit} bytes of its output wait on the agent's disk, which is its limit, for Kafka to take them"
            )
        }
        Blocked::Disk { errno } => {
            let error = std::io::Error::from_raw_os_error(errno);
            format!("it waits: the agent's disk takes no more of its output ({error})")
        }
    }
}
