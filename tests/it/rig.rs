//! An installation for one test: a controller, agents, and the command line that speaks to it.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use remoting_kafka::{api::Client, secret::Secret};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    cluster::TestCluster,
    kafka::admin::agents_have_topics,
    ports,
    process::{self, Process},
    user::{self, User},
    wait,
};

/// How long things may take that take no time on a quiet machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A controller's process with everything around it. Dropping it kills all processes and removes all files.
pub struct Rig {
    pub cluster: &'static TestCluster,
    pub prefix: String,
    pub port: u16,
    pub partitions: u32,
    controller: Mutex<Option<Process>>,
    dir: TempDir,
}

impl Rig {
    /// An installation whose controller serves.
    pub fn start(test: &str) -> Rig {
        let rig = Rig::prepare(test, 2);
        rig.start_controller();
        rig
    }

    /// An installation without a controller yet.
    pub fn prepare(test: &str, partitions: u32) -> Rig {
        Rig::on(TestCluster::shared(), test, partitions)
    }

    /// An installation on this cluster, without a controller yet.
    pub fn on(cluster: &'static TestCluster, test: &str, partitions: u32) -> Rig {
        let prefix = cluster.prefix(test);
        let dir = tempfile::Builder::new().prefix(&format!("rk-it-{test}-")).tempdir().unwrap();
        let port = ports::free([127, 0, 0, 1].into());
        Rig { cluster, prefix, port, partitions, controller: Mutex::new(None), dir }
    }

    /// A client of the controller.
    pub fn client(&self) -> Client {
        let token = fs::read_to_string(self.path("controller/api.token")).unwrap();
        let client = Client::new(&format!("127.0.0.1:{}", self.port), &Secret::new(token.trim().to_owned()), None);
        client.unwrap().with_timeout(Duration::from_secs(120))
    }

    /// Runs a future of the client's.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// A file or directory of this test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `rk` with these arguments, in an environment without settings.
    pub fn bare(&self, args: &[&str]) -> Command {
        let mut command = process::rk(args);
        command.env("HOME", self.dir.path());
        command
    }

    /// `rk` with these arguments, for this controller.
    pub fn rk(&self, args: &[&str]) -> Command {
        let mut command = self.bare(args);
        command.env("RK_API", format!("http://127.0.0.1:{}", self.port));
        command.env("RK_API_TOKEN", format!("file:{}", self.path("controller/api.token").display()));
        command
    }

    /// Runs `rk` with these arguments and no stdin.
    pub fn run(&self, args: &[&str]) -> Ran {
        run(self.rk(args), &[])
    }

    /// Adds the settings of the way to the cluster as `user`.
    pub fn kafka(&self, mut command: Command, user: User) -> Command {
        // Written once: a process that starts meanwhile must not find it empty.
        let password = self.path(&format!("{}.password", user.name));
        if !password.exists() {
            user.password_file(self.dir.path());
        }
        command.args(["--brokers", &self.cluster.bootstrap(), "--prefix", &self.prefix]);
        command.args(["--partitions", &self.partitions.to_string(), "--sasl-username", user.name]);
        command.arg("--sasl-password").arg(format!("file:{}", password.display()));
        command.arg("--tls-ca").arg(self.cluster.ca());
        command
    }

    /// How a controller with its state in `data` and this port is started.
    pub fn controller_command(&self, data: &str, port: u16) -> Command {
        let listen = format!("127.0.0.1:{port}");
        let mut command = self.bare(&["controller", "run", "--listen", &listen]);
        command.arg("--data").arg(self.path(data));
        if agents_have_topics() {
            command.args(["--layout", "per-agent"]);
        }
        self.kafka(command, user::CONTROLLER)
    }

    /// Starts the controller and waits until it serves.
    pub fn start_controller(&self) {
        self.launch_controller(self.controller_command("controller", self.port));
    }

    /// Starts this controller and waits until it serves.
    pub fn launch_controller(&self, command: Command) {
        let process = self.process(command, "controller.log");
        let mut controller = self.controller.lock().unwrap();
        *controller = Some(process);
        drop(controller);
        self.wait_for_controller();
    }

    /// Waits until the controller serves.
    pub fn wait_for_controller(&self) {
        wait::until("the controller serves", PATIENCE, || {
            if let Some(status) = self.controller.lock().unwrap().as_mut().and_then(Process::ended) {
                panic!("the controller ended with {status}: {}", self.log("controller.log"));
            }
            let ran = self.run(&["status", "--health"]);
            if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
        });
    }

    /// `kill -9` of the controller.
    pub fn kill_controller(&self) {
        self.controller.lock().unwrap().take();
    }

    /// The controller's process, taken out of the rig's care.
    pub fn take_controller(&self) -> Process {
        self.controller.lock().unwrap().take().expect("it runs")
    }

    /// The controller's process id.
    pub fn controller_id(&self) -> u32 {
        self.controller.lock().unwrap().as_ref().expect("it runs").id()
    }

    /// Adds an agent and returns the file with its credential.
    pub fn add(&self, name: &str, labels: &[&str]) -> PathBuf {
        let file = self.path(&format!("{name}.credential"));
        let mut args = vec!["agents", "add", name, "--out", file.to_str().unwrap()];
        for label in labels {
            args.extend(["--label", label]);
        }
        self.run(&args).ok();
        file
    }

