//! The agent's end of a keeper.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
    process::Stdio,
    time::Duration,
};

use nix::libc::O_NONBLOCK;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, unix::AsyncFd},
    net::UnixStream,
    process::Command,
};

use super::{CONTROL, Hello, INPUT, KEEP, Notice, Order, State, orders, socket};
use crate::agent::{environment::refuse, warden::Program};
use crate::protocol::exec::Refusal;

/// How long a keeper may take to start its process, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a keeper for what lies in `dir`. When this returns, the process runs.
pub(in crate::agent) async fn start(program: &Program, dir: &Path) -> Result<(), Refusal> {
    let failed = |what: &str| Refusal::Failed(format!("the execution's keeper {what}"));
    let mut keeper = Command::new(&program.path)
        .args(&program.args)
        .arg(KEEP)
        .arg(dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(&format!("{} does not start: {error}", program.path.display())))?;
    let mut stdout = keeper.stdout.take().expect("stdout is piped");
    // Only to reap it, if it ends before we do.
    tokio::spawn(async move { keeper.wait().await });
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, (&mut stdout).take(64 << 10).read_to_end(&mut bytes)).await;
    let hello = read.ok().and_then(Result::ok).and_then(|_| postcard::from_bytes(&bytes).ok());
    match hello {
        Some(Hello::Running) => Ok(()),
        Some(Hello::NotExecuted(0, what)) => Err(Refusal::Failed(what)),
        Some(Hello::NotExecuted(errno, what)) => Err(refuse(&what, io::Error::from_raw_os_error(errno))),
        Some(Hello::Failed(why)) => Err(failed(&format!("could not begin: {why}"))),
        None => Err(failed("said nothing about the start")),
    }
}

/// A control connection.
pub(in crate::agent) struct Control {
    stream: UnixStream,
    inbox: Vec<u8>,
    /// What the keeper said first.
    pub state: State,
}

/// Connects to the keeper in `dir`. An error: there is none any more.
pub(in crate::agent) async fn connect(dir: &Path) -> io::Result<Control> {
    let open = async {
        let mut stream = reach(dir).await?;
        stream.write_all(&[CONTROL]).await?;
        let mut inbox = Vec::new();
        let state = next(&mut stream, &mut inbox).await?;
        Ok(Control { stream, inbox, state })
    };
    tokio::time::timeout(PATIENCE, open).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// A connection for stdin's bytes.
pub(in crate::agent) async fn input(dir: &Path) -> io::Result<UnixStream> {
    let mut stream = reach(dir).await?;
    stream.write_all(&[INPUT]).await?;
    Ok(stream)
}

/// A socket's path has 107 bytes at most; this one always fits.
async fn reach(dir: &Path) -> io::Result<UnixStream> {
    let dir = File::open(dir)?;
    UnixStream::connect(socket(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()))).await
}

async fn next<T: serde::de::DeserializeOwned>(stream: &mut UnixStream, inbox: &mut Vec<u8>) -> io::Result<T> {
    loop {
        if let Some(message) = orders::take(inbox).map_err(io::Error::other)? {
            return Ok(message);
        }
        if stream.read_buf(inbox).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A non-blocking pipe whose readiness the reactor tells.
#[allow(deprecated, reason = "its cure is unsafe, for types that may change their descriptor; a file keeps its own")]
pub(in crate::agent) fn watched(pipe: File) -> io::Result<AsyncFd<File>> {
    AsyncFd::new(pipe)
}

impl Control {
    /// The next that the keeper says. An error: it is gone, or obeys another agent. Cancel-safe.
    pub async fn notice(&mut self) -> io::Result<Notice> {
        next(&mut self.stream, &mut self.inbox).await
    }

    /// Gives an order.
    pub async fn order(&mut self, order: Order) -> io::Result<()> {
        self.stream.write_all(&orders::encode(&order)).await
    }

    /// The process's output itself, non-blocking: stdout is 0, stderr is 1.
    pub fn output(&self, index: usize) -> io::Result<AsyncFd<File>> {
        let path = format!("/proc/{}/fd/{}", self.state.keeper, self.state.outputs[index]);
        watched(OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?)
    }
}
