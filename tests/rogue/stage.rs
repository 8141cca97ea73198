//! What every attempt is made against: a controller, an honest agent that is asked for work all the time, and the topics as the
//! rogue sees them.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use remoting_kafka::{
    kafka::{At, Cluster, KafkaCluster, Prefix, Record, config::Mechanism},
    link::Credential,
};
use tokio::runtime::Runtime;

use crate::{
    rig::{PATIENCE, Rig, run},
    support::{
        ports,
        process::Process,
        user::{self, ADMIN, User},
        wait,
    },
};

/// The honest agent's name.
pub const HONEST: &str = "honest";
/// No call of the honest agent may take longer, whatever a rogue does.
const BOUND: Duration = Duration::from_secs(20);

/// An installation at work. Dropping it ends everything.
pub struct Stage {
    pub rig: Rig,
    pub prefix: Prefix,
    health: [u16; 2],
    controller: Mutex<Option<Process>>,
    agent: Mutex<Process>,
    runtime: Runtime,
}

/// How the honest agent fared during an attempt.
#[derive(Debug)]
pub struct Fared {
    /// Calls that were answered.
    pub calls: usize,
    /// The longest of them.
    pub slowest: Duration,
}

impl Stage {
    /// A controller and the honest agent, online.
    pub fn start(test: &str) -> Stage {
        let rig = Rig::prepare(test, 2);
        let health = [(); 2].map(|()| ports::free([127, 0, 0, 1].into()));
        let controller = start_controller(&rig, health[0]);
        rig.wait_for_controller();
        let credential = rig.add(HONEST, &[]);
        let mut agent = start_honest(&rig, health[1], &credential);
        rig.wait_online(HONEST, &mut agent);
        let prefix = rig.prefix.parse().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Stage { rig, prefix, health, controller: Mutex::new(Some(controller)), agent: Mutex::new(agent), runtime }
    }

    /// Makes an attempt. Meanwhile and after it the honest agent is asked for work, and must do it; its process and its session
    /// must be the same at the end.
    pub fn attempt<T>(&self, what: &str, attempt: impl FnOnce() -> T) -> T {
        let sessions = self.sessions();
        let done = AtomicBool::new(false);
        let (result, fared) = thread::scope(|scope| {
            let watching = scope.spawn(|| self.watch(&done));
            let guard = Done(&done);
            let result = attempt();
            drop(guard);
            (result, watching.join().unwrap())
        });
        println!("{what}: the honest agent answered {} calls, the slowest after {:.2?}", fared.calls, fared.slowest);
        assert!(fared.slowest < BOUND, "{what}: {fared:?}");
        assert!(self.agent.lock().unwrap().ended().is_none(), "{what}: {}", self.rig.log("honest.log"));
        let mut controller = self.controller.lock().unwrap();
        let ended = controller.as_mut().and_then(Process::ended);
        assert!(ended.is_none(), "{what}: {ended:?} {}", self.rig.log("controller.log"));
        drop(controller);
        assert_eq!(self.sessions(), sessions, "{what}: its session went on");
        result
    }

