//! Archives that were unpacked on this machine's disk: found, made, counted, and removed when others need the room.
//!
//! ```text
//! bundles/.lock            held while room is made
//! bundles/<sha256>.lock    how many bytes it counts for; its time: when it was last used. Held shared by who uses it, alone by who
//!                          makes or removes it
//! bundles/<sha256>.part/   what is being made or removed
//! bundles/<sha256>/        the files
//! ```
//!
//! All of it is for one user of the machine, and several agents of that user may share it: locks are the kernel's, which end with
//! the process that holds them. Everything here blocks.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use ring::digest::{Context, SHA256};

use crate::bundle::{Archive, Digest, archive};

/// The directory.
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
    limit: u64,
}

/// An archive's files, which stay as long as this does.
#[derive(Debug)]
pub struct Pin {
    root: PathBuf,
    _lock: File,
}

impl Pin {
    /// Where the files are.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Why something cannot be kept here.
#[derive(Debug, thiserror::Error)]
pub enum Unkept {
    /// Whatever was removed, it would not fit.
    #[error("it has {size} bytes, and this agent has room for {limit} (--bundle-cache)")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The room in all.
        limit: u64,
    },
    /// What is there is used now.
    #[error(
        "{size} bytes do not fit beside the bundles that are used now; this agent has room for {limit} (--bundle-cache)"
    )]
    InUse {
        /// Its size.
        size: u64,
        /// The room in all.
        limit: u64,
    },
    /// The bytes that came are others.
    #[error("the bytes that came are not those that its digest names")]
    Altered,
    /// The bytes are no bundle.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The disk's.
    #[error("the agent's disk: {0}")]
    Disk(#[from] io::Error),
}

/// What is being made. Dropped before it is finished nothing is left of it.
pub struct Making {
    cache: Cache,
    archive: Archive,
    lock: File,
    finished: bool,
}

impl Cache {
    /// In `dir`, which is made, with room for `limit` bytes. What others left half-made is removed.
    pub fn open(dir: PathBuf, limit: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let cache = Self { dir, limit };
        for digest in cache.named(".part")? {
            if let Some(lock) = cache.lock(&digest)?
                && try_lock(&lock)?
            {
                remove_tree(&cache.part(&digest))?;
                cache.forget(&digest)?;
            }
        }
        Ok(cache)
    }

    /// An error if an archive of this size can never be kept.
    pub fn check(&self, size: u64) -> Result<(), Unkept> {
        if size > self.limit { Err(Unkept::TooLarge { size, limit: self.limit }) } else { Ok(()) }
    }

    /// The files of an archive, if they are here.
    pub fn pin(&self, digest: &Digest) -> io::Result<Option<Pin>> {
        let root = self.root(digest);
        if !root.is_dir() {
            return Ok(None);
        }
        let Some(lock) = self.lock(digest)? else { return Ok(None) };
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if !root.is_dir() || !self.is_current(digest, &lock)? {
            return Ok(None);
        }
        lock.set_modified(SystemTime::now())?;
        Ok(Some(Pin { root, _lock: lock }))
    }

