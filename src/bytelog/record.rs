//! One record of a log, as it lies in the topic: sealed so that nobody without the attempt's key can read it, or with
//! its bytes in the open and a MAC, for clusters whose other consumers should read them. Either way nobody without the
//! key can forge one, or move one to another place.
//!
//! ```text
//! key       job
//! headers   stream = stdout | stderr | system   offset = first byte   attempt       (decimal)
//!           rk = base64url(version ‖ format ‖ kind ‖ salt (16) ‖ counter (8) ‖ length (4) [‖ MAC (32)])
//!           open, besides: time = milliseconds since 1970 of the first byte; meta = base64url(meta)
//! value     sealed: AES-256-GCM(bytes ‖ meta)               open: bytes
//! covered   job length ‖ job ‖ attempt ‖ stream ‖ offset ‖ length ‖ salt ‖ version ‖ kind
//! ```
//!
//! What is covered is the cipher's additional data; the nonce is the counter. A MAC is HMAC-SHA256 over what is covered,
//! the counter, the meta's length, the meta and the bytes. `length` is that of the bytes, so that it says where the meta
//! begins. [`AttemptKey`] and the salt give the key: see there.
//!
//! The envelope stays as it is for ever; later versions change the meta. So a reader tells a record of a newer version,
//! which it must not pass over, from bytes that anybody with a right to write put there, which it must.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use bytes::Bytes;
use ring::{
    aead::{Aad, Nonce},
    hkdf, hmac,
};

use super::{
    Stream,
    key::{AttemptKey, JobKey, RecordKey},
    meta::{Body, Kind, Meta},
};
use crate::kafka;

const VERSION: u8 = 1;
const SALT: usize = 16;
const TAG: usize = 16;
const MAC: usize = 32;
/// The `rk` header's bytes without a MAC.
const ENVELOPE: usize = 3 + SALT + 8 + 4;
/// How many salts' keys a reader keeps. A shipper draws one at each start.
const KEPT_KEYS: usize = 8;

/// About how many bytes a record has beyond its own and those of its runs, the job's key included.
pub const OVERHEAD: usize = 512;

/// Whether others can read the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Nobody without the key reads them.
    #[default]
    Sealed,
    /// Whoever may read the topic reads them; a MAC shows who wrote them.
    Open,
}

/// A record that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The stream.
    pub stream: Stream,
    /// The position of the first byte; of an end, the stream's length.
    pub offset: u64,
    /// The bytes; none in an end or an index.
    pub bytes: Bytes,
    /// What it says beyond them.
    pub meta: Meta,
}

impl Opened {
    /// The streams' positions behind the record.
    pub fn after(&self) -> super::Positions {
        let mut after = self.meta.before;
        after[self.stream] = after[self.stream].saturating_add(self.bytes.len() as u64);
        after
    }
}

/// Why a record is not one of this attempt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// It says that it is another job's or attempt's.
    #[error("the record is another job's or attempt's")]
    Other,
    /// It says that it is this attempt's, and is not: some other writer's bytes.
    #[error("the record was not written with this attempt's key")]
    Forged,
    /// It is this attempt's, and of a version that we do not know.
    #[error("the record has version {0}, which is newer than this program")]
    Newer(u8),
}

/// Names one attempt's log and holds its key.
#[derive(Debug, Clone)]
pub struct Attempt {
    job: JobKey,
    number: u32,
    root: hkdf::Prk,
}

impl Attempt {
    /// Attempt `number` of `job`, with the key that the job's secret gives for them.
    pub fn new(job: JobKey, number: u32, key: &AttemptKey) -> Self {
        Self { job, number, root: key.root() }
    }

    /// The job.
    pub fn job(&self) -> &JobKey {
        &self.job
    }

    /// The attempt's number.
    pub fn number(&self) -> u32 {
        self.number
    }
}

/// Seals the records of one start of a shipper, from any number of threads.
pub struct Sealer {
    attempt: Attempt,
    format: Format,
    salt: [u8; SALT],
    key: RecordKey,
    counter: AtomicU64,
}

impl Sealer {
    /// `salt` must be random, and never used before: nonces are counted beneath it.
    pub fn new(attempt: Attempt, format: Format, salt: [u8; SALT]) -> Self {
        let key = RecordKey::new(&attempt.root, &salt);
        Self { attempt, format, salt, key, counter: AtomicU64::new(0) }
    }

