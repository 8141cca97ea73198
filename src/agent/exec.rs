//! One execution: a process group whose stdio runs on two streams and whose life is tied to a third.
//!
//! It ends in one of two ways. Either the process exits (also because its time was up or the agent stops): then what is
//! left of its output is handed over and `Exited` follows. Or whoever wanted it is gone: then the group gets SIGHUP,
//! after its grace SIGKILL, and nobody is told.

use std::{
    convert::Infallible,
    future::pending,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use futures_util::future::BoxFuture;
use nix::sys::signal::Signal;
use tokio::{
    process::{Child, ChildStdin, Command},
    sync::{OwnedSemaphorePermit, watch},
    task::{JoinError, JoinHandle},
};

use super::{
    bundles::{self, Ready},
    environment::refuse,
    events::Events,
    executor::{Phase, Shared},
    group::Group,
    meeting::Meeting,
    orders::Orders,
    pump::{self, Pumped},
    stream::{Duplex, RecvHalf, SendHalf},
};
use crate::{
    id::ExecId,
    protocol::{
        CANCELLED,
        allowance::{INITIAL, Window},
        exec::{Channel, Event, Outcome, Refusal, Start},
    },
};

/// How long the two stdio streams may take after the start.
pub(super) const STDIO_PATIENCE: Duration = Duration::from_secs(10);

/// How long killed processes may take to go; a process that the kernel does not let go takes longer.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Why an execution ended before its process did.
enum Cut {
    /// The control or a stdio stream is gone.
    Left,
    /// The timeout passed.
    TimedOut,
    /// The agent stops.
    AgentStops,
}

/// The two directions of the control stream.
struct Control {
    events: Events,
    orders: Orders,
}

/// Serves one execution on its control stream to the end.
pub(super) async fn serve(shared: &Shared, start: Start, send: Box<dyn SendHalf>, recv: Box<dyn RecvHalf>) {
    let mut control = Control { events: Events::new(send), orders: Orders::new(recv) };
    let (event, output) = match begin(shared, &start, &mut control).await {
        Ok(Some(running)) => match running.run(shared, &start, &mut control).await {
            Some((outcome, output)) => (Event::Exited(outcome), Some(output)),
            None => return control.events.reset(CANCELLED),
        },
        Ok(None) => return control.events.reset(CANCELLED),
        Err(refusal) => {
            for mut stream in shared.meeting.turn_away(start.id) {
                stream.send.reset(CANCELLED);
            }
            (Event::Refused(refusal), None)
        }
    };
    tracing::debug!(id = %start.id, "{event:?}");
    if control.events.say(&event).await.is_err() || control.events.finish().await.is_err() {
        return;
    }
    if let Some((out, err)) = output {
        out.await;
        err.await;
    }
}

/// A process with its pumps.
struct Running {
    child: Child,
    /// How it ended, once it has.
    status: Option<ExitStatus>,
    group: Group,
    exited: watch::Sender<bool>,
    stdin: Task<(Pumped, Option<ChildStdin>)>,
    /// How far the controller may send it.
    stdin_allowed: watch::Receiver<u64>,
    /// The pipe of a lost stdin, kept open: the process must not take what it has for all.
    held: Option<ChildStdin>,
    output: Task<(Pumped, Delivery)>,
    /// Set when the output was handed over.
    delivery: Option<Delivery>,
    /// What it uses stays.
    _bundles: Ready,
    _slot: OwnedSemaphorePermit,
}

/// A task that ends with its owner.
struct Task<T>(JoinHandle<T>);

/// End when stdout's and stderr's readers have everything.
type Delivery = (BoxFuture<'static, ()>, BoxFuture<'static, ()>);

/// Waits for the streams and starts the process; `None` if whoever wanted it is gone.
async fn begin(shared: &Shared, start: &Start, control: &mut Control) -> Result<Option<Running>, Refusal> {
    let Control { events, orders } = control;
    if start.argv.is_empty() {
        return Err(Refusal::Failed("the command is empty".to_owned()));
    }
    if start.terminal.is_some() {
        return Err(Refusal::Failed(
            "a terminal needs an execution that may be resumed; leave --resume 0s out".to_owned(),
        ));
    }
    shared.check(start)?;
    let slot = shared.slot()?;
    let streams = tokio::select! {
        biased;
        () = orders.left() => return Ok(None),
        streams = tokio::time::timeout(STDIO_PATIENCE, streams(&shared.meeting, start.id)) => streams,
    };
    let late = |_| Refusal::Failed(format!("its stdio streams did not come within {STDIO_PATIENCE:?}"));
    let (in_out, err) = streams.map_err(late)??;
    let bundles = tokio::select! {
        biased;
        () = orders.left() => return Ok(None),
        ready = bundles::prepare(shared.bundles.as_ref(), &start.bundles, events) => match ready? {
            Ok(bundles) => bundles,
            Err(_) => return Ok(None),
        },
    };
    let child = spawn(shared, start, &bundles)?;
    Ok(Some(Running::new(shared, start, (child, bundles), slot, orders, in_out, err)))
}

pub(super) async fn streams(meeting: &Meeting, id: ExecId) -> Result<(Duplex, Duplex), Refusal> {
    let place = |channel| {
        let taken = || Refusal::Failed("an execution with this id waits already, or too many wait".to_owned());
        meeting.expect(id, channel).ok_or_else(taken)
    };
    let (mut in_out, mut err) = (place(Channel::InOut)?, place(Channel::Err)?);
    Ok((in_out.stream().await, err.stream().await))
}

fn spawn(shared: &Shared, start: &Start, bundles: &Ready) -> Result<Child, Refusal> {
    let program = &start.argv[0];
    let cwd = match &start.cwd {
        Some(cwd) => shared.work_dir.join(cwd),
        None => shared.work_dir.clone(),
    };
    check_directory(&cwd)?;
    let mut environment = shared.environment.with(&start.env)?;
    bundles.describe(&mut environment, shared.policy.bundles_first());
    // Looked up here and not by the child: the reason is exact, and the quick way to spawn is open.
    let (file, argv) = shared.executable(start, &environment, &cwd, bundles)?;
    let mut command = Command::new(file);
    command.arg0(&argv[0]).args(&argv[1..]).env_clear().envs(environment.iter()).current_dir(cwd);
    command.process_group(0).kill_on_drop(true);
    shared.groups.expect();
    let spawned = match &shared.run_as {
        Some(user) => user.spawn(command, start.stdin),
        None => {
            let stdin = if start.stdin { Stdio::piped() } else { Stdio::null() };
            command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        }
    };
    spawned.map_err(|error| refuse(program, error))
}

pub(super) fn check_directory(cwd: &Path) -> Result<(), Refusal> {
    match std::fs::metadata(cwd) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Refusal::NotFound(format!("{}: not a directory", cwd.display()))),
        Err(error) => Err(refuse(&cwd.display().to_string(), error)),
    }
}

