//! An attempt's directory: its name is the attempt's, making it is the claim, and what lies in it outlives the agent.
//!
//! | entry | written by | means |
//! |---|---|---|
//! | the directory | agent, `mkdir` | the attempt is taken; nobody takes it twice |
//! | `spec` | agent, before the shim starts | what to run; removed once it runs, because it may hold secrets |
//! | `lock` | agent, empty | whoever holds its `flock` is the attempt's only shim |
//! | `started` | shim, before the process may run | it may have run; it is never started again |
//! | `orders` | shim | the socket on which it takes orders |
//! | `spool/` | shim | the output |
//! | `exit` | shim, after the last byte of output | how it ended |
//! | `shim.err` | shim | its last words, if it panicked |
//! | `ticket` | agent, before the start | where the output goes and what is to be done at the end; without it nothing was started |
//! | `shipped` | agent, now and then | how far the output is in the topic; a hint, less is shipped again |
//! | `notes` | agent | the system stream: what the agent itself says about the attempt |
//! | `script`, `stdin`, `secrets/` | agent, before the start | what the process reads; the secrets are removed when it ended. For another user script and secrets lie in `work/<attempt>.private/` |
//! | `after` | agent | what follows the end was done: the hook, the workspace |
//!
//! The directory stays until the agent is told to remove it. Files of other names are left alone.

use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::shim::{record, spec::Spec};
use crate::private_file::{self, PrivateFileError};

/// The longest job id in bytes. It is part of a file's name, whose limit is 255.
pub const MAX_JOB: usize = 64;

/// One attempt at one job: the name of its directory is `<job>.<attempt>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptId {
    job: String,
    attempt: u32,
}

/// Why a name is no attempt's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no attempt; one is <job>.<number>, the job 1 to 64 of a-z, A-Z, 0-9, '-', '_'")]
pub struct InvalidAttempt(String);

impl AttemptId {
    /// The attempt of this number at this job. A job is 1 to [`MAX_JOB`] bytes of `[A-Za-z0-9_-]`.
    pub fn new(job: &str, attempt: u32) -> Result<Self, InvalidAttempt> {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if job.is_empty() || job.len() > MAX_JOB || !job.bytes().all(fine) {
            return Err(InvalidAttempt(job.chars().take(80).collect()));
        }
        Ok(Self { job: job.to_owned(), attempt })
    }

    /// The job's id.
    pub fn job(&self) -> &str {
        &self.job
    }

    /// The attempt's number.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.attempt)
    }
}

impl FromStr for AttemptId {
    type Err = InvalidAttempt;

    fn from_str(s: &str) -> Result<Self, InvalidAttempt> {
        let refuse = || InvalidAttempt(s.chars().take(80).collect());
        let (job, number) = s.split_once('.').ok_or_else(refuse)?;
        let attempt: u32 = number.parse().map_err(|_| refuse())?;
        // One name for one attempt: no leading zero and no plus sign.
        if attempt.to_string() != number {
            return Err(refuse());
        }
        Self::new(job, attempt).map_err(|_| refuse())
    }
}

/// Why an attempt could not be claimed. In either case nothing runs that did not run before.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// There is a directory already: ask `adopt` what became of it.
    #[error("attempt {0} is taken already")]
    Taken(AttemptId),
    /// The disk does not let us. The claim may stand, without a spec.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The directory cannot be made.
    #[error("{}: {source}; the agent's data directory must be writable", dir.display())]
    Dir {
        /// Which.
        dir: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// The directory of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    dir: PathBuf,
}

impl Attempt {
    /// The directory `dir`, whether it exists or not.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Claims `id` below the directory `jobs`, which is made if it is missing, and leaves `spec` there for the shim.
    /// When this returns, the claim is on the disk.
    pub fn claim(jobs: &Path, id: &AttemptId, spec: &Spec) -> Result<Self, ClaimError> {
        let attempt = Self::at(jobs.join(id.to_string()));
        // Looked at first: a spec that is too large claims nothing.
        let bytes = record::encode(&attempt.spec(), spec)?;
        Self::take(jobs, id)?;
        private_file::replace(&attempt.spec(), &bytes)?;
        Ok(attempt)
    }

    /// Claims `id` without leaving a spec: until there is one, nothing can start. When this returns, the claim is on the disk.
    pub fn take(jobs: &Path, id: &AttemptId) -> Result<Self, ClaimError> {
        let dir = jobs.join(id.to_string());
        let failed = |source| ClaimError::Dir { dir: dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(jobs).map_err(failed)?;
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(ClaimError::Taken(id.clone())),
            made => made.map_err(failed)?,
        }
        File::open(jobs).and_then(|jobs| jobs.sync_all()).map_err(failed)?;
        Ok(Self::at(dir))
    }

    /// Leaves `spec` for the shim, also where an earlier agent died before it did.
    pub fn put_spec(&self, spec: &Spec) -> Result<(), PrivateFileError> {
        record::write(&self.spec(), spec)
    }

    /// Removes the directory with all that is in it. That it is gone already is no error.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The output's directory.
    pub fn spool(&self) -> PathBuf {
        self.dir.join("spool")
    }

    pub(super) fn spec(&self) -> PathBuf {
        self.dir.join("spec")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(super) fn started(&self) -> PathBuf {
        self.dir.join("started")
    }

    pub(super) fn exit(&self) -> PathBuf {
        self.dir.join("exit")
    }

    pub(super) fn orders(&self) -> PathBuf {
        self.dir.join("orders")
    }

    pub(super) fn last_words(&self) -> PathBuf {
        self.dir.join("shim.err")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nothing_else_is_one() {
        let id = AttemptId::new("j-1_A", 7).expect("fine");
        assert_eq!(id.to_string(), "j-1_A.7");
        assert_eq!("j-1_A.7".parse(), Ok(id));
        for bad in ["", ".", ".1", "a", "a.", "a.01", "a.+1", "a.-1", "a.1.2", "../a.1", "a/b.1", "ä.1", "a.4294967296"]
        {
            assert!(bad.parse::<AttemptId>().is_err(), "{bad:?}");
        }
        assert!(AttemptId::new(&"x".repeat(MAX_JOB + 1), 1).is_err());
    }
}