    /// Makes room, and begins to make an archive's files; none if another process does, or has. Where nothing can be removed any
    /// more [`Unkept::InUse`].
    pub fn begin(&self, archive: &Archive) -> Result<Option<Making>, Unkept> {
        self.check(archive.size)?;
        let all =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.dir.join(".lock"))?;
        all.lock()?;
        let Some(mut lock) = self.lock(&archive.sha256)? else { return Ok(None) };
        if !try_lock(&lock)? || !self.is_current(&archive.sha256, &lock)? || self.root(&archive.sha256).exists() {
            return Ok(None);
        }
        // From here on it counts, and who makes room next finds it locked.
        let making = Making { cache: self.clone(), archive: *archive, lock: lock.try_clone()?, finished: false };
        remove_tree(&making.part())?;
        self.make_room(&archive.sha256, archive.size)?;
        lock.set_len(0)?;
        lock.rewind()?;
        lock.write_all(archive.size.to_string().as_bytes())?;
        DirBuilder::new().mode(0o755).create(making.part())?;
        Ok(Some(making))
    }

    /// Removes what was not used for the longest time, until there is room for `size` bytes more.
    fn make_room(&self, new: &Digest, size: u64) -> Result<(), Unkept> {
        let (mut there, mut total) = (Vec::new(), size);
        for digest in self.named(".lock")?.into_iter().filter(|digest| digest != new) {
            let path = self.lock_path(&digest);
            let read = fs::read_to_string(&path).and_then(|text| Ok((text, fs::metadata(&path)?.modified()?)));
            // One that is gone meanwhile counts for nothing.
            let Ok((text, used)) = read else { continue };
            let counts = text.trim().parse::<u64>().unwrap_or(0);
            total += counts;
            there.push((used, digest, counts));
        }
        there.sort();
        for (_, digest, counts) in there {
            if total <= self.limit {
                break;
            }
            if let Some(lock) = self.lock(&digest)?
                && try_lock(&lock)?
            {
                tracing::info!(digest = %digest.short(), bytes = counts, "a bundle was removed to make room");
                self.remove(&digest)?;
                total -= counts;
            }
        }
        if total > self.limit { Err(Unkept::InUse { size, limit: self.limit }) } else { Ok(()) }
    }

    /// Removes the files. The caller holds the lock alone.
    fn remove(&self, digest: &Digest) -> io::Result<()> {
        let (root, part) = (self.root(digest), self.part(digest));
        remove_tree(&part)?;
        if root.exists() {
            // From here on nobody finds it, and if we die the next one removes it.
            fs::rename(&root, &part)?;
        }
        self.forget(digest)?;
        remove_tree(&part)
    }

    /// Forgets one of which there is nothing. The caller holds the lock alone.
    fn forget(&self, digest: &Digest) -> io::Result<()> {
        if self.root(digest).exists() {
            return Ok(());
        }
        match fs::remove_file(self.lock_path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The file that is locked.
    fn lock(&self, digest: &Digest) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(self.lock_path(digest)).map(Some)
    }

    /// Whether the file that was locked is still the one that others lock: who removes an archive removes it too.
    fn is_current(&self, digest: &Digest, lock: &File) -> io::Result<bool> {
        match fs::metadata(self.lock_path(digest)) {
            Ok(found) => Ok(found.ino() == lock.metadata()?.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn named(&self, ending: &str) -> io::Result<Vec<Digest>> {
        let mut named = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            named.extend(name.to_str().and_then(|name| name.strip_suffix(ending)?.parse::<Digest>().ok()));
        }
        Ok(named)
    }

    fn root(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    fn part(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.part"))
    }

    fn lock_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.lock"))
    }
}

impl Making {
    /// The file into which the archive is written.
    pub fn file(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.archive_path())
    }

    /// The archive is whole: compares it with its digest, unpacks it, and makes it known.
    pub fn finish(mut self) -> Result<Pin, Unkept> {
        let mut file = File::open(self.archive_path())?;
        let (mut hash, mut buffer) = (Context::new(&SHA256), vec![0; 128 << 10]);
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }
        if Digest::from_ring(&hash.finish()) != self.archive.sha256 {
            return Err(Unkept::Altered);
        }
        file.rewind()?;
        let (fresh, root) = (self.part().join("root"), self.cache.root(&self.archive.sha256));
        archive::unpack(io::BufReader::with_capacity(128 << 10, file), &fresh)?;
        // A directory can only be moved by who may write into it.
        fs::set_permissions(&fresh, Permissions::from_mode(0o755))?;
        fs::rename(&fresh, &root)?;
        fs::set_permissions(&root, Permissions::from_mode(0o555))?;
        File::open(&self.cache.dir)?.sync_all()?;
        self.finished = true;
        remove_tree(&self.part())?;
        // On the same open file, so that it is never unlocked for long; who came between found it used last.
        self.lock.lock_shared()?;
        if !root.is_dir() {
            return Err(io::Error::other("it was removed at once").into());
        }
        self.lock.set_modified(SystemTime::now())?;
        Ok(Pin { root, _lock: self.lock.try_clone()? })
    }

    fn part(&self) -> PathBuf {
        self.cache.part(&self.archive.sha256)
    }

    fn archive_path(&self) -> PathBuf {
        self.part().join("archive")
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.finished {
            let removed = remove_tree(&self.part()).and_then(|()| self.cache.forget(&self.archive.sha256));
            if let Err(error) = removed {
                tracing::warn!("{}: {error}; it is removed at the next start", self.part().display());
            }
        }
    }
}

/// Locks a file alone; false if somebody has it.
fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes a directory whose directories nobody may write to. That it is not there is no error.
fn remove_tree(dir: &Path) -> io::Result<()> {
    fn open_up(dir: &Path) -> io::Result<()> {
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open_up(&entry.path())?;
            }
        }
        Ok(())
    }
    if fs::symlink_metadata(dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    open_up(dir)?;
    fs::remove_dir_all(dir)
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
