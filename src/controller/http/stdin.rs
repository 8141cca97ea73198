//! What a client sends during an execution: stdin, put aside as far as there is credit, and signals, which pass it.

use std::{collections::VecDeque, io, sync::Mutex, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    sync::Notify,
    time::timeout,
};

use crate::{
    api::{
        exec::STDIN_WINDOW,
        frames::{FrameReader, FramesError, ToController},
    },
    controller::{Signals, Stdin},
    protocol::exec::{Channel, Size, Steer},
};

/// Credit is granted in pieces of this size at least.
const GRANT: u32 = STDIN_WINDOW / 16;

/// Frames of stdin below this size are gathered: each piece that is put aside costs more than its bytes.
const SMALL: usize = 8 << 10;

/// How long what was typed before a client detached may take to go out.
const FAREWELL: Duration = Duration::from_secs(2);

/// Bytes that the process took, and that the client may send again.
#[derive(Default)]
pub struct Credit {
    bytes: Mutex<u32>,
    enough: Notify,
}

impl Credit {
    fn add(&self, bytes: usize) {
        let mut sum = self.bytes.lock().expect("no holder panics");
        *sum = sum.saturating_add(bytes as u32);
        if *sum >= GRANT {
            self.enough.notify_one();
        }
    }

    /// Waits until there is enough to tell the client.
    pub async fn take(&self) -> u32 {
        loop {
            self.enough.notified().await;
            let bytes = std::mem::take(&mut *self.bytes.lock().expect("no holder panics"));
            if bytes > 0 {
                return bytes;
            }
        }
    }
}

/// What came from a client and was not handed on yet.
#[derive(Default)]
pub struct Early {
    aside: Aside,
    steers: VecDeque<Steer>,
}

impl Early {
    /// Takes frames until the client is gone or breaks the protocol. Cancel-safe.
    pub async fn read<R: AsyncRead + Unpin>(&mut self, reader: &mut FrameReader<R>) {
        while let Ok(Some(frame)) = reader.next_from_client().await {
            let steer = match frame {
                ToController::Signal(signal) => Steer::Signal(signal),
                ToController::Size(columns, rows) => Steer::Resize(Size { columns, rows }),
                frame => match self.aside.take(frame) {
                    true => continue,
                    false => return,
                },
            };
            if self.steers.len() == 64 {
                return;
            }
            self.steers.push_back(steer);
        }
    }
}

/// Stdin that the process did not take yet: at most the window.
#[derive(Default)]
struct Aside {
    pieces: VecDeque<Bytes>,
    /// Small frames, gathered.
    last: BytesMut,
    bytes: usize,
    ended: bool,
}

impl Aside {
    /// Puts a frame of stdin aside. False if the client broke the protocol.
    fn take(&mut self, frame: ToController) -> bool {
        match frame {
            ToController::StdinEnd if !self.ended => self.ended = true,
            ToController::Stdin(bytes) if !self.ended && self.bytes + bytes.len() <= STDIN_WINDOW as usize => {
                self.bytes += bytes.len();
                if bytes.len() < SMALL {
                    self.last.put(bytes);
                } else {
                    self.gather();
                    self.pieces.push_back(bytes);
                }
            }
            _ => return false,
        }
        true
    }

    /// The bytes that come first; empty if there are none.
    fn first(&mut self) -> &[u8] {
        if self.pieces.is_empty() {
            self.gather();
        }
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, count: usize) {
        let Some(piece) = self.pieces.front_mut() else { return };
        piece.advance(count);
        self.bytes -= count;
        if piece.is_empty() {
            self.pieces.pop_front();
        }
    }

    /// Hands everything on, and the end.
    async fn empty_into(&mut self, stdin: &mut Stdin) -> io::Result<()> {
        while self.bytes > 0 {
            let count = stdin.write(self.first()).await?;
            self.advance(count);
        }
        stdin.shutdown().await
    }

    /// Forgets everything; returns how much it was.
    fn clear(&mut self) -> usize {
        self.pieces.clear();
        self.last.clear();
        std::mem::take(&mut self.bytes)
    }

    fn gather(&mut self) {
        if !self.last.is_empty() {
            self.pieces.push_back(self.last.split().freeze());
        }
    }
}

/// Hands on what the client sends, until it is gone or breaks the protocol.
pub async fn input<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    early: Early,
    mut stdin: Option<Stdin>,
    signals: &Signals,
    credit: &Credit,
    resumable: bool,
) {
    let Early { mut aside, steers: waiting } = early;
    let mut confirmed = (0, 0);
    for steer in waiting {
        signals.steer(steer).await;
    }
    loop {
        // A process that closed its stdin is no error: what still comes is dropped.
        if stdin.is_none() {
            credit.add(aside.clear());
        }
        let writing = async {
            match &mut stdin {
                Some(stdin) if aside.bytes > 0 => stdin.write(aside.first()).await.map(Some),
                Some(stdin) if aside.ended => stdin.shutdown().await.map(|()| None),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            written = writing => match written {
                Ok(Some(count)) if count > 0 => {
                    aside.advance(count);
                    credit.add(count);
                }
                _ => stdin = None,
            },
            frame = reader.next_from_client() => match frame {
                Ok(Some(ToController::Signal(signal))) => signals.send(signal).await,
                Ok(Some(ToController::Confirm(stdout, stderr))) if resumable => {
                    // Each message is a record in Kafka.
                    for (channel, up_to) in [(Channel::InOut, stdout), (Channel::Err, stderr)] {
                        let last = if channel == Channel::InOut { &mut confirmed.0 } else { &mut confirmed.1 };
                        if std::mem::replace(last, up_to) != up_to {
                            signals.steer(Steer::Acked { channel, up_to }).await;
                        }
                    }
                }
                Ok(Some(ToController::Size(columns, rows))) => {
                    signals.steer(Steer::Resize(Size { columns, rows })).await;
                }
                Ok(Some(ToController::Detach)) if resumable => {
                    signals.steer(Steer::Detached).await;
                    if let Some(mut stdin) = stdin {
                        let typed = async {
                            let _ = aside.empty_into(&mut stdin).await;
                            // Its drop resets the stream, and what has not arrived yet would be lost.
                            signals.closed().await;
                        };
                        let _ = timeout(FAREWELL, typed).await;
                    }
                    return;
                }
                Ok(Some(ToController::Leave)) if resumable => return signals.steer(Steer::HangUp).await,
                Ok(Some(frame)) => if !aside.take(frame) {
                    tracing::debug!("a client broke the exec protocol");
                    return;
                },
                left => return gone(left.err(), signals, resumable).await,
            },
        }
    }
}

/// A client's connection ended. Of a resumable execution the agent is told whether the client can know that: if its side was closed
/// it comes back at once, or is dead; if the way is cut, who knows.
pub async fn gone(error: Option<FramesError>, signals: &Signals, resumable: bool) {
    if let Some(error) = &error {
        tracing::debug!(%error, "a client is gone");
    }
    let closed = match error {
        None => true,
        Some(FramesError::Io(error)) => matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ),
        Some(FramesError::Malformed(_)) => true,
    };
    if resumable && closed {
        signals.steer(Steer::Disconnected).await;
    }
}
