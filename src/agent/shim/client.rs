//! The agent's end: starting a shim, and talking to one that this agent or an earlier one started.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::Command,
};

use super::{Hello, SUBCOMMAND, orders};
use crate::agent::{
    attempt::Attempt,
    shim::{Order, Report, spec::Started},
    warden::Program,
};

/// How long a shim may take to start its process: a few files on the disk.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Starts shims.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: Program,
}

/// Why there is no new process.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program of the shim cannot be run. Nothing was started.
    #[error("the shim {program} does not start: {error}")]
    Spawn {
        /// Which program.
        program: String,
        /// What happened.
        error: io::Error,
    },
    /// The attempt was started before: adopt it.
    #[error("the attempt was started before")]
    Taken,
    /// The shim could not begin. Nothing was started, and it may be tried again.
    #[error("the process was not started: {0}")]
    Failed(String),
    /// The shim died or hangs, and only its directory can tell whether the process was started.
    #[error("the shim said nothing about the start")]
    Unknown,
}

impl Launcher {
    /// Starts shims as `program`, to whose arguments the directory is added: one that calls [`run`](super::run).
    pub fn new(program: Program) -> Self {
        Self { program }
    }

    /// Starts shims as this program itself, also after its file was replaced.
    pub fn ourselves() -> Self {
        Self::new(Program { path: "/proc/self/exe".into(), args: vec![SUBCOMMAND.into()] })
    }

    /// Starts a shim in a claimed directory, and returns when its process may run. The shim needs nothing of this agent afterwards.
    pub async fn start(&self, attempt: &Attempt) -> Result<Started, StartError> {
        let failed = |error| StartError::Spawn { program: self.program.path.display().to_string(), error };
        let last_words = OpenOptions::new().append(true).create(true).mode(0o600).open(attempt.last_words());
        let mut shim = Command::new(&self.program.path)
            .args(&self.program.args)
            .arg(attempt.dir())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(last_words.map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let mut stdout = shim.stdout.take().expect("stdout is piped");
        // Only to reap it, if it ends before we do.
        tokio::spawn(async move { shim.wait().await });
        let mut bytes = Vec::new();
        let hello = async {
            (&mut stdout).take(64 << 10).read_to_end(&mut bytes).await.ok()?;
            postcard::from_bytes(&bytes).ok()
        };
        match tokio::time::timeout(START_PATIENCE, hello).await {
            Ok(Some(Hello::Started(started))) => Ok(started),
            Ok(Some(Hello::Taken)) => Err(StartError::Taken),
            Ok(Some(Hello::Failed(why))) => Err(StartError::Failed(why)),
            Ok(None) | Err(_) => Err(StartError::Unknown),
        }
    }
}

/// A connection to a living shim.
#[derive(Debug)]
pub struct Shim {
    stream: UnixStream,
    inbox: Vec<u8>,
    /// A report was asked for and has not come.
    watching: bool,
}

impl Shim {
    /// Connects to the shim of `attempt`. An error means that there is none any more, or that it is just starting: the lock tells.
    pub async fn connect(attempt: &Attempt) -> io::Result<Self> {
        // A socket's path has 107 bytes at most; this one always fits.
        let dir = File::open(attempt.dir())?;
        let path = attempt.orders();
        let name = path.file_name().expect("it has one");
        let short = std::path::Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
        let stream = UnixStream::connect(short).await?;
        Ok(Self { stream, inbox: Vec::new(), watching: false })
    }

    /// Waits until something is new since the last report of this connection; the first comes at once. `None`: the shim is gone,
    /// and the exit record says whether it finished. Cancel-safe.
    pub async fn changed(&mut self) -> Option<Report> {
        if !self.watching {
            self.order(Order::Watch).await.ok()?;
            self.watching = true;
        }
        loop {
            if let Some(report) = orders::take(&mut self.inbox).ok()? {
                self.watching = false;
                return Some(report);
            }
            if self.stream.read_buf(&mut self.inbox).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Gives an order. The next report that differs tells what became of it. An error: the shim is gone.
    pub async fn order(&mut self, order: Order) -> io::Result<()> {
        self.stream.write_all(&orders::encode(&order)).await
    }
}
