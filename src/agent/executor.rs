//! Serves the streams that the controller opens: reads what each is for and hands it on.
//!
//! It knows nothing of sessions. It counts what it serves, refuses new executions when it drains, and ends those that run
//! when it is told to.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};

use super::{
    Config,
    bundles::{Bundles, Ready},
    calls,
    environment::Environment,
    exec, forward,
    group::Groups,
    jobs::Jobs,
    kept::{self, Kept},
    meeting::Meeting,
    policy::Policy,
    run_as::User,
    services,
    stream::{Duplex, RecvHalf, SendHalf},
    update::Updates,
    wallet::Wallet,
    warden::Program,
    wasm::{Modules, Place},
};
use crate::{
    frame::{self, FrameError},
    id::AgentName,
    protocol::{
        CANCELLED, Open, UNKNOWN_STREAM,
        allowance::Budget,
        exec::{Refusal, Start},
    },
    service::{Services, files},
};

/// How long a stream may take to say what it is for.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// What may wait for all processes that don't read their stdin, above the first 256 KiB of each: enough for the largest
/// window of 16 that took many megabytes. Others stay at less, which costs them speed and nothing else.
const STDIN_BUDGET: u64 = 128 << 20;

/// A handle of the executor; clones are the same.
#[derive(Clone)]
pub(super) struct Executor(Arc<Shared>);

/// What all executions share.
pub(super) struct Shared {
    pub meeting: Meeting,
    pub groups: Arc<Groups>,
    pub environment: Environment,
    pub work_dir: PathBuf,
    /// As whom executions run; as the agent if there is nobody.
    pub run_as: Option<User>,
    /// How long processes get when the agent stops.
    pub grace: Duration,
    pub phase: watch::Sender<Phase>,
    /// No new ones for a while.
    held: AtomicBool,
    /// What the windows of stdin grow by.
    pub budget: Budget,
    /// What serves files.
    file_server: Option<Program>,
    /// What runs modules.
    pub modules: Modules,
    /// What may run.
    pub policy: Policy,
    /// What takes jobs; nothing in tests of executions.
    jobs: Option<Jobs>,
    /// What fetches bundles; nothing in tests of executions.
    pub bundles: Option<Bundles>,
    /// What takes new credentials; nothing in tests of executions.
    pub wallet: Option<Wallet>,
    /// What replaces this program; nothing if nobody can.
    pub updates: Option<Updates>,
    /// Executions that outlive their streams.
    pub kept: Kept,
    /// What is offered by name.
    pub services: Services,
    /// As many may be served as executions.
    pub services_room: Semaphore,
    slots: Arc<Semaphore>,
    max_execs: usize,
    /// Calls and executions that are being served.
    active: watch::Sender<usize>,
    /// Those that are kept, which are among them.
    kept_active: watch::Sender<usize>,
    since: Instant,
}

/// How far the agent is on its way out. It only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// New executions are taken.
    Open,
    /// None are; those that run go on.
    Draining,
    /// Those are ended that do not outlive this process.
    Cutting,
    /// Those that run are ended.
    Cancelling,
}

/// Counts one served call or execution.
struct Active<'a>(&'a watch::Sender<usize>);

