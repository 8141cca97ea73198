//! Child processes that never outlive the test: killed when dropped, killed by the kernel when the test process dies.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

type Order = (Command, Sender<io::Result<Child>>);

/// A running child; dropping it kills it with SIGKILL and reaps it.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`, its output appended to `log`.
    pub fn start(command: Command, log: &Path) -> io::Result<Process> {
        let out = File::options().create(true).append(true).open(log)?;
        let mut command = bound(command);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        spawn(command).map(|child| Process { child })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Sends a signal, such as `STOP`, `CONT` or `TERM`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.id().to_string()]).status().unwrap();
        assert!(sent.success(), "kill -s {signal} {}", self.id());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `rk` with these arguments, in an environment without settings: the one that cargo built beside the tests, or
/// `RK_TEST_PROGRAM`.
pub fn rk(args: &[&str]) -> Command {
    start_of(program(), args)
}

/// The same for agents, whose program is another one if `RK_TEST_AGENT` names it: built for another architecture, or with less
/// in it.
pub fn agent(args: &[&str]) -> Command {
    start_of(std::env::var_os("RK_TEST_AGENT").unwrap_or_else(program), args)
}

fn program() -> OsString {
    std::env::var_os("RK_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_rk").into())
}

fn start_of(program: OsString, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("RK_CONFIG", "/dev/null");
    command.env("HOME", "/nonexistent");
    command
}

/// Wraps a command so that the kernel kills it when this test process dies, whatever of. To be started by
/// [`spawn`].
pub fn bound(command: Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

/// Starts a command from a thread that lives as long as the process. The kernel's death signal goes off when
/// the *thread* that forked ends, and a test's thread ends with its test.
pub fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || inbox.iter().for_each(|(mut command, reply)| drop(reply.send(command.spawn()))))
            .unwrap();
        orders
    });
    let (reply, answer) = channel();
    spawner.send((command, reply)).expect("the spawner never ends");
    answer.recv().expect("the spawner answers every order")
}

/// A folder below the system's temporary one that is removed when this process is gone, however it ended.
/// `RK_TEST_KEEP=1` keeps it.
pub fn folder(name: &str) -> PathBuf {
    let folder = tempfile::Builder::new().prefix(&format!("rk-{name}-")).tempdir().unwrap().keep();
    if std::env::var_os("RK_TEST_KEEP").is_none() {
        // Its input is a pipe that nobody writes to: it ends when we end.
        let janitor = Command::new("sh")
            .args(["-c", "cat >/dev/null; sleep 1; rm -rf -- \"$1\"", "janitor"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        // Kept open until the process ends; the janitor is then init's child.
        std::mem::forget(janitor);
    }
    fs::canonicalize(folder).unwrap()
}

/// The last lines of a log file that are no mere information, for a failure's message.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains(" INFO ")).collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
