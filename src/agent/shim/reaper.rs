//! The processes of an attempt: signals to them, their ends, and that none is left.
//!
//! The shim is the subreaper of all that its process starts: whoever loses its parent becomes the shim's child, also one that left
//! the group and the session. So "no children" means that nobody is left, and killing children until there are none reaches
//! everybody.

use std::{io, os::unix::process::ExitStatusExt, process::Child};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        resource::{UsageWho, getrusage},
        signal::{SigSet, Signal, kill, killpg},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{
    cgroup::Cgroup,
    proc,
    spec::{Outcome, Usage},
};

/// The processes of one attempt.
pub(super) struct Reaper {
    child: Child,
    leader: Pid,
    /// Whether the leader was reaped: from then on its id may be another's.
    reaped: bool,
    cgroup: Option<Cgroup>,
}

/// What was found.
pub(super) struct Reaped {
    /// How the leader ended, if it did.
    pub outcome: Option<Outcome>,
    /// Whether nobody is left.
    pub alone: bool,
}

/// Blocks all signals that somebody may send, and makes this process the parent of orphans. What it gets is
/// readable, when a child ends.
pub(super) fn prepare() -> io::Result<SignalFd> {
    let mut blocked = SigSet::all();
    // Our own errors still end us.
    let own = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT, Signal::SIGTRAP];
    for signal in own {
        blocked.remove(signal);
    }
    blocked.thread_block()?;
    match prctl::set_child_subreaper(true) {
        // No kernel says this; qemu's emulation of one does, which does not know the call. Who loses its parent there is out of sight,
        // unless a control group holds it.
        Ok(()) | Err(Errno::EINVAL) => (),
        Err(error) => return Err(error.into()),
    }
    let ends = SigSet::from(Signal::SIGCHLD);
    Ok(SignalFd::with_flags(&ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

impl Reaper {
    pub fn new(child: Child, cgroup: Option<Cgroup>) -> Self {
        let leader = Pid::from_raw(child.id().try_into().expect("process ids are positive i32"));
        Self { child, leader, reaped: false, cgroup }
    }

    /// Sends a signal to the group, and wakes those of it that are stopped.
    pub fn signal(&self, number: i32) {
        let Ok(signal) = Signal::try_from(number) else { return };
        if !self.reaped {
            killpg(self.leader, signal).ok();
            killpg(self.leader, Signal::SIGCONT).ok();
        }
    }

    /// Sends a signal to the group and nothing else.
    pub fn pass_on(&self, number: i32) {
        if let (false, Ok(signal)) = (self.reaped, Signal::try_from(number)) {
            killpg(self.leader, signal).ok();
        }
    }

    /// Kills everybody that can be seen now. Whoever then loses its parent shows up as our child: call it again.
    pub fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if !self.reaped {
            killpg(self.leader, Signal::SIGKILL).ok();
        }
        for child in proc::children(std::process::id()) {
            kill(Pid::from_raw(child), Signal::SIGKILL).ok();
        }
    }

    /// Reaps who has ended.
    pub fn reap(&mut self) -> Reaped {
        // First by its own handle, which knows all signals; below are the numbers that have names.
        let status = if self.reaped { None } else { self.child.try_wait().ok().flatten() };
        let mut outcome = status.map(|status| match status.code() {
            Some(code) => Outcome::Code(code),
            None => Outcome::Signal(status.signal().unwrap_or(0)),
        });
        self.reaped |= outcome.is_some();
        loop {
            let (pid, ended) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (Some(pid), Outcome::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (Some(pid), Outcome::Signal(signal as i32)),
                Ok(_) => return Reaped { outcome, alone: false },
                Err(Errno::EINTR) => continue,
                // Somebody was reaped whose signal has no name.
                Err(Errno::EINVAL) => (None, Outcome::Signal(0)),
                Err(_) => return Reaped { outcome, alone: true },
            };
            let is_leader = match pid {
                Some(pid) => pid == self.leader,
                None => proc::stat(self.leader.as_raw().unsigned_abs()).is_none(),
            };
            if is_leader && !self.reaped {
                self.reaped = true;
                outcome = Some(ended);
            }
        }
    }

    /// Lets those go that are left.
    pub fn release(&mut self) {
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.leave();
        }
    }

    /// What all that were reaped have used.
    pub fn usage() -> Usage {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Usage::default() };
        let time = |time: nix::sys::time::TimeVal| {
            let microseconds = u64::try_from(time.tv_usec()).unwrap_or(0);
            std::time::Duration::from_secs(time.tv_sec().try_into().unwrap_or(0))
                + std::time::Duration::from_micros(microseconds)
        };
        Usage {
            user: time(usage.user_time()),
            system: time(usage.system_time()),
            max_rss: usage.max_rss().try_into().unwrap_or(0),
        }
    }
}
