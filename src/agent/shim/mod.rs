//! The shim: a small process that owns a job's process, so that nothing that happens to the agent happens to the job.
//!
//! The agent [claims](super::attempt::Attempt::claim) an attempt's directory and [starts](Launcher::start) a shim there. It promises:
//!
//! - **At most one start.** It holds the directory's lock, and writes `started` to the disk before its child may execute.
//! - **No byte lost.** What the process wrote is in the spool, or the process blocks.
//! - **An end.** It keeps the timeout itself, and writes `exit` when all output is on the disk.
//!
//! It has a session of its own and ignores what asks the agent to stop. One thread, no tokio, no logging, two buffers: many
//! of them run on a machine. If it is killed itself, the kernel kills its process, and the attempt is lost.

mod cgroup;
mod client;
mod driver;
mod filter;
mod hold;
pub(super) mod keep;
mod life;
#[cfg(test)]
mod life_tests;
mod orders;
mod output;
pub(super) mod proc;
mod reaper;
pub(super) mod record;
pub mod spec;

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub(super) use cgroup::Cgroup;
pub use client::{Launcher, Shim, StartError};
pub use filter::{Filter, Mask, PassThrough};
pub use orders::{Blocked, Order, Report};
pub use record::RecordError;

use super::{
    attempt::Attempt,
    spool::{Stream, Writer},
};
use crate::{bytelog::redact::Secrets, secret::Secret};
use driver::{Driver, State};
use hold::Held;
use life::{Life, Rules};
use orders::Desk;
use output::Output;
use reaper::Reaper;
use spec::{Spec, Started};

/// The hidden subcommand that makes this program a shim.
pub const SUBCOMMAND: &str = "job-shim";

/// An agent that looks whether the lock is free holds it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// What a shim says to the agent that started it, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Hello {
    /// The process may run from now on.
    Started(Started),
    /// Another shim was first, now or earlier.
    Taken,
    /// It could not begin; nothing ran.
    Failed(String),
}

/// Serves as shim, or as its held child, with the arguments that follow [`SUBCOMMAND`]. Returns the exit code, which tells nothing
/// that the files do not tell.
pub fn run(arguments: &[OsString]) -> u8 {
    close_inherited();
    match arguments {
        [hold] if hold == hold::HOLD => {
            // It returns only if nothing was executed. If the shim does not know that, no exit code may hide it.
            if hold::serve().is_err() {
                std::process::abort();
            }
            127
        }
        [keep, dir] if keep == keep::KEEP => keep::serve(Path::new(dir)),
        [dir] => serve(Path::new(dir)),
        _ => 64,
    }
}

/// Closes what came from outside beside stdio: the shim would hold somebody's pipe open for ever, and the process could read what
/// is not its business.
fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // That of the directory is closed already.
        nix::unistd::close(number).ok();
    }
}

fn serve(dir: &Path) -> u8 {
    let hello = match begin(dir) {
        Ok(Some((driver, _lock, started))) => {
            hello(&Hello::Started(started));
            driver.run();
            return 0;
        }
        Ok(None) => Hello::Taken,
        Err(error) => Hello::Failed(error.to_string()),
    };
    self::hello(&hello);
    75
}

/// Tells the agent, if it is still there.
fn hello(hello: &Hello) {
    let mut stdout = io::stdout();
    stdout.write_all(&postcard::to_stdvec(hello).expect("plain data")).and_then(|()| stdout.flush()).ok();
    driver::close_stdout().ok();
}

/// Everything up to the start; `None` if the attempt was started before. The file is the lock.
fn begin(dir: &Path) -> io::Result<Option<(Driver, File, Started)>> {
    // It leads a group already only if somebody starts it by hand from a shell.
    nix::unistd::setsid().ok();
    let name = fs::canonicalize(dir)?.file_name().unwrap_or(OsStr::new("job")).to_owned();
    // A socket's path is short, and a directory's may be long.
    std::env::set_current_dir(dir)?;
    let attempt = Attempt::at(".");
    let Some(lock) = lock(&attempt.lock())? else { return Ok(None) };
    if attempt.started().exists() || attempt.exit().exists() {
        return Ok(None);
    }
    let spec: Spec = record::read(&attempt.spec())
        .map_err(io::Error::other)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no spec"))?;
    let signals = reaper::prepare()?;
    let desk = Desk::open(&attempt.orders())?;
    let spool = Writer::create(&attempt.spool(), spec.spool_limit)?;
    let (driver, started) = start(attempt, spec, signals, desk, spool, &name)?;
    Ok(Some((driver, lock, started)))
}

/// Makes the child, records it, and lets it go.
fn start(
    attempt: Attempt,
    spec: Spec,
    signals: nix::sys::signalfd::SignalFd,
    desk: Desk,
    spool: Writer,
    name: &OsStr,
) -> io::Result<(Driver, Started)> {
    let mut held = Held::spawn()?;
    let pid = held.child.id();
    let stat = proc::stat(pid).ok_or_else(|| io::Error::other("/proc does not show the process"))?;
    let cgroup = Cgroup::create(&name.to_string_lossy()).and_then(|cgroup| cgroup.enter(pid));
    let started = Started {
        pid,
        start: stat.start,
        boot: proc::boot_id()?,
        time: crate::clock::unix_ms(),
        cgroup: cgroup.as_ref().map(|cgroup| cgroup.dir().as_os_str().to_owned()),
    };
    let mut filters = filters(&spec)?;
    let mut filter = || filters.pop().expect("there are two");
    let pipes = (held.child.stdout.take(), held.child.stderr.take());
    let (stdout, stderr) = (pipes.0.expect("stdout is piped").into(), pipes.1.expect("stderr is piped").into());
    let outputs = [Output::new(Stream::Stdout, stdout, filter())?, Output::new(Stream::Stderr, stderr, filter())?];
    // From here on it may have run. If this fails half-way, the held child ends with us.
    record::write(&attempt.started(), &started).map_err(io::Error::other)?;
    let rules = Rules {
        timeout: spec.timeout,
        signal: spec.signal,
        grace: spec.grace,
        linger: spec.linger,
        background: spec.background,
    };
    let life = Life::new(proc::boot_clock(), rules);
    let (child, gate) = held.release(spec);
    // It is not needed any more, since nothing starts twice, and may hold secrets.
    fs::remove_file(attempt.spec()).ok();
    let reaper = Reaper::new(child, cgroup);
    let state = State::default();
    let driver = Driver { attempt, life, reaper, signals, desk, spool, outputs, pid, gate: Some(gate), state };
    Ok((driver, started))
}

/// What stands before the spool of each stream. Without secrets it takes no memory.
fn filters(spec: &Spec) -> io::Result<Vec<Box<dyn Filter>>> {
    if spec.redact.is_empty() {
        return Ok(vec![Box::new(PassThrough), Box::new(PassThrough)]);
    }
    let values: Vec<_> = spec.redact.iter().map(|value| Secret::new(value.expose().clone())).collect();
    let secrets = Secrets::new(&values).map_err(io::Error::other)?;
    Ok(vec![Box::new(Mask::new(&secrets)), Box::new(Mask::new(&secrets))])
}

/// Takes the lock; `None` if a living shim has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    let patience = proc::boot_clock() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if proc::boot_clock() > patience => return Ok(None),
            #[allow(clippy::disallowed_methods, reason = "this process has one thread and no reactor")]
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
