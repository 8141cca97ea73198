//! What runs on a machine that can only dial out: it keeps a session with the controller and serves the streams that the
//! controller opens.
//!
//! The executor runs processes and answers calls on streams of any kind, the engine keeps it supplied with those of a
//! session. Nothing here reads the environment or opens Kafka: the caller hands both in.

pub mod adopt;
mod artifacts;
pub mod attempt;
mod bundles;
mod calls;
mod engine;
mod environment;
mod events;
mod exec;
mod executor;
pub mod files;
pub mod forward;
mod group;
mod health;
mod host;
mod jobs;
mod join;
mod kept;
mod meeting;
mod orders;
pub mod policy;
mod pump;
pub mod run_as;
mod services;
pub mod shim;
pub mod spool;
mod starts;
mod strays;
mod stream;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod update;
mod wallet;
pub mod warden;
pub mod wasm;

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

pub use engine::run;
pub use health::Health;
pub use host::default_name;
pub use join::join;

use crate::{
    bundle::sign::PublicKey,
    kafka,
    link::{self, LinkError},
    private_file::PrivateFileError,
    service::Services,
};

/// An agent's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// The link's settings; the controller has the same prefix and partitions.
    pub link: link::Config,
    /// Where the agent keeps what must survive it. Agents of different names may share it. Default `/var/lib/rk`.
    pub data: PathBuf,
    /// Labels beside those of the host (`os`, `arch`, `hostname`), over which they win.
    pub labels: BTreeMap<String, String>,
    /// Where processes run that name no directory. Default: the agent's current directory, or the home of whom they run as.
    pub work_dir: Option<PathBuf>,
    /// The agent's own environment. Processes get from it only what is on the allow-list (`PATH HOME USER LOGNAME LANG
    /// LC_* TZ TMPDIR SHELL TERM`). Default: empty, and a usual `PATH`.
    pub environment: Vec<(OsString, OsString)>,
    /// How many executions may run at once; more are refused. Default 256.
    pub max_execs: usize,
    /// How long processes have between SIGTERM and SIGKILL when the agent is stopped. Default 10 s.
    pub grace: Duration,
    /// How many jobs run at once. Default: as many as the machine has processors.
    pub slots: u32,
    /// Programs of the operator that run around jobs and the agent's life: `agent-startup agent-shutdown pre-job post-job
    /// on-cancel`. Default none.
    pub hooks: Option<PathBuf>,
    /// Takes one job, waits until it has ended and its output is in the topic, and stops. Default no.
    pub one_shot: bool,
    /// Stops when nothing ran for so long. Default never.
    pub idle_exit: Option<Duration>,
    /// Takes no new jobs after so long, waits for those that run, and stops. Default never.
    pub max_uptime: Option<Duration>,
    /// Waits for jobs when it is told to stop, and ends them when it is told so again. Default no: they go on under their
    /// shims, and the next agent finds them.
    pub wait_for_jobs: bool,
    /// What starts the shims of jobs. Default: this program.
    pub launcher: shim::Launcher,
    /// What ends the processes of an agent that was killed. Default none: then they may survive a SIGKILL of the agent.
    pub warden: Option<warden::Program>,
    /// What keeps resumable executions while the agent is gone: a program that calls [`shim::run`]. Default none: then there are
    /// none.
    pub keeper: Option<warden::Program>,
    /// Whether other processes of the same user may read the agent's memory, in which its secret is. Default no.
    pub dumpable: bool,
    /// What serves files: a program that calls [`files::run`] with the arguments that follow it. Default none: then no files are
    /// given or taken.
    pub file_server: Option<warden::Program>,
    /// Whereto connections are forwarded. Default: to the agent's own machine.
    pub forwards: forward::Forwards,
    /// What may run, whatever the controller asks for. Default all.
    pub policy: policy::Policy,
    /// What it offers by name, beside executions and jobs. Default none.
    pub services: Services,
    /// As whom executions and jobs run. Default: as the agent. Hooks always do.
    pub run_as: Option<run_as::User>,
    /// What runs WebAssembly modules. Default none: commands that are modules are refused.
    pub wasm: Option<wasm::Runner>,
    /// Where others see how the agent is.
    pub health: Health,
    /// The room for bundles in the data directory, in bytes; a larger one is refused. Default 10 GiB.
    pub bundle_cache: u64,
    /// What the artifacts of one job may have together, in bytes; 0 takes none. Default 10 GiB.
    pub artifact_limit: u64,
    /// Whose bundles are taken. Default anybody's whom the controller lets.
    pub require_signed: Option<Vec<PublicKey>>,
    /// How its program is replaced by another version. Default none: then it cannot be.
    pub updates: Option<update::Updates>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            link: link::Config::default(),
            data: PathBuf::from("/var/lib/rk"),
            labels: BTreeMap::new(),
            work_dir: None,
            environment: Vec::new(),
            max_execs: 256,
            grace: Duration::from_secs(10),
            slots: std::thread::available_parallelism().map_or(1, |n| n.get().try_into().unwrap_or(u32::MAX)),
            hooks: None,
            one_shot: false,
            idle_exit: None,
            max_uptime: None,
            wait_for_jobs: false,
            launcher: shim::Launcher::ourselves(),
            warden: None,
            keeper: None,
            dumpable: false,
            file_server: None,
            forwards: forward::Forwards::default(),
            policy: policy::Policy::default(),
            services: Services::new(),
            run_as: None,
            wasm: None,
            health: Health::default(),
            bundle_cache: 10 << 30,
            artifact_limit: 10 << 30,
            require_signed: None,
            updates: None,
        }
    }
}

/// How an agent stopped that was told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Nothing ran any more.
    Drained,
    /// What ran was ended with grace.
    Cancelled,
    /// What ran was killed.
    Killed,
    /// Another program is to be tried: [`Updates::chosen`](update::Updates::chosen). Jobs and resumable executions go on.
    Update,
    /// It is on trial, and is good.
    Proven,
}

/// Why an agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Trying again is useless.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Its directory cannot be used.
    #[error("the agent's data directory {} cannot be used: {error}; --data names another one", dir.display())]
    Data {
        /// The directory.
        dir: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// The file in which it keeps its credential cannot be used.
    #[error(transparent)]
    Private(#[from] PrivateFileError),
}

impl Error {
    /// The program's exit code: 5 superseded, 7 version, 64 settings, 69 unreachable, 77 refused.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Private(PrivateFileError::OpenToOthers { .. } | PrivateFileError::Owner { .. }) => 77,
            Self::Data { .. } | Self::Private(_) => 64,
            Self::Link(LinkError::Superseded(_)) => 5,
            Self::Link(LinkError::Version(_)) => 7,
            Self::Link(
                LinkError::UnknownAgent(_)
                | LinkError::Removed(_)
                | LinkError::Revoked(_)
                | LinkError::NotEnrolled(_)
                | LinkError::AnotherController { .. }
                | LinkError::Kafka(kafka::Error::Login { .. } | kafka::Error::Authorization { .. }),
            ) => 77,
            Self::Link(LinkError::Kafka(kafka::Error::Config(_))) => 64,
            Self::Link(LinkError::Kafka(_) | LinkError::NoAnswer(_) | LinkError::Ended(_)) => 69,
        }
    }
}
