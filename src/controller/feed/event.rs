//! What is told, as CloudEvents 1.0 in JSON. Pure: places and times are arguments.
//!
//! Who reads the topic need not be trusted with what commands say. So there is no command line, script, environment, stdin,
//! secret or output in an event, nor what is derived from one: only names, states and numbers.

use std::str::FromStr;

use serde::Serialize;

use crate::{
    api::{AgentState, jobs},
    clock,
    controller::audit::Entry,
    id::AgentName,
    job::{AttemptEnd, Job, JobId, State},
    link::TokenId,
    selector::Labels,
};

/// As much of a request's path as is told, in bytes. Who has no token may ask for any.
const REQUEST: usize = 256;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// What, behind `rk.`.
    kind: String,
    /// To whom; the record's key.
    subject: String,
    /// When, in milliseconds since 1970, where that is known.
    at_ms: Option<u64>,
    data: Data,
}

/// Where something stands in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The journal: its topic's id.
    pub journal: u128,
    /// The epoch of the controller that wrote it.
    pub epoch: u32,
    /// Its number within the epoch.
    pub seq: u64,
}

/// What an event is known by: with the same id it is the same event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// Of something that stands in the journal: the same from whichever controller.
    Journal(Place),
    /// Of something that one controller saw; `seq` counts what it saw.
    Seen(Place),
}

/// Why a job moved, and what else its event of the journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why, if it waits again or is lost.
    pub reason: Option<String>,
    /// With which agent it was before.
    pub agent: Option<AgentName>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum Data {
    Agent(AgentData),
    Job(Box<JobData>),
    Access(AccessData),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct AgentData {
    name: AgentName,
    /// What it was given when it was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Labels>,
    /// The id of the join token by which it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Who wanted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct JobData {
    id: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    submitter: String,
    target: String,
    state: &'static str,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentName>,
    /// The code of `failed` and the number of `signalled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<JobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct AccessData {
    who: Option<String>,
    from: Option<String>,
    request: String,
    status: u16,
}

#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    r#type: String,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    datacontenttype: &'static str,
    data: &'a Data,
}

impl Happening {
    /// An agent may connect from now on: somebody added it, or it came with a join token.
    pub fn added(name: &AgentName, labels: &Labels, token: Option<TokenId>) -> Self {
        let data = AgentData { labels: Some(labels.clone()), token: token.map(|id| id.to_string()), ..agent(name) };
        Self::of_agent("added", data)
    }

    /// Something happened to an agent that one word says.
    pub fn agent(word: &str, name: &AgentName) -> Self {
        Self::of_agent(word, agent(name))
    }

    /// An agent gets no new jobs.
    pub fn drained(name: &AgentName, by: &str) -> Self {
        Self::of_agent("drained", AgentData { by: Some(by.to_owned()), ..agent(name) })
    }

    /// An agent's state is another one at `at_ms`.
    pub fn presence(at_ms: u64, name: &AgentName, state: AgentState) -> Self {
        Self { at_ms: Some(at_ms), ..Self::agent(state.as_str(), name) }
    }

    /// A job came to the state that it is in now.
    pub fn moved(id: JobId, job: &Job, turn: Turn) -> Self {
        let state = job.state();
        let word = if state.is_terminal() { "ended" } else { state.as_str() };
        Self::of_job(word, id, job, turn)
    }

    /// Somebody asked for the end of a job that is with an agent.
    pub fn cancelling(id: JobId, job: &Job, turn: Turn) -> Self {
        Self::of_job("cancelling", id, job, turn)
    }

    /// Somebody asked the API for something at `at_ms`.
    pub fn access(at_ms: u64, entry: &Entry<'_>) -> Self {
        // The detail may hold a command.
        let Entry { who, from, verb, request, detail: _, status } = entry;
        let data = AccessData {
            who: who.map(str::to_owned),
            from: from.map(|address| address.to_string()),
            request: start(request).to_owned(),
            status: *status,
        };
        Self {
            kind: format!("access.{}", if verb.is_empty() { "unauthorized" } else { verb }),
            subject: who.map_or_else(|| "access".to_owned(), |who| format!("access/{who}")),
            at_ms: Some(at_ms),
            data: Data::Access(data),
        }
    }