    /// How an agent with this credential is started.
    pub fn agent_command(&self, name: &str, credential: &Path) -> Command {
        let mut command = process::agent(&["agent", "run", "--credential", &format!("file:{}", credential.display())]);
        command.env("HOME", self.dir.path()).arg("--data").arg(self.path(&format!("{name}.data")));
        self.kafka(command, user::AGENT)
    }

    /// Adds an agent, starts it, and waits until it is online.
    pub fn agent(&self, name: &str, labels: &[&str]) -> Process {
        let credential = self.add(name, labels);
        let mut process = self.start_agent(name, &credential);
        self.wait_online(name, &mut process);
        process
    }

    /// Starts an agent.
    pub fn start_agent(&self, name: &str, credential: &Path) -> Process {
        self.process(self.agent_command(name, credential), &format!("{name}.log"))
    }

    /// Waits until an agent is online.
    pub fn wait_online(&self, name: &str, process: &mut Process) {
        wait::until(&format!("agent {name} is online"), PATIENCE, || {
            if let Some(status) = process.ended() {
                panic!("agent {name} ended with {status}: {}", self.log(&format!("{name}.log")));
            }
            self.state(name).and_then(|state| if state == "online" { Ok(()) } else { Err(state) })
        });
    }

    /// An agent's state as `rk agents show` tells it.
    pub fn state(&self, name: &str) -> Result<String, String> {
        let ran = self.run(&["agents", "show", "-o", "json", name]);
        if ran.code != 0 {
            return Err(ran.stderr);
        }
        let agent: Value = serde_json::from_slice(&ran.stdout).map_err(|e| e.to_string())?;
        Ok(agent["state"].as_str().unwrap_or("?").to_owned())
    }

    /// Starts a process whose output goes to `log`.
    pub fn process(&self, command: Command, log: &str) -> Process {
        Process::start(command, &self.path(log)).unwrap()
    }

    /// The end of a log.
    pub fn log(&self, log: &str) -> String {
        process::tail(&self.path(log))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if thread::panicking() {
            for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    eprintln!("== {}\n{}", path.display(), lines[lines.len().saturating_sub(30)..].join("\n"));
                }
            }
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// Panics unless it ended with 0.
    pub fn ok(self) -> Ran {
        self.code(0)
    }

    /// Panics unless it ended with this code.
    pub fn code(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    /// Stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The one line on stderr that starts with `rk:`; panics if there is not exactly one.
    pub fn line(&self) -> &str {
        let mut lines = self.stderr.lines().filter(|line| line.starts_with("rk:"));
        match (lines.next(), lines.next()) {
            (Some(line), None) => line,
            _ => panic!("expected one line that starts with rk: {}", self.stderr),
        }
    }
}

/// A child that dies with its test.
pub struct Running(pub Child);

impl Running {
    pub fn start(mut command: Command) -> Running {
        Running(command.spawn().unwrap())
    }

    /// Sends a signal, such as `INT`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait::until("the command ends", PATIENCE, || self.0.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()))
    }

    /// The exit code at its end.
    pub fn code(&mut self) -> i32 {
        let status = self.wait();
        status.code().unwrap_or_else(|| panic!("{status}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs a command to its end with `stdin`; it may take two minutes.
pub fn run(mut command: Command, stdin: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Running::start(command);
    let mut input = child.0.stdin.take().unwrap();
    let (out, err) = (child.0.stdout.take().unwrap(), child.0.stderr.take().unwrap());
    thread::scope(|scope| {
        let out = scope.spawn(move || collect(out));
        let err = scope.spawn(move || collect(err));
        scope.spawn(move || drop(input.write_all(stdin)));
        let deadline = Instant::now() + Duration::from_secs(120);
        let status = loop {
            match child.0.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        if status.is_none() {
            child.0.kill().ok();
        }
        let (stdout, stderr) = (out.join().unwrap(), err.join().unwrap());
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let status = status.unwrap_or_else(|| panic!("not done within two minutes: {stderr}"));
        Ran { code: status.code().unwrap_or(-1), stdout, stderr }
    })
}

fn collect(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok();
    bytes
}

/// Whether a process with this id exists and is no zombie. A thread may have the number after it: brokers start many.
pub fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.split_whitespace().next())
    };
    field("Tgid:") == Some(&pid.to_string()) && field("State:") != Some("Z")
}

/// Waits until a process is gone.
pub fn wait_gone(pid: u32) {
    wait::until(&format!("process {pid} is gone"), PATIENCE, || {
        if is_alive(pid) { Err("it lives".to_owned()) } else { Ok(()) }
    });
}

/// Waits until a file holds a number followed by a line end.
pub fn wait_number(path: &Path) -> u32 {
    wait::until(&format!("{} holds a number", path.display()), PATIENCE, || {
        let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
        if !text.ends_with('\n') {
            return Err(text);
        }
        text.trim().parse().map_err(|_| text.clone())
    })
}

/// Resident memory of a process in MiB.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// SHA-256 in hex, as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that no compression and no text handling leaves alone.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
