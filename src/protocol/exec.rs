//! Running a process on an agent with its stdio streamed.
//!
//! The controller opens a control stream with [`Start`] and then sends [`Steer`] messages; the agent answers with
//! [`Event`]s, the last of which is `Exited` or `Refused`. Bytes run on two bulk streams that the controller opens
//! with [`Stdio`]: stdin towards the agent and stdout back on one, stderr back on the other. The end of a direction is
//! the end of the stream's direction.
//!
//! The controller keeps its direction of the control stream open until the last event. Its end, a reset or a lost
//! session before that means that the user went away: the agent sends the process group SIGHUP, and after `grace`
//! SIGKILL. A *reset* of stdin means the same; its *end* is the process's end of input, so a controller whose user
//! vanished resets stdin and does not finish it. A controller that stops reading stdout or stderr breaks the
//! process's pipe, as `| head` does. If the agent loses a stdio stream, it ends the process in the same way and resets
//! the control stream with [`CANCELLED`](super::CANCELLED): nobody then takes a truncated output for a whole one.
//!
//! Each of the three directions may run [`INITIAL`](super::allowance::INITIAL) bytes ahead, not counting [`Stdio`], and
//! further as its receiver allows by [`Steer::Allow`] and [`Event::Allow`]. Limits are totals from the direction's start
//! and only the highest counts, so they may be repeated and left out. A sender that waits for one goes on without it when
//! its stream was stopped or the execution has ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::ExecId;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Names the execution: the stdio streams refer to it.
    pub id: ExecId,
    /// Program and arguments; looked up in the process's `PATH`, which is the agent's unless `env` replaces it.
    pub argv: Vec<String>,
    /// Added to the process's environment.
    pub env: Vec<(String, String)>,
    /// Where it runs; the agent's work directory if none.
    pub cwd: Option<String>,
    /// How long it may run, on the agent's clock.
    pub timeout: Option<Duration>,
    /// How long it has between SIGHUP or SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Whether stdin is a pipe; otherwise it is `/dev/null`.
    pub stdin: bool,
}

/// Which bytes a bulk stream carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stdio {
    /// The execution.
    pub id: ExecId,
    /// Which of its two streams.
    pub channel: Channel,
}

/// The two stdio streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Channel {
    /// Stdin towards the process, stdout back.
    InOut,
    /// Stderr back; nothing towards the process.
    Err,
}

/// Controller to agent, after [`Start`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Steer {
    /// Send the process group this signal, by its number on Linux.
    Signal(i32),
    /// Output may run on.
    Allow {
        /// Stdout for [`Channel::InOut`], stderr for [`Channel::Err`].
        channel: Channel,
        /// How many bytes it may have sent in total.
        up_to: u64,
    },
}

/// Agent to controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The process runs.
    Started {
        /// Its process id on the agent.
        pid: u32,
    },
    /// It was not started.
    Refused(Refusal),
    /// It ended, and all its output was handed to the stdio streams, which were finished.
    Exited(Outcome),
    /// Stdin may run on. Never the first event.
    Allow {
        /// How many bytes it may have sent in total; [`u64::MAX`] when nobody reads them any more.
        up_to: u64,
    },
}

/// Why a process was not started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No such program or directory: like a shell's 127.
    NotFound(String),
    /// It may not be executed: like a shell's 126.
    NotExecutable(String),
    /// The agent takes no new work: it drains.
    Draining,
    /// Anything else (no processes left, malformed request, stdio streams did not come).
    Failed(String),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Its timeout passed and it was killed.
    TimedOut,
}
