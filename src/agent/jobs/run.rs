//! One attempt, from its order or its directory to its end and release.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    Begin, Key, Shared, Told,
    files::{Files, Ticket, Verdict},
    id,
    prepare::{self, Failure},
    ship::{News, Shipping},
    workspace,
};
use crate::{
    agent::{
        adopt::{self, Decision, Lost},
        attempt::{Attempt, ClaimError},
        shim::{
            Blocked, Order, Shim, StartError,
            spec::{Cause, Exit, Outcome as ShimOutcome, Started, Total},
        },
        spool,
    },
    clock,
    job::{Cancel, Loss, Outcome, Returned, Spec, StreamEnd, Workspace},
    protocol::jobs::{LogTicket, Report},
};

/// Between looks at a shim that is about to start its process, or to end.
const LOOK: Duration = Duration::from_millis(20);

/// Between looks at a directory that can't be read.
const RETRY: Duration = Duration::from_secs(2);

/// What is known of an attempt.
enum Stage {
    /// A shim has it.
    Running(Ticket, Option<Started>),
    /// It has ended.
    Ended(Ticket, Ending),
    /// It did not run.
    Returned(Returned),
}

/// How an attempt ended.
struct Ending {
    report: Report,
    /// How the streams ended, if that is known.
    streams: Option<[StreamEnd; 2]>,
}

/// Takes care of an attempt until it was released and all its output is in the topic; then nothing of it is left.
pub async fn run(shared: &Arc<Shared>, key: Key, begin: Begin, mut told: mpsc::UnboundedReceiver<Told>) {
    let this = This { shared, key, attempt: Attempt::at(shared.settings.jobs.join(id(key).to_string())) };
    let stage = match begin {
        Begin::Ordered(spec, log) => this.start(&spec, log).await,
        Begin::Found(decision) => this.resume(decision.map(Ok)).await,
    };
    match stage {
        Stage::Returned(reason) => {
            this.remove().await;
            shared.report(key, Report::Returned(reason));
            while !matches!(told.recv().await, Some(Told::Release) | None) {}
        }
        Stage::Running(ticket, started) => this.follow(&ticket, Err(started), told).await,
        Stage::Ended(ticket, ending) => this.follow(&ticket, Ok(ending), told).await,
    }
}

struct This<'a> {
    shared: &'a Arc<Shared>,
    key: Key,
    attempt: Attempt,
}

