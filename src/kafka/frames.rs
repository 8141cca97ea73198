//! Length-prefixed frames from a stream, without a copy and without trusting the length.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// No answer is larger: fetches ask for far less.
const LARGEST: usize = 100 * 1024 * 1024;

/// What is made room for at once on a frame's word alone. Beyond it, room is made as bytes come in.
const TRUSTED: usize = 4 * 1024 * 1024;

/// What an idle connection keeps.
const IDLE: usize = 8 * 1024;

/// Reads frames. A call that is dropped loses nothing: the next one goes on.
pub(super) struct Frames<R> {
    read: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(read: R) -> Self {
        Self { read, buffer: BytesMut::new() }
    }

    /// The next frame, without its length.
    pub(super) async fn next(&mut self) -> io::Result<Bytes> {
        loop {
            let wanted = match self.buffer.first_chunk::<4>() {
                None => IDLE,
                Some(head) => {
                    let length = length(*head)?;
                    if self.buffer.len() >= 4 + length {
                        self.buffer.advance(4);
                        let frame = self.buffer.split_to(length).freeze();
                        if self.buffer.is_empty() {
                            // The frame may be large, and the wait for the next one long.
                            self.buffer = BytesMut::new();
                        }
                        return Ok(frame);
                    }
                    let missing = 4 + length - self.buffer.len();
                    missing.min(TRUSTED.max(self.buffer.len()))
                }
            };
            self.buffer.reserve(wanted);
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn length(head: [u8; 4]) -> io::Result<usize> {
    match usize::try_from(i32::from_be_bytes(head)) {
        Ok(length) if length <= LARGEST => Ok(length),
        // A TLS alert: type 21, version 3.x.
        _ if head[..2] == [21, 3] => {
            Err(io::Error::other("this port speaks TLS; turn TLS on, or use the port of the plaintext listener"))
        }
        _ => Err(io::Error::other("the answer is not Kafka's; is this really a Kafka port?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(frames: &[&[u8]]) -> Vec<u8> {
        frames.iter().flat_map(|f| [&(f.len() as u32).to_be_bytes()[..], f].concat()).collect()
    }

    #[tokio::test]
    async fn frames_come_out_however_the_bytes_come_in() {
        let large = vec![7; 100_000];
        let bytes = framed(&[b"one", b"", &large, b"four"]);
        for step in [1, 3, 4, 5, 1000, bytes.len()] {
            let (mut tx, rx) = tokio::io::duplex(step);
            let sent = bytes.clone();
            tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut tx, &sent).await });
            let mut frames = Frames::new(rx);
            for expected in [&b"one"[..], b"", &large, b"four"] {
                assert_eq!(frames.next().await.expect("a frame"), expected);
            }
            assert_eq!(frames.next().await.expect_err("the end").kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn a_large_length_makes_no_room_for_bytes_that_never_come() {
        let mut bytes = (LARGEST as u32).to_be_bytes().to_vec();
        bytes.extend(b"short");
        let mut frames = Frames::new(&bytes[..]);
        assert!(frames.next().await.is_err());
        assert!(frames.buffer.capacity() <= 2 * TRUSTED);
    }

    #[tokio::test]
    async fn what_is_no_kafka_is_named() {
        let tls = Frames::new(&[21, 3, 3, 0, 2, 2, 40][..]).next().await.expect_err("TLS").to_string();
        assert!(tls.contains("turn TLS on"), "{tls}");
        let http = Frames::new(&b"HTTP/1.1 400"[..]).next().await.expect_err("HTTP").to_string();
        assert!(http.contains("really a Kafka port"), "{http}");
        assert!(Frames::new(&[255, 255, 255, 255][..]).next().await.is_err());
    }
}
