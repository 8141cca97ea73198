//! How the files of a bundle are one: a container that has one form for one content, and no room for what a bundle must not
//! hold (devices, owners, set-user-id bits, times).
//!
//! ```text
//! archive = "rkbundle1\n" ‖ entries, paths strictly ascending ‖ 0xff
//! entry   = kind (1) ‖ path's length (2, big-endian) ‖ path ‖ length (8, big-endian) ‖ content
//! kind    = 0 directory (no content), 1 file, 2 executable file, 3 symbolic link (its target)
//! ```
//!
//! Paths are relative, and each one's directory stands before it. A link leads up first and then only down, and not out of the
//! bundle: as all that is above it is a directory and no link, it can't be led out by others either.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA256};

use super::{Archive, Digest};

const MAGIC: &[u8] = b"rkbundle1\n";
const END: u8 = 0xff;
/// The most entries: each costs an agent a file.
const MAX_ENTRIES: usize = 200_000;
/// The longest path, and the longest target of a link.
const MAX_PATH: usize = 4096;
/// The longest name in a path.
const MAX_NAME: usize = 255;

/// Why files are no bundle, or an archive can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that a bundle must not hold.
    #[error("{} {problem}; {cure}", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// What.
        problem: &'static str,
        /// What to do.
        cure: &'static str,
    },
    /// The file system's.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// What it is written to.
    #[error("it cannot be written: {0}")]
    Out(io::Error),
    /// No archive of ours.
    #[error("the bundle is malformed: {0}")]
    Malformed(&'static str),
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Executable,
    Link,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Directory, Self::File, Self::Executable, Self::Link];
}

/// Packs a directory, or a single file, and says what came of it. The same files give the same bytes.
pub fn pack(from: &Path, out: impl Write) -> Result<Archive, Error> {
    let mut out = Hashing { out, hash: Context::new(&SHA256), size: 0 };
    out.put(MAGIC)?;
    let found = looked(from, fs::metadata(from))?;
    if found.is_dir() {
        for (path, kind) in list(from)? {
            put(&mut out, &from.join(&path), path.as_os_str().as_bytes(), kind)?;
        }
    } else {
        let name = from.file_name().unwrap_or_default().as_bytes();
        put(&mut out, from, name, kind(from, &found)?)?;
    }
    out.put(&[END])?;
    out.out.flush().map_err(Error::Out)?;
    Ok(Archive { sha256: Digest::from_ring(&out.hash.finish()), size: out.size })
}

/// What is below a directory, in the order of an archive.
fn list(root: &Path) -> Result<Vec<(PathBuf, Kind)>, Error> {
    let (mut all, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(dir) = open.pop() {
        let here = root.join(&dir);
        let failed = |source| Error::Io { path: here.clone(), source };
        for entry in fs::read_dir(&here).map_err(failed)? {
            let path = dir.join(entry.map_err(failed)?.file_name());
            let full = root.join(&path);
            let kind = kind(&full, &looked(&full, fs::symlink_metadata(&full))?)?;
            if kind == Kind::Directory {
                open.push(path.clone());
            }
            all.push((path, kind));
            if all.len() > MAX_ENTRIES {
                return Err(refuse(root, "has more than 200,000 files", "pack them into one, and unpack it there"));
            }
        }
    }
    all.sort_by(|(a, _), (b, _)| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok(all)
}

fn kind(path: &Path, found: &fs::Metadata) -> Result<Kind, Error> {
    let is = found.file_type();
    if is.is_symlink() {
        return Ok(Kind::Link);
    }
    if found.mode() & 0o6000 != 0 && !is.is_dir() {
        return Err(refuse(path, "is set-user-id or set-group-id", "take the bit away (`chmod ug-s`)"));
    }
    if is.is_dir() {
        Ok(Kind::Directory)
    } else if is.is_file() {
        Ok(if found.mode() & 0o111 == 0 { Kind::File } else { Kind::Executable })
    } else if is.is_block_device() || is.is_char_device() {
        Err(refuse(path, "is a device", "leave it out"))
    } else {
        Err(refuse(path, "is a socket or a pipe", "leave it out"))
    }
}

fn put(out: &mut Hashing<impl Write>, full: &Path, path: &[u8], kind: Kind) -> Result<(), Error> {
    if let Err(why) = check_path(path) {
        return Err(refuse(full, why, "name it otherwise"));
    }
    let failed = |source| Error::Io { path: full.to_owned(), source };
    let mut head = |length: u64| {
        let mut head = vec![kind as u8];
        head.extend_from_slice(&(path.len() as u16).to_be_bytes());
        head.extend_from_slice(path);
        head.extend_from_slice(&length.to_be_bytes());
        out.put(&head)
    };
    match kind {
        Kind::Directory => head(0),
        Kind::Link => {
            let target = fs::read_link(full).map_err(failed)?;
            let target = target.as_os_str().as_bytes();
            if let Err(why) = check_link(path, target) {
                return Err(refuse(full, why, "copy what it points to instead"));
            }
            head(target.len() as u64)?;
            out.put(target)
        }
        Kind::File | Kind::Executable => {
            let mut file = File::open(full).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            head(length)?;
            let mut left = length;
            let mut buffer = vec![0; 128 << 10];
            while left > 0 {
                let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let read = file.read(&mut buffer[..most]).map_err(failed)?;
                if read == 0 {
                    return Err(refuse(full, "became shorter meanwhile", "try again when nobody changes it"));
                }
                out.put(&buffer[..read])?;
                left -= read as u64;
            }
            Ok(())
        }
    }
}

/// Hashes and counts what passes.
struct Hashing<W> {
    out: W,
    hash: Context,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.out.write_all(bytes).map_err(Error::Out)
    }
}

/// Unpacks into the directory `root`, which must not exist, read-only for everybody. Everything is on the disk when this
/// returns. What was unpacked before an error stays.
pub fn unpack(archive: impl Read, root: &Path) -> Result<(), Error> {
    let mut input = Input(archive);
    if input.bytes(MAGIC.len())? != MAGIC {
        return Err(Error::Malformed("it does not begin like one"));
    }
    DirBuilder::new().mode(0o755).create(root).map_err(|source| Error::Io { path: root.to_owned(), source })?;
    let mut dirs: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut last = Vec::new();
    let mut entries = 0;
    while let Some((kind, path, length)) = input.entry()? {
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(Error::Malformed("it has too many files"));
        }
        check_path(&path).map_err(Error::Malformed)?;
        if path <= last {
            return Err(Error::Malformed("its paths do not ascend, or one is there twice"));
        }
        let parent = path.iter().rposition(|b| *b == b'/').map_or(&[][..], |at| &path[..at]);
        if !parent.is_empty() && !dirs.contains(parent) {
            return Err(Error::Malformed("a file stands before its directory, or in what is none"));
        }
        let full = root.join(OsStr::from_bytes(&path));
        install(&mut input, kind, &path, &full, length)?;
        if kind == Kind::Directory {
            dirs.insert(path.clone());
        }
        last = path;
    }
    if input.0.read(&mut [0]).map_err(broken)? != 0 {
        return Err(Error::Malformed("something follows its end"));
    }
    // The deepest first: a directory that nobody may write to takes no more.
    for dir in dirs.iter().rev().map(|dir| root.join(OsStr::from_bytes(dir))).chain([root.to_owned()]) {
        let closed = File::open(&dir).and_then(|dir| {
            dir.set_permissions(fs::Permissions::from_mode(0o555))?;
            dir.sync_all()
        });
        closed.map_err(|source| Error::Io { path: dir, source })?;
    }
    Ok(())
}

