//! Follows a job with our stdio and decides what an interrupt means: the job belongs to the installation and not to this
//! process, so it goes on unless somebody asks for its end.

use std::{io::IsTerminal, time::Duration};

use bytes::Bytes;
use tokio::{
    signal::unix::SignalKind,
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{verdict, watch::Watch};
use crate::{
    api::{
        Client, ClientError,
        client::{LogFollower, patiently},
        jobs::{CancelJob, JobInfo},
        logs::LogQuery,
    },
    cli::{
        Failure,
        exec::{
            Signals,
            report::{Status, Verdict},
            stdio,
        },
        failure,
        logs::{self, Look, Sink},
        output::{self, Format},
        submitter,
    },
    job::JobId,
};

/// How long an answer is waited for before the question counts as answered with no.
const ANSWER: Duration = Duration::from_secs(30);
/// How long is tried to cancel the job while the controller is away.
const CANCEL: Duration = Duration::from_secs(60);
/// A longer answer is no yes.
const LONGEST: usize = 64;

/// Interrupted.
pub const INTERRUPTED: u8 = 130;

/// How a job is attended to.
#[derive(Debug, Clone, Copy)]
pub struct Attend {
    /// How output is shown.
    pub look: Look,
    /// How long the controller may be away.
    pub patience: Duration,
    /// Whether an interrupt cancels the job without a question.
    pub cancel: bool,
}

/// What an interrupt means now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Ask,
    Cancel,
    Detach,
}

/// The first interrupt asks or cancels, the next one leaves.
fn meaning(number: i32, earlier: bool, cancel: bool, terminal: bool) -> Meaning {
    match (earlier, cancel) {
        (true, _) => Meaning::Detach,
        (false, true) => Meaning::Cancel,
        (false, false) if terminal && number == SignalKind::interrupt().as_raw_value() => Meaning::Ask,
        (false, false) => Meaning::Detach,
    }
}

impl Attend {
    /// Follows `job` to its end.
    pub async fn to(self, client: &Client, job: &JobInfo, mut signals: Signals) -> Result<Verdict, Failure> {
        let id = job.id;
        let talk = !self.look.quiet;
        let mut sink = Sink::open(self.look)?;
        sink.submitted(job).await?;
        let query = LogQuery { follow: true, ..LogQuery::default() };
        let mut follower = LogFollower::new(client.clone(), id.to_string(), query, self.patience);
        let mut watch = (talk && self.look.format == Format::Table).then(|| Watch::start(client.clone(), id));
        let mut show = std::pin::pin!(logs::show(&mut follower, sink));
        let mut cancelling = std::pin::pin!(None);
        let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let mut earlier = false;
        let ended = loop {
            tokio::select! {
                ended = &mut show => break ended,
                result = running(cancelling.as_mut().as_pin_mut()) => {
                    cancelling.set(None);
                    told(id, result, talk);
                }
                line = news(&mut watch) => output::say(&format!("rk: {line}")),
                caught = signals.next() => {
                    let mut meaning = meaning(caught.number, earlier, self.cancel, terminal);
                    earlier = true;
                    if meaning == Meaning::Ask {
                        meaning = if ask(id, &mut signals).await? { Meaning::Cancel } else { Meaning::Detach };
                    }
                    match meaning {
                        Meaning::Cancel => cancelling.set(Some(cancel(client, id))),
                        _ => return Ok(detached(id)),
                    }
                }
            }
        };
        let ended = ended.map_err(|failure| left(id, failure))?;
        let verdict = verdict::verdict(&ended);
        if let Some(message) = &verdict.status.message {
            output::say(&format!("rk: {message}"));
        }
        Ok(verdict)
    }
}