impl Executor {
    /// An executor for the agent `name`, whose labels are `labels`.
    pub fn new(
        config: &Config,
        name: &AgentName,
        labels: &BTreeMap<String, String>,
        jobs: Option<Jobs>,
        wallet: Option<Wallet>,
        bundles: Option<Bundles>,
    ) -> Self {
        let run_as = config.run_as.clone();
        let usual = || run_as.as_ref().map_or_else(|| Path::new(".").to_owned(), User::work_dir);
        let work_dir = config.work_dir.clone().unwrap_or_else(usual);
        // Absolute: processes are looked up from here and started from there. It fails only where there is no current
        // directory, and then starts name the cause.
        let work_dir = std::path::absolute(&work_dir).unwrap_or(work_dir);
        let mut environment = Environment::of_agent(config.environment.iter().cloned(), name, labels);
        if let Some(user) = &run_as {
            user.describe(&mut environment);
        }
        Self(Arc::new(Shared {
            meeting: Meeting::new(config.max_execs.saturating_mul(4)),
            groups: Groups::new(config.warden.clone()),
            environment,
            work_dir,
            run_as,
            grace: config.grace,
            phase: watch::Sender::new(Phase::Open),
            held: AtomicBool::new(false),
            budget: Budget::new(STDIN_BUDGET),
            file_server: config.file_server.clone(),
            modules: Modules { runner: config.wasm.clone(), data: config.data.clone() },
            policy: config.policy.clone(),
            jobs,
            bundles,
            wallet,
            kept: Kept::new(config.data.join("agent").join(name.as_str()).join("execs"), config.keeper.clone()),
            services: forward::services(services::with_own(config.services.clone(), name, labels), &config.forwards),
            services_room: Semaphore::new(config.max_execs),
            slots: Arc::new(Semaphore::new(config.max_execs)),
            max_execs: config.max_execs,
            active: watch::Sender::new(0),
            kept_active: watch::Sender::new(0),
            updates: config.updates.clone(),
            since: Instant::now(),
        }))
    }

    /// Takes up what an earlier process of this agent left running.
    pub async fn adopt(&self) {
        kept::adopt(&self.0).await;
    }

    /// Serves one stream to its end.
    pub async fn serve(&self, mut send: impl SendHalf, mut recv: impl RecvHalf) {
        let shared = &*self.0;
        match tokio::time::timeout(OPEN_PATIENCE, frame::read::<Open>(&mut recv)).await {
            Ok(Ok(Open::Call(call))) => {
                let _active = Active::enter(&shared.active);
                calls::serve(call, shared, send, recv).await;
            }
            Ok(Ok(Open::Exec(start))) => {
                let _active = Active::enter(&shared.active);
                exec::serve(shared, start, Box::new(send), Box::new(recv)).await;
            }
            Ok(Ok(Open::ExecResumable(message))) => {
                let _active = Active::enter(&shared.active);
                kept::start(self.0.clone(), message, Box::new(send), Box::new(recv)).await;
            }
            Ok(Ok(Open::ExecResume(message))) => {
                kept::resume(self.0.clone(), message, Box::new(send), Box::new(recv)).await;
            }
            Ok(Ok(Open::Stdio(stdio))) => {
                let stream = Duplex { send: Box::new(send), recv: Box::new(recv) };
                let met = shared.meeting.arrive(stdio.id, stdio.channel, stream, exec::STDIO_PATIENCE).await;
                if let Err(mut turned_away) = met {
                    turned_away.send.reset(CANCELLED);
                }
            }
            Ok(Ok(Open::Jobs(hello))) => match &shared.jobs {
                Some(jobs) => jobs.serve(hello, send, recv).await,
                None => send.reset(UNKNOWN_STREAM),
            },
            Ok(Ok(Open::Service(start))) => {
                let _active = Active::enter(&shared.active);
                services::serve(&self.0, start, send, recv).await;
            }
            Ok(Err(FrameError::Malformed(_) | FrameError::TooLarge { .. })) => send.reset(UNKNOWN_STREAM),
            Ok(Err(FrameError::Ended | FrameError::Io(_))) | Err(_) => send.reset(CANCELLED),
        }
    }

    /// Moves on towards the end; never back.
    pub fn advance(&self, to: Phase) {
        self.0.phase.send_if_modified(|phase| {
            let forward = to > *phase;
            *phase = to.max(*phase);
            forward
        });
    }

    /// Takes nothing new, or takes it again.
    pub fn hold(&self, held: bool) {
        self.0.held.store(held, Relaxed);
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        matches!(*self.0.phase.borrow(), Phase::Draining | Phase::Cancelling)
    }

