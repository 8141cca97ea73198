//! One execution: a control stream and two bulk streams of the agent's session.
//!
//! The bytes go straight between the streams and whoever holds the [`Execution`]: nothing is buffered here, so that a
//! slow reader slows the process, and nothing else. Dropping [`Control`] before the end gives the process up: the control stream is
//! reset, and the agent sends SIGHUP and after the grace period SIGKILL.

use std::{sync::Arc, time::Duration};

use futures_util::try_join;
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    attend::{Answers, Wishes, attend},
    peer::{BoxReader, Peer, Sending},
    stdio::{Stdin, metered},
};
use crate::{
    api::{self, ExecEnd, ExecRequest, Fault, RefusalKind, exec::ExecResume},
    bundle::Ticket,
    frame::{self, FrameError},
    id::{AgentName, ExecId},
    link::{Lane, LinkError},
    protocol::{
        Open,
        allowance::Budget,
        exec::{
            Attached, Channel, Event, Outcome, Refusal, Resume, Size, Start, StartResumable, Stdio, Steer, Terminal,
        },
    },
};

/// How long an agent that fetches what a process needs may say nothing: an outage of Kafka ends neither the session nor that.
const PREPARING_PATIENCE: Duration = Duration::from_secs(300);

/// A process that runs on an agent.
pub struct Execution {
    /// Its process id on the agent.
    pub pid: u32,
    /// Its stdin. The shutdown is the end; dropped without it, the process is not made to believe that it came.
    pub stdin: Stdin,
    /// Its stdout. To be read, or dropped, while the end is waited for: a process whose output nobody reads is blocked.
    pub stdout: BoxReader,
    /// Its stderr.
    pub stderr: BoxReader,
    /// What else there is to do with it.
    pub control: Control,
    /// Where stdin goes on, if it was resumed; the largest number if the process takes no more.
    pub stdin_at: u64,
    /// Where a new user goes on.
    pub attached: Option<Attached>,
}

/// Steers a process and waits for its end. When it is dropped before the end, the process is given up.
pub struct Control {
    steers: mpsc::Sender<Steer>,
    taken: watch::Receiver<u64>,
    end: oneshot::Receiver<ExecEnd>,
    ended: Option<ExecEnd>,
    /// Dropped with this: how the task learns that nobody waits any more.
    _interest: oneshot::Sender<()>,
    _running: Running,
}

/// Sends signals to a process group.
#[derive(Clone)]
pub struct Signals(mpsc::Sender<Steer>);

/// Counts executions: one more as long as it lives.
pub struct Running(watch::Sender<u32>);

/// What an execution needs to know of its surroundings.
pub struct Surroundings {
    /// How long the start may take.
    pub patience: Duration,
    /// Whose fault it is if there is no answer now.
    pub blame: Arc<dyn Fn() -> Fault + Send + Sync>,
    /// Turns true when the controller gives up all executions.
    pub abandon: watch::Receiver<bool>,
    /// What the windows of outputs grow by.
    pub budget: Budget,
}

