//! `rk tokens`: join tokens, with which agents whose names are not known ahead get in.

use std::{io::Write, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::{
    Failure, agents,
    flags::ClientFlags,
    output::{self, Format},
    session::{self, Session},
};
use crate::{
    api::enrol::{CreateToken, CreatedToken, Token},
    config::{Environment, keys},
    selector,
};

/// Make, list and revoke join tokens, with which agents enrol themselves.
#[derive(Debug, Subcommand)]
pub enum TokensCommand {
    /// Make a join token and print it
    Create(CreateArgs),
    /// List join tokens, the newest first
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Revoke a join token; agents that it enrolled stay
    Revoke(RevokeArgs),
}

/// Arguments of `rk tokens create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// How many agents it may enrol
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// How long it can be used, by the controller's clock
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = crate::config::duration)]
    ttl: Duration,
    /// Labels that its agents get; they win over what they say of themselves
    #[arg(long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = selector::label)]
    labels: Vec<(String, String)>,
    /// What the names of its agents must begin with
    #[arg(long, value_name = "PREFIX", default_value = "")]
    name_prefix: String,
    /// Write the token to this file, mode 0600, and not to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `rk tokens ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `rk tokens revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Its id, as `rk tokens ls` shows it
    id: String,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Runs the command.
pub async fn run(command: TokensCommand, environment: &Environment) -> Result<u8, Failure> {
    match command {
        TokensCommand::Create(args) => {
            let session = session::open(args.flags, environment)?;
            let request = CreateToken {
                uses: args.uses,
                ttl_ms: args.ttl.as_millis().try_into().unwrap_or(u64::MAX),
                labels: args.labels.into_iter().collect(),
                name_prefix: args.name_prefix,
            };
            create(request, args.out, session).await?;
        }
        TokensCommand::Ls(args) => list(session::open(args.flags, environment)?).await?,
        TokensCommand::Revoke(args) => revoke(&args.id, session::open(args.flags, environment)?).await?,
    }
    Ok(0)
}

async fn create(request: CreateToken, out: Option<PathBuf>, session: Session) -> Result<(), Failure> {
    session::refuse_existing(out.as_deref())?;
    let created = session.client.create_token(&request).await?;
    let source = match &out {
        Some(path) => session::write_secret(path, &created.token, &format!("`rk tokens revoke {}`", created.info.id))?,
        None => "file:TOKEN".to_owned(),
    };
    match session.format {
        Format::Json => output::print_json(&created)?,
        Format::Jsonl => output::print_jsonl(&created)?,
        Format::Table | Format::Name if out.is_none() => output::print(&format!("{}\n", created.token))?,
        Format::Table | Format::Name => (),
    }
    if !session.quiet {
        launch_line(&created, &source, &session);
    }
    Ok(())
}

/// Tells how agents are started with the token.
fn launch_line(created: &CreatedToken, source: &str, session: &Session) {
    let brokers = session.settings.environment().setting(&keys::BROKERS).unwrap_or("HOST:PORT").to_owned();
    let mut line = format!("rk agent run --brokers {brokers} --join {source}");
    line += &agents::place(&created.prefix, created.partitions);
    let (uses, ttl) = (created.info.uses, output::duration(Duration::from_millis(created.info.expires_in_ms)));
    let agents = if uses == 1 { "one agent".to_owned() } else { format!("{uses} agents") };
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "rk: token {} enrols {agents} within {ttl}; start each with\n  {line}", created.info.id);
    if source == "file:TOKEN" {
        let _ = writeln!(err, "where the file TOKEN (mode 0600) holds the line above; it is not shown again");
    }
}

async fn list(session: Session) -> Result<(), Failure> {
    let list = session.client.tokens().await?;
    match session.format {
        Format::Json => output::print_json(&list.tokens)?,
        Format::Jsonl => {
            for token in &list.tokens {
                output::print_jsonl(token)?;
            }
        }
        Format::Name => {
            let ids: String = list.tokens.iter().map(|token| format!("{}\n", token.id)).collect();
            output::print(&ids)?;
        }
        Format::Table if list.tokens.is_empty() => {
            if !session.quiet {
                output::say("rk: no join tokens; `rk tokens create` makes one");
            }
        }
        Format::Table => {
            let rows: Vec<_> = list.tokens.iter().map(row).collect();
            output::print(&output::table(["ID", "STATE", "LEFT", "EXPIRES", "PREFIX", "LABELS"], &rows))?;
        }
    }
    Ok(())
}

fn row(token: &Token) -> [String; 6] {
    let expires = match token.expires_in_ms {
        0 => "-".to_owned(),
        ms => format!("in {}", output::duration(Duration::from_millis(ms))),
    };
    let prefix = if token.name_prefix.is_empty() { "-".to_owned() } else { token.name_prefix.clone() };
    let labels = token.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let left = format!("{}/{}", token.uses_left, token.uses);
    [token.id.clone(), token.state.as_str().to_owned(), left, expires, prefix, labels]
}

async fn revoke(id: &str, session: Session) -> Result<(), Failure> {
    let token = session.client.revoke_token(id).await?;
    match session.format {
        Format::Json => output::print_json(&token)?,
        Format::Jsonl => output::print_jsonl(&token)?,
        Format::Name => output::print(&format!("{}\n", token.id))?,
        Format::Table if !session.quiet => {
            output::say(&format!("rk: token {} enrols nobody any more; agents that it enrolled stay", token.id));
        }
        Format::Table => (),
    }
    Ok(())
}
