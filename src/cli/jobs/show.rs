//! Jobs for people: as rows of a table, and one with all that is known. Pure.

use std::time::Duration;

use crate::{
    api::jobs::{ArtifactsInfo, JobInfo, StreamInfo},
    cli::{
        logs::rfc3339,
        output::{self, shortened},
    },
};

/// Columns that a job's name or its agent's may take of a row.
const WORD: usize = 14;

/// The headings of [`row`].
pub const HEADINGS: [&str; 6] = ["ID", "NAME", "STATE", "AGENT", "AGE", "COMMAND"];

/// A row of `rk jobs ls`.
pub fn row(job: &JobInfo, now_ms: u64) -> [String; 6] {
    let word = |text: Option<&str>| text.map_or("-".to_owned(), |text| shortened(&printable(text), WORD));
    [
        job.id.to_string(),
        word(job.name.as_deref()),
        state(job),
        word(job.agent.as_ref().map(|agent| agent.as_str())),
        age(job.submitted_ms, now_ms),
        printable(&job.command),
    ]
}

/// The state in a word or two.
pub fn state(job: &JobInfo) -> String {
    match job.number {
        _ if job.unreachable => "unreachable".to_owned(),
        Some(number) => format!("{} {number}", job.state),
        None => job.state.clone(),
    }
}

/// Why nothing happens, if something should.
pub fn obstacle(job: &JobInfo) -> Option<String> {
    let agent = job.agent.as_ref().map_or("its agent".to_owned(), |agent| format!("agent {agent}"));
    match job {
        _ if job.has_ended() => None,
        _ if job.unreachable => {
            Some(format!("{agent} can't be reached; the job may well be running there, and goes on"))
        }
        JobInfo { trouble: Some(trouble), .. } => Some(format!("in trouble on {agent}: {trouble}")),
        JobInfo { waiting: Some(waiting), .. } => Some(format!("waits: {waiting}")),
        _ => None,
    }
}

/// All that is known of a job, a line each.
pub fn describe(job: &JobInfo, now_ms: u64) -> String {
    let at = |ms: u64| format!("{} ({} ago)", rfc3339(i64::try_from(ms).unwrap_or(i64::MAX)), age(ms, now_ms));
    let mut lines = vec![("id", job.id.to_string())];
    lines.extend(job.name.as_ref().map(|name| ("name", name.clone())));
    lines.push(("state", state_in_words(job)));
    lines.extend(obstacle(job).map(|obstacle| ("trouble", obstacle)));
    lines.extend(job.reason.as_ref().map(|reason| ("reason", reason.clone())));
    lines.extend(job.cancelled_by.as_ref().map(|by| ("cancelled by", by.clone())));
    lines.push(("command", job.command.clone()));
    lines.push(("target", job.target.clone()));
    lines.extend(job.agent.as_ref().map(|agent| ("agent", agent.to_string())));
    lines.extend(job.pid.map(|pid| ("pid", pid.to_string())));
    lines.extend((job.attempt > 0).then(|| ("attempt", job.attempt.to_string())));
    lines.extend(job.retry_of.map(|id| ("retry of", id.to_string())));
    lines.push(("submitter", job.submitter.clone()));
    lines.push(("priority", job.priority.to_string()));
    lines.extend(job.concurrency.as_ref().map(|key| ("concurrency", key.clone())));
    lines.push(("submitted", at(job.submitted_ms)));
    lines.extend(job.started_ms.map(|ms| ("started", at(ms))));
    lines.extend(job.ended_ms.map(|ms| ("ended", at(ms))));
    lines.extend(ran(job, now_ms).map(|ran| ("ran", ran)));
    let stream = |stream: &StreamInfo| format!("{} bytes, SHA-256 {}", stream.length, stream.sha256);
    lines.extend(job.stdout.as_ref().map(|info| ("stdout", stream(info))));
    lines.extend(job.stderr.as_ref().map(|info| ("stderr", stream(info))));
    lines.extend(job.artifacts.as_ref().map(|artifacts| ("artifacts", left(artifacts, now_ms))));
    lines.iter().map(|(what, value)| format!("{what:<12}  {}\n", printable(value))).collect()
}

