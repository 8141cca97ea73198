//! The command line of the smallest agent: a program with the feature `agent` and without `cli`. What it takes it takes with the
//! same flags, settings, messages and exit codes; the files are those of the whole command line.

mod agent;
mod early;
mod failure;
mod flags;
mod kafka;
mod log;
#[allow(dead_code, reason = "an agent has no tables to print")]
mod output;
mod refusal;
mod service;
mod version;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::config::Environment;
use failure::Failure;

const AFTER_HELP: &str = "\
Settings: each flag is also a variable RK_<FLAG> and a key of the YAML file; a
flag wins over the variable, and that over the file.

Exit codes: 64 usage   69 unreachable   75 try again   77 refused (login,
  right, key)   5 superseded by a newer one   7 version too old.";

/// The agent of remoting-kafka, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "rk", version, about, after_help = AFTER_HELP, max_term_width = 80, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an agent
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Print the version
    Version(version::VersionArgs),
}

/// Parses `arguments`, runs the command, and returns the exit code. What went wrong is told on stderr.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    early::run(arguments, |cli: Cli, arguments| match cli.command {
        Command::Agent(command) => agent::start(command, arguments, &Environment::read()),
        Command::Version(args) => version::run(&args),
    })
}
