//! What agent and shim tell each other through files: what to run, that it started, how it ended.

use std::{ffi::OsString, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::job::Hidden;

/// What a shim is to run. In all it may be 1 MiB.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The file to execute, already looked up. Absolute.
    pub program: OsString,
    /// The arguments, the first of which is the program's name. Not empty.
    pub argv: Vec<OsString>,
    /// The whole environment: nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// Where it runs. Absolute.
    pub cwd: OsString,
    /// What it reads.
    pub stdin: Stdin,
    /// How long it may run, in time that also passes while the machine sleeps; `None` is for ever.
    pub timeout: Option<Duration>,
    /// The signal that asks it to end when its time is up.
    pub signal: i32,
    /// How long it then has before SIGKILL.
    pub grace: Duration,
    /// How long its children may hold its output open after it ended by itself.
    pub linger: Duration,
    /// What becomes of children that outlive it.
    pub background: Background,
    /// The most bytes of output on the disk that were not shipped yet; at the limit the process blocks. 256 KiB at least.
    pub spool_limit: u64,
    /// Whom it runs as; the agent's own user if there is none.
    pub run_as: Option<RunAs>,
    /// What is masked in its output: the values of its secrets, 64 KiB together at most.
    pub redact: Vec<Hidden<Vec<u8>>>,
}

/// What a process reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// Nothing.
    Empty,
    /// This file, opened by the user that the shim runs as. Also a pipe that somebody holds open: `/proc/<pid>/fd/<n>`.
    File(OsString),
}

/// What becomes of children that outlive the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Background {
    /// They are killed: a job ends with its process.
    End,
    /// They run on, without their output: as after `ssh`. If the process was told to end, they end with it.
    Leave,
}

/// A user to run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// The user's id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
    /// All further groups.
    pub groups: Vec<u32>,
}

/// That a process may have run, and how to know it again. Written before it may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The process id, also of its group and session.
    pub pid: u32,
    /// When the process began, in clock ticks after boot (`/proc/PID/stat`). Together with the boot id no other process has it.
    pub start: u64,
    /// The kernel's id of this boot.
    pub boot: String,
    /// The time in milliseconds since the epoch.
    pub time: u64,
    /// The directory of the process's own control group, if it could have one.
    pub cgroup: Option<OsString>,
}

/// How an attempt ended. Written when all its output was spooled and is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What became of the process.
    pub outcome: Outcome,
    /// Why it was told to end, if it was. It may still have ended by itself, which the outcome tells.
    pub cause: Option<Cause>,
    /// When the process ended, in milliseconds since the epoch.
    pub time: u64,
    /// What it used, with its children.
    pub usage: Usage,
    /// All of standard output.
    pub stdout: Total,
    /// All of standard error.
    pub stderr: Total,
    /// Whether processes were killed that outlived it.
    pub killed_leftovers: bool,
}

/// What became of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it; 0 if its number got lost.
    Signal(i32),
    /// The program could not be executed.
    NotExecuted {
        /// The system's error.
        errno: i32,
        /// What could not be done.
        what: String,
    },
}

/// Why a process was told to end. The first reason counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Its time was up.
    TimedOut,
    /// An order said so.
    Cancelled,
}

/// What a process and its children used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Time on a processor in its own code.
    pub user: Duration,
    /// Time on a processor in the kernel.
    pub system: Duration,
    /// The most memory that one of them had, in KiB.
    pub max_rss: u64,
}

/// A finished stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Its bytes.
    pub length: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Spec {
    /// Without arguments and environment, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec").field("program", &self.program).field("cwd", &self.cwd).finish_non_exhaustive()
    }
}
