//! Length-prefixed postcard messages on a byte stream.
//!
//! A frame is a little-endian `u32` length and that many bytes of postcard. Reading grows its buffer as bytes arrive,
//! so a length that promises much allocates little by itself.

use std::pin::Pin;

use bytes::{BufMut, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest control message. Blobs (a call's body, stdio) are not messages and have limits of their own.
pub const MAX_MESSAGE: usize = 1 << 20;

/// What is allocated for a frame before its bytes are there: most are smaller.
const FIRST: usize = 4 << 10;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended between two messages.
    #[error("the stream ended")]
    Ended,
    /// The stream broke, also inside a message.
    #[error("the stream broke: {0}")]
    Io(#[from] std::io::Error),
    /// The peer announced more than the reader takes.
    #[error("a message of {length} bytes is above the limit of {limit}")]
    TooLarge {
        /// What was announced.
        length: usize,
        /// What is taken.
        limit: usize,
    },
    /// The bytes are not the expected message: the peer speaks another version, or is broken.
    #[error("a message could not be decoded: {0}")]
    Malformed(#[from] postcard::Error),
}

/// Appends `message` as a frame to `buffer`.
pub fn encode<T: Serialize>(message: &T, buffer: &mut BytesMut) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.put_u32_le(0);
    let result = postcard::to_io(message, buffer.writer());
    result?;
    let length = (buffer.len() - start - 4) as u32;
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Writes `message` as one frame and flushes.
pub async fn write<T: Serialize>(stream: &mut (impl AsyncWrite + Unpin), message: &T) -> Result<(), FrameError> {
    let mut buffer = BytesMut::new();
    encode(message, &mut buffer)?;
    stream.write_all(&buffer).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads one frame of up to [`MAX_MESSAGE`] bytes. Not cancel-safe: a caller that selects keeps the future.
pub async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> Result<T, FrameError> {
    let bytes = read_bytes(stream, MAX_MESSAGE).await?;
    Ok(postcard::from_bytes(&bytes)?)
}

/// Reads one frame's bytes, up to `limit`.
pub async fn read_bytes(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut header = [0u8; 4];
    let first = stream.read(&mut header).await?;
    if first == 0 {
        return Err(FrameError::Ended);
    }
    stream.read_exact(&mut header[first..]).await?;
    let length = u32::from_le_bytes(header) as usize;
    if length > limit {
        return Err(FrameError::TooLarge { length, limit });
    }
    let mut bytes = Vec::with_capacity(length.min(FIRST));
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(FrameError::Io(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(bytes)
}

/// Reads messages so that a `select!` may give up waiting: what came of one is kept.
pub struct Incoming<R, T>(Reading<R, T>);

type Reading<R, T> = Pin<Box<dyn Future<Output = (R, Result<T, FrameError>)> + Send>>;

impl<R, T> Incoming<R, T>
where
    R: AsyncRead + Unpin + Send + 'static,
    T: DeserializeOwned + Send + 'static,
{
    /// The messages on `stream`.
    pub fn new(stream: R) -> Self {
        Self(Self::read(stream))
    }

    /// The next message. Cancel-safe. Nothing sensible follows an error.
    pub async fn next(&mut self) -> Result<T, FrameError> {
        let (stream, message) = (&mut self.0).await;
        self.0 = Self::read(stream);
        message
    }

    fn read(mut stream: R) -> Reading<R, T> {
        Box::pin(async move {
            let message = read(&mut stream).await;
            (stream, message)
        })
    }
}

/// Writes messages so that a `select!` may give up waiting: the rest of one that went out in part goes first.
pub struct Outgoing<W> {
    stream: W,
    pending: BytesMut,
}

impl<W: AsyncWrite + Unpin> Outgoing<W> {
    /// Messages to `stream`.
    pub fn new(stream: W) -> Self {
        Self { stream, pending: BytesMut::new() }
    }

    /// Puts a message behind those that have not gone out.
    pub fn put<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        encode(message, &mut self.pending)
    }

    /// Whether something has not gone out.
    pub fn has_more(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Sends what has not gone out. Cancel-safe.
    pub async fn send(&mut self) -> std::io::Result<()> {
        while !self.pending.is_empty() {
            if self.stream.write_buf(&mut self.pending).await? == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
        }
        self.stream.flush().await
    }

    /// The stream itself, to end or to break it.
    pub fn stream(&mut self) -> &mut W {
        &mut self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_gives_up_waiting_loses_no_part_of_a_message() {
        let (a, b) = tokio::io::duplex(3);
        let (mut out, mut incoming) = (Outgoing::new(a), Incoming::<_, String>::new(b));
        let sent = ["hello", "", "world"];
        sent.iter().for_each(|text| out.put(text).expect("fits"));
        let mut got = Vec::new();
        // Each is asked for a moment and then dropped, in turn.
        while got.len() < sent.len() {
            tokio::select! {
                biased;
                message = incoming.next() => got.push(message.expect("a message")),
                result = out.send() => result.expect("sent"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(got, sent);
        drop(out);
        assert!(matches!(incoming.next().await, Err(FrameError::Ended)));
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_the_end_is_told_from_a_break() {
        let (mut a, mut b) = tokio::io::duplex(64);
        write(&mut a, &("hello", 7u32)).await.expect("write");
        let got: (String, u32) = read(&mut b).await.expect("read");
        assert_eq!(got, ("hello".to_owned(), 7));
        a.write_all(&[200, 0]).await.expect("write");
        drop(a);
        assert!(matches!(read::<u32>(&mut b).await, Err(FrameError::Io(_))));
        assert!(matches!(read::<u32>(&mut b).await, Err(FrameError::Ended)));
    }

    #[tokio::test]
    async fn a_length_that_promises_too_much_is_refused() {
        let mut bytes: &[u8] = &[255, 255, 255, 255, 1];
        assert!(matches!(read::<u32>(&mut bytes).await, Err(FrameError::TooLarge { .. })));
    }
}
