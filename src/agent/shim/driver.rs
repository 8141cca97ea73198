//! The loop of a shim: one thread, `poll(2)`, and what `life` decides.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signalfd::SignalFd,
};

use super::{
    hold,
    life::{Action, Life},
    orders::{Blocked, Desk, Order, Report},
    output::Output,
    proc::boot_clock,
    reaper::Reaper,
    record,
    spec::{Exit, Outcome},
};
use crate::{
    agent::{
        attempt::Attempt,
        spool::{MAX_CHUNK, Offsets, Writer},
    },
    private_file::PrivateFileError,
};

/// Output is on the disk after this time at the latest, against the death of the host.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How often a disk that refused is tried again; an acknowledgement or a new limit tries at once.
const DISK_RETRY: Duration = Duration::from_millis(500);

/// How long a filter may hold back what could begin a secret when no more comes.
const IDLE: Duration = Duration::from_millis(100);

/// `poll` does not count the time of a machine that sleeps. Deadlines do, so they are looked at this often.
const LONGEST_POLL: Duration = Duration::from_secs(30);

/// A shim at work.
pub(super) struct Driver {
    pub attempt: Attempt,
    pub life: Life,
    pub reaper: Reaper,
    pub signals: SignalFd,
    pub desk: Desk,
    pub spool: Writer,
    pub outputs: [Output; 2],
    pub pid: u32,
    /// Until the held child was replaced by the program, or said why not.
    pub gate: Option<UnixStream>,
    pub state: State,
}

/// What the loop remembers.
#[derive(Default)]
pub(super) struct State {
    failure: Option<hold::Failure>,
    /// How and when the process ended.
    ended: Option<(Outcome, u64)>,
    output_ended: bool,
    /// Why the disk refused, and when to ask again.
    refused: Option<(i32, Duration)>,
    sync_at: Option<Duration>,
    /// When a filter that holds something back is asked for it.
    idle_at: Option<Duration>,
    finished: bool,
    /// A round of killing is due: somebody ended, so others may have become our children.
    kill_again: bool,
}

/// What became readable or writable.
struct Ready {
    signals: bool,
    gate: bool,
    outputs: [bool; 2],
    desk: bool,
}

impl Driver {
    /// Until the exit record is on the disk.
    pub fn run(mut self) {
        let mut buffer = vec![0; MAX_CHUNK];
        while !self.state.finished {
            let now = boot_clock();
            self.keep_time(now);
            self.act();
            if self.is_done() {
                self.finish(now);
            }
            let report = self.report();
            self.desk.tell(&report);
            if self.state.finished {
                break;
            }
            // Nothing can be polled only if the kernel lacks memory; deadlines are then looked at again.
            let Ok(ready) = self.wait(now) else { continue };
            self.take_in(&ready, &mut buffer);
        }
    }

    /// What is due by the clock.
    fn keep_time(&mut self, now: Duration) {
        self.life.handle_time(now);
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if is_due(self.state.refused.map(|(_, retry_at)| retry_at)) {
            self.spool_pending(now);
        }
        if is_due(self.state.idle_at) {
            self.state.idle_at = None;
            for index in 0..self.outputs.len() {
                let spooled = self.outputs[index].idle(&mut self.spool);
                self.note_disk(spooled, now);
            }
        }
        if is_due(self.state.sync_at) {
            self.state.sync_at = None;
            let synced = self.spool.sync();
            self.note_disk(synced, now);
        }
        if self.spool.is_unsynced() {
            self.state.sync_at.get_or_insert(now + SYNC_EVERY);
        }
        let outputs_ended = self.outputs.iter().all(Output::has_ended);
        if outputs_ended && !self.state.output_ended {
            self.state.output_ended = true;
            self.life.handle_output_end(now);
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.life.poll_action() {
            match action {
                Action::Signal(number) => self.reaper.signal(number),
                Action::Kill => self.state.kill_again = true,
                Action::CloseOutput => self.outputs.iter_mut().for_each(Output::close),
            }
        }
        if std::mem::take(&mut self.state.kill_again) {
            self.reaper.kill();
        }
    }

    fn is_done(&self) -> bool {
        let retry_later = self.state.refused.is_some();
        self.life.is_over() && self.gate.is_none() && !retry_later && self.outputs.iter().all(Output::is_spooled)
    }

    /// Puts everything on the disk and the exit record after it. If the disk refuses, later again.
    fn finish(&mut self, now: Duration) {
        if let Err(error) = self.spool.sync() {
            return self.note_disk(Err(error), now);
        }
        self.reaper.release();
        let written = record::write(&self.attempt.exit(), &self.exit()).map_err(|error| match error {
            PrivateFileError::Io { source, .. } => source,
            other => io::Error::other(other),
        });
        self.state.finished = written.is_ok();
        self.note_disk(written, now);
    }

    fn exit(&self) -> Exit {
        let (outcome, time) = self.state.ended.clone().expect("it is over, so the process ended");
        let outcome = match &self.state.failure {
            Some(failure) => Outcome::NotExecuted { errno: failure.errno, what: failure.what.clone() },
            None => outcome,
        };
        let [stdout, stderr] = [&self.outputs[0], &self.outputs[1]].map(Output::total);
        let (cause, killed_leftovers) = (self.life.cause(), self.life.killed_leftovers());
        Exit { outcome, cause, time, usage: Reaper::usage(), stdout, stderr, killed_leftovers }
    }

    fn report(&self) -> Report {
        let at_limit = self.spool.room() == 0 && !self.state.output_ended;
        let blocked = match self.state.refused {
            Some((errno, _)) => Some(Blocked::Disk { errno }),
            None => at_limit.then_some(Blocked::Limit),
        };
        Report {
            pid: self.pid,
            spooled: self.spool.ends(),
            used: self.spool.used(),
            limit: self.spool.limit(),
            blocked,
            cause: self.life.cause(),
            exited: self.life.has_exited(),
        }
    }

    fn wait(&self, now: Duration) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let mut place = |fd, flags| {
            fds.push(PollFd::new(fd, flags));
            fds.len() - 1
        };
        let gate = self.gate.as_ref().map(|gate| place(gate.as_fd(), PollFlags::POLLIN));
        let outputs = [&self.outputs[0], &self.outputs[1]].map(|output| {
            let may_take = self.state.refused.is_none();
            output.wanted(&self.spool).filter(|_| may_take).map(|pipe| place(pipe, PollFlags::POLLIN))
        });
        let first_of_desk = self.desk.interests().map(|(fd, flags)| place(fd, flags)).min().unwrap_or(usize::MAX);
        poll(&mut fds, self.timeout(now))?;
        let is_ready = |index: usize| fds[index].any().unwrap_or(true);
        Ok(Ready {
            signals: is_ready(0),
            gate: gate.is_some_and(is_ready),
            outputs: outputs.map(|index| index.is_some_and(is_ready)),
            desk: (first_of_desk..fds.len()).any(is_ready),
        })
    }

