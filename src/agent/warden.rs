//! The warden: a small process that ends an agent's executions when the agent itself was killed.
//!
//! The agent holds the only writing end of the warden's stdin and writes each process group to it that comes or goes. When
//! the agent dies, in whatever way, the pipe ends; the warden sends the groups that are left SIGHUP, and after their
//! grace SIGKILL. So not even grandchildren outlive a SIGKILL of the agent, which a parent death signal could not
//! promise (it reaches the child alone, and setting it needs unsafe code between fork and exec). What remains open are
//! the microseconds between a start and the line that reports it.
//!
//! It starts before the first execution does, so an idle agent is one process.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{SigSet, Signal, killpg},
    unistd::Pid,
};

use super::group::is_alive;

/// How a warden is started: a program that calls [`run`] and nothing else.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program, usually the agent's own.
    pub path: PathBuf,
    /// Its arguments, usually a hidden subcommand.
    pub args: Vec<OsString>,
}

/// The agent's end.
pub(super) struct Warden {
    program: Program,
    process: Option<(Child, ChildStdin)>,
}

impl Warden {
    pub fn new(program: Program) -> Self {
        Self { program, process: None }
    }

    /// Starts the process if there is none yet; `all` is every group. Before a group's first process starts, so that a line is all that
    /// has to be written after it: what is killed in between leaves an orphan.
    pub fn ready(&mut self, all: &BTreeMap<i32, Duration>) {
        if self.process.is_none() {
            self.start(all);
        }
    }

    /// Reports a new group; `all` is every group including it.
    pub fn add(&mut self, leader: i32, grace: Duration, all: &BTreeMap<i32, Duration>) {
        if !self.write(&added(leader, grace)) {
            self.start(all);
        }
    }

    /// Reports that a group is gone; `all` are those that are left.
    pub fn remove(&mut self, leader: i32, all: &BTreeMap<i32, Duration>) {
        if !self.write(&format!("- {leader}\n")) && !all.is_empty() {
            self.start(all);
        }
    }

    fn write(&mut self, line: &str) -> bool {
        match &mut self.process {
            Some((_, stdin)) => stdin.write_all(line.as_bytes()).is_ok(),
            None => false,
        }
    }

    fn start(&mut self, all: &BTreeMap<i32, Duration>) {
        self.end();
        match self.spawn() {
            Ok((child, stdin)) => self.process = Some((child, stdin)),
            Err(error) => {
                tracing::warn!(
                    "the warden {} does not start, so processes may survive a SIGKILL of this agent: {error}",
                    self.program.path.display()
                );
                return;
            }
        }
        let lines: String = all.iter().map(|(leader, grace)| added(*leader, *grace)).collect();
        self.write(&lines);
    }

    fn spawn(&self) -> io::Result<(Child, ChildStdin)> {
        let mut child = Command::new(&self.program.path)
            .args(&self.program.args)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let stdin = child.stdin.take().expect("stdin is piped");
        Ok((child, stdin))
    }

    fn end(&mut self) {
        if let Some((mut child, stdin)) = self.process.take() {
            drop(stdin);
            child.wait().ok();
        }
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        // It has no groups left and ends at once.
        self.end();
    }
}

fn added(leader: i32, grace: Duration) -> String {
    format!("+ {leader} {}\n", grace.as_millis())
}

/// Serves as warden until stdin ends and everything it guarded is gone. Signals that ask the agent to stop, and that
/// reach its whole control group, do not end it.
pub fn run() -> io::Result<()> {
    let mut ignored = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT] {
        ignored.add(signal);
    }
    ignored.thread_block()?;
    let left = follow(io::stdin().lock());
    end(&left);
    Ok(())
}

/// The groups that are left when `input` ends.
fn follow(input: impl Read) -> BTreeMap<i32, Duration> {
    let mut groups = BTreeMap::new();
    for line in BufReader::new(input).lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        let verb = words.next();
        // A group id of 0 or 1 would mean ourselves or everybody.
        let Some(leader) = words.next().and_then(|word| word.parse::<i32>().ok()).filter(|leader| *leader > 1) else {
            continue;
        };
        match (verb, words.next().and_then(|word| word.parse().ok())) {
            (Some("+"), Some(grace)) => groups.insert(leader, Duration::from_millis(grace)),
            (Some("-"), _) => groups.remove(&leader),
            _ => None,
        };
    }
    groups
}

fn end(groups: &BTreeMap<i32, Duration>) {
    const STEP: Duration = Duration::from_millis(20);
    for leader in groups.keys() {
        killpg(Pid::from_raw(*leader), Signal::SIGHUP).ok();
        killpg(Pid::from_raw(*leader), Signal::SIGCONT).ok();
    }
    let mut left = groups.clone();
    let mut waited = Duration::ZERO;
    loop {
        left.retain(|leader, grace| {
            let alive = is_alive(Pid::from_raw(*leader));
            if alive && waited >= *grace {
                killpg(Pid::from_raw(*leader), Signal::SIGKILL).ok();
            }
            alive && waited < *grace
        });
        if left.is_empty() {
            return;
        }
        #[allow(clippy::disallowed_methods, reason = "this process has one thread and no reactor")]
        std::thread::sleep(STEP);
        waited += STEP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_that_are_left_are_those_that_came_and_did_not_go() {
        let lines = "+ 10 500\n+ 11 7\nnonsense\n- 10\n+ 1 5\n+ 0 5\n+ -5 5\n+ 12\n+ 13 x\n- 99\n+ 14 9";
        let left = follow(lines.as_bytes());
        assert_eq!(left, BTreeMap::from([(11, Duration::from_millis(7)), (14, Duration::from_millis(9))]));
    }
}