impl Running {
    /// One more.
    pub fn new(count: &watch::Sender<u32>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

impl Signals {
    /// Sends the process group a signal; nothing happens if the process has ended.
    pub async fn send(&self, signal: i32) {
        self.steer(Steer::Signal(signal)).await;
    }

    /// Waits until nothing can be said to it any more: it has ended, or its agent serves it here no longer.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }

    /// Says anything else of what steers an execution.
    pub(super) async fn steer(&self, steer: Steer) {
        let _ = self.0.send(steer).await;
    }
}

impl Control {
    /// For signals; it may be cloned.
    pub fn signals(&self) -> Signals {
        Signals(self.steers.clone())
    }

    /// How much of stdin need not be sent again, of a resumable execution.
    pub(super) fn taken(&self) -> watch::Receiver<u64> {
        self.taken.clone()
    }

    /// Waits for the end. Cancel-safe, and may be called again.
    pub async fn end(&mut self) -> ExecEnd {
        if let Some(end) = &self.ended {
            return end.clone();
        }
        let end = (&mut self.end).await.unwrap_or_else(|_| no_answer(Fault::Controller, "the controller stopped"));
        self.ended.insert(end).clone()
    }
}

/// Why there is no execution.
pub(super) enum Failure {
    Link(LinkError),
    Frame(FrameError),
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// The streams of an execution that was answered.
struct Streams {
    control: (Sending, BoxReader),
    event: Event,
    stdin: Sending,
    stdout: BoxReader,
    stderr: BoxReader,
}

/// Starts a process. Ends within `patience`.
pub async fn start(
    peer: Arc<dyn Peer>,
    (request, bundles): (ExecRequest, Vec<Ticket>),
    surroundings: Surroundings,
    running: Running,
) -> Result<Execution, ExecEnd> {
    check(&request)?;
    let resumable = request.resume.is_some();
    let id = request.resume.map_or_else(ExecId::random, |resume| resume.id);
    let with_stdin = request.stdin;
    let patience = request.resume.map(|resume| Duration::from_millis(resume.patience_ms));
    let start = message(id, request, bundles);
    let open = match patience {
        Some(patience) => Open::ExecResumable(StartResumable { start, patience }),
        None => Open::Exec(start),
    };
    run(peer, id, with_stdin, resumable, open, surroundings, running).await
}

/// Comes back to a process. Ends within `patience`.
pub async fn resume(
    peer: Arc<dyn Peer>,
    request: ExecResume,
    surroundings: Surroundings,
    running: Running,
) -> Result<Execution, ExecEnd> {
    let ExecResume { id, stdin, stdout, stderr, user, .. } = request;
    let open = Open::ExecResume(Resume { id, stdout, stderr, user });
    run(peer, id, stdin, true, open, surroundings, running).await
}

async fn run(
    peer: Arc<dyn Peer>,
    id: ExecId,
    with_stdin: bool,
    resumable: bool,
    message: Open,
    surroundings: Surroundings,
    running: Running,
) -> Result<Execution, ExecEnd> {
    let patience = surroundings.patience;
    let agent = peer.name().clone();
    let streams = match patiently(patience, &peer, id, with_stdin, message).await {
        Some(Ok(streams)) => streams?,
        Some(Err(failure)) => return Err(broken(&peer, &surroundings, failure).await),
        None => {
            let fault = (surroundings.blame)();
            return Err(unanswered(fault, &agent, &format!("agent {agent} did not answer within {patience:?}")));
        }
    };
    let Streams { control, event, stdin, stdout, stderr } = streams;
    let (pid, stdin_at, attached) = match event {
        Event::Started { pid } => (pid, 0, None),
        Event::Resumed { pid, stdin } => (pid, stdin, None),
        Event::Attached(attached) => (attached.pid, attached.stdin, Some(attached)),
        Event::Refused(refusal) => return Err(refused(refusal)),
        Event::Exited(_) | Event::Allow { .. } | Event::Taken { .. } | Event::Preparing { .. } => {
            return Err(no_answer(Fault::Agent, format!("agent {agent} broke the exec protocol")));
        }
    };
    let (steers, steers_in) = mpsc::channel(16);
    let (taken_out, taken) = watch::channel(0);
    let (end_out, end) = oneshot::channel();
    let (interest, interest_in) = oneshot::channel();
    let (stdin, allow) = Stdin::new(stdin);
    let (stdout, stdout_limit) = metered(stdout, &surroundings.budget);
    let (stderr, stderr_limit) = metered(stderr, &surroundings.budget);
    let wishes =
        Wishes { steers: steers_in, stdout: stdout_limit, stderr: stderr_limit, interest: interest_in, resumable };
    let answers = Answers { stdin: allow, taken: taken_out, end: end_out };
    tokio::spawn(attend(peer, surroundings, control, wishes, answers));
    let control = Control { steers, taken, end, ended: None, _interest: interest, _running: running };
    Ok(Execution { pid, stdin, stdout, stderr, control, stdin_at, attached })
}

/// Opens the streams within `patience`; longer as long as the agent says that it prepares.
async fn patiently(
    patience: Duration,
    peer: &Arc<dyn Peer>,
    id: ExecId,
    with_stdin: bool,
    message: Open,
) -> Option<Result<Result<Streams, ExecEnd>, Failure>> {
    let (heard, mut hearing) = watch::channel(());
    let opened = open(peer, id, with_stdin, message, &heard);
    let limit = sleep(patience);
    tokio::pin!(opened, limit);
    loop {
        tokio::select! {
            biased;
            opened = &mut opened => return Some(opened),
            Ok(()) = hearing.changed() => limit.as_mut().reset(Instant::now() + PREPARING_PATIENCE.max(patience)),
            () = &mut limit => return None,
        }
    }
}

/// Opens the three streams at once and waits for the first event. A refusal needs no stdio, and is not held up by it.
async fn open(
    peer: &Arc<dyn Peer>,
    id: ExecId,
    with_stdin: bool,
    message: Open,
    heard: &watch::Sender<()>,
) -> Result<Result<Streams, ExecEnd>, Failure> {
    let stream = async |lane, open: Open| {
        let (mut send, recv) = peer.open(lane).await?;
        frame::write(&mut send, &open).await?;
        Ok::<_, Failure>((send, recv))
    };
    let started = async {
        let (send, mut recv) = stream(Lane::Control, message).await?;
        let event = loop {
            match frame::read::<Event>(&mut recv).await? {
                Event::Preparing { .. } => heard.send_replace(()),
                event => break event,
            }
        };
        Ok::<_, Failure>(((send, recv), event))
    };
    let inout = async {
        let (mut send, recv) = stream(Lane::Bulk, Open::Stdio(Stdio { id, channel: Channel::InOut })).await?;
        if !with_stdin {
            send.shutdown().await.map_err(FrameError::from)?;
        }
        Ok::<_, Failure>((send, recv))
    };
    let err = async {
        let (mut send, recv) = stream(Lane::Bulk, Open::Stdio(Stdio { id, channel: Channel::Err })).await?;
        send.shutdown().await.map_err(FrameError::from)?;
        Ok::<_, Failure>(recv)
    };
    let stdio = async { try_join!(inout, err) };
    tokio::pin!(started, stdio);
    let ((control, event), ((stdin, stdout), stderr)) = tokio::select! {
        biased;
        first = &mut started => match first? {
            (_, Event::Refused(refusal)) => return Ok(Err(refused(refusal))),
            first => (first, stdio.await?),
        },
        stdio = &mut stdio => {
            let stdio = stdio?;
            (started.await?, stdio)
        }
    };
    Ok(Ok(Streams { control, event, stdin, stdout, stderr }))
}

/// What cannot run anywhere is refused before an agent is asked.
fn check(request: &ExecRequest) -> Result<(), ExecEnd> {
    let refuse = |message: &str| {
        Err(ExecEnd::Refused { reason: RefusalKind::Invalid, message: format!("{message}; `rk exec NAME -- COMMAND`") })
    };
    if request.argv.first().is_none_or(String::is_empty) {
        return refuse("no program to run");
    }
    let env = request.env.iter().flat_map(|(key, value)| [key, value]);
    if request.argv.iter().chain(env).chain(&request.cwd).any(|text| text.contains('\0')) {
        return refuse("arguments, environment and directory must not contain a zero byte");
    }
    if request.env.keys().any(|key| key.is_empty() || key.contains('=')) {
        return refuse("names of environment variables are not empty and contain no '='");
    }
    if request.terminal.is_some() && request.resume.is_none() {
        return refuse("a terminal needs an execution that may be resumed");
    }
    Ok(())
}

fn message(id: ExecId, request: ExecRequest, bundles: Vec<Ticket>) -> Start {
    Start {
        id,
        timeout: request.timeout(),
        grace: request.grace(),
        argv: request.argv,
        env: request.env.into_iter().collect(),
        cwd: request.cwd,
        stdin: request.stdin,
        terminal: request.terminal.map(|api::exec::Terminal { kind, columns, rows }| {
            let size = Size { columns, rows };
            Terminal { kind, size }
        }),
        bundles,
    }
}

pub(super) fn exited(outcome: Outcome) -> ExecEnd {
    match outcome {
        Outcome::Code(code) => ExecEnd::Exited { code },
        Outcome::Signal(signal) => ExecEnd::Signalled { signal },
        Outcome::TimedOut => ExecEnd::TimedOut,
    }
}

pub(super) fn refused(refusal: Refusal) -> ExecEnd {
    let (reason, message) = match refusal {
        Refusal::NotFound(message) => (RefusalKind::NotFound, message),
        Refusal::Denied(message) => (RefusalKind::Forbidden, message),
        Refusal::NotExecutable(message) => (RefusalKind::NotExecutable, message),
        Refusal::Draining => {
            (RefusalKind::Draining, "the agent drains and takes no new work; try again later".to_owned())
        }
        Refusal::Failed(message) => (RefusalKind::AgentFailed, message),
        Refusal::Gone(message) => (RefusalKind::Gone, message),
    };
    ExecEnd::Refused { reason, message }
}

pub(super) fn no_answer(fault: Fault, message: impl Into<String>) -> ExecEnd {
    ExecEnd::NoAnswer { fault, message: message.into() }
}

/// [`no_answer`] that names what to look at first.
fn unanswered(fault: Fault, name: &AgentName, message: &str) -> ExecEnd {
    match fault {
        Fault::Kafka => {
            no_answer(fault, format!("{message}; Kafka is unreachable for the controller, see `rk status`"))
        }
        _ => no_answer(fault, format!("{message}; `rk agents show {name}` tells how it is")),
    }
}

/// A stream broke: says whose fault that is. If the session ended, its reason is the better one.
pub(super) async fn broken(peer: &Arc<dyn Peer>, surroundings: &Surroundings, failure: Failure) -> ExecEnd {
    let name = peer.name();
    // Streams break a moment before or after the session's end is known.
    if let Ok(reason) = timeout(Duration::from_millis(200), peer.closed()).await {
        return unanswered((surroundings.blame)(), name, &format!("the session with agent {name} ended ({reason})"));
    }
    let detail = match failure {
        Failure::Link(error) => error.to_string(),
        Failure::Frame(error) => error.to_string(),
    };
    unanswered((surroundings.blame)(), name, &format!("agent {name} gave it up: {detail}"))
}
