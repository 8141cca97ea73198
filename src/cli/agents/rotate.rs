//! `rk agents rotate` and `rk agents revoke`: new secrets and the end of old ones.

use std::{io::Write, path::PathBuf, time::Duration};

use clap::Args;

use crate::{
    api::enrol::{RotateAgent, RotatedAgent, Taken},
    cli::{
        Failure,
        flags::ClientFlags,
        output::{self, Format},
        session::{self, Session},
    },
    config::Environment,
    id::AgentName,
};

/// Arguments of `rk agents rotate`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// The agent
    name: AgentName,
    /// How long the old secret is valid too; with 0s until the agent has the new
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = crate::config::duration)]
    overlap: Duration,
    /// Write the new credential to this file, mode 0600, also if the agent took it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Gives an agent a new secret.
pub async fn run(args: RotateArgs, environment: &Environment) -> Result<(), Failure> {
    let session = session::open(args.flags, environment)?;
    session::refuse_existing(args.out.as_deref())?;
    let overlap_ms = args.overlap.as_millis().try_into().unwrap_or(u64::MAX);
    let request = RotateAgent { overlap_ms, show: args.out.is_some() };
    let rotated = session.client.rotate_agent(&args.name, &request).await.map_err(|e| {
        let failure = Failure::from(e);
        let cure = format!("if `rk agents show {}` knows it, rotate again: nobody has the new secret", args.name);
        Failure { message: format!("{}; {cure}", failure.message), ..failure }
    })?;
    let pass = rotated.pass();
    let source = match (&args.out, &pass) {
        (Some(path), Some(credential)) => Some(session::write_secret(
            path,
            credential.trim_end(),
            &format!("`rk agents rotate {}` again", args.name),
        )?),
        _ => None,
    };
    match session.format {
        Format::Json => output::print_json(&rotated)?,
        Format::Jsonl => output::print_jsonl(&rotated)?,
        Format::Table | Format::Name => {
            if let (None, Some(credential)) = (&source, &pass) {
                output::print(credential)?;
            }
        }
    }
    if !session.quiet {
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "rk: {}; {}", verdict(&rotated, source.as_deref()), old(&rotated, args.overlap));
        if let Some(commands) = &rotated.commands {
            let _ =
                write!(err, "rk: where Kafka has access rules, somebody who may runs before it comes back\n{commands}");
        }
    }
    Ok(())
}

/// Whether the agent has the new secret, and what to do if not.
fn verdict(rotated: &RotatedAgent, source: Option<&str>) -> String {
    let name = &rotated.name;
    let give = match source {
        Some(source) => format!("give it the new credential ({source})"),
        None => "give it the new credential".to_owned(),
    };
    match &rotated.taken {
        Taken::Yes => format!("agent {name} took the new secret"),
        Taken::Offline => format!("agent {name} is offline: {give}"),
        Taken::No(why) => format!("agent {name} did not take the new secret ({why}): {give}"),
    }
}

/// What becomes of the old secret.
fn old(rotated: &RotatedAgent, overlap: Duration) -> String {
    match (&rotated.old_until_ms, overlap.is_zero()) {
        (None, _) => "the old one is void".to_owned(),
        (Some(_), true) => "the old one is void in some seconds".to_owned(),
        (Some(_), false) => format!("the old one is valid for {}", output::duration(overlap)),
    }
}

/// Revokes an agent.
pub async fn revoke(name: &AgentName, session: Session) -> Result<(), Failure> {
    let revoked = session.client.revoke_agent(name).await?;
    match session.format {
        Format::Json => output::print_json(&revoked)?,
        Format::Jsonl => output::print_jsonl(&revoked)?,
        Format::Name => output::print(&format!("{}\n", revoked.name))?,
        Format::Table if !session.quiet => {
            let ended = if revoked.had_session { ", and its session is ended" } else { "" };
            output::say(&format!(
                "rk: agent {name} is revoked{ended}; `rk agents rotate {name}` lets it in with a new credential"
            ));
        }
        Format::Table => (),
    }
    Ok(())
}
