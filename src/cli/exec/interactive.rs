//! One agent, a terminal there and ours here: every key goes there, and what comes is shown as it is.
//!
//! Three things go on side by side, so that none waits for another: keys are looked through for our own even while nothing can be sent,
//! output is shown, and the size is followed. However this ends, our terminal is as it was.

use std::{convert::Infallible, future::pending, io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc},
    time::{Instant, sleep, timeout},
};

use super::{
    escape::{Escape, Wish},
    modes::Modes,
    report::Verdict,
    single::{self, Signals},
    stdio::{self, Writer},
    terminal::{self, Kept, Raw},
};
use crate::{
    api::{
        Client, ExecEnd, ExecRequest,
        client::{ExecReceiver, ExecSender},
        exec::ExecAttached,
        frames::ToClient,
    },
    cli::{Failure, failure, output},
};

/// What is typed while nothing can be sent waits up to this size; beyond it nothing is read any more.
const TYPED: usize = 1 << 20;

/// How long last words, the last keys and the last output may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long we try to come to an agent that cannot be reached: one that is started anew is there soon.
const COMING: Duration = Duration::from_secs(10);

/// How long between two tries.
const AGAIN: Duration = Duration::from_millis(300);

/// How a user wants it.
pub struct Manner {
    /// The keys for us.
    pub escape: Escape,
    /// Say nothing that nobody needs.
    pub quiet: bool,
}

/// What is shown and typed at.
struct Session {
    kept: Kept,
    patience: Duration,
    sender: ExecSender,
    receiver: ExecReceiver,
    signals: Signals,
    /// Whether what we type goes there.
    keys: bool,
}

/// Why it is over.
enum Over {
    /// The command ended, or nobody can reach it.
    Ended(Result<ExecEnd, Failure>),
    /// The user wants something.
    Wished(Wish),
    /// A signal says that we go, with this code.
    Told(u8),
}

/// Runs `request`, which has a terminal, and is there until it ends.
pub async fn start(client: &Client, request: &ExecRequest, manner: Manner) -> Result<Verdict, Failure> {
    let Some(resume) = request.resume else {
        return Err(Failure::usage("a terminal is kept while the way to it is gone; give --resume more than 0s"));
    };
    let mut signals = Signals::listen()?;
    let (sender, mut receiver) = tokio::select! {
        opened = client.exec(request) => opened.map_err(Failure::from)?,
        caught = signals.next() => return Err(Failure::silent(128 + caught.number as u8)),
    };
    let first = tokio::select! {
        first = receiver.next() => first.map_err(broken)?,
        caught = signals.next() => {
            let _ = timeout(FAREWELL, receiver.close()).await;
            return Err(Failure::silent(128 + caught.number as u8));
        }
    };
    match first {
        Some(ToClient::Started(_)) => {}
        Some(ToClient::Exit(end)) => return Ok(single::told(&end, request.timeout())),
        // It may have started: a resumption tells.
        _ => return Err(unreachable("the controller did not say that the command runs")),
    }
    let kept = Kept { agent: request.agent.clone(), id: resume.id };
    let patience = Duration::from_millis(resume.patience_ms);
    let session = Session { kept, patience, sender, receiver, signals, keys: request.stdin };
    let end = session.run(manner, Notify::new()).await?;
    end.map_or_else(Ok, |end| Ok(single::told(&end, request.timeout())))
}

