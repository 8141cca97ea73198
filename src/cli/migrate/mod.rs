//! `rk migrate`: reads how Jenkins was set up for its plugin remoting-kafka, and prints the same for us.
//!
//! It only reads and prints: `old` understands what was, `new` says what takes its place. A secret that stands in what it reads is
//! never printed, nor kept.

mod cluster;
mod command_line;
mod new;
mod old;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Failure, output};
use old::Old;

/// A file of configuration is small; this much and no more is read.
const LARGEST: u64 = 4 << 20;

/// Print what takes the place of Jenkins's plugin remoting-kafka
#[derive(Debug, Args)]
#[command(
    override_usage = "rk migrate [OPTIONS] [FILE]… [-- OLD COMMAND LINE]",
    after_help = "\
FILE is Jenkins's configuration as code (jenkins.yaml), - for stdin. The old
command line of an agent may have secrets in it: keep it in a file, or leave
them out. Nothing is changed, and no secret is printed:
  rk migrate jenkins.yaml
  rk migrate --launch-line old-agent.sh jenkins.yaml"
)]
pub struct MigrateArgs {
    /// Jenkins's configuration as code; - is stdin
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A file with the command line of an old agent; may be repeated
    #[arg(long, value_name = "FILE")]
    launch_line: Vec<PathBuf>,
    /// The command line of an old agent
    #[arg(value_name = "OLD COMMAND LINE", last = true)]
    words: Vec<String>,
}

/// Runs the command.
pub fn run(args: &MigrateArgs) -> Result<u8, Failure> {
    let mut old = Old::default();
    for path in &args.files {
        let text = read(path)?;
        old.take_yaml(&text).map_err(|problem| Failure::usage(format!("{}: {problem}", path.display())))?;
    }
    for path in &args.launch_line {
        let text = read(path)?;
        let line = command_line::split(&text).and_then(|words| command_line::parse(&words));
        old.take_agent(line.map_err(|problem| Failure::usage(format!("{}: {problem}", path.display())))?);
    }
    if !args.words.is_empty() {
        old.take_agent(command_line::parse(&args.words).map_err(Failure::usage)?);
    }
    if old.is_empty() {
        return Err(Failure::usage(
            "there is nothing of the plugin to migrate; name a jenkins.yaml that has unclassified: kafka, nodes with launcher: \
             kafka or a cloud of it, or an agent's command line after --",
        ));
    }
    output::print(&new::render(&old))?;
    Ok(0)
}

fn read(path: &Path) -> Result<String, Failure> {
    let wrong = |e: io::Error| Failure::usage(format!("{}: {e}", path.display()));
    let mut text = String::new();
    match path.as_os_str() == "-" {
        true => io::stdin().lock().take(LARGEST).read_to_string(&mut text),
        false => File::open(path).and_then(|file| file.take(LARGEST).read_to_string(&mut text)),
    }
    .map_err(wrong)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