    fn timeout(&self, now: Duration) -> PollTimeout {
        let State { refused, sync_at, idle_at, .. } = &self.state;
        let takes = |output: &Output| output.is_closing() && refused.is_none() && output.wanted(&self.spool).is_some();
        let closing = self.outputs.iter().any(takes).then_some(now);
        let due = [self.life.deadline(), refused.map(|(_, at)| at), *sync_at, *idle_at, closing];
        match due.into_iter().flatten().min() {
            None => PollTimeout::NONE,
            // Rounded up: a deadline that is not quite reached would be a loop without a pause.
            Some(at) => {
                let wait = at.saturating_sub(now).min(LONGEST_POLL);
                let rounded = wait.saturating_add(Duration::from_micros(999));
                PollTimeout::try_from(rounded).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    fn take_in(&mut self, ready: &Ready, buffer: &mut [u8]) {
        let now = boot_clock();
        if ready.gate {
            self.state.failure = self.gate.take().and_then(|gate| hold::answer(&gate));
        }
        for index in 0..self.outputs.len() {
            let closing = self.outputs[index].is_closing() && self.state.refused.is_none();
            if ready.outputs[index] || closing {
                let spooled = self.outputs[index].read(buffer, &mut self.spool);
                self.note_disk(spooled, now);
            }
        }
        if self.outputs.iter().any(Output::holds) {
            self.state.idle_at = Some(now + IDLE);
        }
        if ready.signals {
            self.reap(now);
        }
        if ready.desk {
            for order in self.desk.hear() {
                self.obey(order, now);
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
            self.state.ended = Some((outcome, crate::clock::unix_ms()));
            self.life.handle_exit(now);
        }
        self.state.kill_again |= self.life.is_killing() && !found.alone;
    }

    fn obey(&mut self, order: Order, now: Duration) {
        match order {
            Order::Watch => {}
            Order::Acked(offsets) => self.cut(&offsets, now),
            Order::Limit(limit) => {
                self.spool.set_limit(limit);
                self.spool_pending(now);
            }
            Order::Signal(number) => self.reaper.pass_on(number),
            Order::Cancel { signal, grace } => self.life.handle_cancel(now, signal, grace),
            Order::Kill => self.life.handle_kill(now),
        }
    }

    fn cut(&mut self, acked: &Offsets, now: Duration) {
        // What cannot be removed now is removed with the next acknowledgement.
        self.spool.cut(acked).ok();
        self.spool_pending(now);
    }

    fn spool_pending(&mut self, now: Duration) {
        self.state.refused = None;
        for index in 0..self.outputs.len() {
            let spooled = self.outputs[index].spool(&mut self.spool);
            self.note_disk(spooled, now);
        }
    }

    fn note_disk(&mut self, result: io::Result<()>, now: Duration) {
        if let Err(error) = result {
            self.state.refused = Some((error.raw_os_error().unwrap_or(0), now + DISK_RETRY));
        }
    }
}

/// The standard streams of a shim: nobody listens and nobody speaks.
pub(super) fn close_stdout() -> io::Result<()> {
    Ok(nix::unistd::dup2_stdout(File::options().write(true).open("/dev/null")?)?)
}
