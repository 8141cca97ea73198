//! `rk run`: submits a job, shows its output, and exits with its code. The job does not depend on this process.

mod attend;
mod request;
mod verdict;
mod watch;

use std::time::Duration;

use clap::Args;

use super::{
    Failure,
    bundle::Uses,
    client,
    exec::{
        Signals,
        report::{StatusFd, Verdict},
    },
    failure,
    flags::ClientFlags,
    log,
    logs::{Look, PATIENCE},
    output::{self, Format},
    values,
};
use crate::{
    api::{
        Client,
        client::patiently,
        jobs::{JobInfo, LogFormat, SubmitJob},
    },
    config::{Environment, keys},
    id::AgentName,
    job::{Glob, JobId},
    selector::Selector,
};

pub use attend::{Attend, INTERRUPTED};
pub use verdict::{of_job, verdict};

/// How long is tried to submit a job while the controller is away.
const SUBMIT: Duration = Duration::from_secs(60);
/// How long one try may take.
const TRY: Duration = Duration::from_secs(20);

const AFTER_HELP: &str = "\
The job goes on whatever becomes of this command, the agent's process, the
controller or the brokers. An interrupt asks on a terminal whether to cancel
the job; elsewhere it leaves the job alone, as does a second one. Sizes are like
500M or 10G. A secret's value comes from a file or a variable, is masked in the
output, and is in the variable NAME; with --secret-file that has a file's path.

Exit codes: the job's 0-255, 128+n after signal n. Ours: 64 usage, 69 the
controller can't be reached, 75 lost, 77 refused, 124 timed out, 130 cancelled,
or interrupted while the job goes on; 1 its log is not what it wrote.

  rk run -l os=linux -- make test
  id=$(rk run --detach --script build.sh)
  rk run --agent build-7 --secret TOKEN=file:token --timeout 10m -- ./deploy";

/// Run a command as a job, which outlives whoever asked for it
#[derive(Debug, Args)]
#[command(
    after_help = AFTER_HELP,
    override_usage = "rk run [OPTIONS] -- COMMAND [ARG]…\n       rk run [OPTIONS] --script FILE"
)]
pub struct RunArgs {
    /// The command with its arguments, run without a shell
    #[arg(value_name = "COMMAND", last = true, required_unless_present = "script", conflicts_with = "script")]
    command: Vec<String>,
    /// Print the job's id and leave; `rk logs -f ID` follows it
    #[arg(long)]
    detach: bool,
    /// What people call the job; need not be unique
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Run on any agent with these labels, like os=linux,zone!=a
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<Selector>,
    /// Run on this agent
    #[arg(long, value_name = "NAME", conflicts_with = "selector")]
    agent: Option<AgentName>,
    /// Run this script; - reads it from stdin
    #[arg(long, value_name = "FILE")]
    script: Option<String>,
    /// What runs the script [default: its #! line, else /bin/sh]
    #[arg(long, value_name = "COMMAND")]
    interpreter: Option<String>,
    /// Set a variable for the job; without a value: as it is here
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Run with a bundle: its name, NAME@DIGEST, a digest, or a path here, which is pushed first; may be repeated
    #[arg(long, value_name = "BUNDLE")]
    bundle: Vec<String>,
    /// Keep the files of its directory that match, like out/** or '*.xml', for `rk artifacts`; may be repeated
    #[arg(long, value_name = "PATTERN")]
    artifact: Vec<Glob>,
    /// Where it runs [default: a directory made for it]
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// How long it may run; then it gets --signal, after --grace SIGKILL
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    timeout: Option<Duration>,
    /// Greater goes first, 0 to 9 [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// How often to run it again if nobody knows how it ended
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=10))]
    retries: u8,
    /// What it reads; - takes our stdin [default: nothing]
    #[arg(long, value_name = "FILE")]
    stdin: Option<String>,
    /// A secret in a variable: NAME=file:PATH or NAME=env:VARIABLE
    #[arg(long, value_name = "NAME=SOURCE")]
    secret: Vec<String>,
    /// A secret in a file, whose path is in the variable NAME
    #[arg(long, value_name = "NAME=SOURCE")]
    secret_file: Vec<String>,
    /// Of the jobs with this key at most one is with an agent
    #[arg(long, value_name = "KEY")]
    concurrency: Option<String>,
    /// Keep its directory if it holds no more than this
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    keep_workspace: Option<u64>,
    /// What ends it when it is cancelled or out of time [default: TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = values::signal)]
    signal: Option<i32>,
    /// Time between that and SIGKILL [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    grace: Option<Duration>,
    /// Output in Kafka: sealed, or open for all consumers [default: sealed]
    #[arg(long, value_name = "FORMAT", value_parser = values::log_format)]
    log_format: Option<LogFormat>,
    /// Output that may wait on the agent's disk for Kafka [default: 1G]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    spool_limit: Option<u64>,
    /// Cancel the job at the first interrupt, without a question
    #[arg(long, conflicts_with = "detach")]
    cancel_on_interrupt: bool,
    /// Put the time before each line of output
    #[arg(long, conflicts_with = "detach")]
    timestamps: bool,
    /// How long to ask again while the controller is away [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    patience: Option<Duration>,
    /// Write a line of JSON there that says whose exit code it is
    #[arg(long, value_name = "N")]
    status_fd: Option<u32>,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Runs the command.
