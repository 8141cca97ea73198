//! How a command fails: one line for people, one code for scripts.

use super::output;
use crate::config;

/// A command line that cannot work, or a setting that is refused.
pub const USAGE: u8 = 64;
/// The brokers, the controller or the agent cannot be reached.
pub const UNREACHABLE: u8 = 69;
/// Something is in the way that passes: try again.
pub const TRY_AGAIN: u8 = 75;
/// Refused: a login, a right, a certificate, a credential.
pub const REFUSED: u8 = 77;
/// Something took longer than it may.
#[cfg(feature = "cli")]
pub const TIMED_OUT: u8 = 124;
/// Superseded by a newer one: an agent of the same name, a controller with the same identity.
#[cfg(any(feature = "agent", feature = "controller"))]
pub const SUPERSEDED: u8 = 5;
/// Too old: an agent for its controller, a controller for its journal.
#[cfg(any(feature = "agent", feature = "controller"))]
pub const TOO_OLD: u8 = 7;

/// Why a command ended, and with which code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// Cause and cure; nothing is printed if it is empty.
    pub message: String,
    /// What stands below the line: commands to copy, as they are.
    pub below: Option<String>,
}

impl Failure {
    /// A failure with this code; `message` ends with what to type next.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), below: None }
    }

    /// A command line that cannot work.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    /// Ends the command with `code`, without a word.
    pub fn silent(code: u8) -> Self {
        Self::new(code, "")
    }

    /// The line for stderr: whatever the causes say, it is one.
    pub fn line(&self) -> Option<String> {
        let words: Vec<&str> = self.message.split_whitespace().collect();
        (!words.is_empty()).then(|| format!("rk: {}", words.join(" ")))
    }

    /// Says what went wrong, and returns the exit code.
    pub fn tell(self) -> u8 {
        if let Some(line) = self.line() {
            output::say(&line);
        }
        if let Some(below) = &self.below {
            output::say(below);
        }
        self.code
    }
}

impl From<config::Error> for Failure {
    fn from(e: config::Error) -> Self {
        let code = match e {
            config::Error::Exposed { .. } => REFUSED,
            config::Error::File { .. } | config::Error::Value { .. } | config::Error::Missing { .. } => USAGE,
        };
        Self::new(code, e.to_string())
    }
}

/// Printing failed. A reader that went away has seen what it wanted.
impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            std::io::ErrorKind::BrokenPipe => Self::silent(0),
            _ => Self::new(UNREACHABLE, format!("printing failed: {e}")),
        }
    }
}

impl From<crate::kafka::Error> for Failure {
    fn from(e: crate::kafka::Error) -> Self {
        use crate::kafka::{Error, Hop};
        let code = match &e {
            Error::Login { .. } | Error::Authorization { .. } | Error::Unreachable { hop: Hop::Tls, .. } => REFUSED,
            Error::Config(_) => USAGE,
            Error::Unreachable { .. }
            | Error::TopicMissing { .. }
            | Error::OffsetOutOfRange { .. }
            | Error::TooLarge { .. }
            | Error::Transient { .. }
            | Error::Refused { .. } => UNREACHABLE,
        };
        let text = e.to_string();
        // Rights that are missing come with the commands that grant them, a line each.
        match (&e, text.split_once('\n')) {
            (Error::Authorization { .. }, Some((line, commands))) => {
                Self { below: Some(commands.to_owned()), ..Self::new(code, line) }
            }
            _ => Self::new(code, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_cause_says_it_is_one_line() {
        let failure = Failure::usage("two\n  lines;\ttype `rk help`\n");
        assert_eq!(failure.line().as_deref(), Some("rk: two lines; type `rk help`"));
        assert_eq!(Failure::silent(1).line(), None);
    }

    #[test]
    fn a_broken_pipe_is_no_failure() {
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((failure.code, failure.line()), (0, None));
    }
}