impl Running {
    fn new(
        shared: &Shared,
        start: &Start,
        (mut child, _bundles): (Child, Ready),
        _slot: OwnedSemaphorePermit,
        orders: &Orders,
        in_out: Duplex,
        err: Duplex,
    ) -> Self {
        let leader = child.id().expect("it was not waited for yet");
        let group = shared.groups.enter(leader, start.grace);
        let (exited, watching) = watch::channel(false);
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let stdin = child.stdin.take();
        pump::widen(&stdout);
        if let Some(pipe) = &stdin {
            pump::widen(pipe);
        }
        let Duplex { send: mut out, recv } = in_out;
        let mut err = err.send;
        let (allow, stdin_allowed) = watch::channel(INITIAL);
        let window = Window::new(&shared.budget);
        let stdin = Task::spawn(async move {
            match stdin {
                Some(pipe) => pump::input(recv, pipe, window, allow).await,
                None => (Pumped::Done, None),
            }
        });
        let (out_allowed, err_allowed) = (orders.allowed(Channel::InOut), orders.allowed(Channel::Err));
        let output = Task::spawn(async move {
            let both = tokio::join!(
                pump::output(stdout, &mut out, out_allowed, watching.clone()),
                pump::output(stderr, &mut err, err_allowed, watching)
            );
            let pumped = match both {
                (Pumped::Done, Pumped::Done) => Pumped::Done,
                (Pumped::Lost(error), _) | (_, Pumped::Lost(error)) => Pumped::Lost(error),
            };
            (pumped, (out.delivered(), err.delivered()))
        });
        Self {
            child,
            status: None,
            group,
            exited,
            stdin,
            stdin_allowed,
            held: None,
            output,
            delivery: None,
            _bundles,
            _slot,
        }
    }

    /// To the end; `None` if whoever wanted it is gone.
    async fn run(mut self, shared: &Shared, start: &Start, control: &mut Control) -> Option<(Outcome, Delivery)> {
        let pid = self.group.leader();
        let cut = match control.events.say(&Event::Started { pid }).await {
            Ok(()) => self.follow(shared, start.timeout, control).await.err(),
            Err(_) => Some(Cut::Left),
        };
        let timed_out = matches!(cut, Some(Cut::TimedOut)) && self.status.is_none();
        match cut {
            None => {}
            Some(Cut::Left) => {
                self.end(Signal::SIGHUP, start.grace, control).await;
                return None;
            }
            Some(Cut::TimedOut) => self.end(Signal::SIGTERM, start.grace, control).await,
            Some(Cut::AgentStops) => self.end(Signal::SIGTERM, shared.grace, control).await,
        }
        let delivery = self.hand_over(&mut control.orders).await?;
        let outcome = match self.status {
            _ if timed_out => Outcome::TimedOut,
            Some(status) => outcome(status),
            // The kernel does not let it go even after SIGKILL.
            None => Outcome::Signal(Signal::SIGKILL as i32),
        };
        self.group.release();
        Some((outcome, delivery))
    }

