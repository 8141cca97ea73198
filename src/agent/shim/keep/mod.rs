//! The keeper: the shim of a resumable execution, so that its process outlives the agent.
//!
//! A job's shim moves every byte of output to the disk. An execution is a stream at full speed, so its keeper moves none: it
//! holds the process and the pipes, and the agent reads the pipes themselves. What it promises:
//!
//! - **Nothing ends because an agent ended.** A pipe that no agent reads fills up and blocks the process, and loses nothing.
//! - **Stdin has no gap and no doubled byte.** It comes through the keeper, which knows how much came; the next agent is told.
//! - **A terminal outlives its user.** The keeper holds the user's side of it, and passes on what comes from there.
//! - **An end.** Without an agent for the agreed time the process gets SIGHUP, and SIGKILL after its grace. The timeout runs here.
//!
//! It is `job-shim --keep DIR`, one thread without tokio as a job's shim is. Nothing is synced: no execution outlives its host.

mod client;
mod keeper;
mod stdin;
mod terminal;

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[cfg(test)]
pub(in crate::agent) use client::watched;
pub(in crate::agent) use client::{Control, connect, input, start};

use super::{
    hold::{self, Command, Held},
    life::{Life, Rules},
    orders, proc,
    reaper::{self, Reaper},
    spec::{Background, Outcome, RunAs, Stdin},
};
use crate::protocol::exec::Size;
use keeper::Keeper;
use terminal::Terminal;

/// The argument that makes this program a keeper.
pub(super) const KEEP: &str = "--keep";

/// What we ask the kernel to buffer in a pipe. It is a wish.
const PIPE: i32 = 1 << 20;

/// How long the output may be held open by others after the process ended.
const LINGER: Duration = Duration::from_millis(500);

/// What a keeper is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent) struct Spec {
    /// The file to execute. Absolute.
    pub program: OsString,
    /// Its arguments, the first of which is its name.
    pub argv: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where it runs. Absolute.
    pub cwd: OsString,
    /// Whether stdin is a pipe; else it is `/dev/null`.
    pub stdin: bool,
    /// That its stdio is a terminal of this size.
    pub terminal: Option<Size>,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// How long it has between SIGHUP or SIGTERM and SIGKILL.
    pub grace: Duration,
    /// How long it waits for an agent.
    pub patience: Duration,
    /// Whom it runs as; the agent's own user if there is none.
    pub run_as: Option<RunAs>,
}

/// What a keeper says on its stdout, once.
#[derive(Debug, Serialize, Deserialize)]
enum Hello {
    /// The process runs.
    Running,
    /// It does not: the system's error, and what could not be done.
    NotExecuted(i32, String),
    /// The keeper itself could not begin.
    Failed(String),
}

/// What a keeper says first on a control connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent) struct State {
    /// The keeper's own process id.
    pub keeper: u32,
    /// The process's, also of its group.
    pub pid: u32,
    /// The keeper's descriptors of the process's stdout and stderr.
    pub outputs: [i32; 2],
    /// How many bytes of stdin came; `None` if the process takes no more.
    pub stdin: Option<u64>,
    /// How long it waits for an agent, and a user.
    pub patience: Duration,
    /// How long the process has between SIGHUP and SIGKILL.
    pub grace: Duration,
    /// Whether its stdio is a terminal.
    pub terminal: bool,
}

/// What a keeper says later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent) enum Notice {
    /// The process ended, and nobody writes any output; [`exit`] tells how.
    Exited,
}

/// What an agent says on a control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent) enum Order {
    /// Send this signal to the process group.
    Signal(i32),
    /// End the process: first this signal, SIGKILL after the grace.
    Cancel {
        /// The signal.
        signal: i32,
        /// How long it then has.
        grace: Duration,
    },
    /// What came on the input connection is all of stdin.
    EndInput,
    /// The output was taken over; the keeper is not needed once the process has ended.
    Release,
    /// The user's terminal has this size.
    Resize(Size),
}

/// How the process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent) struct Exit {
    /// What became of it.
    pub outcome: Outcome,
    /// Whether its time was up.
    pub timed_out: bool,
}

/// What a connection to a keeper is for: its first byte.
const CONTROL: u8 = b'C';
const INPUT: u8 = b'I';

fn socket(dir: &Path) -> PathBuf {
    dir.join("orders")
}

