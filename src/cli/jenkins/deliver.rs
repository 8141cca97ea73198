//! Brings the jar to the agent: into a file that is named after its digest, in the directory where the agent's commands run.
//!
//! Plain programs that every Linux has do it, one execution each, without a shell. What is there already under this name is looked
//! at and not sent again. Nobody ever sees half a file: it is written under another name, checked, and renamed.

use bytes::Bytes;

use super::{Host, channel::refused, jar::Jar};
use crate::{
    api::{ExecEnd, RefusalKind, frames::ToClient},
    cli::{
        Failure,
        exec::{feed_bytes, milliseconds},
        failure, output,
    },
    id::ExecId,
};

/// Where jars lie, seen from the directory where the agent's commands run.
const DIRECTORY: &str = ".rk-jenkins";

/// How long one step may take there: a transfer of some MiB, or nothing at all.
const STEP: std::time::Duration = std::time::Duration::from_secs(300);

/// How much of what a step prints is kept.
const KEPT: usize = 4096;

/// What a step printed, and how it ended.
struct Done {
    end: ExecEnd,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Sees to it that the jar is on the agent. Its path there, seen from where commands run.
pub async fn bring(host: &Host, jar: &Jar) -> Result<String, Failure> {
    let path = format!("{DIRECTORY}/{}.jar", jar.digest);
    let (agent, from) = (&host.agent, jar.path.display());
    if is_there(host, &path, &jar.digest).await? {
        output::say(&format!("rk: {agent} has {from} already ({path})"));
        return Ok(path);
    }
    let part = format!("{path}.{}", ExecId::random());
    let sent = send(host, jar, &part, &path).await;
    if sent.is_err() {
        // Whatever became of it: nobody else uses this name.
        let _ = step(host, &["rm", "-f", &part], None).await;
    }
    sent?;
    output::say(&format!("rk: brought {from} to {agent} ({} KiB, {path})", jar.bytes.len().div_ceil(1024)));
    Ok(path)
}

async fn send(host: &Host, jar: &Jar, part: &str, path: &str) -> Result<(), Failure> {
    must(host, &["mkdir", "-p", DIRECTORY], None).await?;
    must(host, &["dd", &format!("of={part}"), "bs=64k"], Some(jar.bytes.clone())).await?;
    if !is_there(host, part, &jar.digest).await? {
        let message = format!("what arrived on {} is not what was sent; look at its disk, and try again", host.agent);
        return Err(Failure::new(failure::TRY_AGAIN, message));
    }
    must(host, &["mv", "-f", part, path], None).await
}

/// Whether a file there has this digest.
async fn is_there(host: &Host, path: &str, digest: &str) -> Result<bool, Failure> {
    let done = step(host, &["sha256sum", path], None).await?;
    // It ends with 1 where there is no such file.
    Ok(done.end.is_success() && done.stdout.split(|byte| *byte == b' ').next() == Some(digest.as_bytes()))
}

/// A step that has to succeed.
async fn must(host: &Host, argv: &[&str], stdin: Option<Bytes>) -> Result<(), Failure> {
    let done = step(host, argv, stdin).await?;
    let how = match done.end {
        ExecEnd::Exited { code: 0 } => return Ok(()),
        ExecEnd::Exited { code } => format!("exit code {code}"),
        ExecEnd::Signalled { signal } => format!("signal {signal}"),
        _ => format!("not done after {STEP:?}"),
    };
    let said = String::from_utf8_lossy(&done.stderr);
    let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(Failure::new(
        failure::UNREACHABLE,
        format!("the jar cannot be brought to {}: {}: {how}: {said}", host.agent, argv.join(" ")),
    ))
}

/// Runs a step there. An error if it did not run, or if nobody knows how it ended.
async fn step(host: &Host, argv: &[&str], stdin: Option<Bytes>) -> Result<Done, Failure> {
    let mut request = host.request(argv);
    request.timeout_ms = Some(milliseconds(STEP));
    request.stdin = stdin.is_some();
    let (sender, mut receiver) = host.client.exec(&request).await?;
    if let Some(bytes) = stdin {
        tokio::spawn(feed_bytes(sender, bytes));
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let frame = receiver.next().await.map_err(|e| super::channel::broken(&e))?;
        match frame {
            Some(ToClient::Stdout(bytes)) => keep(&mut stdout, &bytes),
            Some(ToClient::Stderr(bytes)) => keep(&mut stderr, &bytes),
            Some(ToClient::Exit(end @ (ExecEnd::Refused { .. } | ExecEnd::NoAnswer { .. }))) => {
                return Err(explain(host, argv, end));
            }
            Some(ToClient::Exit(end)) => return Ok(Done { end, stdout, stderr }),
            Some(_) => (),
            None => return Err(Failure::new(failure::UNREACHABLE, "the controller ended without an exit code")),
        }
    }
}

fn explain(host: &Host, argv: &[&str], end: ExecEnd) -> Failure {
    match end {
        ExecEnd::Refused { reason: RefusalKind::NotFound, message } => Failure::new(
            RefusalKind::NotFound.exit_code(),
            format!("{message} on {}; bringing the jar takes sha256sum, mkdir, dd, mv and rm there", host.agent),
        ),
        ExecEnd::Refused { reason: RefusalKind::Forbidden, message } => Failure::new(
            RefusalKind::Forbidden.exit_code(),
            format!("{message}; it was to run {} on {}", argv.join(" "), host.agent),
        ),
        end => refused(&end),
    }
}

/// Keeps the end of what was printed.
fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    kept.extend_from_slice(bytes);
    let over = kept.len().saturating_sub(KEPT);
    kept.drain(..over);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_prints_is_bounded() {
        let mut kept = Vec::new();
        for _ in 0..100 {
            keep(&mut kept, &[b'x'; 1000]);
        }
        keep(&mut kept, b"end");
        assert!(kept.len() == KEPT && kept.ends_with(b"end"));
    }
}
