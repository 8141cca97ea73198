//! `rk access`: tokens of the controller's API.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::{
    Failure,
    flags::ClientFlags,
    output::{self, Format},
    session::{self, Session},
};
use crate::{
    api::access::{Access, AddAccess, Role, Verb},
    clock,
    config::Environment,
    id::AgentName,
    selector::Selector,
};

/// Let others ask the controller, within limits.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Make a token and print it
    Add(AddArgs),
    /// List tokens
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// End a token
    #[command(visible_alias = "rm")]
    Revoke(RevokeArgs),
}

/// Arguments of `rk access add`.
#[derive(Debug, Args)]
#[command(after_help = "\
Roles: viewer   view
       operator view, call, exec, run, cancel, drain
       admin    all of these, and enrol and update (agents), grant (tokens)

A token for one Jenkins node, which can execute there and nothing else:
  rk access add jenkins --role operator --verb exec --agent node-1")]
pub struct AddArgs {
    /// Whom it is for; the submitter of its jobs
    name: AgentName,
    /// What it may do at most: viewer, operator or admin
    #[arg(long)]
    role: Role,
    /// Only this of it; may be repeated
    #[arg(long = "verb", value_name = "VERB", value_delimiter = ',')]
    verbs: Vec<Verb>,
    /// Only on this agent; may be repeated
    #[arg(long = "agent", value_name = "NAME", value_delimiter = ',')]
    agents: Vec<AgentName>,
    /// Only on agents with these labels, like os=linux,zone!=a
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<Selector>,
    /// How long it is good [default: until it is revoked]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    ttl: Option<Duration>,
    /// Write the token to this file, mode 0600, and not to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `rk access ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `rk access revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Whose token
    name: AgentName,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Runs the command.
pub async fn run(command: AccessCommand, environment: &Environment) -> Result<u8, Failure> {
    match command {
        AccessCommand::Add(args) => {
            let request = AddAccess {
                name: args.name,
                role: args.role,
                verbs: args.verbs.into_iter().collect(),
                agents: args.agents.into_iter().collect(),
                selector: args.selector.unwrap_or_default(),
                ttl_ms: args.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            };
            add(request, args.out, session::open(args.flags, environment)?).await?;
        }
        AccessCommand::Ls(args) => list(session::open(args.flags, environment)?).await?,
        AccessCommand::Revoke(args) => revoke(&args.name, session::open(args.flags, environment)?).await?,
    }
    Ok(0)
}

async fn add(request: AddAccess, out: Option<PathBuf>, session: Session) -> Result<(), Failure> {
    if let Some(odd) = request.verbs.iter().find(|verb| !request.role.may(**verb)) {
        return Err(Failure::usage(format!(
            "a token with the role {} cannot {odd}; that takes --role {}",
            request.role,
            odd.least()
        )));
    }
    session::refuse_existing(out.as_deref())?;
    let added = session.client.add_access(&request).await?;
    let name = &added.access.name;
    if let Some(path) = &out {
        session::write_secret(path, &added.token, &format!("`rk access revoke {name}` and add it again"))?;
    }
    match session.format {
        Format::Json => output::print_json(&added)?,
        Format::Jsonl => output::print_jsonl(&added)?,
        Format::Table | Format::Name if out.is_none() => output::print(&format!("{}\n", added.token))?,
        Format::Table | Format::Name => (),
    }
    if !session.quiet {
        let file = out.map_or("FILE".to_owned(), |path| path.display().to_string());
        output::say(&format!("rk: {name} may {}; use it with --api-token file:{file}", limits(&added.access)));
    }
    Ok(())
}

async fn list(session: Session) -> Result<(), Failure> {
    let list = session.client.access().await?.access;
    match session.format {
        Format::Json => output::print_json(&list)?,
        Format::Jsonl => {
            for access in &list {
                output::print_jsonl(access)?;
            }
        }
        Format::Name => {
            output::print(&list.iter().map(|access| format!("{}\n", access.name)).collect::<String>())?;
        }
        Format::Table if list.is_empty() => {
            if !session.quiet {
                output::say("rk: no tokens but the controller's own; `rk access add NAME --role …` makes one");
            }
        }
        Format::Table => {
            let now = clock::unix_ms();
            let rows: Vec<_> = list.iter().map(|access| row(access, now)).collect();
            output::print(&output::table(["NAME", "ROLE", "EXPIRES", "VERBS", "AGENTS"], &rows))?;
        }
    }
    Ok(())
}

fn row(access: &Access, now_ms: u64) -> [String; 5] {
    let expires = match access.expires_ms {
        None => "never".to_owned(),
        Some(_) if access.expired => "expired".to_owned(),
        Some(at) => format!("in {}", output::duration(Duration::from_millis(at.saturating_sub(now_ms)))),
    };
    [access.name.to_string(), access.role.to_string(), expires, verbs(access), agents(access)]
}

fn verbs(access: &Access) -> String {
    access.verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>().join(",")
}

fn agents(access: &Access) -> String {
    let mut parts: Vec<String> = access.agents.iter().map(ToString::to_string).collect();
    if !access.selector.is_empty() {
        parts.push(access.selector.to_string());
    }
    if parts.is_empty() { "all".to_owned() } else { parts.join(",") }
}

fn limits(access: &Access) -> String {
    match agents(access).as_str() {
        "all" => verbs(access),
        agents => format!("{} on {agents}", verbs(access)),
    }
}

async fn revoke(name: &AgentName, session: Session) -> Result<(), Failure> {
    let revoked = session.client.revoke_access(name).await?;
    match session.format {
        Format::Json => output::print_json(&revoked)?,
        Format::Jsonl => output::print_jsonl(&revoked)?,
        Format::Name => output::print(&format!("{name}\n"))?,
        Format::Table if !session.quiet => output::say(&format!("rk: the token of {name} is void")),
        Format::Table => (),
    }
    Ok(())
}
