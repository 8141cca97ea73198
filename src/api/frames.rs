//! The frames of an upgraded connection: see [`exec`](super::exec) for their meaning.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::exec::{ExecAttached, ExecEnd, ExecRequest, ExecResume, MAX_PAYLOAD};
use crate::tagged::{TaggedError, TaggedReader, TaggedWriter};

const START: u8 = 1;
const STDIN: u8 = 2;
const STDIN_END: u8 = 3;
const SIGNAL: u8 = 4;
const RESUME: u8 = 5;
const LEAVE: u8 = 6;
const CONFIRM: u8 = 7;
const SIZE: u8 = 8;
const DETACH: u8 = 9;
const STARTED: u8 = 17;
const STDOUT: u8 = 18;
const STDERR: u8 = 19;
const STDOUT_END: u8 = 20;
const STDERR_END: u8 = 21;
const EXIT: u8 = 22;
const STDIN_CREDIT: u8 = 23;
const RESUMED: u8 = 24;
const TAKEN: u8 = 25;
const LOST: u8 = 26;
const ATTACHED: u8 = 27;

/// Client to controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToController {
    /// What to run.
    Start(ExecRequest),
    /// Bytes of stdin.
    Stdin(Bytes),
    /// There will be no more of them.
    StdinEnd,
    /// A signal for the process group.
    Signal(i32),
    /// What to come back to.
    Resume(ExecResume),
    /// The client goes, or has the end.
    Leave,
    /// The client has these bytes of stdout and stderr.
    Confirm(u64, u64),
    /// The client's terminal has so many columns and rows.
    Size(u16, u16),
    /// The client leaves its terminal and means to come back.
    Detach,
}

/// Controller to client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToClient {
    /// The process runs, with this id on the agent.
    Started(u32),
    /// Bytes of stdout.
    Stdout(Bytes),
    /// Bytes of stderr.
    Stderr(Bytes),
    /// There will be no more of stdout.
    StdoutEnd,
    /// There will be no more of stderr.
    StderrEnd,
    /// So many more bytes of stdin may be sent.
    StdinCredit(u32),
    /// How it ended: the last frame.
    Exit(ExecEnd),
    /// It was resumed; stdin goes on at this byte.
    Resumed(u64),
    /// These bytes of stdin will not be asked for again.
    Taken(u64),
    /// It cannot be reached now, and why: the last frame of this connection.
    Lost(String),
    /// A new client came to it.
    Attached(ExecAttached),
}

/// Why frames could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FramesError {
    /// The connection ended or broke, also inside a frame.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The peer sends what the protocol does not have: another version, or broken.
    #[error("the peer broke the rk-exec protocol: {0}")]
    Malformed(String),
}

impl From<TaggedError> for FramesError {
    fn from(error: TaggedError) -> Self {
        match error {
            TaggedError::Io(error) => Self::Io(error),
            TaggedError::TooLarge(length) => Self::Malformed(format!("a frame of {length} bytes")),
        }
    }
}

/// Reads frames.
pub struct FrameReader<R> {
    frames: TaggedReader<R>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `stream`.
    pub fn new(stream: R) -> Self {
        Self { frames: TaggedReader::new(stream, MAX_PAYLOAD) }
    }

    /// The next frame from a client; `None` if it closed the connection between two. Cancel-safe.
    pub async fn next_from_client(&mut self) -> Result<Option<ToController>, FramesError> {
        let Some((kind, payload)) = self.next().await? else { return Ok(None) };
        Ok(Some(match kind {
            START => ToController::Start(json(&payload)?),
            STDIN => ToController::Stdin(payload),
            STDIN_END => ToController::StdinEnd,
            SIGNAL => ToController::Signal(number(&payload)? as i32),
            RESUME => ToController::Resume(json(&payload)?),
            LEAVE => ToController::Leave,
            CONFIRM if payload.len() == 16 => ToController::Confirm(long(&payload[..8])?, long(&payload[8..])?),
            SIZE if payload.len() == 4 => {
                let size = number(&payload)?;
                ToController::Size(size as u16, (size >> 16) as u16)
            }
            DETACH => ToController::Detach,
            other => return Err(FramesError::Malformed(format!("frame kind {other}"))),
        }))
    }

