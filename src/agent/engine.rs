//! Keeps a session with the controller, and stops when told to.

use std::{collections::BTreeMap, path::Path, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    Config, Error, Exit, artifacts,
    bundles::{self, Bundles},
    environment::Environment,
    executor::{Executor, Phase},
    health::Health,
    host,
    jobs::{self, Hooks, Jobs},
    starts, strays,
    update::{self, Updates},
    wallet::Wallet,
    wasm::Modules,
};
use crate::{
    backoff::Backoff,
    id::AgentName,
    job::Cancel,
    kafka::{self, SharedCluster},
    link::{self, AgentSession, Credential, Dialer, Held, LinkError, Profile},
};

/// Delays between tries to connect. Each try takes up to the link's connect timeout by itself, so these are short.
pub(super) const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// How long the last words of a session may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the controller shows of us.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the agent of `credential` until it is told to stop or cannot go on.
///
/// Each message of `stops` is one request to stop (SIGTERM or SIGINT): the first drains, the second ends what runs, the
/// third kills it and returns at once. A closed channel asks for nothing.
pub async fn run(
    config: Config,
    cluster: SharedCluster,
    credential: Arc<Credential>,
    mut stops: mpsc::Receiver<()>,
) -> Result<Exit, Error> {
    if !config.dumpable {
        // It fails on no Linux that we know; if it does, that is no reason not to work.
        nix::sys::prctl::set_dumpable(false).ok();
    }
    if config.updates.is_some() {
        strays::adopt();
    }
    let name = credential.name.clone();
    let dir = config.data.join("agent").join(name.as_str());
    let starts =
        starts::count(&dir, crate::clock::unix_ms()).map_err(|error| Error::Data { dir: dir.clone(), error })?;
    let wallet = Wallet::open(&dir, &credential)?;
    let labels = host::labels(&config.labels);
    let unusable = |error| Error::Data { dir: dir.clone(), error };
    let bundles = bundles(&config, &cluster).map_err(unusable)?;
    let jobs = jobs(&config, &dir, &name, &labels, &cluster, bundles.clone()).map_err(unusable)?;
    let executor =
        Executor::new(&config, &name, &labels, Some(jobs.clone()), Some(wallet.clone()), Some(bundles.clone()));
    executor.adopt().await;
    config.health.begin(executor.clone(), jobs.clone());
    let updates = config.updates.as_ref();
    if let Some(updates) = updates {
        // Who is on trial takes no work.
        executor.hold(updates.is_trial());
        jobs.hold(updates.is_trial());
    }
    let profile = || Profile {
        version: VERSION.to_owned(),
        labels: labels.clone(),
        pid: std::process::id(),
        program: updates.map(Updates::profile),
    };
    jobs.hook("agent-startup").await;
    if let Some(updates) = updates {
        updates.begin(&name, &dir).await;
    }
    let first = profile();
    let dialer = tokio::select! {
        biased;
        () = asked(&mut stops) => return Ok(Exit::Drained),
        dialer = open(&cluster, &config.link, wallet.held(), &first, starts) => dialer?,
    };

    let trial = updates.is_some_and(Updates::is_trial);
    // They outlive the sessions: what lost its controller still has its grace.
    let mut streams = JoinSet::new();
    let closing = watch::Sender::new(false);
    let (outcome, end) = {
        let mut sessions = pin!(sessions(
            (&dialer, &profile),
            (&executor, &config.health),
            &wallet,
            &mut streams,
            closing.subscribe()
        ));
        let mut stop = pin!(stop(&mut stops, &executor, &jobs, &config));
        let mut retire = pin!(retire(&config, &executor, &jobs));
        let mut leave = pin!(leave(&config, &executor, &jobs, &bundles));
        tokio::select! {
            biased;
            exit = &mut stop => {
                closing.send_replace(true);
                if exit != Exit::Killed {
                    tokio::time::timeout(FAREWELL, sessions).await.ok();
                }
                (Ok(exit), exit)
            }
            exit = &mut retire, if !trial => {
                closing.send_replace(true);
                tokio::time::timeout(FAREWELL, sessions).await.ok();
                (Ok(exit), exit)
            }
            exit = &mut leave => {
                closing.send_replace(true);
                tokio::time::timeout(FAREWELL, sessions).await.ok();
                (Ok(exit), exit)
            }
            error = &mut sessions => {
                executor.advance(Phase::Draining);
                let exit = tokio::select! {
                    biased;
                    exit = &mut stop => exit,
                    () = idle(&executor, trial) => Exit::Drained,
                };
                (error.map_or(Ok(exit), |error| Err(error.into())), exit)
            }
        }
    };
    match end {
        Exit::Drained | Exit::Cancelled | Exit::Killed if !trial => executor.kill_all(),
        // What is kept is for the one who comes.
        _ => executor.kill_plain(),
    }
    if end != Exit::Killed {
        jobs.hook("agent-shutdown").await;
    }
    if end != Exit::Killed {
        dialer.close().await;
    }
    outcome
}