async fn running<F: Future>(future: Option<std::pin::Pin<&mut F>>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn news(watch: &mut Option<Watch>) -> String {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

async fn cancel(client: &Client, id: JobId) -> Result<JobInfo, ClientError> {
    let request = CancelJob { by: submitter::name(), signal: None, grace_ms: None };
    let client = client.clone().with_timeout(Duration::from_secs(20));
    // A cancelled job that is cancelled again stays cancelled.
    patiently(CANCEL, async || client.cancel_job(&id.to_string(), &request).await, |_| ()).await
}

fn told(id: JobId, result: Result<JobInfo, ClientError>, talk: bool) {
    match result {
        Ok(_) if talk => output::say(&format!("rk: job {id} is told to end")),
        Ok(_) => (),
        Err(e) => output::say(&format!("rk: job {id} could not be cancelled: {e}; try `rk jobs cancel {id}`")),
    }
}

/// Asks once whether the job is to be cancelled. An end of input, another interrupt and silence say no.
async fn ask(id: JobId, signals: &mut Signals) -> Result<bool, Failure> {
    {
        use std::io::Write;
        let mut err = std::io::stderr().lock();
        let _ = write!(err, "\nrk: cancel job {id}? [y/N] (the job goes on otherwise) ");
        let _ = err.flush();
    }
    let answer = tokio::select! {
        answer = answer(stdio::stdin()?) => answer,
        _ = signals.next() => false,
        () = sleep_until(Instant::now() + ANSWER) => false,
    };
    if !answer {
        output::say("");
    }
    Ok(answer)
}

async fn answer(mut stdin: mpsc::Receiver<Bytes>) -> bool {
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < LONGEST {
        let Some(piece) = stdin.recv().await else { break };
        line.extend_from_slice(&piece);
    }
    is_yes(&line)
}

fn is_yes(line: &[u8]) -> bool {
    matches!(line.trim_ascii().to_ascii_lowercase().as_slice(), b"y" | b"yes")
}

fn detached(id: JobId) -> Verdict {
    let message = format!("job {id} goes on; `rk logs -f {id}` follows it, `rk jobs cancel {id}` ends it");
    output::say(&format!("rk: {message}"));
    let status = Status { by: "rk", code: INTERRUPTED, signal: None, message: Some(message) };
    Verdict { code: INTERRUPTED, status }
}

/// The job goes on when its reader fails.
fn left(id: JobId, failure: Failure) -> Failure {
    match failure.code {
        // Whoever read our output has seen enough.
        0 => {
            output::say(&format!("rk: nobody reads on; job {id} goes on: `rk logs -f {id}` follows it"));
            failure
        }
        failure::UNREACHABLE => {
            let message = format!("{}; job {id} goes on without us: `rk logs -f {id}` follows it", failure.message);
            Failure { message, ..failure }
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_asks_on_a_terminal_and_else_leaves_the_job_alone() {
        for (number, earlier, cancel, terminal, expected) in [
            (2, false, false, true, Meaning::Ask),
            (2, false, false, false, Meaning::Detach),
            (15, false, false, true, Meaning::Detach),
            (1, false, false, true, Meaning::Detach),
            (2, false, true, true, Meaning::Cancel),
            (15, false, true, false, Meaning::Cancel),
            (2, true, false, true, Meaning::Detach),
            (2, true, true, false, Meaning::Detach),
        ] {
            assert_eq!(meaning(number, earlier, cancel, terminal), expected, "{number} {earlier} {cancel} {terminal}");
        }
    }

    #[tokio::test]
    async fn only_a_yes_is_one() {
        for (pieces, expected) in [
            (&["y\n"][..], true),
            (&["Y", "es\n"], true),
            (&["\n"], false),
            (&["n\n"], false),
            (&["yup\n"], false),
            (&[], false),
            (&["y"], true),
        ] {
            let (send, receive) = mpsc::channel(4);
            for piece in pieces {
                send.send(Bytes::from_static(piece.as_bytes())).await.expect("room");
            }
            drop(send);
            assert_eq!(answer(receive).await, expected, "{pieces:?}");
        }
    }
}
