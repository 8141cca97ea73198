//! What a submitter asks for.
//!
//! The bytes of these types are journalled and never change: a field that comes later comes in a new type and a new
//! variant of [`Event`](super::Event).

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::Hidden;
use crate::{bundle::Used, id::AgentName, selector::Selector};

/// A job as it was submitted. [`check`](Spec::check) says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// What people call it; need not be unique. The process sees it as `RK_JOB_NAME`.
    pub name: Option<String>,
    /// What is run.
    pub command: Command,
    /// Added to the process's environment.
    pub env: BTreeMap<String, String>,
    /// Where it runs; relative to the workspace, which is the default.
    pub cwd: Option<String>,
    /// On which agent.
    pub target: Target,
    /// How long it may run, on the agent's clock; for ever if none.
    pub timeout: Option<Duration>,
    /// Greater goes first, 0 to [`Limits::priority`](super::Limits::priority). Default [`DEFAULT_PRIORITY`](Spec::DEFAULT_PRIORITY).
    pub priority: u8,
    /// How often it is run again if nobody knows how an attempt ended. Default 0: such a job is `lost`. An attempt that
    /// was given up may still run while the next one does.
    pub retries: u8,
    /// What the process reads; nothing if none.
    pub stdin: Option<Stdin>,
    /// By name.
    pub secrets: BTreeMap<String, JobSecret>,
    /// Of the jobs that have the same key at most one is with an agent.
    pub concurrency: Option<String>,
    /// Who asked for it; what is fair is counted by this.
    pub submitter: String,
    /// What becomes of its work directory.
    pub workspace: Workspace,
    /// How it is ended when its end is asked for, or its time is over.
    pub cancel: Cancel,
    /// How its output is written into the topic.
    pub log_format: LogFormat,
    /// How many bytes of output wait on the agent's disk for Kafka before the process must wait.
    pub spool_limit: u64,
    /// The bundles that it uses.
    pub bundles: Vec<Used>,
    /// Which files of its work directory are kept when it has ended: [patterns](super::Glob).
    pub artifacts: Vec<String>,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Program and arguments, the program looked up in the process's `PATH`.
    Argv(Vec<String>),
    /// A script, which the agent writes to a file.
    Script {
        /// The file's content.
        text: String,
        /// What runs the file, its name being the last argument. Empty: the script's `#!` line, or `/bin/sh`.
        interpreter: Vec<String>,
    },
}

/// Where a job may run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// On this agent alone.
    Agent(AgentName),
    /// On any agent whose labels match.
    Selector(Selector),
}

/// What the process reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// These bytes.
    Inline(Vec<u8>),
}

/// A secret of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSecret {
    /// Masked in the log.
    pub value: Hidden<Vec<u8>>,
    /// How it gets to the process.
    pub route: SecretRoute,
}

/// How a secret gets to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretRoute {
    /// In the variable of its name.
    Variable,
    /// In a file that only the process's user can read; the variable of its name holds the path.
    File,
}

/// What becomes of the work directory when the job has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Workspace {
    /// It is removed.
    Remove,
    /// It is kept, if it holds no more than so many bytes.
    Keep {
        /// In bytes.
        quota: u64,
    },
}

/// How a process is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// What its process group is sent first, by its number on Linux.
    pub signal: i32,
    /// How long after that it is killed.
    pub grace: Duration,
}

/// How output is written into the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// Encrypted: nobody but controller and agent reads it.
    Sealed,
    /// Plain with a proof of its origin: every consumer of the topic reads it.
    Open,
}

impl Spec {
    /// The priority of who asks for none.
    pub const DEFAULT_PRIORITY: u8 = 5;
    /// Output that waits on the agent's disk, unless told otherwise: 1 GiB.
    pub const DEFAULT_SPOOL_LIMIT: u64 = 1 << 30;

    /// Runs `argv` on `target`, everything else as usual.
    pub fn new(
        submitter: impl Into<String>,
        target: Target,
        argv: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            name: None,
            command: Command::Argv(argv.into_iter().map(Into::into).collect()),
            env: BTreeMap::new(),
            cwd: None,
            target,
            timeout: None,
            priority: Self::DEFAULT_PRIORITY,
            retries: 0,
            stdin: None,
            secrets: BTreeMap::new(),
            concurrency: None,
            submitter: submitter.into(),
            workspace: Workspace::Remove,
            cancel: Cancel::default(),
            log_format: LogFormat::Sealed,
            spool_limit: Self::DEFAULT_SPOOL_LIMIT,
            bundles: Vec::new(),
            artifacts: Vec::new(),
        }
    }

    /// About how many bytes it takes in memory and in the journal; never less than its encoding has.
    pub fn weight(&self) -> usize {
        /// What an element costs beside its text.
        const EACH: usize = 32;
        let texts = |texts: &[String]| texts.iter().map(|text| text.len() + EACH).sum::<usize>();
        let command = match &self.command {
            Command::Argv(argv) => texts(argv),
            Command::Script { text, interpreter } => text.len() + texts(interpreter),
        };
        let target = match &self.target {
            Target::Agent(name) => name.as_str().len(),
            Target::Selector(selector) => selector.to_string().len(),
        };
        let env: usize = self.env.iter().map(|(name, value)| name.len() + value.len() + EACH).sum();
        let stdin = self.stdin.as_ref().map_or(0, |Stdin::Inline(bytes)| bytes.len());
        let secrets = self.secrets.iter().map(|(name, secret)| name.len() + secret.value.expose().len() + EACH);
        let words = [&self.name, &self.cwd, &self.concurrency].into_iter().flatten().map(String::len);
        let words = words.sum::<usize>() + self.submitter.len();
        let bundles: usize = self.bundles.iter().map(|used| 32 + used.name.as_str().len() + EACH).sum();
        let artifacts = texts(&self.artifacts);
        artifacts + bundles + 8 * EACH + command + target + env + stdin + secrets.sum::<usize>() + words
    }

    /// Forgets what takes room: environment, stdin, secrets, and all of the command but its start.
    pub(super) fn trim(&mut self) {
        /// As much of a command as fits into a list.
        const SHOWN: usize = 256;
        let cut = |text: &str| text.chars().take(SHOWN / 4).collect::<String>();
        match &mut self.command {
            Command::Argv(argv) => {
                argv.truncate(4);
                argv.iter_mut().for_each(|arg| *arg = cut(arg));
                argv.shrink_to_fit();
            }
            Command::Script { text, interpreter } => {
                *text = cut(text);
                interpreter.clear();
            }
        }
        self.artifacts.truncate(4);
        self.artifacts.iter_mut().for_each(|pattern| *pattern = cut(pattern));
        self.env.clear();
        self.stdin = None;
        self.secrets.clear();
    }
}

impl Default for Cancel {
    /// SIGTERM, and 10 s until SIGKILL.
    fn default() -> Self {
        Self { signal: 15, grace: Duration::from_secs(10) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(name) => name.fmt(f),
            Self::Selector(selector) if selector.is_empty() => f.write_str("any agent"),
            Self::Selector(selector) => write!(f, "-l {selector}"),
        }
    }
}
