//! `rk jobs`: what became of jobs, and what shall become of them.

mod ends;
pub mod show;
#[cfg(test)]
pub mod testing;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};

use super::{
    Failure, client,
    exec::{Signals, milliseconds},
    flags::ClientFlags,
    log,
    logs::{Look, PATIENCE},
    output::{self, Format},
    run::{self, Attend},
    submitter,
};
use crate::{
    api::{
        Client,
        jobs::{AskedBy, JobInfo, JobQuery, SetDeadline},
    },
    config::{Environment, keys},
    id::AgentName,
};

/// List jobs, wait for them, end and repeat them.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// List jobs, the newest first
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show all that is known of a job
    Show(IdArgs),
    /// Wait until jobs have ended
    Wait(ends::WaitArgs),
    /// End jobs
    Cancel(ends::CancelArgs),
    /// Submit a job that ended once more
    Retry(RetryArgs),
    /// Say how long a job's agent may be unreachable before the job is lost
    Deadline(DeadlineArgs),
}

const LS_HELP: &str = "\
States: queued, assigned, running, succeeded, failed, signalled, cancelled,
timed_out, lost; live for all that have not ended. The agent of an unreachable
one can't be reached; the job may well be running.

  rk jobs ls --state live
  rk jobs ls --state failed,lost -n 100 -o json";

/// Arguments of `rk jobs ls`.
#[derive(Debug, Args)]
#[command(after_help = LS_HELP)]
pub struct LsArgs {
    /// Only those in these states, with commas between
    #[arg(long, value_name = "STATE,…", default_value = "", hide_default_value = true)]
    state: String,
    /// Only those of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: usize,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `rk jobs show`.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// The job's id, or the beginning of it
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    flags: ClientFlags,
}

const RETRY_HELP: &str = "\
The new job has the same command and settings and an id of its own, which is
printed; with --follow its output is shown as `rk run` does.

  rk jobs retry --follow 0k3d";

/// Arguments of `rk jobs retry`.
#[derive(Debug, Args)]
#[command(after_help = RETRY_HELP)]
pub struct RetryArgs {
    /// The job's id, or the beginning of it
    #[arg(value_name = "ID")]
    id: String,
    /// Show the new job's output and exit with its code
    #[arg(short = 'f', long)]
    follow: bool,
    #[command(flatten)]
    flags: ClientFlags,
}

const DEADLINE_HELP: &str = "\
A job whose agent can't be reached is not lost by itself: it may be running.
This says after how long it counts as lost; outages of Kafka don't count.

  rk jobs deadline 0k3d 10m
  rk jobs deadline 0k3d never";

/// Arguments of `rk jobs deadline`.
#[derive(Debug, Args)]
#[command(after_help = DEADLINE_HELP)]
pub struct DeadlineArgs {
    /// The job's id, or the beginning of it
    #[arg(value_name = "ID")]
    id: String,
    /// A duration like 10m, or never
    #[arg(value_name = "AFTER", value_parser = after)]
    after: After,
    #[command(flatten)]
    flags: ClientFlags,
}

/// How long an agent may be unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct After(Option<Duration>);

fn after(text: &str) -> Result<After, String> {
    match text {
        "never" => Ok(After(None)),
        text => crate::config::duration(text).map(|d| After(Some(d))).map_err(|e| format!("{e}, or never")),
    }
}

/// What the commands on jobs share.
struct Session {
    client: Client,
    format: Format,
    quiet: bool,
}

fn open(flags: ClientFlags, environment: &Environment) -> Result<Session, Failure> {
    let settings = flags.settings(environment)?;
    log::start(&settings, log::COMMAND)?;
    let format = settings.parse::<Format>(&keys::OUTPUT)?.unwrap_or_default();
    let quiet = settings.switch(&keys::QUIET)?;
    Ok(Session { client: client::connect(&settings)?, format, quiet })
}

