//! What a job is given to read: its script, and the secrets that are files.
//!
//! They lie in the attempt's directory, which is the agent's. Where jobs run as another user, who can't pass there, they lie
//! beside the work directory instead, belong to that user, and nobody else can read them.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::files::Files;
use crate::{
    agent::run_as::User,
    private_file::{self, PrivateFileError},
};

/// The place of what a job is given.
pub struct Given<'a> {
    dir: PathBuf,
    user: Option<&'a User>,
}

impl<'a> Given<'a> {
    /// In the attempt's directory, or in `private`, for `user`.
    pub fn new(files: &Files<'_>, private: &Path, user: Option<&'a User>) -> Self {
        let dir = if user.is_some() { private.to_owned() } else { files.0.dir().to_owned() };
        Self { dir, user }
    }

    /// The job's script; executable if it is to be run by its own name.
    pub fn script(&self, text: &str, executable: bool) -> Result<PathBuf, PrivateFileError> {
        self.put(&self.dir, "script", text.as_bytes(), if executable { 0o700 } else { 0o600 })
    }

    /// A secret.
    pub fn secret(&self, name: &str, value: &[u8]) -> Result<PathBuf, PrivateFileError> {
        self.put(&self.secrets(), name, value, 0o600)
    }

    /// Lets the user come to it. Nothing is put there afterwards: other processes of that user might stand in the way.
    pub fn hand_over(&self) -> Result<(), PrivateFileError> {
        let Some(user) = self.user else { return Ok(()) };
        for dir in [self.secrets(), self.dir.clone()] {
            match user.give(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&dir)(error)),
                _ => (),
            }
        }
        Ok(())
    }

    /// Where the secrets that are files lie, and nothing else.
    pub fn secrets(&self) -> PathBuf {
        self.dir.join("secrets")
    }

    fn put(&self, dir: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<PathBuf, PrivateFileError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
        let path = dir.join(name);
        private_file::replace(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed(&path))?;
        self.user.map_or(Ok(()), |user| user.give(&path)).map_err(failed(&path))?;
        Ok(path)
    }
}

/// What is left of the secrets when the process has ended is removed.
pub fn forget(files: &Files<'_>, private: &Path) {
    let _ = fs::remove_dir_all(files.path("secrets"));
    let _ = fs::remove_file(files.path("stdin"));
    let _ = fs::remove_dir_all(private);
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PrivateFileError {
    |source| PrivateFileError::Io { path: path.to_owned(), source }
}
