//! Work directories: made for an attempt, and removed or kept when it has ended.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

use crate::{agent::run_as::User, job::Workspace};

/// Makes `dir`, which belongs to `user` if there is one.
pub fn make(dir: &Path, user: Option<&User>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    user.map_or(Ok(()), |user| user.give(dir))
}

/// Does with `dir` what `policy` says. Returns whether it is kept. Blocks for as long as the files take.
pub fn leave(dir: &Path, policy: Workspace) -> bool {
    let kept = match policy {
        Workspace::Remove => false,
        Workspace::Keep { quota } => size(dir, quota).is_ok_and(|size| size <= quota),
    };
    if !kept
        && let Err(error) = fs::remove_dir_all(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("work directory {} was not removed: {error}", dir.display());
    }
    kept
}

/// What the files in `dir` take on the disk; counting ends above `most`. Links are not followed.
fn size(dir: &Path, most: u64) -> io::Result<u64> {
    let (mut size, mut open) = (0, vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let found = entry.metadata()?;
            size += found.blocks() * 512;
            if size > most {
                return Ok(size);
            }
            if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_kept_if_it_is_wanted_and_small_enough() {
        let top = tempfile::tempdir().expect("dir");
        let dir = top.path().join("a/b");
        for (policy, kept) in [
            (Workspace::Remove, false),
            (Workspace::Keep { quota: 1 << 20 }, true),
            (Workspace::Keep { quota: 10_000 }, false),
        ] {
            make(&dir, None).expect("made");
            fs::create_dir(dir.join("c")).ok();
            fs::write(dir.join("c/file"), [7; 40_000]).expect("written");
            std::os::unix::fs::symlink("/", dir.join("root")).ok();
            assert_eq!((leave(&dir, policy), dir.exists()), (kept, kept), "{policy:?}");
        }
        assert!(!leave(&dir, Workspace::Remove), "it is gone already");
    }
}