    /// Seals one record in place. Keep it to send it again: sealed again it is another record.
    ///
    /// `offset` is the first byte's position, and that of `stream` in `meta.before`.
    pub fn seal(&self, stream: Stream, offset: u64, mut bytes: Vec<u8>, meta: &Meta) -> kafka::Record {
        let kind = meta.body.kind();
        let length = u32::try_from(bytes.len()).expect("a record is far below 4 GiB");
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let envelope = Envelope { version: VERSION, format: self.format, kind, salt: self.salt, counter, length };
        let covered = covered(&self.attempt, stream, offset, &envelope);
        let mut rk = envelope.encode();
        let mut headers = Vec::with_capacity(6);
        headers.push(("stream".to_owned(), Bytes::from_static(stream.name().as_bytes())));
        headers.push(("offset".to_owned(), offset.to_string().into()));
        headers.push(("attempt".to_owned(), self.attempt.number.to_string().into()));
        match self.format {
            Format::Sealed => {
                meta.encode(&mut bytes);
                let tag = self.key.seal.seal_in_place_separate_tag(nonce(counter), Aad::from(&covered), &mut bytes);
                bytes.extend_from_slice(tag.expect("a record is far below the cipher's limit").as_ref());
            }
            Format::Open => {
                let mut encoded = Vec::new();
                meta.encode(&mut encoded);
                rk.extend_from_slice(mac(&self.key.mac, &covered, counter, &encoded, &bytes).sign().as_ref());
                if let Some(time) = meta.body.time() {
                    headers.push(("time".to_owned(), time.to_string().into()));
                }
                headers.push(("meta".to_owned(), BASE64.encode(encoded).into()));
            }
        }
        headers.push(("rk".to_owned(), BASE64.encode(rk).into()));
        kafka::Record { key: self.attempt.job.bytes().clone(), value: bytes.into(), headers }
    }
}

/// Opens the records of one attempt.
pub struct Opener {
    attempt: Attempt,
    /// Only of salts that verified a record, so that others' records push none out.
    keys: VecDeque<([u8; SALT], RecordKey)>,
}

impl Opener {
    /// An opener for `attempt`.
    pub fn new(attempt: Attempt) -> Self {
        Self { attempt, keys: VecDeque::new() }
    }

    /// Verifies what lies in the topic. Takes any record; copies the bytes once, so that whoever keeps them does not keep
    /// all that was fetched together with them.
    pub fn open(&mut self, record: &kafka::Record) -> Result<Opened, Unopened> {
        if record.key != *self.attempt.job.bytes() {
            return Err(Unopened::Other);
        }
        match number::<u32>(record, "attempt") {
            Some(attempt) if attempt == self.attempt.number => self.verify(record).ok_or(Unopened::Forged)?,
            Some(_) => Err(Unopened::Other),
            None => Err(Unopened::Forged),
        }
    }

    /// `None` if it is forged.
    fn verify(&mut self, record: &kafka::Record) -> Option<Result<Opened, Unopened>> {
        let stream = Stream::from_name(header(record, "stream")?)?;
        let offset: u64 = number(record, "offset")?;
        let (envelope, tag) = Envelope::decode(&decode_base64(header(record, "rk")?)?)?;
        let kept = self.keys.iter().position(|(salt, _)| *salt == envelope.salt);
        let drawn = kept.is_none().then(|| RecordKey::new(&self.attempt.root, &envelope.salt));
        let key = match (kept, &drawn) {
            (Some(at), _) => &self.keys[at].1,
            (None, Some(key)) => key,
            (None, None) => return None,
        };
        let covered = covered(&self.attempt, stream, offset, &envelope);
        let (bytes, meta) = match envelope.format {
            Format::Sealed => unseal(key, &envelope, &covered, &record.value)?,
            Format::Open => check(key, &envelope, &covered, tag?, record)?,
        };
        if let Some(key) = drawn {
            self.keys.truncate(KEPT_KEYS - 1);
            self.keys.push_front((envelope.salt, key));
        }
        if envelope.version != VERSION {
            return Some(Err(Unopened::Newer(envelope.version)));
        }
        let meta = decode_meta(stream, offset, &envelope, &meta)?;
        // The one header that no MAC covers.
        if envelope.format == Format::Open && meta.body.time() != number(record, "time") {
            return None;
        }
        Some(Ok(Opened { stream, offset, bytes, meta }))
    }
}

