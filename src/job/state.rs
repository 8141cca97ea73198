//! Where a job stands.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::{Loss, Outcome};

/// A job's state. Whether its agent can be reached is no part of it: that is a view, which comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It waits for an agent.
    Queued,
    /// It was given to an agent, which has not said that it runs.
    Assigned,
    /// It runs.
    Running,
    /// Its process exited with code 0. Terminal.
    Succeeded,
    /// Its process exited with this code, or could not be started. Terminal.
    Failed(i32),
    /// Its process was ended by this signal. Terminal.
    Signalled(i32),
    /// It was ended because somebody asked for that. Terminal.
    Cancelled,
    /// It was ended because its time was over. Terminal.
    TimedOut,
    /// Nobody knows, or will ever know, how it ended. Terminal.
    Lost(Loss),
}

impl State {
    /// Whether nothing comes after it.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Assigned | Self::Running)
    }

    /// The word that people and JSON see, without its number or reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed(_) => "failed",
            Self::Signalled(_) => "signalled",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Lost(_) => "lost",
        }
    }
}

impl From<&Outcome> for State {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Exited(0) => Self::Succeeded,
            Outcome::Exited(code) | Outcome::NotStarted { code, .. } => Self::Failed(*code),
            Outcome::Signalled(signal) => Self::Signalled(*signal),
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(number) | Self::Signalled(number) => f.pad(&format!("{} ({number})", self.as_str())),
            Self::Lost(loss) => f.pad(&format!("lost ({loss})")),
            _ => f.pad(self.as_str()),
        }
    }
}
