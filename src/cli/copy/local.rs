//! Our side's files, read and written by threads of their own: a slow disk holds up nothing else.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
};

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use tokio::sync::{mpsc, oneshot};

use crate::service::files::{MAX_PAYLOAD, Marks, partial, summed};

/// Pieces that wait.
const WAITING: usize = 4;

/// A content that is read.
pub struct Reading {
    /// What was read behind the bytes that were asked to be left out; an error ends it.
    pub pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// The SHA-256 of all of it, those that were left out too. Comes after the last piece.
    pub sum: oneshot::Receiver<Vec<u8>>,
}

/// Reads `from` to its end and leaves out the first `have` bytes.
pub fn read(mut from: impl Read + Send + 'static, have: u64) -> io::Result<Reading> {
    let (send, pieces) = mpsc::channel(WAITING);
    let (tell, sum) = oneshot::channel();
    thread::Builder::new().name("reader".to_owned()).spawn(move || {
        let (mut hash, mut at, mut buffer) = (Context::new(&SHA256), 0u64, vec![0; MAX_PAYLOAD]);
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break drop(tell.send(hash.finish().as_ref().to_vec())),
                Ok(read) => {
                    hash.update(&buffer[..read]);
                    let skip = have.saturating_sub(at).min(read as u64) as usize;
                    at += read as u64;
                    if skip < read && send.blocking_send(Ok(Bytes::copy_from_slice(&buffer[skip..read]))).is_err() {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) => break drop(send.blocking_send(Err(e))),
            }
        }
    })?;
    Ok(Reading { pieces, sum })
}

/// A content that is written.
pub struct Writing {
    pieces: mpsc::Sender<Bytes>,
    ended: oneshot::Receiver<io::Result<Vec<u8>>>,
    /// How many bytes were there already.
    pub have: u64,
    place: Option<(PathBuf, PathBuf)>,
}

impl Writing {
    /// Writes to our stdout.
    pub fn stdout() -> io::Result<Self> {
        Self::start(io::stdout(), Context::new(&SHA256), 0, None)
    }

    /// Writes what will be at `path` when it is whole; goes on where the same source was cut off.
    pub fn file(path: &Path, source: [u8; 16]) -> io::Result<Self> {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let name = path.file_name().unwrap_or_default().as_bytes();
        let beside = path.with_file_name(std::ffi::OsString::from_vec(partial(name, source)));
        // An agent may have sent a link of this name before: it must not lead what is written elsewhere.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&beside)?;
        file.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => io::Error::other("another copy of the same is under way"),
            TryLockError::Error(e) => e,
        })?;
        let (hash, have) = summed(&mut file)?;
        Self::start(file, hash, have, Some((beside, path.to_owned())))
    }

    fn start(
        mut to: impl Write + Send + 'static,
        mut hash: Context,
        have: u64,
        place: Option<(PathBuf, PathBuf)>,
    ) -> io::Result<Self> {
        let (pieces, mut queue) = mpsc::channel::<Bytes>(WAITING);
        let (tell, ended) = oneshot::channel();
        thread::Builder::new().name("writer".to_owned()).spawn(move || {
            let mut write = || {
                while let Some(piece) = queue.blocking_recv() {
                    hash.update(&piece);
                    to.write_all(&piece)?;
                }
                to.flush()?;
                Ok(hash.clone().finish().as_ref().to_vec())
            };
            let _ = tell.send(write());
        })?;
        Ok(Self { pieces, ended, have, place })
    }

    /// Hands a piece over. False if it cannot be written: [`Writing::finish`] tells why.
    pub async fn write(&mut self, piece: Bytes) -> bool {
        self.pieces.send(piece).await.is_ok()
    }

    /// Puts it in its place if its SHA-256 is `sum`. False if it is another: what was written is gone then.
    pub async fn finish(self, sum: &[u8], marks: Option<Marks>) -> io::Result<bool> {
        drop(self.pieces);
        let written = self.ended.await.map_err(|_| io::Error::other("the writer is gone"))?;
        let same = match written {
            Ok(written) => sum.is_empty() || written == sum,
            Err(e) => {
                if let Some((beside, _)) = &self.place {
                    let _ = fs::remove_file(beside);
                }
                return Err(e);
            }
        };
        if let Some((beside, path)) = &self.place {
            if !same {
                fs::remove_file(beside)?;
                return Ok(false);
            }
            if let Some(marks) = marks {
                marks.put(beside)?;
            }
            File::open(beside)?.sync_all()?;
            fs::rename(beside, path)?;
        }
        Ok(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_where_a_part_would_lie_leads_nothing_elsewhere() {
        use std::os::unix::{ffi::OsStringExt, fs::symlink};
        let dir = tempfile::tempdir().expect("dir");
        let name = std::ffi::OsString::from_vec(partial(b"x", [7; 16]));
        symlink(dir.path().join("elsewhere"), dir.path().join(name)).expect("a link");
        assert!(Writing::file(&dir.path().join("x"), [7; 16]).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }
}