    /// The next frame from the controller; `None` if it closed the connection between two. Cancel-safe.
    pub async fn next_from_controller(&mut self) -> Result<Option<ToClient>, FramesError> {
        let Some((kind, payload)) = self.next().await? else { return Ok(None) };
        Ok(Some(match kind {
            STARTED => ToClient::Started(number(&payload)?),
            STDOUT => ToClient::Stdout(payload),
            STDERR => ToClient::Stderr(payload),
            STDOUT_END => ToClient::StdoutEnd,
            STDERR_END => ToClient::StderrEnd,
            STDIN_CREDIT => ToClient::StdinCredit(number(&payload)?),
            EXIT => ToClient::Exit(json(&payload)?),
            RESUMED => ToClient::Resumed(long(&payload)?),
            TAKEN => ToClient::Taken(long(&payload)?),
            LOST => ToClient::Lost(String::from_utf8_lossy(&payload).into_owned()),
            ATTACHED => ToClient::Attached(json(&payload)?),
            other => return Err(FramesError::Malformed(format!("frame kind {other}"))),
        }))
    }

    async fn next(&mut self) -> Result<Option<(u8, Bytes)>, FramesError> {
        Ok(self.frames.next().await?)
    }
}

/// Writes frames.
pub struct FrameWriter<W> {
    frames: TaggedWriter<W>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes to `stream`.
    pub fn new(stream: W) -> Self {
        Self { frames: TaggedWriter::new(stream) }
    }

    /// Writes a client's frame. Not cancel-safe.
    pub async fn write_to_controller(&mut self, frame: &ToController) -> Result<(), FramesError> {
        match frame {
            ToController::Start(request) => self.json(START, request).await,
            ToController::Stdin(bytes) => self.bytes(STDIN, bytes).await,
            ToController::StdinEnd => self.frame(STDIN_END, &[]).await,
            ToController::Signal(signal) => self.frame(SIGNAL, &signal.to_le_bytes()).await,
            ToController::Resume(resume) => self.json(RESUME, resume).await,
            ToController::Leave => self.frame(LEAVE, &[]).await,
            ToController::Confirm(stdout, stderr) => {
                self.frame(CONFIRM, &[stdout.to_le_bytes(), stderr.to_le_bytes()].concat()).await
            }
            ToController::Size(columns, rows) => {
                self.frame(SIZE, &[columns.to_le_bytes(), rows.to_le_bytes()].concat()).await
            }
            ToController::Detach => self.frame(DETACH, &[]).await,
        }
    }

    /// Writes a controller's frame. Not cancel-safe.
    pub async fn write_to_client(&mut self, frame: &ToClient) -> Result<(), FramesError> {
        match frame {
            ToClient::Started(pid) => self.frame(STARTED, &pid.to_le_bytes()).await,
            ToClient::Stdout(bytes) => self.bytes(STDOUT, bytes).await,
            ToClient::Stderr(bytes) => self.bytes(STDERR, bytes).await,
            ToClient::StdoutEnd => self.frame(STDOUT_END, &[]).await,
            ToClient::StderrEnd => self.frame(STDERR_END, &[]).await,
            ToClient::StdinCredit(bytes) => self.frame(STDIN_CREDIT, &bytes.to_le_bytes()).await,
            ToClient::Exit(end) => self.json(EXIT, end).await,
            ToClient::Resumed(stdin) => self.frame(RESUMED, &stdin.to_le_bytes()).await,
            ToClient::Taken(bytes) => self.frame(TAKEN, &bytes.to_le_bytes()).await,
            ToClient::Attached(attached) => self.json(ATTACHED, attached).await,
            ToClient::Lost(why) => self.frame(LOST, &why.as_bytes()[..why.len().min(MAX_PAYLOAD)]).await,
        }
    }

    /// Writes bytes of stdout or stderr from a buffer that the caller keeps. Not cancel-safe.
    pub async fn write_output(&mut self, stderr: bool, bytes: &[u8]) -> Result<(), FramesError> {
        self.bytes(if stderr { STDERR } else { STDOUT }, bytes).await
    }

    /// Flushes and closes the direction.
    pub async fn shutdown(&mut self) -> Result<(), FramesError> {
        Ok(self.frames.shutdown().await?)
    }

    async fn bytes(&mut self, kind: u8, bytes: &[u8]) -> Result<(), FramesError> {
        for part in bytes.chunks(MAX_PAYLOAD) {
            self.frame(kind, part).await?;
        }
        Ok(())
    }

    async fn json<T: serde::Serialize>(&mut self, kind: u8, value: &T) -> Result<(), FramesError> {
        let text = serde_json::to_vec(value).map_err(|e| FramesError::Malformed(e.to_string()))?;
        if text.len() > MAX_PAYLOAD {
            return Err(FramesError::Malformed(format!(
                "a request of {} bytes is above the limit of {MAX_PAYLOAD}; send large input on stdin",
                text.len()
            )));
        }
        self.frame(kind, &text).await
    }

