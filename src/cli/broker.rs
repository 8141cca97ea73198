//! `rk broker`: the embedded broker.

use clap::Args;

use super::{Failure, failure, flags::BrokerFlags, log, output, service};
use crate::{
    broker,
    config::{BROKER_ADDRESS, Environment},
};

/// Run the embedded broker: one node, for a demo, tests or a single machine
#[derive(Debug, Args)]
pub struct BrokerArgs {
    #[command(flatten)]
    flags: BrokerFlags,
}

/// Runs the broker until it is told to stop.
pub async fn run(args: BrokerArgs, environment: &Environment) -> Result<u8, Failure> {
    let settings = args.flags.settings(environment)?;
    log::start(&settings, log::SERVICE)?;
    let config = settings.broker()?;
    let mut stops = service::stops(&settings)?;
    let listener = service::listen(&settings, BROKER_ADDRESS).await?;
    let address = service::address(&listener)?;
    if !address.ip().is_loopback() && (config.listener.tls.is_none() || config.listener.sasl.is_none()) {
        output::say(&format!(
            "rk: everybody who reaches {address} may read and write; set --listen-cert and --users, or listen on loopback"
        ));
    } else if !address.ip().is_loopback() && config.super_users.is_empty() {
        output::say(
            "rk: every user may read and write everything; set --super-users so that access control lists count",
        );
    }
    output::say(&format!("rk: broker at {address}, data in {}", config.data.display()));
    let stopped = async move {
        stops.recv().await;
    };
    broker::run(listener, config, stopped).await?;
    Ok(0)
}

impl From<broker::Error> for Failure {
    fn from(e: broker::Error) -> Self {
        let code = match e {
            broker::Error::Tls(_) | broker::Error::Data { .. } => failure::USAGE,
            broker::Error::Locked(_) => failure::TRY_AGAIN,
            broker::Error::Listener(_) => failure::UNREACHABLE,
        };
        Self::new(code, e.to_string())
    }
}