    /// Follows the process until it exited and its output was handed over.
    async fn follow(&mut self, shared: &Shared, timeout: Option<Duration>, control: &mut Control) -> Result<(), Cut> {
        let Control { events, orders } = control;
        let mut phase = shared.phase.subscribe();
        let timeout = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => pending().await,
            }
        };
        tokio::pin!(timeout);
        let mut stdin_ended = false;
        while self.status.is_none() || self.delivery.is_none() {
            tokio::select! {
                biased;
                order = orders.next() => match order {
                    Some(number) => self.steer(number),
                    None => return Err(Cut::Left),
                },
                _ = phase.wait_for(|phase| *phase >= Phase::Cutting) => return Err(Cut::AgentStops),
                () = &mut timeout => return Err(Cut::TimedOut),
                status = self.child.wait(), if self.status.is_none() => self.note_exit(status),
                output = &mut self.output.0, if self.delivery.is_none() => self.note_output(output)?,
                stdin = &mut self.stdin.0, if !stdin_ended => {
                    stdin_ended = true;
                    if let Ok((Pumped::Lost(error), pipe)) = stdin {
                        self.held = pipe;
                        tracing::debug!("stdin is lost: {error}");
                        if self.status.is_none() {
                            return Err(Cut::Left);
                        }
                    }
                }
                Err(error) = events.allow(&mut self.stdin_allowed) => {
                    tracing::debug!("the control stream is lost: {error}");
                    return Err(Cut::Left);
                }
            }
        }
        Ok(())
    }

    /// Waits until the output was handed over; `None` if its reader is gone.
    async fn hand_over(&mut self, orders: &mut Orders) -> Option<Delivery> {
        while self.delivery.is_none() {
            tokio::select! {
                biased;
                order = orders.next() => { order?; }
                output = &mut self.output.0 => self.note_output(output).ok()?,
            }
        }
        self.delivery.take()
    }

    /// Ends what is left of the group: first `signal`, after `grace` SIGKILL.
    async fn end(&mut self, signal: Signal, grace: Duration, control: &mut Control) {
        self.group.ask_to_end(signal);
        if !self.gone(grace, control).await {
            self.group.signal(Signal::SIGKILL);
            if !self.gone(KILL_PATIENCE, control).await {
                tracing::warn!("process group {} does not go after SIGKILL", self.group.leader());
            }
        }
        self.exited.send_replace(true);
    }

    /// Waits until the group is gone. Meanwhile its stdio flows: it may have something to say at the end.
    async fn gone(&mut self, patience: Duration, control: &mut Control) -> bool {
        let mut stdin_allowed = self.stdin_allowed.clone();
        let gone = async {
            if self.status.is_none() {
                let status = self.child.wait().await;
                self.note_exit(status);
            }
            self.group.vanished().await;
        };
        tokio::select! {
            biased;
            gone = tokio::time::timeout(patience, gone) => gone.is_ok(),
            never = control.flow(&mut stdin_allowed) => match never {},
        }
    }

    fn steer(&self, number: i32) {
        match Signal::try_from(number) {
            Ok(signal) => self.group.signal(signal),
            Err(_) => tracing::debug!("there is no signal {number}"),
        }
    }

    fn note_exit(&mut self, status: std::io::Result<ExitStatus>) {
        // Waiting fails only if somebody else reaped our child: then how it ended is not known.
        self.status = Some(status.unwrap_or_else(|_| ExitStatus::from_raw(Signal::SIGKILL as i32)));
        self.exited.send_replace(true);
    }

    fn note_output(&mut self, output: Result<(Pumped, Delivery), JoinError>) -> Result<(), Cut> {
        match output {
            Ok((Pumped::Done, delivery)) => {
                self.delivery = Some(delivery);
                Ok(())
            }
            Ok((Pumped::Lost(error), _)) => {
                tracing::debug!("an output stream is lost: {error}");
                Err(Cut::Left)
            }
            Err(_) => Err(Cut::Left),
        }
    }
}

impl Control {
    /// Passes on in both directions how far stdio may run. Never ends, also if there is nobody to tell any more.
    async fn flow(&mut self, stdin: &mut watch::Receiver<u64>) -> Infallible {
        let events = async {
            let Err(error) = self.events.allow(stdin).await;
            tracing::debug!("the control stream is lost: {error}");
            pending::<Infallible>().await
        };
        tokio::join!(self.orders.heed(), events).0
    }
}

impl<T: Send + 'static> Task<T> {
    fn spawn(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn outcome(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Code(code),
        (None, signal) => Outcome::Signal(signal.unwrap_or(Signal::SIGKILL as i32)),
    }
}
