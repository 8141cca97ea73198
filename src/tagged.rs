//! Frames with a kind: `[kind u8][length u32 little-endian][payload]`, for streams that carry bytes and a few words about
//! them.
//!
//! Reading slices the bytes that arrived, writing hands header and payload to the stream together: no byte is looked
//! at, and a payload is copied once at most. A length is checked before a byte is read for it.

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const HEADER: usize = 5;

/// Room for what comes next: small frames are read many at a time.
const ROOM: usize = 16 << 10;

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub enum TaggedError {
    /// The stream ended or broke, also inside a frame.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The peer announced more than the reader takes.
    #[error("a frame of {0} bytes is above the limit")]
    TooLarge(usize),
}

/// Reads frames.
pub struct TaggedReader<R> {
    stream: R,
    buffer: BytesMut,
    limit: usize,
}

impl<R: AsyncRead + Unpin> TaggedReader<R> {
    /// Reads from `stream` frames with payloads of up to `limit` bytes.
    pub fn new(stream: R, limit: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), limit }
    }

    /// The next kind and payload; `None` if the stream ended between two frames. All progress is in the buffer, so a caller
    /// may give up and come again.
    pub async fn next(&mut self) -> Result<Option<(u8, Bytes)>, TaggedError> {
        loop {
            let wanted = match self.buffer.first_chunk::<HEADER>() {
                None => HEADER,
                Some([kind, length @ ..]) => {
                    let length = u32::from_le_bytes(*length) as usize;
                    if length > self.limit {
                        return Err(TaggedError::TooLarge(length));
                    }
                    if self.buffer.len() >= HEADER + length {
                        let kind = *kind;
                        self.buffer.advance(HEADER);
                        return Ok(Some((kind, self.buffer.split_to(length).freeze())));
                    }
                    HEADER + length
                }
            };
            // What is known to come fits.
            self.buffer.reserve((wanted - self.buffer.len()).max(ROOM));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                };
            }
        }
    }
}

/// Writes frames.
pub struct TaggedWriter<W> {
    stream: W,
}

impl<W: AsyncWrite + Unpin> TaggedWriter<W> {
    /// Writes to `stream`.
    pub fn new(stream: W) -> Self {
        Self { stream }
    }

    /// Writes one frame and flushes; the caller sees to its length. Not cancel-safe.
    pub async fn write(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let [a, b, c, d] = (payload.len() as u32).to_le_bytes();
        let header = [kind, a, b, c, d];
        let mut slices = [IoSlice::new(&header), IoSlice::new(payload)];
        let mut rest = &mut slices[..if payload.is_empty() { 1 } else { 2 }];
        while !rest.is_empty() {
            let written = self.stream.write_vectored(rest).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut rest, written);
        }
        self.stream.flush().await
    }

    /// The stream.
    pub fn into_inner(self) -> W {
        self.stream
    }

    /// Flushes and closes the direction.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_length_above_the_limit_is_refused_before_anything_is_read_for_it() {
        let mut reader = TaggedReader::new(&[2, 1, 0, 4, 0][..], 256 << 10);
        assert!(matches!(reader.next().await, Err(TaggedError::TooLarge(0x4_0001))));
        assert!(reader.buffer.capacity() < 64 << 10);
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error_and_between_two_is_none() {
        let mut reader = TaggedReader::new(&[7, 1, 0, 0, 0, b'x', 8, 1, 0][..], 16);
        assert_eq!(reader.next().await.expect("a frame"), Some((7, Bytes::from_static(b"x"))));
        assert!(matches!(reader.next().await, Err(TaggedError::Io(_))));
        assert_eq!(TaggedReader::new(&[][..], 16).next().await.expect("an end"), None);
    }
}
