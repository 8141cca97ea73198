//! A controller and agents in one process, on a cluster in memory: everything but Kafka is real.

#![cfg(all(feature = "agent", feature = "controller"))]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use remoting_kafka::{
    agent,
    api::{AddAgent, AgentState, Client, ExecEnd, ExecRequest, frames::ToClient},
    controller::{self, Controller, Execution, Handle},
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
        let added =
            handle.add_agent(AddAgent { name: name(text), labels: Labels::new(), layout: None }).await.expect("added");
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

/// Starts `argv` on agent `a`, with stdin.
async fn start(handle: &Handle, argv: &[&str]) -> Execution {
    let mut request = ExecRequest::new(name("a"), argv.iter().copied());
    request.stdin = true;
    soon(handle.exec(request)).await.expect("runs")
}

/// Passes 64 MiB through `cat` on agent `a`, both ways at once.
async fn pass_64_mib(handle: &Handle) {
    let Execution { mut stdin, mut stdout, stderr: _stderr, mut control, .. } = start(handle, &["cat"]).await;
    let piece: Vec<u8> = (0..1u32 << 20).map(|i| (i / 13) as u8).collect();
    let before = Instant::now();
    let feed = async {
        for _ in 0..64 {
            stdin.write_all(&piece).await.expect("written");
        }
        stdin.shutdown().await.expect("ended");
    };
    let collect = async {
        let mut got = vec![0; piece.len()];
        for _ in 0..64 {
            stdout.read_exact(&mut got).await.expect("read");
            assert!(got == piece, "other bytes");
        }
        assert_eq!(stdout.read(&mut got).await.expect("read"), 0);
    };
    soon(async { tokio::join!(feed, collect) }).await;
    println!("64 MiB through cat and back in {:?}", before.elapsed());
    assert_eq!(soon(control.end()).await, ExecEnd::Exited { code: 0 });
}

/// Waits until a number that grows stands still, and returns it.
async fn stands_still(number: impl Fn() -> u64) -> u64 {
    soon(async {
        let (mut last, mut times) = (0, 0);
        while last == 0 || times < 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = number();
            times = if now == last { times + 1 } else { 0 };
            last = now;
        }
        last
    })
    .await
}

/// How much a process of ours has written so far.
fn written(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("a count");
    line.parse().expect("a number")
}

/// What waits at most for a reader that never read, or a process that takes nothing: the first allowance, a pipe that
/// was widened to 1 MiB, and what the pumps hold.
const MOST_WAITING: u64 = (256 << 10) + (1 << 20) + (512 << 10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_that_nobody_reads_take_nothing_from_the_others() {
    let world = World::new();
    let controller = world.controller().await;
    let handle = controller.handle();
    let _agent = world.agent(&handle, "a").await;
    pass_64_mib(&handle).await;
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(start(&handle, &["cat", "/dev/zero"]).await);
    }
    for execution in &unread {
        let written = stands_still(|| written(execution.pid)).await;
        assert!(written <= MOST_WAITING, "{written} bytes were written");
    }
    pass_64_mib(&handle).await;
    // Readers that begin and stop have larger windows, which nobody else notices either.
    let mut bytes = vec![0; 1 << 20];
    for execution in &mut unread {
        for _ in 0..32 {
            soon(execution.stdout.read_exact(&mut bytes)).await.expect("it goes on");
        }
    }
    for execution in &unread {
        let written = stands_still(|| written(execution.pid)).await;
        assert!(written <= (32 << 20) + (8 << 20) + MOST_WAITING, "{written} bytes were written");
    }
    pass_64_mib(&handle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_do_not_read_their_stdin_take_nothing_from_the_others() {
    let world = World::new();
    let controller = world.controller().await;
    let handle = controller.handle();
    let _agent = world.agent(&handle, "a").await;
    let (mut controls, mut feeding, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..8 {
        let Execution { mut stdin, stdout, stderr, control, .. } = start(&handle, &["sleep", "600"]).await;
        controls.push(control);
        outputs.push((stdout, stderr));
        let taken = Arc::new(AtomicU64::new(0));
        let count = taken.clone();
        let task = tokio::spawn(async move {
            let bytes = vec![1; 1 << 20];
            while count.load(Ordering::Relaxed) < 32 << 20 {
                let some = stdin.write(&bytes).await?;
                count.fetch_add(some as u64, Ordering::Relaxed);
            }
            Ok::<_, std::io::Error>(())
        });
        feeding.push((task, taken));
    }
    for (_, taken) in &feeding {
        let taken = stands_still(|| taken.load(Ordering::Relaxed)).await;
        // A pipe that took much at once made the window grow.
        assert!(taken <= MOST_WAITING + (2 << 20), "{taken} bytes were taken");
    }
    pass_64_mib(&handle).await;
    for (control, (task, _)) in controls.iter_mut().zip(feeding) {
        control.signals().send(9).await;
        assert_eq!(soon(control.end()).await, ExecEnd::Signalled { signal: 9 });
        // Whoever still writes is not left waiting.
        let _ = soon(task).await.expect("joined");
    }
}
