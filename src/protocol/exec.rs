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
//!
//! # Resumable executions
//!
//! [`StartResumable`] in place of [`Start`] begins an execution that goes on when its streams, the session or either
//! process are gone. The agent keeps stdout and stderr from the last byte that [`Steer::Acked`] told, [`KEPT`] bytes at
//! most; then the process waits. [`Event::Taken`] tells which bytes of stdin will not be asked for again. Both count from the
//! process's first byte; credits count from the first byte of the streams at hand. [`Resume`] opens new streams for the
//! same execution, which replace those that were; its answer is `Resumed` in place of `Started`, and the bytes go on at
//! the offsets that both messages name.
//!
//! Streams that break say nothing about the user. The process gets SIGHUP when [`Steer::HangUp`] says that the user left, when
//! nobody resumed for a moment after [`Steer::Disconnected`], or for the agreed time after anything else. After `Exited` the
//! execution is kept in the same way until `HangUp` or `Disconnected`, so that its end reaches the user.
//!
//! # Terminals
//!
//! A resumable execution may have a [`Terminal`]: then stdin, stdout and stderr are one, whose output comes as stdout, and
//! [`Steer::Resize`] tells the size of the user's. Its input has no end: that of stdin only says that this user types no more. Whoever has one may lose it and come back from somewhere else, so `Disconnected` gives the
//! agreed time and not a moment. A user that comes from somewhere else knows only the id: its [`Resume`] names no user, and the
//! answer is `Attached` with what the next ones need. The user before it is refused from then on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{bundle::Ticket, id::ExecId};

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
    /// That its stdio is a terminal. Resumable executions only.
    pub terminal: Option<Terminal>,
    /// The bundles that it uses. Until the agent has them it says so by [`Event::Preparing`].
    pub bundles: Vec<Ticket>,
}

/// The user's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Its kind: `TERM`, unless the process's own variables set that.
    pub kind: String,
    /// Its size.
    pub size: Size,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// How many fit into a line.
    pub columns: u16,
    /// How many lines there are.
    pub rows: u16,
}

/// What to run so that it may be resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartResumable {
    /// What to run. Who knows its id may resume it.
    pub start: Start,
    /// How long it waits for a [`Resume`].
    pub patience: Duration,
}

/// Comes back to an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The execution.
    pub id: ExecId,
    /// The bytes of stdout that the user has.
    pub stdout: u64,
    /// The same of stderr.
    pub stderr: u64,
    /// Which user comes: 0 is the one that started it. `None` is a new one that takes over; it does not know what the one before had, so
    /// `stdout` and `stderr` mean nothing, and it gets what was not confirmed.
    pub user: Option<u32>,
}

/// How many bytes of an output are kept for a user who did not confirm them. More makes nothing faster.
pub const KEPT: u64 = 8 << 20;

/// Bytes are confirmed after this many at the latest: often enough that nobody waits, seldom enough to cost nothing.
pub const CONFIRM: u64 = 1 << 20;

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
    /// The user has these bytes of an output, counted from the process's first. Resumable executions only, as what follows.
    Acked {
        /// Stdout for [`Channel::InOut`], stderr for [`Channel::Err`].
        channel: Channel,
        /// How many.
        up_to: u64,
    },
    /// The user is gone, or has the end.
    HangUp,
    /// The user's connection ended without a word: a process that died, or a way that was closed. Who lives comes back at once.
    Disconnected,
    /// The user left a terminal on purpose and means to come back. What it typed before is on the way, up to stdin's end.
    Detached,
    /// The user's terminal has this size now. If that is no news, what runs there draws itself anew.
    Resize(Size),
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
    /// The first event after [`Resume`].
    Resumed {
        /// Its process id on the agent.
        pid: u32,
        /// Stdin goes on at this byte; [`u64::MAX`] if the process takes no more.
        stdin: u64,
    },
    /// These bytes of stdin need not be sent again, counted from the process's first.
    Taken {
        /// How many.
        up_to: u64,
    },
    /// The first event after a [`Resume`] of a new user.
    Attached(Attached),
    /// What it needs is on its way; again every [`PREPARING`] or sooner until `Started` or `Refused`. Never after those.
    Preparing {
        /// Bytes that are there.
        done: u64,
        /// Of so many.
        of: u64,
    },
}

/// Where a new user goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The process's id on the agent.
    pub pid: u32,
    /// Stdin goes on at this byte; [`u64::MAX`] if the process takes no more.
    pub stdin: u64,
    /// Stdout at this one.
    pub stdout: u64,
    /// Stderr at this one.
    pub stderr: u64,
    /// Which user it is: what its next [`Resume`] says.
    pub user: u32,
    /// How long the execution waits for it.
    pub patience: Duration,
    /// Whether the process has a terminal.
    pub terminal: bool,
}

/// How often an agent says that it still prepares an execution.
pub const PREPARING: Duration = Duration::from_secs(2);

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
    /// A resumable execution is not there any more, and nobody knows how it ended. May also come instead of `Exited`.
    Gone(String),
    /// The agent's own policy does not allow it.
    Denied(String),
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
