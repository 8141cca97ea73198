//! A blob's records.
//!
//! ```text
//! key   = SHA-256 of the blob (32)
//! value = version (1) ‖ MAC (32) ‖ size of the blob (8) ‖ offset (8) ‖ bytes             numbers big-endian
//! MAC   = HMAC-SHA256(key of the place, version ‖ SHA-256 ‖ size ‖ offset ‖ bytes)
//! ```
//!
//! Chunks are of [`CHUNK`] bytes, the last one may be shorter: where one begins says which it is.

use bytes::Bytes;
use ring::hmac;
use subtle::ConstantTimeEq;

use crate::{bundle::Archive, kafka::Record};

const VERSION: u8 = 1;
/// What stands before the bytes.
const HEAD: usize = 1 + 32 + 8 + 8;
/// The bytes of a chunk: with what surrounds them a record stays below 256 KiB, a quarter of what a topic takes.
pub const CHUNK: usize = 255 << 10;

/// Makes and opens the records of one blob.
pub(super) struct Chunks {
    archive: Archive,
    key: hmac::Key,
}

/// What a record is to us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A chunk of this blob, by its number.
    Chunk(usize, Bytes),
    /// Another blob's.
    Other,
    /// It has the blob's name, and is none of its chunks.
    Rubbish,
}

impl Chunks {
    pub(super) fn new(archive: Archive, key: &[u8; 32]) -> Self {
        Self { archive, key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.archive.size.div_ceil(CHUNK as u64)).unwrap_or(usize::MAX)
    }

    pub(super) fn seal(&self, offset: u64, bytes: &[u8]) -> Record {
        let mut value = Vec::with_capacity(HEAD + bytes.len());
        value.push(VERSION);
        value.extend_from_slice(self.mac(offset, bytes).as_ref());
        value.extend_from_slice(&self.archive.size.to_be_bytes());
        value.extend_from_slice(&offset.to_be_bytes());
        value.extend_from_slice(bytes);
        Record::new(self.archive.sha256.0.to_vec(), value)
    }

    pub(super) fn open(&self, record: &Record) -> Seen {
        if record.key != self.archive.sha256.0[..] {
            return Seen::Other;
        }
        self.chunk(&record.value).map_or(Seen::Rubbish, |(number, bytes)| Seen::Chunk(number, bytes))
    }

    fn chunk(&self, value: &Bytes) -> Option<(usize, Bytes)> {
        let (head, bytes) = value.split_at_checked(HEAD)?;
        let number = |at: usize| head[at..at + 8].try_into().map(u64::from_be_bytes).ok();
        let (size, offset) = (number(33)?, number(41)?);
        let whole = CHUNK as u64;
        let fits = head[0] == VERSION
            && size == self.archive.size
            && offset.is_multiple_of(whole)
            && offset < size
            && bytes.len() as u64 == whole.min(size - offset);
        if !fits || !bool::from(self.mac(offset, bytes).as_ref().ct_eq(&head[1..33])) {
            return None;
        }
        Some((usize::try_from(offset / whole).ok()?, value.slice(HEAD..)))
    }

    fn mac(&self, offset: u64, bytes: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[VERSION]);
        context.update(&self.archive.sha256.0);
        context.update(&self.archive.size.to_be_bytes());
        context.update(&offset.to_be_bytes());
        context.update(bytes);
        context.sign()
    }
}
