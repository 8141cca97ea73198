//! Files of an agent: what `rk cp` and `rk fs` say to the program that serves them there, over its stdin and stdout.
//!
//! The agent starts that program as any other, as whom executions run, when the command is [`PROGRAM`]. Both sides send
//! [tagged](crate::tagged) frames of at most [`MAX_PAYLOAD`] bytes: [`REQUEST`]s towards the agent, [`REPLY`]s back, and a file's content in
//! either direction as [`DATA`] and, last, [`END`], which holds the SHA-256 of the whole file. Requests are answered in order.
//!
//! | request | answer |
//! |---|---|
//! | [`Request::Stat`] | `Entry` |
//! | [`Request::List`] | `Entry` for each, `Done` |
//! | [`Request::Read`] | `Entry`, the content from that byte on, its end |
//! | [`Request::Tail`] | `Entry`, content; an end unless it is followed |
//! | [`Request::Write`] | `Have`; then the client sends the content from that byte on and its end; `Done` |
//! | [`Request::MakeDir`], [`Request::Link`], [`Request::Mark`] | `Done` |
//!
//! `Failed` may come in place of each of them, and says why. A content that was begun is then not ended.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

/// The command that stands for the program that serves files. No program has a name like this.
pub const PROGRAM: &str = "rk:files";

/// The largest payload of a frame: 256 KiB.
pub const MAX_PAYLOAD: usize = 256 << 10;

/// Frame kind: a [`Request`] in postcard.
pub const REQUEST: u8 = 1;
/// Frame kind: a [`Reply`] in postcard.
pub const REPLY: u8 = 2;
/// Frame kind: bytes of a content.
pub const DATA: u8 = 3;
/// Frame kind: the end of a content, and the SHA-256 of all of it.
pub const END: u8 = 4;

/// A path as the agent's system has it: any bytes. Relative ones begin where its executions run.
pub type RawPath = Vec<u8>;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// What is there; links are followed.
    Stat(RawPath),
    /// What is in a directory, in the order of names; links are not followed.
    List(RawPath),
    /// A file's content.
    Read {
        /// Which file.
        path: RawPath,
        /// The bytes that the client has.
        from: u64,
    },
    /// The last lines of a file.
    Tail {
        /// Which file.
        path: RawPath,
        /// How many lines.
        lines: u64,
        /// Whether what is added is sent too, until the client goes away.
        follow: bool,
    },
    /// A new content for a file, which appears when it is whole.
    Write {
        /// Which file.
        path: RawPath,
        /// How it shall be.
        marks: Marks,
        /// What the client copies: who comes again with the same goes on where it was cut off.
        source: [u8; 16],
    },
    /// A directory; one that is there stays.
    MakeDir {
        /// Which.
        path: RawPath,
        /// Its permissions while it is filled: [`Request::Mark`] gives it its own.
        mode: u32,
    },
    /// A symbolic link; one that is there is replaced.
    Link {
        /// Where.
        path: RawPath,
        /// Whereto.
        target: RawPath,
    },
    /// Permissions and time of what is there.
    Mark {
        /// Of what.
        path: RawPath,
        /// How it shall be.
        marks: Marks,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// What is there.
    Entry(Entry),
    /// So many bytes of the content are there already.
    Have(u64),
    /// It was done, or there are no more.
    Done,
    /// It could not be done.
    Failed(Reason, String),
}

/// Why something could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// There is no such file or directory.
    NotFound,
    /// The system or the agent's policy does not allow it.
    Denied,
    /// A content is not what its SHA-256 says.
    Corrupt,
    /// Anything else.
    Other,
}

/// One file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name, without the directory.
    pub name: RawPath,
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub size: u64,
    /// How it is.
    pub marks: Marks,
}

/// What something in a directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Link(RawPath),
    /// A device, a pipe, a socket.
    Other,
}

/// What of a file is copied beside its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Its permissions: the lowest nine bits. Others (setuid) are not copied.
    pub mode: u32,
    /// When it was changed last, in nanoseconds since 1970; none: now.
    pub modified_ns: Option<i64>,
}

/// The permissions that are copied.
pub const PERMISSIONS: u32 = 0o777;

impl Entry {
    /// What the system says of `path`, whose name is `name`. Links are read from the path.
    pub fn of(name: RawPath, path: &std::path::Path, found: &std::fs::Metadata) -> std::io::Result<Self> {
        use std::os::unix::{ffi::OsStringExt, fs::MetadataExt};
        let kind = match found.file_type() {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_symlink() => Kind::Link(std::fs::read_link(path)?.into_os_string().into_vec()),
            _ => Kind::Other,
        };
        let modified = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
        let marks = Marks { mode: found.mode() & PERMISSIONS, modified_ns: Some(modified) };
        Ok(Self { name, kind, size: found.len(), marks })
    }
}

impl Marks {
    /// Gives them to what is at `path`, links followed.
    pub fn put(self, path: &std::path::Path) -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        if let Some(modified) = self.modified() {
            std::fs::File::open(path)?.set_modified(modified)?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(self.mode & PERMISSIONS))
    }

    /// The time, if there is one.
    pub fn modified(self) -> Option<std::time::SystemTime> {
        use std::time::{Duration, UNIX_EPOCH};
        let ns = self.modified_ns?;
        let away = Duration::from_nanos(ns.unsigned_abs());
        if ns < 0 { UNIX_EPOCH.checked_sub(away) } else { UNIX_EPOCH.checked_add(away) }
    }
}

/// What a file on its way holds already: the sum so far, and how many bytes. It is then at its end.
pub fn summed(file: &mut File) -> io::Result<(Context, u64)> {
    let (mut hash, mut have, mut buffer) = (Context::new(&SHA256), 0, vec![0; MAX_PAYLOAD]);
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hash, have)),
            read => {
                hash.update(&buffer[..read]);
                have += read as u64;
            }
        }
    }
}

/// The name of a file whose content is on its way to `name`: hidden, beside it, the same for the same source.
pub fn partial(name: &[u8], source: [u8; 16]) -> RawPath {
    use std::fmt::Write;
    let mut hex = String::with_capacity(16);
    for byte in &source[..8] {
        let _ = write!(hex, "{byte:02x}");
    }
    // Names have 255 bytes.
    [b".", &name[..name.len().min(200)], b".rk-", hex.as_bytes()].concat()
}
