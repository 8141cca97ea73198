//! An agent with services of its own, and a program beside the controller that calls them: JSON for people, a remote trait for
//! programs. Everything but Kafka is real; the log is in memory, so that it runs anywhere.
//!
//! ```text
//! cargo run --example calculator --features rmi
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use remoting_kafka::{
    agent,
    api::AddAgent,
    controller::{self, Handle},
    id::AgentName,
    kafka::{Prefix, memory::MemoryCluster},
    link::Identity,
    protocol::service::Start,
    service::{
        Failure, Services, json,
        rmi::{
            self,
            remoc::{self, prelude::*},
        },
    },
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;

/// Why a sum could not be worked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{0} has no square root among whole numbers")]
struct NoRoot(u64);

/// What the agent offers to programs.
#[rtc::remote]
trait Sums {
    /// A plain call.
    async fn add(&self, a: u64, b: u64) -> Result<u64, rmi::Error<NoRoot>>;
    /// A call that may fail.
    async fn root(&self, n: u64) -> Result<u64, rmi::Error<NoRoot>>;
    /// A call that says how far it is.
    async fn count(&self, to: u64, progress: rch::mpsc::Sender<u64>) -> Result<(), rmi::Error<NoRoot>>;
    /// A call that asks back.
    async fn apply(&self, to: u64, f: rfn::RFn<(u64,), Result<u64, rfn::CallError>>)
    -> Result<u64, rmi::Error<NoRoot>>;
    /// A call that never ends by itself.
    async fn forever(&self) -> Result<(), rmi::Error<NoRoot>>;
}

struct Calculator;

impl Sums for Calculator {
    async fn add(&self, a: u64, b: u64) -> Result<u64, rmi::Error<NoRoot>> {
        Ok(a.wrapping_add(b))
    }

    async fn root(&self, n: u64) -> Result<u64, rmi::Error<NoRoot>> {
        let root = n.isqrt();
        if root * root == n { Ok(root) } else { Err(rmi::Error::Remote(NoRoot(n))) }
    }

    async fn count(&self, to: u64, progress: rch::mpsc::Sender<u64>) -> Result<(), rmi::Error<NoRoot>> {
        for n in 1..=to {
            progress.send(n).await.map_err(|e| rmi::Error::NoAnswer(e.to_string()))?;
        }
        Ok(())
    }

    async fn apply(
        &self,
        to: u64,
        f: rfn::RFn<(u64,), Result<u64, rfn::CallError>>,
    ) -> Result<u64, rmi::Error<NoRoot>> {
        f.call(to).await.map_err(|e| rmi::Error::NoAnswer(e.to_string()))
    }

    async fn forever(&self) -> Result<(), rmi::Error<NoRoot>> {
        std::future::pending().await
    }
}

#[derive(Deserialize)]
struct Pair {
    a: i64,
    b: i64,
}

/// The agent's services: the same sums, once for people and once for programs.
fn services() -> Services {
    let people = json::Methods::new("sums for people")
        .method("add", "a + b", async |_, Pair { a, b }: Pair| Ok(a.wrapping_add(b)))
        .method("divide", "a / b", async |_, Pair { a, b }: Pair| {
            a.checked_div(b).ok_or_else(|| Failure::new("nothing can be divided by zero"))
        });
    let programs = rmi::service(|context| {
        println!("agent: {} calls", context.caller);
        let (server, client) = SumsServerShared::<_, remoc::codec::Default>::new(Arc::new(Calculator), 16);
        (client, async move { drop(server.serve(true).await) })
    });
    Services::new().with("calculator", people).with("sums", programs)
}

fn start(service: &str, about: &str) -> Start {
    let text = str::to_owned;
    Start {
        service: text(service),
        caller: text("example"),
        deadline: Some(Duration::from_secs(10)),
        about: text(about),
    }
}

async fn call(handle: &Handle, agent: &AgentName) -> Result<(), Box<dyn std::error::Error>> {
    // For people: what `rk call a calculator.add a=2 b=3` does.
    let ask = async |method: &str, params| match handle.open_service(agent, start("calculator", method)).await {
        Ok((channel, ending)) => json::call(channel, ending, &params).await,
        Err(outcome) => Err(outcome),
    };
    println!("2 + 3 = {}", ask("add", json!({ "a": 2, "b": 3 })).await.map_err(|outcome| outcome.to_string())?);
    println!("1 / 0: {}", ask("divide", json!({ "a": 1, "b": 0 })).await.expect_err("it fails"));

    // For programs.
    let (channel, ending) =
        handle.open_service(agent, start("sums", "")).await.map_err(|outcome| outcome.to_string())?;
    let remote = rmi::connect::<SumsClient>(channel, ending).await.map_err(|outcome| outcome.to_string())?;
    let sums = &remote.client;
    println!("2 + 3 = {}", sums.add(2, 3).await?);
    println!("the root of 10: {}", sums.root(10).await.expect_err("it fails"));
    let (progress, mut seen) = rch::mpsc::channel(2);
    let watch = async {
        while let Ok(Some(n)) = seen.recv().await {
            println!("counted to {n}");
        }
    };
    tokio::join!(sums.count(3, progress), watch).0?;
    let square = rfn::RFn::new_1(async |n: u64| Ok::<_, rfn::CallError>(n * n));
    println!("7 squared, worked out here for the agent: {}", sums.apply(7, square).await?);
    let ended = rmi::within(Duration::from_millis(50), sums.forever()).await;
    println!("a call that never ends: {}", ended.expect_err("it is cancelled"));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The cluster, and a controller on it.
    let (cluster, prefix) = (MemoryCluster::new(), Prefix::default());
    cluster.create(&prefix.journal(), 1);
    for topic in [prefix.up_control(), prefix.down_control(), prefix.up_bulk(), prefix.down_bulk()] {
        cluster.create(&topic, 8);
    }
    let dir = tempfile::tempdir()?;
    let config = controller::Config { data: dir.path().join("controller"), ..controller::Config::default() };
    let controller = controller::start(&config, Arc::new(cluster.clone()), &Arc::new(Identity::generate())).await?;
    let handle = controller.handle();

    // An agent with services of its own.
    let agent: AgentName = "a".parse()?;
    let request = AddAgent { name: agent.clone(), labels: BTreeMap::default(), layout: None };
    let added = handle.add_agent(request).await.map_err(|e| e.message)?;
    let config = agent::Config { data: dir.path().join("agent"), services: services(), ..agent::Config::default() };
    let (stop, stops) = mpsc::channel(1);
    let running = tokio::spawn(agent::run(config, Arc::new(cluster), Arc::new(added.credential.parse()?), stops));
    while handle.session(&agent).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    call(&handle, &agent).await?;
    stop.send(()).await?;
    running.await??;
    Ok(())
}
