//! Running a process through the API: `POST /v1/exec` with `Upgrade: rk-exec/1`.
//!
//! After 101 both sides send frames: `[kind u8][length u32 little-endian][payload]`, of at most
//! [`MAX_PAYLOAD`] bytes of payload.
//!
//! | kind | direction | payload |
//! |---|---|---|
//! | 1 start | to the controller | [`ExecRequest`] in JSON; the first frame, exactly once |
//! | 2 stdin | to the controller | bytes, as many as there is credit for |
//! | 3 stdin's end | to the controller | – |
//! | 4 signal | to the controller | `i32` little-endian: sent to the process group |
//! | 17 started | to the client | `u32` little-endian: the process id on the agent |
//! | 18 stdout | to the client | bytes |
//! | 19 stderr | to the client | bytes |
//! | 20 stdout's end | to the client | – |
//! | 21 stderr's end | to the client | – |
//! | 22 exit | to the client | [`ExecEnd`] in JSON; the last frame, always |
//! | 23 stdin credit | to the client | `u32` little-endian: so many more bytes of stdin may be sent |
//!
//! An [`ExecRequest`] with [`ExecRequest::resume`] begins an execution that survives its connection, the controller and the
//! agent's process. Its frames in addition:
//!
//! | kind | direction | payload |
//! |---|---|---|
//! | 5 resume | to the controller | [`ExecResume`] in JSON; the first frame of another connection, instead of start |
//! | 6 leave | to the controller | –: the client goes, or has the end |
//! | 7 confirm | to the controller | two `u64` little-endian: the client has these bytes of stdout and of stderr |
//! | 8 size | to the controller | two `u16` little-endian: the columns and the rows of the client's terminal |
//! | 9 detach | to the controller | –: the client leaves the terminal and means to come back; its last frame |
//! | 24 resumed | to the client | `u64` little-endian: stdin goes on at this byte; the largest if the process takes no more |
//! | 25 taken | to the client | `u64` little-endian: these bytes of stdin will not be asked for again |
//! | 26 lost | to the client | text; the last frame: the execution cannot be reached now and may be resumed |
//! | 27 attached | to the client | [`ExecAttached`] in JSON: the answer to a resume that names no user |
//!
//! Bytes count from the process's first. The client keeps what was not taken of stdin, 8 MiB at most, and confirms output each
//! MiB; the agent keeps what was not confirmed, 8 MiB at most. A client that closes the connection without leaving has two seconds to come
//! back, one that is cut off the time that the request agreed.
//!
//! With [`ExecRequest::terminal`] the process has a terminal, whose output comes as stdout. Then a closed connection too leaves the agreed time,
//! so that somebody who knows the id can come back from anywhere: by a resume without a user, which gets what no client confirmed, and
//! shuts the client before it out.
//!
//! The client starts with [`STDIN_WINDOW`] bytes of credit. Because it never sends more than the controller can put
//! aside, a signal is never stuck behind stdin that the process does not read. Towards the client it is TCP that slows
//! the process down. A connection that closes before `exit` gives the process up: SIGHUP, and after the grace period
//! SIGKILL.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::id::{AgentName, ExecId};

/// The largest payload of a frame: 256 KiB.
pub const MAX_PAYLOAD: usize = 256 << 10;

/// How many bytes of stdin may be on their way that the agent's process did not take: 2 MiB.
pub const STDIN_WINDOW: u32 = 2 << 20;

/// How long a process has between SIGHUP or SIGTERM and SIGKILL, unless told otherwise: 10 s.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// What to run where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// On which agent.
    pub agent: AgentName,
    /// Program and arguments; looked up in the agent's `PATH`.
    pub argv: Vec<String>,
    /// Added to the process's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it runs; the agent's work directory if none.
    #[serde(default)]
    pub cwd: Option<String>,
    /// How long it may run, in milliseconds on the agent's clock; for ever if none.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// How long it has between SIGHUP or SIGTERM and SIGKILL, in milliseconds; [`DEFAULT_GRACE`] if none.
    #[serde(default)]
    pub grace_ms: Option<u64>,
    /// Whether stdin comes over the connection; otherwise it is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// That it may be resumed, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resumable>,
    /// The bundles that it uses: each a name, `NAME@DIGEST`, a digest, or the beginning of one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<String>,
    /// That it has a terminal; only with `resume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
}

/// The client's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// Its kind, for `TERM`.
    pub kind: String,
    /// How many characters fit into a line.
    pub columns: u16,
    /// How many lines there are.
    pub rows: u16,
}

/// How an execution can be resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resumable {
    /// Its name, random, drawn by the client. 32 hex digits.
    #[serde(with = "hex")]
    pub id: ExecId,
    /// How long it waits for the client, in milliseconds.
    pub patience_ms: u64,
}

/// Coming back to an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecResume {
    /// On which agent.
    pub agent: AgentName,
    /// Which one.
    #[serde(with = "hex")]
    pub id: ExecId,
    /// Whether it has stdin.
    pub stdin: bool,
    /// The bytes of stdout that the client has.
    pub stdout: u64,
    /// The same of stderr.
    pub stderr: u64,
    /// Which client comes: 0 is the one that started it; none is a new one, which takes over.
    pub user: Option<u32>,
}

