//! Finds the files that are wanted, and reads them.
//!
//! Every path is resolved by the kernel below the directory's own descriptor, and no link is followed: whatever a job, or what it
//! left running, puts in the way, nothing else is read. Where jobs run as another user, a thread with that user's rights reads.

use std::{
    fs::File as OpenFile,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use nix::{
    dir::{Dir, Type},
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::Mode,
    unistd::{Gid, Uid, setfsgid, setfsuid},
};
use ring::digest::{Context, SHA256};
use tokio::sync::mpsc;

use crate::{
    bundle::{Archive, Digest},
    bytelog::blob::CHUNK,
    job::{
        Course, Glob,
        manifest::{self, File, MAX_FILES, MAX_LEFT_OUT, MAX_MANIFEST, MAX_PATH, Manifest, is_below},
    },
    service::files::PERMISSIONS,
};

/// Pieces that wait to be sent.
const WAITING: usize = 4;
/// How much is read at once.
const BLOCK: usize = 128 << 10;
/// What an entry of the list has beside its path, about.
const EACH: u64 = 64;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where.
    pub root: PathBuf,
    /// Which files.
    pub globs: Vec<Glob>,
    /// How many bytes there may be in all.
    pub limit: u64,
    /// Whose files, if the agent is root and jobs are not.
    pub user: Option<(u32, u32)>,
}

/// What comes of it, in this order.
pub enum Step {
    /// What there is. What follows begins so many bytes behind the start of the pack.
    Found(Box<Gathered>, u64),
    /// A piece of the pack: a chunk, but for the last one.
    Piece(Vec<u8>),
    /// That was all.
    Done,
    /// A file is another than it was found.
    Changed(String),
    /// It can't be had, in words for people.
    Failed(String),
}

/// What was found.
pub struct Gathered {
    /// The list, which lacks where in the topic it lies.
    pub manifest: Manifest,
    /// How many files were left out, also those that the list does not name.
    pub left_out: u32,
    order: Vec<usize>,
}

/// Ends the thread that gathers when it is dropped.
pub struct Gathering {
    /// What it found.
    pub steps: mpsc::Receiver<Step>,
    stop: Arc<AtomicBool>,
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// Begins. If what is found is the pack `sent`, its first bytes are left out: they were sent before.
pub fn begin(wanted: Wanted, sent: Option<(Archive, u64)>) -> io::Result<Gathering> {
    let (send, steps) = mpsc::channel(WAITING);
    let stop = Arc::new(AtomicBool::new(false));
    let walk = Walk { wanted, stop: stop.clone(), left_out: Vec::new(), more: 0 };
    // A thread of its own: its rights end with it.
    thread::Builder::new().name("artifacts".to_owned()).spawn(move || {
        let last = match walk.run(sent, &send) {
            Ok(()) => Step::Done,
            Err(step) => step,
        };
        let _ = send.blocking_send(last);
    })?;
    Ok(Gathering { steps, stop })
}

struct Walk {
    wanted: Wanted,
    stop: Arc<AtomicBool>,
    left_out: Vec<String>,
    more: u32,
}

/// A directory that is looked at: its path, and how far each pattern has matched it; none if all in it is wanted.
struct Place {
    path: String,
    courses: Option<Vec<Course>>,
}

impl Walk {
    fn run(mut self, sent: Option<(Archive, u64)>, send: &mpsc::Sender<Step>) -> Result<(), Step> {
        if let Some((uid, gid)) = self.wanted.user {
            become_user(uid, gid).map_err(|error| Step::Failed(error.to_string()))?;
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = openat(AT_FDCWD, &self.wanted.root, flags, Mode::empty())
            .map_err(|error| Step::Failed(format!("its work directory cannot be read: {error}")))?;
        let gathered = self.gather(&root)?;
        let (pack, order) = (gathered.manifest.pack, gathered.order.clone());
        let files = gathered.manifest.files.clone();
        let from = sent.filter(|(archive, _)| *archive == pack).map_or(0, |(_, from)| from);
        let gone = || Step::Failed("nobody waits for it".to_owned());
        send.blocking_send(Step::Found(Box::new(gathered), from)).map_err(|_| gone())?;
        let mut piece = Vec::new();
        for file in order.iter().filter_map(|number| files.get(*number)) {
            if file.offset + file.size <= from {
                continue;
            }
            self.send(&root, file, from, &mut piece, send)?;
        }
        if !piece.is_empty() {
            send.blocking_send(Step::Piece(piece)).map_err(|_| gone())?;
        }
        Ok(())
    }

    /// Reads one file again, for those who wait.
    fn send(
        &self,
        root: &OwnedFd,
        file: &File,
        from: u64,
        piece: &mut Vec<u8>,
        send: &mpsc::Sender<Step>,
    ) -> Result<(), Step> {
        let changed = || Step::Changed(file.path.clone());
        let mut open = open_file(root, &file.path).map_err(|_| changed())?;
        let (mut hash, mut at, mut block) = (Context::new(&SHA256), 0u64, vec![0; BLOCK]);
        loop {
            let read = match open.read(&mut block) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(changed()),
            };
            if at + read as u64 > file.size {
                return Err(changed());
            }
            hash.update(&block[..read]);
            let skip = from.saturating_sub(file.offset + at).min(read as u64) as usize;
            at += read as u64;
            let mut bytes = &block[skip..read];
            while !bytes.is_empty() {
                let (some, rest) = bytes.split_at(bytes.len().min(CHUNK - piece.len()));
                piece.extend_from_slice(some);
                bytes = rest;
                if piece.len() == CHUNK {
                    let whole = std::mem::take(piece);
                    send.blocking_send(Step::Piece(whole)).map_err(|_| changed())?;
                }
            }
        }
        if at != file.size || Digest::from_ring(&hash.finish()) != file.sha256 {
            return Err(changed());
        }
        Ok(())
    }