/// Comes back to what is kept, and is there until it ends.
pub async fn attach(client: &Client, kept: Kept, manner: Manner) -> Result<Verdict, Failure> {
    let mut signals = Signals::listen()?;
    let coming = async {
        let until = Instant::now() + COMING;
        loop {
            let (sender, mut receiver) = client.attach(kept.agent.clone(), kept.id).await.map_err(Failure::from)?;
            match receiver.next().await.map_err(broken)? {
                Some(ToClient::Attached(attached)) => return Ok(Ok((sender, receiver, attached))),
                Some(ToClient::Exit(end)) => return Ok(Err(end)),
                Some(ToClient::Lost(_)) if Instant::now() < until => sleep(AGAIN).await,
                Some(ToClient::Lost(why)) => return Err(unreachable(&why)),
                _ => return Err(unreachable("the controller broke the rk-exec protocol")),
            }
        }
    };
    let came = tokio::select! {
        came = coming => came?,
        caught = signals.next() => return Err(Failure::silent(128 + caught.number as u8)),
    };
    let (sender, receiver, attached) = match came {
        Ok(came) => came,
        Err(end) => return Ok(single::told(&end, None)),
    };
    let ExecAttached { patience_ms, terminal, .. } = attached;
    if !terminal {
        // Its stdio are pipes, and so are we.
        let end = single::follow(sender, receiver, signals).await?;
        return Ok(single::told(&end, None));
    }
    let patience = Duration::from_millis(patience_ms);
    let session = Session { kept, patience, sender, receiver, signals, keys: true };
    // Whoever runs there is told a size, and shows everything again.
    let shown = Notify::new();
    shown.notify_one();
    let end = session.run(manner, shown).await?;
    end.map_or_else(Ok, |end| Ok(single::told(&end, None)))
}

impl Session {
    /// To the end of the command, or to what we say instead.
    async fn run(mut self, manner: Manner, shown: Notify) -> Result<Result<ExecEnd, Verdict>, Failure> {
        let Manner { escape, quiet } = manner;
        let waits = humantime::format_duration(Duration::from_secs(self.patience.as_secs().max(1)));
        let back = format!("rk exec --attach {}", self.kept);
        if let Some(key) = escape.name().filter(|_| !quiet && self.keys) {
            output::say(&format!("rk: {key}. ends this, {key}d leaves it; for {waits} there is a way back: {back}"));
        }
        let raw = if self.keys { Some(Raw::enter()?) } else { None };
        let (mut screen, mut modes) = (Writer::stdout()?, Modes::default());
        let over = {
            let Self { sender, receiver, signals, keys, .. } = &mut self;
            let keys = async {
                match *keys {
                    true => read(stdio::stdin()?, sender, escape).await,
                    false => pending().await,
                }
            };
            tokio::select! {
                end = show(receiver, &mut screen, &mut modes, &shown) => Over::Ended(end),
                wish = keys => Over::Wished(wish?),
                code = single::pass_on(signals, sender) => Over::Told(code),
                never = follow(sender, raw.as_ref(), &shown) => match never? {},
            }
        };
        match over {
            // All of it, unless somebody does not want to wait for a slow terminal.
            Over::Ended(Ok(ExecEnd::Exited { .. })) => tokio::select! {
                shown = screen.finish() => shown?,
                caught = self.signals.next() => return Err(Failure::silent(128 + caught.number as u8)),
            },
            _ => {
                let last = async {
                    screen.write(modes.undo().into()).await?;
                    screen.finish().await
                };
                let _ = timeout(FAREWELL, last).await;
            }
        }
        let Self { sender, mut receiver, .. } = self;
        match over {
            Over::Ended(end) => {
                drop(raw);
                end.map(Ok)
            }
            Over::Wished(Wish::Detach) => {
                let last = async {
                    sender.detach().await.ok();
                    receiver.drain().await;
                };
                let said = timeout(FAREWELL, last).await.is_ok();
                drop(raw);
                let how = if said { "left" } else { "out of reach" };
                output::say(&format!("\nrk: {how}, and kept for {waits}; {back} comes back"));
                Ok(Err(Verdict::ours(0)))
            }
            Over::Wished(_) => {
                drop(raw);
                let said = timeout(FAREWELL, receiver.close()).await.is_ok();
                let unsaid = if said { "" } else { " in a while, as nobody can be reached" };
                output::say(&format!("\nrk: the command was told to hang up{unsaid}"));
                Err(Failure::silent(130))
            }
            Over::Told(code) => {
                drop(raw);
                let _ = timeout(FAREWELL, receiver.close()).await;
                Err(Failure::silent(code))
            }
        }
    }
}

