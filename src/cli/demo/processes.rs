//! The demo's processes: children that go with it, however it ends.

use std::{
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    process::{Child, ChildStdin, Command},
    time::{sleep, timeout},
};

use crate::cli::{Failure, failure};

/// How long a child has to go after its stdin ended; then it is killed.
const FAREWELL: Duration = Duration::from_secs(5);
/// How many lines of a log explain a failure.
const TAIL: usize = 12;

/// How all children are started: this program, in an environment without settings.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    environment: Vec<(OsString, OsString)>,
    logs: PathBuf,
}

/// A running child.
#[derive(Debug)]
pub struct Service {
    name: String,
    log: PathBuf,
    child: Child,
    /// Its stdin: as long as this is open, it stays. Not left in `child`, whose `wait` closes it.
    leash: Option<ChildStdin>,
}

impl Launcher {
    /// Starts this program's file; logs go to `logs`. Settings of the user must not reach the demo.
    pub fn new(environment: Vec<(OsString, OsString)>, logs: &Path) -> std::io::Result<Self> {
        let ours = |name: &OsString| name.to_string_lossy().starts_with("RK_");
        let environment = environment.into_iter().filter(|(name, _)| !ours(name)).collect();
        Ok(Self { program: std::env::current_exe()?, environment, logs: logs.to_owned() })
    }

    /// Starts a service that ends when this process does.
    pub fn service(&self, name: &str, args: &[OsString]) -> Result<Service, Failure> {
        let log = self.logs.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let mut child = self
            .command(args)
            .arg("--exit-with-stdin")
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C is ours; the children go when we say so.
            .process_group(0)
            .spawn()?;
        let leash = child.stdin.take();
        Ok(Service { name: name.to_owned(), log, child, leash })
    }

    /// Runs a command to its end, its output on ours.
    pub async fn run(&self, args: &[OsString]) -> Result<ExitStatus, Failure> {
        Ok(self.command(args).stdin(Stdio::null()).process_group(0).status().await?)
    }

    fn command(&self, args: &[OsString]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args);
        command.env_clear().envs(self.environment.iter().cloned()).env("RK_CONFIG", "/dev/null").kill_on_drop(true);
        command
    }
}

impl Service {
    /// Asks `ready` until it says yes; fails when the child ends or the time is up.
    pub async fn wait<T>(&mut self, limit: Duration, ready: impl AsyncFn() -> Option<T>) -> Result<T, Failure> {
        let asking = async {
            loop {
                if let Some(value) = ready().await {
                    return value;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let problem = tokio::select! {
            answer = timeout(limit, asking) => match answer {
                Ok(value) => return Ok(value),
                Err(_) => format!("was not ready within {limit:?}"),
            },
            ended = self.child.wait() => match ended {
                Ok(status) => format!("ended with {status}"),
                Err(e) => format!("is lost: {e}"),
            },
        };
        Err(Failure::new(failure::UNREACHABLE, format!("{} {problem}: {}", self.name, self.tail())))
    }

    /// Lets the child go, and waits until it is gone.
    pub async fn stop(mut self) {
        drop(self.leash.take());
        if timeout(FAREWELL, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join(" | ")
    }
}
