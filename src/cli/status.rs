//! `rk status`: how the controller, its cluster and its agents are.

use std::time::Duration;

use clap::Args;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

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

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most of an answer that is read.
const LONGEST_ANSWER: u64 = 16 << 10;

/// Show how the controller, its cluster and its agents are
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print nothing; exit 0 if the controller can work, else 69
    #[arg(long)]
    health: bool,
    /// With --health: ask whoever has this --health-addr, a controller or an
    /// agent, and not the API
    #[arg(long, value_name = "HOST:PORT", requires = "health")]
    health_addr: Option<String>,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Runs the command.
pub async fn run(args: StatusArgs, environment: &Environment) -> Result<u8, Failure> {
    let settings = args.flags.settings(environment)?;
    log::start(&settings, log::COMMAND)?;
    if let Some(address) = &args.health_addr {
        ready(address).await?;
        return Ok(0);
    }
    let format = settings.parse::<Format>(&keys::OUTPUT)?.unwrap_or_default();
    let client = client::connect(&settings)?.with_timeout(PATIENCE);
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

/// Whether whoever listens there can do its work. What it answers is one line.
async fn ready(address: &str) -> Result<(), Failure> {
    let away = |what: &dyn std::fmt::Display| {
        Failure::new(
            failure::UNREACHABLE,
            format!("{address}: {what}; is there a process that was started with --health-addr {address}?"),
        )
    };
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = match timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => return Err(away(&e)),
        Err(_) => return Err(away(&format!("no answer within {}", output::duration(PATIENCE)))),
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some("503") => Err(Failure::new(failure::UNREACHABLE, format!("{address} is not ready: {}", body.trim()))),
        _ => Err(away(&"what answers is no health address")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Asks somebody who answers this.
    async fn asked(answer: &'static str) -> Result<(), Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).await.unwrap();
            assert!(request[..n].starts_with(b"GET /health/ready HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(ready(&address), serve).0
    }

    #[tokio::test]
    async fn a_health_address_says_ready_or_why_not_and_nothing_else_counts() {
        asked("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n").await.unwrap();
        let not = asked("HTTP/1.1 503 Service Unavailable\r\n\r\nno session yet\n").await.unwrap_err();
        assert!(
            not.code == failure::UNREACHABLE && not.message.ends_with("is not ready: no session yet"),
            "{}",
            not.message
        );
        for odd in ["", "SSH-2.0-x\r\n", "HTTP/1.1 404 Not Found\r\n\r\n"] {
            let failure = asked(odd).await.unwrap_err();
            assert!(
                failure.code == super::failure::UNREACHABLE && failure.message.contains("--health-addr"),
                "{odd:?}"
            );
        }
    }
}
