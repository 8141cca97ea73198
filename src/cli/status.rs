//! `rk status`: how the controller, its cluster and its agents are.

use std::time::Duration;

use clap::Args;

use super::{
    Failure, client, failure,
    flags::ClientFlags,
    log,
    output::{self, Format},
};
use crate::{
    api::Status,
    config::{Environment, keys},
};

/// Show how the controller, its cluster and its agents are
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print nothing; exit 0 if the controller can work, else 69
    #[arg(long)]
    health: bool,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Runs the command.
pub async fn run(args: StatusArgs, environment: &Environment) -> Result<u8, Failure> {
    let settings = args.flags.settings(environment)?;
    log::start(&settings, log::COMMAND)?;
    let format = settings.parse::<Format>(&keys::OUTPUT)?.unwrap_or_default();
    let client = client::connect(&settings)?.with_timeout(Duration::from_secs(10));
    let status = client.status().await?;
    match format {
        _ if args.health => (),
        Format::Json => output::print_json(&status)?,
        Format::Jsonl => output::print_jsonl(&status)?,
        Format::Name => output::print(&format!("{}\n", status.fingerprint))?,
        Format::Table => output::print(&describe(&status))?,
    }
    if args.health && !status.is_healthy() {
        let detail = status.kafka.detail.unwrap_or_else(|| "its own records do not come back".to_owned());
        return Err(Failure::new(failure::UNREACHABLE, format!("Kafka unreachable: {detail}; look at `rk status`")));
    }
    Ok(0)
}

fn describe(status: &Status) -> String {
    let kafka = match (&status.kafka.reachable, &status.kafka.detail) {
        (true, _) => "reachable".to_owned(),
        (false, None) => "Kafka unreachable; agents' states stand still".to_owned(),
        (false, Some(detail)) => format!("Kafka unreachable: {detail}"),
    };
    let (agents, jobs) = (&status.agents, &status.jobs);
    let mut text = String::new();
    for (what, value) in [
        (
            "controller",
            format!("version {}, up {}", status.version, output::duration(Duration::from_secs(status.uptime))),
        ),
        ("fingerprint", status.fingerprint.clone()),
        ("topics", format!("{}.*, {} partitions, epoch {}", status.prefix, status.partitions, status.epoch)),
        ("kafka", kafka),
        ("agents", format!("{} online, {} silent, {} offline", agents.online, agents.silent, agents.offline)),
        ("executions", status.executions.to_string()),
        (
            "jobs",
            format!(
                "{} queued, {} assigned, {} running, {} ended",
                jobs.queued, jobs.assigned, jobs.running, jobs.ended
            ),
        ),
    ] {
        text += &format!("{what:<11}  {value}\n");
    }
    for warning in &status.warnings {
        text += &format!("warning      {warning}\n");
    }
    text
}
