//! The command line: one file per subcommand. Stdout is data, stderr is talk, every failure is one line and one
//! documented exit code.
//!
//! It parses, asks `config` for settings, and hands over to the layer that does the work; what an error means for an
//! exit code is decided here and nowhere else.

mod access;
#[cfg(feature = "agent")]
mod agent;
mod agents;
mod artifacts;
#[cfg(feature = "broker")]
mod broker;
mod bundle;
mod call;
#[cfg(feature = "broker")]
mod certs;
mod client;
#[cfg(feature = "controller")]
mod controller;
mod copy;
#[cfg(all(feature = "agent", feature = "controller", feature = "broker"))]
mod demo;
#[cfg(any(feature = "agent", feature = "controller"))]
mod doctor;
mod early;
mod exec;
mod failure;
mod flags;
mod forward;
mod fs;
mod jenkins;
mod jobs;
#[cfg(any(feature = "agent", feature = "controller"))]
mod kafka;
mod log;
mod logs;
mod manual;
mod migrate;
mod output;
mod reference;
mod refusal;
mod run;
#[cfg(any(feature = "agent", feature = "controller", feature = "broker"))]
mod service;
mod session;
#[cfg(all(feature = "controller", feature = "broker"))]
mod setup;
mod status;
mod submitter;
mod tokens;
#[cfg(any(feature = "agent", feature = "controller"))]
mod topics;
mod values;
mod version;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::Environment;
use failure::Failure;

const AFTER_HELP: &str = "\
Settings: each flag but those of a single run is also a variable RK_<FLAG> and
a key of the YAML file; a flag wins over the variable, and that over the file.

Exit codes: the remote command's own 0-255, 128+n after signal n. Ours:
  64 usage   69 unreachable   75 try again   77 refused (login, right, key)
  124 timed out   130 interrupted or cancelled   1 a log is not what the job
  wrote. exec -l, agents update: 1 any failed, 3 any did not answer.
  agent run, controller run: 5 superseded by a newer one, 7 version too old.
  topics plan: 2 differences. topics apply: 1 some are left.";

/// Remote execution where controller and agents meet only in Apache Kafka.
#[derive(Debug, Parser)]
#[command(name = "rk", version, about, after_help = AFTER_HELP, max_term_width = 80, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the main job on this machine: broker, controller, two agents, two jobs
    #[cfg(all(feature = "agent", feature = "controller", feature = "broker"))]
    Demo(demo::DemoArgs),
    /// Run the controller
    #[cfg(feature = "controller")]
    #[command(subcommand)]
    Controller(controller::ControllerCommand),
    /// Run an agent
    #[cfg(feature = "agent")]
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// List, add, drain, rotate, update, revoke and remove agents
    #[command(subcommand)]
    Agents(agents::AgentsCommand),
    /// Let others ask the controller, within limits
    #[command(subcommand)]
    Access(access::AccessCommand),
    /// Make, list and revoke join tokens, with which agents enrol themselves
    #[command(subcommand)]
    Tokens(tokens::TokensCommand),
    /// Push code that agents fetch when a command needs it
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    Exec(exec::ExecArgs),
    // Its arguments are many.
    Run(Box<run::RunArgs>),
    Call(call::CallArgs),
    Cp(copy::CpArgs),
    Forward(forward::ForwardArgs),
    /// Look at an agent's files
    #[command(subcommand)]
    Fs(fs::FsCommand),
    /// List jobs, wait for them, end and repeat them
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    Logs(logs::LogsArgs),
    /// List and fetch the files that jobs left
    #[command(subcommand)]
    Artifacts(artifacts::ArtifactsCommand),
    Status(status::StatusArgs),
    /// Make what installations in containers need before they run
    #[cfg(all(feature = "controller", feature = "broker"))]
    #[command(subcommand)]
    Setup(setup::SetupCommand),
    JenkinsAgent(jenkins::JenkinsArgs),
    Migrate(migrate::MigrateArgs),
    /// Compare the topics and rights in Kafka with what is needed, and make them
    #[cfg(any(feature = "agent", feature = "controller"))]
    #[command(subcommand)]
    Topics(topics::TopicsCommand),
    #[cfg(any(feature = "agent", feature = "controller"))]
    Doctor(Box<doctor::DoctorArgs>),
    #[cfg(feature = "broker")]
    Broker(broker::BrokerArgs),
    #[cfg(feature = "broker")]
    #[command(subcommand)]
    Certs(certs::CertsCommand),
    Completion(manual::CompletionArgs),
    Man(manual::ManArgs),
    #[command(hide = true)]
    Reference(reference::ReferenceArgs),
    /// Print the version
    Version(version::VersionArgs),
}

/// Parses `arguments`, runs the command, and returns the exit code. What went wrong is told on stderr.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    early::run(arguments, |cli: Cli, arguments| start(cli.command, arguments, &Environment::read()))
}