/// What fetches bundles.
fn bundles(config: &Config, cluster: &SharedCluster) -> std::io::Result<Bundles> {
    let settings = bundles::Settings {
        data: config.data.clone(),
        limit: config.bundle_cache,
        keys: config.require_signed.clone(),
        topic: config.link.prefix.blobs(),
        run_as: config.run_as.clone(),
    };
    Bundles::new(settings, cluster.clone())
}

/// What takes jobs, and goes on with those that were left.
fn jobs(
    config: &Config,
    dir: &Path,
    name: &AgentName,
    labels: &BTreeMap<String, String>,
    cluster: &SharedCluster,
    bundles: Bundles,
) -> std::io::Result<Jobs> {
    // What is started must be found from any directory.
    let dir = std::path::absolute(dir)?;
    let work = dir.join("work");
    if let Some(user) = &config.run_as {
        user.let_through(&std::path::absolute(&config.data)?, &work)?;
    }
    let settings = jobs::Settings {
        jobs: dir.join("jobs"),
        work,
        mark: dir.join("mark"),
        topic: config.link.prefix.logs(),
        artifacts: artifacts::Settings { topic: config.link.prefix.artifacts(), limit: config.artifact_limit },
        // The second would be one too many.
        slots: if config.one_shot { config.slots.min(1) } else { config.slots },
        hooks: Hooks { dir: config.hooks.clone() },
        policy: config.policy.clone(),
        run_as: config.run_as.clone(),
        modules: Modules { runner: config.wasm.clone(), data: config.data.clone() },
        launcher: config.launcher.clone(),
        bundles,
        environment: Environment::of_agent(config.environment.iter().cloned(), name, labels),
    };
    Jobs::new(settings, cluster.clone())
}

/// Opens the link, trying until Kafka is there.
async fn open(
    cluster: &SharedCluster,
    config: &link::Config,
    held: &Held,
    profile: &Profile,
    starts: u64,
) -> Result<Dialer, LinkError> {
    let mut backoff = RETRY;
    let name = held.credential().name.clone();
    let mut complaint = Complaint::default();
    loop {
        let open = Dialer::open(cluster.clone(), config.clone(), held.clone(), profile.clone(), starts);
        match open.await {
            Ok(dialer) => return Ok(dialer),
            // Certificates that are wrong at the first contact are a wrong setting; later they may be a rotation.
            Err(error @ LinkError::Kafka(kafka::Error::Unreachable { hop: kafka::Hop::Tls, .. })) => return Err(error),
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => complaint.make(name.as_str(), &error),
        }
        tokio::time::sleep(backoff.next(rand::random())).await;
    }
}

/// One session after the other, until an error that trying again does not mend, or `closing`.
async fn sessions(
    (dialer, profile): (&Dialer, impl Fn() -> Profile),
    (executor, health): (&Executor, &Health),
    wallet: &Wallet,
    streams: &mut JoinSet<()>,
    mut closing: watch::Receiver<bool>,
) -> Option<LinkError> {
    let name = wallet.held().credential().name.clone();
    let name = name.as_str();
    let mut backoff = RETRY;
    let mut complaint = Complaint::default();
    loop {
        dialer.describe(profile());
        let connected = tokio::select! {
            biased;
            () = closed(&mut closing) => return None,
            connected = dialer.connect() => connected,
        };
        let error = match connected {
            Ok(session) => {
                tracing::info!("agent {name} online, version {VERSION}");
                wallet.met(session.controller()).await;
                backoff.reset();
                complaint = Complaint::default();
                let _here = health.session();
                serve(session, executor, streams, &mut closing).await?
            }
            Err(error) => error,
        };
        if is_fatal(&error) {
            return Some(error);
        }
        complaint.make(name, &error);
        tokio::time::sleep(backoff.next(rand::random())).await;
    }
}

