//! Many agents at once: output by lines with the agent's name before each, and a summary.

use std::{io, sync::Arc};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    Batch, MOST_AT_ONCE,
    lines::Lines,
    report::{Event, Text, Verdict},
    single::{Patience, Signals},
    stdio::Writer,
};
use crate::{
    api::{AgentState, Client, ExecEnd, ExecRequest, Fault, RefusalKind, frames::ToClient},
    cli::{
        Failure, failure,
        output::{self, Format},
    },
    id::AgentName,
    selector::Selector,
};

/// Lines that wait for a slow reader.
const WAITING: usize = 64;

/// A fan-out.
pub struct Fanout {
    /// Where the controller is.
    pub client: Client,
    /// Lines for people, or events.
    pub format: Format,
    /// How many at once.
    pub batch: Option<Batch>,
    /// Print no summary.
    pub quiet: bool,
}

/// How it went on one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Ok,
    Failed(String),
    NoAnswer(String),
    Offline,
    /// The user interrupted before its turn came.
    NotStarted,
}

/// A line of one agent, ready to be written.
struct Line {
    stderr: bool,
    bytes: Bytes,
}

impl Fanout {
    /// Runs on all agents that `selector` selects.
    pub async fn run(
        self,
        selector: &Selector,
        request: impl Fn(AgentName) -> ExecRequest,
    ) -> Result<Verdict, Failure> {
        let mut signals = Signals::listen()?;
        let agents = self.client.agents(selector).await.map_err(Failure::from)?.agents;
        if agents.is_empty() {
            return Err(Failure::usage(format!(
                "no agent has the labels {selector}; `rk agents ls` shows what they have"
            )));
        }
        let at_once = self.batch.map_or(MOST_AT_ONCE, |batch| batch.of(agents.len()));
        let turns = Arc::new(Semaphore::new(at_once));
        let (lines, queue) = mpsc::channel(WAITING);
        let (pass_on, passed) = watch::channel(None::<i32>);
        let mut running = JoinSet::new();
        for agent in agents {
            let one = One {
                request: request(agent.name.clone()),
                client: self.client.clone(),
                format: self.format,
                lines: lines.clone(),
                signals: passed.clone(),
            };
            let turns = turns.clone();
            running.spawn(async move {
                let name = agent.name;
                if matches!(agent.state, AgentState::Offline | AgentState::Revoked) {
                    return (name, Fate::Offline);
                }
                let _turn = turns.acquire_owned().await.expect("nobody closes it");
                (name, one.run().await)
            });
        }
        drop(lines);
        let mut writing = tokio::spawn(write(queue));
        let mut written = false;
        let mut patience = Patience::default();
        let mut fates = Vec::new();
        loop {
            tokio::select! {
                ended = running.join_next() => match ended {
                    Some(fate) => fates.push(fate.map_err(|e| Failure::new(failure::UNREACHABLE, e.to_string()))?),
                    None => break,
                },
                // A reader that went away is an error; else the last of them has said all, and is told in a moment.
                result = &mut writing, if !written => {
                    result.map_err(|e| Failure::new(failure::UNREACHABLE, e.to_string()))??;
                    written = true;
                }
                caught = signals.next() => {
                    if let Some(code) = patience.ends(caught, Instant::now()) {
                        return Err(Failure::silent(code));
                    }
                    pass_on.send_replace(Some(caught.number));
                }
            }
        }
        if !written {
            writing.await.map_err(|e| Failure::new(failure::UNREACHABLE, e.to_string()))??;
        }
        fates.sort_by(|a, b| a.0.cmp(&b.0));
        self.conclude(&fates)
    }

    fn conclude(&self, fates: &[(AgentName, Fate)]) -> Result<Verdict, Failure> {
        let count = |fits: fn(&Fate) -> bool| fates.iter().filter(|(_, fate)| fits(fate)).count();
        let ok = count(|fate| *fate == Fate::Ok);
        let failed = count(|fate| matches!(fate, Fate::Failed(_)));
        let no_answer = count(|fate| matches!(fate, Fate::NoAnswer(_)));
        let offline = count(|fate| *fate == Fate::Offline);
        let not_started = count(|fate| *fate == Fate::NotStarted);
        if self.format != Format::Table {
            output::print(&String::from_utf8_lossy(&Event::Summary { ok, failed, no_answer, offline }.line()))?;
        }
        if !self.quiet {
            for (name, fate) in fates {
                match fate {
                    Fate::Failed(how) => output::say(&format!("rk: {name} failed: {how}")),
                    Fate::NoAnswer(why) => output::say(&format!("rk: {name} did not answer: {why}")),
                    Fate::Offline => output::say(&format!("rk: {name} is offline")),
                    Fate::Ok | Fate::NotStarted => (),
                }
            }
            let skipped = if not_started > 0 { format!(", {not_started} not started") } else { String::new() };
            output::say(&format!("rk: {ok} ok, {failed} failed, {no_answer} no answer, {offline} offline{skipped}"));
        }
        Ok(Verdict::ours(exit_code(fates)))
    }
}

/// 3 wins over 1: who did not answer may have done anything.
fn exit_code(fates: &[(AgentName, Fate)]) -> u8 {
    let code = |fate: &Fate| match fate {
        Fate::Ok => 0,
        Fate::Failed(_) | Fate::NotStarted => 1,
        Fate::NoAnswer(_) | Fate::Offline => 3,
    };
    fates.iter().map(|(_, fate)| code(fate)).max().unwrap_or(0)
}

