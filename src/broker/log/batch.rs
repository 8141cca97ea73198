//! The record batch as it lies on the wire and on disk (format version 2), read in place.
//!
//! The broker keeps batches byte for byte as producers sent them. It reads the fixed header, checks the sum and the
//! framing of the records, and writes only what is a broker's to write: base offset, leader epoch and, for topics
//! with `LogAppendTime`, the time. It knows neither files nor partitions, and never decompresses.

use bytes::{Bytes, BytesMut};

/// Bytes before the first record.
pub(crate) const HEADER: usize = 61;
/// Bytes before the part that the length field counts.
pub(crate) const PREFIX: usize = 12;
/// The sum covers everything from here on, so that offset and epoch can be written without touching it.
const SUMMED_FROM: usize = 21;

const COMPRESSION_BITS: i16 = 0b111;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;

/// Why bytes are no batch that can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    /// The bytes end before the batch does.
    #[error("record batch is cut short")]
    Short,
    /// A format older than Kafka 0.11's.
    #[error("record batch has format version {0}, only version 2 is kept")]
    Magic(i8),
    /// The sum in the header is not that of the bytes.
    #[error("record batch does not match its checksum")]
    Sum,
    /// Counts or lengths that contradict each other.
    #[error("record batch contradicts itself: {0}")]
    Malformed(&'static str),
}

/// The fixed header's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub base_offset: i64,
    /// Size of the whole batch in bytes, header included.
    pub size: usize,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records: i32,
    sum: u32,
}

impl Header {
    /// Reads the header at the start of `bytes`, which may end before the batch does.
    pub fn read(bytes: &[u8]) -> Result<Self, BatchError> {
        let fixed: &[u8; HEADER] = bytes.first_chunk().ok_or(BatchError::Short)?;
        let magic = i8::from_be_bytes(field(fixed, 16));
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        let length = i32::from_be_bytes(field(fixed, 8));
        let size = usize::try_from(length).map_err(|_| BatchError::Malformed("negative length"))? + PREFIX;
        if size < HEADER {
            return Err(BatchError::Malformed("length below the header's"));
        }
        let header = Self {
            base_offset: i64::from_be_bytes(field(fixed, 0)),
            size,
            sum: u32::from_be_bytes(field(fixed, 17)),
            attributes: i16::from_be_bytes(field(fixed, 21)),
            last_offset_delta: i32::from_be_bytes(field(fixed, 23)),
            base_timestamp: i64::from_be_bytes(field(fixed, 27)),
            max_timestamp: i64::from_be_bytes(field(fixed, 35)),
            producer_id: i64::from_be_bytes(field(fixed, 43)),
            producer_epoch: i16::from_be_bytes(field(fixed, 51)),
            base_sequence: i32::from_be_bytes(field(fixed, 53)),
            records: i32::from_be_bytes(field(fixed, 57)),
        };
        if header.base_offset < 0 || header.last_offset_delta < 0 {
            return Err(BatchError::Malformed("negative offset"));
        }
        if header.base_offset.checked_add(i64::from(header.last_offset_delta) + 1).is_none() {
            return Err(BatchError::Malformed("offset beyond the largest"));
        }
        Ok(header)
    }

