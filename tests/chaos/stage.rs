//! The installation: three nodes of Apache Kafka behind proxies, a controller and agents, each of which can be killed, paused
//! and started again; and what looks after them as a service manager would.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    proxy::Proxy,
    rig::Rig,
    support::{
        cluster::TestCluster,
        kafka::{Cluster, Setup},
        process::Process,
    },
};

/// How many jobs an agent runs at once: eight of them some more than fifty.
const SLOTS: &str = "7";

/// A process that is started again whenever it ended, unless somebody holds it down.
struct Slot {
    /// Held by who has it down or paused: nobody else touches it meanwhile.
    held: Mutex<()>,
    process: Mutex<Option<Process>>,
}

/// Everything that runs.
pub struct Stage {
    pub rig: Rig,
    pub kafka: Cluster,
    pub proxies: Vec<Proxy>,
    controller: Slot,
    agents: Vec<(String, PathBuf, Slot)>,
    nodes: Vec<Mutex<()>>,
    /// How often a process ended that nobody had killed.
    pub by_themselves: AtomicU64,
    /// Those of them that should not have.
    pub broken: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Slot {
    fn new() -> Slot {
        Slot { held: Mutex::default(), process: Mutex::default() }
    }

    fn hold(&self) -> MutexGuard<'_, ()> {
        self.held.lock().unwrap()
    }

    fn id(&self) -> Option<u32> {
        self.process.lock().unwrap().as_ref().map(Process::id)
    }
}

impl Stage {
    /// Starts it all, with so many agents that have so many slots, and waits until they are online.
    pub fn start(name: &str, agents: usize) -> Stage {
        let kafka = Cluster::start_with(Setup { proxied: true, ..Setup::default() });
        let proxies = kafka.client_ports().into_iter().map(|(told, real)| Proxy::start(told, real)).collect();
        let cluster = Box::leak(Box::new(TestCluster::Kafka(kafka.clone())));
        let rig = Rig::on(cluster, name, 4);
        let nodes = (0..kafka.nodes()).map(|_| Mutex::default()).collect();
        let mut stage = Stage {
            rig,
            kafka,
            proxies,
            controller: Slot::new(),
            agents: Vec::new(),
            nodes,
            by_themselves: AtomicU64::new(0),
            broken: Mutex::default(),
            over: AtomicBool::new(false),
        };
        fs::create_dir_all(stage.rig.path("starts")).unwrap();
        stage.launch_controller();
        stage.rig.wait_for_controller();
        for number in 0..agents {
            let name = format!("agent-{number}");
            let credential = stage.rig.add(&name, &[]);
            stage.agents.push((name, credential, Slot::new()));
            stage.launch_agent(number);
        }
        for (name, _, slot) in &stage.agents {
            let mut process = slot.process.lock().unwrap();
            stage.rig.wait_online(name, process.as_mut().unwrap());
        }
        stage
    }

    fn launch_controller(&self) {
        let process = self.rig.process(self.rig.controller_command("controller", self.rig.port), "controller.log");
        *self.controller.process.lock().unwrap() = Some(process);
    }

    fn launch_agent(&self, number: usize) {
        let (name, credential, slot) = &self.agents[number];
        *slot.process.lock().unwrap() = Some(self.start_agent(name, credential));
    }

    fn start_agent(&self, name: &str, credential: &Path) -> Process {
        let mut command = self.rig.agent_command(name, credential);
        command.args(["--slots", SLOTS]);
        self.rig.process(command, &format!("{name}.log"))
    }

    /// `kill -9` of an agent, which is started again after a while.
    pub fn kill_agent(&self, number: usize, down: Duration) {
        let slot = &self.agents[number].2;
        let _held = slot.hold();
        slot.process.lock().unwrap().take();
        self.sleep(down);
        self.launch_agent(number);
    }

    /// `kill -9` of the controller, which is started again after a while.
    pub fn kill_controller(&self, down: Duration) {
        let _held = self.controller.hold();
        self.controller.process.lock().unwrap().take();
        self.sleep(down);
        self.launch_controller();
    }