impl This<'_> {
    fn files(&self) -> Files<'_> {
        Files(&self.attempt)
    }

    fn workspace(&self) -> PathBuf {
        self.shared.settings.work.join(id(self.key).to_string())
    }

    /// Starts what was ordered.
    async fn start(&self, spec: &Spec, log: LogTicket) -> Stage {
        let settings = &self.shared.settings;
        let no_room = |error: &dyn std::fmt::Display| {
            tracing::warn!("attempt {} cannot be started here: {error}", id(self.key));
            Stage::Returned(Returned::NoRoom)
        };
        match Attempt::take(&settings.jobs, &id(self.key)) {
            Ok(_) => {}
            Err(ClaimError::Taken(_)) => return self.resume(None).await,
            Err(error) => return no_room(&error),
        }
        let ticket = Ticket {
            partition: log.partition,
            key: log.key,
            format: spec.log_format,
            workspace: spec.workspace,
            name: spec.name.clone(),
        };
        let workspace = self.workspace();
        let ready = self.files().put_ticket(&ticket).map_err(|error| error.to_string());
        let ready =
            ready.and_then(|()| workspace::make(&workspace).map_err(|e| format!("{}: {e}", workspace.display())));
        if let Err(error) = ready {
            return no_room(&error);
        }
        if let Err(failure) = self.hook("pre-job", &ticket).await {
            let message = format!("the agent's pre-job hook failed: {failure}");
            return self.verdict(ticket, Outcome::NotStarted { code: 126, message });
        }
        match prepare::prepare(&settings.environment, self.key, &self.files(), &workspace, spec) {
            Ok(spec) => match self.attempt.put_spec(&spec) {
                Ok(()) => self.launch(ticket).await,
                Err(error) => no_room(&error),
            },
            Err(Failure::Job(outcome)) => self.verdict(ticket, outcome),
            Err(Failure::Disk(error)) => no_room(&error),
        }
    }

    /// Starts the shim of a directory that has all that it needs.
    async fn launch(&self, ticket: Ticket) -> Stage {
        match self.shared.settings.launcher.start(&self.attempt).await {
            Ok(started) => Stage::Running(ticket, Some(started)),
            // Only the directory can tell.
            Err(StartError::Taken | StartError::Unknown) => Stage::Running(ticket, None),
            Err(error @ (StartError::Spawn { .. } | StartError::Failed(_))) => {
                tracing::warn!("attempt {} cannot be started here: {error}", id(self.key));
                Stage::Returned(Returned::NoRoom)
            }
        }
    }

    /// It ended without having run.
    fn verdict(&self, ticket: Ticket, outcome: Outcome) -> Stage {
        let verdict = Verdict { at_ms: clock::unix_ms(), outcome };
        if let Err(error) = self.files().put_verdict(&verdict) {
            tracing::warn!("attempt {} cannot be ended here: {error}", id(self.key));
            return Stage::Returned(Returned::NoRoom);
        }
        Stage::Ended(ticket, ended_by(verdict))
    }

    /// Runs a hook of the operator's, if there is one, and notes what it says.
    async fn hook(&self, name: &str, ticket: &Ticket) -> Result<(), String> {
        let settings = &self.shared.settings;
        let workspace = self.workspace();
        let cwd = if workspace.is_dir() { workspace.clone() } else { self.attempt.dir().to_owned() };
        let mut environment = settings.environment.clone();
        prepare::describe(&mut environment, self.key, ticket.name.as_deref(), &workspace);
        let Some(ran) = settings.hooks.run(name, &environment, &cwd).await else { return Ok(()) };
        self.files().note(&ran.output);
        ran.failure.map_or(Ok(()), |failure| {
            self.files().note(format!("hook {name} failed: {failure}\n").as_bytes());
            Err(failure)
        })
    }

    /// What follows the process's end, once.
    async fn after(&self, ticket: &Ticket) {
        if !self.files().begin_after() {
            return;
        }
        // It is noted, and changes nothing.
        let _ = self.hook("post-job", ticket).await;
        prepare::forget(&self.files());
        let (dir, policy) = (self.workspace(), ticket.workspace);
        if !dir.exists() {
            return;
        }
        let left = tokio::task::spawn_blocking({
            let dir = dir.clone();
            move || workspace::leave(&dir, policy)
        });
        // To remove it takes as long as its files do; nobody waits for that.
        if let Workspace::Keep { quota } = policy {
            let note = match left.await {
                Ok(true) => format!("work directory kept: {}\n", dir.display()),
                _ => format!("work directory removed: it has more than the {quota} bytes that it may have\n"),
            };
            self.files().note(note.as_bytes());
        }
    }

    /// Goes on where an earlier agent was. What may have run is never given back because a file can't be read: that is tried
    /// again, and told as what stands in its way.
    async fn resume(&self, seen: Option<io::Result<Decision>>) -> Stage {
        let mut seen = seen.unwrap_or_else(|| self.look());
        loop {
            let error = match self.stage(seen).await {
                Ok(stage) => {
                    self.shared.trouble(self.key, None);
                    return stage;
                }
                Err(error) => error,
            };
            tracing::error!("attempt {}: {error}", id(self.key));
            self.shared.trouble(self.key, Some(format!("its directory cannot be read on the agent: {error}")));
            sleep(RETRY).await;
            seen = self.look();
        }
    }

    fn look(&self) -> io::Result<Decision> {
        adopt::look(&self.attempt).map(adopt::decide)
    }

    /// What the directory shows.
    async fn stage(&self, seen: io::Result<Decision>) -> Result<Stage, String> {
        let decision = seen.map_err(|error| error.to_string())?;
        let ticket = match self.files().ticket() {
            Ok(Some(ticket)) => ticket,
            // Nothing starts before there is one.
            _ if matches!(decision, Decision::Start { .. }) => return Ok(Stage::Returned(Returned::NoRoom)),
            Ok(None) => return Err("there is no ticket".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        if let Some(verdict) = self.files().verdict().map_err(|error| error.to_string())? {
            return Ok(Stage::Ended(ticket, ended_by(verdict)));
        }
        Ok(match decision {
            Decision::Start { has_spec: true } => self.launch(ticket).await,
            Decision::Start { has_spec: false } => Stage::Returned(Returned::NoRoom),
            Decision::Adopt(started) => Stage::Running(ticket, started),
            Decision::Report(exit) => Stage::Ended(ticket, ended(exit)),
            Decision::Lost(lost) => {
                self.sweep(lost).await;
                Stage::Ended(ticket, lost_by(lost))
            }
            Decision::Foreign => std::future::pending().await,
        })
    }

    /// Ends what a killed shim left behind.
    async fn sweep(&self, lost: Lost) {
        if let Lost::ShimGone { processes_left: true } = lost
            && let Ok(seen) = adopt::look(&self.attempt)
            && let adopt::Record::Read(started) = seen.started
            && !adopt::end(&started).await
        {
            tracing::warn!("processes of attempt {} are left and cannot be ended", id(self.key));
        }
    }

    /// Follows the process to its end, ships its output, and waits for the release.
    async fn follow(
        &self,
        ticket: &Ticket,
        found: Result<Ending, Option<Started>>,
        mut told: mpsc::UnboundedReceiver<Told>,
    ) {
        let (news, news_out) = watch::channel(News::default());
        let (acked, acked_out) = watch::channel(spool::Offsets::default());
        let (stalled, stalled_out) = watch::channel(None);
        let shipping = Shipping {
            shared: self.shared,
            key: self.key,
            files: self.files(),
            ticket,
            news: news_out,
            acked,
            stalled,
        };
        let mut released = false;
        let follow = async {
            let ending = match found {
                Ok(ending) => ending,
                Err(started) => {
                    let mut process = Process {
                        this: self,
                        ticket,
                        news: &news,
                        acked: acked_out.clone(),
                        stalled: stalled_out.clone(),
                        blocked: None,
                    };
                    process.run(started, &mut told, &mut released).await
                }
            };
            self.after(ticket).await;
            news.send_modify(|news| news.ended = Some(ending.streams));
            self.shared.report(self.key, ending.report);
            let mut stalled = stalled_out.clone();
            let mut acked = acked_out.clone();
            while !released {
                tokio::select! {
                    order = told.recv() => released = matches!(order, Some(Told::Release) | None),
                    Ok(()) = stalled.changed() => self.shared.trouble(self.key, stalled.borrow_and_update().clone()),
                    Ok(()) = acked.changed() => self.cut(*acked.borrow_and_update()),
                }
            }
        };
        tokio::join!(follow, shipping.run());
        self.remove().await;
    }

    /// What was shipped of an ended attempt's output takes no room any more.
    fn cut(&self, acked: spool::Offsets) {
        if let Err(error) = spool::cut(&self.attempt.spool(), &acked) {
            tracing::warn!("{error}");
        }
    }

    async fn remove(&self) {
        let attempt = self.attempt.clone();
        let removed = tokio::task::spawn_blocking(move || attempt.remove()).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!("{}: {error}", self.attempt.dir().display());
        }
    }
}

