//! The held child: made first, recorded, and only then let go.
//!
//! It is this program again, `job-shim --hold`, in a session of its own, with the pipes of the process that it will become. Its
//! stdin is one end of a socket pair. It waits there for the [`Command`] and executes it; that closes the socket, which tells
//! the shim that it worked. If it does not, it writes why. If the shim dies before, the socket ends and so does the child. If the
//! shim dies later, the kernel kills the process, whose output nobody takes any more.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Stdio},
};

use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{Gid, Uid, fchown, setgid, setgroups, setsid, setuid},
};
use serde::{Deserialize, Serialize};

use super::spec::{RunAs, Spec, Stdin};

/// The argument that makes this program a held child.
pub(super) const HOLD: &str = "--hold";

/// Our own program, also after the file was replaced by a newer one.
const OURSELVES: &str = "/proc/self/exe";

/// What it says once it has its session.
const READY: u8 = 1;

/// What a held child becomes.
#[derive(Serialize, Deserialize)]
pub(super) struct Command {
    pub program: OsString,
    pub argv: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub cwd: OsString,
    pub stdin: Stdin,
    /// The terminal that is its stdio, in place of pipes and `stdin`.
    pub terminal: Option<OsString>,
    pub run_as: Option<RunAs>,
}

/// Why a command was not executed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    pub errno: i32,
    pub what: String,
}

/// A held child, seen from the shim.
pub(super) struct Held {
    pub child: Child,
    gate: UnixStream,
}

impl Held {
    /// Makes one and waits until it leads its session; its stdout and stderr are piped.
    pub fn spawn() -> io::Result<Self> {
        let (mut gate, theirs) = UnixStream::pair()?;
        let child = std::process::Command::new(OURSELVES)
            .args([super::SUBCOMMAND, HOLD])
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // If it dies, nobody else holds its end.
        gate.read_exact(&mut [0])?;
        Ok(Self { child, gate })
    }

    /// Lets it go. The gate then tells whether that worked: see [`answer`]. A child that is dead already is found when it is reaped.
    pub fn release(self, spec: Spec) -> (Child, UnixStream) {
        let Spec { program, argv, env, cwd, stdin, run_as, .. } = spec;
        self.become_command(&Command { program, argv, env, cwd, stdin, terminal: None, run_as })
    }

    /// The same with what it becomes.
    pub fn become_command(mut self, command: &Command) -> (Child, UnixStream) {
        let bytes = postcard::to_stdvec(command).expect("plain data");
        self.gate.write_all(&(bytes.len() as u32).to_le_bytes()).and_then(|()| self.gate.write_all(&bytes)).ok();
        (self.child, self.gate)
    }
}

/// What the held child said at its gate before that ended: nothing if the command was executed.
pub(super) fn answer(gate: &UnixStream) -> Option<Failure> {
    let mut bytes = Vec::new();
    gate.take(64 << 10).read_to_end(&mut bytes).ok()?;
    if bytes.is_empty() { None } else { postcard::from_bytes(&bytes).ok() }
}

/// Serves as held child; returns only if the command was not executed.
pub(super) fn serve() -> io::Result<()> {
    setsid()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // A copy that an execution closes.
    let mut gate = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    gate.write_all(&[READY])?;
    let mut length = [0; 4];
    gate.read_exact(&mut length)?;
    let bytes = read_exactly(&gate, u32::from_le_bytes(length))?;
    let failure = match postcard::from_bytes(&bytes) {
        Ok(command) => execute(command),
        Err(error) => Failure { errno: 0, what: format!("the shim's command cannot be read: {error}") },
    };
    gate.write_all(&postcard::to_stdvec(&failure).map_err(io::Error::other)?)
}

/// Reads `length` bytes, which allocates no more than come.
fn read_exactly(from: impl Read, length: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() == length as usize { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn execute(command: Command) -> Failure {
    let failed = |what: String| move |error: io::Error| Failure { errno: error.raw_os_error().unwrap_or(0), what };
    let prepare = || -> Result<std::process::Command, Failure> {
        let stdin = match &command.stdin {
            Stdin::Empty => None,
            Stdin::File(path) => {
                Some(File::open(path).map_err(failed(format!("stdin file {} cannot be read", path.display())))?)
            }
        };
        // It leads a session that has no terminal, so the first that it opens becomes its own.
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        let terminal = command.terminal.as_ref().map(open).transpose();
        let terminal = terminal.map_err(failed("its terminal cannot be opened".to_owned()))?;
        if let Some(run_as) = &command.run_as {
            let became = give_stdio(run_as, stdin.as_ref(), terminal.as_ref()).and_then(|()| become_user(run_as));
            became.map_err(failed(format!("it cannot run as user {}", run_as.uid)))?;
        }
        std::env::set_current_dir(&command.cwd)
            .map_err(failed(format!("directory {} cannot be entered", command.cwd.display())))?;
        // The shim blocks what must not end it; whom it starts shall not inherit that.
        SigSet::empty()
            .thread_set_mask()
            .map_err(|error| failed("signals cannot be unblocked".to_owned())(error.into()))?;
        let mut process = std::process::Command::new(&command.program);
        process.args(command.argv.iter().skip(1)).env_clear().stdin(stdin.map_or_else(Stdio::null, Stdio::from));
        process.envs(command.env.iter().map(|(key, value)| (key, value)));
        if let Some(name) = command.argv.first() {
            process.arg0(name);
        }
        if let Some(terminal) = terminal {
            let copies = || Ok((terminal.try_clone()?, terminal.try_clone()?));
            let (out, err) = copies().map_err(failed("its terminal cannot be shared".to_owned()))?;
            process.stdin(terminal).stdout(out).stderr(err);
        }
        Ok(process)
    };
    match prepare() {
        Ok(mut process) => failed(format!("{} cannot be executed", command.program.display()))(process.exec()),
        Err(failure) => failure,
    }
}

/// What it has open it may also open by name: `/dev/stderr`.
fn give_stdio(run_as: &RunAs, stdin: Option<&File>, terminal: Option<&File>) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(run_as.uid)), Some(Gid::from_raw(run_as.gid)));
    stdin.map_or(Ok(()), |stdin| fchown(stdin, uid, gid))?;
    // Its group may write there to be heard, and is not the user's.
    terminal.map_or(Ok(()), |terminal| fchown(terminal, uid, None))?;
    fchown(io::stdout(), uid, gid)?;
    Ok(fchown(io::stderr(), uid, gid)?)
}

fn become_user(run_as: &RunAs) -> io::Result<()> {
    let groups: Vec<_> = run_as.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    setgroups(&groups)?;
    setgid(Gid::from_raw(run_as.gid))?;
    setuid(Uid::from_raw(run_as.uid))?;
    // The kernel forgets it when the user changes.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(())
}
