//! What became of the attempts whose agent is gone: asked at an agent's start, of each directory.
//!
//! Looking is apart from [deciding](decide), which is a table:
//!
//! | exit record | lock | `started` | process | decision |
//! |---|---|---|---|---|
//! | there | – | – | – | ended |
//! | – | held | this boot, or not yet | – | running: the shim finishes it, also if its process is gone already |
//! | – | held | another boot | – | another host's: leave it alone |
//! | – | free | – | – | certainly did not run: start it |
//! | – | free | another boot | – | lost: the host rebooted |
//! | – | free | this boot | gone | lost: the shim is gone |
//! | – | free | this boot | there | the same, and its processes are ended first |
//!
//! A record that can't be read counts as there: an attempt that may have run is never started again.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{
    attempt::{Attempt, AttemptId},
    shim::{
        Cgroup, RecordError, proc, record,
        spec::{Exit, Started},
    },
};

/// What is to be done about an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It certainly did not run. Without a spec the controller must send it again.
    Start {
        /// Whether the spec is there.
        has_spec: bool,
    },
    /// A shim takes care of it: connect. Without `Started` it is just about to start the process, or to give up; look again.
    Adopt(Option<Started>),
    /// It ended like this. All its output is in the spool.
    Report(Exit),
    /// Nobody will ever know how it ended. Its output ends where the spool ends.
    Lost(Lost),
    /// A shim on another host has it: two hosts share the agent's data directory, which they must not.
    Foreign,
}

/// Why an attempt is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The host was started anew since.
    HostRebooted,
    /// The shim was killed, and its process with it.
    ShimGone {
        /// Processes of the attempt may be left: [`end`] them before anything else.
        processes_left: bool,
    },
    /// A record is there but can't be read.
    RecordDamaged,
}

/// What a directory shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// A shim held the lock, before anything else was looked at.
    pub locked: bool,
    /// There is a spec.
    pub has_spec: bool,
    /// That it started.
    pub started: Record<Started>,
    /// How it ended.
    pub exit: Record<Exit>,
    /// The id of this boot.
    pub boot: String,
    /// When the process began that now has the recorded id.
    pub process: Option<u64>,
}

/// A record that may be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<T> {
    /// It is not.
    Missing,
    /// It is.
    Read(T),
    /// It is, and is damaged or another version's.
    Unreadable,
}

/// Decides what is to be done.
pub fn decide(seen: Seen) -> Decision {
    let Seen { locked, has_spec, started, exit, boot, process } = seen;
    let started = match (exit, started) {
        (Record::Read(exit), _) => return Decision::Report(exit),
        (_, Record::Read(started)) if locked && started.boot != boot => return Decision::Foreign,
        (_, Record::Read(started)) if locked => return Decision::Adopt(Some(started)),
        (_, _) if locked => return Decision::Adopt(None),
        (Record::Unreadable, _) | (_, Record::Unreadable) => return Decision::Lost(Lost::RecordDamaged),
        (Record::Missing, Record::Missing) => return Decision::Start { has_spec },
        (Record::Missing, Record::Read(started)) => started,
    };
    if started.boot != boot {
        return Decision::Lost(Lost::HostRebooted);
    }
    // Its children may have outlived it, and its group's id is theirs as long as no other process has it. A group of one's own
    // outlives it also: then it is emptied.
    let another = process.is_some_and(|start| start != started.start);
    Decision::Lost(Lost::ShimGone { processes_left: !another || started.cgroup.is_some() })
}

