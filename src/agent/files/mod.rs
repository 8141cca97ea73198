//! The program that serves files: started by the agent as any other, for `rk cp` and `rk fs`.
//!
//! It is as small as a shim: one thread, no runtime. Its owner's rights are its rights; with roots it also stays below them,
//! whatever links and dots say. `service::files` has the protocol.

mod place;
mod upload;
mod wire;

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::{fd::AsFd, unix::ffi::OsStringExt},
    path::PathBuf,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ring::digest::{Context, SHA256};

use crate::service::files::{Entry, Kind, MAX_PAYLOAD, Reason, Reply, Request};
use place::Roots;
use wire::{Frame, Wire};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "file-server";

/// How often a file that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Why something was not done.
#[derive(Debug)]
pub(crate) struct Fault(pub Reason, pub String);

impl Fault {
    /// What the system said of `path`.
    pub fn of(path: &[u8], error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => Reason::NotFound,
            io::ErrorKind::PermissionDenied => Reason::Denied,
            _ => Reason::Other,
        };
        Self(reason, format!("{}: {error}", String::from_utf8_lossy(path)))
    }
}

/// Runs the program: `arguments` are the roots. Ends with its stdin.
pub fn run(arguments: &[OsString]) -> u8 {
    let roots = match Roots::open(arguments.iter().map(PathBuf::from)) {
        Ok(roots) => roots,
        Err(error) => {
            eprintln!("rk: {error}");
            return 69;
        }
    };
    let mut wire = Wire::stdio();
    loop {
        let served = match wire.next() {
            Ok(Some(Frame::Request(request))) => serve(&roots, &mut wire, request),
            // What is left of a content that was refused.
            Ok(Some(Frame::Data(_) | Frame::End(_))) => Ok(()),
            Ok(None) => return 0,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            eprintln!("rk: the client went away: {error}");
            return 69;
        }
    }
}

/// Serves one request. An error means that the client is gone.
fn serve(roots: &Roots, wire: &mut Wire, request: Request) -> io::Result<()> {
    let done = match request {
        Request::Stat(path) => stat(roots, wire, &path),
        Request::List(path) => list(roots, wire, &path),
        Request::Read { path, from } => read(roots, wire, &path, from),
        Request::Tail { path, lines, follow } => tail(roots, wire, &path, lines, follow),
        Request::Write { path, marks, source } => upload::serve(roots, wire, &path, marks, source),
        Request::MakeDir { path, mode } => place::make_dir(roots, &path, mode).map(|()| wire.reply(&Reply::Done)),
        Request::Link { path, target } => place::link(roots, &path, &target).map(|()| wire.reply(&Reply::Done)),
        Request::Mark { path, marks } => {
            let marked = roots.find(&path).and_then(|place| marks.put(&place.path).map_err(|e| Fault::of(&path, &e)));
            marked.map(|()| wire.reply(&Reply::Done))
        }
    };
    match done {
        Ok(sent) => sent,
        Err(Fault(reason, text)) => wire.reply(&Reply::Failed(reason, text)),
    }
}

/// What was not done is for the client to know; that the client is gone ends the program.
type Served = Result<io::Result<()>, Fault>;

fn stat(roots: &Roots, wire: &mut Wire, path: &[u8]) -> Served {
    let place = roots.find(path)?;
    let entry = fs::metadata(&place.path)
        .and_then(|found| Entry::of(place.name(), &place.path, &found))
        .map_err(|e| Fault::of(path, &e))?;
    Ok(wire.reply(&Reply::Entry(entry)))
}

