//! `rk setup compose`: what an installation in containers needs before it runs, step by step: the [`files`] of all services, the
//! topics and rights in [`kafka`], the controller's [`agents`].
//!
//! Each step can be run again at any time: it makes what is missing, and what is there stays.

mod agents;
mod files;
mod kafka;
mod settings;

use clap::Subcommand;

use super::Failure;
use crate::{config::Environment, id::AgentName};

/// Set up installations.
#[derive(Debug, Subcommand)]
pub enum SetupCommand {
    /// Set up the services of compose/compose.yaml, in three steps
    #[command(subcommand)]
    Compose(ComposeCommand),
}

/// The steps, in their order.
#[derive(Debug, Subcommand)]
pub enum ComposeCommand {
    /// Before the brokers: certificates, passwords, and the settings of all
    Files(files::FilesArgs),
    /// Once the brokers serve: topics and rights
    Kafka(Box<kafka::KafkaArgs>),
    /// Once the controller serves: agents and a join token
    Agents(agents::AgentsArgs),
}

/// Runs the command.
pub async fn run(command: SetupCommand, environment: &Environment) -> Result<u8, Failure> {
    let SetupCommand::Compose(command) = command;
    match command {
        ComposeCommand::Files(args) => files::run(&args),
        ComposeCommand::Kafka(args) => kafka::run(*args, environment).await,
        ComposeCommand::Agents(args) => agents::run(args, environment).await,
    }
}

/// The agents of the demo, which the controller knows before they start. Each has a folder, and later a volume, of its name.
fn demo_agents() -> Vec<AgentName> {
    ["agent-1", "agent-2"].into_iter().map(|name| name.parse().expect("a good name")).collect()
}
