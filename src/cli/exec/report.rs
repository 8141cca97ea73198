//! Whose exit code it is, for scripts: events on stdout with `-o jsonl`, one line at the end with `--status-fd`.

use std::{
    fs::{File, OpenOptions},
    io::Write,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::{api::ExecEnd, cli::Failure, id::AgentName};

/// How an execution or a fan-out ended, as the process's exit code and as a line for scripts.
#[derive(Debug)]
pub struct Verdict {
    /// The exit code.
    pub code: u8,
    /// What `--status-fd` gets.
    pub status: Status,
}

/// What `--status-fd` gets, in JSON.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Whose code it is: `command`, or `rk`.
    pub by: &'static str,
    /// The exit code of rk.
    pub code: u8,
    /// The signal that ended the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// What rk has to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Verdict {
    /// How an execution ended.
    pub fn of(end: &ExecEnd) -> Self {
        let (by, signal, message) = match end {
            ExecEnd::Exited { .. } => ("command", None, None),
            ExecEnd::Signalled { signal } => ("command", Some(*signal), None),
            ExecEnd::TimedOut => ("rk", None, Some("timed out".to_owned())),
            ExecEnd::Refused { message, .. } | ExecEnd::NoAnswer { message, .. } => ("rk", None, Some(message.clone())),
        };
        let code = end.exit_code();
        Self { code, status: Status { by, code, signal, message } }
    }

    /// A code of our own, without a word.
    pub fn ours(code: u8) -> Self {
        Self { code, status: Status { by: "rk", code, signal: None, message: None } }
    }
}

/// The open file descriptor of `--status-fd`.
pub struct StatusFd(File);

impl StatusFd {
    /// Opens the descriptor's name, which refuses a number that is not open, before anything is run.
    pub fn open(n: u32) -> Result<Self, Failure> {
        let file = OpenOptions::new().append(true).open(format!("/dev/fd/{n}"));
        file.map(Self).map_err(|e| Failure::usage(format!("--status-fd {n}: {e}; open it, like {n}>FILE")))
    }

    /// Writes the line. That nobody reads it changes nothing.
    pub fn write(mut self, result: &Result<Verdict, Failure>) {
        let line = match result {
            Ok(verdict) => serde_json::to_string(&verdict.status),
            Err(failure) => {
                let message = failure.line();
                serde_json::to_string(&Status { by: "rk", code: failure.code, signal: None, message })
            }
        };
        let _ = writeln!(self.0, "{}", line.unwrap_or_default());
    }
}

/// A line of `-o jsonl`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The command runs.
    Started {
        /// On which agent.
        agent: &'a AgentName,
        /// Its process id there.
        pid: u32,
    },
    /// A line of its stdout.
    Stdout(Text<'a>),
    /// A line of its stderr.
    Stderr(Text<'a>),
    /// How it ended.
    End {
        /// On which agent.
        agent: &'a AgentName,
        /// How.
        #[serde(flatten)]
        end: &'a ExecEnd,
    },
    /// The whole fan-out, at its end.
    Summary {
        /// How many ended with code 0.
        ok: usize,
        /// How many ended otherwise.
        failed: usize,
        /// How many did not answer.
        no_answer: usize,
        /// How many have no session.
        offline: usize,
    },
}

/// Output in JSON: as text without its line end where it is UTF-8, else in base64, as it is.
#[derive(Debug, Serialize)]
pub struct Text<'a> {
    agent: &'a AgentName,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl<'a> Text<'a> {
    /// One line that an agent's command printed.
    pub fn new(agent: &'a AgentName, line: &'a [u8]) -> Self {
        match std::str::from_utf8(line) {
            Ok(text) => Self { agent, text: Some(text.strip_suffix('\n').unwrap_or(text)), base64: None },
            Err(_) => Self { agent, text: None, base64: Some(STANDARD.encode(line)) },
        }
    }
}

impl Event<'_> {
    /// The event as a line.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("events are plain data");
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_one_line_of_json_each() {
        let agent: AgentName = "a".parse().expect("name");
        let line = |event: Event<'_>| String::from_utf8(event.line()).expect("UTF-8");
        assert_eq!(
            line(Event::Stdout(Text::new(&agent, b"hi\n"))),
            "{\"event\":\"stdout\",\"agent\":\"a\",\"text\":\"hi\"}\n"
        );
        assert_eq!(
            line(Event::Stderr(Text::new(&agent, b"\xff\n"))),
            "{\"event\":\"stderr\",\"agent\":\"a\",\"base64\":\"/wo=\"}\n"
        );
        let end = ExecEnd::Exited { code: 3 };
        assert_eq!(
            line(Event::End { agent: &agent, end: &end }),
            "{\"event\":\"end\",\"agent\":\"a\",\"end\":\"exited\",\"code\":3}\n"
        );
    }

    #[test]
    fn the_status_says_whose_code_it_is() {
        let status = |end| serde_json::to_string(&Verdict::of(&end).status).expect("JSON");
        assert_eq!(status(ExecEnd::Exited { code: 69 }), r#"{"by":"command","code":69}"#);
        assert_eq!(status(ExecEnd::Signalled { signal: 15 }), r#"{"by":"command","code":143,"signal":15}"#);
        assert_eq!(status(ExecEnd::TimedOut), r#"{"by":"rk","code":124,"message":"timed out"}"#);
    }
}
