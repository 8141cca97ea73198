//! One record: `crc: u32, length: u32, offset: u64, time: u64, stream: u8`, little-endian, then `length` bytes. The checksum is
//! the CRC-32C of all that follows it.

use super::Stream;

/// The bytes before a record's payload.
pub(super) const HEADER: usize = 25;

/// The most bytes of output in one record. A reader allocates no more for a length that lies.
pub const MAX_CHUNK: usize = 64 << 10;

/// What a record says of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub crc: u32,
    /// 1 to [`MAX_CHUNK`].
    pub length: usize,
    pub offset: u64,
    /// Milliseconds since the epoch.
    pub time: u64,
    pub stream: Stream,
}

/// The header of a record with these bytes. `bytes` are 1 to [`MAX_CHUNK`].
pub(super) fn header(stream: Stream, offset: u64, time: u64, bytes: &[u8]) -> [u8; HEADER] {
    debug_assert!((1..=MAX_CHUNK).contains(&bytes.len()));
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    header[8..16].copy_from_slice(&offset.to_le_bytes());
    header[16..24].copy_from_slice(&time.to_le_bytes());
    header[24] = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[4..]), bytes);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Reads a header; `None` if it is none. Only [`Header::matches`] says whether it is true.
pub(super) fn decode(bytes: &[u8; HEADER]) -> Option<Header> {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let stream = match bytes[24] {
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        _ => return None,
    };
    let length = half(4) as usize;
    let offset = number(8);
    offset.checked_add(length as u64)?;
    (1..=MAX_CHUNK).contains(&length).then_some(Header { crc: half(0), length, offset, time: number(16), stream })
}

impl Header {
    /// Whether these are the bytes that it was written with. `header` are its own.
    pub fn matches(&self, header: &[u8; HEADER], bytes: &[u8]) -> bool {
        bytes.len() == self.length && crc32c::crc32c_append(crc32c::crc32c(&header[4..]), bytes) == self.crc
    }
}
