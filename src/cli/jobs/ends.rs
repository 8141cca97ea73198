//! Waiting for jobs, and asking for their end.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Session, failed};
use crate::{
    api::{
        client::patiently,
        jobs::{CancelJob, JobInfo},
    },
    cli::{
        Failure,
        exec::milliseconds,
        failure,
        flags::ClientFlags,
        logs::PATIENCE,
        output::{self, Format},
        run::{self},
        submitter, values,
    },
};

/// How long the controller is asked to hold one answer back.
const HOLD: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(100);

const WAIT_HELP: &str = "\
Exit codes: of one job its own; of several 0, or 1 if any did not succeed; 124
if --timeout was over first.

  rk jobs wait $(rk run --detach -- make) && echo done";

/// Arguments of `rk jobs wait`.
#[derive(Debug, Args)]
#[command(after_help = WAIT_HELP)]
pub struct WaitArgs {
    /// The jobs' ids, or the beginnings of them
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// How long to wait; for ever if not given
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    pub flags: ClientFlags,
}

const CANCEL_HELP: &str = "\
The job's processes get the signal, and SIGKILL after the grace period.

  rk jobs cancel 0k3d
  rk jobs cancel --signal INT --grace 1m --wait 0k3d 0k3f";

/// Arguments of `rk jobs cancel`.
#[derive(Debug, Args)]
#[command(after_help = CANCEL_HELP)]
pub struct CancelArgs {
    /// The jobs' ids, or the beginnings of them
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Instead of the signal that the job was submitted with
    #[arg(long, value_name = "SIGNAL", value_parser = values::signal)]
    signal: Option<i32>,
    /// Instead of the grace period that it was submitted with
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    grace: Option<Duration>,
    /// Wait until they have ended
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    pub flags: ClientFlags,
}

/// Runs `rk jobs wait`.
pub async fn wait(args: WaitArgs, session: &Session) -> Result<u8, Failure> {
    let until = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut codes = Vec::new();
    let mut jobs = Vec::new();
    for id in &args.ids {
        let job = until_end(session, id, until).await?;
        let verdict = run::of_job(&job);
        match session.format {
            Format::Json => (),
            Format::Jsonl => output::print_jsonl(&job)?,
            Format::Name => output::print(&format!("{}\n", job.id))?,
            Format::Table => output::print(&format!("{}  {}\n", job.id, super::show::state(&job)))?,
        }
        if let (Some(message), false) = (verdict.status.message, session.quiet) {
            output::say(&format!("rk: {message}"));
        }
        codes.push(verdict.code);
        jobs.push(job);
    }
    if session.format == Format::Json {
        output::print_json(&jobs)?;
    }
    Ok(combined(&codes))
}

fn combined(codes: &[u8]) -> u8 {
    match codes {
        [code] => *code,
        codes => u8::from(codes.iter().any(|code| *code != 0)),
    }
}

/// The job `id` when it has ended. Outages of the controller are borne.
async fn until_end(session: &Session, id: &str, until: Option<Instant>) -> Result<JobInfo, Failure> {
    // The whole id: by the time that it is asked for again its beginning may fit another job as well.
    let id = session.client.job(id).await?.id.to_string();
    let waiting = async {
        loop {
            let ask = async || session.client.wait_for_job(&id, HOLD).await;
            let away = |e: &_| {
                if !session.quiet {
                    output::say(&format!("rk: controller away, trying again ({e})"));
                }
            };
            let job = patiently(PATIENCE, ask, away).await?;
            if job.has_ended() {
                return Ok(job);
            }
            // A controller that does not hold its answer back is not asked in a frenzy.
            sleep(PAUSE).await;
        }
    };
    match until {
        None => waiting.await,
        Some(until) => timeout_at(until, waiting).await.unwrap_or_else(|_| {
            let message = format!("job {id} has not ended in time and goes on; `rk logs -f {id}` follows it");
            Err(Failure::new(failure::TIMED_OUT, message))
        }),
    }
}

/// Runs `rk jobs cancel`: all of them, whatever becomes of one.
pub async fn cancel(args: CancelArgs, session: &Session) -> Result<u8, Failure> {
    let request = CancelJob { by: submitter::name(), signal: args.signal, grace_ms: args.grace.map(milliseconds) };
    let (mut jobs, mut worst) = (Vec::new(), 0);
    for id in &args.ids {
        match session.client.cancel_job(id, &request).await {
            Ok(job) => jobs.push(job),
            Err(e) => worst = failed(e.into(), worst),
        }
    }
    if args.wait {
        for job in &mut jobs {
            match until_end(session, &job.id.to_string(), None).await {
                Ok(ended) => *job = ended,
                Err(e) => worst = failed(e, worst),
            }
        }
    }
    match session.format {
        Format::Json => output::print_json(&jobs)?,
        Format::Jsonl => jobs.iter().try_for_each(output::print_jsonl)?,
        Format::Name => jobs.iter().try_for_each(|job| output::print(&format!("{}\n", job.id)))?,
        Format::Table if session.quiet => (),
        Format::Table => jobs.iter().for_each(|job| output::say(&format!("rk: {}", answered(job)))),
    }
    Ok(worst)
}

fn answered(job: &JobInfo) -> String {
    let (id, state) = (job.id, super::show::state(job));
    match (job.has_ended(), &job.agent) {
        (true, _) => format!("job {id} has ended: {state}"),
        (false, Some(agent)) if job.unreachable => {
            format!("job {id} is told to end as soon as agent {agent} can be reached")
        }
        (false, _) => format!("job {id} is told to end; `rk jobs wait {id}` waits for that"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::jobs::testing::job;

    #[test]
    fn one_job_s_code_is_its_own_and_of_several_it_tells_whether_all_succeeded() {
        for (codes, expected) in [(&[0][..], 0), (&[7], 7), (&[0, 0], 0), (&[0, 7], 1), (&[75, 0, 124], 1)] {
            assert_eq!(combined(codes), expected, "{codes:?}");
        }
    }

    #[test]
    fn an_answer_to_a_cancel_says_whether_the_job_has_ended() {
        assert!(answered(&job()).contains("has ended: succeeded"));
        let agent = Some("a".parse().expect("name"));
        let runs = JobInfo { exit_code: None, state: "running".to_owned(), agent, ..job() };
        assert!(answered(&runs).contains("rk jobs wait"));
        assert!(answered(&JobInfo { unreachable: true, ..runs }).contains("as soon as agent a"));
    }
}
