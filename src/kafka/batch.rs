//! Record batches (format 2) as bytes: written into the request in which they travel, read from the answer in which
//! they came, each value copied once on the way out and never on the way in.
//!
//! Reading trusts nothing: other writers have the topic too. A batch that cannot be read is stepped over and counted,
//! because a reader that stops at it would stop for ever.

use bytes::{BufMut, Bytes, BytesMut};

use super::Record;

/// Bytes in front of a batch's records.
const HEADER: usize = 61;

/// Bytes of base offset and length, which the length does not count.
const PREFIX: usize = 12;

/// Where the part that the checksum covers begins.
const CHECKED: usize = 21;

/// "No timestamp": our topics are stamped by the broker, and a topic that is not keeps its records by the age of their
/// file.
const NO_TIMESTAMP: i64 = -1;

const COMPRESSION: i16 = 0b111;
const CONTROL: i16 = 0b10_0000;

/// Appends `records` as one uncompressed batch.
pub(super) fn encode(records: &[Record], out: &mut BytesMut) {
    let start = out.len();
    out.put_i64(0); // base offset: the broker's business
    out.put_i32(0); // length, below
    out.put_i32(-1); // leader epoch
    out.put_i8(2); // format
    out.put_u32(0); // checksum, below
    out.put_i16(0); // attributes: no compression
    out.put_i32(records.len() as i32 - 1); // last offset delta
    out.put_i64(NO_TIMESTAMP); // first
    out.put_i64(NO_TIMESTAMP); // greatest
    out.put_i64(-1); // producer id: not idempotent
    out.put_i16(-1); // producer epoch
    out.put_i32(-1); // base sequence
    out.put_i32(records.len() as i32);
    for (delta, record) in records.iter().enumerate() {
        encode_record(record, delta as i64, out);
    }
    let length = (out.len() - start - PREFIX) as i32;
    let checksum = crc32c::crc32c(&out[start + CHECKED..]);
    out[start + 8..start + 12].copy_from_slice(&length.to_be_bytes());
    out[start + 17..start + 21].copy_from_slice(&checksum.to_be_bytes());
}

/// How many bytes [`encode`] will append.
pub(super) fn encoded_size(records: &[Record]) -> usize {
    let records = records.iter().enumerate().map(|(delta, record)| {
        let body = record_size(record, delta as i64);
        varint_size(body as i64) + body
    });
    HEADER + records.sum::<usize>()
}

fn encode_record(record: &Record, delta: i64, out: &mut BytesMut) {
    put_varint(out, record_size(record, delta) as i64);
    out.put_i8(0); // attributes
    put_varint(out, 0); // timestamp delta
    put_varint(out, delta);
    for field in [&record.key, &record.value] {
        match field.len() {
            0 => put_varint(out, -1),
            length => put_varint(out, length as i64),
        }
        out.put_slice(field);
    }
    put_varint(out, record.headers.len() as i64);
    for (name, value) in &record.headers {
        put_varint(out, name.len() as i64);
        out.put_slice(name.as_bytes());
        put_varint(out, value.len() as i64);
        out.put_slice(value);
    }
}