fn list(roots: &Roots, wire: &mut Wire, path: &[u8]) -> Served {
    let place = roots.find(path)?;
    let mut names = fs::read_dir(&place.path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
        .map_err(|e| Fault::of(path, &e))?;
    names.sort_unstable();
    for name in names {
        let full = place.path.join(&name);
        // What went away meanwhile is not there.
        let Ok(found) = fs::symlink_metadata(&full) else { continue };
        let Ok(entry) = Entry::of(name.into_vec(), &full, &found) else { continue };
        if let Err(gone) = wire.reply(&Reply::Entry(entry)) {
            return Ok(Err(gone));
        }
    }
    Ok(wire.reply(&Reply::Done))
}

/// Opens a file to read, and says what it is.
fn open(roots: &Roots, path: &[u8]) -> Result<(File, Entry), Fault> {
    let place = roots.find(path)?;
    let fault = |e: io::Error| Fault::of(path, &e);
    let found = fs::metadata(&place.path).map_err(fault)?;
    let entry = Entry::of(place.name(), &place.path, &found).map_err(fault)?;
    match entry.kind {
        Kind::File => Ok((File::open(&place.path).map_err(fault)?, entry)),
        Kind::Directory => Err(Fault(Reason::Other, format!("{}: is a directory", String::from_utf8_lossy(path)))),
        // Opening a pipe might wait for ever.
        Kind::Link(_) | Kind::Other => {
            Err(Fault(Reason::Other, format!("{}: is not a file", String::from_utf8_lossy(path))))
        }
    }
}

fn read(roots: &Roots, wire: &mut Wire, path: &[u8], from: u64) -> Served {
    let (mut file, entry) = open(roots, path)?;
    if let Err(gone) = wire.reply(&Reply::Entry(entry)) {
        return Ok(Err(gone));
    }
    let (mut hash, mut at, mut buffer) = (Context::new(&SHA256), 0u64, vec![0; MAX_PAYLOAD]);
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(wire.end(hash.finish().as_ref())),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Fault::of(path, &e)),
        };
        hash.update(&buffer[..read]);
        // What the client has counts for the sum and is not sent.
        let skip = from.saturating_sub(at).min(read as u64) as usize;
        at += read as u64;
        if let Err(gone) = wire.data(&buffer[skip..read]) {
            return Ok(Err(gone));
        }
    }
}

fn tail(roots: &Roots, wire: &mut Wire, path: &[u8], lines: u64, follow: bool) -> Served {
    let (mut file, entry) = open(roots, path)?;
    let fault = |e: io::Error| Fault::of(path, &e);
    let mut at = last_lines(&mut file, entry.size, lines).map_err(fault)?;
    if let Err(gone) = wire.reply(&Reply::Entry(entry)) {
        return Ok(Err(gone));
    }
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        file.seek(SeekFrom::Start(at)).map_err(fault)?;
        loop {
            let read = file.read(&mut buffer).map_err(fault)?;
            if read == 0 {
                break;
            }
            at += read as u64;
            if let Err(gone) = wire.data(&buffer[..read]) {
                return Ok(Err(gone));
            }
        }
        if !follow {
            // A part has no sum of the whole.
            return Ok(wire.end(&[]));
        }
        if client_said_something() {
            return Ok(Ok(()));
        }
        // A file that was cut begins anew, one that was replaced too.
        let (newest, found) = open(roots, path)?;
        if found.size < at || !same(&file, &newest).map_err(fault)? {
            (file, at) = (newest, 0);
        }
    }
}

fn same(one: &File, other: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Waits a moment for the client's next word, or its end.
fn client_said_something() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
    poll(&mut fds, patience).is_ok_and(|ready| ready > 0)
}

/// Where the last `lines` lines begin in a file of `size` bytes.
fn last_lines(file: &mut (impl Read + Seek), size: u64, lines: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let (mut end, mut left, mut block) = (size, lines, Vec::new());
    if lines == 0 {
        return Ok(size);
    }
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        BufReader::new(&mut *file).take(end - start).read_to_end(&mut block)?;
        for (i, byte) in block.iter().enumerate().rev() {
            let at = start + i as u64;
            // The newline that ends the last line begins none.
            if *byte == b'\n' && at + 1 < size {
                left -= 1;
                if left == 0 {
                    return Ok(at + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn the_last_lines_are_found_wherever_blocks_end() {
        let of =
            |text: &str, lines| last_lines(&mut Cursor::new(text), text.len() as u64, lines).expect("found") as usize;
        for (text, lines, expected) in [
            ("", 3, ""),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\nc\n", 0, ""),
            ("a\nb\nc\n", 9, "a\nb\nc\n"),
            ("\n\n\n", 1, "\n"),
        ] {
            assert_eq!(&text[of(text, lines)..], expected, "{text:?} {lines}");
        }
        let long = format!("{}\n", "x".repeat(70_000)).repeat(5);
        assert_eq!(of(&long, 3), 2 * 70_001);
    }
}