/// Looks at the attempts below the directory `jobs`, in the order of their names. Entries of other names are left out. An attempt that
/// can't be looked at has its error.
pub fn scan(jobs: &Path) -> io::Result<Vec<(AttemptId, io::Result<Decision>)>> {
    let entries = match fs::read_dir(jobs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut ids = Vec::<AttemptId>::new();
    for entry in entries {
        let name = entry?.file_name();
        ids.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    ids.sort_unstable();
    let decided = |id: AttemptId| {
        let seen = look(&Attempt::at(jobs.join(id.to_string())));
        (id, seen.map(decide))
    };
    Ok(ids.into_iter().map(decided).collect())
}

/// Looks at one attempt. Blocks for a few small files.
pub fn look(attempt: &Attempt) -> io::Result<Seen> {
    // First the lock: if it is free, whatever its shim wrote is there.
    let locked = is_locked(&attempt.lock())?;
    let exit = read(&attempt.exit())?;
    let started: Record<Started> = read(&attempt.started())?;
    let process = match &started {
        Record::Read(started) => proc::stat(started.pid).filter(|stat| !stat.ended).map(|stat| stat.start),
        _ => None,
    };
    let has_spec = attempt.spec().exists();
    Ok(Seen { locked, has_spec, started, exit, boot: proc::boot_id()?, process })
}

/// Kills the processes of an attempt whose shim is gone: its group, unless its id is another's by now, and its control group. Waits a
/// few seconds at most until they are gone; false if they are not.
pub async fn end(started: &Started) -> bool {
    if !proc::boot_id().is_ok_and(|boot| boot == started.boot) {
        return true;
    }
    let cgroup = started.cgroup.as_ref().map(Cgroup::of_lost_shim);
    let Some(leader) = i32::try_from(started.pid).ok().filter(|pid| *pid > 1).map(Pid::from_raw) else { return false };
    for _ in 0..250 {
        if let Some(cgroup) = &cgroup {
            cgroup.kill();
            cgroup.remove();
        }
        let ours = proc::stat(started.pid).is_none_or(|stat| stat.start == started.start);
        let group_left = ours && killpg(leader, Signal::SIGKILL).is_ok();
        if !group_left && cgroup.as_ref().is_none_or(|cgroup| !cgroup.dir().exists()) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    // Shared, so that two who look do not take each other for a shim.
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Record<T>> {
    match record::read(path) {
        Ok(Some(record)) => Ok(Record::Read(record)),
        Ok(None) => Ok(Record::Missing),
        Err(RecordError::File(crate::private_file::PrivateFileError::Io { source, .. })) => Err(source),
        Err(error) => {
            tracing::warn!("{error}");
            Ok(Record::Unreadable)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::shim::spec::{Outcome, Total, Usage};

    fn started(boot: &str) -> Record<Started> {
        let boot = boot.to_owned();
        Record::Read(Started { pid: 42, start: 7, boot, time: 1, cgroup: None })
    }

    fn exit() -> Exit {
        let total = Total { length: 0, sha256: [0; 32] };
        let (outcome, usage) = (Outcome::Code(3), Usage::default());
        Exit { outcome, cause: None, time: 9, usage, stdout: total, stderr: total, killed_leftovers: false }
    }

    #[test]
    fn every_sight_of_a_directory_has_one_decision() {
        use Decision::*;
        use Record::*;
        let lost = |processes_left| Lost(super::Lost::ShimGone { processes_left });
        let Read(this_boot) = started("b") else { unreachable!() };
        let table = [
            // locked, started, exit, process → decision
            (false, Missing, Missing, None, Start { has_spec: true }),
            (true, Missing, Missing, None, Adopt(None)),
            (true, started("b"), Missing, Some(7), Adopt(Some(this_boot.clone()))),
            (true, started("b"), Missing, None, Adopt(Some(this_boot.clone()))),
            (true, started("b"), Missing, Some(8), Adopt(Some(this_boot))),
            (true, started("a"), Missing, None, Foreign),
            (true, Unreadable, Missing, None, Adopt(None)),
            (false, started("b"), Missing, Some(7), lost(true)),
            (false, started("b"), Missing, None, lost(true)),
            (false, started("b"), Missing, Some(8), lost(false)),
            (false, started("a"), Missing, Some(7), Lost(super::Lost::HostRebooted)),
            (false, started("a"), Missing, None, Lost(super::Lost::HostRebooted)),
            (false, Unreadable, Missing, None, Lost(super::Lost::RecordDamaged)),
            (false, started("b"), Unreadable, None, Lost(super::Lost::RecordDamaged)),
            (false, Missing, Unreadable, None, Lost(super::Lost::RecordDamaged)),
            (false, started("b"), Read(exit()), None, Report(exit())),
            (true, started("b"), Read(exit()), Some(7), Report(exit())),
            (false, started("a"), Read(exit()), None, Report(exit())),
            (false, Unreadable, Read(exit()), None, Report(exit())),
        ];
        for (locked, started, exit, process, expected) in table {
            let seen = Seen { locked, has_spec: true, started, exit, boot: "b".to_owned(), process };
            assert_eq!(decide(seen.clone()), expected, "{seen:?}");
        }
        let Read(mut with_group) = started("b") else { unreachable!() };
        with_group.cgroup = Some("/x".into());
        let seen = Seen {
            locked: false,
            has_spec: false,
            started: Read(with_group),
            exit: Missing,
            boot: "b".to_owned(),
            process: Some(8),
        };
        assert_eq!(decide(seen), lost(true), "its group may still have members");
    }

    #[test]
    fn a_scan_finds_claims_and_leaves_other_entries_alone() {
        let dir = tempfile::tempdir().expect("dir");
        assert!(scan(&dir.path().join("none")).expect("scan").is_empty());
        for name in ["b.1", "a.2", "a.10", "notes", "x.01"] {
            fs::create_dir(dir.path().join(name)).expect("dir");
        }
        let found: Vec<_> = scan(dir.path())
            .expect("scan")
            .into_iter()
            .map(|(id, decision)| (id.to_string(), decision.expect("decided")))
            .collect();
        let start = |name: &str| (name.to_owned(), Decision::Start { has_spec: false });
        assert_eq!(found, [start("a.2"), start("a.10"), start("b.1")]);
    }
}
