//! `rk exec`: runs a command on one agent with its stdio connected to ours, or on all that a selector selects.

mod escape;
mod fanout;
mod interactive;
pub(super) mod lines;
mod modes;
pub(super) mod report;
mod single;
pub(super) mod stdio;
mod terminal;

use std::{collections::BTreeMap, time::Duration};

use clap::Args;

use super::{Failure, bundle::Uses, client, flags::ClientFlags, log, output::Format};
use crate::{
    api::{ExecRequest, exec::Resumable},
    config::{Environment, keys},
    id::{AgentName, ExecId},
    selector::Selector,
};

use escape::Escape;
use report::{StatusFd, Verdict};
pub use single::{Signals, feed, feed_bytes, interruptible};
use terminal::Kept;

/// How many agents of a fan-out are worked on at once, unless told otherwise.
const MOST_AT_ONCE: usize = 256;

/// How long a command waits for us, unless told otherwise.
const RESUME: Duration = Duration::from_secs(60);

/// The same with a terminal: time for a person to come back from somewhere else.
const RESUME_TERMINAL: Duration = Duration::from_secs(600);

/// Run a command on an agent, or on all that a selector selects
#[derive(Debug, Args)]
#[command(
    override_usage = "rk exec [OPTIONS] NAME -- COMMAND [ARG]…\n       rk exec [OPTIONS] -l SELECTOR -- COMMAND [ARG]…\n       rk exec [OPTIONS] --attach AGENT/ID"
)]
pub struct ExecArgs {
    /// The agent
    #[arg(value_name = "NAME", required_unless_present_any = ["selector", "attach"], conflicts_with = "selector")]
    name: Option<AgentName>,
    /// The command with its arguments, run without a shell
    #[arg(value_name = "COMMAND", last = true, required_unless_present = "attach")]
    command: Vec<String>,
    /// Run on all agents with these labels, like os=linux,zone!=a
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<Selector>,
    /// With -l: how many agents at once, like 5 or 10%
    #[arg(long, value_name = "N|N%", requires = "selector")]
    batch: Option<Batch>,
    /// Set a variable for the command; without a value: as it is here
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Where the command runs
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// How long it may run; then it gets SIGTERM, after --grace SIGKILL
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    timeout: Option<Duration>,
    /// Time between SIGHUP or SIGTERM and SIGKILL [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    grace: Option<Duration>,
    /// Write a line of JSON there that says whose exit code it is
    #[arg(long, value_name = "N")]
    status_fd: Option<u32>,
    /// How long the command waits for us when the connection, the controller or the agent's process is gone; 0s: not at all. Not
    /// with -l [default: 60s, with -t 10m]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    resume: Option<Duration>,
    /// Run with a bundle: its name, NAME@DIGEST, a digest, or a path here, which is pushed first; may be repeated
    #[arg(long, value_name = "BUNDLE")]
    bundle: Vec<String>,
    /// Give the command no stdin
    #[arg(long)]
    no_stdin: bool,
    /// Pass stdin on, as is usual
    #[arg(short = 'i', long, conflicts_with = "no_stdin")]
    interactive: bool,
    /// Give the command a terminal, like ours: for shells and full-screen programs. At the beginning of a line ~. ends it, ~d leaves it
    /// running, ~? shows the keys
    #[arg(short = 't', long, conflicts_with = "selector")]
    tty: bool,
    /// Come back to a command that has a terminal, by what its start printed
    #[arg(long, value_name = "AGENT/ID", conflicts_with_all = ["name", "selector", "command", "env", "cwd", "timeout", "grace", "resume", "no_stdin", "tty"])]
    attach: Option<Kept>,
    /// With a terminal: the key instead of ~, like ^], or none
    #[arg(long, value_name = "KEY")]
    escape: Option<Escape>,
    #[command(flatten)]
    flags: ClientFlags,
}

/// How many agents are worked on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Batch {
    Count(usize),
    Percent(usize),
}

impl std::str::FromStr for Batch {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("{s:?} is no batch; use a number like 5 or a share like 10%");
        let batch = match s.strip_suffix('%') {
            Some(percent) => Self::Percent(percent.parse().ok().filter(|p| (1..=100).contains(p)).ok_or_else(wrong)?),
            None => Self::Count(s.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?),
        };
        Ok(batch)
    }
}

impl Batch {
    fn of(self, agents: usize) -> usize {
        match self {
            Self::Count(n) => n,
            Self::Percent(percent) => (agents * percent).div_ceil(100),
        }
        .max(1)
    }
}

