//! How the agent is, for those who watch its process.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::watch;

use super::{executor::Executor, jobs::Jobs};
use crate::{health, metrics::Page};

/// How an agent is. Clones are the same.
#[derive(Clone, Default)]
pub struct Health(Arc<Shared>);

#[derive(Default)]
struct Shared {
    working: OnceLock<(Executor, Jobs)>,
    here: watch::Sender<bool>,
    sessions: AtomicU64,
}

impl Health {
    /// What works.
    pub(super) fn begin(&self, executor: Executor, jobs: Jobs) {
        // An agent that is run again with the same settings shows the first.
        let _ = self.0.working.set((executor, jobs));
    }

    /// A session begins; it ends when what is returned is dropped.
    pub(super) fn session(&self) -> impl Drop + use<> {
        self.0.here.send_replace(true);
        self.0.sessions.fetch_add(1, Relaxed);
        Here(self.0.clone())
    }

    /// Whether there is a session now.
    pub(super) fn here(&self) -> watch::Receiver<bool> {
        self.0.here.subscribe()
    }
}

struct Here(Arc<Shared>);

impl Drop for Here {
    fn drop(&mut self) {
        self.0.here.send_replace(false);
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("here", &*self.0.here.borrow()).finish_non_exhaustive()
    }
}

impl health::Health for Health {
    fn ready(&self) -> Result<(), String> {
        if *self.0.here.borrow() { Ok(()) } else { Err("it has no session with its controller".to_owned()) }
    }

    fn measure(&self, page: &mut Page) {
        page.counter("rk_agent_sessions_total", "Sessions with a controller.", self.0.sessions.load(Relaxed));
        if let Some((executor, jobs)) = self.0.working.get() {
            page.gauge("rk_agent_executions", "Executions that run.", executor.running());
            page.gauge("rk_agent_jobs", "Jobs that it has.", jobs.kept());
        }
    }
}
