//! One attempt, from its order or its directory to its end and release.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    Begin, Key, Shared, Told,
    after::Course,
    ending::{self, Ending},
    files::{Files, Ticket, Verdict},
    given::{self, Given},
    id,
    prepare::{self, Failure},
    process::Process,
    ship::{News, Shipping},
    workspace,
};
use crate::{
    agent::{
        adopt::{self, Decision, Lost},
        attempt::{Attempt, ClaimError},
        bundles::{self, Bundles, Ready},
        shim::{StartError, spec::Started},
        spool,
    },
    bundle,
    bytelog::blob::Progress,
    clock,
    job::{Outcome, Returned, Spec},
    protocol::jobs::{LogTicket, Report},
};

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

/// Why an attempt is not begun.
enum Unfetched {
    Outcome(Outcome),
    Returned(Returned),
}

/// Takes care of an attempt until it was released and all its output is in the topic; then nothing of it is left.
pub async fn run(shared: &Arc<Shared>, key: Key, begin: Begin, mut told: mpsc::UnboundedReceiver<Told>) {
    let this = This { shared, key, attempt: Attempt::at(shared.settings.jobs.join(id(key).to_string())) };
    // What it uses stays as long as it does.
    let (stage, _ready, _pins) = match begin {
        Begin::Ordered(spec, log, tickets) => {
            let (stage, ready) = this.start(&spec, log, &tickets, &mut told).await;
            (stage, ready, Vec::new())
        }
        Begin::Found(decision, pins) => (this.resume(decision.map(Ok)).await, Ready::default(), pins),
    };
    match stage {
        Stage::Returned(reason) => {
            given::forget(&this.files(), &this.private());
            this.remove().await;
            shared.report(key, Report::Returned(reason));
            while !matches!(told.recv().await, Some(Told::Release) | None) {}
        }
        Stage::Running(ticket, started) => this.follow(&ticket, Err(started), told).await,
        Stage::Ended(ticket, ending) => this.follow(&ticket, Ok(ending), told).await,
    }
}

pub struct This<'a> {
    pub shared: &'a Arc<Shared>,
    pub key: Key,
    pub attempt: Attempt,
}