fn install(input: &mut Input<impl Read>, kind: Kind, path: &[u8], full: &Path, length: u64) -> Result<(), Error> {
    let failed = |source| Error::Io { path: full.to_owned(), source };
    match kind {
        Kind::Directory if length > 0 => Err(Error::Malformed("a directory has content")),
        Kind::Directory => DirBuilder::new().mode(0o755).create(full).map_err(failed),
        Kind::Link => {
            let length = usize::try_from(length).ok().filter(|length| *length <= MAX_PATH);
            let target = input.bytes(length.ok_or(Error::Malformed("a link is too long"))?)?;
            check_link(path, &target).map_err(Error::Malformed)?;
            symlink(OsStr::from_bytes(&target), full).map_err(failed)
        }
        Kind::File | Kind::Executable => {
            let mode = if kind == Kind::File { 0o444 } else { 0o555 };
            // Fails where something is, also a link.
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(full).map_err(failed)?;
            let copied = io::copy(&mut (&mut input.0).take(length), &mut file).map_err(failed)?;
            if copied < length {
                return Err(Error::Malformed("it ends too soon"));
            }
            file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
            file.sync_all().map_err(failed)
        }
    }
}

struct Input<R>(R);

impl<R: Read> Input<R> {
    /// At most a path's length at once.
    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).map_err(broken)?;
        Ok(bytes)
    }

    fn entry(&mut self) -> Result<Option<(Kind, Vec<u8>, u64)>, Error> {
        let kind = self.bytes(1)?[0];
        if kind == END {
            return Ok(None);
        }
        let kind = Kind::ALL.get(usize::from(kind)).ok_or(Error::Malformed("it holds what is no file"))?;
        let length = self.bytes(2)?;
        let path = self.bytes(usize::from(u16::from_be_bytes([length[0], length[1]])))?;
        let length = self.bytes(8)?.try_into().expect("eight were read");
        Ok(Some((*kind, path, u64::from_be_bytes(length))))
    }
}

fn broken(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Malformed("it ends too soon"),
        _ => Error::Io { path: "the archive".into(), source: error },
    }
}

fn refuse(path: &Path, problem: &'static str, cure: &'static str) -> Error {
    Error::Refused { path: path.to_owned(), problem, cure }
}

fn looked(path: &Path, found: io::Result<fs::Metadata>) -> Result<fs::Metadata, Error> {
    found.map_err(|source| Error::Io { path: path.to_owned(), source })
}

fn check_path(path: &[u8]) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > MAX_PATH || path.contains(&0) {
        return Err("has a path that is empty, too long, or has a zero byte in it");
    }
    for name in path.split(|b| *b == b'/') {
        if matches!(name, b"" | b"." | b"..") || name.len() > MAX_NAME {
            return Err("has a path that is not plainly below the bundle's root");
        }
    }
    Ok(())
}

/// A target leads up as often as there are directories above the link, and then down.
fn check_link(path: &[u8], target: &[u8]) -> Result<(), &'static str> {
    if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) || target[0] == b'/' {
        return Err("is a link that is absolute, empty, or too long");
    }
    let mut above = path.iter().filter(|b| **b == b'/').count();
    let mut down = false;
    for name in target.split(|b| *b == b'/') {
        match name {
            b"" | b"." => {}
            b".." if down || above == 0 => return Err("is a link that leaves the bundle, or may"),
            b".." => above -= 1,
            _ => down = true,
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