/// Runs the command.
pub async fn run(args: ExecArgs, environment: &Environment) -> Result<u8, Failure> {
    let status = args.status_fd.map(StatusFd::open).transpose()?;
    let env = variables(&args.env, environment)?;
    let settings = args.flags.settings(environment)?;
    log::start(&settings, log::COMMAND)?;
    let format = settings.parse::<Format>(&keys::OUTPUT)?.unwrap_or_default();
    if format == Format::Name {
        return Err(Failure::usage("rk exec has no format name; use -o jsonl for events, or none for bare output"));
    }
    if (args.tty && !args.no_stdin || args.attach.is_some()) && !terminal::is_ours() {
        let cure = if args.tty { "leave -t out, or add --no-stdin" } else { "call it from a terminal" };
        return Err(Failure::usage(format!("stdin is no terminal; {cure}")));
    }
    if (args.tty || args.attach.is_some()) && format != Format::Table {
        return Err(Failure::usage("what a terminal shows has no lines; leave -o out, or -t"));
    }
    let client = client::connect(&settings)?;
    let manner =
        interactive::Manner { escape: args.escape.clone().unwrap_or_default(), quiet: settings.switch(&keys::QUIET)? };
    if let Some(kept) = args.attach {
        return conclude(status, interactive::attach(&client, kept, manner).await);
    }
    let uses = Uses::of(&client, &args.bundle).await?;
    let command = uses.command(&args.command);
    let patience = args.resume.unwrap_or(if args.tty { RESUME_TERMINAL } else { RESUME });
    let terminal = args.tty.then(|| terminal::describe(environment.value("TERM")));
    let request = |agent: AgentName| ExecRequest {
        env: env.clone(),
        cwd: args.cwd.clone(),
        timeout_ms: args.timeout.map(milliseconds),
        grace_ms: args.grace.map(milliseconds),
        stdin: !args.no_stdin && args.selector.is_none(),
        resume: (args.selector.is_none() && !patience.is_zero())
            .then(|| Resumable { id: ExecId::random(), patience_ms: milliseconds(patience) }),
        terminal: terminal.clone(),
        bundles: uses.bundles.clone(),
        ..ExecRequest::new(agent, command.iter().cloned())
    };
    let result = match (&args.name, &args.selector) {
        (Some(name), _) if args.tty => interactive::start(&client, &request(name.clone()), manner).await,
        (Some(name), _) => single::run(&client, &request(name.clone()), format).await,
        (None, Some(selector)) => {
            let fanout = fanout::Fanout { client, format, batch: args.batch, quiet: settings.switch(&keys::QUIET)? };
            fanout.run(selector, request).await
        }
        (None, None) => Err(Failure::usage("name an agent or select some with -l; `rk agents ls` shows them")),
    };
    conclude(status, result)
}

/// Says whose code it is, if somebody wants to know.
fn conclude(status: Option<StatusFd>, result: Result<Verdict, Failure>) -> Result<u8, Failure> {
    if let Some(status) = status {
        status.write(&result);
    }
    result.map(|verdict| verdict.code)
}

/// A duration in the API's unit.
pub(super) fn milliseconds(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// The variables of `--env`.
pub(super) fn variables(given: &[String], environment: &Environment) -> Result<BTreeMap<String, String>, Failure> {
    let variable = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        None => environment.value(text).map(|value| (text.clone(), value.to_owned())).ok_or_else(|| {
            Failure::usage(format!("--env {text}: it is not set here; set it or use --env {text}=VALUE"))
        }),
        Some(_) => Err(Failure::usage(format!("--env {text}: use --env NAME=VALUE"))),
    };
    given.iter().map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_number_or_a_share_and_never_nothing() {
        for (text, agents, expected) in [("5", 100, 5), ("10%", 100, 10), ("10%", 11, 2), ("1%", 3, 1), ("100%", 7, 7)]
        {
            assert_eq!(text.parse::<Batch>().expect(text).of(agents), expected, "{text} of {agents}");
        }
        for bad in ["0", "0%", "101%", "-1", "x", ""] {
            assert!(bad.parse::<Batch>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variable_without_a_value_is_passed_on() {
        let environment = Environment::of([("HERE", "x=y")]);
        let of = |given: &[&str]| variables(&given.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), &environment);
        let variables = of(&["HERE", "A=b=c", "EMPTY="]).expect("good");
        assert_eq!((&*variables["HERE"], &*variables["A"], &*variables["EMPTY"]), ("x=y", "b=c", ""));
        assert!(of(&["=x"]).is_err() && of(&["MISSING"]).is_err());
    }
}
