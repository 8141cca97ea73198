//! `rk logs`: what a job wrote, from its first byte, and as it comes.

mod event;
mod sink;
mod stamp;

use std::time::{Duration, SystemTime};

use clap::Args;

use super::{
    Failure, client, failure,
    flags::ClientFlags,
    log,
    output::{self, Format},
    run::verdict,
};
use crate::{
    api::{
        client::{Followed, LogFollower},
        jobs::JobInfo,
        logs::{LogItem, LogQuery, LogStream},
    },
    config::{Environment, keys},
};

pub use sink::{Look, Sink};
pub use stamp::rfc3339;

/// How long a follower asks again while the controller is away, unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(600);

const AFTER_HELP: &str = "\
What the agent says of the job comes on stderr after `rk:`. Bytes that are lost
are named there as a gap. An interrupt ends the reader and not the job.

Exit codes: 0, or 1 if the log is not what the job wrote; with -f the job's.

  rk logs 0k3d                      all of it; an id's beginning is enough
  rk logs -f --tail 20 0k3d         the last lines, then as they come
  rk logs --stdout 0k3d | sha256sum
  rk logs --since 10m --timestamps 0k3d";

/// Print what a job wrote
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct LogsArgs {
    /// The job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: String,
    /// Wait for more until the job ends, and exit with its code
    #[arg(short = 'f', long)]
    follow: bool,
    /// Only stdout
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Only stderr
    #[arg(long)]
    stderr: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Only what was written since: a time ago like 10m, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = |text: &str| stamp::moment(text, SystemTime::now()))]
    since: Option<u64>,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
    /// Of this attempt, if the job had several [default: the last]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    /// How long to ask again while the controller is away [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    patience: Option<Duration>,
    #[command(flatten)]
    flags: ClientFlags,
}

/// How a log ended.
#[derive(Debug)]
pub struct Ended {
    /// The job then.
    pub job: JobInfo,
    /// Whether a stream was not what the job wrote.
    pub wrong: bool,
}

/// Runs the command.
pub async fn run(args: LogsArgs, environment: &Environment) -> Result<u8, Failure> {
    let query = args.query();
    let settings = args.flags.settings(environment)?;
    log::start(&settings, log::COMMAND)?;
    let format = settings.parse::<Format>(&keys::OUTPUT)?.unwrap_or_default();
    if format == Format::Name {
        return Err(Failure::usage("rk logs has no format name; use -o jsonl for events, or none for bare output"));
    }
    let look = Look { format, timestamps: args.timestamps, quiet: settings.switch(&keys::QUIET)? };
    let client = client::connect(&settings)?;
    // The whole id: the beginning of it may fit another job as well by the time that it is asked for again.
    let id = client.job(&args.job).await?.id;
    let patience = args.patience.unwrap_or(PATIENCE);
    let mut follower = LogFollower::new(client, id.to_string(), query, patience);
    let sink = Sink::open(look)?;
    let ended = show(&mut follower, sink).await?;
    if !args.follow {
        return Ok(u8::from(ended.wrong));
    }
    let verdict = verdict(&ended);
    if let Some(message) = &verdict.status.message {
        output::say(&format!("rk: {message}"));
    }
    Ok(verdict.code)
}

impl LogsArgs {
    fn query(&self) -> LogQuery {
        let stream = match (self.stdout, self.stderr) {
            (true, _) => Some(LogStream::Stdout),
            (_, true) => Some(LogStream::Stderr),
            _ => None,
        };
        LogQuery {
            attempt: self.attempt,
            stream,
            tail: self.tail,
            since_ms: self.since,
            follow: self.follow,
            ..LogQuery::default()
        }
    }
}

/// Shows what `follower` reads until its end; what came before a failure is shown as well. Not cancel-safe: what was handed
/// over may be lost.
pub async fn show(follower: &mut LogFollower, mut sink: Sink) -> Result<Ended, Failure> {
    // A sink that failed takes no more.
    let read = read(follower, &mut sink).await?;
    let wrong = sink.is_wrong();
    let shown = sink.finish(read.as_ref().ok()).await;
    let job = read?;
    shown?;
    Ok(Ended { job, wrong })
}

/// The job at the log's end, or why that is not known. The outer error is the sink's.
async fn read(follower: &mut LogFollower, sink: &mut Sink) -> std::io::Result<Result<JobInfo, Failure>> {
    let mut job = None;
    loop {
        let followed = match follower.next().await {
            Ok(Some(followed)) => followed,
            Ok(None) => break,
            Err(e) => return Ok(Err(e.into())),
        };
        if let Followed::Item(LogItem::Done(text)) = &followed {
            job = Some(text.clone());
        }
        sink.take(followed).await?;
    }
    Ok(serde_json::from_str(&job.unwrap_or_default()).map_err(|e| {
        let message = format!("the controller tells of the job what this program does not understand: {e}");
        Failure::new(failure::UNREACHABLE, message + "; is it of another version? see `rk status`")
    }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: LogsArgs,
    }

    #[test]
    fn flags_become_a_query() {
        let line =
            Line::try_parse_from(["logs", "-f", "--stderr", "--tail", "5", "--attempt", "2", "0k"]).expect("good");
        let query = line.args.query();
        let expected = LogQuery {
            follow: true,
            stream: Some(LogStream::Stderr),
            tail: Some(5),
            attempt: Some(2),
            ..LogQuery::default()
        };
        assert_eq!(query, expected);
        for bad in [&["logs"][..], &["logs", "--stdout", "--stderr", "x"], &["logs", "--attempt", "0", "x"]] {
            assert!(Line::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }
}
