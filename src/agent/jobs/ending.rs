//! How an attempt ended, from what its directory tells.

use super::files::Verdict;
use crate::{
    agent::{
        adopt::Lost,
        shim::spec::{Cause, Exit, Outcome as ShimOutcome, Total},
    },
    job::{Loss, Outcome, StreamEnd},
    protocol::jobs::Report,
};

/// How an attempt ended.
pub struct Ending {
    /// What the controller is told.
    pub report: Report,
    /// How the streams ended, if that is known.
    pub streams: Option<[StreamEnd; 2]>,
}

/// What a shim's exit record says.
pub fn of_exit(exit: Exit) -> Ending {
    let outcome = match (exit.cause, exit.outcome) {
        // Whoever was told to end, and did, ended by that, whatever it then said.
        (Some(Cause::TimedOut), _) => Outcome::TimedOut,
        (Some(Cause::Cancelled), _) => Outcome::Cancelled,
        (None, ShimOutcome::Code(code)) => Outcome::Exited(code),
        (None, ShimOutcome::Signal(signal)) => Outcome::Signalled(signal),
        (None, ShimOutcome::NotExecuted { errno, what }) => {
            let error = std::io::Error::from_raw_os_error(errno);
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            Outcome::NotStarted { code, message: format!("{what}: {error}") }
        }
    };
    let [stdout, stderr] = [exit.stdout, exit.stderr].map(|Total { length, sha256 }| StreamEnd { length, sha256 });
    Ending { report: Report::Ended { agent_ms: exit.time, outcome, stdout, stderr }, streams: Some([stdout, stderr]) }
}

/// What the agent itself decided.
pub fn of_verdict(verdict: Verdict) -> Ending {
    let digest = ring::digest::digest(&ring::digest::SHA256, b"");
    let nothing = StreamEnd { length: 0, sha256: digest.as_ref().try_into().expect("SHA-256 has 32 bytes") };
    let Verdict { at_ms: agent_ms, outcome } = verdict;
    let report = Report::Ended { agent_ms, outcome, stdout: nothing, stderr: nothing };
    Ending { report, streams: Some([nothing; 2]) }
}

/// What nobody knows.
pub fn of_loss(lost: Lost) -> Ending {
    let reason = match lost {
        Lost::HostRebooted => Loss::HostRebooted,
        Lost::ShimGone { .. } | Lost::RecordDamaged => Loss::ShimGone,
    };
    Ending { report: Report::Lost(reason), streams: None }
}
