//! `rk forward`: connections through an agent, from here or to here.

use std::{str::FromStr, sync::Arc, time::Duration};

use clap::Args;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use super::{Failure, exec::interruptible, failure, flags::ClientFlags, output, session};
use crate::{
    api::{Client, service::OpenService},
    config::Environment,
    id::AgentName,
    service::{
        Budget, Outcome,
        forward::{CONNECT, LISTEN, TAKE, host_and_port, splice},
    },
};

/// What the windows of all connections may grow by.
const BUDGET: u64 = 256 << 20;

/// Connections at once; more wait to be accepted.
const MOST: usize = 512;

/// How long our own side may take to be connected to.
const PATIENCE: Duration = Duration::from_secs(15);

/// Forward connections through an agent
#[derive(Debug, Args)]
#[command(
    override_usage = "rk forward [OPTIONS] [HOST:]PORT:AGENT/HOST:PORT\n       rk forward [OPTIONS] -R [HOST:]PORT:AGENT/HOST:PORT",
    after_help = "rk forward 8080:web/localhost:80   what connects here to 8080 reaches port 80\n                                   of the agent's machine\nrk forward -R 8080:web/localhost:80   what connects to 8080 of the agent's\n                                   machine reaches port 80 here\n\nPort 0 is a free one, which is told. Other machines than the agent's own are\nreached if its operator says so (rk agent run --forward-to)."
)]
pub struct ForwardArgs {
    /// Where to listen, through whom, and whereto
    #[arg(value_name = "PORT:AGENT/HOST:PORT")]
    way: Way,
    /// Listen here (the default)
    #[arg(short = 'L', long, conflicts_with = "remote")]
    local: bool,
    /// Listen at the agent, and connect from here
    #[arg(short = 'R', long)]
    remote: bool,
    #[command(flatten)]
    flags: ClientFlags,
}

/// `[HOST:]PORT:AGENT/HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    listen: String,
    agent: AgentName,
    target: String,
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no way; write PORT:AGENT/HOST:PORT, like 8080:web/localhost:80");
        let (near, target) = text.split_once('/').ok_or_else(wrong)?;
        let (listen, agent) = near.rsplit_once(':').ok_or_else(wrong)?;
        let agent = agent.parse().map_err(|e| format!("{e}"))?;
        if listen.parse::<u16>().is_err() && host_and_port(listen).is_none() || host_and_port(target).is_none() {
            return Err(wrong());
        }
        Ok(Self { listen: listen.to_owned(), agent, target: target.to_owned() })
    }
}

/// Runs the command until it is interrupted.
pub async fn run(args: ForwardArgs, environment: &Environment) -> Result<u8, Failure> {
    let session = session::open(args.flags, environment)?;
    let forwarder = Arc::new(Forwarder { client: session.client, way: args.way, budget: Budget::new(BUDGET) });
    let forwarded = async {
        if args.remote { forwarder.remote(session.quiet).await } else { forwarder.local(session.quiet).await }
    };
    interruptible(forwarded).await.map(|()| 0)
}

struct Forwarder {
    client: Client,
    way: Way,
    budget: Budget,
}

impl Forwarder {
    /// Listens here.
    async fn local(self: &Arc<Self>, quiet: bool) -> Result<(), Failure> {
        let Way { listen, agent, target } = &self.way;
        let here = if listen.parse::<u16>().is_ok() { format!("127.0.0.1:{listen}") } else { listen.clone() };
        // The first mistake is a name; it is told before somebody connects.
        self.client.agent(agent).await?;
        let listener =
            TcpListener::bind(&here).await.map_err(|e| Failure::new(failure::USAGE, format!("{here}: {e}")))?;
        if !quiet {
            output::say(&format!("{} is forwarded to {target} through {agent}", listener.local_addr()?));
        }
        let (room, mut connections) = (Arc::new(Semaphore::new(MOST)), JoinSet::new());
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return Ok(()) };
            match listener.accept().await {
                Ok((connection, _)) => {
                    let forwarder = self.clone();
                    connections.spawn(async move {
                        forwarder.carry(connection, CONNECT, &forwarder.way.target).await;
                        drop(place);
                    });
                }
                // Out of descriptors, or gone before it was accepted: neither may spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
            while connections.try_join_next().is_some() {}
        }
    }

    /// Listens at the agent.
    async fn remote(self: &Arc<Self>, quiet: bool) -> Result<(), Failure> {
        let Way { listen, agent, target } = &self.way;
        let request = OpenService::new(agent.clone(), LISTEN, listen);
        let (channel, mut ending) = self.client.open_service(&request, &self.budget).await?;
        let mut lines = BufReader::new(channel.reader).lines();
        let (room, mut connections) = (Arc::new(Semaphore::new(MOST)), JoinSet::new());
        let mut begun = false;
        while let Ok(Some(line)) = lines.next_line().await {
            if !std::mem::replace(&mut begun, true) {
                if !quiet {
                    output::say(&format!("{line} of {agent} is forwarded to {target} here"));
                }
                continue;
            }
            let Some((ticket, _from)) = line.split_once(' ') else { continue };
            let Ok(place) = room.clone().acquire_owned().await else { break };
            let (forwarder, ticket) = (self.clone(), ticket.to_owned());
            connections.spawn(async move {
                let target = &forwarder.way.target;
                match tokio::time::timeout(PATIENCE, TcpStream::connect(target)).await {
                    Ok(Ok(connection)) => forwarder.carry(connection, TAKE, &ticket).await,
                    Ok(Err(e)) => output::say(&format!("rk: {target}: {e}")),
                    Err(_) => output::say(&format!("rk: {target} did not answer within {PATIENCE:?}")),
                }
                drop(place);
            });
            while connections.try_join_next().is_some() {}
        }
        match ending.outcome().await {
            Outcome::Done => Ok(()),
            outcome => Err(outcome.into()),
        }
    }

    /// Carries one connection. That it could not be is told, and ends only this one.
    async fn carry(&self, connection: TcpStream, service: &str, about: &str) {
        let request = OpenService::new(self.way.agent.clone(), service, about);
        match self.client.open_service(&request, &self.budget).await {
            Ok((channel, mut ending)) => {
                // That it broke off is no news: both ends see it. That it never was is.
                let _ = splice(connection, channel).await;
                match ending.outcome().await {
                    Outcome::Done => (),
                    outcome => output::say(&format!("rk: {outcome}")),
                }
            }
            Err(error) => output::say(&format!("rk: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_read_as_people_write_it() {
        let way = |listen: &str, target: &str| {
            Ok(Way { listen: listen.to_owned(), agent: "web".parse().expect("name"), target: target.to_owned() })
        };
        assert_eq!("8080:web/localhost:80".parse(), way("8080", "localhost:80"));
        assert_eq!("0.0.0.0:8080:web/[::1]:80".parse(), way("0.0.0.0:8080", "[::1]:80"));
        for wrong in
            ["8080", "8080:web", "web/localhost:80", "x:web/localhost:80", "8080:web/localhost", "8080:we b/h:1"]
        {
            assert!(wrong.parse::<Way>().is_err(), "{wrong}");
        }
    }
}
