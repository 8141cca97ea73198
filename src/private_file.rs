//! Files that hold secrets: readable by their owner alone, replaced whole or not at all.
//!
//! What is read is checked on the open file, so that nobody can swap it between the check and the reading. Calls block
//! for a few file operations; files are small and read at start.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The largest secret file: 1 MiB.
const MAX_SIZE: u64 = 1 << 20;

/// Why a private file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// There is none.
    #[error("{} does not exist", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// There is one already.
    #[error("{} exists already; remove it first if it is not needed any more", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// Others may read or write it.
    #[error("{} may be read or changed by others (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    OpenToOthers {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to user id {owner} and this program runs as {own}; run: chown {own} {}", path.display(), path.display())]
    Owner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        own: u32,
    },
    /// It is a directory, a device, or above 1 MiB.
    #[error("{} is no regular file of up to 1 MiB", path.display())]
    Odd {
        /// Which.
        path: PathBuf,
    },
    /// The file system does not let us.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Reads a file that only its owner, who must be this program's user, may read or write.
pub fn read(path: &Path) -> Result<Vec<u8>, PrivateFileError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => PrivateFileError::Missing { path: path.to_owned() },
        _ => PrivateFileError::Io { path: path.to_owned(), source },
    };
    // A FIFO would block the opening for ever.
    let file =
        OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MAX_SIZE {
        return Err(PrivateFileError::Odd { path: path.to_owned() });
    }
    let (owner, own) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    if owner != own {
        return Err(PrivateFileError::Owner { path: path.to_owned(), owner, own });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::OpenToOthers { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Creates a file with mode 0600 and these bytes, on disk when this returns; refuses to replace one.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    // Under its name it appears whole: a crash leaves no half a secret behind.
    let temporary = write_temporary(path, bytes)?;
    let linked = fs::hard_link(&temporary, path);
    let _ = fs::remove_file(&temporary);
    linked.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => PrivateFileError::Exists { path: path.to_owned() },
        _ => PrivateFileError::Io { path: path.to_owned(), source },
    })?;
    sync_directory(path)
}

/// Writes a file with mode 0600 and these bytes in place of what is there, on disk when this returns. At any moment
/// there is the old file or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    let temporary = write_temporary(path, bytes)?;
    fs::rename(&temporary, path).map_err(|source| {
        let _ = fs::remove_file(&temporary);
        PrivateFileError::Io { path: path.to_owned(), source }
    })?;
    sync_directory(path)
}

/// Reads the file, or creates it with what `make` returns. The flag says whether it was created.
pub fn read_or_create(path: &Path, make: impl FnOnce() -> Vec<u8>) -> Result<(Vec<u8>, bool), PrivateFileError> {
    match read(path) {
        Err(PrivateFileError::Missing { .. }) => (),
        other => return other.map(|bytes| (bytes, false)),
    }
    match create(path, &make()) {
        // Somebody was faster.
        Err(PrivateFileError::Exists { .. }) => read(path).map(|bytes| (bytes, false)),
        Ok(()) => read(path).map(|bytes| (bytes, true)),
        Err(e) => Err(e),
    }
}

fn write_temporary(path: &Path, bytes: &[u8]) -> Result<PathBuf, PrivateFileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", uuid::Uuid::new_v4().simple()));
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        PrivateFileError::Io { path: path.to_owned(), source }
    })?;
    Ok(temporary)
}

fn sync_directory(path: &Path) -> Result<(), PrivateFileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let sync = || File::open(directory)?.sync_all();
    sync().map_err(|source| PrivateFileError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_created_is_private_and_read_back_and_not_created_twice() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("secret");
        assert!(matches!(read(&path), Err(PrivateFileError::Missing { .. })));
        assert_eq!(read_or_create(&path, || b"one".to_vec()).expect("created"), (b"one".to_vec(), true));
        assert_eq!(read_or_create(&path, || b"two".to_vec()).expect("read"), (b"one".to_vec(), false));
        assert!(matches!(create(&path, b"three"), Err(PrivateFileError::Exists { .. })));
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
        replace(&path, b"four").expect("replaced");
        assert_eq!(read(&path).expect("read"), b"four");
        let left: Vec<_> = fs::read_dir(dir.path()).expect("dir").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_file_open_to_others_is_refused_with_the_command_that_closes_it() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("secret");
        create(&path, b"x").expect("created");
        for mode in [0o640, 0o604, 0o620, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            let message = read(&path).expect_err("open").to_string();
            assert!(message.contains(&format!("chmod 600 {}", path.display())), "{message}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("chmod");
        assert_eq!(read(&path).expect("read-only is private too"), b"x");
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        assert!(matches!(read(dir.path()), Err(PrivateFileError::Odd { .. })));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("fifo");
        assert!(matches!(read(&pipe), Err(PrivateFileError::Odd { .. })));
    }
}
