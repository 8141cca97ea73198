//! Jobs as the API takes and shows them.
//!
//! Numbers called `…_ms` are milliseconds: since 1970 for moments, else a length of time. Bytes are base64 with padding.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    id::AgentName,
    job::{JobId, State},
    secret::Secret,
};

/// The body of `POST /v1/jobs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitJob {
    /// The id that it gets. Who chooses it may send the request again when the answer got lost: a job of this id is not
    /// made twice. The controller chooses one if there is none.
    #[serde(default)]
    pub id: Option<JobId>,
    /// What people call it; need not be unique.
    #[serde(default)]
    pub name: Option<String>,
    /// Program and arguments. Either this or `script`.
    #[serde(default)]
    pub argv: Vec<String>,
    /// What is run instead of `argv`.
    #[serde(default)]
    pub script: Option<Script>,
    /// Added to the process's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it runs; relative to the workspace, which is the default.
    #[serde(default)]
    pub cwd: Option<String>,
    /// On this agent alone.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// On any agent that this selects, if no agent is named. Empty: any.
    #[serde(default)]
    pub selector: String,
    /// How long it may run; for ever if none.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Greater goes first, 0 to 9. Default 5.
    #[serde(default)]
    pub priority: Option<u8>,
    /// How often it is run again if nobody knows how an attempt ended. Default 0.
    #[serde(default)]
    pub retries: u8,
    /// What the process reads, in base64; nothing if none.
    #[serde(default)]
    pub stdin: Option<String>,
    /// By name.
    #[serde(default)]
    pub secrets: BTreeMap<String, SubmitSecret>,
    /// Of the jobs with the same key at most one is with an agent.
    #[serde(default)]
    pub concurrency: Option<String>,
    /// Who asks: fairness is counted by it.
    pub submitter: String,
    /// How many bytes its work directory may have to be kept when it ended; it is removed if none.
    #[serde(default)]
    pub keep_workspace: Option<u64>,
    /// What its processes are sent to end them, by its number on Linux. Default 15.
    #[serde(default)]
    pub signal: Option<i32>,
    /// How long after that they are killed. Default 10 s.
    #[serde(default)]
    pub grace_ms: Option<u64>,
    /// How its output is written into the topic. Default sealed.
    #[serde(default)]
    pub log_format: LogFormat,
    /// How many bytes of output wait on the agent's disk for Kafka before the process must wait. Default 1 GiB.
    #[serde(default)]
    pub spool_limit: Option<u64>,
    /// The bundles that it uses: each a name, `NAME@DIGEST`, a digest, or the beginning of one, as it is meant now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<String>,
    /// Which files of its work directory are kept when it has ended: patterns like `out/*.xml` or `out/**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
}

/// A script, which the agent writes to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The file's content.
    pub text: String,
    /// What runs the file, whose name is the last argument. Empty: the script's `#!` line, or `/bin/sh`.
    #[serde(default)]
    pub interpreter: Vec<String>,
}

/// A secret of a job. Its value is shown nowhere; the job's output is masked where it holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitSecret {
    /// In base64.
    #[serde(with = "exposed")]
    pub value: Secret<String>,
    /// Whether the process gets it in a file, whose path is in the variable of its name, and not in the variable itself.
    #[serde(default)]
    pub file: bool,
}