/// How the process in `dir` ended, if its keeper wrote that.
pub(in crate::agent) fn exit(dir: &Path) -> Option<Exit> {
    load(&dir.join("exit")).ok()
}

/// Leaves what is to be run in `dir`.
pub(in crate::agent) fn put_spec(dir: &Path, spec: &Spec) -> io::Result<()> {
    save(&dir.join("spec"), spec)
}

/// Written whole or not at all.
fn save<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = postcard::to_stdvec(value).map_err(io::Error::other)?;
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&bytes)?;
    fs::rename(&new, path)
}

fn load<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    postcard::from_bytes(&fs::read(path)?).map_err(io::Error::other)
}

/// Serves as keeper of the execution in `dir`.
pub(super) fn serve(dir: &Path) -> u8 {
    let hello = match begin(dir) {
        Ok(Ok(keeper)) => {
            say(&Hello::Running);
            keeper.run();
            return 0;
        }
        Ok(Err(failure)) => Hello::NotExecuted(failure.errno, failure.what),
        Err(error) => Hello::Failed(error.to_string()),
    };
    say(&hello);
    75
}

fn say(hello: &Hello) {
    let mut stdout = io::stdout();
    stdout.write_all(&postcard::to_stdvec(hello).expect("plain data")).and_then(|()| stdout.flush()).ok();
    super::driver::close_stdout().ok();
}

fn begin(dir: &Path) -> io::Result<Result<Keeper, hold::Failure>> {
    nix::unistd::setsid().ok();
    // A socket's path is short, and a directory's may be long.
    std::env::set_current_dir(dir)?;
    let spec: Spec = load(Path::new("spec"))?;
    fs::remove_file("spec").ok();
    let signals = reaper::prepare()?;
    let listener = std::os::unix::net::UnixListener::bind(socket(Path::new(".")))?;
    listener.set_nonblocking(true)?;
    let mut held = Held::spawn()?;
    let pid = held.child.id();
    let (outputs, terminal) = outputs(&mut held, spec.terminal)?;
    let (source, sink) = match (spec.stdin, &terminal) {
        (true, None) => io::pipe().map(|(read, write)| (Some(read), Some(write.into())))?,
        (true, Some(terminal)) => (None, Some(terminal.input()?)),
        (false, _) => (None, None),
    };
    let name = terminal.as_ref().map(Terminal::name).transpose()?;
    let stdin = source.as_ref().map_or(Stdin::Empty, |pipe| {
        let path = format!("/proc/{}/fd/{}", std::process::id(), pipe.as_raw_fd());
        Stdin::File(path.into())
    });
    let Spec { program, argv, env, cwd, timeout, grace, patience, run_as, .. } = spec;
    let (child, gate) = held.become_command(&Command { program, argv, env, cwd, stdin, terminal: name, run_as });
    // It ends when the program runs, or did not.
    if let Some(failure) = hold::answer(&gate) {
        return Ok(Err(failure));
    }
    drop(source);
    let rules = Rules {
        timeout,
        signal: nix::sys::signal::Signal::SIGTERM as i32,
        grace,
        linger: LINGER,
        background: Background::Leave,
    };
    let life = Life::new(proc::boot_clock(), rules);
    let stdin = stdin::Input::new(sink)?;
    let reaper = Reaper::new(child, None);
    Ok(Ok(Keeper::new(life, reaper, signals, listener, outputs, terminal, stdin, pid, patience, grace)))
}

/// The ends from which an agent reads stdout and stderr. A terminal has no stderr: that ends at once.
fn outputs(held: &mut Held, terminal: Option<Size>) -> io::Result<([OwnedFd; 2], Option<Terminal>)> {
    let (out, err) = (held.child.stdout.take(), held.child.stderr.take());
    if let Some(size) = terminal {
        let (terminal, output) = Terminal::open(size)?;
        return Ok(([output, io::pipe()?.0.into()], Some(terminal)));
    }
    let pipes = [out.expect("stdout is piped").into(), err.expect("stderr is piped").into()];
    for pipe in &pipes {
        nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE)).ok();
    }
    Ok((pipes, None))
}

/// Takes the first whole message.
fn take<T: DeserializeOwned>(bytes: &mut Vec<u8>) -> io::Result<Option<T>> {
    orders::take(bytes).map_err(io::Error::other)
}