fn start(command: Command, arguments: &[OsString], environment: &Environment) -> Result<u8, Failure> {
    // It may become another program, and begins and ends its runtime itself.
    #[cfg(feature = "agent")]
    if let Command::Agent(command) = command {
        return agent::start(command, arguments, environment);
    }
    #[cfg(not(feature = "agent"))]
    let _ = arguments;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    match &command {
        #[cfg(feature = "controller")]
        Command::Controller(_) => drop(builder.worker_threads(controller_threads())),
        _ => (),
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|e| Failure::new(failure::TRY_AGAIN, format!("no threads can be started: {e}")))?;
    let result = runtime.block_on(dispatch(command, environment));
    // A thread that reads stdin or waits for a name server cannot be stopped; the process's end does it.
    runtime.shutdown_background();
    result
}

/// Half the cores, at most eight: tasks that wake each other across threads cost a call a seventh of its time on two
/// cores, and one thread receives what two cores can send.
#[cfg(feature = "controller")]
fn controller_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, 8)
}

async fn dispatch(command: Command, environment: &Environment) -> Result<u8, Failure> {
    match command {
        #[cfg(all(feature = "agent", feature = "controller", feature = "broker"))]
        Command::Demo(args) => demo::run(args, environment).await,
        #[cfg(feature = "controller")]
        Command::Controller(command) => controller::run(command, environment).await,
        #[cfg(feature = "agent")]
        Command::Agent(_) => unreachable!("it was begun before"),
        Command::Agents(command) => agents::run(command, environment).await,
        Command::Access(command) => access::run(command, environment).await,
        Command::Tokens(command) => tokens::run(command, environment).await,
        Command::Bundle(command) => bundle::run(command, environment).await,
        Command::Exec(args) => exec::run(args, environment).await,
        Command::Call(args) => call::run(args, environment).await,
        Command::Cp(args) => exec::interruptible(copy::run(args, environment)).await,
        Command::Forward(args) => forward::run(args, environment).await,
        Command::Fs(command) => exec::interruptible(fs::run(command, environment)).await,
        Command::Run(args) => self::run::run(*args, environment).await,
        Command::Jobs(command) => jobs::run(command, environment).await,
        Command::Logs(args) => logs::run(args, environment).await,
        Command::Artifacts(command) => artifacts::run(command, environment).await,
        Command::Status(args) => status::run(args, environment).await,
        #[cfg(all(feature = "controller", feature = "broker"))]
        Command::Setup(command) => setup::run(command, environment).await,
        Command::JenkinsAgent(args) => jenkins::run(args, environment).await,
        Command::Migrate(args) => migrate::run(&args),
        #[cfg(any(feature = "agent", feature = "controller"))]
        Command::Topics(command) => topics::run(command, environment).await,
        #[cfg(any(feature = "agent", feature = "controller"))]
        Command::Doctor(args) => doctor::run(*args, environment).await,
        #[cfg(feature = "broker")]
        Command::Broker(args) => broker::run(args, environment).await,
        #[cfg(feature = "broker")]
        Command::Certs(command) => certs::run(command).await,
        Command::Completion(args) => manual::complete(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command()),
        Command::Reference(args) => reference::run(&args, Cli::command()),
        Command::Version(args) => version::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(line: &str) -> Failure {
        let e = Cli::try_parse_from(line.split(' ')).expect_err(line);
        refusal::refuse(&e).expect_err(line)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_eighty_columns() {
        fn check(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
            for command in command.get_subcommands_mut() {
                check(command);
            }
        }
        let mut command = Cli::command();
        command.build();
        check(&mut command);
    }

    #[test]
    fn a_wrong_command_line_is_one_line_with_what_to_type_next() {
        for (line, parts) in [
            ("rk exce a", &["unrecognized subcommand 'exce'", "did you mean exec?", "`rk --help`"][..]),
            ("rk exec --tmeout 5s a -- true", &["did you mean --timeout?", "`rk exec --help`"]),
            ("rk exec --timeout soon a -- true", &["--timeout", "10s"]),
            ("rk exec", &["required"]),
            ("rk exec a", &["COMMAND"]),
            ("rk exec -l a=b=c -- true", &["selector", "os=linux"]),
            ("rk exec a.b -- true", &["agent name"]),
            ("rk exec --batch 0 -l a -- true", &["10%"]),
            ("rk run", &["COMMAND", "`rk run --help`"]),
            ("rk run --keep-workspace 5MB -- true", &["--keep-workspace", "10G"]),
            ("rk run --signal TREM -- true", &["TERM"]),
            ("rk jobs cancle x", &["did you mean cancel?", "`rk jobs --help`"]),
            ("rk jobs deadline x soon", &["10s", "never"]),
            ("rk logs --since noon x", &["--since", "10m"]),
            ("rk logs --stdout --stderr x", &["--stderr", "`rk logs --help`"]),
        ] {
            let failure = failure(line);
            let text = failure.line().expect("a line");
            assert_eq!(failure.code, failure::USAGE, "{line}");
            assert!(text.starts_with("rk: ") && !text.contains('\n'), "{text}");
            for part in parts {
                assert!(text.contains(part), "{line}: {text}");
            }
        }
    }
}
