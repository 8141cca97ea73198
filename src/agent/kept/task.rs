//! One resumable execution from its start, or its adoption, to its end.

use std::{
    fs::{self, File},
    future::pending,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{
    io::unix::AsyncFd,
    net::UnixStream,
    sync::{OwnedSemaphorePermit, mpsc, watch},
};

use super::{
    super::{
        bundles::Pin,
        events::Said,
        executor::{Phase, Shared, Working},
        shim::{keep, spec},
    },
    TAKEN_OVER,
    attached::{Attachment, From, Limits, StdinEnd, StdinTold, output, stdin},
    retained::{Drained, Retained},
};
use crate::{
    id::ExecId,
    protocol::{
        allowance::{INITIAL, Window},
        exec::{Attached, Event, Outcome, Steer},
    },
};

/// Whose connection ended without a word comes back within this time, or was killed.
const MOMENT: Duration = Duration::from_secs(2);

/// An execution.
pub(super) struct Task {
    shared: Arc<Shared>,
    id: ExecId,
    dir: PathBuf,
    mailbox: mpsc::Receiver<Attachment>,
    patience: Duration,
    /// The same when the user's connection ended without a word.
    moment: Duration,
    /// Whether the process has a terminal.
    terminal: bool,
    grace: Duration,
    pid: u32,
    /// None when everything was taken over from it, or when it was killed.
    keeper: Option<Keeper>,
    outputs: [Retained; 2],
    /// How many bytes of stdin the keeper got.
    taken: AtomicU64,
    /// Turns true when the process has ended.
    exited: watch::Sender<bool>,
    /// The agent stops, and the process was told.
    cancelled: bool,
    slot: Option<OwnedSemaphorePermit>,
    /// What it uses stays.
    _bundles: Vec<Pin>,
    _working: Working,
}

/// What a living keeper gives.
struct Keeper {
    control: keep::Control,
    pipes: [AsyncFd<File>; 2],
    /// None when the process takes no more stdin, or has all.
    input: Option<UnixStream>,
}

/// What follows.
enum After {
    Attach(Attachment),
    Detach(Duration),
    HangUp,
    Over,
}

impl Keeper {
    async fn connect(dir: &std::path::Path) -> io::Result<Self> {
        let control = keep::connect(dir).await?;
        let pipes = [control.output(0)?, control.output(1)?];
        let input = match control.state.stdin {
            Some(_) => Some(keep::input(dir).await?),
            None => None,
        };
        Ok(Self { control, pipes, input })
    }
}

impl Task {
    /// The execution `id`, whose keeper runs, or has run until it was released.
    pub async fn new(shared: &Arc<Shared>, id: ExecId, slot: Option<OwnedSemaphorePermit>) -> io::Result<Self> {
        let dir = shared.kept.path(id);
        // First of all: from here on nothing else may take its room.
        let bundles = shared.bundles.as_ref().map(|bundles| bundles.pin(&super::used(&dir))).unwrap_or_default();
        let keeper = match Keeper::connect(&dir).await {
            Ok(keeper) => Some(keeper),
            // Released, and its output is whole.
            Err(_) if keep::exit(&dir).is_some() => None,
            Err(error) => return Err(error),
        };
        let mut outputs = [Retained::open(&dir, "out")?, Retained::open(&dir, "err")?];
        let mailbox = shared.kept.enter(id).ok_or(io::ErrorKind::AlreadyExists)?;
        let state = keeper.as_ref().map(|keeper| keeper.control.state.clone());
        let (pid, patience, grace, taken) = match &state {
            Some(state) => (state.pid, state.patience, state.grace, state.stdin.unwrap_or(0)),
            None => (0, MOMENT, MOMENT, 0),
        };
        // The user of a terminal may come back from another place, and not as the same process.
        let terminal = state.is_some_and(|state| state.terminal);
        let moment = if terminal { patience } else { patience.min(MOMENT) };
        if keeper.is_some() {
            shared.kept.runs(id, pid);
        } else {
            outputs.iter_mut().for_each(|output| output.ended = true);
        }
        Ok(Self {
            shared: shared.clone(),
            id,
            dir,
            mailbox,
            patience,
            moment,
            terminal,
            grace,
            pid,
            exited: watch::Sender::new(keeper.is_none()),
            keeper,
            outputs,
            taken: AtomicU64::new(taken),
            cancelled: false,
            slot,
            _bundles: bundles,
            _working: Working::new(shared),
        })
    }

    /// To the end.
    pub async fn run(mut self, mut attachment: Option<Attachment>) {
        let mut patience = self.patience;
        loop {
            let after = match attachment.take() {
                Some(attachment) => self.attached(attachment).await,
                None => self.detached(patience).await,
            };
            match after {
                After::Attach(next) => attachment = Some(next),
                After::Detach(time) => {
                    tracing::debug!(id = %self.id, "nobody is there; waiting {time:?}");
                    patience = time;
                }
                After::HangUp => {
                    self.hang_up().await;
                    break;
                }
                After::Over => break,
            }
        }
        self.release().await;
        fs::remove_dir_all(&self.dir).ok();
        self.shared.kept.leave(self.id);
    }

    /// Waits for a user to come back.
    async fn detached(&mut self, patience: Duration) -> After {
        let over = tokio::time::sleep(patience);
        tokio::pin!(over);
        loop {
            let mut phase = self.shared.phase.subscribe();
            // Until it has ended: then what is left is taken in order, and its end with it.
            let runs = !*self.exited.borrow();
            let [out, err] = &mut self.outputs;
            let (mut control, pipes) = match &mut self.keeper {
                Some(Keeper { control, pipes, .. }) => (Some(control), Some(&*pipes)),
                None => (None, None),
            };
            tokio::select! {
                biased;
                Some(next) = self.mailbox.recv() => return After::Attach(next),
                () = &mut over => return After::HangUp,
                notice = hear(&mut control) => self.note(notice),
                () = out.put_aside(pipes.map(|pipes| &pipes[0])), if runs => {}
                () = err.put_aside(pipes.map(|pipes| &pipes[1])), if runs => {}
                () = cancelling(&mut phase), if !self.cancelled => self.cancel().await,
            }
        }
    }

    /// Serves a user who is there.
    async fn attached(&mut self, mut attachment: Attachment) -> After {
        let first = match self.greet(&attachment) {
            Ok(first) => first,
            Err(why) => {
                attachment.refuse(&why).await;
                return After::Over;
            }
        };
        if attachment.events.say(&first).await.is_err() {
            attachment.reset();
            return After::Detach(self.patience);
        }
        let after = self.flow(&mut attachment).await;
        match after {
            Ok(()) => self.conclude(attachment).await,
            Err(After::Over) => {
                // Its keeper was killed, and the process with it.
                attachment.refuse("what kept the execution was killed, and its process with it").await;
                After::Over
            }
            Err(After::Attach(next)) => {
                replace(attachment, &next);
                After::Attach(next)
            }
            Err(after) => {
                attachment.reset();
                after
            }
        }
    }

    /// The first event, or why there is nothing to come back to.
    fn greet(&mut self, attachment: &Attachment) -> Result<Event, String> {
        let From::Later { has } = attachment.from else { return Ok(Event::Started { pid: self.pid }) };
        let offsets = has.unwrap_or_else(|| self.unseen());
        for (output, offset) in self.outputs.iter_mut().zip(offsets) {
            if !(output.start()..=output.end()).contains(&offset) {
                return Err(format!("byte {offset} of its output is not there any more"));
            }
            output.ack(offset);
        }
        if self.keeper.is_none() && keep::exit(&self.dir).is_none() {
            return Err("what kept the execution was killed, and its process with it".to_owned());
        }
        let open = self.keeper.as_ref().is_some_and(|keeper| keeper.input.is_some());
        let stdin = if open { self.taken.load(Ordering::Relaxed) } else { u64::MAX };
        let (pid, [stdout, stderr]) = (self.pid, offsets);
        Ok(match has {
            Some(_) => Event::Resumed { pid, stdin },
            None => {
                let (user, patience, terminal) = (attachment.user, self.patience, self.terminal);
                Event::Attached(Attached { pid, stdin, stdout, stderr, user, patience, terminal })
            }
        })
    }

    /// Where a user goes on that does not know what the one before had.
    fn unseen(&self) -> [u64; 2] {
        let [out, err] = &self.outputs;
        [out, err].map(|output| output.acked().max(output.start()))
    }

    /// Moves bytes until all output went out. The error says what happened before.
    async fn flow(&mut self, attachment: &mut Attachment) -> Result<(), After> {
        let offsets = match attachment.from {
            From::Start => [0, 0],
            From::Later { has } => has.unwrap_or_else(|| self.unseen()),
        };
        let limits = Limits::new(offsets);
        let told = StdinTold { allow: watch::Sender::new(INITIAL), confirm: watch::Sender::new(0) };
        let (mut said, mut phase) = (Said::new(&told.allow, &told.confirm), self.shared.phase.subscribe());
        let Self { keeper, outputs, taken, exited, mailbox, cancelled, shared, .. } = self;
        let (patience, moment, terminal) = (self.patience, self.moment, self.terminal);
        let Attachment { events, orders, stdin: source, outputs: streams, .. } = attachment;
        let (mut control, pipes, mut input) = match keeper {
            Some(Keeper { control, pipes, input }) => (Some(control), Some(&*pipes), Some(input)),
            None => (None, None, None),
        };
        let follow = |index: usize| {
            let limits = (limits.allowed[index].subscribe(), limits.acked[index].subscribe());
            (limits, exited.subscribe())
        };
        let (out, err) = (follow(0), follow(1));
        let ([out_kept, err_kept], [out_stream, err_stream]) = (outputs, streams);
        let both = async {
            tokio::try_join!(
                output(out_kept, pipes.map(|pipes| &pipes[0]), out_stream, offsets[0], out.0, out.1),
                output(err_kept, pipes.map(|pipes| &pipes[1]), err_stream, offsets[1], err.0, err.1),
            )
        };
        let window = Window::new(&shared.budget);
        let feed = async {
            match input.as_deref_mut() {
                Some(Some(keeper)) => stdin(source, keeper, taken, window, &told).await,
                _ => pending().await,
            }
        };
        let (mut whole, mut fed) = (false, false);
        {
            tokio::pin!(both, feed);
            while !(whole && *exited.borrow()) {
                tokio::select! {
                    biased;
                    order = orders.next() => match order {
                        Ok(Steer::Signal(number)) => give(&mut control, keep::Order::Signal(number)).await,
                        Ok(Steer::Allow { channel, up_to }) => limits.allow(channel, up_to),
                        Ok(Steer::Acked { channel, up_to }) => limits.ack(channel, up_to),
                        Ok(Steer::Resize(size)) => give(&mut control, keep::Order::Resize(size)).await,
                        Ok(Steer::HangUp) => return Err(After::HangUp),
                        Ok(Steer::Disconnected) => return Err(After::Detach(moment)),
                        Ok(Steer::Detached) => {
                            // What was typed before comes on another lane.
                            if !fed {
                                let _ = tokio::time::timeout(MOMENT, &mut feed).await;
                            }
                            return Err(After::Detach(patience));
                        }
                        Err(error) => {
                            tracing::debug!("no more orders: {error}");
                            return Err(After::Detach(patience));
                        }
                    },
                    Some(next) = mailbox.recv() => return Err(After::Attach(next)),
                    notice = hear(&mut control) => match notice {
                        Ok(keep::Notice::Exited) => { exited.send_replace(true); }
                        Err(_) => return Err(After::Over),
                    },
                    () = cancelling(&mut phase), if !*cancelled => {
                        *cancelled = true;
                        let grace = shared.grace;
                        give(&mut control, keep::Order::Cancel { signal: Signal::SIGTERM as i32, grace }).await;
                    }
                    sent = &mut both, if !whole => match sent {
                        Ok(_) => whole = true,
                        Err(error) => {
                            tracing::debug!("an output stream is lost: {error}");
                            return Err(lost(orders, patience, moment).await);
                        }
                    },
                    end = &mut feed, if !fed => {
                        fed = true;
                        match end {
                            // The next user may type again.
                            StdinEnd::Whole if terminal => {}
                            StdinEnd::Whole => give(&mut control, keep::Order::EndInput).await,
                            StdinEnd::Closed => {
                                told.allow.send_replace(u64::MAX);
                            }
                            StdinEnd::Lost(error) => {
                                tracing::debug!("stdin is lost: {error}");
                                // The control stream tells more, if it can.
                                return Err(lost(orders, patience, moment).await);
                            }
                        }
                        told.confirm.send_replace(u64::MAX);
                    }
                    Err(error) = events.keep_saying(&mut said) => {
                        tracing::debug!("the control stream is lost: {error}");
                        return Err(After::Detach(patience));
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells how it ended, and waits until the user has it.
    async fn conclude(&mut self, mut attachment: Attachment) -> After {
        self.release().await;
        let exit = keep::exit(&self.dir);
        self.slot = None;
        let outcome = match exit {
            Some(keep::Exit { timed_out: true, .. }) => Outcome::TimedOut,
            Some(keep::Exit { outcome: spec::Outcome::Code(code), .. }) => Outcome::Code(code),
            Some(keep::Exit { outcome: spec::Outcome::Signal(signal), .. }) => Outcome::Signal(signal),
            // The disk refused, or nothing was executed, which its start would have told.
            Some(_) | None => Outcome::Signal(0),
        };
        if attachment.events.say(&Event::Exited(outcome)).await.is_err() {
            attachment.reset();
            return After::Detach(self.patience);
        }
        loop {
            tokio::select! {
                biased;
                order = attachment.orders.next() => match order {
                    Ok(Steer::HangUp) => break,
                    Ok(Steer::Disconnected) => return After::Detach(self.moment),
                    Ok(Steer::Detached) => return After::Detach(self.patience),
                    Ok(_) => {}
                    Err(_) => return After::Detach(self.patience),
                },
                Some(next) = self.mailbox.recv() => {
                    replace(attachment, &next);
                    return After::Attach(next);
                }
            }
        }
        let _ = attachment.events.finish().await;
        After::Over
    }

    /// Ends the process for a user who is gone. Its output still flows, to nowhere.
    async fn hang_up(&mut self) {
        self.mailbox.close();
        let Some(keeper) = &mut self.keeper else { return };
        let order = keep::Order::Cancel { signal: Signal::SIGHUP as i32, grace: self.grace };
        keeper.control.order(order).await.ok();
        let [out, err] = &mut self.outputs;
        for output in [&mut *out, &mut *err] {
            output.ack(output.end());
        }
        while !*self.exited.borrow() {
            tokio::select! {
                biased;
                notice = keeper.control.notice() => match notice {
                    Ok(keep::Notice::Exited) => { self.exited.send_replace(true); }
                    Err(_) => return,
                },
                () = discard(out, &keeper.pipes[0]), if !out.ended => {}
                () = discard(err, &keeper.pipes[1]), if !err.ended => {}
            }
        }
    }

    /// The keeper is not needed any more.
    async fn release(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            keeper.control.order(keep::Order::Release).await.ok();
        }
    }

    async fn cancel(&mut self) {
        self.cancelled = true;
        if let Some(keeper) = &mut self.keeper {
            let order = keep::Order::Cancel { signal: Signal::SIGTERM as i32, grace: self.shared.grace };
            keeper.control.order(order).await.ok();
        }
    }

    fn note(&mut self, notice: io::Result<keep::Notice>) {
        self.exited.send_replace(true);
        if notice.is_err() {
            self.keeper = None;
        }
    }
}

async fn cancelling(phase: &mut watch::Receiver<Phase>) {
    phase.wait_for(|phase| *phase == Phase::Cancelling).await.ok();
}

async fn discard(output: &mut Retained, pipe: &AsyncFd<File>) {
    output.ended = !matches!(output.take(pipe, 1 << 20).await, Ok(Drained::Some(_)));
    output.ack(output.end());
}

/// Lets streams go because others came.
fn replace(attachment: Attachment, next: &Attachment) {
    if attachment.user == next.user {
        return attachment.reset();
    }
    tokio::spawn(async move {
        let _ = tokio::time::timeout(MOMENT, attachment.refuse(TAKEN_OVER)).await;
    });
}

async fn hear(control: &mut Option<&mut keep::Control>) -> io::Result<keep::Notice> {
    match control {
        Some(control) => control.notice().await,
        None => pending().await,
    }
}

/// Gives an order; a keeper that is gone is found by whoever listens to it.
async fn give(control: &mut Option<&mut keep::Control>, order: keep::Order) {
    if let Some(control) = control {
        control.order(order).await.ok();
    }
}

/// What the control stream says after a stdio stream broke, for a moment.
async fn lost(
    orders: &mut crate::frame::Incoming<Box<dyn super::RecvHalf>, Steer>,
    patience: Duration,
    moment: Duration,
) -> After {
    let last = async {
        loop {
            match orders.next().await {
                Ok(Steer::HangUp) => return After::HangUp,
                Ok(Steer::Disconnected) => return After::Detach(moment),
                Ok(Steer::Detached) => return After::Detach(patience),
                Ok(_) => {}
                Err(_) => return After::Detach(patience),
            }
        }
    };
    tokio::time::timeout(MOMENT, last).await.unwrap_or(After::Detach(patience))
}
