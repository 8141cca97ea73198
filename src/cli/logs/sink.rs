//! Where a job's output goes: to our own streams as it is, or as lines of JSON to stdout.

use std::io;

use bytes::Bytes;

use super::{
    event::{Event, Events},
    stamp::Stamp,
};
use crate::{
    api::{
        client::Followed,
        jobs::JobInfo,
        logs::{Digest, LogItem, LogStream},
    },
    cli::{
        exec::{lines::Lines, stdio::Writer},
        output::Format,
    },
};

/// How output is shown.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// As it is, or as events.
    pub format: Format,
    /// With the time before each line.
    pub timestamps: bool,
    /// Without talk.
    pub quiet: bool,
}

/// Where output goes.
pub struct Sink {
    kind: Kind,
    wrong: bool,
}

enum Kind {
    Bare { stdout: Writer, stderr: Writer, stamps: Option<[Stamp; 2]>, system: Lines, quiet: bool },
    Events { to: Writer, events: Events },
}

impl Sink {
    /// Opens our own streams.
    pub fn open(look: Look) -> io::Result<Self> {
        let kind = match look.format {
            Format::Table => Kind::Bare {
                stdout: Writer::stdout()?,
                stderr: Writer::stderr()?,
                stamps: look.timestamps.then(Default::default),
                system: Lines::default(),
                quiet: look.quiet,
            },
            Format::Json | Format::Jsonl | Format::Name => {
                Kind::Events { to: Writer::stdout()?, events: Events::default() }
            }
        };
        Ok(Self { kind, wrong: false })
    }

    /// Shows what came. Waits while the reader is slow.
    pub async fn take(&mut self, followed: Followed) -> io::Result<()> {
        if let Followed::Item(LogItem::End { verdict: Digest::Wrong, .. }) = &followed {
            self.wrong = true;
        }
        match (&mut self.kind, followed) {
            (Kind::Events { to, events }, Followed::Item(item)) => {
                let lines = events.take(&item);
                if lines.is_empty() { Ok(()) } else { to.write(lines).await }
            }
            (Kind::Events { to, .. }, Followed::Away(message)) => {
                to.write(Event::Away { message: &message }.line()).await
            }
            (Kind::Events { to, .. }, Followed::Back) => to.write(Event::Back.line()).await,
            (Kind::Bare { .. }, followed) => self.bare(followed).await,
        }
    }

    async fn bare(&mut self, followed: Followed) -> io::Result<()> {
        let Kind::Bare { stdout, stderr, stamps, system, quiet } = &mut self.kind else { return Ok(()) };
        match followed {
            Followed::Item(LogItem::Chunk { stream: LogStream::System, bytes, .. }) => {
                system.push(&bytes);
                while let Some(line) = system.next() {
                    talk(stderr, *quiet, &line).await?;
                }
                Ok(())
            }
            Followed::Item(LogItem::Chunk { stream, time_ms, bytes, .. }) => {
                let is_stderr = stream == LogStream::Stderr;
                let bytes = match stamps {
                    Some(stamps) => stamps[usize::from(is_stderr)].add(time_ms, &bytes),
                    None => bytes,
                };
                if is_stderr { stderr } else { stdout }.write(bytes).await
            }
            followed => match said(&followed) {
                Some(Said::Matters(text)) => talk(stderr, false, text.as_bytes()).await,
                Some(Said::Talk(text)) => talk(stderr, *quiet, text.as_bytes()).await,
                None => Ok(()),
            },
        }
    }

    /// Shows the job as an event.
    pub async fn submitted(&mut self, job: &JobInfo) -> io::Result<()> {
        match &mut self.kind {
            Kind::Events { to, .. } => to.write(Event::Submitted { job }.line()).await,
            Kind::Bare { .. } => Ok(()),
        }
    }

    /// Whether a stream was not what the job wrote.
    pub fn is_wrong(&self) -> bool {
        self.wrong
    }

    /// Shows how the job was at the end, if that is known, and waits until everything is written.
    pub async fn finish(self, job: Option<&JobInfo>) -> io::Result<()> {
        match self.kind {
            Kind::Bare { stdout, mut stderr, mut system, quiet, .. } => {
                if let Some(line) = system.rest() {
                    talk(&mut stderr, quiet, &line).await?;
                }
                let (stdout, stderr) = tokio::join!(stdout.finish(), stderr.finish());
                stdout.and(stderr)
            }
            Kind::Events { mut to, mut events } => {
                let end = job.map(|job| Event::End { job }.line()).unwrap_or_default();
                for lines in [events.rest(), end] {
                    if !lines.is_empty() {
                        to.write(lines).await?;
                    }
                }
                to.finish().await
            }
        }
    }
}

/// What is said on stderr.
enum Said {
    /// Also to who wants no talk.
    Matters(String),
    Talk(String),
}

fn said(followed: &Followed) -> Option<Said> {
    Some(match followed {
        Followed::Item(LogItem::Attempt(attempt)) if *attempt > 1 => Said::Talk(format!("attempt {attempt}")),
        Followed::Item(LogItem::Gap { stream, from, to, cause }) => {
            Said::Matters(format!("gap: {} bytes {from}..{to} lost: {cause}", stream.as_str()))
        }
        Followed::Item(LogItem::End { stream, verdict: Digest::Wrong, .. }) => Said::Matters(format!(
            "{} is not what the job wrote: its SHA-256 differs; somebody changed the records in Kafka",
            stream.as_str()
        )),
        Followed::Away(why) => Said::Talk(format!("controller away, trying again ({why})")),
        Followed::Back => Said::Talk("controller is back".to_owned()),
        Followed::Item(_) => return None,
    })
}

async fn talk(stderr: &mut Writer, quiet: bool, line: &[u8]) -> io::Result<()> {
    if quiet {
        return Ok(());
    }
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    stderr.write(Bytes::from([b"rk: ", line, b"\n"].concat())).await
}
