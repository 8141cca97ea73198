//! `rk agents update`: agents change to another version of their program, one first and then several at once.
//!
//! The command gives orders and looks how they stand; what was begun ends by itself, whatever happens to it or to the controller.

use std::{
    path::Path,
    pin::pin,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use clap::Args;
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    api::{Agent, AgentState, Client, agents::UpdateAgent, client::patiently},
    bundle::Digest,
    cli::{
        Failure,
        bundle::Uses,
        failure,
        flags::ClientFlags,
        output::{self, Format},
        session::{self, Session},
    },
    config::{self, Environment},
    id::AgentName,
    secret,
    selector::Selector,
    update::{Stage, Update},
};

pub const AFTER_HELP: &str = "\
The bundle holds the program as rk or bin/rk. Each agent fetches it, waits for
what a new start would end, runs the new program beside the old one until that
has a session, and only then replaces its file; else the old one runs on. Jobs
and resumable commands go on all the while.

  rk bundle push --name rk-0.2.0 x86_64-linux=./rk
  rk agents update -l os=linux --to 0.2.0

Exit codes: 0 all have it, 1 some do not, 3 some did not answer.";

/// How long a controller is waited for that does not answer.
const AWAY: Duration = Duration::from_secs(60);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(500);
/// How long a bundle may take to come to an agent, which the agent bounds itself.
const FETCH: Duration = Duration::from_secs(16 * 60);

/// Arguments of `rk agents update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The agents
    #[arg(value_name = "NAME", required_unless_present = "selector", conflicts_with = "selector")]
    names: Vec<AgentName>,
    /// All agents with these labels, like os=linux,zone!=a
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<Selector>,
    /// The program: a bundle's name or digest, the path of one that is pushed
    /// first, or a version: 0.2.0 means the bundle rk-0.2.0
    #[arg(long, value_name = "WHAT")]
    to: String,
    /// How long a new program may take to be online; then the old one goes on
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = config::duration)]
    deadline: Duration,
    /// How long commands, forwards and services are waited for that a new start
    /// would end
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = config::duration)]
    drain: Duration,
    /// End those then, instead of giving the update up
    #[arg(long)]
    interrupt: bool,
    /// Agents at once, after the first
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(1..=1000))]
    parallel: u16,
    /// Begin with no more agents after so many failures
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    max_failures: u32,
    /// Take an older version than the one that runs, too
    #[arg(long)]
    allow_downgrade: bool,
    /// Only show which agents would be updated
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    flags: ClientFlags,
}

/// How it went with one agent.
#[derive(Debug, Clone, Serialize)]
struct Fate {
    name: AgentName,
    result: Outcome,
    /// The version that it has now.
    version: Option<String>,
    /// Its program's SHA-256.
    digest: Option<Digest>,
    /// Why it is not what was asked for.
    why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Updated,
    Current,
    RolledBack,
    Refused,
    Busy,
    NoAnswer,
    NotBegun,
    WouldUpdate,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Updated => "updated",
            Self::Current => "current",
            Self::RolledBack => "rolled back",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::NoAnswer => "no answer",
            Self::NotBegun => "not begun",
            Self::WouldUpdate => "would update",
        }
    }

    fn is_failure(self) -> bool {
        matches!(self, Self::RolledBack | Self::Refused | Self::Busy | Self::NoAnswer)
    }
}

/// What all agents are asked for.
struct Rollout {
    client: Client,
    request: UpdateAgent,
    failures: AtomicU32,
    most: u32,
}

/// Runs the command.
pub async fn run(args: UpdateArgs, environment: &Environment) -> Result<u8, Failure> {
    if args.deadline.is_zero() {
        return Err(Failure::usage("--deadline: a new program needs some time; use one like 60s"));
    }
    let session = session::open(args.flags, environment)?;
    let agents = agents(&session.client, args.names, args.selector).await?;
    let bundle = bundle(&session.client, &args.to, args.dry_run).await?;
    // That there is no such bundle is said once, and not by each agent.
    if !args.dry_run || !args.to.contains('/') {
        session.client.bundle(&bundle).await?;
    }
    if args.dry_run {
        let fates = agents.iter().map(|agent| fate(agent, Outcome::WouldUpdate, None)).collect();
        return show(fates, &session);
    }
    let millis = |duration: Duration| duration.as_millis().try_into().unwrap_or(u64::MAX);
    let request = UpdateAgent {
        id: 0,
        bundle,
        deadline_ms: millis(args.deadline),
        drain_ms: millis(args.drain),
        interrupt: args.interrupt,
        allow_downgrade: args.allow_downgrade,
    };
    let client = session.client.clone();
    let rollout = Rollout { client, request, failures: AtomicU32::new(0), most: args.max_failures };
    show(roll_out(&rollout, agents, usize::from(args.parallel), &session).await?, &session)
}