    /// Reads the header and checks the sum; `bytes` must hold the whole batch, and may hold more.
    pub fn read_checked(bytes: &[u8]) -> Result<Self, BatchError> {
        let header = Self::read(bytes)?;
        let whole = bytes.get(..header.size).ok_or(BatchError::Short)?;
        if crc32c::crc32c(&whole[SUMMED_FROM..]) != header.sum {
            return Err(BatchError::Sum);
        }
        Ok(header)
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The codec's number, 0 for none.
    pub fn compression(&self) -> i16 {
        self.attributes & COMPRESSION_BITS
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the broker's clock wrote the timestamps.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }
}

/// A batch that a producer sent and that was checked, in memory of its own, ready to be given its offset.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub header: Header,
    bytes: BytesMut,
}

impl Incoming {
    /// Checks one produced batch: it must be exactly one, whole, summed right, with as many records as it says.
    /// `append_time` is the broker's time for a topic that wants it in place of the producer's.
    pub fn check(bytes: &[u8], append_time: Option<i64>) -> Result<Self, BatchError> {
        let mut header = Header::read_checked(bytes)?;
        if header.size != bytes.len() {
            return Err(BatchError::Malformed("more than one batch"));
        }
        if header.records < 1 || header.records != header.last_offset_delta.saturating_add(1) {
            return Err(BatchError::Malformed("record count and last offset disagree"));
        }
        if header.compression() == 0 {
            for record in Records::new(&bytes[HEADER..], header.records) {
                record?;
            }
        } else if header.compression() > 4 {
            return Err(BatchError::Malformed("unknown compression"));
        }
        let mut bytes = BytesMut::from(bytes);
        if let Some(now) = append_time {
            header.attributes |= LOG_APPEND_TIME_BIT;
            header.max_timestamp = now;
            bytes[21..23].copy_from_slice(&header.attributes.to_be_bytes());
            bytes[35..43].copy_from_slice(&now.to_be_bytes());
        } else if header.is_log_append_time() {
            header.attributes &= !LOG_APPEND_TIME_BIT;
            bytes[21..23].copy_from_slice(&header.attributes.to_be_bytes());
        }
        header.sum = crc32c::crc32c(&bytes[SUMMED_FROM..]);
        bytes[17..21].copy_from_slice(&header.sum.to_be_bytes());
        // One node, which leads everything since ever: there is only epoch 0.
        bytes[12..16].copy_from_slice(&0i32.to_be_bytes());
        Ok(Self { header, bytes })
    }

    /// Gives the batch its place in the log.
    pub fn place(mut self, base_offset: i64) -> (Header, Bytes) {
        self.bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        self.header.base_offset = base_offset;
        (self.header, self.bytes.freeze())
    }
}

/// Offset and timestamp deltas of one uncompressed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub offset_delta: i64,
    pub timestamp_delta: i64,
}

/// Walks the framing of uncompressed records; ends with an error where they don't fill the bytes exactly.
pub(crate) struct Records<'a> {
    rest: &'a [u8],
    left: i32,
    next: i64,
}

impl<'a> Records<'a> {
    pub fn new(bytes: &'a [u8], count: i32) -> Self {
        Self { rest: bytes, left: count, next: 0 }
    }

    fn step(&mut self) -> Result<Record, BatchError> {
        let length = varint(&mut self.rest)?;
        let length = usize::try_from(length).map_err(|_| BatchError::Malformed("negative record length"))?;
        let (mut body, rest) = self.rest.split_at_checked(length).ok_or(BatchError::Malformed("record cut short"))?;
        self.rest = rest;
        let (_attributes, after) = body.split_first().ok_or(BatchError::Malformed("empty record"))?;
        body = after;
        let timestamp_delta = varint(&mut body)?;
        let offset_delta = varint(&mut body)?;
        if offset_delta != self.next {
            return Err(BatchError::Malformed("records are not numbered in order"));
        }
        self.next += 1;
        Ok(Record { offset_delta, timestamp_delta })
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = &[];
            return Some(Err(BatchError::Malformed("bytes after the last record")));
        }
        self.left -= 1;
        let record = self.step();
        if record.is_err() {
            self.left = 0;
            self.rest = &[];
        }
        Some(record)
    }
}