    /// It happens now, if nothing else is known.
    pub fn at(self, now_ms: u64) -> Self {
        Self { at_ms: self.at_ms.or(Some(now_ms)), ..self }
    }

    /// To whom it happened.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether anybody who reaches the API can make it happen.
    pub fn is_access(&self) -> bool {
        matches!(self.data, Data::Access(_))
    }

    /// The event.
    pub fn render(&self, source: &str, id: Id) -> Vec<u8> {
        let envelope = Envelope {
            specversion: "1.0",
            id: id.to_string(),
            source,
            r#type: format!("rk.{}", self.kind),
            subject: &self.subject,
            time: self.at_ms.map(clock::rfc3339),
            datacontenttype: "application/json",
            data: &self.data,
        };
        serde_json::to_vec(&envelope).expect("plain data can be written")
    }

    fn of_agent(word: &str, data: AgentData) -> Self {
        Self {
            kind: format!("agent.{word}"),
            subject: format!("agent/{}", data.name),
            at_ms: None,
            data: Data::Agent(data),
        }
    }

    fn of_job(word: &str, id: JobId, job: &Job, turn: Turn) -> Self {
        let (spec, state) = (job.spec(), job.state());
        let attempt = job.attempts().get(&job.attempt());
        let (number, reason) = match state {
            State::Failed(number) | State::Signalled(number) => (Some(number), None),
            State::Lost(loss) => (None, Some(loss.to_string())),
            _ => (None, turn.reason),
        };
        let (stdout_bytes, stderr_bytes) = match attempt.and_then(|attempt| attempt.end.as_ref()) {
            Some(AttemptEnd::Ended { stdout, stderr, .. }) => (Some(stdout.length), Some(stderr.length)),
            _ => (None, None),
        };
        let data = JobData {
            id,
            name: spec.name.clone(),
            submitter: spec.submitter.clone(),
            target: spec.target.to_string(),
            state: state.as_str(),
            attempt: job.attempt(),
            agent: attempt.map(|attempt| attempt.agent.clone()).or(turn.agent),
            number,
            exit_code: jobs::exit_code(state),
            reason,
            cancelled_by: job.cancel().map(|cancel| cancel.by.clone()),
            retry_of: job.retry_of(),
            stdout_bytes,
            stderr_bytes,
        };
        Self {
            kind: format!("job.{word}"),
            subject: format!("job/{id}"),
            at_ms: Some(turn.at_ms),
            data: Data::Job(Box::new(data)),
        }
    }
}

fn agent(name: &AgentName) -> AgentData {
    AgentData { name: name.clone(), labels: None, token: None, by: None }
}

fn start(text: &str) -> &str {
    let end = (0..=REQUEST.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Journal(Place { journal, epoch, seq }) | Self::Seen(Place { journal, epoch, seq })) = self;
        let seen = if matches!(self, Self::Seen(_)) { "s" } else { "" };
        write!(f, "{journal:032x}.{epoch}.{seen}{seq}")
    }
}

/// The text is no id of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId;

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(InvalidId);
        let journal = u128::from_str_radix(part()?, 16).map_err(|_| InvalidId)?;
        let epoch = part()?.parse().map_err(|_| InvalidId)?;
        let seq = part()?;
        let (seen, digits) = seq.strip_prefix('s').map_or((false, seq), |digits| (true, digits));
        let place = Place { journal, epoch, seq: digits.parse().map_err(|_| InvalidId)? };
        match parts.next() {
            None if seen => Ok(Self::Seen(place)),
            None => Ok(Self::Journal(place)),
            Some(_) => Err(InvalidId),
        }
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
