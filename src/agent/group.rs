//! Process groups: every execution is one, and none is forgotten.
//!
//! [`Groups`] knows each group that may still have processes. Dropping a [`Group`] that was not released kills it, so an
//! execution that is aborted or panics leaves nothing; the [`warden`](super::warden) does the same when the agent itself
//! is killed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use super::warden::{self, Warden};

/// The groups that may have processes.
pub(super) struct Groups {
    state: Mutex<State>,
}

struct State {
    live: BTreeMap<i32, Duration>,
    warden: Option<Warden>,
}

/// One execution's processes.
pub(super) struct Group {
    groups: Arc<Groups>,
    leader: Pid,
    released: bool,
}

impl Groups {
    /// No groups yet; `warden` is started before the first one comes.
    pub fn new(warden: Option<warden::Program>) -> Arc<Self> {
        let state = State { live: BTreeMap::new(), warden: warden.map(Warden::new) };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Before a process is started that will lead a group.
    pub fn expect(&self) {
        let State { live, warden } = &mut *self.lock();
        if let Some(warden) = warden {
            warden.ready(live);
        }
    }

    /// Takes the group in that the process `leader` leads. `grace` is what it gets if the agent is killed.
    pub fn enter(self: &Arc<Self>, leader: u32, grace: Duration) -> Group {
        let leader = i32::try_from(leader).expect("process ids are positive i32");
        let mut state = self.lock();
        let State { live, warden } = &mut *state;
        live.insert(leader, grace);
        if let Some(warden) = warden {
            warden.add(leader, grace, live);
        }
        Group { groups: self.clone(), leader: Pid::from_raw(leader), released: false }
    }

    /// SIGKILL to everything that is left.
    pub fn kill_all(&self) {
        for leader in self.lock().live.keys() {
            killpg(Pid::from_raw(*leader), Signal::SIGKILL).ok();
        }
    }

    fn leave(&self, leader: Pid) {
        let mut state = self.lock();
        let State { live, warden } = &mut *state;
        live.remove(&leader.as_raw());
        if let Some(warden) = warden {
            warden.remove(leader.as_raw(), live);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    /// The process id of the leader, which is the group's id.
    pub fn leader(&self) -> u32 {
        self.leader.as_raw().unsigned_abs()
    }

    /// Sends `signal` to all of the group. That there is nobody left is no error.
    pub fn signal(&self, signal: Signal) {
        killpg(self.leader, signal).ok();
    }

    /// Sends SIGHUP or the like so that stopped processes get it as well.
    pub fn ask_to_end(&self, signal: Signal) {
        self.signal(signal);
        self.signal(Signal::SIGCONT);
    }

    /// Waits until the group has no process. The leader must have been reaped by its owner.
    pub async fn vanished(&self) {
        let mut pause = Duration::from_millis(1);
        while is_alive(self.leader) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Lets the group go: what is left of it runs on by itself.
    pub fn release(mut self) {
        self.released = true;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.released {
            self.signal(Signal::SIGKILL);
        }
        self.groups.leave(self.leader);
    }
}

/// Whether a group has processes. An id stays taken as long as its group has one, so this cannot mean another group.
pub(super) fn is_alive(leader: Pid) -> bool {
    // Orphans of the group are ours to reap only if we are their new parent: in a container as process 1.
    let group = Pid::from_raw(-leader.as_raw());
    while matches!(waitpid(group, Some(WaitPidFlag::WNOHANG)), Ok(status) if status.pid().is_some()) {}
    killpg(leader, None) != Err(Errno::ESRCH)
}
