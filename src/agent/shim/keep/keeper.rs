//! The loop of a keeper.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{signal::Signal, signalfd::SignalFd},
};

use super::{
    super::{
        life::{Action, Life},
        orders,
        proc::boot_clock,
        reaper::Reaper,
        spec::{Cause, Outcome},
    },
    CONTROL, Exit, INPUT, Notice, Order, State, save,
    stdin::Input,
    take,
    terminal::Terminal,
};

/// `poll` does not count the time of a machine that sleeps.
const LONGEST_POLL: Duration = Duration::from_secs(30);

/// How long a connection may take to say what it is for. Our own agent says it at once.
const FIRST_BYTE: Duration = Duration::from_millis(500);

/// A keeper at work.
pub(super) struct Keeper {
    life: Life,
    reaper: Reaper,
    signals: SignalFd,
    listener: UnixListener,
    outputs: [OwnedFd; 2],
    /// Whether somebody may still write them.
    open: [bool; 2],
    terminal: Option<Terminal>,
    stdin: Input,
    agent: Option<Agent>,
    pid: u32,
    patience: Duration,
    grace: Duration,
    ended: Option<Outcome>,
    output_ended: bool,
    kill_again: bool,
    /// When the time without an agent is over.
    alone_until: Option<Duration>,
    /// The exit record is there.
    recorded: bool,
    released: bool,
}

/// The agent's connection.
struct Agent {
    stream: UnixStream,
    inbox: Vec<u8>,
    told: bool,
}

/// What is to be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Listener,
    Output(usize),
    Terminal,
    Stdin,
    Agent,
}

impl Keeper {
    #[allow(clippy::too_many_arguments, reason = "it is made in one place, of parts that have nothing in common")]
    pub fn new(
        life: Life,
        reaper: Reaper,
        signals: SignalFd,
        listener: UnixListener,
        outputs: [OwnedFd; 2],
        terminal: Option<Terminal>,
        stdin: Input,
        pid: u32,
        patience: Duration,
        grace: Duration,
    ) -> Self {
        let alone_until = Some(boot_clock().saturating_add(patience));
        Self {
            life,
            reaper,
            signals,
            listener,
            outputs,
            open: [true; 2],
            terminal,
            stdin,
            agent: None,
            pid,
            patience,
            grace,
            ended: None,
            output_ended: false,
            kill_again: false,
            alone_until,
            recorded: false,
            released: false,
        }
    }

    /// Until the process ended and an agent has all, or nobody comes for it.
    pub fn run(mut self) {
        loop {
            let now = boot_clock();
            self.keep_time(now);
            self.act(now);
            if self.life.is_over() && !self.recorded {
                // If the disk refuses there is still the agent, which will not learn more than that it ended.
                save(Path::new("exit"), &self.exit()).ok();
                self.recorded = true;
                // Also one that was ended because nobody came is kept for a while, and no longer.
                if self.agent.is_none() {
                    self.alone_until.get_or_insert(now.saturating_add(self.patience));
                }
            }
            if self.recorded {
                self.tell();
                if self.released || (self.agent.is_none() && self.alone_until.is_some_and(|until| until <= now)) {
                    self.reaper.release();
                    return;
                }
            }
            // Nothing can be polled only if the kernel lacks memory; deadlines are then looked at again.
            if let Ok(ready) = self.wait(now) {
                self.take_in(&ready);
            }
        }
    }

    fn keep_time(&mut self, now: Duration) {
        self.life.handle_time(now);
        if !self.recorded && self.alone_until.is_some_and(|until| until <= now) {
            self.alone_until = None;
            self.life.handle_cancel(now, Signal::SIGHUP as i32, self.grace);
        }
        if !self.output_ended && !self.open.contains(&true) {
            self.output_ended = true;
            self.life.handle_output_end(now);
        }
    }

    fn act(&mut self, now: Duration) {
        while let Some(action) = self.life.poll_action() {
            match action {
                Action::Signal(number) => self.reaper.signal(number),
                Action::Kill => self.kill_again = true,
                // Its end follows when what was there went through.
                Action::CloseOutput if self.terminal.as_mut().is_some_and(Terminal::finish) => {}
                // Whoever holds it may write on: nobody will read it.
                Action::CloseOutput => {
                    self.open = [false; 2];
                    self.output_ended = true;
                    self.life.handle_output_end(now);
                }
            }
        }
        if std::mem::take(&mut self.kill_again) {
            self.reaper.kill();
        }
    }

    fn exit(&self) -> Exit {
        let outcome = self.ended.clone().expect("it is over, so the process ended");
        Exit { outcome, timed_out: self.life.cause() == Some(Cause::TimedOut) }
    }