/// Where a new client goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAttached {
    /// The process's id on the agent.
    pub pid: u32,
    /// Stdin goes on at this byte; the largest number if the process takes no more.
    pub stdin: u64,
    /// Stdout at this one.
    pub stdout: u64,
    /// Stderr at this one.
    pub stderr: u64,
    /// Which client it is: what its next [`ExecResume`] says.
    pub user: u32,
    /// How long the execution waits for it, in milliseconds.
    pub patience_ms: u64,
    /// Whether the process has a terminal.
    pub terminal: bool,
}

impl ExecRequest {
    /// Runs `argv` on `agent`, without stdin and without a timeout.
    pub fn new(agent: AgentName, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self {
            agent,
            argv,
            env: BTreeMap::new(),
            cwd: None,
            timeout_ms: None,
            grace_ms: None,
            stdin: false,
            resume: None,
            terminal: None,
            bundles: Vec::new(),
        }
    }

    /// The timeout.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }

    /// The grace period.
    pub fn grace(&self) -> Duration {
        self.grace_ms.map_or(DEFAULT_GRACE, Duration::from_millis)
    }
}

/// An id as text: JSON's numbers have 53 bits for many readers.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::id::ExecId;

    pub fn serialize<S: Serializer>(id: &ExecId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ExecId, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let id = u128::from_str_radix(&text, 16).ok().filter(|_| text.len() == 32);
        id.map(ExecId).ok_or_else(|| D::Error::custom("an execution's id is 32 hex digits"))
    }
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum ExecEnd {
    /// The process ended by itself.
    Exited {
        /// Its exit code, 0 to 255.
        code: i32,
    },
    /// The process was ended by a signal.
    Signalled {
        /// Its number on the agent.
        signal: i32,
    },
    /// The timeout passed, and the process was killed.
    TimedOut,
    /// It never ran.
    Refused {
        /// Why.
        reason: RefusalKind,
        /// Cause and cure in one line.
        message: String,
    },
    /// Nobody knows how it ended: the agent did not answer, or the session ended meanwhile. Where the agent lives, it
    /// ends the process.
    NoAnswer {
        /// Who is to be looked at.
        fault: Fault,
        /// Cause and cure in one line.
        message: String,
    },
}

/// Why a process was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The agent has no such program or directory. Like a shell's 127.
    NotFound,
    /// The agent may not execute it. Like a shell's 126.
    NotExecutable,
    /// The agent takes no new work: it drains.
    Draining,
    /// The agent could not start it.
    AgentFailed,
    /// The controller knows no such agent.
    UnknownAgent,
    /// The agent has no session now.
    Offline,
    /// The request is malformed.
    Invalid,
    /// The controller runs as many executions as it may.
    Busy,
    /// It ran, and is not there any more to be resumed: how it ended is not known.
    Gone,
    /// The token or the agent does not allow it.
    Forbidden,
    /// A reason that this program does not know.
    #[serde(other)]
    Other,
}

/// Whose fault it is that there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The agent's process or machine, or its way to Kafka.
    Agent,
    /// The Kafka cluster, or the controller's way to it.
    Kafka,
    /// The controller: it goes away, or another one took over.
    Controller,
    /// Somebody that this program does not know.
    #[serde(other)]
    Other,
}

impl ExecEnd {
    /// What `rk exec` exits with: the process's own code; 128 + n for signal n; 124 timed out; 126 and 127 as a shell
    /// has them; 64 for a request that cannot work, 77 for one that is not allowed, 75 for one to try again, 69 where nobody answered.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exited { code } => (code & 0xff) as u8,
            Self::Signalled { signal } => (128 + (signal & 0x7f)) as u8,
            Self::TimedOut => 124,
            Self::Refused { reason, .. } => reason.exit_code(),
            Self::NoAnswer { .. } => 69,
        }
    }

    /// Whether the process ran and ended by itself with code 0.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }
}

impl RefusalKind {
    /// What `rk exec` exits with.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable => 126,
            Self::Draining | Self::Busy | Self::Gone => 75,
            Self::AgentFailed | Self::Offline | Self::Other => 69,
            Self::UnknownAgent | Self::Invalid => 64,
            Self::Forbidden => 77,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_become_the_documented_exit_codes() {
        let refused = |reason| ExecEnd::Refused { reason, message: String::new() };
        let table = [
            (ExecEnd::Exited { code: 0 }, 0),
            (ExecEnd::Exited { code: 255 }, 255),
            (ExecEnd::Signalled { signal: 9 }, 137),
            (ExecEnd::TimedOut, 124),
            (refused(RefusalKind::NotFound), 127),
            (refused(RefusalKind::NotExecutable), 126),
            (refused(RefusalKind::Draining), 75),
            (refused(RefusalKind::Offline), 69),
            (refused(RefusalKind::UnknownAgent), 64),
            (ExecEnd::NoAnswer { fault: Fault::Kafka, message: String::new() }, 69),
        ];
        for (end, code) in table {
            assert_eq!(end.exit_code(), code, "{end:?}");
            let text = serde_json::to_string(&end).expect("written");
            assert_eq!(serde_json::from_str::<ExecEnd>(&text).expect("read"), end);
        }
    }

    #[test]
    fn a_request_needs_only_an_agent_and_a_program() {
        let request: ExecRequest = serde_json::from_str(r#"{"agent":"a","argv":["true"]}"#).expect("read");
        assert_eq!(request, ExecRequest::new("a".parse().expect("name"), ["true"]));
        assert_eq!((request.timeout(), request.grace()), (None, DEFAULT_GRACE));
        assert!(serde_json::from_str::<ExecRequest>(r#"{"agent":"a b","argv":[]}"#).is_err());
    }
}