/// A zigzag variable-length integer of at most ten bytes.
fn varint(bytes: &mut &[u8]) -> Result<i64, BatchError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(BatchError::Malformed("record cut short"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    Err(BatchError::Malformed("overlong number"))
}

fn field<const N: usize>(fixed: &[u8; HEADER], at: usize) -> [u8; N] {
    *fixed[at..].first_chunk().expect("every field lies within the fixed header")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put_varint(out: &mut Vec<u8>, value: i64) {
        let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while zigzag >= 0x80 {
            out.push((zigzag & 0x7f) as u8 | 0x80);
            zigzag >>= 7;
        }
        out.push(zigzag as u8);
    }

    /// A batch as a producer sends it; `producer` is id, epoch and first sequence number.
    pub(crate) fn produced(values: &[&[u8]], timestamp: i64, producer: Option<(i64, i16, i32)>) -> Vec<u8> {
        let mut records = Vec::new();
        for (delta, value) in values.iter().enumerate() {
            let mut body = vec![0u8];
            put_varint(&mut body, delta as i64);
            put_varint(&mut body, delta as i64);
            put_varint(&mut body, -1);
            put_varint(&mut body, value.len() as i64);
            body.extend_from_slice(value);
            put_varint(&mut body, 0);
            put_varint(&mut records, body.len() as i64);
            records.extend_from_slice(&body);
        }
        let last = values.len() as i32 - 1;
        let (id, epoch, sequence) = producer.unwrap_or((-1, -1, -1));
        let mut batch = Vec::new();
        batch.extend_from_slice(&0i64.to_be_bytes());
        batch.extend_from_slice(&((HEADER - PREFIX + records.len()) as i32).to_be_bytes());
        batch.extend_from_slice(&(-1i32).to_be_bytes());
        batch.push(2);
        batch.extend_from_slice(&[0; 4]);
        batch.extend_from_slice(&0i16.to_be_bytes());
        batch.extend_from_slice(&last.to_be_bytes());
        batch.extend_from_slice(&timestamp.to_be_bytes());
        batch.extend_from_slice(&(timestamp + i64::from(last)).to_be_bytes());
        batch.extend_from_slice(&id.to_be_bytes());
        batch.extend_from_slice(&epoch.to_be_bytes());
        batch.extend_from_slice(&sequence.to_be_bytes());
        batch.extend_from_slice(&(last + 1).to_be_bytes());
        batch.extend_from_slice(&records);
        let sum = crc32c::crc32c(&batch[SUMMED_FROM..]);
        batch[17..21].copy_from_slice(&sum.to_be_bytes());
        batch
    }

    #[test]
    fn placing_a_batch_changes_only_what_is_the_brokers() {
        let sent = produced(&[b"one", b"two"], 1_000, None);
        let (header, kept) = Incoming::check(&sent, None).unwrap().place(42);
        assert_eq!((header.base_offset, header.last_offset()), (42, 43));
        assert_eq!(kept[16..], sent[16..]);
        assert_eq!(Header::read_checked(&kept).unwrap(), header);
    }

    #[test]
    fn log_append_time_is_written_and_summed() {
        let sent = produced(&[b"one"], 1_000, None);
        let (header, kept) = Incoming::check(&sent, Some(9_000)).unwrap().place(7);
        assert!(header.is_log_append_time());
        let read = Header::read_checked(&kept).unwrap();
        assert_eq!((read.max_timestamp, read.base_timestamp), (9_000, 1_000));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let sent = produced(&[b"payload"], 1_000, None);
        for at in 16..sent.len() {
            let mut bad = sent.clone();
            bad[at] ^= 0x04;
            assert!(Incoming::check(&bad, None).is_err(), "byte {at}");
        }
    }

    #[test]
    fn two_batches_in_one_are_refused() {
        let mut sent = produced(&[b"one"], 1_000, None);
        sent.extend(produced(&[b"two"], 1_000, None));
        assert_eq!(Incoming::check(&sent, None).unwrap_err(), BatchError::Malformed("more than one batch"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Incoming::check(&bytes, Some(5));
            for record in Records::new(&bytes, 10) {
                let _ = record;
            }
        }

        #[test]
        fn garbage_behind_a_valid_sum_never_panics(
            tail in proptest::collection::vec(any::<u8>(), HEADER - SUMMED_FROM..300),
        ) {
            let mut batch = vec![0u8; SUMMED_FROM];
            batch.extend_from_slice(&tail);
            let length = (batch.len() - PREFIX) as i32;
            batch[8..12].copy_from_slice(&length.to_be_bytes());
            batch[16] = 2;
            let sum = crc32c::crc32c(&batch[SUMMED_FROM..]);
            batch[17..21].copy_from_slice(&sum.to_be_bytes());
            if let Ok(incoming) = Incoming::check(&batch, None) {
                let _ = incoming.place(1);
            }
        }
    }
}