    /// Asks the honest agent for work until `done`, and once more.
    fn watch(&self, done: &AtomicBool) -> Fared {
        let mut fared = Fared { calls: 0, slowest: Duration::ZERO };
        loop {
            let last = done.load(Ordering::SeqCst);
            let word = format!("call-{}", fared.calls);
            let start = Instant::now();
            assert_eq!(self.rig.run(&["exec", HONEST, "--", "echo", &word]).ok().text(), format!("{word}\n"));
            fared.slowest = fared.slowest.max(start.elapsed());
            fared.calls += 1;
            if last {
                return fared;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sessions that the honest agent's process has had.
    pub fn sessions(&self) -> u64 {
        number(self.health[1], "rk_agent_sessions_total")
    }

    /// A number of the controller's, by its name and labels.
    pub fn metric(&self, name: &str) -> u64 {
        number(self.health[0], name)
    }

    /// Packets that the controller did not let through for this reason.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.metric(&format!("rk_packets_dropped_total{{reason=\"{reason}\"}}"))
    }

    /// Waits until a reason's count is `more` above `before`.
    pub fn wait_dropped(&self, reason: &str, before: u64, more: u64) {
        wait::until(&format!("{more} packets more are dropped as {reason}"), PATIENCE, || {
            let now = self.dropped(reason);
            if now >= before + more { Ok(()) } else { Err(format!("{} of {more}", now - before)) }
        });
    }

    /// All counts of dropped packets, for the report.
    pub fn all_dropped(&self) -> String {
        let page = get(self.health[0], "/metrics").unwrap();
        let lines = page.lines().filter_map(|line| line.strip_prefix("rk_packets_dropped_total{reason="));
        lines.collect::<Vec<_>>().join(", ")
    }

    /// The controller's process id.
    pub fn controller_id(&self) -> u32 {
        self.controller.lock().unwrap().as_ref().expect("it runs").id()
    }

    /// `kill -9` of the controller.
    pub fn kill_controller(&self) {
        self.controller.lock().unwrap().take();
    }

    /// Starts the controller again and waits until it serves.
    pub fn start_controller(&self) {
        *self.controller.lock().unwrap() = Some(start_controller(&self.rig, self.health[0]));
        self.rig.wait_for_controller();
    }

    /// `kill -9` of the honest agent, and its next start.
    pub fn start_honest(&self) {
        let mut agent = self.agent.lock().unwrap();
        agent.kill();
        *agent = start_honest(&self.rig, self.health[1], &self.rig.path("honest.credential"));
    }

    /// The same, until it is online.
    pub fn restart_honest(&self) {
        self.start_honest();
        // Until then the controller may still count on the one before.
        wait::until("the honest agent has a session", PATIENCE, || match self.sessions() {
            0 => Err(self.rig.log("honest.log")),
            _ => Ok(()),
        });
        self.wait_for_work();
    }

    /// Waits until the honest agent is online and works.
    pub fn wait_for_work(&self) {
        self.rig.wait_online(HONEST, &mut self.agent.lock().unwrap());
        wait::until("the honest agent works", PATIENCE, || {
            let ran = self.rig.run(&["exec", HONEST, "--", "true"]);
            if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
        });
    }

    /// A credential as it stands in the file that `rk agents add` wrote.
    pub fn credential(&self, name: &str) -> Credential {
        fs::read_to_string(self.rig.path(&format!("{name}.credential"))).unwrap().parse().unwrap()
    }

    /// How `rk agent run` is started with a credential of a rogue's making.
    pub fn impostor(&self, data: &str, credential: &Credential) -> Command {
        let file = self.rig.path(&format!("{data}.credential"));
        user::private(&file, &credential.to_text());
        let mut command = self.rig.bare(&["agent", "run", "--credential", &format!("file:{}", file.display())]);
        command.arg("--data").arg(self.rig.path(data));
        self.rig.kafka(command, user::AGENT)
    }

    /// Runs what must be refused to its end, and returns the line that says why.
    pub fn refused(&self, command: Command) -> String {
        let ran = run(command, &[]).code(77);
        ran.stderr.lines().rfind(|line| line.starts_with("rk: ")).expect("a line").to_owned()
    }

    /// The control partition of an agent.
    pub fn partition(&self, agent: &str) -> i32 {
        let shown = self.rig.run(&["agents", "show", "-o", "json", agent]).ok();
        let agent: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        i32::try_from(agent["partition"].as_u64().unwrap()).unwrap()
    }

    /// The cluster as this user finds it.
    pub fn cluster(&self, user: User) -> KafkaCluster {
        let brokers = self.rig.cluster.bootstrap().split(',').map(str::to_owned).collect();
        KafkaCluster::new(user.kafka(Mechanism::ScramSha512, brokers, &self.rig.cluster.ca())).unwrap()
    }

    /// Runs a future.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// All records of a partition, with their offsets.
    pub fn read(&self, topic: &str, partition: i32) -> Vec<(i64, Record)> {
        let cluster = self.cluster(ADMIN);
        self.block_on(read(&cluster, topic, partition)).unwrap()
    }

    /// All records of a topic.
    pub fn read_all(&self, topic: &str) -> Vec<(i32, Record)> {
        let partitions = if *topic == self.prefix.journal() { 1 } else { self.rig.partitions as i32 };
        let all = (0..partitions).flat_map(|at| self.read(topic, at).into_iter().map(move |(_, record)| (at, record)));
        all.collect()
    }

    /// Appends records as `user`.
    pub fn write(&self, user: User, topic: &str, partition: i32, records: Vec<Record>) {
        let cluster = self.cluster(user);
        self.block_on(write(&cluster, topic, partition, records)).unwrap();
    }

    /// The offset that the next record of a partition gets.
    pub fn end(&self, topic: &str, partition: i32) -> i64 {
        let mut reader = self.cluster(ADMIN).reader(topic, partition);
        self.block_on(reader.offset(At::Latest)).unwrap()
    }

    /// The packet topics, the journal and the logs.
    pub fn topics(&self) -> [String; 6] {
        let prefix = &self.prefix;
        let [up, down] = [prefix.up_control(), prefix.down_control()];
        [up, down, prefix.up_bulk(), prefix.down_bulk(), prefix.journal(), prefix.logs()]
    }
}

/// Sets the flag when dropped, also by a panic.
pub struct Done<'a>(pub &'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn start_controller(rig: &Rig, health: u16) -> Process {
    let mut command = rig.controller_command("controller", rig.port);
    command.args(["--health-addr", &format!("127.0.0.1:{health}")]);
    rig.process(command, "controller.log")
}

fn start_honest(rig: &Rig, health: u16, credential: &Path) -> Process {
    let mut command = rig.agent_command(HONEST, credential);
    command.args(["--health-addr", &format!("127.0.0.1:{health}")]);
    rig.process(command, "honest.log")
}

/// All records of a partition as they are now.
pub async fn read(
    cluster: &KafkaCluster,
    topic: &str,
    partition: i32,
) -> Result<Vec<(i64, Record)>, remoting_kafka::kafka::Error> {
    let mut reader = cluster.reader(topic, partition);
    let (mut at, end) = (reader.offset(At::Earliest).await?, reader.offset(At::Latest).await?);
    let mut records = Vec::new();
    // Also where there is nothing: whether one may read is only told by reading.
    loop {
        let fetched = reader.fetch(at, 1 << 20, Duration::from_millis(200)).await?;
        at = fetched.next_offset;
        records.extend(fetched.records.into_iter().filter(|(offset, _)| *offset < end));
        if at >= end {
            return Ok(records);
        }
    }
}

/// Appends records in their order, in batches that every topic takes.
pub async fn write(
    cluster: &KafkaCluster,
    topic: &str,
    partition: i32,
    records: Vec<Record>,
) -> Result<(), remoting_kafka::kafka::Error> {
    let writer = cluster.writer(topic, partition);
    let (mut batch, mut size) = (Vec::new(), 0);
    for record in records {
        if size + record.approximate_size() > 512 << 10 && !batch.is_empty() {
            writer.produce(std::mem::take(&mut batch)).await?;
            size = 0;
        }
        size += record.approximate_size();
        batch.push(record);
    }
    if !batch.is_empty() {
        writer.produce(batch).await?;
    }
    Ok(())
}

fn number(port: u16, name: &str) -> u64 {
    wait::until(&format!("{name} is shown"), PATIENCE, || {
        let page = get(port, "/metrics")?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.trim().parse().ok()).ok_or(page)
    })
}

fn get(port: u16, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}
