//! The agent changes to another version of its program, because its controller asks for it and its operator lets it.
//!
//! ```text
//! order ─▶ may it ─▶ fetch ─▶ copy beside the own file, ask it who it is ─▶ drain ─▶ (the engine ends) ─▶ trial ─▶ rename, exec
//!             └─────────┴──────────────── refused ─────────────┘             └ busy            rolled back ┘
//! ```
//!
//! Up to the drain nothing stops. The trial is the new program as the agent itself, a child of this process, which shows that it
//! gets a session; only then is the file replaced. So whatever is wrong with the new program, the old one runs on, and wherever the
//! power fails there is a whole program in the file. Jobs and resumable executions are held by their shims meanwhile.

mod candidate;
mod record;
mod swap;
mod trial;

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OnceCell, watch},
    time::{sleep, timeout},
};

use super::{
    bundles::{Bundles, Failure},
    executor::{Executor, Phase},
    health::Health,
    jobs::Jobs,
};
use crate::{
    bundle::Digest,
    clock,
    id::AgentName,
    link::Program,
    protocol::update::Order,
    update::{Stage, Update},
};

pub use candidate::{About, Candidate, FORMAT};
pub use trial::{PROVEN, TRIAL, Verdict, try_out};

/// How long a bundle may take to come.
const FETCH: Duration = Duration::from_secs(15 * 60);
/// How long a new program must keep its session before it is taken for good.
const SETTLE: Duration = Duration::from_secs(2);
/// What is cut has ended after this, whatever its own grace is.
const CUT: Duration = Duration::from_secs(30);

/// Which programs an agent changes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Those of any bundle that it takes.
    Any,
    /// Those of bundles that are signed by a key that it trusts.
    Signed,
    /// None.
    No,
}

/// The text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of any, signed and no")]
pub struct InvalidPolicy(String);

impl FromStr for Policy {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        match text {
            "any" => Ok(Self::Any),
            "signed" => Ok(Self::Signed),
            "no" => Ok(Self::No),
            _ => Err(InvalidPolicy(text.chars().take(40).collect())),
        }
    }
}

/// What is needed to change.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file that this process was started from.
    pub program: PathBuf,
    /// What it changes to.
    pub policy: Policy,
    /// Whether keys are named that must have signed bundles.
    pub keys: bool,
    /// Whether this process is such a change, on trial: it proves itself, takes no work, and ends.
    pub trial: bool,
}

/// Changes of an agent's program. Clones are the same.
#[derive(Clone)]
pub struct Updates(Arc<Shared>);

struct Shared {
    settings: Settings,
    own: OnceLock<Own>,
    /// The SHA-256 of this program, once somebody wanted it: to read it all takes longer than the rest of an agent's start.
    digest: OnceCell<Digest>,
    last: watch::Sender<Option<Update>>,
    waiting: Mutex<Option<Order>>,
    came: Notify,
    chosen: Mutex<Option<Candidate>>,
}

/// What is known once the agent runs.
struct Own {
    name: AgentName,
    /// The agent's directory.
    dir: PathBuf,
}

/// Why a change came to nothing.
struct Stopped(Stage, String);

