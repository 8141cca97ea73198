//! What follows an attempt's end: the operator's hook, its artifacts, and what becomes of its work directory.
//!
//! Each step is done by one agent, or goes on under the next one. The controller hears of the end when all are done: who waits
//! for the job finds its artifacts.

use std::pin::pin;

use tokio::sync::{mpsc, watch};

use super::{Told, ending::Ending, files::Ticket, given, id, run::This, workspace};
use crate::{
    agent::{
        artifacts::{Store, Wanted},
        run_as::User,
        spool,
    },
    job::{Glob, Workspace},
    kafka,
    protocol::jobs::Report,
};

/// How many of the files that were left out the job's log names.
const NAMED: usize = 10;

/// How the shipping of the output goes on meanwhile.
pub struct Course {
    /// Why nothing gets there.
    pub stalled: watch::Receiver<Option<String>>,
    /// What the topic has.
    pub acked: watch::Receiver<spool::Offsets>,
}

impl This<'_> {
    /// All of it.
    pub async fn after(
        &self,
        ticket: &Ticket,
        ending: &Ending,
        course: Course,
        told: &mut mpsc::UnboundedReceiver<Told>,
        released: &mut bool,
    ) {
        if self.files().begin("after") {
            // It is noted, and changes nothing.
            let _ = self.hook("post-job", ticket).await;
        }
        given::forget(&self.files(), &self.private());
        // Nobody knows of a lost attempt what it had done.
        if matches!(ending.report, Report::Ended { .. }) {
            self.artifacts(ticket, course, told, released).await;
        }
        self.leave(ticket).await;
    }

    /// Keeps or removes the work directory.
    async fn leave(&self, ticket: &Ticket) {
        let (dir, policy) = (self.workspace(), ticket.workspace);
        let first = self.files().begin("leaving");
        // What an agent that died meanwhile kept is kept.
        if !dir.exists() || !first && policy != Workspace::Remove {
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

    /// Stores what somebody wants of the work directory, and reports what became of that.
    async fn artifacts(
        &self,
        ticket: &Ticket,
        course: Course,
        told: &mut mpsc::UnboundedReceiver<Told>,
        released: &mut bool,
    ) {
        match self.files().left() {
            Ok(Some(report)) => return self.shared.left(self.key, report),
            Ok(None) => {}
            Err(error) => tracing::warn!("attempt {}: {error}", id(self.key)),
        }
        let report = match self.wanted() {
            Ok(None) => return,
            Ok(Some(wanted)) => self.store(ticket, wanted, course, told, released).await,
            Err(why) => Report::NotStored(why),
        };
        if let Report::NotStored(why) = &report {
            self.files().note(format!("no artifacts: {why}\n").as_bytes());
        }
        if let Err(error) = self.files().put_left(&report) {
            // The next agent would store them once more, which costs no more than that.
            tracing::warn!("attempt {}: {error}", id(self.key));
        }
        self.shared.left(self.key, report);
    }

    /// What is wanted; nothing unless somebody said so.
    fn wanted(&self) -> Result<Option<Wanted>, String> {
        let settings = &self.shared.settings;
        let patterns = self.files().wanted().map_err(|error| error.to_string())?;
        if patterns.is_empty() {
            return Ok(None);
        }
        if settings.artifacts.limit == 0 {
            return Err("this agent takes none (--artifact-limit 0)".to_owned());
        }
        let globs = patterns.iter().map(|text| text.parse::<Glob>()).collect::<Result<_, _>>();
        Ok(Some(Wanted {
            root: self.workspace(),
            globs: globs.map_err(|error| error.to_string())?,
            limit: settings.artifacts.limit,
            user: settings.run_as.as_ref().map(User::ids).map(|ids| (ids.uid, ids.gid)),
        }))
    }

    /// Stores it, unless somebody asks for the end of that.
    async fn store(
        &self,
        ticket: &Ticket,
        wanted: Wanted,
        mut course: Course,
        told: &mut mpsc::UnboundedReceiver<Told>,
        released: &mut bool,
    ) -> Report {
        let (stalled, mut waiting) = watch::channel(None);
        let store = Store {
            cluster: &self.shared.cluster,
            topic: &self.shared.settings.artifacts.topic,
            partition: ticket.partition,
            wanted,
            note: self.files().path("storing"),
            stalled,
        };
        // Each session says again what ended the process.
        let known = self.files().cancelled();
        let mut storing = pin!(store.run());
        let (outcome, left_out) = loop {
            tokio::select! {
                biased;
                outcome = &mut storing => break outcome,
                order = told.recv() => match order {
                    Some(Told::Cancel(cancel)) if Some(cancel) == known => {}
                    Some(Told::Cancel(_)) => break (Err("the job was cancelled while they were stored".to_owned()), Vec::new()),
                    // Who gave the attempt up wants nothing of it.
                    Some(Told::Release) | None => {
                        *released = true;
                        break (Err("nobody waited for them".to_owned()), Vec::new());
                    }
                },
                Ok(()) = waiting.changed() => {
                    let why = waiting.borrow_and_update().as_ref().map(waits);
                    self.shared.trouble(self.key, why.or_else(|| course.stalled.borrow().clone()));
                }
                Ok(()) = course.stalled.changed() => {
                    let why = course.stalled.borrow_and_update().clone();
                    self.shared.trouble(self.key, waiting.borrow().as_ref().map(waits).or(why));
                }
                Ok(()) = course.acked.changed() => self.cut(*course.acked.borrow_and_update()),
            }
        };
        self.shared.trouble(self.key, course.stalled.borrow().clone());
        for line in left_out.iter().take(NAMED) {
            self.files().note(format!("artifact left out: {line}\n").as_bytes());
        }
        if left_out.len() > NAMED {
            self.files().note(format!("and {} more; `rk artifacts ls` has them\n", left_out.len() - NAMED).as_bytes());
        }
        outcome.map_or_else(Report::NotStored, Report::Stored)
    }
}

fn waits(error: &kafka::Error) -> String {
    format!("its artifacts wait for Kafka: {error}")
}
