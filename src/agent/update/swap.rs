//! The agent's own file: a copy of the new program beside it, and the exchange of the two.
//!
//! ```text
//! rk                  what runs
//! rk.<agent>.new      a copy of the new program, which is tried; renamed to `rk` if it is good
//! rk.previous         what ran before
//! ```
//!
//! Each name has the agent's in it that others of this machine, with the same file, do not share. Everything here blocks.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::candidate;
use crate::{bundle::Digest, id::AgentName};

/// A new program that can be run, beside the old one.
#[derive(Debug)]
pub struct Staged {
    /// What is to be replaced.
    file: PathBuf,
    /// The copy; none if somebody has put the same program in the file's place already.
    copy: Option<Copy>,
}

/// A file that is removed unless it was renamed.
#[derive(Debug)]
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

impl Staged {
    /// What is to be run.
    pub fn path(&self) -> &Path {
        self.copy.as_ref().map_or(&self.file, |copy| &copy.0)
    }

    /// Puts it in the file's place, whose content is kept as `.previous`. At any moment the file is whole, and on the disk when this
    /// returns. What is returned is the file.
    pub fn place(self) -> io::Result<PathBuf> {
        let Some(copy) = self.copy else { return Ok(self.file) };
        let (previous, aside) = (beside(&self.file, ".previous"), beside(&self.file, ".previous.new"));
        fs::remove_file(&aside).or_else(missing)?;
        if fs::hard_link(&self.file, &aside).is_err() {
            // Not every file system has links.
            fs::copy(&self.file, &aside)?;
        }
        fs::rename(&aside, &previous)?;
        fs::rename(&copy.0, &self.file)?;
        sync(&self.file)?;
        Ok(self.file)
    }
}

/// Whether the program in `file` can be replaced; the error says what would help.
pub fn check(file: &Path, name: &AgentName) -> Result<(), String> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    let cure = || {
        format!("update the package or the image that it came with, or let the agent's user write to {}", dir.display())
    };
    let failed = |error: io::Error| format!("it cannot replace its program {}: {error}; {}", file.display(), cure());
    let metadata = fs::metadata(file).map_err(failed)?;
    if metadata.mode() & 0o6000 != 0 {
        return Err(format!(
            "its program {} runs as its owner (set-user-id), which a new one would lose",
            file.display()
        ));
    }
    let copy = beside(file, &format!(".{name}.new"));
    fs::remove_file(&copy).or_else(missing).map_err(failed)?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy);
    made.map_err(failed)?;
    fs::remove_file(&copy).map_err(failed)
}

/// Copies the program `from`, whose digest this is, beside `file`, which is this process's own.
pub fn stage(from: &Path, digest: &Digest, file: &Path, name: &AgentName) -> Result<Staged, String> {
    let failed = |error: io::Error| format!("{}: {error}", file.display());
    let (own, there) = (fs::metadata("/proc/self/exe").map_err(failed)?, fs::metadata(file).map_err(failed)?);
    if (own.dev(), own.ino()) != (there.dev(), there.ino()) {
        // Another agent of this machine may have been faster.
        return match candidate::digest(file).map_err(failed)? {
            now if now == *digest => Ok(Staged { file: file.to_owned(), copy: None }),
            _ => Err(format!("{} was replaced since this agent started; start the agent anew", file.display())),
        };
    }
    let copy = Copy(beside(file, &format!(".{name}.new")));
    let write = || {
        fs::remove_file(&copy.0).or_else(missing)?;
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&copy.0)?;
        io::copy(&mut File::open(from)?, &mut to)?;
        // Who may run the old one may run the new one.
        to.set_permissions(Permissions::from_mode(there.mode() & 0o777))?;
        let now = to.metadata()?;
        if (now.uid(), now.gid()) != (there.uid(), there.gid()) {
            std::os::unix::fs::fchown(&to, Some(there.uid()), Some(there.gid()))?;
        }
        to.sync_all()
    };
    write().map_err(|error| format!("{}: {error}", copy.0.display()))?;
    Ok(Staged { file: file.to_owned(), copy: Some(copy) })
}

fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(file.file_name().unwrap_or_default());
    name.push(end);
    file.with_file_name(name)
}

fn missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn sync(file: &Path) -> io::Result<()> {
    File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .expect("dir")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_is_exchanged_and_what_was_there_is_kept() {
        let dir = tempfile::tempdir().expect("dir");
        let (file, copy) = (dir.path().join("rk"), dir.path().join("rk.a.new"));
        for (before, new) in [("one", "two"), ("two", "three")] {
            fs::write(&file, before).expect("written");
            fs::write(&copy, new).expect("written");
            let staged = Staged { file: file.clone(), copy: Some(Copy(copy.clone())) };
            assert_eq!(staged.path(), copy);
            assert_eq!(staged.place().expect("placed"), file);
            assert_eq!(fs::read_to_string(&file).expect("there"), new);
            assert_eq!(fs::read_to_string(dir.path().join("rk.previous")).expect("there"), before);
            assert_eq!(names(dir.path()), ["rk", "rk.previous"]);
        }
    }

    #[test]
    fn a_copy_that_was_not_taken_is_removed() {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("rk"), "one").expect("written");
        fs::write(dir.path().join("rk.a.new"), "two").expect("written");
        drop(Staged { file: dir.path().join("rk"), copy: Some(Copy(dir.path().join("rk.a.new"))) });
        assert_eq!(names(dir.path()), ["rk"]);
    }

    #[test]
    fn a_program_that_cannot_be_replaced_is_refused_with_the_cure() {
        let dir = tempfile::tempdir().expect("dir");
        let (file, name) = (dir.path().join("rk"), "a".parse().expect("a name"));
        let gone = check(&file, &name).expect_err("not there");
        assert!(gone.contains("package or the image"), "{gone}");
        fs::write(&file, "x").expect("written");
        fs::write(dir.path().join("rk.a.new"), "left behind").expect("written");
        assert_eq!(check(&file, &name), Ok(()));
        assert_eq!(names(dir.path()), ["rk"]);
        fs::set_permissions(&file, Permissions::from_mode(0o4755)).expect("chmod");
        assert!(check(&file, &name).expect_err("set-user-id").contains("set-user-id"));
    }
}