impl std::fmt::Debug for Updates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Updates").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Updates {
    /// None yet.
    pub fn new(settings: Settings) -> Self {
        let shared = Shared {
            settings,
            own: OnceLock::new(),
            digest: OnceCell::new(),
            last: watch::Sender::new(None),
            waiting: Mutex::default(),
            came: Notify::new(),
            chosen: Mutex::default(),
        };
        Self(Arc::new(shared))
    }

    /// Looks what became of the last one, and what this program is if that depends on it. Where that cannot be told there are no
    /// updates.
    pub(super) async fn begin(&self, name: &AgentName, dir: &Path) {
        let mut last = record::read(dir);
        // Of who is on trial it is its parent's.
        if let Some(open) = last.take_if(|last| !self.0.settings.trial && !last.stage.is_end()) {
            match self.digest().await {
                Ok(digest) => last = Some(record::resolve(dir, open, &digest)),
                Err(why) => return tracing::warn!("this agent is not updated: {why}"),
            }
        }
        // An agent that is run again with the same settings is the first.
        let _ = self.0.own.set(Own { name: name.clone(), dir: dir.to_owned() });
        self.0.last.send_replace(last);
    }

    /// The SHA-256 of this program, also if its file was replaced.
    async fn digest(&self) -> Result<Digest, String> {
        let read = async {
            let read = tokio::task::spawn_blocking(|| candidate::digest(Path::new("/proc/self/exe"))).await;
            read.map_err(std::io::Error::other)?
        };
        let digest: Result<_, std::io::Error> = self.0.digest.get_or_try_init(|| read).await;
        digest.copied().map_err(|error| format!("it cannot read its own program: {error}"))
    }

    /// Whether this process is on trial.
    pub(super) fn is_trial(&self) -> bool {
        self.0.settings.trial
    }

    /// What the controller is told of this program unasked.
    pub(super) fn profile(&self) -> Program {
        Program { digest: self.0.digest.get().copied(), update: self.last() }
    }

    /// What it is told if it asks.
    pub(super) async fn program(&self) -> Program {
        if let Err(why) = self.digest().await {
            tracing::warn!("{why}");
        }
        self.profile()
    }

    /// The last change, or the one that is going on.
    pub(super) fn last(&self) -> Option<Update> {
        self.0.last.borrow().clone()
    }

    /// The program that the engine ended for.
    pub fn chosen(&self) -> Option<Candidate> {
        lock(&self.0.chosen).take()
    }

    /// Takes an order, or says why not. What it costs is done later.
    pub(super) async fn accept(&self, order: Order, bundles: Option<&Bundles>) -> Result<(), String> {
        let from = self.digest().await?;
        let own = self.0.own.get().ok_or("it does not know what became of the last update")?;
        let mut waiting = lock(&self.0.waiting);
        if let Some(last) = &*self.0.last.borrow() {
            if last.id == order.id {
                return Ok(());
            }
            if !last.stage.is_end() {
                return Err(format!("it changes to {} already, and is {}; wait for its end", last.to, last.stage));
            }
        }
        self.permit()?;
        swap::check(&self.0.settings.program, &own.name)?;
        let bundles = bundles.ok_or("this agent takes no bundles")?;
        bundles.check(std::slice::from_ref(&order.ticket)).map_err(Failure::into_text)?;
        let update = Update {
            id: order.id,
            to: order.ticket.used.name.clone(),
            bundle: order.ticket.used.digest,
            from,
            from_version: env!("CARGO_PKG_VERSION").to_owned(),
            program: None,
            version: None,
            stage: Stage::Fetching,
            why: None,
            at_ms: clock::unix_ms(),
        };
        record::write(&own.dir, &update).map_err(|error| format!("it cannot note that: {error}"))?;
        tracing::info!(to = %update.to, digest = %update.bundle.short(), "an update was ordered");
        self.0.last.send_replace(Some(update));
        *waiting = Some(order);
        self.0.came.notify_one();
        Ok(())
    }

    fn permit(&self) -> Result<(), String> {
        let Settings { policy, keys, trial, .. } = self.0.settings;
        match policy {
            _ if trial => Err("it is on trial itself; try again".to_owned()),
            Policy::No => Err("its operator lets nobody update it (--updates no)".to_owned()),
            Policy::Signed if !keys => Err("it takes only signed programs (--updates signed) and trusts no key yet; its operator \
                                            names keys with --require-signed FILE, or lets any program in with --updates any"
                .to_owned()),
            // With keys no bundle comes that is not signed.
            Policy::Any | Policy::Signed => Ok(()),
        }
    }

    /// Obeys orders; returns when a program is to be tried and nothing would be cut.
    pub(super) async fn serve(&self, executor: &Executor, jobs: &Jobs, bundles: &Bundles) {
        loop {
            self.0.came.notified().await;
            let Some(order) = lock(&self.0.waiting).take() else { continue };
            match self.obey(&order, executor, jobs, bundles).await {
                Ok(candidate) => {
                    tracing::info!("the new program is tried; jobs go on");
                    *lock(&self.0.chosen) = Some(candidate);
                    return;
                }
                Err(Stopped(stage, why)) => {
                    executor.hold(false);
                    jobs.hold(false);
                    tracing::warn!("no update to {}: {why}", order.ticket.used.name);
                    self.tell(|update| update.at(stage, Some(&why), clock::unix_ms()));
                }
            }
        }
    }

    async fn obey(
        &self,
        order: &Order,
        executor: &Executor,
        jobs: &Jobs,
        bundles: &Bundles,
    ) -> Result<Candidate, Stopped> {
        let refused = |why: String| Stopped(Stage::Refused, why);
        let own = self.0.own.get().ok_or_else(|| refused("the agent has not begun".to_owned()))?;
        let told = watch::Sender::default();
        let ready = timeout(FETCH, bundles.get(std::slice::from_ref(&order.ticket), &told)).await;
        let ready = ready.map_err(|_| refused(format!("the bundle did not come within {FETCH:?}")))?;
        let ready = ready.map_err(|failure| refused(failure.into_text()))?;
        let (root, program) = (ready.root().map(Path::to_owned), self.0.settings.program.clone());
        let (name, was) = (own.name.clone(), self.digest().await.map_err(refused)?);
        let staged = tokio::task::spawn_blocking(move || {
            let root = root.ok_or("the bundle is empty")?;
            let found = candidate::find(&root)?;
            let digest = candidate::digest(&found).map_err(|error| format!("{}: {error}", found.display()))?;
            if digest == was {
                return Ok((digest, None));
            }
            Ok((digest, Some(swap::stage(&found, &digest, &program, &name)?)))
        });
        let staged: Result<_, String> = staged.await.unwrap_or_else(|error| Err(error.to_string()));
        let (digest, staged) = staged.map_err(refused)?;
        self.tell(|update| Update { program: Some(digest), ..update });
        let Some(staged) = staged else {
            return Err(Stopped(Stage::Current, "it runs this program already".to_owned()));
        };
        let about = candidate::ask(staged.path()).await.map_err(refused)?;
        self.tell(|update| Update { version: Some(about.version.clone()), ..update });
        about.check(env!("CARGO_PKG_VERSION"), order.downgrade).map_err(refused)?;
        drop(ready);
        self.tell(|update| update.at(Stage::Draining, None, clock::unix_ms()));
        drain(order, executor, jobs).await?;
        let update = self.tell(|update| update.at(Stage::Trying, None, clock::unix_ms()));
        // From here on the process ends, and the record alone knows.
        let update = update.ok_or_else(|| refused("the agent cannot note what it does".to_owned()))?;
        Ok(Candidate { staged, deadline: order.deadline, dir: own.dir.clone(), update })
    }

    /// Says how it stands, which is on the disk first. `None` if it could not be written.
    fn tell(&self, change: impl FnOnce(Update) -> Update) -> Option<Update> {
        let update = change(self.last()?);
        let written = self.0.own.get().map(|own| record::write(&own.dir, &update))?;
        self.0.last.send_replace(Some(update.clone()));
        written.inspect_err(|error| tracing::warn!("how an update stands is not noted: {error}")).ok()?;
        Some(update)
    }
}

/// Waits until a new start of the agent would cut nothing.
async fn drain(order: &Order, executor: &Executor, jobs: &Jobs) -> Result<(), Stopped> {
    executor.hold(true);
    jobs.hold(true);
    let drained = timeout(order.drain, executor.expendable()).await.is_ok();
    if executor.is_stopping() {
        return Err(Stopped(Stage::RolledBack, "the agent was told to stop meanwhile".to_owned()));
    }
    if drained {
        return Ok(());
    }
    if !order.interrupt {
        let why = format!(
            "after {:?} something still ran that a new start would end; --interrupt ends it, --drain waits longer",
            order.drain
        );
        return Err(Stopped(Stage::Busy, why));
    }
    executor.advance(Phase::Cutting);
    if timeout(CUT, executor.expendable()).await.is_err() {
        executor.kill_plain();
        let _ = timeout(CUT, executor.expendable()).await;
    }
    Ok(())
}

/// Waits until a process on trial has shown that it is an agent.
pub(super) async fn proven(health: &Health) {
    let mut here = health.here();
    loop {
        if here.wait_for(|here| *here).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::select! {
            biased;
            _ = here.wait_for(|here| !*here) => {}
            () = sleep(SETTLE) => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
