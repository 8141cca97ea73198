//! A job as the API shows it.

use super::State;
use crate::{
    api::jobs::{self, ArtifactsInfo, JobInfo, StreamInfo},
    controller::scheduler::{Scheduler, Waiting},
    job::{Artifacts, AttemptEnd, Command, Job, JobId, Left, Outcome, State as JobState, Stored, StreamEnd},
};

/// How much of a command is shown, in characters.
const COMMAND: usize = 200;

impl State {
    /// The job as it is now.
    pub(super) fn info(&self, id: JobId) -> Option<JobInfo> {
        let job = self.scheduler.job(id)?;
        let trouble = self.troubles.get(&(id, job.attempt())).cloned();
        Some(info(&self.scheduler, id, job, trouble))
    }
}

fn info(scheduler: &Scheduler, id: JobId, job: &Job, trouble: Option<String>) -> JobInfo {
    let (spec, view) = (job.spec(), scheduler.view(id).unwrap_or_default());
    let attempt = job.attempts().get(&job.attempt());
    let end = attempt.and_then(|attempt| attempt.end.as_ref());
    let (number, mut reason) = match job.state() {
        JobState::Failed(number) | JobState::Signalled(number) => (Some(number), None),
        JobState::Lost(loss) => (None, Some(loss.to_string())),
        _ => (None, None),
    };
    let (mut stdout, mut stderr) = (None, None);
    if let Some(AttemptEnd::Ended { outcome, stdout: out, stderr: err, .. }) = end {
        if let Outcome::NotStarted { message, .. } = outcome {
            reason = Some(message.clone());
        }
        (stdout, stderr) = (Some(stream(out)), Some(stream(err)));
    }
    JobInfo {
        artifacts: job.left().map(left),
        id,
        name: spec.name.clone(),
        state: job.state().as_str().to_owned(),
        number,
        reason,
        exit_code: jobs::exit_code(job.state()),
        unreachable: view.unreachable,
        waiting: view.waiting.map(|waiting| words(&waiting)),
        trouble,
        agent: attempt.map(|attempt| attempt.agent.clone()),
        target: spec.target.to_string(),
        command: command(&spec.command),
        submitter: spec.submitter.clone(),
        priority: spec.priority,
        concurrency: spec.concurrency.clone(),
        submitted_ms: job.submitted_ms(),
        started_ms: attempt.and_then(|attempt| attempt.started).map(|started| started.agent_ms),
        ended_ms: job.ended_ms(),
        cancelled_by: job.cancel().map(|cancel| cancel.by.clone()),
        retry_of: job.retry_of(),
        attempt: job.attempt(),
        stdout,
        stderr,
        pid: attempt.filter(|_| end.is_none()).and_then(|attempt| attempt.started).map(|started| started.pid),
    }
}

fn left(left: &Left) -> ArtifactsInfo {
    let (at_ms, forgotten_ms) = (left.at_ms, left.forgotten_ms);
    match &left.artifacts {
        Artifacts::Stored(Stored { files, bytes, left_out, .. }) => {
            let (files, bytes, left_out) = (*files, *bytes, *left_out);
            ArtifactsInfo { files, bytes, left_out, missing: None, at_ms, forgotten_ms }
        }
        Artifacts::Missing { why } => {
            ArtifactsInfo { files: 0, bytes: 0, left_out: 0, missing: Some(why.clone()), at_ms, forgotten_ms }
        }
    }
}

fn stream(end: &StreamEnd) -> StreamInfo {
    let sha256 = end.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    StreamInfo { length: end.length, sha256 }
}

fn words(waiting: &Waiting) -> String {
    match waiting {
        Waiting::Placing(agent) => format!("agent {agent} is about to get it"),
        Waiting::Concurrency(job) => format!("job {job} has the same concurrency key and goes first"),
        Waiting::NoAgent => "no agent has the labels that it wants; `rk agents ls` shows what there is".to_owned(),
        Waiting::Unreachable => "no agent that it could go to can be reached".to_owned(),
        Waiting::Drained => "the agents that it could go to take no new jobs".to_owned(),
        Waiting::Slots => "all slots of the agents that it could go to are taken".to_owned(),
    }
}

fn command(command: &Command) -> String {
    let text = match command {
        Command::Argv(argv) => argv.join(" "),
        Command::Script { text, .. } => {
            let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!"));
            format!("script: {}", first.unwrap_or_default().trim())
        }
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(COMMAND).collect()
}