pub async fn run(args: RunArgs, environment: &Environment) -> Result<u8, Failure> {
    let status = args.status_fd.map(StatusFd::open).transpose()?;
    let settings = args.flags.clone().settings(environment)?;
    log::start(&settings, log::COMMAND)?;
    let format = settings.parse::<Format>(&keys::OUTPUT)?.unwrap_or_default();
    if format == Format::Name && !args.detach {
        return Err(Failure::usage("rk run has the format name with --detach only; use -o jsonl for events"));
    }
    let quiet = settings.switch(&keys::QUIET)?;
    let client = client::connect(&settings)?;
    let mut request = request::job(&args, environment)?;
    let uses = Uses::of(&client, &args.bundle).await?;
    request.argv = uses.command(&request.argv);
    request.bundles = uses.bundles;
    let attend = Attend {
        look: Look { format, timestamps: args.timestamps, quiet },
        patience: args.patience.unwrap_or(PATIENCE),
        cancel: args.cancel_on_interrupt,
    };
    let result = submit_and_attend(&client, &request, attend, args.detach).await;
    if let Some(status) = status {
        status.write(&result);
    }
    result.map(|verdict| verdict.code)
}

async fn submit_and_attend(
    client: &Client,
    request: &SubmitJob,
    attend: Attend,
    detach: bool,
) -> Result<Verdict, Failure> {
    // Before the connection: an interrupt while connecting must not be lost.
    let mut signals = Signals::listen()?;
    let id = request.id.expect("chosen by us");
    let job = tokio::select! {
        job = submit(client, request, id, attend) => job?,
        _ = signals.next() => {
            let message = format!("interrupted: job {id} may have been taken; `rk jobs show {id}` tells");
            return Err(Failure::new(INTERRUPTED, message));
        }
    };
    if detach {
        announce(&job, attend.look.format)?;
        return Ok(Verdict::ours(0));
    }
    if !attend.look.quiet {
        output::say(&format!("rk: job {id}"));
    }
    attend.to(client, &job, signals).await
}

/// Submits the job, again and again while the controller is away: it has its id already, and is not made twice.
async fn submit(client: &Client, request: &SubmitJob, id: JobId, attend: Attend) -> Result<JobInfo, Failure> {
    let client = client.clone().with_timeout(TRY);
    let away = |e: &_| {
        if !attend.look.quiet {
            output::say(&format!("rk: controller away, trying again ({e})"));
        }
    };
    let job = patiently(SUBMIT.min(attend.patience), async || client.submit(request).await, away).await;
    job.map_err(|e| match (e.exit_code(), e.may_pass()) {
        (failure::UNREACHABLE, true) => {
            let message = format!("{e}; job {id} may have been taken: `rk jobs show {id}` tells");
            Failure::new(failure::UNREACHABLE, message)
        }
        _ => e.into(),
    })
}

/// Prints a job that nobody follows.
pub fn announce(job: &JobInfo, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table | Format::Name => output::print(&format!("{}\n", job.id))?,
        Format::Json => output::print_json(job)?,
        Format::Jsonl => output::print_jsonl(job)?,
    }
    Ok(())
}
