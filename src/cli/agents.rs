//! `rk agents`: the registry of the controller.

mod rotate;
mod update;

use std::{io::Write, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::{
    Failure,
    flags::ClientFlags,
    output::{self, Format},
    session::{self, Session},
    submitter,
};
use crate::{
    api::{AddAgent, AddedAgent, Agent, jobs::AskedBy},
    clock,
    config::{Environment, Settings, keys},
    id::AgentName,
    layout::Layout,
    selector::{self, Selector},
    update::Update,
};

/// List, add, drain, rotate, update, revoke and remove agents.
#[derive(Debug, Subcommand)]
pub enum AgentsCommand {
    /// List agents
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Add an agent and print its credential
    Add(AddArgs),
    /// Show one agent
    Show(NameArgs),
    /// Give an agent no new jobs; those that it has go on
    Drain(NameArgs),
    /// Give a drained agent jobs again
    Resume(NameArgs),
    /// Give an agent a new secret
    Rotate(rotate::RotateArgs),
    /// End an agent's session, and let it in no more before it is rotated
    Revoke(NameArgs),
    /// Change agents to another version of their program
    #[command(after_help = update::AFTER_HELP)]
    Update(update::UpdateArgs),
    /// Remove an agent and end its session
    #[command(visible_alias = "remove")]
    Rm(NameArgs),
}

/// Arguments of `rk agents ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Only those with these labels, like os=linux,zone!=a
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<Selector>,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `rk agents add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Its name, unique in the installation
    name: AgentName,
    /// Labels that it gets; they win over what it says of itself
    #[arg(long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = selector::label)]
    labels: Vec<(String, String)>,
    /// Which topics carry what it is sent: shared or per-agent [default: the
    /// controller's choice]
    #[arg(long, value_name = "NAME")]
    layout: Option<Layout>,
    /// Write the credential to this file, mode 0600, and not to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of the commands on one agent.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// The agent
    name: AgentName,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Runs the command.
pub async fn run(command: AgentsCommand, environment: &Environment) -> Result<u8, Failure> {
    match command {
        AgentsCommand::Ls(args) => {
            list(args.selector.unwrap_or_default(), session::open(args.flags, environment)?).await?
        }
        AgentsCommand::Add(args) => {
            let session = session::open(args.flags, environment)?;
            let labels = args.labels.into_iter().collect();
            add(AddAgent { name: args.name, labels, layout: args.layout }, args.out, session).await?;
        }
        AgentsCommand::Show(args) => show(&args.name, session::open(args.flags, environment)?).await?,
        AgentsCommand::Drain(args) => drain(&args.name, true, session::open(args.flags, environment)?).await?,
        AgentsCommand::Resume(args) => drain(&args.name, false, session::open(args.flags, environment)?).await?,
        AgentsCommand::Rotate(args) => rotate::run(args, environment).await?,
        AgentsCommand::Revoke(args) => rotate::revoke(&args.name, session::open(args.flags, environment)?).await?,
        AgentsCommand::Update(args) => return update::run(args, environment).await,
        AgentsCommand::Rm(args) => remove(&args.name, session::open(args.flags, environment)?).await?,
    }
    Ok(0)
}

async fn list(selector: Selector, session: Session) -> Result<(), Failure> {
    let list = session.client.agents(&selector).await?;
    match session.format {
        Format::Json => output::print_json(&list.agents)?,
        Format::Jsonl => {
            for agent in &list.agents {
                output::print_jsonl(agent)?;
            }
        }
        Format::Name => {
            let names: String = list.agents.iter().map(|agent| format!("{}\n", agent.name)).collect();
            output::print(&names)?;
        }
        Format::Table if list.agents.is_empty() => {
            if !session.quiet {
                let any = if selector.is_empty() { "no agents yet" } else { "no agent has these labels" };
                output::say(&format!("rk: {any}; `rk agents add NAME` adds one"));
            }
        }
        Format::Table => {
            let rows: Vec<_> = list.agents.iter().map(row).collect();
            output::print(&output::table(["NAME", "STATE", "HEARD", "JOBS", "VERSION", "LABELS"], &rows))?;
        }
    }
    Ok(())
}

fn row(agent: &Agent) -> [String; 6] {
    [
        agent.name.to_string(),
        state(agent),
        agent.last_heard_ms.map_or("never".to_owned(), |ms| output::duration(Duration::from_millis(ms))),
        jobs(agent),
        agent.version.clone().unwrap_or_else(|| "-".to_owned()),
        labels(agent),
    ]
}

fn state(agent: &Agent) -> String {
    format!("{}{}", agent.state, if agent.drained { ",drained" } else { "" })
}

/// How many jobs it has, of how many.
fn jobs(agent: &Agent) -> String {
    match agent.slots {
        0 => agent.jobs.to_string(),
        slots => format!("{}/{slots}", agent.jobs),
    }
}

fn labels(agent: &Agent) -> String {
    agent.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

async fn show(name: &AgentName, session: Session) -> Result<(), Failure> {
    let agent = session.client.agent(name).await?;
    match session.format {
        Format::Json => output::print_json(&agent)?,
        Format::Jsonl => output::print_jsonl(&agent)?,
        Format::Name => output::print(&format!("{}\n", agent.name))?,
        Format::Table => {
            let mut rows = vec![("name", agent.name.to_string()), ("state", state(&agent)), ("jobs", jobs(&agent))];
            let heard = agent.last_heard_ms.map(|ms| output::duration(Duration::from_millis(ms)) + " ago");
            rows.extend(heard.map(|heard| ("heard", heard)));
            let round_trip = agent.round_trip_us.map(|us| output::duration(Duration::from_micros(us)));
            rows.extend(round_trip.map(|round_trip| ("round trip", round_trip)));
            rows.extend(agent.version.map(|version| ("version", version)));
            rows.extend(agent.digest.map(|digest| ("program", format!("sha256:{digest}"))));
            rows.extend(agent.update.as_ref().map(|update| ("update", last_update(update))));
            rows.extend(agent.pid.map(|pid| ("pid", pid.to_string())));
            rows.push(("partition", agent.partition.to_string()));
            rows.push(("layout", agent.layout.to_string()));
            rows.extend(agent.labels.iter().map(|(key, value)| ("label", format!("{key}={value}"))));
            let lines = rows.iter().map(|(what, value)| format!("{what:<10}  {value}\n"));
            output::print(&lines.collect::<String>())?;
        }
    }
    Ok(())
}

fn last_update(update: &Update) -> String {
    let why = update.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{} to {}, {}{why}", update.stage, update.to, clock::rfc3339(update.at_ms))
}

async fn drain(name: &AgentName, drained: bool, session: Session) -> Result<(), Failure> {
    let by = AskedBy { by: submitter::name() };
    let agent = match drained {
        true => session.client.drain_agent(name, &by).await?,
        false => session.client.resume_agent(name, &by).await?,
    };
    match session.format {
        Format::Json => output::print_json(&agent)?,
        Format::Jsonl => output::print_jsonl(&agent)?,
        Format::Name => output::print(&format!("{}\n", agent.name))?,
        Format::Table if !session.quiet => output::say(&match (drained, agent.jobs) {
            (true, 0) => {
                format!("rk: agent {name} gets no new jobs, and has none; `rk agents resume {name}` ends that")
            }
            (true, n) => {
                format!("rk: agent {name} gets no new jobs; {n} go on there. `rk agents resume {name}` ends that")
            }
            (false, _) => format!("rk: agent {name} gets jobs again"),
        }),
        Format::Table => (),
    }
    Ok(())
}

async fn add(request: AddAgent, out: Option<PathBuf>, session: Session) -> Result<(), Failure> {
    session::refuse_existing(out.as_deref())?;
    let added = session.client.add_agent(&request).await?;
    let source = match &out {
        Some(path) => session::write_secret(
            path,
            added.pass().trim_end(),
            &format!("`rk agents rm {}` and add it again", added.name),
        )?,
        None => "file:CREDENTIAL".to_owned(),
    };
    match session.format {
        Format::Json => output::print_json(&added)?,
        Format::Jsonl => output::print_jsonl(&added)?,
        Format::Table | Format::Name if out.is_none() => output::print(&added.pass())?,
        Format::Table | Format::Name => (),
    }
    if !session.quiet {
        launch_line(&added, &source, &session.settings);
    }
    Ok(())
}

/// The flags that tell an agent where the topics are, beyond the defaults.
pub fn place(prefix: &str, partitions: u32) -> String {
    let prefix = if prefix == "rk" { String::new() } else { format!(" --prefix {prefix}") };
    let partitions = if partitions == 8 { String::new() } else { format!(" --partitions {partitions}") };
    prefix + &partitions
}

/// Tells how the agent is started.
fn launch_line(added: &AddedAgent, source: &str, settings: &Settings) {
    let brokers = settings.environment().setting(&keys::BROKERS).unwrap_or("HOST:PORT").to_owned();
    let mut line = format!("rk agent run --brokers {brokers} --credential {source}");
    line += &place(&added.prefix, added.partitions);
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "rk: agent {} is known; start it on its machine with\n  {line}", added.name);
    if source == "file:CREDENTIAL" {
        let _ = writeln!(err, "where the file CREDENTIAL (mode 0600) holds what is above; it is not shown again");
    }
    if let Some(commands) = &added.commands {
        let _ = write!(err, "rk: where Kafka has access rules, somebody who may runs before that\n{commands}");
    }
}

async fn remove(name: &AgentName, session: Session) -> Result<(), Failure> {
    let removed = session.client.remove_agent(name).await?;
    match session.format {
        Format::Json => output::print_json(&removed)?,
        Format::Jsonl => output::print_jsonl(&removed)?,
        Format::Name => output::print(&format!("{}\n", removed.name))?,
        Format::Table if !session.quiet => {
            let session = if removed.had_session { ", and its session is ended" } else { "" };
            output::say(&format!("rk: agent {} is removed{session}; its credential is void", removed.name));
        }
        Format::Table => (),
    }
    Ok(())
}