    /// `kill -9` of some nodes of Kafka, which are started again after a while. Returns when they serve.
    pub fn kill_brokers(&self, nodes: &[usize], down: Duration) {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        let _held: Vec<_> = nodes.iter().map(|node| self.nodes[*node].lock().unwrap()).collect();
        nodes.iter().for_each(|node| self.kafka.kill(*node));
        self.sleep(down);
        nodes.iter().for_each(|node| self.kafka.launch(*node));
        nodes.iter().for_each(|node| self.kafka.wait_until_up(*node));
    }

    /// SIGSTOP, and SIGCONT after a while.
    pub fn pause_agent(&self, number: usize, time: Duration) {
        self.pause_slot(&self.agents[number].2, time);
    }

    /// SIGSTOP, and SIGCONT after a while.
    pub fn pause_controller(&self, time: Duration) {
        self.pause_slot(&self.controller, time);
    }

    fn pause_slot(&self, slot: &Slot, time: Duration) {
        let _held = slot.hold();
        let signal = |name| {
            if let Some(process) = slot.process.lock().unwrap().as_ref() {
                process.signal(name);
            }
        };
        signal("STOP");
        self.sleep(time);
        signal("CONT");
    }

    /// SIGSTOP, and SIGCONT after a while.
    pub fn pause_broker(&self, node: usize, time: Duration) {
        let _held = self.nodes[node].lock().unwrap();
        self.kafka.signal(node, "STOP");
        self.sleep(time);
        self.kafka.signal(node, "CONT");
    }

    /// The controller's process id.
    pub fn controller_id(&self) -> u32 {
        self.controller.id().expect("it runs")
    }

    /// An agent's process id.
    pub fn agent_id(&self, number: usize) -> u32 {
        self.agents[number].2.id().expect("it runs")
    }

    /// Starts again what ended by itself, once a second, until [`Stage::end`]: to be run on a thread of its own.
    pub fn look_after(&self) {
        while !self.is_over() {
            let ended = |slot: &Slot, name: &str| {
                let mut process = slot.process.lock().unwrap();
                let Some(status) = process.as_mut().and_then(Process::ended) else { return false };
                process.take();
                println!("chaos: {name} ended by itself with {status}");
                self.by_themselves.fetch_add(1, SeqCst);
                // Kafka was away for too long: whoever runs a service starts it again. All else is an error.
                if status.code() != Some(69) {
                    self.broken.lock().unwrap().push(format!("{name} ended by itself with {status}"));
                }
                true
            };
            for (number, (name, _, slot)) in self.agents.iter().enumerate() {
                if let Ok(_held) = slot.held.try_lock()
                    && ended(slot, name)
                {
                    self.launch_agent(number);
                }
            }
            if let Ok(_held) = self.controller.held.try_lock()
                && ended(&self.controller, "the controller")
            {
                self.launch_controller();
            }
            self.sleep(Duration::from_secs(1));
        }
    }

    /// Whether all threads are to end.
    pub fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    /// Ends all threads that wait here.
    pub fn end(&self) {
        self.over.store(true, SeqCst);
    }

    /// Waits, unless all is over.
    pub fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    /// Where a job notes its starts.
    pub fn starts(&self, name: &str) -> PathBuf {
        self.rig.path("starts").join(name)
    }

    /// Copies all logs of processes to `folder`.
    pub fn keep_logs(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for entry in fs::read_dir(self.rig.path("")).unwrap().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                fs::copy(entry.path(), folder.join(entry.file_name())).ok();
            }
        }
        for node in 1..=self.kafka.nodes() {
            let log = self.kafka.folder().join(format!("node{node}/node.log"));
            fs::copy(log, folder.join(format!("kafka-{node}.log"))).ok();
        }
    }
}

impl Drop for Stage {
    /// The agents and the controller end with their processes; the jobs and their shims would not.
    fn drop(&mut self) {
        self.end();
        self.controller.process.lock().unwrap_or_else(|e| e.into_inner()).take();
        for (_, _, slot) in &self.agents {
            slot.process.lock().unwrap_or_else(|e| e.into_inner()).take();
        }
        end_strays(&self.rig.path(""));
    }
}

/// Kills the processes whose command line names a directory that is this run's alone.
pub fn end_strays(dir: &Path) {
    let dir = dir.display().to_string();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() as i32 && String::from_utf8_lossy(&line).contains(&dir) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
    }
}