/// Those that are meant.
async fn agents(client: &Client, names: Vec<AgentName>, selector: Option<Selector>) -> Result<Vec<Agent>, Failure> {
    let Some(selector) = selector else {
        let mut agents: Vec<Agent> = Vec::new();
        for name in names {
            if !agents.iter().any(|agent| agent.name == name) {
                agents.push(client.agent(&name).await?);
            }
        }
        return Ok(agents);
    };
    let agents = client.agents(&selector).await?.agents;
    if agents.is_empty() {
        let message = format!("no agent has the labels {selector}; `rk agents ls` shows what they have");
        return Err(Failure::usage(message));
    }
    Ok(agents)
}

/// The bundle that `to` means: a path is pushed, and a version has its own name.
async fn bundle(client: &Client, to: &str, dry: bool) -> Result<String, Failure> {
    if to.starts_with(|c: char| c.is_ascii_digit()) && to.contains('.') && !to.contains('/') {
        return Ok(format!("rk-{to}"));
    }
    if dry && to.contains('/') {
        if !Path::new(to).exists() {
            return Err(Failure::usage(format!("there is no {to}; --to takes a bundle, a path or a version")));
        }
        return Ok(to.to_owned());
    }
    let mut uses = Uses::of(client, &[to.to_owned()]).await?;
    uses.bundles.pop().ok_or_else(|| Failure::usage("--to takes a bundle, a path or a version"))
}

/// One agent first, and the others when that has it.
async fn roll_out(
    rollout: &Rollout,
    agents: Vec<Agent>,
    at_once: usize,
    session: &Session,
) -> Result<Vec<Fate>, Failure> {
    let (mut here, away): (Vec<Agent>, Vec<Agent>) =
        agents.into_iter().partition(|agent| !matches!(agent.state, AgentState::Offline | AgentState::Revoked));
    let mut fates = Vec::new();
    for agent in away {
        let why = format!("it is {}; `rk agents show {}` tells more", agent.state, agent.name);
        tell(fate(&agent, Outcome::NoAnswer, Some(why)), session, &mut fates)?;
    }
    if here.is_empty() {
        return Ok(fates);
    }
    let first = here.remove(0);
    tell(rollout.one(first).await?, session, &mut fates)?;
    let others = stream::iter(here).map(|agent| rollout.one(agent)).buffer_unordered(at_once);
    let mut others = pin!(others);
    while let Some(fate) = others.next().await {
        tell(fate?, session, &mut fates)?;
    }
    fates.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(fates)
}

impl Rollout {
    /// An error is one of the rights that we have, and not the agent's.
    async fn one(&self, agent: Agent) -> Result<Fate, Failure> {
        if self.failures.load(Relaxed) >= self.most {
            return Ok(fate(&agent, Outcome::NotBegun, None));
        }
        let fate = self.update(agent).await?;
        if fate.result.is_failure() {
            self.failures.fetch_add(1, Relaxed);
        }
        Ok(fate)
    }

    async fn update(&self, agent: Agent) -> Result<Fate, Failure> {
        // Below 2^53.
        let id = u64::from_le_bytes(secret::random()) >> 11;
        let request = UpdateAgent { id, ..self.request.clone() };
        let ordered = patiently(AWAY, async || self.client.update_agent(&agent.name, &request).await, |_| ()).await;
        match ordered {
            Ok(_) => {}
            Err(error) if error.exit_code() == failure::REFUSED => return Err(error.into()),
            Err(error) => {
                let result = if error.may_pass() { Outcome::NoAnswer } else { Outcome::Refused };
                return Ok(fate(&agent, result, Some(error.to_string())));
            }
        }
        let deadline = Duration::from_millis(request.deadline_ms);
        let until = Instant::now() + FETCH + Duration::from_millis(request.drain_ms) + deadline;
        let mut seen = Instant::now();
        loop {
            match self.client.agent(&agent.name).await {
                Ok(now) => {
                    if let Some(update) = now.update.as_ref().filter(|update| update.id == id && update.stage.is_end())
                    {
                        return Ok(of(&now, update));
                    }
                    if now.state == AgentState::Online {
                        seen = Instant::now();
                    }
                }
                Err(error) if error.may_pass() => {}
                Err(error) => return Ok(fate(&agent, Outcome::NoAnswer, Some(error.to_string()))),
            }
            if Instant::now() > until.min(seen + deadline + 2 * AWAY) {
                let why = "it took the order, and said nothing more; `rk agents show` tells how it is".to_owned();
                return Ok(fate(&agent, Outcome::NoAnswer, Some(why)));
            }
            sleep(LOOK).await;
        }
    }
}