    /// Finds what there is, and what it is worth.
    fn gather(&mut self, root: &OwnedFd) -> Result<Gathered, Step> {
        let mut paths = self.find(root)?;
        paths.sort_unstable();
        let mut files = Vec::with_capacity(paths.len());
        let mut bytes = 0;
        for path in paths {
            match self.look(root, &path, &mut bytes)? {
                Ok(file) => files.push(file),
                Err(why) => self.leave_out(&path, &why),
            }
        }
        let order = manifest::lay_out(&mut files);
        let pack = manifest::pack(order.iter().map(|number| (files[*number].sha256, files[*number].size)));
        let left_out = u32::try_from(self.left_out.len()).unwrap_or(u32::MAX).saturating_add(self.more);
        let said = std::mem::take(&mut self.left_out);
        let manifest = Manifest { files, pack, index: Vec::new(), last: -1, left_out: said };
        Ok(Gathered { manifest, left_out, order })
    }

    /// The paths of all files that are wanted.
    fn find(&mut self, root: &OwnedFd) -> Result<Vec<String>, Step> {
        let courses = self.wanted.globs.iter().map(Glob::start).collect();
        let mut open = vec![Place { path: String::new(), courses: Some(courses) }];
        let (mut found, mut weight) = (Vec::new(), weight_of(""));
        while let Some(place) = open.pop() {
            weight -= weight_of(&place.path);
            let mut dir = match open_dir(root, &place.path) {
                Ok(dir) => dir,
                Err(error) => {
                    self.leave_out(&place.path, &error.to_string());
                    continue;
                }
            };
            for entry in dir.iter() {
                if self.stop.load(Relaxed) {
                    return Err(Step::Failed("nobody waits for it".to_owned()));
                }
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        self.leave_out(&place.path, &error.to_string());
                        break;
                    }
                };
                let raw = entry.file_name().to_bytes();
                if raw == b"." || raw == b".." {
                    continue;
                }
                let Ok(name) = std::str::from_utf8(raw) else {
                    let name = String::from_utf8_lossy(raw);
                    if self.enter(&place, &name).is_none() {
                        let path =
                            if place.path.is_empty() { name.into_owned() } else { format!("{}/{name}", place.path) };
                        self.leave_out(&path, "its name is no UTF-8");
                    }
                    continue;
                };
                let path = if place.path.is_empty() { name.to_owned() } else { format!("{}/{name}", place.path) };
                let courses = self.enter(&place, name);
                let wanted = courses.is_none();
                if courses.as_ref().is_some_and(Vec::is_empty) {
                    continue;
                }
                if path.len() > MAX_PATH || !is_below(&path) {
                    self.leave_out(&path, "its path is too long");
                    continue;
                }
                let kind = entry.file_type().or_else(|| kind_of(root, &path));
                match kind {
                    Some(Type::Directory) => {
                        weight += weight_of(&path);
                        open.push(Place { path, courses });
                    }
                    Some(Type::File) if wanted => {
                        weight += weight_of(&path);
                        found.push(path);
                        if found.len() > MAX_FILES {
                            let why = format!("more than {MAX_FILES} files match; name fewer, or pack them into one");
                            return Err(Step::Failed(why));
                        }
                    }
                    Some(Type::Symlink) if wanted => self.leave_out(&path, "it is a link"),
                    Some(_) if wanted => self.leave_out(&path, "it is no file"),
                    None if wanted => self.leave_out(&path, "it is gone"),
                    _ => {}
                }
                if weight > MAX_MANIFEST {
                    return Err(Step::Failed("there are too many files for one list; name fewer".to_owned()));
                }
            }
        }
        Ok(found)
    }

    /// How far the patterns match one more name: none if it is wanted with all in it, empty if nothing below it can be.
    fn enter(&self, place: &Place, name: &str) -> Option<Vec<Course>> {
        let courses = place.courses.as_ref()?;
        // Those that are dead keep their place among the patterns.
        let next: Vec<Course> =
            self.wanted.globs.iter().zip(courses).map(|(glob, course)| glob.enter(course, name)).collect();
        let any = |test: fn(&Glob, &Course) -> bool| self.wanted.globs.iter().zip(&next).any(|(g, c)| test(g, c));
        if any(Glob::is_match) {
            return None;
        }
        Some(if any(|glob, course| !glob.is_dead(course)) { next } else { Vec::new() })
    }

    /// Reads a file. The inner error leaves it out.
    fn look(&self, root: &OwnedFd, path: &str, bytes: &mut u64) -> Result<Result<File, String>, Step> {
        let limit = self.wanted.limit;
        let too_much = |size: u64| {
            Step::Failed(format!(
                "{path} ({size} bytes) does not fit: all together may have {limit} bytes, by the agent's --artifact-limit; nothing was \
                 stored"
            ))
        };
        let opened = open_file(root, path).and_then(|file| Ok((file.metadata()?, file)));
        let (found, mut file) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err("it is gone".to_owned())),
            Err(error) => return Ok(Err(error.to_string())),
        };
        if bytes.saturating_add(found.len()) > limit {
            return Err(too_much(found.len()));
        }
        let (mut hash, mut size, mut block) = (Context::new(&SHA256), 0u64, vec![0; BLOCK]);
        loop {
            if self.stop.load(Relaxed) {
                return Err(Step::Failed("nobody waits for it".to_owned()));
            }
            match file.read(&mut block) {
                Ok(0) => break,
                Ok(read) => {
                    hash.update(&block[..read]);
                    size += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Err(error.to_string())),
            }
            if bytes.saturating_add(size) > limit {
                return Err(too_much(size));
            }
        }
        *bytes += size;
        Ok(Ok(File {
            path: path.to_owned(),
            size,
            sha256: Digest::from_ring(&hash.finish()),
            offset: 0,
            mode: found.mode() & PERMISSIONS,
            modified_ns: found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec()),
        }))
    }

    fn leave_out(&mut self, path: &str, why: &str) {
        let path = if path.is_empty() { "." } else { path };
        if self.left_out.len() < MAX_LEFT_OUT {
            let path: String = path.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(400).collect();
            self.left_out.push(format!("{path}: {why}"));
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}

/// What a path takes of the room for all of them.
fn weight_of(path: &str) -> u64 {
    path.len() as u64 + EACH
}

fn how(flags: OFlag) -> OpenHow {
    let below = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(below)
}

fn open_dir(root: &OwnedFd, path: &str) -> Result<Dir, nix::Error> {
    let path = if path.is_empty() { "." } else { path };
    Dir::from_fd(openat2(root, path, how(OFlag::O_RDONLY | OFlag::O_DIRECTORY))?)
}

/// Opens a file, and nothing else: opening a pipe might wait for ever.
fn open_file(root: &OwnedFd, path: &str) -> io::Result<OpenFile> {
    let file: OpenFile = openat2(root, path, how(OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK))?.into();
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file")),
    }
}

/// What is there, on file systems whose directories do not say.
fn kind_of(root: &OwnedFd, path: &str) -> Option<Type> {
    let file: OpenFile = openat2(root, path, how(OFlag::O_PATH | OFlag::O_NOFOLLOW)).ok()?.into();
    let found = file.metadata().ok()?.file_type();
    Some(match found {
        found if found.is_dir() => Type::Directory,
        found if found.is_file() => Type::File,
        found if found.is_symlink() => Type::Symlink,
        _ => Type::Fifo,
    })
}

/// Gives this thread the rights of another user on files: root's own over them are gone with that.
fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setfsgid(gid);
    setfsuid(uid);
    // Each says who one was before, whether it was changed or not.
    if setfsgid(gid) != gid || setfsuid(uid) != uid {
        return Err(io::Error::other(format!("its files cannot be read as user id {uid}")));
    }
    Ok(())
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
