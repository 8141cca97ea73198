//! One agent: its process's stdio is ours, its exit code becomes ours.

use std::{io, time::Duration};

use bytes::Bytes;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use super::{
    lines::Lines,
    report::{Event, Text, Verdict},
    stdio::{self, Writer},
};
use crate::{
    api::{
        Client, ExecEnd, ExecRequest,
        client::{ExecReceiver, ExecSender},
        frames::ToClient,
    },
    cli::{
        Failure, failure,
        output::{self, Format},
    },
    id::AgentName,
};

/// A second interrupt within this time means "now".
const IMPATIENT: Duration = Duration::from_secs(2);

/// Runs `request` with our stdio.
pub async fn run(client: &Client, request: &ExecRequest, format: Format) -> Result<Verdict, Failure> {
    // Before the connection: an interrupt while connecting must not be lost.
    let mut signals = Signals::listen()?;
    let (sender, receiver) = tokio::select! {
        opened = client.exec(request) => opened.map_err(Failure::from)?,
        signal = signals.next() => return Err(Failure::silent(128 + signal.number as u8)),
    };
    if request.stdin {
        tokio::spawn(feed(sender.clone(), stdio::stdin()?));
    }
    let output = Output::open(request.agent.clone(), format)?;
    let end = tokio::select! {
        end = pump(receiver, output) => end?,
        code = pass_on(&mut signals, &sender) => return Err(Failure::silent(code)),
    };
    Ok(told(&end, request.timeout()))
}

/// Follows an execution that somebody else began, with our stdio.
pub async fn follow(sender: ExecSender, receiver: ExecReceiver, mut signals: Signals) -> Result<ExecEnd, Failure> {
    tokio::spawn(feed(sender.clone(), stdio::stdin()?));
    let output = Output::Bare { stdout: Writer::stdout()?, stderr: Writer::stderr()? };
    tokio::select! {
        end = pump(receiver, output) => end,
        code = pass_on(&mut signals, &sender) => Err(Failure::silent(code)),
    }
}

/// Says what there is to say of an end.
pub fn told(end: &ExecEnd, timeout: Option<Duration>) -> Verdict {
    match end {
        ExecEnd::Exited { .. } | ExecEnd::Signalled { .. } => (),
        ExecEnd::TimedOut => {
            let after = timeout.map_or_else(String::new, |timeout| format!(" after {timeout:?}"));
            output::say(&format!("rk: timed out{after}; give it more with --timeout"));
        }
        ExecEnd::Refused { message, .. } | ExecEnd::NoAnswer { message, .. } => output::say(&format!("rk: {message}")),
    }
    Verdict::of(end)
}

/// Moves stdin to the process until either side has enough.
pub async fn feed(sender: ExecSender, mut stdin: tokio::sync::mpsc::Receiver<Bytes>) {
    while let Some(piece) = stdin.recv().await {
        if sender.stdin(piece).await.is_err() {
            return;
        }
    }
    // The process may have ended meanwhile; its exit comes through the receiver.
    let _ = sender.stdin_end().await;
}

/// Moves `bytes` to the process until it has them or enough.
pub async fn feed_bytes(sender: ExecSender, bytes: Bytes) {
    // The process may have ended meanwhile; its exit comes through the receiver.
    if sender.stdin(bytes).await.is_ok() {
        let _ = sender.stdin_end().await;
    }
}

/// Moves output to our streams until the end, and returns it when everything is written.
async fn pump(mut receiver: ExecReceiver, mut output: Output) -> Result<ExecEnd, Failure> {
    loop {
        let frame = receiver.next().await.map_err(|e| {
            let message = format!(
                "the connection to the controller broke ({e}); the command was told to hang up: look at `rk status`"
            );
            Failure::new(failure::UNREACHABLE, message)
        })?;
        match frame {
            Some(ToClient::Exit(end)) => {
                output.finish(&end).await?;
                return Ok(end);
            }
            Some(ToClient::Lost(why)) => {
                output::say(&format!("rk: the command cannot be reached ({why}); it waits for us, trying again"));
            }
            Some(ToClient::Resumed(_)) => output::say("rk: resumed, nothing is lost"),
            Some(frame) => output.take(frame).await?,
            None => return Err(Failure::new(failure::UNREACHABLE, "the controller ended without an exit code")),
        }
    }
}

/// Where output goes.
enum Output {
    /// As it is, to our own streams.
    Bare { stdout: Writer, stderr: Writer },
    /// As events on stdout, line by line.
    Events { agent: AgentName, to: Writer, stdout: Lines, stderr: Lines },
}