/// The fate of an agent whose change has ended.
fn of(agent: &Agent, update: &Update) -> Fate {
    let result = match update.stage {
        Stage::Updated => Outcome::Updated,
        Stage::Current => Outcome::Current,
        Stage::Busy => Outcome::Busy,
        Stage::Refused => Outcome::Refused,
        Stage::RolledBack | Stage::Fetching | Stage::Draining | Stage::Trying => Outcome::RolledBack,
    };
    fate(agent, result, update.why.clone().filter(|_| !update.stage.is_good()))
}

fn fate(agent: &Agent, result: Outcome, why: Option<String>) -> Fate {
    Fate { name: agent.name.clone(), result, version: agent.version.clone(), digest: agent.digest, why }
}

/// Says at once how it went with one.
fn tell(fate: Fate, session: &Session, fates: &mut Vec<Fate>) -> Result<(), Failure> {
    match session.format {
        Format::Jsonl => output::print_jsonl(&fate)?,
        Format::Table if !session.quiet => {
            let why = fate.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            output::say(&format!("rk: {}: {}{why}", fate.name, fate.result.as_str()));
        }
        Format::Json | Format::Name | Format::Table => (),
    }
    fates.push(fate);
    Ok(())
}

fn show(fates: Vec<Fate>, session: &Session) -> Result<u8, Failure> {
    match session.format {
        Format::Json => output::print_json(&fates)?,
        // They were told one by one.
        Format::Jsonl if fates.iter().any(|fate| fate.result != Outcome::WouldUpdate) => (),
        Format::Jsonl => fates.iter().try_for_each(output::print_jsonl)?,
        Format::Name => output::print(&fates.iter().map(|fate| format!("{}\n", fate.name)).collect::<String>())?,
        Format::Table => {
            let digest = |fate: &Fate| fate.digest.map_or("-".to_owned(), |digest| digest.short());
            let version = |fate: &Fate| fate.version.clone().unwrap_or_else(|| "-".to_owned());
            let result = |fate: &Fate| fate.result.as_str().to_owned();
            let rows: Vec<_> =
                fates.iter().map(|fate| [fate.name.to_string(), version(fate), digest(fate), result(fate)]).collect();
            output::print(&output::table(["NAME", "VERSION", "PROGRAM", "UPDATE"], &rows))?;
        }
    }
    Ok(code(&fates))
}

/// 3 if some did not answer, else 1 if some do not have it.
fn code(fates: &[Fate]) -> u8 {
    let any = |fits: fn(Outcome) -> bool| fates.iter().any(|fate| fits(fate.result));
    match any(|result| result == Outcome::NoAnswer) {
        true => 3,
        false => u8::from(any(|result| result.is_failure() || result == Outcome::NotBegun)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(results: &[Outcome]) -> Vec<Fate> {
        let name: AgentName = "a".parse().expect("a name");
        let fate =
            |result: &Outcome| Fate { name: name.clone(), result: *result, version: None, digest: None, why: None };
        results.iter().map(fate).collect()
    }

    #[test]
    fn who_does_not_answer_weighs_more_than_who_fails() {
        use Outcome::*;
        for (results, expected) in [
            (&[Updated, Current][..], 0),
            (&[WouldUpdate], 0),
            (&[Updated, RolledBack], 1),
            (&[Updated, NotBegun], 1),
            (&[Busy, Refused], 1),
            (&[Refused, NoAnswer, NotBegun], 3),
        ] {
            assert_eq!(code(&fates(results)), expected, "{results:?}");
        }
    }
}
