//! Jobs on this machine: from the order to start one until the controller has its end in the journal and all its output is in
//! the topic.
//!
//! ```text
//! controller ─ stream ─→ table ─→ one task for each attempt ─→ shim
//!            ←─ reports ─┘          └→ spool → topic
//! ```
//!
//! Everything that must outlive the agent is in the attempt's directory ([`attempt`](super::attempt)): an agent that starts
//! looks at the directories, and goes on where the one before was killed. The tasks outlive sessions; a report that a lost
//! session swallowed is said again in the next one.

mod after;
mod ending;
mod files;
mod given;
mod hooks;
mod marks;
mod prepare;
mod process;
mod run;
mod ship;
mod stream;
mod workspace;
mod writers;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use super::{
    adopt::{self, Decision},
    artifacts,
    attempt::{Attempt, AttemptId},
    bundles::{Bundles, Pin},
    environment::Environment,
    policy::Policy,
    run_as::User,
    shim::Launcher,
    wasm::Modules,
};
use crate::{
    bundle::Ticket,
    job::{Cancel, JobId, Spec},
    kafka::SharedCluster,
    protocol::jobs::{Event, LogTicket, Report},
};

pub(super) use hooks::Hooks;

/// An attempt's name among this agent's.
type Key = (JobId, u32);

/// How jobs run here.
#[derive(Clone)]
pub(super) struct Settings {
    /// The attempts' directories.
    pub jobs: PathBuf,
    /// The work directories.
    pub work: PathBuf,
    /// What the agent remembers of the controller's journal.
    pub mark: PathBuf,
    /// The topic of the output.
    pub topic: String,
    /// How many run at once.
    pub slots: u32,
    /// What starts shims.
    pub launcher: Launcher,
    /// How artifacts are stored.
    pub artifacts: artifacts::Settings,
    /// What fetches bundles.
    pub bundles: Bundles,
    /// What every process gets.
    pub environment: Environment,
    /// The operator's programs.
    pub hooks: Hooks,
    /// What may run.
    pub policy: Policy,
    /// As whom jobs run; as the agent if there is nobody.
    pub run_as: Option<User>,
    /// What runs modules.
    pub modules: Modules,
}

/// All of them. Clones are handles of the same.
#[derive(Clone)]
pub(super) struct Jobs(Arc<Shared>);

struct Shared {
    settings: Settings,
    cluster: SharedCluster,
    /// The logs' topic's id, once it is known.
    topic_id: Mutex<Option<u128>>,
    state: Mutex<State>,
    /// How many attempts there are.
    kept: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    attempts: BTreeMap<Key, Entry>,
    /// Where reports go: the newest stream's.
    stream: Option<(u64, mpsc::UnboundedSender<Event>)>,
    streams: u64,
    draining: bool,
    /// As draining, but for a while.
    held: bool,
}

/// An attempt that has a directory.
struct Entry {
    /// How it stands. What it was told to release says nothing more.
    report: Option<Report>,
    /// What became of its artifacts; said before its end.
    left: Option<Report>,
    trouble: Option<String>,
    orders: mpsc::UnboundedSender<Told>,
}

/// What an attempt's task is told.
enum Told {
    Cancel(Cancel),
    Release,
}

/// How an attempt's task begins.
enum Begin {
    /// It was ordered just now.
    Ordered(Box<Spec>, LogTicket, Vec<Ticket>),
    /// There was a directory; nothing if it could not be looked at yet. What it uses stays.
    Found(Option<Decision>, Vec<Pin>),
}

impl Jobs {
    /// How many there are.
    pub fn kept(&self) -> usize {
        *self.0.kept.borrow()
    }

    /// Goes on with what earlier agents left in the attempts' directory.
    pub fn new(settings: Settings, cluster: SharedCluster) -> io::Result<Self> {
        let found = adopt::scan(&settings.jobs)?;
        let shared = Shared {
            settings,
            cluster: writers::shared(cluster),
            topic_id: Mutex::default(),
            state: Mutex::default(),
            kept: watch::Sender::new(0),
        };
        let jobs = Self(Arc::new(shared));
        for (id, decision) in found {
            match (key(&id), decision) {
                (Some(key), Ok(Decision::Foreign)) => {
                    tracing::error!(
                        "attempt {id} belongs to a shim on another host; two hosts must not share a --data ({key:?})"
                    );
                }
                (Some(key), Ok(decision)) => jobs.begin(key, Begin::Found(Some(decision), jobs.pins(key))),
                (None, _) => tracing::warn!("attempt {id} is none of this version's, and is left alone"),
                // It may run: it is looked at again, and not forgotten.
                (Some(key), Err(_)) => jobs.begin(key, Begin::Found(None, jobs.pins(key))),
            }
        }
        Ok(jobs)
    }

