//! An attempt's directory with a shim in it, and how a test waits.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use nix::sys::signal::Signal;
use remoting_kafka::agent::{
    adopt::{self, Decision, Record},
    attempt::{Attempt, AttemptId},
    shim::{
        Launcher, Order, Report, Shim,
        spec::{Background, Exit, Spec, Started, Stdin},
    },
    spool::{Next, Offsets, Reader, Stream},
    warden::Program,
};
use ring::digest::{SHA256, digest};

/// No test waits longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with attempts. What runs in them is killed when it goes.
pub struct Rig {
    pub dir: tempfile::TempDir,
}

/// The program under test as a shim.
pub fn launcher() -> Launcher {
    Launcher::new(Program { path: env!("CARGO_BIN_EXE_rk").into(), args: vec!["job-shim".into()] })
}

/// What `sh -c script` is.
pub fn script(script: &str) -> Spec {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    Spec {
        program: "/bin/sh".into(),
        argv: words(&["sh", "-c", script]),
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        cwd: "/".into(),
        stdin: Stdin::Empty,
        timeout: None,
        signal: 15,
        grace: Duration::from_secs(20),
        linger: Duration::from_millis(300),
        background: Background::End,
        spool_limit: 64 << 20,
        run_as: None,
        redact: Vec::new(),
    }
}

pub fn id(job: &str) -> AttemptId {
    AttemptId::new(job, 1).expect("an id")
}

/// Bounds a wait.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes too long")
}

/// Waits until `ready` says something.
pub async fn until<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    soon(async {
        loop {
            if let Some(value) = ready() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Whether a process is there and runs.
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

pub async fn gone(pid: u32) {
    until(|| (!is_alive(pid)).then_some(())).await;
}

/// Waits until `path` has a whole line of a process id.
pub async fn pid_in(path: PathBuf) -> u32 {
    until(|| std::fs::read_to_string(&path).ok()?.strip_suffix('\n')?.parse().ok()).await
}

pub fn kill(pid: u32, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).expect("the process is there");
}

impl Rig {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("dir") }
    }

    pub fn jobs(&self) -> PathBuf {
        self.dir.path().join("jobs")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn claim(&self, job: &str, spec: &Spec) -> Attempt {
        Attempt::claim(&self.jobs(), &id(job), spec).expect("a claim")
    }

    pub async fn start(&self, job: &str, spec: &Spec) -> (Attempt, Started) {
        let attempt = self.claim(job, spec);
        let started = soon(launcher().start(&attempt)).await.expect("started");
        (attempt, started)
    }

    /// Runs to the end.
    pub async fn run(&self, job: &str, spec: &Spec) -> (Attempt, Exit) {
        let (attempt, _) = self.start(job, spec).await;
        let exit = ended(&attempt).await;
        (attempt, exit)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for (id, _) in adopt::scan(&self.jobs()).unwrap_or_default() {
            let attempt = Attempt::at(self.jobs().join(id.to_string()));
            if let Some(shim) = shim_of(&attempt) {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim as i32), Signal::SIGKILL).ok();
                // Its process dies with it, but not the children of that.
                if let Ok(adopt::Seen { started: Record::Read(started), .. }) = adopt::look(&attempt) {
                    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(started.pid as i32), Signal::SIGKILL).ok();
                }
            }
        }
    }
}

/// The process that holds the attempt's lock.
pub fn shim_of(attempt: &Attempt) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let inode = std::fs::metadata(attempt.dir().join("lock")).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().filter(|line| line.contains("FLOCK")).find_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        words.get(5)?.ends_with(&format!(":{inode}")).then(|| words.get(4)?.parse().ok())?
    })
}

pub fn decision(attempt: &Attempt) -> Decision {
    adopt::decide(adopt::look(attempt).expect("looked"))
}

/// Waits for the exit record.
pub async fn ended(attempt: &Attempt) -> Exit {
    until(|| match decision(attempt) {
        Decision::Report(exit) => Some(exit),
        Decision::Lost(lost) => panic!("lost: {lost:?}"),
        _ => None,
    })
    .await
}

/// Waits for a report that `matches`.
pub async fn report(shim: &mut Shim, matches: impl Fn(&Report) -> bool) -> Report {
    soon(async {
        loop {
            let report = shim.changed().await.expect("the shim is there");
            if matches(&report) {
                return report;
            }
        }
    })
    .await
}

pub async fn order(attempt: &Attempt, order: Order) {
    let mut shim = Shim::connect(attempt).await.expect("connected");
    shim.order(order).await.expect("ordered");
    // Not before it was heard.
    shim.changed().await;
}

/// All that the spool has of both streams.
pub fn spooled(attempt: &Attempt) -> [Vec<u8>; 2] {
    let mut reader = Reader::new(&attempt.spool(), Offsets::default());
    let mut all = [Vec::new(), Vec::new()];
    while let Next::Chunk(chunk) = reader.read().expect("readable") {
        let all = &mut all[usize::from(chunk.stream == Stream::Stderr)];
        assert_eq!(chunk.offset, all.len() as u64);
        all.extend_from_slice(&chunk.bytes);
    }
    all
}

/// Checks that the spool holds what the exit record promises, and returns it as text.
pub fn text(attempt: &Attempt, exit: &Exit) -> [String; 2] {
    let all = spooled(attempt);
    for (all, total) in all.iter().zip([exit.stdout, exit.stderr]) {
        assert_eq!((all.len() as u64, &sha256(all)), (total.length, &total.sha256));
    }
    all.map(|all| String::from_utf8(all).expect("text"))
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("32 bytes")
}

/// Private memory of a process in KiB: all its pages that are no file's. (`Private_Dirty` would count the pages of a program
/// that was just linked and is not on the disk yet.)
pub fn private_memory(pid: u32) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps");
    let line = maps.lines().find(|line| line.starts_with("Anonymous:")).expect("a line");
    line.split_ascii_whitespace().nth(1).expect("a number").parse().expect("KiB")
}