/// Shows what comes, to the end of the command.
async fn show(
    receiver: &mut ExecReceiver,
    screen: &mut Writer,
    modes: &mut Modes,
    shown: &Notify,
) -> Result<ExecEnd, Failure> {
    loop {
        match receiver.next().await.map_err(broken)? {
            Some(ToClient::Stdout(bytes) | ToClient::Stderr(bytes)) => {
                modes.note(&bytes);
                screen.write(bytes).await?;
            }
            Some(ToClient::Exit(end)) => return Ok(end),
            Some(ToClient::Lost(why)) => {
                say(&format!("rk: the command cannot be reached ({why}); it waits for us, trying again"));
            }
            Some(ToClient::Resumed(_)) => {
                say("rk: resumed, nothing is lost");
                // It may have changed meanwhile, and what we said stands across it.
                shown.notify_one();
            }
            Some(_) => {}
            None => return Err(unreachable("the controller ended without an exit code")),
        }
    }
}

/// Reads what is typed, and returns what was wished when all before it is on its way.
async fn read(mut typed: mpsc::Receiver<Bytes>, sender: &ExecSender, mut escape: Escape) -> io::Result<Wish> {
    let (feed, mut fed) = mpsc::channel::<Bytes>(1);
    let to = sender.clone();
    let feeder = tokio::spawn(async move {
        while let Some(bytes) = fed.recv().await {
            if to.stdin(bytes).await.is_err() {
                return;
            }
        }
    });
    let (mut waiting, mut out) = (BytesMut::new(), Vec::new());
    let wish = 'wish: loop {
        let piece = tokio::select! {
            biased;
            Ok(permit) = feed.reserve(), if !waiting.is_empty() => {
                permit.send(waiting.split().freeze());
                continue;
            }
            piece = typed.recv(), if waiting.len() < TYPED => piece,
            else => pending().await,
        };
        // A terminal has no end but that it is gone.
        let Some(piece) = piece else { break Wish::Leave };
        let mut rest = &piece[..];
        loop {
            let found = escape.take(rest, &mut out);
            waiting.extend_from_slice(&out);
            out.clear();
            match found {
                None => break,
                Some((Wish::Help, used)) => {
                    help(&escape);
                    rest = &rest[used..];
                }
                Some((wish, _)) => break 'wish wish,
            }
        }
    };
    if wish == Wish::Detach {
        let last = async {
            if !waiting.is_empty() {
                feed.send(waiting.freeze()).await.ok();
            }
            drop(feed);
            feeder.await.ok();
        };
        let _ = timeout(FAREWELL, last).await;
    }
    Ok(wish)
}

fn help(escape: &Escape) {
    let key = escape.name().unwrap_or_default();
    say(&format!(
        "rk: at the beginning of a line: {key}. ends the command and goes, {key}d goes and leaves it running,"
    ));
    say(&format!("rk: {key}{key} types {key}, {key}? shows this"));
}

/// Follows the size of our terminal, and keeps it raw when it comes back to us.
async fn follow(sender: &ExecSender, raw: Option<&Raw>, shown: &Notify) -> io::Result<Infallible> {
    let mut changed = signal(SignalKind::window_change())?;
    let mut continued = signal(SignalKind::from_raw(nix::libc::SIGCONT))?;
    loop {
        tokio::select! {
            () = next(&mut changed) => {}
            () = next(&mut continued) => if let Some(raw) = raw {
                raw.again()?;
            },
            () = shown.notified() => {}
        }
        let (columns, rows) = terminal::size();
        if sender.size(columns, rows).await.is_err() {
            return pending().await;
        }
    }
}

async fn next(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        pending().await
    }
}

/// Says something on a terminal that is raw.
fn say(text: &str) {
    output::say(&format!("\r{text}\r"));
}

fn broken(error: crate::api::frames::FramesError) -> Failure {
    unreachable(&error.to_string())
}

fn unreachable(why: &str) -> Failure {
    let message = format!("the command cannot be reached ({why}); `rk status` and `rk agents ls` tell more");
    Failure::new(failure::UNREACHABLE, message)
}