/// Runs the command.
pub async fn run(command: JobsCommand, environment: &Environment) -> Result<u8, Failure> {
    match command {
        JobsCommand::Ls(args) => {
            let query = JobQuery { state: args.state, agent: args.agent, limit: Some(args.limit) };
            list(&query, &open(args.flags, environment)?).await
        }
        JobsCommand::Show(args) => {
            let session = open(args.flags, environment)?;
            print(&session.client.job(&args.id).await?, session.format)
        }
        JobsCommand::Wait(args) => {
            let session = open(args.flags.clone(), environment)?;
            ends::wait(args, &session).await
        }
        JobsCommand::Cancel(args) => {
            let session = open(args.flags.clone(), environment)?;
            ends::cancel(args, &session).await
        }
        JobsCommand::Retry(args) => retry(&args.id, args.follow, &open(args.flags, environment)?).await,
        JobsCommand::Deadline(args) => deadline(&args.id, args.after, &open(args.flags, environment)?).await,
    }
}

async fn list(query: &JobQuery, session: &Session) -> Result<u8, Failure> {
    let list = session.client.jobs(query).await?;
    match session.format {
        Format::Json => output::print_json(&list.jobs)?,
        Format::Jsonl => list.jobs.iter().try_for_each(output::print_jsonl)?,
        Format::Name => {
            let ids: String = list.jobs.iter().map(|job| format!("{}\n", job.id)).collect();
            output::print(&ids)?;
        }
        Format::Table if list.jobs.is_empty() => (),
        Format::Table => {
            let now = now_ms();
            let rows: Vec<_> = list.jobs.iter().map(|job| show::row(job, now)).collect();
            output::print(&output::table(show::HEADINGS, &rows))?;
        }
    }
    if session.quiet || session.format != Format::Table {
        return Ok(0);
    }
    if list.more > 0 {
        output::say(&format!("rk: {} more; -n {} shows them", list.more, list.jobs.len() as u64 + list.more));
    } else if list.jobs.is_empty() {
        let any = *query == JobQuery { limit: query.limit, ..JobQuery::default() };
        let none = if any { "no jobs yet" } else { "no such jobs" };
        output::say(&format!("rk: {none}; `rk run -- COMMAND` submits one"));
    }
    Ok(0)
}

async fn retry(id: &str, follow: bool, session: &Session) -> Result<u8, Failure> {
    if follow && session.format == Format::Name {
        return Err(Failure::usage("rk jobs retry --follow has no format name; use -o jsonl for events"));
    }
    // Before the request: an interrupt meanwhile must not be lost.
    let signals = Signals::listen()?;
    let job = session.client.retry_job(id, &AskedBy { by: submitter::name() }).await?;
    if !follow {
        run::announce(&job, session.format)?;
        return Ok(0);
    }
    if !session.quiet {
        output::say(&format!("rk: job {}", job.id));
    }
    let look = Look { format: session.format, timestamps: false, quiet: session.quiet };
    let attend = Attend { look, patience: PATIENCE, cancel: false };
    attend.to(&session.client, &job, signals).await.map(|verdict| verdict.code)
}

async fn deadline(id: &str, After(after): After, session: &Session) -> Result<u8, Failure> {
    let request = SetDeadline { by: submitter::name(), after_ms: after.map(milliseconds) };
    let job = session.client.set_job_deadline(id, &request).await?;
    if session.format != Format::Table {
        return print(&job, session.format);
    }
    if !session.quiet {
        output::say(&match after {
            Some(after) => {
                let after = output::duration(after);
                format!("rk: job {} is lost if its agent can't be reached for {after}", job.id)
            }
            None => format!("rk: job {} is not lost however long its agent can't be reached", job.id),
        });
    }
    Ok(0)
}

fn print(job: &JobInfo, format: Format) -> Result<u8, Failure> {
    match format {
        Format::Json => output::print_json(job)?,
        Format::Jsonl => output::print_jsonl(job)?,
        Format::Name => output::print(&format!("{}\n", job.id))?,
        Format::Table => output::print(&show::describe(job, now_ms()))?,
    }
    Ok(0)
}

/// Tells of one failure among several; the first one's code counts.
fn failed(failure: Failure, worst: u8) -> u8 {
    if let Some(line) = failure.line() {
        output::say(&line);
    }
    if worst == 0 { failure.code } else { worst }
}

fn now_ms() -> u64 {
    milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_duration_or_never() {
        assert_eq!(after("10m"), Ok(After(Some(Duration::from_secs(600)))));
        assert_eq!(after("never"), Ok(After(None)));
        assert!(after("soon").expect_err("refused").contains("or never"));
    }

    #[test]
    fn the_first_failure_of_several_gives_the_code() {
        let worst = failed(Failure::silent(69), 0);
        assert_eq!(failed(Failure::silent(64), worst), 69);
    }
}
