//! `rk controller run`: the controller.

mod key;

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt, path::Path, sync::Arc};

use clap::{Args, Subcommand};

use super::{Failure, failure, flags::ControllerFlags, kafka, log, output, service};
use crate::{
    api::DEFAULT_ADDRESS,
    config::{Environment, keys},
    controller::{self, outage, provision::OnCluster},
    journal,
    kafka::topics,
    link::Identity,
    private_file,
};

/// Run the controller.
#[derive(Debug, Subcommand)]
pub enum ControllerCommand {
    /// Run the controller on this machine
    Run(RunArgs),
    /// Rotate the controller's key
    #[command(subcommand)]
    Key(key::KeyCommand),
}

/// Arguments of `rk controller run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    flags: ControllerFlags,
}

/// Runs the controller until it is told to stop, or another one takes over.
pub async fn run(command: ControllerCommand, environment: &Environment) -> Result<u8, Failure> {
    let args = match command {
        ControllerCommand::Run(args) => args,
        ControllerCommand::Key(command) => return key::run(command, environment),
    };
    let settings = args.flags.settings(environment)?;
    log::start(&settings, log::SERVICE)?;
    let mut config = settings.controller()?;
    config.health = service::listen_for_health(&settings).await?.map(Arc::new);
    let mut stops = service::stops(&settings)?;
    let listener = service::listen(&settings, DEFAULT_ADDRESS).await?;
    let address = service::address(&listener)?;
    if !address.ip().is_loopback() && config.tls.is_none() {
        return Err(Failure::usage(format!(
            "{address} is open to the network and wants TLS: give --listen-cert and --listen-key, or listen on 127.0.0.1"
        )));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&config.data).map_err(|e| {
        let data = config.data.display();
        Failure::usage(format!("{data}: {e}; choose a directory that this user may write with --data"))
    })?;
    let identity_file = settings.path(&keys::IDENTITY).unwrap_or_else(|| config.data.join("identity.pem"));
    config.next_identity = Some(key::next_file(&identity_file));
    let identity = Arc::new(identity(&identity_file)?);
    let cluster = kafka::cluster(&settings, "controller", &config.link.prefix.to_string())?;
    let partitions = i32::try_from(config.link.partitions).unwrap_or(i32::MAX);
    let manage = settings.topics_manage()?;
    let installation = topics::Installation {
        prefix: config.link.prefix.clone(),
        partitions,
        blobs_retention: settings.duration(&keys::BLOBS_RETENTION)?,
        ..topics::Installation::default()
    };
    let prepare = || topics::prepare(&cluster, &installation, manage);
    let prepared = tokio::select! {
        prepared = outage::through(config.wait_for_kafka, crate::kafka::Error::is_outage, prepare) => prepared?,
        Some(()) = stops.recv() => return Ok(0),
    };
    for warning in prepared.warnings {
        tracing::warn!("{warning}");
    }
    // Who must not touch topics makes none for agents either.
    if manage == topics::Manage::Auto {
        let users = settings.switch(&keys::PROVISION_KAFKA)?;
        config.provision = Some(Arc::new(OnCluster::new(cluster.admin(), config.link.prefix.clone(), users)));
    }
    output::say(&format!("rk: controller {} at {address}", identity.fingerprint()));
    controller::run(config, Arc::new(cluster), identity, listener, stops).await?;
    Ok(0)
}

/// Reads the controller's key, or makes it and says that it must be kept.
fn identity(path: &Path) -> Result<Identity, Failure> {
    let (pem, made) = private_file::read_or_create(path, || Identity::generate().to_pem().into_bytes())
        .map_err(|e| private_failure(&e))?;
    let text = String::from_utf8_lossy(&pem);
    let identity = Identity::from_pem(&text).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    if made {
        output::say(&format!(
            "rk: made the controller's key {}: back this up, every agent's credential names it",
            path.display()
        ));
    }
    Ok(identity)
}

fn private_failure(e: &private_file::PrivateFileError) -> Failure {
    use private_file::PrivateFileError as E;
    let code = if matches!(e, E::OpenToOthers { .. } | E::Owner { .. }) { failure::REFUSED } else { failure::USAGE };
    Failure::new(code, e.to_string())
}

impl From<controller::Error> for Failure {
    fn from(e: controller::Error) -> Self {
        use controller::Error;
        let code = match e {
            Error::Link(e) => return e.into(),
            Error::Journal(e) => return e.into(),
            Error::File(e) => return private_failure(&e),
            Error::Superseded { .. } => failure::SUPERSEDED,
            Error::Event(_) => failure::TOO_OLD,
            Error::Content { .. } | Error::Plaintext(_) => failure::USAGE,
            Error::Takeover { .. } | Error::Socket(_) => failure::UNREACHABLE,
        };
        Self::new(code, e.to_string())
    }
}

impl From<journal::Error> for Failure {
    fn from(e: journal::Error) -> Self {
        use journal::Error;
        let code = match &e {
            Error::Kafka(e) => return e.clone().into(),
            Error::Superseded { .. } | Error::Diverged { .. } => failure::SUPERSEDED,
            Error::Newer { .. } => failure::TOO_OLD,
            Error::RolledBack { .. }
            | Error::Truncated { .. }
            | Error::Recreated { .. }
            | Error::Partitions { .. }
            | Error::EpochsExhausted => failure::REFUSED,
            Error::NotLeader | Error::TooLarge { .. } | Error::Torn | Error::Closed => failure::UNREACHABLE,
        };
        Self::new(code, e.to_string())
    }
}
