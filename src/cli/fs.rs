//! `rk fs`: looks at an agent's files.

use std::io::Write;

use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use super::{
    Failure,
    copy::{
        Side,
        remote::{Part, Remote},
    },
    flags::ClientFlags,
    output::{self, Format},
    session,
};
use crate::{
    config::Environment,
    id::AgentName,
    service::files::{Entry, Kind, RawPath, Request},
};

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum FsCommand {
    /// List a directory
    Ls(PathArgs),
    /// Print a file
    Cat(PathArgs),
    /// Print the end of a file, and what is added to it
    Tail(TailArgs),
    /// Show what is there
    Stat(PathArgs),
}

/// Which file.
#[derive(Debug, Args)]
pub struct PathArgs {
    /// The agent and the path; a relative one begins where executions run
    #[arg(value_name = "AGENT:PATH")]
    path: There,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Which end of which file.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The agent and the path; a relative one begins where executions run
    #[arg(value_name = "AGENT:PATH")]
    path: There,
    /// How many lines [default: 10]
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u64>,
    /// Go on with what is added, until interrupted
    #[arg(short = 'f', long)]
    follow: bool,
    #[command(flatten)]
    flags: ClientFlags,
}

/// A path on an agent.
#[derive(Debug, Clone)]
struct There(AgentName, RawPath);

impl std::str::FromStr for There {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse()? {
            Side::There(agent, path) => Ok(Self(agent, path)),
            Side::Here(_) | Side::Pipe => Err(format!("{text:?} names no agent; write AGENT:PATH")),
        }
    }
}

/// An entry as JSON has it.
#[derive(Serialize)]
struct Shown {
    name: String,
    kind: &'static str,
    size: u64,
    mode: String,
    modified: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl Shown {
    fn new(entry: &Entry) -> Self {
        let text = |bytes: &RawPath| String::from_utf8_lossy(bytes).into_owned();
        let (kind, target) = match &entry.kind {
            Kind::File => ("file", None),
            Kind::Directory => ("directory", None),
            Kind::Link(target) => ("link", Some(text(target))),
            Kind::Other => ("other", None),
        };
        let modified = entry.marks.modified().map(|time| humantime::format_rfc3339_seconds(time).to_string());
        let mode = format!("{:03o}", entry.marks.mode);
        Self { name: text(&entry.name), kind, size: entry.size, mode, modified, target }
    }

    fn row(&self) -> [String; 5] {
        let plain = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
        let name = match (&self.target, self.kind) {
            (Some(target), _) => format!("{} -> {}", plain(&self.name), plain(target)),
            (None, "directory") => format!("{}/", plain(&self.name)),
            (None, _) => plain(&self.name),
        };
        let modified = self.modified.as_deref().unwrap_or_default();
        [self.kind.to_owned(), self.mode.clone(), self.size.to_string(), modified.to_owned(), name]
    }
}

/// Runs the command.
pub async fn run(command: FsCommand, environment: &Environment) -> Result<u8, Failure> {
    match command {
        FsCommand::Ls(PathArgs { path: There(agent, path), flags }) => {
            let session = session::open(flags, environment)?;
            let mut remote = Remote::open(&session.client, &agent).await?;
            let entry = remote.entry(&Request::Stat(path.clone())).await?;
            let entries = if entry.kind == Kind::Directory { remote.list(&path).await? } else { vec![entry] };
            remote.close().await;
            show(&entries, session.format)
        }
        FsCommand::Stat(PathArgs { path: There(agent, path), flags }) => {
            let session = session::open(flags, environment)?;
            let mut remote = Remote::open(&session.client, &agent).await?;
            let entry = remote.entry(&Request::Stat(path)).await?;
            remote.close().await;
            match session.format {
                Format::Json => output::print_json(&Shown::new(&entry))?,
                format => return show(&[entry], format),
            }
            Ok(0)
        }
        FsCommand::Cat(PathArgs { path: There(agent, path), flags }) => {
            let session = session::open(flags, environment)?;
            let mut remote = Remote::open(&session.client, &agent).await?;
            pour(&mut remote, &Request::Read { path, from: 0 }).await?;
            remote.close().await;
            Ok(0)
        }
        FsCommand::Tail(TailArgs { path: There(agent, path), lines, follow, flags }) => {
            let session = session::open(flags, environment)?;
            let mut remote = Remote::open(&session.client, &agent).await?;
            pour(&mut remote, &Request::Tail { path, lines: lines.unwrap_or(10), follow }).await?;
            remote.close().await;
            Ok(0)
        }
    }
}

/// Prints a content as it comes.
async fn pour(remote: &mut Remote, request: &Request) -> Result<(), Failure> {
    let whole = matches!(request, Request::Read { .. });
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut stdout = tokio::io::stdout();
    remote.entry(request).await?;
    loop {
        match remote.part().await? {
            Part::Data(bytes) => {
                hash.update(&bytes);
                stdout.write_all(&bytes).await?;
                stdout.flush().await?;
            }
            Part::End(sum) if whole && hash.clone().finish().as_ref() != sum => {
                return Err(Failure::new(1, "what came is not what was sent (SHA-256); read it again"));
            }
            Part::End(_) => return Ok(()),
        }
    }
}

fn show(entries: &[Entry], format: Format) -> Result<u8, Failure> {
    let shown: Vec<Shown> = entries.iter().map(Shown::new).collect();
    match format {
        Format::Json => output::print_json(&shown)?,
        Format::Jsonl => shown.iter().try_for_each(output::print_jsonl)?,
        Format::Name => {
            // As they are: what reads them needs their bytes.
            let names = entries.iter().flat_map(|entry| [&entry.name[..], b"\n"]).collect::<Vec<_>>().concat();
            std::io::stdout().write_all(&names)?;
        }
        Format::Table => {
            let rows: Vec<_> = shown.iter().map(Shown::row).collect();
            output::print(&output::table(["KIND", "MODE", "SIZE", "MODIFIED", "NAME"], &rows))?;
        }
    }
    Ok(0)
}
