//! `rk agent run`: an agent on this machine.

mod replace;

use std::{ffi::OsString, path::PathBuf, sync::Arc};

use clap::{Args, Subcommand};

use super::{Failure, failure, flags::AgentFlags, kafka, log, output, service};
use crate::{
    agent::{
        self, Exit,
        update::{Candidate, PROVEN, Updates},
        warden,
    },
    config::{Environment, Settings},
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

/// How a run of the agent ended.
enum Ended {
    /// With this exit code.
    Code(u8),
    /// To give its process to another program.
    For(Box<Candidate>),
}

/// Runs the agent until it is told to stop, or must not go on. `arguments` are those of this process.
pub fn start(command: AgentCommand, arguments: &[OsString], environment: &Environment) -> Result<u8, Failure> {
    let AgentCommand::Run(args) = command else { return warden() };
    // What an agent does fits on one core; a second thread would only add a hop to each call.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(failure::TRY_AGAIN, format!("no threads can be started: {e}")))?;
    let settings = args.flags.settings(environment)?;
    match runtime.block_on(run(&settings)) {
        Ok(Ended::For(candidate)) => {
            // With it end the agent's tasks, which hold its directory, its connections and its health address.
            runtime.shutdown_timeout(replace::LET_GO);
            replace::run(*candidate, arguments, &settings)
        }
        ended => {
            // A thread that reads stdin or waits for a name server cannot be stopped; the process's end does it.
            runtime.shutdown_background();
            ended.map(|ended| if let Ended::Code(code) = ended { code } else { 0 })
        }
    }
}

/// The file that this program is in, or was in before another took its place.
fn own_file() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?;
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(text) if !path.exists() => Some(PathBuf::from(text)),
        _ => Some(path),
    }
}

/// What ends processes that this one leaves when it is killed.
fn warden_program() -> Option<warden::Program> {
    let path = own_file()?;
    Some(warden::Program { path, args: ["agent", "warden"].map(OsString::from).to_vec() })
}

async fn run(settings: &Settings) -> Result<Ended, Failure> {
    log::start(settings, log::SERVICE)?;
    let entrance = match settings.join()? {
        Some((token, name)) => Entrance::Join(token, name),
        None => Entrance::Credential(Arc::new(settings.credential()?)),
    };
    let mut config = settings.agent()?;
    config.warden = warden_program();
    config.updates = own_file().map(|program| settings.updates(program)).transpose()?.map(Updates::new);
    let updates = config.updates.clone();
    // Also after its file was replaced.
    // By its path: others, as whom it may run, cannot see through `/proc` what we are.
    config.file_server = own_file().map(|path| warden::Program { path, args: vec![agent::files::SUBCOMMAND.into()] });
    config.keeper = Some(warden::Program { path: "/proc/self/exe".into(), args: vec![agent::shim::SUBCOMMAND.into()] });
    if let Some(listener) = service::listen_for_health(settings).await? {
        let health = Arc::new(config.health.clone());
        tokio::spawn(async move { health::serve(&listener, health).await });
    }
    let name = match &entrance {
        Entrance::Join(_, name) => name.clone(),
        Entrance::Credential(credential) => credential.name.clone(),
    };
    let cluster: SharedCluster = Arc::new(kafka::cluster(settings, "agent", name.as_str())?);
    let mut stops = service::stops(settings)?;
    output::say(&format!("rk: agent {name} starts; state in {}", config.data.display()));
    let credential = match entrance {
        Entrance::Credential(credential) => credential,
        Entrance::Join(token, name) => match agent::join(&config, &cluster, &token, &name, &mut stops).await? {
            Some(credential) => credential,
            None => return Ok(Ended::Code(0)),
        },
    };
    let exit = agent::run(config, cluster, credential, stops).await?;
    Ok(match (exit, updates.and_then(|updates| updates.chosen())) {
        (Exit::Update, Some(candidate)) => Ended::For(Box::new(candidate)),
        (Exit::Proven, _) => {
            output::print(&format!("{PROVEN}\n"))?;
            Ended::Code(0)
        }
        _ => Ended::Code(0),
    })
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