/// Serves a session's streams and says why it ended; `None` if we ended it.
async fn serve(
    mut session: AgentSession,
    executor: &Executor,
    streams: &mut JoinSet<()>,
    closing: &mut watch::Receiver<bool>,
) -> Option<LinkError> {
    loop {
        tokio::select! {
            biased;
            accepted = session.accept() => match accepted {
                Ok((_lane, send, recv)) => {
                    let executor = executor.clone();
                    streams.spawn(async move { executor.serve(send, recv).await });
                }
                Err(error) => return Some(error),
            },
            Some(_) = streams.join_next() => {}
            () = closed(closing) => {
                session.close("the agent stops");
                return None;
            }
        }
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // The sender is dropped after us.
    closing.wait_for(|closing| *closing).await.ok();
}

/// Follows the requests to stop; ends when nothing runs any more, or need not be waited for.
async fn stop(stops: &mut mpsc::Receiver<()>, executor: &Executor, jobs: &Jobs, config: &Config) -> Exit {
    asked(stops).await;
    if config.updates.as_ref().is_some_and(Updates::is_trial) {
        // Nothing that runs is its own.
        return Exit::Drained;
    }
    let wait = config.wait_for_jobs;
    tracing::info!("stopping: nothing new is taken, {} running; stop again to end them", executor.running());
    executor.advance(Phase::Draining);
    jobs.drain();
    // Jobs go on under their shims, unless they are to be waited for.
    let idle = async || {
        executor.idle().await;
        if wait {
            jobs.settled().await;
        }
    };
    tokio::select! {
        biased;
        () = idle() => return Exit::Drained,
        () = asked(stops) => {}
    }
    tracing::info!("stopping: {} running are ended; stop again to kill them", executor.running());
    executor.advance(Phase::Cancelling);
    if wait {
        jobs.cancel_all(Cancel::default());
    }
    tokio::select! {
        biased;
        () = idle() => Exit::Cancelled,
        () = asked(stops) => {
            executor.kill_all();
            Exit::Killed
        }
    }
}

/// Waits until nothing is served; of who is on trial, only what is its own.
async fn idle(executor: &Executor, trial: bool) {
    if trial { executor.expendable().await } else { executor.idle().await }
}

/// Ends when another program is to be tried, or this one was.
async fn leave(config: &Config, executor: &Executor, jobs: &Jobs, bundles: &Bundles) -> Exit {
    match &config.updates {
        Some(updates) if updates.is_trial() => {
            update::proven(&config.health).await;
            Exit::Proven
        }
        Some(updates) => {
            updates.serve(executor, jobs, bundles).await;
            Exit::Update
        }
        None => std::future::pending().await,
    }
}

/// Ends when the agent has done what it was started for.
async fn retire(config: &Config, executor: &Executor, jobs: &Jobs) -> Exit {
    let never = std::future::pending::<()>;
    tokio::select! {
        () = async { if config.one_shot { jobs.begun().await } else { never().await } } => {
            tracing::info!("this agent takes one job, and has it");
        }
        () = async { match config.idle_exit { Some(patience) => jobs.idle_for(patience).await, None => never().await } } => {
            tracing::info!("stopping: there was nothing to do");
        }
        () = async { match config.max_uptime { Some(most) => tokio::time::sleep(most).await, None => never().await } } => {
            tracing::info!("stopping: this agent is old enough");
        }
    }
    jobs.drain();
    jobs.settled().await;
    executor.advance(Phase::Draining);
    executor.idle().await;
    Exit::Drained
}

pub(super) async fn asked(stops: &mut mpsc::Receiver<()>) {
    if stops.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Says why there is no session, once for each reason and not for each try.
#[derive(Default)]
pub(super) struct Complaint(String);

impl Complaint {
    pub fn make(&mut self, name: &str, error: &LinkError) {
        let text = error.to_string();
        if text != self.0 {
            tracing::warn!("agent {name} offline: {text}; trying again");
            self.0 = text;
        }
    }
}

/// Whether trying again can only fail in the same way.
pub(super) fn is_fatal(error: &LinkError) -> bool {
    match error {
        LinkError::UnknownAgent(_)
        | LinkError::Removed(_)
        | LinkError::Revoked(_)
        | LinkError::NotEnrolled(_)
        | LinkError::AnotherController { .. }
        | LinkError::Superseded(_)
        | LinkError::Version(_) => true,
        LinkError::NoAnswer(_) | LinkError::Ended(_) => false,
        LinkError::Kafka(error) => {
            matches!(error, kafka::Error::Login { .. } | kafka::Error::Authorization { .. } | kafka::Error::Config(_))
        }
    }
}
