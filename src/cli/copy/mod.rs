//! `rk cp`: copies files and directories to an agent and from one.

mod download;
mod local;
mod progress;
pub(super) mod remote;
mod upload;

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Args;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::{
    Failure, failure,
    flags::ClientFlags,
    output::{self, Format},
    session,
};
use crate::{config::Environment, id::AgentName, service::files::RawPath};
pub use local::{Writing, read};
use progress::Progress;
use remote::{Remote, Trouble};

/// Copy files and directories to an agent and from one
#[derive(Debug, Args)]
#[command(
    override_usage = "rk cp [OPTIONS] FILE… AGENT:PATH\n       rk cp [OPTIONS] AGENT:PATH… PATH",
    after_help = "- stands for stdin or stdout. A relative PATH of an agent begins where its\nexecutions run. Permissions and times are kept, each file is checked by its\nSHA-256 and appears when it is whole. A copy that was cut off goes on where it\nwas when it is started again. A local name with a colon: ./a:b"
)]
pub struct CpArgs {
    /// From where, and last to where
    #[arg(value_name = "PATH", required = true, num_args = 2..)]
    paths: Vec<Side>,
    /// Copy directories with all that is in them
    #[arg(short = 'r', long)]
    recursive: bool,
    #[command(flatten)]
    flags: ClientFlags,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// Our stdin or stdout.
    Pipe,
    /// A path here.
    Here(PathBuf),
    /// A path there.
    There(AgentName, RawPath),
}

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Pipe);
        }
        match text.split_once(':') {
            Some((name, path)) if !name.is_empty() && !name.contains('/') => {
                let name = name.parse().map_err(|e| format!("{e}; a local name with a colon is written ./{text}"))?;
                Ok(Self::There(name, if path.is_empty() { b".".to_vec() } else { path.as_bytes().to_vec() }))
            }
            _ if text.is_empty() => Err("an empty path".to_owned()),
            _ => Ok(Self::Here(text.into())),
        }
    }
}

/// What was copied, and what could not be.
#[derive(Default, Serialize)]
struct Copied {
    files: u64,
    bytes: u64,
    failed: Vec<String>,
}

/// One run of the command.
struct Copy {
    recursive: bool,
    progress: Progress,
    copied: Copied,
}

/// Runs the command.
pub async fn run(args: CpArgs, environment: &Environment) -> Result<u8, Failure> {
    let session = session::open(args.flags, environment)?;
    let mut copy = Copy {
        recursive: args.recursive,
        progress: Progress::new(session.quiet || session.format != Format::Table),
        copied: Copied::default(),
    };
    let (to, from) = args.paths.split_last().expect("two at least");
    match to {
        Side::There(agent, path) => {
            let mut remote = Remote::open(&session.client, agent).await?;
            for side in from {
                match side {
                    Side::Pipe => copy.upload_pipe(&mut remote, path).await?,
                    Side::Here(local) => copy.upload(&mut remote, local, path, from.len() > 1).await?,
                    Side::There(..) => return Err(Failure::usage("both ends are on agents; copy to here first")),
                }
            }
            remote.close().await;
        }
        Side::Pipe | Side::Here(_) => {
            for side in from {
                let Side::There(agent, path) = side else {
                    return Err(Failure::usage("neither end is on an agent; write AGENT:PATH"));
                };
                // Several are seldom of several agents, and a program is started in milliseconds.
                let mut remote = Remote::open(&session.client, agent).await?;
                match to {
                    Side::Here(local) => copy.download(&mut remote, agent, path, local, from.len() > 1).await?,
                    _ => copy.download_pipe(&mut remote, path).await?,
                }
                remote.close().await;
            }
        }
    }
    copy.progress.clear();
    match session.format {
        Format::Json => output::print_json(&copy.copied)?,
        Format::Jsonl => output::print_jsonl(&copy.copied)?,
        Format::Table | Format::Name => (),
    }
    Ok(u8::from(!copy.copied.failed.is_empty()))
}

impl Copy {
    /// Notes what could not be copied and goes on, unless nothing goes on.
    fn settle(&mut self, done: Result<(), Trouble>) -> Result<(), Failure> {
        match done {
            Ok(()) => Ok(()),
            Err(Trouble::Over(failure)) => {
                self.progress.clear();
                Err(failure)
            }
            Err(Trouble::Refused(_, text)) => {
                self.progress.clear();
                output::say(&format!("rk: {text}"));
                self.copied.failed.push(text);
                Ok(())
            }
        }
    }
}

/// What a copy is of: the same when it is started again, another when the source changed.
fn source(place: &[u8], size: u64, modified_ns: Option<i64>) -> [u8; 16] {
    let words = [place, &size.to_le_bytes(), &modified_ns.unwrap_or_default().to_le_bytes()].concat();
    digest(&SHA256, &words).as_ref().first_chunk().copied().unwrap_or_default()
}

/// Something here could not be read or written.
fn ours(path: &Path, error: &std::io::Error) -> Trouble {
    Trouble::Refused(crate::service::files::Reason::Other, format!("{}: {error}", path.display()))
}

/// `directory/name` on the agent.
fn joined(directory: &[u8], name: &[u8]) -> RawPath {
    match directory {
        b"." => name.to_vec(),
        [.., b'/'] => [directory, name].concat(),
        _ => [directory, b"/", name].concat(),
    }
}

/// The last part of a path; none of `.` and `/`.
fn last_part(path: &[u8]) -> Option<&[u8]> {
    Path::new(std::ffi::OsStr::from_bytes(path)).file_name().map(OsStrExt::as_bytes)
}

/// A name as our system has it.
fn os(name: &[u8]) -> OsString {
    OsString::from_vec(name.to_vec())
}

/// A directory that was not asked for with -r.
fn needs_recursion(what: &str) -> Failure {
    Failure::new(failure::USAGE, format!("{what} is a directory; copy it with -r"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_any_slash_names_an_agent() {
        let there = |name: &str, path: &[u8]| Ok(Side::There(name.parse().expect("name"), path.to_vec()));
        assert_eq!("a1:/etc/hosts".parse(), there("a1", b"/etc/hosts"));
        assert_eq!("a1:".parse(), there("a1", b"."));
        assert_eq!("a1:x:y".parse(), there("a1", b"x:y"));
        assert_eq!("./a:b".parse(), Ok(Side::Here("./a:b".into())));
        assert_eq!("dir/a:b".parse(), Ok(Side::Here("dir/a:b".into())));
        assert_eq!("-".parse(), Ok(Side::Pipe));
        assert!("a b:c".parse::<Side>().is_err_and(|e| e.contains("./a b:c")));
    }

    #[test]
    fn a_source_is_the_same_until_it_changes() {
        let one = source(b"/x", 5, Some(7));
        assert_eq!(one, source(b"/x", 5, Some(7)));
        for other in [source(b"/y", 5, Some(7)), source(b"/x", 6, Some(7)), source(b"/x", 5, None)] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn parts_of_paths_are_joined_and_taken_off() {
        assert_eq!(
            (joined(b".", b"x"), joined(b"/", b"x"), joined(b"a", b"x")),
            (b"x".to_vec(), b"/x".to_vec(), b"a/x".to_vec())
        );
        assert_eq!((last_part(b"/a/b/"), last_part(b"/"), last_part(b"..")), (Some(&b"b"[..]), None, None));
    }
}