    /// Waits until nothing is served that would end with this process.
    pub async fn expendable(&self) {
        let (mut active, mut kept) = (self.0.active.subscribe(), self.0.kept_active.subscribe());
        while *active.borrow_and_update() > *kept.borrow_and_update() {
            // The senders are ours, so waiting cannot fail.
            tokio::select! {
                _ = active.changed() => {}
                _ = kept.changed() => {}
            }
        }
    }

    /// SIGKILL to every process that would end with this one.
    pub fn kill_plain(&self) {
        self.0.groups.kill_all();
    }

    /// SIGKILL to every process, at once.
    pub fn kill_all(&self) {
        self.0.groups.kill_all();
        self.0.kept.kill_all();
    }

    /// Executions that run.
    pub fn running(&self) -> usize {
        self.0.running()
    }

    /// Waits until no call and no execution is being served.
    pub async fn idle(&self) {
        // The sender is ours, so waiting cannot fail.
        self.0.active.subscribe().wait_for(|active| *active == 0).await.ok();
    }
}

impl Shared {
    /// Whether the agent's own policy allows it.
    pub fn check(&self, start: &Start) -> Result<(), Refusal> {
        self.policy.check(&start.argv, start.env.len(), start.cwd.is_some()).map_err(Refusal::Denied)
    }

    /// The file to execute for a command, and its arguments.
    pub fn executable(
        &self,
        start: &Start,
        environment: &Environment,
        cwd: &Path,
        bundles: &Ready,
    ) -> Result<(PathBuf, Vec<OsString>), Refusal> {
        let program = &start.argv[0];
        if program != files::PROGRAM {
            let argv = start.argv.iter().map(Into::into).collect();
            let file = bundles.find(environment, program, cwd)?;
            let place = Place { bundle: bundles.holding(&file), ..Place::of_exec(cwd) };
            return self.modules.executable(file.clone(), argv, environment, place);
        }
        let Some(server) = &self.file_server else {
            return Err(Refusal::Failed("this agent serves no files".to_owned()));
        };
        let roots = self.policy.roots().iter().map(|root| root.clone().into_os_string());
        let argv = [OsString::from("rk")].into_iter().chain(server.args.iter().cloned()).chain(roots).collect();
        Ok((server.path.clone(), argv))
    }

    /// Whether new work is taken.
    pub fn is_open(&self) -> bool {
        *self.phase.borrow() == Phase::Open && !self.held.load(Relaxed)
    }

    /// Room for one more execution.
    pub fn slot(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        if !self.is_open() {
            return Err(Refusal::Draining);
        }
        self.slots.clone().try_acquire_owned().map_err(|_| {
            Refusal::Failed(format!("{} executions run already, which is this agent's limit", self.max_execs))
        })
    }

    /// Executions that run.
    pub fn running(&self) -> usize {
        self.max_execs - self.slots.available_permits()
    }

    /// How many executions may run.
    pub fn max_execs(&self) -> usize {
        self.max_execs
    }

    /// How long the agent runs.
    pub fn uptime(&self) -> Duration {
        self.since.elapsed()
    }
}

/// [`Active`] for what outlives the stream that began it.
pub(super) struct Working(Arc<Shared>);

impl Working {
    pub fn new(shared: &Arc<Shared>) -> Self {
        // In this order it never looks as if something was kept that is not served.
        shared.active.send_modify(|active| *active += 1);
        shared.kept_active.send_modify(|kept| *kept += 1);
        Self(shared.clone())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.kept_active.send_modify(|kept| *kept -= 1);
        self.0.active.send_modify(|active| *active -= 1);
    }
}

impl<'a> Active<'a> {
    fn enter(active: &'a watch::Sender<usize>) -> Self {
        active.send_modify(|active| *active += 1);
        Self(active)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|active| *active -= 1);
    }
}