/// Reads a verified meta, and holds it against the rest.
fn decode_meta(stream: Stream, offset: u64, envelope: &Envelope, bytes: &[u8]) -> Option<Meta> {
    let meta = Meta::decode(bytes, envelope.kind)?;
    let length = match &meta.body {
        Body::Data(runs) => runs.iter().map(|run| u64::from(run.length)).sum::<u64>(),
        Body::End(_) | Body::Index(_) => 0,
    };
    let stands = matches!(meta.body, Body::Index(_)) || meta.before[stream] == offset;
    let ends = offset.checked_add(length).is_some();
    (length == u64::from(envelope.length) && stands && ends).then_some(meta)
}

/// Decrypts; the bytes, and the meta behind them.
fn unseal(key: &RecordKey, envelope: &Envelope, covered: &[u8], value: &[u8]) -> Option<(Bytes, Bytes)> {
    let length = usize::try_from(envelope.length).ok()?;
    if value.len().checked_sub(TAG)? < length {
        return None;
    }
    let mut plain = value.to_vec();
    let opened = key.seal.open_in_place(nonce(envelope.counter), Aad::from(covered), &mut plain).ok()?.len();
    plain.truncate(opened);
    let mut bytes = Bytes::from(plain);
    let meta = bytes.split_off(length);
    Some((bytes, meta))
}

/// Checks the MAC; the bytes and the meta.
fn check(
    key: &RecordKey,
    envelope: &Envelope,
    covered: &[u8],
    tag: [u8; MAC],
    record: &kafka::Record,
) -> Option<(Bytes, Bytes)> {
    if record.value.len() != usize::try_from(envelope.length).ok()? {
        return None;
    }
    let meta = decode_base64(header(record, "meta")?)?;
    let mac = mac(&key.mac, covered, envelope.counter, &meta, &record.value).sign();
    bool::from(subtle::ConstantTimeEq::ct_eq(mac.as_ref(), &tag[..]))
        .then(|| (Bytes::copy_from_slice(&record.value), meta.into()))
}

fn mac(key: &hmac::Key, covered: &[u8], counter: u64, meta: &[u8], bytes: &[u8]) -> hmac::Context {
    let mut mac = hmac::Context::with_key(key);
    mac.update(covered);
    mac.update(&counter.to_be_bytes());
    mac.update(&(meta.len() as u64).to_be_bytes());
    mac.update(meta);
    mac.update(bytes);
    mac
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn covered(attempt: &Attempt, stream: Stream, offset: u64, envelope: &Envelope) -> Vec<u8> {
    let job = attempt.job.bytes();
    let mut covered = Vec::with_capacity(job.len() + 36);
    covered.push(job.len() as u8);
    covered.extend_from_slice(job);
    covered.extend_from_slice(&attempt.number.to_be_bytes());
    covered.push(stream as u8);
    covered.extend_from_slice(&offset.to_be_bytes());
    covered.extend_from_slice(&envelope.length.to_be_bytes());
    covered.extend_from_slice(&envelope.salt);
    covered.push(envelope.version);
    covered.push(envelope.kind as u8);
    covered
}

/// The `rk` header.
struct Envelope {
    version: u8,
    format: Format,
    kind: Kind,
    salt: [u8; SALT],
    counter: u64,
    length: u32,
}

impl Envelope {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENVELOPE + MAC);
        out.extend_from_slice(&[self.version, self.format as u8, self.kind as u8]);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.counter.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
        out
    }

    /// The envelope, and the MAC of an open record.
    fn decode(bytes: &[u8]) -> Option<(Self, Option<[u8; MAC]>)> {
        let (&[version, format, kind], rest) = bytes.split_first_chunk()?;
        let (&salt, rest) = rest.split_first_chunk()?;
        let (&counter, rest) = rest.split_first_chunk()?;
        let (&length, rest) = rest.split_first_chunk()?;
        let (format, mac) = match format {
            0 if rest.is_empty() => (Format::Sealed, None),
            1 => (Format::Open, Some(rest.try_into().ok()?)),
            _ => return None,
        };
        let kind = [Kind::Data, Kind::End, Kind::Index].into_iter().find(|known| *known as u8 == kind)?;
        let (counter, length) = (u64::from_be_bytes(counter), u32::from_be_bytes(length));
        Some((Self { version, format, kind, salt, counter, length }, mac))
    }
}

fn header<'a>(record: &'a kafka::Record, name: &str) -> Option<&'a [u8]> {
    record.headers.iter().find(|(header, _)| header == name).map(|(_, value)| &value[..])
}

fn number<T: std::str::FromStr>(record: &kafka::Record, name: &str) -> Option<T> {
    std::str::from_utf8(header(record, name)?).ok()?.parse().ok()
}

fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

#[cfg(test)]
#[path = "record_tests.rs"]
pub(in crate::bytelog) mod tests;
