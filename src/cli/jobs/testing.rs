//! A job for tests.

use crate::api::jobs::JobInfo;

/// A job that succeeded.
pub fn job() -> JobInfo {
    JobInfo {
        id: "0123456789abcdef".parse().expect("id"),
        name: None,
        state: "succeeded".to_owned(),
        number: None,
        reason: None,
        exit_code: Some(0),
        unreachable: false,
        waiting: None,
        trouble: None,
        agent: None,
        target: "any agent".to_owned(),
        command: "make -j test".to_owned(),
        submitter: "ada@build".to_owned(),
        priority: 5,
        concurrency: None,
        submitted_ms: 1_000_000,
        started_ms: None,
        ended_ms: None,
        cancelled_by: None,
        retry_of: None,
        attempt: 0,
        stdout: None,
        stderr: None,
        pid: None,
        artifacts: None,
    }
}