impl This<'_> {
    pub fn files(&self) -> Files<'_> {
        Files(&self.attempt)
    }

    pub fn workspace(&self) -> PathBuf {
        self.shared.settings.work.join(id(self.key).to_string())
    }

    /// Where what another user is given lies.
    pub fn private(&self) -> PathBuf {
        self.shared.settings.work.join(format!("{}.private", id(self.key)))
    }

    /// Starts what was ordered.
    async fn start(
        &self,
        spec: &Spec,
        log: LogTicket,
        tickets: &[bundle::Ticket],
        told: &mut mpsc::UnboundedReceiver<Told>,
    ) -> (Stage, Ready) {
        let ticket = match self.claim(spec, log, tickets).await {
            Ok(ticket) => ticket,
            Err(stage) => return (stage, Ready::default()),
        };
        // What may not run costs no download; why it may not is told below.
        let may_run = self.shared.settings.policy.check_job(spec).is_ok();
        match self.fetch(if may_run { tickets } else { &[] }, told).await {
            Ok(ready) => (self.begin(spec, ticket, &ready).await, ready),
            Err(Unfetched::Outcome(outcome)) => (self.verdict(ticket, outcome), Ready::default()),
            Err(Unfetched::Returned(reason)) => (Stage::Returned(reason), Ready::default()),
        }
    }

    /// Makes the attempt's directory.
    async fn claim(&self, spec: &Spec, log: LogTicket, tickets: &[bundle::Ticket]) -> Result<Ticket, Stage> {
        let settings = &self.shared.settings;
        match Attempt::take(&settings.jobs, &id(self.key)) {
            Ok(_) => {}
            Err(ClaimError::Taken(_)) => return Err(self.resume(None).await),
            Err(error) => return Err(self.no_room(&error)),
        }
        let ticket = Ticket {
            partition: log.partition,
            key: log.key,
            format: spec.log_format,
            workspace: spec.workspace,
            name: spec.name.clone(),
            bundles: Bundles::kept_as(tickets),
        };
        let workspace = self.workspace();
        let put = self.files().put_wanted(&spec.artifacts).and_then(|()| self.files().put_ticket(&ticket));
        let ready = put.map_err(|error| error.to_string());
        let user = settings.run_as.as_ref();
        let ready =
            ready.and_then(|()| workspace::make(&workspace, user).map_err(|e| format!("{}: {e}", workspace.display())));
        match ready {
            Ok(()) => Ok(ticket),
            Err(error) => Err(self.no_room(&error)),
        }
    }

    fn no_room(&self, error: &dyn std::fmt::Display) -> Stage {
        tracing::warn!("attempt {} cannot be started here: {error}", id(self.key));
        Stage::Returned(Returned::NoRoom)
    }

    /// Waits for the bundles. What stands in their way is told, and who does not want the job any more need not wait.
    async fn fetch(
        &self,
        tickets: &[bundle::Ticket],
        told: &mut mpsc::UnboundedReceiver<Told>,
    ) -> Result<Ready, Unfetched> {
        if tickets.is_empty() {
            return Ok(Ready::default());
        }
        let (progress, mut seen) = watch::channel(Progress::default());
        let get = self.shared.settings.bundles.get(tickets, &progress);
        tokio::pin!(get);
        let result = loop {
            tokio::select! {
                biased;
                order = told.recv() => match order {
                    Some(Told::Cancel(_)) => break Err(Unfetched::Outcome(Outcome::Cancelled)),
                    Some(Told::Release) | None => {
                        // It is waited for once more.
                        self.shared.tell_again(self.key);
                        break Err(Unfetched::Returned(Returned::Unwanted));
                    }
                },
                got = &mut get => break got.map_err(|failure| match failure {
                    bundles::Failure::Refused(message) => Unfetched::Outcome(Outcome::NotStarted { code: 126, message }),
                    bundles::Failure::NoRoom(why) => {
                        tracing::warn!("attempt {} cannot be started here: {why}", id(self.key));
                        Unfetched::Returned(Returned::NoRoom)
                    }
                }),
                Ok(()) = seen.changed() => {
                    let stalled = seen.borrow_and_update().stalled.as_ref().map(ToString::to_string);
                    self.shared.trouble(self.key, stalled.map(|why| format!("its bundle can't be fetched: {why}")));
                }
            }
        };
        self.shared.trouble(self.key, None);
        result
    }

    async fn begin(&self, spec: &Spec, ticket: Ticket, bundles: &Ready) -> Stage {
        let settings = &self.shared.settings;
        let (workspace, user) = (self.workspace(), settings.run_as.as_ref());
        if let Err(failure) = self.hook("pre-job", &ticket).await {
            let message = format!("the agent's pre-job hook failed: {failure}");
            return self.verdict(ticket, Outcome::NotStarted { code: 126, message });
        }
        let given = Given::new(&self.files(), &self.private(), user);
        match prepare::prepare(settings, self.key, &self.files(), &given, &workspace, spec, bundles) {
            Ok(spec) => match self.attempt.put_spec(&spec) {
                Ok(()) => self.launch(ticket).await,
                Err(error) => self.no_room(&error),
            },
            Err(Failure::Job(outcome)) => self.verdict(ticket, outcome),
            Err(Failure::Disk(error)) => self.no_room(&error),
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
        Stage::Ended(ticket, ending::of_verdict(verdict))
    }

    /// Runs a hook of the operator's, if there is one, and notes what it says.
    pub async fn hook(&self, name: &str, ticket: &Ticket) -> Result<(), String> {
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
            return Ok(Stage::Ended(ticket, ending::of_verdict(verdict)));
        }
        Ok(match decision {
            Decision::Start { has_spec: true } => self.launch(ticket).await,
            Decision::Start { has_spec: false } => Stage::Returned(Returned::NoRoom),
            Decision::Adopt(started) => Stage::Running(ticket, started),
            Decision::Report(exit) => Stage::Ended(ticket, ending::of_exit(exit)),
            Decision::Lost(lost) => {
                self.sweep(lost).await;
                Stage::Ended(ticket, ending::of_loss(lost))
            }
            Decision::Foreign => std::future::pending().await,
        })
    }

    /// Ends what a killed shim left behind.
    pub async fn sweep(&self, lost: Lost) {
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
                        on_cancel: None,
                    };
                    process.run(started, &mut told, &mut released).await
                }
            };
            let course = Course { stalled: stalled_out.clone(), acked: acked_out.clone() };
            self.after(ticket, &ending, course, &mut told, &mut released).await;
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
    pub fn cut(&self, acked: spool::Offsets) {
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

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
