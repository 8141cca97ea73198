//! A file that comes: into a hidden file beside its place, and there when it is whole.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{
    Fault, Served,
    place::Roots,
    wire::{Frame, Wire},
};
use crate::service::files::{Marks, Reason, Reply, summed};

/// Takes the content of `path`.
pub fn serve(roots: &Roots, wire: &mut Wire, path: &[u8], marks: Marks, source: [u8; 16]) -> Served {
    let place = roots.find(path)?;
    let fault = |e: io::Error| Fault::of(path, &e);
    if place.path.is_dir() {
        return Err(Fault(Reason::Other, format!("{}: is a directory", String::from_utf8_lossy(path))));
    }
    let partial = place.partial(source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&partial)
        .map_err(fault)?;
    match file.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => {
            let text = format!("{}: somebody else copies the same there now", String::from_utf8_lossy(path));
            return Err(Fault(Reason::Other, text));
        }
        Err(TryLockError::Error(e)) => return Err(fault(e)),
    }
    let (mut hash, have) = summed(&mut file).map_err(fault)?;
    if let Err(gone) = wire.reply(&Reply::Have(have)) {
        return Ok(Err(gone));
    }
    let sum = loop {
        match wire.next() {
            Ok(Some(Frame::Data(bytes))) => {
                hash.update(&bytes);
                if let Err(e) = file.write_all(&bytes) {
                    // A part is good for going on, but not where the disk is full.
                    let _ = fs::remove_file(&partial);
                    return Err(fault(e));
                }
            }
            Ok(Some(Frame::End(sum))) => break sum,
            Ok(Some(Frame::Request(_))) => {
                return Ok(Err(io::Error::new(io::ErrorKind::InvalidData, "a content that does not end")));
            }
            // What is there stays: the client may come again.
            Ok(None) => return Ok(Err(io::ErrorKind::UnexpectedEof.into())),
            Err(gone) => return Ok(Err(gone)),
        }
    };
    if hash.finish().as_ref() != sum {
        let _ = fs::remove_file(&partial);
        let text =
            format!("{}: what came is not what was sent (SHA-256); copy it again", String::from_utf8_lossy(path));
        return Err(Fault(Reason::Corrupt, text));
    }
    settle(&file, &partial, &place.path, marks).map_err(fault)?;
    Ok(wire.reply(&Reply::Done))
}

/// Puts a whole file in its place.
fn settle(file: &File, partial: &Path, path: &Path, marks: Marks) -> io::Result<()> {
    marks.put(partial)?;
    file.sync_all()?;
    fs::rename(partial, path)?;
    if let Some(dir) = path.parent() {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}