/// How output is written into the topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Encrypted.
    #[default]
    Sealed,
    /// Plain with a proof of its origin: every consumer of the topic reads it.
    Open,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInfo {
    /// Its id.
    pub id: JobId,
    /// What people call it.
    pub name: Option<String>,
    /// Its state: `queued`, `assigned`, `running`, `succeeded`, `failed`, `signalled`, `cancelled`, `timed_out`, `lost`.
    pub state: String,
    /// The code of `failed` and the number of `signalled`.
    pub number: Option<i32>,
    /// Why it is `lost`, or what could not be started.
    pub reason: Option<String>,
    /// What `rk run` exits with, once the job has ended.
    pub exit_code: Option<u8>,
    /// Its agent can't be reached: nobody knows how it is, and it may well be running.
    pub unreachable: bool,
    /// Why it waits, if it is queued.
    pub waiting: Option<String>,
    /// What stands in its way on the agent: a full disk, output that can't be shipped.
    pub trouble: Option<String>,
    /// The agent that has it, or had it last.
    pub agent: Option<AgentName>,
    /// Where it may run, in words.
    pub target: String,
    /// What is run, shortened.
    pub command: String,
    /// Who asked for it.
    pub submitter: String,
    /// 0 to 9.
    pub priority: u8,
    /// Of the jobs with the same key at most one is with an agent.
    pub concurrency: Option<String>,
    /// When it was submitted.
    pub submitted_ms: u64,
    /// When its last attempt started, on the agent's clock.
    pub started_ms: Option<u64>,
    /// When it ended, on the controller's clock.
    pub ended_ms: Option<u64>,
    /// Who asked for its end.
    pub cancelled_by: Option<String>,
    /// The job of which it is a repetition.
    pub retry_of: Option<JobId>,
    /// The number of the last attempt; 0 if there is none.
    pub attempt: u32,
    /// What it wrote to stdout, once it has ended and that is known.
    pub stdout: Option<StreamInfo>,
    /// What it wrote to stderr.
    pub stderr: Option<StreamInfo>,
    /// The process's id on the agent, while it runs.
    pub pid: Option<u32>,
    /// What it left, if it was asked to leave something and that is known.
    #[serde(default)]
    pub artifacts: Option<ArtifactsInfo>,
}

/// What is known of a job's artifacts without their list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactsInfo {
    /// How many files there are, or were.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
    /// How many were wanted and left out.
    pub left_out: u32,
    /// Why there are none.
    pub missing: Option<String>,
    /// When they were stored, or found missing, in milliseconds since 1970.
    pub at_ms: u64,
    /// When they were forgotten, in milliseconds since 1970.
    pub forgotten_ms: Option<u64>,
}

/// A finished stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamInfo {
    /// Its bytes.
    pub length: u64,
    /// Their SHA-256 in hexadecimal.
    pub sha256: String,
}

/// The answer to `GET /v1/jobs`: the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobList {
    /// Those that were asked for.
    pub jobs: Vec<JobInfo>,
    /// How many more there are.
    pub more: u64,
}

/// Which jobs are wanted: the query of `GET /v1/jobs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobQuery {
    /// Words of states, or `live` for those that have not ended, with commas between; all if empty.
    #[serde(default)]
    pub state: String,
    /// Those of one agent.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// At most so many; 100 if none, 10,000 at most.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// The body of `POST /v1/jobs/{id}/cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelJob {
    /// Who asks.
    pub by: String,
    /// Instead of the signal that the job has.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Instead of the grace that it has.
    #[serde(default)]
    pub grace_ms: Option<u64>,
}

/// The body of `POST /v1/jobs/{id}/deadline`: how long its agent may be unreachable before it is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetDeadline {
    /// Who asks.
    pub by: String,
    /// For ever if none. Outages of Kafka don't count.
    #[serde(default)]
    pub after_ms: Option<u64>,
}

/// The body of requests that need to know no more than who asks: `POST /v1/jobs/{id}/retry`,
/// `POST /v1/agents/{name}/drain`, `POST /v1/agents/{name}/resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedBy {
    /// Who asks.
    pub by: String,
}

impl JobInfo {
    /// Whether nothing comes after its state.
    pub fn has_ended(&self) -> bool {
        self.exit_code.is_some()
    }
}

/// What a command exits with that followed a job to this end; `None` while there is none.
pub fn exit_code(state: State) -> Option<u8> {
    Some(match state {
        State::Queued | State::Assigned | State::Running => return None,
        State::Succeeded => 0,
        // Linux has no others.
        State::Failed(code) => code as u8,
        State::Signalled(signal) => 128_u8.wrapping_add(signal as u8),
        State::Cancelled => 130,
        State::TimedOut => 124,
        State::Lost(_) => 75,
    })
}

/// Secrets of a request are written into it: it goes to the controller and nowhere else.
mod exposed {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::secret::Secret;

    pub fn serialize<S: Serializer>(secret: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}