    /// Takes no new jobs from now on, and says so.
    pub fn drain(&self) {
        self.0.lock().change(|state| state.draining = true);
    }

    /// Takes no new jobs, or takes them again, and says so.
    pub fn hold(&self, held: bool) {
        self.0.lock().change(|state| state.held = held);
    }

    /// Ends all that run, with their grace.
    pub fn cancel_all(&self, cancel: Cancel) {
        for entry in self.0.lock().attempts.values() {
            let _ = entry.orders.send(Told::Cancel(cancel));
        }
    }

    /// Waits until every attempt has ended and was released, and its output is in the topic.
    pub async fn settled(&self) {
        self.0.kept.subscribe().wait_for(|kept| *kept == 0).await.ok();
    }

    /// Waits until a first attempt is there.
    pub async fn begun(&self) {
        self.0.kept.subscribe().wait_for(|kept| *kept > 0).await.ok();
    }

    /// Waits until nothing was there for so long.
    pub async fn idle_for(&self, patience: Duration) {
        let mut kept = self.0.kept.subscribe();
        loop {
            kept.wait_for(|kept| *kept == 0).await.ok();
            if tokio::time::timeout(patience, kept.wait_for(|kept| *kept > 0)).await.is_err() {
                return;
            }
        }
    }

    /// Runs a hook of the agent's own life.
    pub async fn hook(&self, name: &str) {
        let settings = &self.0.settings;
        let cwd = settings.mark.parent().unwrap_or(Path::new("/"));
        let ran = settings.hooks.run(name, &settings.environment, cwd).await;
        if let Some(failure) = ran.and_then(|ran| ran.failure) {
            tracing::warn!("hook {name} failed: {failure}");
        }
    }

    /// The bundles that an earlier agent's attempt uses.
    fn pins(&self, key: Key) -> Vec<Pin> {
        let attempt = Attempt::at(self.0.settings.jobs.join(id(key).to_string()));
        let ticket = files::Files(&attempt).ticket().ok().flatten();
        self.0.settings.bundles.pin(&ticket.map(|ticket| ticket.bundles).unwrap_or_default())
    }

    fn begin(&self, key: Key, begin: Begin) {
        let (orders, told) = mpsc::unbounded_channel();
        let entry = Entry { report: Some(Report::Claimed), left: None, trouble: None, orders };
        self.0.lock().attempts.insert(key, entry);
        self.0.kept.send_modify(|kept| *kept += 1);
        let shared = self.0.clone();
        tokio::spawn(async move {
            run::run(&shared, key, begin, told).await;
            shared.lock().attempts.remove(&key);
            shared.kept.send_modify(|kept| *kept -= 1);
        });
    }
}

impl Shared {
    /// The attempt stands so now.
    fn report(&self, key: Key, report: Report) {
        let mut state = self.lock();
        let Some(entry) = state.attempts.get_mut(&key) else { return };
        if !matches!(report, Report::Logged(_)) && entry.report.is_some() {
            entry.report = Some(report.clone());
        }
        state.say(Event::Report { job: key.0, attempt: key.1, report });
    }

    /// This became of the attempt's artifacts.
    fn left(&self, key: Key, report: Report) {
        let mut state = self.lock();
        let Some(entry) = state.attempts.get_mut(&key) else { return };
        entry.left = entry.report.is_some().then(|| report.clone());
        state.say(Event::Report { job: key.0, attempt: key.1, report });
    }

    /// An attempt's release was read by who cannot obey it yet.
    fn tell_again(&self, key: Key) {
        if let Some(entry) = self.lock().attempts.get(&key) {
            let _ = entry.orders.send(Told::Release);
        }
    }

    /// This stands in the attempt's way now.
    fn trouble(&self, key: Key, trouble: Option<String>) {
        let mut state = self.lock();
        let Some(entry) = state.attempts.get_mut(&key) else { return };
        if entry.trouble != trouble {
            entry.trouble.clone_from(&trouble);
            state.say(Event::Trouble { job: key.0, attempt: key.1, trouble });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    /// Whether no new jobs are taken.
    fn is_closed(&self) -> bool {
        self.draining || self.held
    }

    /// Changes whether new jobs are taken, and says what is new in that.
    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        let before = self.is_closed();
        change(self);
        let now = self.is_closed();
        if now != before {
            self.say(Event::Draining(now));
        }
    }

    fn say(&mut self, event: Event) {
        if let Some((_, stream)) = &self.stream {
            // One that is gone says it in the next stream.
            let _ = stream.send(event);
        }
    }
}

fn key(id: &AttemptId) -> Option<Key> {
    let text = id.to_string();
    let (job, attempt) = text.rsplit_once('.')?;
    Some((job.parse().ok()?, attempt.parse().ok()?))
}

fn id((job, attempt): Key) -> AttemptId {
    AttemptId::new(&job.to_string(), attempt).expect("an id fits into a name")
}
