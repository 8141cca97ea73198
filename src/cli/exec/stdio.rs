//! Our own stdio, moved by threads in large pieces.
//!
//! Reading stdin cannot be cancelled and writing stdout blocks while its reader is slow: neither may sit on the
//! runtime. Each stream is one thread and a short channel, so what waits for a slow reader is bounded, and the wait
//! itself reaches the agent's process.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// How much is read at once: what a frame carries.
const PIECE: usize = 256 << 10;
/// Pieces that wait for a slow reader or a slow process.
const WAITING: usize = 4;
/// What we ask for as the size of a pipe: fewer turns for the same bytes.
const PIPE: i32 = 1 << 20;

/// Starts reading stdin: pieces as they come, and the end of the channel at its end.
pub fn stdin() -> io::Result<mpsc::Receiver<Bytes>> {
    let mut file = duplicate(io::stdin().as_fd())?;
    let (send, receive) = mpsc::channel(WAITING);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) if send.blocking_send(Bytes::copy_from_slice(&buffer[..n])).is_err() => break,
                Ok(_) => (),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                // Somebody who shares the descriptor made it non-blocking.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(Duration::from_millis(5)),
                // A terminal that is gone, or a directory: there is no more input.
                Err(_) => break,
            }
        }
    })?;
    Ok(receive)
}

/// A thread that writes to one of our streams.
pub struct Writer {
    pieces: mpsc::Sender<Bytes>,
    failed: oneshot::Receiver<io::Error>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Writes to stdout.
    pub fn stdout() -> io::Result<Self> {
        Self::start("stdout", duplicate(io::stdout().as_fd())?)
    }

    /// Writes to stderr.
    pub fn stderr() -> io::Result<Self> {
        Self::start("stderr", duplicate(io::stderr().as_fd())?)
    }

    fn start(name: &str, mut file: File) -> io::Result<Self> {
        let (pieces, mut queue) = mpsc::channel::<Bytes>(WAITING);
        let (tell, failed) = oneshot::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(piece) = queue.blocking_recv() {
                if let Err(e) = write_all(&mut file, &piece) {
                    let _ = tell.send(e);
                    return;
                }
            }
        })?;
        Ok(Self { pieces, failed, thread })
    }

    /// Hands `piece` over, and waits while the reader is slow. The error is the stream's.
    pub async fn write(&mut self, piece: Bytes) -> io::Result<()> {
        if self.pieces.send(piece).await.is_ok() {
            return Ok(());
        }
        Err((&mut self.failed).await.unwrap_or_else(|_| io::ErrorKind::BrokenPipe.into()))
    }

    /// Waits until everything is written.
    pub async fn finish(self) -> io::Result<()> {
        drop(self.pieces);
        // The thread's end drops its side: there was no error then.
        let result = self.failed.await.map_or(Ok(()), Err);
        let _ = self.thread.join();
        result
    }
}

fn write_all(file: &mut File, mut piece: &[u8]) -> io::Result<()> {
    while !piece.is_empty() {
        match file.write(piece) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => piece = &piece[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(Duration::from_millis(1)),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The stream itself, past std's buffers, with a larger pipe if it is one.
fn duplicate(stream: BorrowedFd<'_>) -> io::Result<File> {
    let file = File::from(stream.try_clone_to_owned()?);
    // Refused for what is no pipe, and above a user's limit: then it stays as it is.
    let _ = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE));
    Ok(file)
}
