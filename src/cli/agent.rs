//! `rk agent run`: an agent on this machine.

use std::{ffi::OsString, sync::Arc};

use clap::{Args, Subcommand};

use super::{Failure, flags::AgentFlags, kafka, log, output, service};
use crate::{
    agent::{self, warden},
    config::Environment,
    health,
    id::AgentName,
    kafka::SharedCluster,
    link::{Credential, JoinToken},
};

/// Run an agent.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Run an agent on this machine
    Run(RunArgs),
    /// Wait for the agent's end, then end what it left behind
    #[command(hide = true)]
    Warden,
}

/// Arguments of `rk agent run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    flags: AgentFlags,
}

/// Serves as the warden of another process. No runtime: it has one thread, and ignores the signals that end the agent.
pub fn warden() -> Result<u8, Failure> {
    warden::run()?;
    Ok(0)
}

/// Runs the agent until it is told to stop, or must not go on.
pub async fn run(command: AgentCommand, environment: &Environment) -> Result<u8, Failure> {
    let AgentCommand::Run(args) = command else { return warden() };
    let settings = args.flags.settings(environment)?;
    log::start(&settings, log::SERVICE)?;
    let entrance = match settings.join()? {
        Some((token, name)) => Entrance::Join(token, name),
        None => Entrance::Credential(Arc::new(settings.credential()?)),
    };
    let mut config = settings.agent()?;
    config.warden = std::env::current_exe()
        .ok()
        .map(|path| warden::Program { path, args: ["agent", "warden"].map(OsString::from).to_vec() });
    // Also after its file was replaced.
    // By its path: others, as whom it may run, cannot see through `/proc` what we are.
    config.file_server =
        std::env::current_exe().ok().map(|path| warden::Program { path, args: vec![agent::files::SUBCOMMAND.into()] });
    config.keeper = Some(warden::Program { path: "/proc/self/exe".into(), args: vec![agent::shim::SUBCOMMAND.into()] });
    if let Some(listener) = service::listen_for_health(&settings).await? {
        let health = Arc::new(config.health.clone());
        tokio::spawn(async move { health::serve(&listener, health).await });
    }
    let name = match &entrance {
        Entrance::Join(_, name) => name.clone(),
        Entrance::Credential(credential) => credential.name.clone(),
    };
    let cluster: SharedCluster = Arc::new(kafka::cluster(&settings, "agent", name.as_str())?);
    let mut stops = service::stops(&settings)?;
    output::say(&format!("rk: agent {name} starts; state in {}", config.data.display()));
    let credential = match entrance {
        Entrance::Credential(credential) => credential,
        Entrance::Join(token, name) => match agent::join(&config, &cluster, &token, &name, &mut stops).await? {
            Some(credential) => credential,
            None => return Ok(0),
        },
    };
    agent::run(config, cluster, credential, stops).await?;
    Ok(0)
}

/// How the agent gets in.
enum Entrance {
    Join(JoinToken, AgentName),
    Credential(Arc<Credential>),
}

impl From<agent::Error> for Failure {
    fn from(e: agent::Error) -> Self {
        match e {
            agent::Error::Link(e) => e.into(),
            agent::Error::Data { .. } | agent::Error::Private(_) => Self::new(e.exit_code(), e.to_string()),
        }
    }
}