fn record_size(record: &Record, delta: i64) -> usize {
    let field = |bytes: &Bytes| match bytes.len() {
        0 => 1,
        length => varint_size(length as i64) + length,
    };
    let counted = |length: usize| varint_size(length as i64) + length;
    let headers: usize = record.headers.iter().map(|(name, value)| counted(name.len()) + counted(value.len())).sum();
    2 + varint_size(delta)
        + field(&record.key)
        + field(&record.value)
        + varint_size(record.headers.len() as i64)
        + headers
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

fn varint_size(value: i64) -> usize {
    (70 - zigzag(value).leading_zeros().min(63)) as usize / 7
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// What was read from an answer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Decoded {
    /// The records from the wanted offset on.
    pub records: Vec<(i64, Record)>,
    /// The offset behind the last batch, stepped-over ones included. `None` if there was none.
    pub next_offset: Option<i64>,
    /// What was stepped over: how many batches, and why the last of them.
    pub unreadable: Option<(u32, &'static str)>,
}

/// Reads the batches of an answer and keeps the records from `from` on. The last batch may be cut off.
pub(super) fn decode(mut bytes: Bytes, from: i64) -> Decoded {
    let mut decoded = Decoded::default();
    while bytes.len() >= HEADER {
        let length = be(&bytes[8..12]) as i32;
        let Some(end) = usize::try_from(length).ok().map(|length| PREFIX + length).filter(|end| *end >= HEADER) else {
            // Where the next one begins nobody can know.
            decoded.step_over("a batch with a wrong length");
            break;
        };
        if end > bytes.len() {
            break;
        }
        let batch = bytes.split_to(end);
        let base = be(&batch[0..8]) as i64;
        let last = i64::from(be(&batch[23..27]) as i32);
        let next = base.saturating_add(last.max(0)).saturating_add(1);
        decoded.next_offset = Some(decoded.next_offset.unwrap_or(from).max(next));
        if let Err(why) = decode_batch(&batch, base, from, &mut decoded.records) {
            decoded.step_over(why);
        }
    }
    decoded
}

impl Decoded {
    fn step_over(&mut self, why: &'static str) {
        let so_far = self.unreadable.map_or(0, |(count, _)| count);
        self.unreadable = Some((so_far + 1, why));
    }
}

fn decode_batch(batch: &Bytes, base: i64, from: i64, out: &mut Vec<(i64, Record)>) -> Result<(), &'static str> {
    if batch[16] != 2 {
        return Err("a batch of an old format (log.message.format.version)");
    }
    if crc32c::crc32c(&batch[CHECKED..]) != be(&batch[17..21]) as u32 {
        return Err("a batch with a wrong checksum");
    }
    let attributes = be(&batch[21..23]) as i16;
    if attributes & CONTROL != 0 {
        return Ok(());
    }
    if attributes & COMPRESSION != 0 {
        return Err("a compressed batch; the topic wants compression.type=producer, and writers that do not compress");
    }
    let count = usize::try_from(be(&batch[57..61]) as i32).map_err(|_| "a batch with a negative count")?;
    let mut rest = Rest { bytes: batch.slice(HEADER..) };
    // A record takes seven bytes at least.
    out.reserve(count.min(rest.bytes.len() / 7));
    for _ in 0..count {
        let (delta, record) = rest.record().ok_or("a batch with a broken record")?;
        let offset = base.saturating_add(delta);
        // A batch comes whole even if only its end is wanted.
        if offset >= from {
            out.push((offset, record));
        }
    }
    Ok(())
}

/// What is left to read of a batch.
struct Rest {
    bytes: Bytes,
}

impl Rest {
    fn record(&mut self) -> Option<(i64, Record)> {
        let length = self.varint()?;
        let mut body = Rest { bytes: self.take(length)? };
        body.take(1)?; // attributes
        body.varint()?; // timestamp delta
        let delta = body.varint().filter(|delta| (0..=i64::from(i32::MAX)).contains(delta))?;
        let key = body.field()?;
        let value = body.field()?;
        let count = body.varint()?;
        let mut headers = Vec::with_capacity(usize::try_from(count).ok()?.min(body.bytes.len() / 2));
        for _ in 0..count {
            let name = body.field()?;
            headers.push((String::from_utf8_lossy(&name).into_owned(), body.field()?));
        }
        Some((delta, Record { key, value, headers }))
    }

    /// A length and as many bytes; −1 is none.
    fn field(&mut self) -> Option<Bytes> {
        match self.varint()? {
            -1 => Some(Bytes::new()),
            length => self.take(length),
        }
    }

    fn take(&mut self, length: i64) -> Option<Bytes> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.bytes.len())?;
        Some(self.bytes.split_to(length))
    }

    fn varint(&mut self) -> Option<i64> {
        let mut value = 0_u64;
        for (index, byte) in self.bytes.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                let _ = self.bytes.split_to(index + 1);
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        None
    }
}

/// A big-endian number of up to eight bytes.
fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
