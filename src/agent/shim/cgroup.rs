//! A control group (v2) for an attempt's processes, where we may have one: then nothing escapes the final kill.
//!
//! For another user than root the right to make one below our own means that it was delegated to us. Root may everywhere, so for
//! root it must be the root of the hierarchy that we see: that of a container, or of a host without a manager of groups. What is
//! not possible is done without; the record of the start says which it was.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

/// A control group of our own.
#[derive(Debug)]
pub(in crate::agent) struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// Makes a control group for the attempt `name` below our own.
    pub fn create(name: &str) -> Option<Self> {
        let mount = mount(&fs::read_to_string("/proc/self/mounts").ok()?)?;
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own(&groups)?;
        if geteuid().is_root() && own != Path::new("") {
            return None;
        }
        // Two agents of one host may know jobs by the same name, and must not kill each other's.
        let dir = mount.join(own).join(format!("rk-job-{name}-{}", std::process::id()));
        fs::create_dir(&dir).ok()?;
        Some(Self { dir })
    }

    /// The one that a shim made in `dir` and can't take care of any more.
    pub fn of_lost_shim(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Moves process `pid` there, which has no children yet; none if that is refused.
    pub fn enter(self, pid: u32) -> Option<Self> {
        let entered = fs::write(self.dir.join("cgroup.procs"), pid.to_string()).is_ok();
        if !entered {
            self.remove();
        }
        entered.then_some(self)
    }

    /// SIGKILL to all that are there.
    pub fn kill(&self) {
        fs::write(self.dir.join("cgroup.kill"), "1").ok();
    }

    /// Removes it. Who is still there and may stay goes where we are.
    pub fn leave(&self) {
        if let (Ok(left), Some(above)) = (fs::read_to_string(self.dir.join("cgroup.procs")), self.dir.parent()) {
            for pid in left.lines() {
                fs::write(above.join("cgroup.procs"), pid).ok();
            }
        }
        self.remove();
    }

    /// Removes it if nobody is there.
    pub fn remove(&self) {
        fs::remove_dir(&self.dir).ok();
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Where version 2 is mounted.
fn mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        // A space in the path would be written as \040; no system has one there.
        [_, path, "cgroup2", ..] if !path.contains('\\') => Some(path.into()),
        _ => None,
    })
}

/// Our own group, relative to the mount.
fn own(groups: &str) -> Option<&Path> {
    // One that begins above what we see would name somebody else's.
    groups.lines().find_map(|line| line.strip_prefix("0::/")).filter(|path| !path.contains("..")).map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_group_is_found_on_pure_and_mixed_systems() {
        let mixed = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount(mixed), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"), None);
        assert_eq!(own("9:cpu:/\n0::/user.slice/a\n"), Some(Path::new("user.slice/a")));
        assert_eq!(own("0::/\n"), Some(Path::new("")));
        assert_eq!(own("9:cpu:/\n0::/../x\n"), None);
    }
}