/// One agent of a fan-out.
struct One {
    request: ExecRequest,
    client: Client,
    format: Format,
    lines: mpsc::Sender<Line>,
    signals: watch::Receiver<Option<i32>>,
}

impl One {
    async fn run(mut self) -> Fate {
        if self.signals.borrow().is_some() {
            return Fate::NotStarted;
        }
        match self.execute().await {
            Ok(end) => {
                let agent = &self.request.agent;
                if self.format != Format::Table {
                    let bytes = Event::End { agent, end: &end }.line().into();
                    let _ = self.lines.send(Line { stderr: false, bytes }).await;
                }
                fate(end)
            }
            Err(message) => Fate::NoAnswer(message),
        }
    }

    async fn execute(&mut self) -> Result<ExecEnd, String> {
        let (sender, mut receiver) = self.client.exec(&self.request).await.map_err(|e| e.to_string())?;
        let (mut stdout, mut stderr) = (Lines::default(), Lines::default());
        loop {
            let frame = tokio::select! {
                frame = receiver.next() => frame.map_err(|e| format!("the connection to the controller broke: {e}"))?,
                changed = self.signals.changed() => {
                    let number = *self.signals.borrow_and_update();
                    if let (Ok(()), Some(number)) = (changed, number) {
                        let _ = sender.signal(number).await;
                    }
                    continue;
                }
            };
            match frame {
                Some(ToClient::Started(pid)) => self.started(pid).await,
                Some(ToClient::Stdout(bytes)) => self.output(&mut stdout, &bytes, false).await,
                Some(ToClient::Stderr(bytes)) => self.output(&mut stderr, &bytes, true).await,
                Some(ToClient::Exit(end)) => {
                    for (lines, is_stderr) in [(&mut stdout, false), (&mut stderr, true)] {
                        if let Some(line) = lines.rest() {
                            self.line(&line, is_stderr).await;
                        }
                    }
                    return Ok(end);
                }
                Some(_) => (),
                None => return Err("the controller ended without an exit code".to_owned()),
            }
        }
    }

    async fn started(&self, pid: u32) {
        if self.format != Format::Table {
            let bytes = Event::Started { agent: &self.request.agent, pid }.line().into();
            let _ = self.lines.send(Line { stderr: false, bytes }).await;
        }
    }

    async fn output(&self, lines: &mut Lines, bytes: &[u8], stderr: bool) {
        lines.push(bytes);
        while let Some(line) = lines.next() {
            self.line(&line, stderr).await;
        }
    }

    /// Hands a line to the writer; if that is gone, so is our reader, and the whole command ends.
    async fn line(&self, line: &[u8], stderr: bool) {
        let agent = &self.request.agent;
        let text = || Text::new(agent, line);
        let (stderr, bytes) = match (self.format, stderr) {
            (Format::Table, _) => (stderr, prefixed(agent, line)),
            (_, false) => (false, Event::Stdout(text()).line().into()),
            (_, true) => (false, Event::Stderr(text()).line().into()),
        };
        let _ = self.lines.send(Line { stderr, bytes }).await;
    }
}

fn fate(end: ExecEnd) -> Fate {
    match end {
        ExecEnd::Exited { code: 0 } => Fate::Ok,
        ExecEnd::Exited { code } => Fate::Failed(format!("exit code {code}")),
        ExecEnd::Signalled { signal } => Fate::Failed(format!("signal {signal}")),
        ExecEnd::TimedOut => Fate::Failed("timed out".to_owned()),
        ExecEnd::Refused { reason: RefusalKind::Offline, .. } => Fate::Offline,
        ExecEnd::Refused { message, .. } => Fate::Failed(message),
        ExecEnd::NoAnswer { fault: Fault::Agent | Fault::Kafka | Fault::Controller | Fault::Other, message } => {
            Fate::NoAnswer(message)
        }
    }
}

fn prefixed(agent: &AgentName, line: &[u8]) -> Bytes {
    let name = agent.as_str().as_bytes();
    let end: &[u8] = if line.ends_with(b"\n") { b"" } else { b"\n" };
    [name, b": ", line, end].concat().into()
}

async fn write(mut queue: mpsc::Receiver<Line>) -> io::Result<()> {
    let (mut stdout, mut stderr) = (Writer::stdout()?, Writer::stderr()?);
    while let Some(line) = queue.recv().await {
        match line.stderr {
            false => stdout.write(line.bytes).await?,
            true => stderr.write(line.bytes).await?,
        }
    }
    let (out, err) = tokio::join!(stdout.finish(), stderr.finish());
    out.and(err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_not_answer_wins_over_who_failed() {
        let agent: AgentName = "a".parse().expect("name");
        let code =
            |fates: &[Fate]| exit_code(&fates.iter().map(|fate| (agent.clone(), fate.clone())).collect::<Vec<_>>());
        let failed = || Fate::Failed(String::new());
        assert_eq!(code(&[Fate::Ok, Fate::Ok]), 0);
        assert_eq!(code(&[Fate::Ok, failed()]), 1);
        assert_eq!(code(&[Fate::NoAnswer(String::new()), failed()]), 3);
        assert_eq!(code(&[Fate::Offline, Fate::Ok]), 3);
    }

    #[test]
    fn a_line_without_an_end_gets_one_behind_the_name() {
        let agent: AgentName = "a".parse().expect("name");
        assert_eq!(&prefixed(&agent, b"x")[..], b"a: x\n");
        assert_eq!(&prefixed(&agent, b"x\n")[..], b"a: x\n");
    }
}