    fn wait(&self, now: Duration) -> io::Result<Vec<Source>> {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let mut sources = vec![Source::Signals, Source::Listener];
        for (index, output) in self.outputs.iter().enumerate().filter(|(index, _)| self.open[*index]) {
            // Only that nobody writes any more.
            fds.push(PollFd::new(output.as_fd(), PollFlags::empty()));
            sources.push(Source::Output(index));
        }
        if let Some((fd, flags)) = self.terminal.as_ref().and_then(Terminal::interest) {
            fds.push(PollFd::new(fd, flags));
            sources.push(Source::Terminal);
        }
        if let Some((fd, flags)) = self.stdin.interest() {
            fds.push(PollFd::new(fd, flags));
            sources.push(Source::Stdin);
        }
        if let Some(agent) = &self.agent {
            fds.push(PollFd::new(agent.stream.as_fd(), PollFlags::POLLIN));
            sources.push(Source::Agent);
        }
        poll(&mut fds, self.timeout(now))?;
        let ready = |fd: &PollFd<'_>| fd.revents().is_none_or(|events| !events.is_empty());
        Ok(sources.into_iter().zip(&fds).filter(|(_, fd)| ready(fd)).map(|(source, _)| source).collect())
    }

    fn timeout(&self, now: Duration) -> PollTimeout {
        match [self.life.deadline(), self.alone_until].into_iter().flatten().min() {
            None => PollTimeout::NONE,
            Some(at) => {
                let wait = at.saturating_sub(now).min(LONGEST_POLL);
                PollTimeout::try_from(wait.saturating_add(Duration::from_micros(999))).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    fn take_in(&mut self, ready: &[Source]) {
        for source in ready {
            match source {
                Source::Signals => self.reap(boot_clock()),
                Source::Output(index) => self.open[*index] = false,
                Source::Terminal => {
                    if let Some(terminal) = &mut self.terminal {
                        terminal.pass();
                    }
                }
                Source::Stdin => {
                    let idle = self.stdin.interest().is_some_and(|(_, flags)| flags.is_empty());
                    if idle { self.stdin.close() } else { self.stdin.pass() }
                }
                Source::Agent => self.hear(boot_clock()),
                Source::Listener => {
                    while let Ok((stream, _)) = self.listener.accept() {
                        self.meet(stream);
                    }
                }
            }
        }
    }

    fn reap(&mut self, now: Duration) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let found = self.reaper.reap();
        if found.alone {
            self.life.handle_alone(now);
        }
        if let Some(outcome) = found.outcome {
            self.ended = Some(outcome);
            self.life.handle_exit(now);
        }
        self.kill_again |= self.life.is_killing() && !found.alone;
    }

    /// Takes a connection in; the newest of a kind counts.
    fn meet(&mut self, mut stream: UnixStream) {
        let mut kind = [0];
        let first = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(FIRST_BYTE)))
            .and_then(|()| stream.read_exact(&mut kind));
        match (first, kind[0]) {
            (Ok(()), INPUT) => self.stdin.connect(stream),
            (Ok(()), CONTROL) => {
                // What an earlier agent handed over counts.
                self.stdin.disconnect();
                let outputs = [self.outputs[0].as_raw_fd(), self.outputs[1].as_raw_fd()];
                let state = State {
                    keeper: std::process::id(),
                    pid: self.pid,
                    outputs,
                    stdin: self.stdin.taken(),
                    patience: self.patience,
                    grace: self.grace,
                    terminal: self.terminal.is_some(),
                };
                let told = stream.write_all(&orders::encode(&state)).and_then(|()| stream.set_nonblocking(true));
                if told.is_ok() {
                    self.agent = Some(Agent { stream, inbox: Vec::new(), told: false });
                    self.alone_until = None;
                }
            }
            _ => {}
        }
    }

    fn hear(&mut self, now: Duration) {
        let Some(agent) = &mut self.agent else { return };
        let mut bytes = [0; 512];
        let mut gone = false;
        loop {
            match agent.stream.read(&mut bytes) {
                Ok(0) => gone = true,
                Ok(length) => {
                    agent.inbox.extend_from_slice(&bytes[..length]);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => gone |= error.kind() != io::ErrorKind::WouldBlock,
            }
            break;
        }
        let mut orders = Vec::new();
        loop {
            match take(&mut agent.inbox) {
                Ok(Some(order)) => orders.push(order),
                Ok(None) => break,
                Err(_) => {
                    gone = true;
                    break;
                }
            }
        }
        if gone {
            self.agent = None;
            self.alone_until = Some(now.saturating_add(self.patience));
        }
        for order in orders {
            match order {
                Order::Signal(number) => self.reaper.pass_on(number),
                Order::Cancel { signal, grace } => self.life.handle_cancel(now, signal, grace),
                Order::EndInput => self.stdin.end(),
                Order::Release => self.released = true,
                Order::Resize(size) => {
                    if let Some(terminal) = &self.terminal {
                        terminal.resize(size);
                    }
                }
            }
        }
    }

    fn tell(&mut self) {
        if let Some(agent) = self.agent.as_mut().filter(|agent| !agent.told) {
            agent.told = true;
            // A few bytes on a connection on which nothing waits.
            agent.stream.write_all(&orders::encode(&Notice::Exited)).ok();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Nobody connects any more, also while the kernel closes the rest.
        std::fs::remove_file("orders").ok();
    }
}
