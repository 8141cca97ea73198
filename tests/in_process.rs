//! A controller and agents in one process, on a cluster in memory: everything but Kafka is real.

#![cfg(all(feature = "agent", feature = "controller"))]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use remoting_kafka::{
    agent,
    api::{AddAgent, AgentState, Client, ExecEnd, ExecRequest, frames::ToClient},
    controller::{self, Controller, Handle},
    id::AgentName,
    kafka::{Prefix, memory::MemoryCluster},
    link::{Identity, LinkError},
    private_file,
    protocol::call::Call,
    secret::Secret,
    selector::Labels,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("it happens in time")
}

fn name(text: &str) -> AgentName {
    text.parse().expect("name")
}

struct World {
    cluster: MemoryCluster,
    identity: Arc<Identity>,
    config: controller::Config,
    dir: tempfile::TempDir,
}

/// A running agent.
struct Agent {
    stops: mpsc::Sender<()>,
    task: JoinHandle<Result<agent::Exit, agent::Error>>,
}

impl World {
    fn new() -> Self {
        let (cluster, prefix) = (MemoryCluster::new(), Prefix::default());
        cluster.create(&prefix.journal(), 1);
        for topic in [prefix.up_control(), prefix.down_control(), prefix.up_bulk(), prefix.down_bulk()] {
            cluster.create(&topic, 8);
        }
        let dir = tempfile::tempdir().expect("dir");
        let config = controller::Config { data: dir.path().join("controller"), ..controller::Config::default() };
        Self { cluster, identity: Arc::new(Identity::generate()), config, dir }
    }

    async fn controller(&self) -> Controller {
        let start = controller::start(&self.config, Arc::new(self.cluster.clone()), &self.identity);
        soon(start).await.expect("took over")
    }

    /// Adds an agent, starts it, and waits until it is online.
    async fn agent(&self, handle: &Handle, text: &str) -> Agent {
        let added = handle.add_agent(AddAgent { name: name(text), labels: Labels::new() }).await.expect("added");
        let config = agent::Config {
            data: self.dir.path().join("agent"),
            environment: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            dumpable: true,
            ..agent::Config::default()
        };
        let (stops, stops_in) = mpsc::channel(4);
        let credential = Arc::new(added.credential.parse().expect("credential"));
        let task = tokio::spawn(agent::run(config, Arc::new(self.cluster.clone()), credential, stops_in));
        online(handle, text).await;
        Agent { stops, task }
    }
}

async fn online(handle: &Handle, text: &str) {
    soon(async {
        while handle.session(&name(text)).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_with_its_input_output_and_exit_code() {
    let world = World::new();
    let controller = world.controller().await;
    let handle = controller.handle();
    let _agent = world.agent(&handle, "a").await;
    assert_eq!(handle.agent(&name("a")).expect("known").state, AgentState::Online);

    let mut request = ExecRequest::new(name("a"), ["sh", "-c", "cat; echo err >&2; exit 7"]);
    request.stdin = true;
    let mut execution = soon(handle.exec(request)).await.expect("runs");
    let blob: Vec<u8> = (0..16_000_000u32).map(|i| (i / 13) as u8).collect();
    let before = Instant::now();
    let feed = async {
        execution.stdin.write_all(&blob).await.expect("written");
        execution.stdin.shutdown().await.expect("ended");
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let collect = async {
        execution.stdout.read_to_end(&mut out).await.expect("read");
        execution.stderr.read_to_end(&mut err).await.expect("read");
    };
    soon(async { tokio::join!(feed, collect) }).await;
    println!("16 MB through cat and back in {:?}", before.elapsed());
    assert!(out == blob, "{} bytes of {}", out.len(), blob.len());
    assert_eq!((&err[..], soon(execution.control.end()).await), (&b"err\n"[..], ExecEnd::Exited { code: 7 }));

    let echoed = soon(handle.call(&name("a"), Call::Echo, Bytes::from(blob.clone()))).await.expect("echoed");
    assert!(echoed == blob);
    assert_eq!(soon(handle.condition(&name("a"))).await.expect("answered").running, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_carries_a_command_and_a_client_that_leaves_ends_it() {
    let world = World::new();
    let controller = world.controller().await;
    let handle = controller.handle();
    let _agent = world.agent(&handle, "a").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let (stop, stops) = mpsc::channel(4);
    let served = tokio::spawn(controller.serve(world.config.clone(), listener, stops));
    let token_file = world.config.data.join("api.token");
    soon(async {
        while !token_file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let token = String::from_utf8(private_file::read(&token_file).expect("token")).expect("text");
    let client = Client::new(&address, &Secret::new(token.trim().to_owned()), None).expect("client");
    assert_eq!(soon(client.status()).await.expect("status").agents.online, 1);

    // 64 MiB of output, every hop included.
    let request = ExecRequest::new(name("a"), ["head", "-c", "67108864", "/dev/zero"]);
    let before = Instant::now();
    let (_sender, mut receiver) = soon(client.exec(&request)).await.expect("opened");
    let (mut bytes, mut end) = (0, None);
    while let Some(frame) = soon(receiver.next()).await.expect("a frame") {
        match frame {
            ToClient::Stdout(data) => bytes += data.len(),
            ToClient::Exit(how) => end = Some(how),
            _ => (),
        }
    }
    println!("64 MiB through the API in {:?}", before.elapsed());
    assert_eq!((bytes, end), (64 << 20, Some(ExecEnd::Exited { code: 0 })));

    let mut request = ExecRequest::new(name("a"), ["sleep", "600"]);
    request.grace_ms = Some(1000);
    let (sender, mut receiver) = soon(client.exec(&request)).await.expect("opened");
    assert!(matches!(soon(receiver.next()).await, Ok(Some(ToClient::Started(_)))));
    assert_eq!(soon(client.condition(&name("a"))).await.expect("answered").running, 1);
    drop((sender, receiver));
    soon(async {
        while client.condition(&name("a")).await.expect("answered").running > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    stop.send(()).await.expect("asked");
    soon(served).await.expect("joined").expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_controller_gets_the_agents_back_and_a_removed_one_is_told() {
    let world = World::new();
    let first = world.controller().await;
    let agents = [world.agent(&first.handle(), "a").await, world.agent(&first.handle(), "b").await];

    let second = world.controller().await;
    assert!(matches!(soon(first.ended()).await, controller::Error::Superseded { .. }));
    first.close(&world.config.data).await;
    let handle = second.handle();
    let before = Instant::now();
    online(&handle, "a").await;
    online(&handle, "b").await;
    println!("both agents back in {:?}", before.elapsed());
    let mut execution = soon(handle.exec(ExecRequest::new(name("b"), ["true"]))).await.expect("runs");
    assert_eq!(soon(execution.control.end()).await, ExecEnd::Exited { code: 0 });

    let [a, b] = agents;
    assert!(soon(handle.remove_agent(&name("a"))).await.expect("removed").had_session);
    let ended = soon(a.task).await.expect("joined");
    assert!(matches!(ended, Err(agent::Error::Link(LinkError::Removed(_)))), "{ended:?}");
    b.stops.send(()).await.expect("asked");
    assert_eq!(soon(b.task).await.expect("joined").expect("stopped"), agent::Exit::Drained);
    soon(async {
        while handle.agent(&name("b")).expect("known").state != AgentState::Offline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