/// What a job left.
pub fn left(artifacts: &ArtifactsInfo, now_ms: u64) -> String {
    let ArtifactsInfo { files, bytes, left_out, missing, forgotten_ms, .. } = artifacts;
    if let Some(why) = missing {
        return format!("none: {why}");
    }
    let mut text = format!("{files} {}, {bytes} bytes", if *files == 1 { "file" } else { "files" });
    if *left_out > 0 {
        text += &format!("; {left_out} left out");
    }
    if let Some(at_ms) = forgotten_ms {
        text += &format!("; forgotten {} ago", age(*at_ms, now_ms));
    }
    text
}

fn state_in_words(job: &JobInfo) -> String {
    let state = match (job.state.as_str(), job.number) {
        ("failed", Some(code)) => format!("failed with exit code {code}"),
        ("signalled", Some(signal)) => format!("ended by signal {signal}"),
        ("timed_out", _) => "timed out".to_owned(),
        ("assigned", _) => "assigned; the agent has not said that it runs".to_owned(),
        (state, _) => state.to_owned(),
    };
    match job.unreachable {
        true => format!("{state}, as far as is known"),
        false => state,
    }
}

/// How long it ran, or runs. Start and end are of different clocks.
fn ran(job: &JobInfo, now_ms: u64) -> Option<String> {
    let started = job.started_ms?;
    Some(output::duration(Duration::from_millis(job.ended_ms.unwrap_or(now_ms).saturating_sub(started))))
}

fn age(since_ms: u64, now_ms: u64) -> String {
    output::duration(Duration::from_millis(now_ms.saturating_sub(since_ms)))
}

/// A text that others chose, in one line and without orders to a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::job;
    use super::*;

    const NOW: u64 = 1_000_000 + 427_000;

    #[test]
    fn a_table_of_jobs_fits_eighty_columns_whatever_they_are_called() {
        let long = JobInfo {
            name: Some("a-very-long-name-of-a-job".to_owned()),
            state: "signalled".to_owned(),
            number: Some(15),
            agent: Some("an-agent-with-a-long-name".parse().expect("name")),
            command: "sh -c 'echo\u{1b}[2J'\n".repeat(20),
            ..job()
        };
        let text = output::table(HEADINGS, &[row(&job(), NOW), row(&long, NOW)]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("signalled 15") && text.contains("7m 7s"), "{text}");
    }

    #[test]
    fn what_stands_in_a_job_s_way_is_told_clearly() {
        let queued = JobInfo {
            state: "queued".to_owned(),
            exit_code: None,
            waiting: Some("no agent has the labels gpu".to_owned()),
            ..job()
        };
        assert!(describe(&queued, NOW).contains("trouble       waits: no agent has the labels gpu\n"));
        let agent = Some("a".parse().expect("name"));
        let away = JobInfo { state: "running".to_owned(), exit_code: None, unreachable: true, agent, ..job() };
        let text = describe(&away, NOW);
        assert!(text.contains("running, as far as is known") && text.contains("agent a can't be reached"), "{text}");
        let full = JobInfo { unreachable: false, trouble: Some("the disk is full".to_owned()), ..away };
        assert!(describe(&full, NOW).contains("in trouble on agent a: the disk is full"));
        assert_eq!(obstacle(&JobInfo { exit_code: Some(0), ..full }), None);
    }

    #[test]
    fn all_that_is_known_is_shown() {
        let ended = JobInfo {
            state: "failed".to_owned(),
            number: Some(3),
            exit_code: Some(3),
            attempt: 2,
            started_ms: Some(1_010_000),
            ended_ms: Some(1_071_000),
            stdout: Some(StreamInfo { length: 5, sha256: "ab".to_owned() }),
            artifacts: Some(ArtifactsInfo {
                files: 2,
                bytes: 7,
                left_out: 1,
                missing: None,
                at_ms: 1_071_000,
                forgotten_ms: Some(1_127_000),
            }),
            ..job()
        };
        let text = describe(&ended, NOW);
        for part in [
            "state         failed with exit code 3\n",
            "attempt       2\n",
            "submitted     1970-01-01T00:16:40.000Z (7m 7s ago)\n",
            "ran           1m 1s\n",
            "stdout        5 bytes, SHA-256 ab\n",
            "artifacts     2 files, 7 bytes; 1 left out; forgotten 5m 0s ago\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