    async fn frame(&mut self, kind: u8, payload: &[u8]) -> Result<(), FramesError> {
        Ok(self.frames.write(kind, payload).await?)
    }
}

fn json<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, FramesError> {
    serde_json::from_slice(payload).map_err(|e| FramesError::Malformed(e.to_string()))
}

fn number(payload: &[u8]) -> Result<u32, FramesError> {
    let bytes = payload.try_into().map_err(|_| FramesError::Malformed("a number of another size".to_owned()))?;
    Ok(u32::from_le_bytes(bytes))
}

fn long(payload: &[u8]) -> Result<u64, FramesError> {
    let bytes = payload.try_into().map_err(|_| FramesError::Malformed("a number of another size".to_owned()))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::RefusalKind;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(future)
    }

    fn to_client() -> impl Strategy<Value = ToClient> {
        let bytes = || prop::collection::vec(any::<u8>(), 1..2000).prop_map(Bytes::from);
        prop_oneof![
            any::<u32>().prop_map(ToClient::Started),
            bytes().prop_map(ToClient::Stdout),
            bytes().prop_map(ToClient::Stderr),
            Just(ToClient::StdoutEnd),
            Just(ToClient::StderrEnd),
            any::<u32>().prop_map(ToClient::StdinCredit),
            any::<u64>().prop_map(ToClient::Resumed),
            any::<u64>().prop_map(ToClient::Taken),
            ".*".prop_map(ToClient::Lost),
            (any::<(u64, u64, u64, u64)>(), any::<(u32, u32, bool)>()).prop_map(
                |((stdin, stdout, stderr, patience_ms), (pid, user, terminal))| {
                    ToClient::Attached(ExecAttached { pid, stdin, stdout, stderr, user, patience_ms, terminal })
                }
            ),
            any::<i32>().prop_map(|code| ToClient::Exit(ExecEnd::Exited { code })),
            ".*".prop_map(|message| ToClient::Exit(ExecEnd::Refused { reason: RefusalKind::Busy, message })),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_split_of_the_stream(frames in prop::collection::vec(to_client(), 0..20), size in 1usize..300) {
            let got = run(async {
                let (a, b) = tokio::io::duplex(size);
                let write = async {
                    let mut writer = FrameWriter::new(a);
                    for frame in &frames {
                        writer.write_to_client(frame).await.expect("write");
                    }
                };
                let read = async {
                    let mut reader = FrameReader::new(b);
                    let mut got = Vec::new();
                    while let Some(frame) = reader.next_from_controller().await.expect("read") {
                        got.push(frame);
                    }
                    got
                };
                tokio::join!(write, read).1
            });
            prop_assert_eq!(got, frames);
        }

        #[test]
        fn garbage_is_refused_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            run(async {
                let mut reader = FrameReader::new(&bytes[..]);
                while let Ok(Some(_)) = reader.next_from_client().await {}
                let mut reader = FrameReader::new(&bytes[..]);
                while let Ok(Some(_)) = reader.next_from_controller().await {}
            });
        }
    }

    #[test]
    fn a_client_s_frames_come_through_and_large_stdin_is_cut() {
        run(async {
            let (a, b) = tokio::io::duplex(1 << 20);
            let mut writer = FrameWriter::new(a);
            let request = ExecRequest::new("a".parse().expect("name"), ["true"]);
            let blob = Bytes::from(vec![7; MAX_PAYLOAD + 5]);
            for frame in [
                ToController::Start(request.clone()),
                ToController::Stdin(blob),
                ToController::Signal(-2),
                ToController::StdinEnd,
                ToController::Confirm(1 << 40, 2),
                ToController::Size(300, 24),
                ToController::Detach,
                ToController::Leave,
            ] {
                writer.write_to_controller(&frame).await.expect("write");
            }
            drop(writer);
            let mut reader = FrameReader::new(b);
            let mut next = async || reader.next_from_client().await.expect("read");
            assert_eq!(next().await, Some(ToController::Start(request)));
            assert_eq!(next().await, Some(ToController::Stdin(Bytes::from(vec![7; MAX_PAYLOAD]))));
            assert_eq!(next().await, Some(ToController::Stdin(Bytes::from(vec![7; 5]))));
            assert_eq!(next().await, Some(ToController::Signal(-2)));
            assert_eq!(next().await, Some(ToController::StdinEnd));
            assert_eq!(next().await, Some(ToController::Confirm(1 << 40, 2)));
            assert_eq!(next().await, Some(ToController::Size(300, 24)));
            assert_eq!(next().await, Some(ToController::Detach));
            assert_eq!(next().await, Some(ToController::Leave));
            assert_eq!(next().await, None);
        });
    }
}
