//! `rk demo`: the main job on one machine. A broker with TLS and SCRAM, a controller and two agents, each a process of
//! its own, and the two classic jobs on them.

mod processes;
mod stage;

use std::{ffi::OsString, time::Duration};

use clap::Args;
use tokio::time::Instant;

use super::{Failure, exec::Signals, failure, output};
use crate::{api::Client, config::Environment};

use processes::{Launcher, Service};
use stage::Stage;

/// How long each process may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);
const AGENTS: [&str; 2] = ["anna", "bert"];

const HELLO: &str = "echo \"hello from $RK_AGENT_NAME on $(uname -n)\"";
const PING: &str = "i=1; while [ $i -le 20 ]; do echo \"ping $i of 20\"; sleep 0.1; i=$((i+1)); done";

/// Show the main job on this machine: broker, controller, two agents, two jobs
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Exit after the jobs; otherwise stay up until Ctrl-C
    #[arg(long)]
    once: bool,
}

/// Runs the demo. Whatever happens, no process and no directory is left.
pub async fn run(args: DemoArgs, environment: &Environment) -> Result<u8, Failure> {
    let mut signals = Signals::listen()?;
    let stage = Stage::set()?;
    let mut services = Vec::new();
    let result = tokio::select! {
        result = play(&stage, environment, &args, &mut services) => result,
        caught = signals.next() => Err(Failure::silent(128 + caught.number as u8)),
    };
    let result = match result {
        Ok(()) if !args.once => {
            signals.next().await;
            output::say("rk: the demo ends");
            Ok(())
        }
        result => result,
    };
    // In the order in which they lean on each other: agents, controller, broker.
    while let Some(service) = services.pop() {
        service.stop().await;
    }
    drop(stage);
    result.map(|()| 0)
}

async fn play(
    stage: &Stage,
    environment: &Environment,
    args: &DemoArgs,
    services: &mut Vec<Service>,
) -> Result<(), Failure> {
    let launcher = Launcher::new(environment.variables(), &stage.path("logs"))?;
    let start = Instant::now();
    let told = |what: &str| output::print(&format!("{:>7}  {what}\n", seconds(start.elapsed())));

    let broker = launcher.service("broker", &stage.broker())?;
    services.push(broker);
    let port = stage.broker_port;
    let listens = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok();
    last(services).wait(PATIENCE, listens).await?;
    told(&format!("broker with TLS and SCRAM at 127.0.0.1:{port}"))?;

    services.push(launcher.service("controller", &stage.controller())?);
    let client = last(services).wait(PATIENCE, async || healthy(stage).await).await?;
    told(&format!("controller at {}", stage.api()))?;

    for name in AGENTS {
        let request = crate::api::AddAgent {
            name: name.parse().map_err(|e| Failure::usage(format!("{e}")))?,
            labels: [("demo".to_owned(), "yes".to_owned())].into(),
            layout: None,
        };
        let added = client.add_agent(&request).await?;
        let credential = stage.secret(&format!("{name}.credential"), &added.credential)?;
        services.push(launcher.service(name, &stage.agent(name, &credential))?);
    }
    for name in AGENTS {
        last(services).wait(PATIENCE, async || online(&client, name).await).await?;
        told(&format!("agent {name} is online"))?;
    }

    for (job, script) in [("hello", HELLO), ("ping", PING)] {
        output::print(&format!("\njob {job}: rk exec -l demo=yes -- sh -c '{script}'\n"))?;
        let began = Instant::now();
        let status = launcher.run(&exec(stage, script)).await?;
        if !status.success() {
            let tails: Vec<String> = services.iter().map(Service::tail).collect();
            let message = format!("job {job} ended with {status}: {}", tails.join(" || "));
            return Err(Failure::new(failure::UNREACHABLE, message));
        }
        output::print(&format!("job {job}: {} on both agents\n", seconds(began.elapsed())))?;
    }
    if !args.once {
        output::print(&format!(
            "\nIt stays up until Ctrl-C. In another terminal:\n\n  \
             export RK_API={} RK_API_TOKEN=file:{}\n  \
             rk agents ls\n  rk exec {} -- uname -a\n  date | rk exec {} -- tr a-z A-Z\n  rk status\n",
            stage.api(),
            stage.token().display(),
            AGENTS[0],
            AGENTS[1],
        ))?;
    }
    Ok(())
}

fn last(services: &mut [Service]) -> &mut Service {
    services.last_mut().expect("it was just pushed")
}

fn seconds(d: Duration) -> String {
    format!("{:.2} s", d.as_secs_f64())
}

async fn healthy(stage: &Stage) -> Option<Client> {
    let client = stage.client()?;
    client.status().await.ok().filter(|status| status.is_healthy()).map(|_| client)
}

async fn online(client: &Client, name: &str) -> Option<()> {
    let agent = client.agent(&name.parse().ok()?).await.ok()?;
    (agent.state == crate::api::AgentState::Online).then_some(())
}

fn exec(stage: &Stage, script: &str) -> Vec<OsString> {
    let mut args: Vec<OsString> = ["exec", "--api"].map(OsString::from).into();
    args.push(stage.api().into());
    args.push("--api-token".into());
    args.push(format!("file:{}", stage.token().display()).into());
    args.extend(["-l", "demo=yes", "--", "sh", "-c", script].map(OsString::from));
    args
}
