//! The user as which an agent that is root runs what it is asked for.
//!
//! A command then has that user's ids, groups and home, and can read nothing that is the agent's alone, its credential above all.
//! The agent itself, its shims and the operator's hooks stay root. What a command needs is brought where that user can read
//! it: the directories on the way to the work directories let it pass, and show it nothing.

use std::{
    ffi::CString,
    fs::{self, DirBuilder, Metadata, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::unistd::{self, Uid, fchown};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::{environment::Environment, shim::spec::RunAs};

/// What lets others pass through a directory without seeing what is in it.
const PASS: u32 = 0o011;

/// A user of this machine who is not root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    name: String,
    ids: RunAs,
    home: PathBuf,
    shell: PathBuf,
}

/// Why commands can't run as somebody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUser {
    /// This process may not change its user.
    #[error("only root can run commands as another user; start the agent as root, or as that user without --run-as")]
    NotRoot,
    /// There is no such user.
    #[error("there is no user {0:?} on this machine; make one, as with `useradd --system --create-home {0}`")]
    Unknown(String),
    /// It is root.
    #[error("what runs as root can read the agent's credential; name another user, or leave --run-as out")]
    Root,
    /// The system does not say.
    #[error("user {name:?} cannot be looked up: {error}")]
    Lookup {
        /// Who.
        name: String,
        /// What happened.
        error: nix::Error,
    },
}

impl User {
    /// The user of this name or number, with all its groups. Only root may ask.
    pub fn find(name: &str) -> Result<Self, InvalidUser> {
        Self::find_for(name, unistd::geteuid())
    }

    fn find_for(name: &str, own: Uid) -> Result<Self, InvalidUser> {
        if !own.is_root() {
            return Err(InvalidUser::NotRoot);
        }
        let failed = |error| InvalidUser::Lookup { name: name.to_owned(), error };
        let found = match name.parse::<u32>() {
            Ok(number) => unistd::User::from_uid(number.into()),
            Err(_) => unistd::User::from_name(name),
        };
        let user = found.map_err(failed)?.ok_or_else(|| InvalidUser::Unknown(name.to_owned()))?;
        if user.uid.is_root() {
            return Err(InvalidUser::Root);
        }
        let known_as = CString::new(user.name.as_str()).map_err(|_| failed(nix::Error::EINVAL))?;
        let groups = unistd::getgrouplist(&known_as, user.gid).map_err(failed)?;
        let groups = groups.into_iter().map(unistd::Gid::as_raw).collect();
        let ids = RunAs { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups };
        Ok(Self { name: user.name, ids, home: user.dir, shell: user.shell })
    }

    /// What a process becomes.
    pub(super) fn ids(&self) -> &RunAs {
        &self.ids
    }

    /// Where commands run that name no directory: its home, or the root where it has none.
    pub(super) fn work_dir(&self) -> PathBuf {
        if self.home.is_dir() { self.home.clone() } else { PathBuf::from("/") }
    }

    /// What its processes are told about it.
    pub(super) fn describe(&self, environment: &mut Environment) {
        environment.set("HOME", &self.home);
        environment.set("USER", &self.name);
        environment.set("LOGNAME", &self.name);
        environment.set("SHELL", &self.shell);
    }

    /// Makes it the owner of a file or directory.
    pub(super) fn give(&self, path: &Path) -> io::Result<()> {
        lchown(path, Some(self.ids.uid), Some(self.ids.gid))
    }

    /// Lets it pass through the directories from `data` to `end`, which lies below and is made if it is missing. An error if one
    /// above `data` does not let it: that one is not ours to change.
    pub(super) fn let_through(&self, data: &Path, end: &Path) -> io::Result<()> {
        for above in fs::canonicalize(data)?.ancestors().skip(1) {
            if !self.may_pass(&fs::metadata(above)?) {
                let Self { name, .. } = self;
                let above = above.display();
                return Err(io::Error::other(format!("user {name} can't pass {above} (`chmod o+x {above}` lets it)")));
            }
        }
        DirBuilder::new().recursive(true).mode(0o700).create(end)?;
        for dir in end.ancestors().take_while(|dir| dir.starts_with(data)) {
            let mode = fs::metadata(dir)?.mode() & 0o7777;
            if mode & PASS != PASS {
                fs::set_permissions(dir, Permissions::from_mode(mode | PASS))?;
            }
        }
        Ok(())
    }

