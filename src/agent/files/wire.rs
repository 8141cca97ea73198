//! Frames on stdin and stdout, without a runtime.

use std::io::{self, BufReader, Read, Stdin, Stdout, Write};

use crate::service::files::{DATA, END, MAX_PAYLOAD, REPLY, REQUEST, Reply, Request};

/// What a client sends.
pub enum Frame {
    /// What it wants.
    Request(Request),
    /// Bytes of a content.
    Data(Vec<u8>),
    /// Its end, and its sum.
    End(Vec<u8>),
}

/// The way to the client.
pub struct Wire<R = BufReader<Stdin>, W = Stdout> {
    from: R,
    to: W,
}

impl Wire {
    /// Our own stdin and stdout.
    pub fn stdio() -> Self {
        Self { from: BufReader::with_capacity(MAX_PAYLOAD, io::stdin()), to: io::stdout() }
    }
}

impl<R: Read, W: Write> Wire<R, W> {
    /// The next frame; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        let mut header = [0; 5];
        match self.from.read_exact(&mut header[..1]) {
            Ok(()) => self.from.read_exact(&mut header[1..])?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let [kind, length @ ..] = header;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_PAYLOAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        let mut payload = Vec::new();
        // Room grows with what comes.
        if (&mut self.from).take(length as u64).read_to_end(&mut payload)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let odd = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        Ok(Some(match kind {
            REQUEST => Frame::Request(postcard::from_bytes(&payload).map_err(|e| odd(e.to_string()))?),
            DATA => Frame::Data(payload),
            END => Frame::End(payload),
            other => return Err(odd(format!("a frame of kind {other}"))),
        }))
    }

    /// Sends an answer.
    pub fn reply(&mut self, reply: &Reply) -> io::Result<()> {
        let payload = postcard::to_stdvec(reply).map_err(io::Error::other)?;
        self.frame(REPLY, &payload)
    }

    /// Sends bytes of a content.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() { Ok(()) } else { self.frame(DATA, bytes) }
    }

    /// Sends the end of a content, and its sum.
    pub fn end(&mut self, sum: &[u8]) -> io::Result<()> {
        self.frame(END, sum)
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let [a, b, c, d] = (payload.len() as u32).to_le_bytes();
        self.to.write_all(&[kind, a, b, c, d])?;
        self.to.write_all(payload)?;
        self.to.flush()
    }
}
