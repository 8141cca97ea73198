//! What a job's end means to who waited for it.

use crate::{
    api::jobs::JobInfo,
    cli::{
        exec::report::{Status, Verdict},
        failure,
        logs::Ended,
    },
};

/// How a job ended whose log was read: its exit code, or 1 if it succeeded and the log is not what it wrote.
pub fn verdict(ended: &Ended) -> Verdict {
    let verdict = of_job(&ended.job);
    match (ended.wrong, verdict.code) {
        (true, 0) => ours(1, Some(format!("job {} succeeded, but its log is not what it wrote", ended.job.id))),
        _ => verdict,
    }
}

/// How a job ended: its exit code, whose it is, and what there is to say.
pub fn of_job(job: &JobInfo) -> Verdict {
    let Some(code) = job.exit_code else {
        let message = format!("job {} has not ended; `rk logs -f {}` follows it", job.id, job.id);
        return ours(failure::TRY_AGAIN, Some(message));
    };
    let id = job.id;
    let message = match job.state.as_str() {
        "failed" => return by_command(code, None, job.reason.clone()),
        "signalled" => return by_command(code, job.number, None),
        "cancelled" => match &job.cancelled_by {
            Some(by) => format!("job {id} was cancelled by {by}"),
            None => format!("job {id} was cancelled"),
        },
        "timed_out" => format!("job {id} timed out; give it more with --timeout"),
        "lost" => {
            let reason = job.reason.as_deref().unwrap_or("nobody knows how it ended");
            format!("job {id} is lost: {reason}; `rk jobs retry {id}` runs it again")
        }
        _ => return by_command(code, None, None),
    };
    ours(code, Some(message))
}

fn by_command(code: u8, signal: Option<i32>, message: Option<String>) -> Verdict {
    Verdict { code, status: Status { by: "command", code, signal, message } }
}

fn ours(code: u8, message: Option<String>) -> Verdict {
    Verdict { code, status: Status { by: "rk", code, signal: None, message } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::jobs::testing::job;

    #[test]
    fn a_job_s_end_is_its_code_and_a_word_where_it_is_ours() {
        let of = |state: &str, code: u8| {
            let job = JobInfo { state: state.to_owned(), exit_code: Some(code), ..job() };
            of_job(&job).status
        };
        assert_eq!((of("succeeded", 0).by, of("succeeded", 0).message), ("command", None));
        assert_eq!((of("failed", 3).by, of("failed", 3).code), ("command", 3));
        assert!(of("lost", 75).message.expect("said").contains("rk jobs retry"));
        assert!(of("timed_out", 124).message.expect("said").contains("--timeout"));
        assert_eq!((of("cancelled", 130).by, of("cancelled", 130).code), ("rk", 130));
        let lost = JobInfo { exit_code: None, ..job() };
        assert_eq!(of_job(&lost).code, 75);
    }

    #[test]
    fn a_log_that_was_changed_is_no_success_and_hides_no_failure() {
        let of = |code| verdict(&Ended { job: JobInfo { exit_code: Some(code), ..job() }, wrong: true }).code;
        assert_eq!((of(0), of(7)), (1, 7));
    }
}