    fn may_pass(&self, dir: &Metadata) -> bool {
        let class = if dir.uid() == self.ids.uid {
            0o100
        } else if dir.gid() == self.ids.gid || self.ids.groups.contains(&dir.gid()) {
            0o010
        } else {
            0o001
        };
        dir.mode() & class != 0
    }

    /// Starts a command whose stdio are pipes, or without `stdin` one that reads nothing. Of the user's groups it has the first
    /// alone: the standard library knows no others.
    pub(super) fn spawn(&self, mut command: Command, stdin: bool) -> io::Result<Child> {
        let (input, out, err) = (stdin.then(|| self.pipe()).transpose()?, self.pipe()?, self.pipe()?);
        let (theirs, ours) = input.unzip();
        command.stdin(theirs.map_or_else(Stdio::null, Stdio::from)).stdout(out.1).stderr(err.1);
        let mut child = command.uid(self.ids.uid).gid(self.ids.gid).spawn()?;
        // It holds their ends, and as long as it does the pipes do not end.
        drop(command);
        child.stdin = ours.map(|pipe| ChildStdin::from_std(pipe.into())).transpose()?;
        child.stdout = Some(ChildStdout::from_std(out.0.into())?);
        child.stderr = Some(ChildStderr::from_std(err.0.into())?);
        Ok(child)
    }

    /// A pipe that is the user's, so that it may also open it by name (`/dev/stderr`): its ends to read and to write.
    fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = io::pipe()?;
        fchown(&write, Some(self.ids.uid.into()), Some(self.ids.gid.into()))?;
        Ok((read.into(), write.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Uid = Uid::from_raw(0);

    fn nobody() -> User {
        User::find_for("nobody", ROOT).expect("every system has it")
    }

    #[test]
    fn only_root_may_name_somebody_and_not_itself() {
        assert_eq!(User::find_for("nobody", Uid::from_raw(1000)), Err(InvalidUser::NotRoot));
        assert_eq!(
            (User::find_for("root", ROOT), User::find_for("0", ROOT)),
            (Err(InvalidUser::Root), Err(InvalidUser::Root))
        );
        let unknown = User::find_for("no-such-user", ROOT).expect_err("there is none").to_string();
        assert!(unknown.contains("useradd") && unknown.contains("no-such-user"), "{unknown}");
        let user = nobody();
        assert!(user.ids().groups.contains(&user.ids().gid), "{user:?}");
        assert_eq!(User::find_for(&user.ids().uid.to_string(), ROOT), Ok(user));
    }

    #[test]
    fn the_directories_on_the_way_let_it_pass_and_no_others() {
        let top = tempfile::tempdir().expect("dir");
        let mode = |path: &str| fs::metadata(top.path().join(path)).expect(path).mode() & 0o777;
        let dir = |path: &str, mode| {
            DirBuilder::new().recursive(true).mode(mode).create(top.path().join(path)).expect(path);
        };
        dir("data", 0o700);
        dir("data/agent", 0o750);
        dir("data/agent/jobs", 0o700);
        let (data, work) = (top.path().join("data"), top.path().join("data/agent/work"));
        fs::set_permissions(top.path(), Permissions::from_mode(0o700)).expect("mode");
        let refused = nobody().let_through(&data, &work).expect_err("closed above").to_string();
        assert!(refused.contains(&format!("chmod o+x {}", top.path().display())), "{refused}");
        assert_eq!(mode("data"), 0o700);
        fs::set_permissions(top.path(), Permissions::from_mode(0o701)).expect("mode");
        nobody().let_through(&data, &work).expect("open above");
        assert_eq!([mode("data"), mode("data/agent"), mode("data/agent/work")], [0o711, 0o751, 0o711]);
        assert_eq!((mode(""), mode("data/agent/jobs")), (0o701, 0o700));
    }
}
