//! Where a path leads, and whether it may.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::{DirBuilderExt, symlink},
        },
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};

use super::Fault;
use crate::service::files::{PERMISSIONS, RawPath, Reason, partial};

/// The directories below which everything stays; all are allowed if there are none.
pub struct Roots(Vec<(PathBuf, OwnedFd)>);

/// A path that may be used.
pub struct Place {
    /// What to open. Its last part is not a link if there are roots.
    pub path: PathBuf,
    name: RawPath,
    /// Held while `path` leads through it.
    _dir: Option<OwnedFd>,
}

impl Roots {
    /// Opens them.
    pub fn open(roots: impl Iterator<Item = PathBuf>) -> io::Result<Self> {
        let open = |root: PathBuf| {
            let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", root.display()));
            let dir = fs::File::open(&root).map_err(named)?;
            Ok((std::path::absolute(&root)?, dir.into()))
        };
        roots.map(open).collect::<io::Result<_>>().map(Self)
    }

    /// Where `path` leads. Below a root every step is looked at by the kernel: no link and no dots lead out of it.
    pub fn find(&self, path: &[u8]) -> Result<Place, Fault> {
        let text = Path::new(OsStr::from_bytes(path));
        let name = text.file_name().unwrap_or(OsStr::new(".")).as_bytes().to_vec();
        if path.is_empty() || path.contains(&0) {
            return Err(Fault(Reason::Other, "a path is empty or has a zero byte".to_owned()));
        }
        if self.0.is_empty() {
            return Ok(Place { path: text.to_owned(), name, _dir: None });
        }
        let wanted = std::path::absolute(text).map_err(|e| Fault::of(path, &e))?;
        let below = |(root, dir): &'_ (PathBuf, OwnedFd)| {
            Some((wanted.strip_prefix(root).ok()?.to_owned(), dir.try_clone().ok()?))
        };
        let Some((rest, dir)) = self.0.iter().find_map(below) else {
            let roots: Vec<_> = self.0.iter().map(|(root, _)| root.display().to_string()).collect();
            let text = format!("{}: this agent gives files only below {}", wanted.display(), roots.join(", "));
            return Err(Fault(Reason::Denied, text));
        };
        if rest.components().any(|part| part == Component::ParentDir) {
            return Err(Fault(Reason::Denied, format!("{}: leads out of what this agent gives", wanted.display())));
        }
        let (Some(parent), Some(last)) = (rest.parent(), rest.file_name()) else {
            let path = PathBuf::from(format!("/proc/self/fd/{}/.", dir.as_raw_fd()));
            return Ok(Place { path, name, _dir: Some(dir) });
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let how = || OpenHow::new().mode(Mode::empty()).resolve(ResolveFlag::RESOLVE_BENEATH);
        let fault = |e: nix::Error| match e {
            nix::Error::EXDEV => {
                Fault(Reason::Denied, format!("{}: leads out of what this agent gives", wanted.display()))
            }
            e => Fault::of(path, &e.into()),
        };
        let parent =
            openat2(&dir, parent, how().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)).map_err(fault)?;
        let direct = Path::new(&format!("/proc/self/fd/{}", parent.as_raw_fd())).join(last);
        // Whether the last part is a link: then it is followed by the kernel too, and its end is what is used.
        match openat2(&dir, &rest, how().flags(OFlag::O_PATH | OFlag::O_CLOEXEC)) {
            Ok(end) if direct.is_symlink() => {
                let path = PathBuf::from(format!("/proc/self/fd/{}", end.as_raw_fd()));
                Ok(Place { path, name, _dir: Some(end) })
            }
            Ok(_) | Err(nix::Error::ENOENT) => Ok(Place { path: direct, name, _dir: Some(parent) }),
            Err(e) => Err(fault(e)),
        }
    }
}

impl Place {
    /// The last part of the path.
    pub fn name(&self) -> RawPath {
        self.name.clone()
    }

    /// The same directory's file for what is on its way here.
    pub fn partial(&self, source: [u8; 16]) -> PathBuf {
        let name = std::ffi::OsString::from_vec(partial(&self.name, source));
        self.path.with_file_name(name)
    }
}

/// Makes a directory; one that is there is fine.
pub fn make_dir(roots: &Roots, path: &[u8], mode: u32) -> Result<(), Fault> {
    let place = roots.find(path)?;
    // Whoever fills it has to be able to.
    match fs::DirBuilder::new().mode((mode & PERMISSIONS) | 0o700).create(&place.path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && place.path.is_dir() => Ok(()),
        made => made.map_err(|e| Fault::of(path, &e)),
    }
}

/// Makes a link; one that is there is replaced.
pub fn link(roots: &Roots, path: &[u8], target: &[u8]) -> Result<(), Fault> {
    if !roots.0.is_empty() {
        let text = format!("{}: this agent takes no links", String::from_utf8_lossy(path));
        return Err(Fault(Reason::Denied, text));
    }
    let place = roots.find(path)?;
    if place.path.is_symlink() {
        fs::remove_file(&place.path).map_err(|e| Fault::of(path, &e))?;
    }
    symlink(OsStr::from_bytes(target), &place.path).map_err(|e| Fault::of(path, &e))
}
