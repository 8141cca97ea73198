//! The channel: Java's stdio on the agent is ours, to the end of either side.
//!
//! Jenkins ends a channel by closing our stdin, or by a signal; Java then ends by itself, or is hung up after a while. So no
//! process is left, neither here nor there.

use std::time::Duration;

use tokio::time::sleep;

use super::Host;
use crate::{
    api::{
        ExecEnd, RefusalKind,
        client::ExecReceiver,
        frames::{FramesError, ToClient},
    },
    cli::{
        Failure,
        exec::{
            Signals, feed,
            stdio::{self, Writer},
        },
        failure, output,
    },
};

/// How long Java may take to end after Jenkins closed the channel.
const LINGER: Duration = Duration::from_secs(30);

/// Runs Java there with our stdio. The exit code is Java's.
pub async fn run(host: &Host, argv: &[&str], mut signals: Signals) -> Result<u8, Failure> {
    let request = host.request(argv);
    let (sender, receiver) = host.client.exec(&request).await?;
    output::say(&format!("rk: on {}: {}", host.agent, argv.join(" ")));
    let fed = tokio::spawn(feed(sender, stdio::stdin()?));
    let closed = async {
        let _ = fed.await;
        sleep(LINGER).await;
    };
    // Whatever ends first drops the receiver, which hangs Java up if it still runs.
    let end = tokio::select! {
        end = pump(host, receiver) => end?,
        () = closed => {
            let agent = &host.agent;
            let message = format!("Jenkins closed the channel and Java on {agent} did not end in {LINGER:?}: hung up");
            return Err(Failure::new(failure::TIMED_OUT, message));
        }
        caught = signals.next() => return Err(Failure::silent(128 + caught.number as u8)),
    };
    match conclude(host, argv.first().copied().unwrap_or_default(), &end) {
        Some(failure) => Err(failure),
        None => Ok(end.exit_code()),
    }
}

/// Moves output to our streams until the end, and returns it when everything is written.
async fn pump(host: &Host, mut receiver: ExecReceiver) -> Result<ExecEnd, Failure> {
    let (mut stdout, mut stderr) = (Writer::stdout()?, Writer::stderr()?);
    loop {
        match receiver.next().await.map_err(|e| broken(&e))? {
            Some(ToClient::Stdout(bytes)) => stdout.write(bytes).await?,
            Some(ToClient::Stderr(bytes)) => stderr.write(bytes).await?,
            Some(ToClient::Lost(why)) => {
                output::say(&format!("rk: Java on {} cannot be reached ({why}); it waits for us", host.agent));
            }
            Some(ToClient::Resumed(_)) => output::say("rk: resumed, nothing is lost"),
            Some(ToClient::Exit(end)) => {
                let (stdout, stderr) = tokio::join!(stdout.finish(), stderr.finish());
                stdout.and(stderr)?;
                return Ok(end);
            }
            Some(_) => (),
            None => return Err(Failure::new(failure::UNREACHABLE, "the controller ended without an exit code")),
        }
    }
}

/// What the node's log is to show of this end.
fn conclude(host: &Host, java: &str, end: &ExecEnd) -> Option<Failure> {
    let agent = &host.agent;
    let message = match end {
        ExecEnd::Exited { code: 0 } => return None,
        ExecEnd::Exited { code } => format!("Java on {agent} ended with exit code {code}; what it said stands above"),
        ExecEnd::Signalled { signal: 9 } => {
            format!("Java on {agent} was killed; if nobody did it, that machine may be short of memory")
        }
        ExecEnd::Signalled { signal } => format!("Java on {agent} was ended by signal {signal}"),
        ExecEnd::Refused { reason: RefusalKind::NotFound, message } => {
            format!("{agent} has no Java ({message}); install one there, or name it with --java instead of {java}")
        }
        other => return Some(refused(other)),
    };
    Some(Failure::new(end.exit_code(), message))
}

/// An end that is no process's: what the controller says of it, and what Jenkins makes of it.
pub fn refused(end: &ExecEnd) -> Failure {
    let message = match end {
        ExecEnd::Refused { message, .. } | ExecEnd::NoAnswer { message, .. } => message.clone(),
        ExecEnd::TimedOut => "it took too long".to_owned(),
        ExecEnd::Exited { code } => format!("exit code {code}"),
        ExecEnd::Signalled { signal } => format!("signal {signal}"),
    };
    Failure::new(end.exit_code(), message)
}

/// The connection to our controller is gone for good.
pub fn broken(e: &FramesError) -> Failure {
    let message =
        format!("the connection to the rk controller broke ({e}); what ran there is hung up: look at `rk status`");
    Failure::new(failure::UNREACHABLE, message)
}
