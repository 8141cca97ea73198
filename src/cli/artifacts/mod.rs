//! `rk artifacts`: the files that jobs left.

mod get;
mod write;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    Failure,
    exec::interruptible,
    failure,
    flags::ClientFlags,
    jobs::show,
    output::{self, Format},
    session::{self, Session},
};
use crate::{
    api::{
        Client,
        artifacts::{Artifact, ArtifactList, ArtifactQuery, ArtifactState},
    },
    clock,
    config::Environment,
    job::Glob,
};

const AFTER_HELP: &str = "\
`rk run --artifact PATTERN` says which files of its work directory a job leaves,
however it ends. Patterns are like out/*.xml, out/** or **/*.log; a directory
means all that is in it.

  rk run --artifact 'out/**' -- make test
  rk artifacts ls 0k3d
  rk artifacts get 0k3d --to results
  rk artifacts get 0k3d out/report.xml --to - | xmllint -";

/// List and fetch the files that jobs left.
#[derive(Debug, Subcommand)]
#[command(after_help = AFTER_HELP)]
pub enum ArtifactsCommand {
    /// List the files that a job left
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Fetch the files that a job left, and compare their SHA-256
    #[command(after_help = AFTER_HELP)]
    Get(GetArgs),
}

/// Arguments of `rk artifacts ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// The job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    id: String,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `rk artifacts get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    id: String,
    /// Only files that match one of these [default: all]
    #[arg(value_name = "PATTERN")]
    patterns: Vec<Glob>,
    /// Where they go, made if it is missing; - writes one file to stdout
    #[arg(long, value_name = "DIR", default_value = ".")]
    to: PathBuf,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Runs the command.
pub async fn run(command: ArtifactsCommand, environment: &Environment) -> Result<u8, Failure> {
    match command {
        ArtifactsCommand::Ls(args) => {
            let session = session::open(args.flags, environment)?;
            list(&all(&session.client, &args.id).await?, &session)?;
            Ok(0)
        }
        ArtifactsCommand::Get(args) => {
            let session = session::open(args.flags, environment)?;
            interruptible(get::get(&session, &args.id, &args.patterns, &args.to)).await
        }
    }
}

/// The whole list, which comes in pages.
async fn all(client: &Client, id: &str) -> Result<ArtifactList, Failure> {
    let mut list = client.artifacts(id, &ArtifactQuery::default()).await?;
    // The same job in every page, also where others begin alike meanwhile.
    let id = list.job.to_string();
    while list.more > 0 {
        let after = list.files.last().map(|file| file.path.clone()).unwrap_or_default();
        let page = client.artifacts(&id, &ArtifactQuery { after, limit: None }).await?;
        if page.files.is_empty() {
            return Err(Failure::new(
                failure::TRY_AGAIN,
                format!("the artifacts of job {id} were forgotten meanwhile"),
            ));
        }
        list.more = page.more;
        list.files.extend(page.files);
    }
    Ok(list)
}

fn list(list: &ArtifactList, session: &Session) -> Result<(), Failure> {
    match session.format {
        Format::Json => output::print_json(list)?,
        Format::Jsonl => {
            for file in &list.files {
                output::print_jsonl(file)?;
            }
        }
        Format::Name => {
            let lines: String = list.files.iter().map(|file| show::printable(&file.path) + "\n").collect();
            output::print(&lines)?;
        }
        Format::Table if list.files.is_empty() => {}
        Format::Table => {
            let rows: Vec<_> = list.files.iter().map(row).collect();
            output::print(&output::table(["SIZE", "MODE", "SHA-256", "PATH"], &rows))?;
        }
    }
    if !session.quiet {
        if let Some(why) = nothing(list) {
            output::say(&format!("rk: {why}"));
        }
        for line in &list.left_out {
            output::say(&format!("rk: left out: {}", show::printable(line)));
        }
    }
    Ok(())
}

fn row(file: &Artifact) -> [String; 4] {
    [file.size.to_string(), format!("{:03o}", file.mode & 0o777), file.sha256.short(), show::printable(&file.path)]
}

/// Why there are no files to be had, if there are none.
fn nothing(list: &ArtifactList) -> Option<String> {
    let job = list.job;
    let known = list.info.as_ref().map(|info| show::left(info, clock::unix_ms())).unwrap_or_default();
    match list.state {
        ArtifactState::Stored => None,
        ArtifactState::Pending => {
            Some(format!("job {job} has not left its files yet; `rk jobs wait {job}` waits for its end"))
        }
        ArtifactState::Missing => Some(format!("artifacts of job {job}: {known}")),
        ArtifactState::Forgotten => Some(format!(
            "artifacts of job {job}: {known}; --artifacts-age and --artifacts-keep of the controller say how long they stay"
        )),
    }
}