/// Follows a process.
struct Process<'a> {
    this: &'a This<'a>,
    ticket: &'a Ticket,
    news: &'a watch::Sender<News>,
    acked: watch::Receiver<spool::Offsets>,
    stalled: watch::Receiver<Option<String>>,
    blocked: Option<String>,
}

impl Process<'_> {
    async fn run(
        &mut self,
        mut started: Option<Started>,
        told: &mut mpsc::UnboundedReceiver<Told>,
        released: &mut bool,
    ) -> Ending {
        let mut cancelled = None;
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
                    sleep(LOOK).await;
                }
                Ok(Decision::Report(exit)) => return ended(exit),
                Ok(Decision::Lost(lost)) => {
                    self.this.sweep(lost).await;
                    return lost_by(lost);
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
                        if cancelled.replace(cancel).is_none() {
                            // Before the signal, so that it can look at what runs.
                            let _ = self.this.hook("on-cancel", self.ticket).await;
                        }
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

fn ended(exit: Exit) -> Ending {
    let outcome = match (exit.cause, exit.outcome) {
        // Whoever was told to end, and did, ended by that, whatever it then said.
        (Some(Cause::TimedOut), _) => Outcome::TimedOut,
        (Some(Cause::Cancelled), _) => Outcome::Cancelled,
        (None, ShimOutcome::Code(code)) => Outcome::Exited(code),
        (None, ShimOutcome::Signal(signal)) => Outcome::Signalled(signal),
        (None, ShimOutcome::NotExecuted { errno, what }) => {
            let error = std::io::Error::from_raw_os_error(errno);
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            Outcome::NotStarted { code, message: format!("{what}: {error}") }
        }
    };
    let [stdout, stderr] = [exit.stdout, exit.stderr].map(|Total { length, sha256 }| StreamEnd { length, sha256 });
    Ending { report: Report::Ended { agent_ms: exit.time, outcome, stdout, stderr }, streams: Some([stdout, stderr]) }
}

fn ended_by(verdict: Verdict) -> Ending {
    let digest = ring::digest::digest(&ring::digest::SHA256, b"");
    let nothing = StreamEnd { length: 0, sha256: digest.as_ref().try_into().expect("SHA-256 has 32 bytes") };
    let Verdict { at_ms: agent_ms, outcome } = verdict;
    let report = Report::Ended { agent_ms, outcome, stdout: nothing, stderr: nothing };
    Ending { report, streams: Some([nothing; 2]) }
}

fn lost_by(lost: Lost) -> Ending {
    let reason = match lost {
        Lost::HostRebooted => Loss::HostRebooted,
        Lost::ShimGone { .. } | Lost::RecordDamaged => Loss::ShimGone,
    };
    Ending { report: Report::Lost(reason), streams: None }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