impl Output {
    fn open(agent: AgentName, format: Format) -> io::Result<Self> {
        Ok(match format {
            Format::Table => Self::Bare { stdout: Writer::stdout()?, stderr: Writer::stderr()? },
            Format::Json | Format::Jsonl | Format::Name => {
                Self::Events { agent, to: Writer::stdout()?, stdout: Lines::default(), stderr: Lines::default() }
            }
        })
    }

    async fn take(&mut self, frame: ToClient) -> io::Result<()> {
        match (self, frame) {
            (Self::Bare { stdout, .. }, ToClient::Stdout(bytes)) => stdout.write(bytes).await,
            (Self::Bare { stderr, .. }, ToClient::Stderr(bytes)) => stderr.write(bytes).await,
            (Self::Events { agent, to, .. }, ToClient::Started(pid)) => {
                to.write(Event::Started { agent, pid }.line().into()).await
            }
            (Self::Events { agent, to, stdout, .. }, ToClient::Stdout(bytes)) => {
                stdout.push(&bytes);
                while let Some(line) = stdout.next() {
                    to.write(Event::Stdout(Text::new(agent, &line)).line().into()).await?;
                }
                Ok(())
            }
            (Self::Events { agent, to, stderr, .. }, ToClient::Stderr(bytes)) => {
                stderr.push(&bytes);
                while let Some(line) = stderr.next() {
                    to.write(Event::Stderr(Text::new(agent, &line)).line().into()).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn finish(self, end: &ExecEnd) -> io::Result<()> {
        match self {
            Self::Bare { stdout, stderr } => {
                let (stdout, stderr) = tokio::join!(stdout.finish(), stderr.finish());
                stdout.and(stderr)
            }
            Self::Events { agent, mut to, mut stdout, mut stderr } => {
                if let Some(line) = stdout.rest() {
                    to.write(Event::Stdout(Text::new(&agent, &line)).line().into()).await?;
                }
                if let Some(line) = stderr.rest() {
                    to.write(Event::Stderr(Text::new(&agent, &line)).line().into()).await?;
                }
                to.write(Event::End { agent: &agent, end }.line().into()).await?;
                to.finish().await
            }
        }
    }
}

/// A signal that somebody sent to us.
#[derive(Debug, Clone, Copy)]
pub struct Caught {
    /// Its number.
    pub number: i32,
}

/// The signals that are passed on.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
}

impl Signals {
    /// From now on these signals do not end this process.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Caught {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.quit.recv() => SignalKind::quit(),
        };
        Caught { number: kind.as_raw_value() }
    }
}

/// Does `work` until a signal says that the user wants out.
pub async fn interruptible<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        done = work => done,
        signal = signals.next() => Err(Failure::silent(128 + signal.number as u8)),
    }
}

/// Tells a user who wants out at once from one who wants the command to end.
#[derive(Debug, Default)]
pub struct Patience {
    last: Option<(i32, Instant)>,
}

impl Patience {
    /// The exit code, if this signal means that we go now: a hang-up, or the same signal twice.
    pub fn ends(&mut self, caught: Caught, now: Instant) -> Option<u8> {
        let twice = self.last.is_some_and(|(number, at)| number == caught.number && now - at < IMPATIENT);
        self.last = Some((caught.number, now));
        let gone = caught.number == SignalKind::hangup().as_raw_value();
        (gone || twice).then_some(128 + caught.number as u8)
    }
}

/// Passes signals on to the process; returns our exit code when the user wants out at once.
pub async fn pass_on(signals: &mut Signals, sender: &ExecSender) -> u8 {
    let mut patience = Patience::default();
    loop {
        let caught = signals.next().await;
        if let Some(code) = patience.ends(caught, Instant::now()) {
            // Closing the connection hangs the process up.
            return code;
        }
        // If it has ended meanwhile, its exit is on the way.
        let _ = sender.signal(caught.number).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_interrupt_within_two_seconds_ends_us() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let interrupt = Caught { number: 2 };
        let mut patience = Patience::default();
        assert_eq!(patience.ends(interrupt, at(0)), None);
        assert_eq!(patience.ends(interrupt, at(3000)), None);
        assert_eq!(patience.ends(Caught { number: 15 }, at(3100)), None);
        assert_eq!(patience.ends(interrupt, at(3200)), None);
        assert_eq!(patience.ends(interrupt, at(5100)), Some(130));
        assert_eq!(Patience::default().ends(Caught { number: 1 }, at(0)), Some(129));
    }
}
