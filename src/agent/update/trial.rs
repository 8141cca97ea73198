//! A new program runs as the agent, as a child of the old one, to show that it can.
//!
//! It is started as the agent was, with one variable more that tells it what it is. It gets a session, keeps it for a moment, says so
//! as a line on its stdout, and ends with 0; it takes no work meanwhile. Everything else is a failure: another end, another word,
//! silence. A warden ends it if this process is killed.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::mpsc,
    task::JoinError,
    time::timeout,
};

use super::{Candidate, record};
use crate::{
    agent::{
        engine::asked,
        warden::{Program, Warden},
    },
    clock,
    update::Stage,
};

/// The variable that tells a program that it is on trial.
pub const TRIAL: &str = "RK_UPDATE_TRIAL";
/// The line that it says.
pub const PROVEN: &str = "rk: proven";

/// How long it may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(10);
/// How long what it said may take to come once it has ended.
const LAST: Duration = Duration::from_secs(1);
/// How much of what it says is remembered.
const REMEMBERED: usize = 4 << 10;

/// What came of a trial.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is good.
    Proven,
    /// It is not; why.
    Failed(String),
    /// The agent was told to stop meanwhile.
    Stopped,
}

/// Tries `candidate` with the arguments of this process, the program's name first. It has ended when this returns.
pub async fn try_out(
    candidate: &Candidate,
    arguments: &[OsString],
    warden: Option<Program>,
    stops: &mut mpsc::Receiver<()>,
) -> Verdict {
    let mut command = std::process::Command::new(candidate.staged.path());
    if let [name, rest @ ..] = arguments {
        command.arg0(name).args(rest);
    }
    let mut warden = warden.map(Warden::new);
    if let Some(warden) = &mut warden {
        warden.ready(&BTreeMap::new());
    }
    command.env(TRIAL, "1").stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = match Command::from(command).kill_on_drop(true).spawn() {
        Ok(child) => child,
        Err(error) => return Verdict::Failed(format!("it does not start: {error}")),
    };
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else {
        return Verdict::Failed("it has no process id".to_owned());
    };
    if let Some(warden) = &mut warden {
        warden.add(pid, Duration::ZERO, &BTreeMap::from([(pid, Duration::ZERO)]));
    }
    let (stdout, stderr) = (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
    let said = tokio::spawn(listen(stdout, false));
    let words = tokio::spawn(listen(stderr, true));
    let ended = tokio::select! {
        biased;
        () = asked(stops) => None,
        ended = timeout(candidate.deadline, child.wait()) => Some(ended),
    };
    end(&mut child, pid).await;
    if let Some(warden) = &mut warden {
        warden.remove(pid, &BTreeMap::new());
    }
    // What it started besides may still hold them.
    let (said, words) = (timeout(LAST, said).await, timeout(LAST, words).await);
    let text =
        |heard: Result<Result<String, _>, _>| heard.ok().and_then(Result::<_, JoinError>::ok).unwrap_or_default();
    let (said, words) = (text(said), text(words));
    match ended {
        None => Verdict::Stopped,
        Some(Ok(Ok(status))) if status.success() && said.lines().any(|line| line == PROVEN) => Verdict::Proven,
        Some(Ok(Ok(status))) => Verdict::Failed(format!("it ended{}", because(Some(status), &words))),
        Some(Ok(Err(error))) => Verdict::Failed(format!("it was lost: {error}")),
        Some(Err(_)) => {
            Verdict::Failed(format!("it was not online within {:?}{}", candidate.deadline, because(None, &words)))
        }
    }
}

impl Candidate {
    /// Notes that nothing came of it, and why. When this returns it is on the disk.
    pub fn roll_back(self, why: &str) -> std::io::Result<()> {
        record::write(&self.dir, &self.update.at(Stage::RolledBack, Some(why), clock::unix_ms()))
    }

    /// Puts the program in the old one's place, and returns the file. If that fails the old one is there.
    pub fn place(self) -> Result<std::path::PathBuf, String> {
        let Self { staged, dir, update, .. } = self;
        staged.place().map_err(|error| {
            let why = format!("the new program could not be put in the old one's place: {error}");
            let noted = record::write(&dir, &update.at(Stage::RolledBack, Some(&why), clock::unix_ms()));
            noted.err().map_or(why.clone(), |error| format!("{why} (and that is not noted: {error})"))
        })
    }

    /// How people call it.
    pub fn name(&self) -> String {
        self.update.to.to_string()
    }
}

/// How it ended, and its last words.
fn because(status: Option<ExitStatus>, words: &str) -> String {
    let status = status.map(|status| format!(" with {status}")).unwrap_or_default();
    match words.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!("{status}; its last words: {line}"),
        None => status,
    }
}

/// Ends what is left of it.
async fn end(child: &mut Child, pid: i32) {
    let group = Pid::from_raw(pid);
    if child.id().is_some() {
        killpg(group, Signal::SIGTERM).ok();
        killpg(group, Signal::SIGCONT).ok();
        let _ = timeout(GRACE, child.wait()).await;
    }
    // Also what it left behind in its group, which would keep our pipes open.
    killpg(group, Signal::SIGKILL).ok();
    let _ = child.wait().await;
}

/// The end of what comes; all of it is passed on to stderr if it is talk.
async fn listen(mut stream: impl AsyncRead + Unpin, talk: bool) -> String {
    let (mut last, mut buffer) = (VecDeque::new(), vec![0; 4 << 10]);
    let mut stderr = tokio::io::stderr();
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if talk {
            stderr.write_all(&buffer[..read]).await.ok();
        }
        last.extend(&buffer[..read]);
        last.drain(..last.len().saturating_sub(REMEMBERED));
    }
    String::from_utf8_lossy(last.make_contiguous()).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_failure_is_told_with_the_last_words() {
        let ended = because(Some(ExitStatus::from_raw(256)), "one\n two \n\n");
        assert_eq!(ended, " with exit status: 1; its last words: two");
        assert_eq!(because(None, ""), "");
    }

    #[tokio::test]
    async fn only_the_end_of_what_is_said_is_remembered() {
        let said = [b"x".repeat(3 * REMEMBERED), b"\nrk: proven\n".to_vec()].concat();
        let end = listen(&said[..], false).await;
        assert!(end.len() <= REMEMBERED && end.lines().any(|line| line == PROVEN));
    }
}
