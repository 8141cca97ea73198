//! The bytes of one record of the journal: what lies in the topic, sealed so that nobody without the state key can read
//! it, forge it, or move it to another topic.
//!
//! ```text
//! sealed  = format (1) ‖ writer (16) ‖ nonce (12) ‖ ChaCha20-Poly1305(body), additional data = format ‖ writer
//! body    = version (1) ‖ kind (1) ‖ epoch (4) ‖ seq (8) ‖ prev (32) ‖ payload           big endian
//! key     = HKDF-SHA256(state key, info = writer ‖ topic)
//! ```
//!
//! A writer is drawn anew for each claim, so a key seals the records of one tenure; nonces are random beneath it, so
//! that even a copy of the whole machine does not use one twice for different bytes. A record is sealed once: who sends
//! it again sends the same bytes.
//!
//! The envelope stays as it is for ever; later versions change the body. So a reader tells a record of a newer version,
//! which it must not pass over, from bytes that anybody with a right to write put there, which it must.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};

use super::head::Head;
use crate::secret::Secret;

const FORMAT: u8 = 1;
const VERSION: u8 = 1;
const WRITER: usize = 16;
const ENVELOPE: usize = 1 + WRITER + NONCE_LEN;
const TAG: usize = 16;
const BODY: usize = 1 + 1 + 4 + 8 + 32;

/// How many bytes a sealed record has beyond its payload.
pub const OVERHEAD: usize = ENVELOPE + BODY + TAG;

/// The key under which the journal is sealed, derived from the controller's identity: who has the identity file can
/// read and write the state.
#[derive(Debug, Clone)]
pub struct StateKey(Secret<[u8; 32]>);

impl StateKey {
    /// Takes the 32 bytes that the identity derives for the label `journal`.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Secret::new(bytes))
    }
}

/// What a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its writer takes the journal over.
    Claim,
    /// Something happened; the payload says what, to those above.
    Event,
    /// The state as of here follows, in parts, while events go on.
    SnapshotBegin,
    /// A part of the snapshot that was begun last.
    SnapshotPart,
    /// The snapshot that was begun last is whole.
    SnapshotEnd,
    /// A kind of a newer version. It must not be passed over where it is valid.
    Other(u8),
}

impl Kind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Claim => 1,
            Self::Event => 2,
            Self::SnapshotBegin => 3,
            Self::SnapshotPart => 4,
            Self::SnapshotEnd => 5,
            Self::Other(byte) => byte,
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Claim,
            2 => Self::Event,
            3 => Self::SnapshotBegin,
            4 => Self::SnapshotPart,
            5 => Self::SnapshotEnd,
            other => Self::Other(other),
        }
    }
}

/// One record, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is for.
    pub kind: Kind,
    /// The writer's epoch.
    pub epoch: u32,
    /// Who wrote it: random, drawn for each claim.
    pub writer: u128,
    /// Its number within the writer's tenure: the claim is 0.
    pub seq: u64,
    /// The head that the writer appended to.
    pub prev: Head,
    /// Bytes of those above in an event, of a [`snapshot`](super::snapshot) in its kinds; empty in a claim.
    pub payload: Bytes,
}

/// Why a record could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// It is not sealed under our key, for this topic: some other writer's bytes.
    #[error("the record is not sealed under this journal's key")]
    Foreign,
    /// It is sealed under our key, and of a version that we do not know.
    #[error("the record has version {0}, which is newer than this program")]
    Newer(u8),
}

/// Seals and opens the records of one topic.
#[derive(Debug)]
pub struct Codec {
    root: hkdf::Prk,
    topic: String,
    /// The last writer's key: nearly all records are of the writer before, and deriving a key costs more than opening.
    last: Mutex<Option<(u128, LessSafeKey)>>,
}

impl Codec {
    /// The codec of `topic` under `key`.
    pub fn new(key: &StateKey, topic: &str) -> Self {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"remoting-kafka journal").extract(key.0.expose());
        Self { root, topic: topic.to_owned(), last: Mutex::default() }
    }

    /// Seals `record`. `nonce` must be random. Keep the bytes: a record that is sealed again is another record.
    pub fn seal(&self, record: &Record, nonce: [u8; NONCE_LEN]) -> Bytes {
        let mut sealed = Vec::with_capacity(OVERHEAD + record.payload.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&record.writer.to_be_bytes());
        sealed.extend_from_slice(&nonce);
        encode_body(record, &mut sealed);
        let (envelope, body) = sealed.split_at_mut(ENVELOPE);
        let tag = self
            .key(record.writer)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&envelope[..ENVELOPE - NONCE_LEN]),
                body,
            )
            .expect("a record is far below the cipher's limit");
        sealed.extend_from_slice(tag.as_ref());
        sealed.into()
    }

    /// Opens what lies in the topic. Takes any bytes, and copies them once.
    pub fn open(&self, sealed: &[u8]) -> Result<Record, Unopened> {
        let (envelope, body) = sealed.split_at_checked(ENVELOPE).ok_or(Unopened::Foreign)?;
        let (&format, writer_and_nonce) = envelope.split_first().ok_or(Unopened::Foreign)?;
        if format != FORMAT {
            return Err(Unopened::Foreign);
        }
        let (writer, nonce) = writer_and_nonce.split_at(WRITER);
        let writer = u128::from_be_bytes(writer.try_into().map_err(|_| Unopened::Foreign)?);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unopened::Foreign)?;
        let mut body = body.to_vec();
        let length = self
            .key(writer)
            .open_in_place(nonce, Aad::from(&envelope[..ENVELOPE - NONCE_LEN]), &mut body)
            .map_err(|_| Unopened::Foreign)?
            .len();
        body.truncate(length);
        decode_body(writer, body.into())
    }

    fn key(&self, writer: u128) -> LessSafeKey {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = last.as_ref().filter(|(of, _)| *of == writer) {
            return key.clone();
        }
        let name = writer.to_be_bytes();
        let info = [&name[..], self.topic.as_bytes()];
        let okm = self.root.expand(&info, &CHACHA20_POLY1305).expect("the key is within HKDF's reach");
        let key = LessSafeKey::new(UnboundKey::from(okm));
        *last = Some((writer, key.clone()));
        key
    }
}

fn encode_body(record: &Record, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.push(record.kind.to_byte());
    out.extend_from_slice(&record.epoch.to_be_bytes());
    out.extend_from_slice(&record.seq.to_be_bytes());
    out.extend_from_slice(&record.prev.0);
    out.extend_from_slice(&record.payload);
}

/// Decodes an opened body. Public for the fuzz target: the seal keeps foreign bytes from ever coming here.
pub fn decode_body(writer: u128, body: Bytes) -> Result<Record, Unopened> {
    let version = *body.first().ok_or(Unopened::Foreign)?;
    if version != VERSION {
        return Err(Unopened::Newer(version));
    }
    let (header, _) = body.split_first_chunk::<BODY>().ok_or(Unopened::Foreign)?;
    let kind = Kind::from_byte(header[1]);
    let epoch = u32::from_be_bytes(header[2..6].try_into().expect("4 bytes"));
    let seq = u64::from_be_bytes(header[6..14].try_into().expect("8 bytes"));
    let prev = Head(header[14..BODY].try_into().expect("32 bytes"));
    Ok(Record { kind, epoch, writer, seq, prev, payload: body.slice(BODY..) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn codec() -> Codec {
        Codec::new(&StateKey::new([7; 32]), "rk.journal")
    }

    fn example() -> Record {
        Record {
            kind: Kind::Event,
            epoch: 3,
            writer: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
            seq: 42,
            prev: Head([9; 32]),
            payload: Bytes::from_static(b"agent added"),
        }
    }

    /// Written by version 1 and never changed: what lies in a topic stays readable.
    const GOLDEN: &str = concat!(
        "010102030405060708090a0b0c0d0e0f10050505050505050505050505a01502201c28fe77145d5f8653a049798602e2",
        "b668ce6b16543be2b2618d854ad063707c24e5a0dcc855645bef18a1ad3ae6f4474da856f575d56a83b827061ac8ec6f",
        "4894eae45b7f",
    );

    /// The kinds' bytes, which stay as they are too.
    const KINDS: [(Kind, u8); 6] = [
        (Kind::Claim, 1),
        (Kind::Event, 2),
        (Kind::SnapshotBegin, 3),
        (Kind::SnapshotPart, 4),
        (Kind::SnapshotEnd, 5),
        (Kind::Other(6), 6),
    ];

    /// A snapshot's begin, written when there first were any.
    const GOLDEN_BEGIN: &str = concat!(
        "010102030405060708090a0b0c0d0e0f10050505050505050505050505a01402201c28fe77145d5f8653a049798602e2",
        "b668ce6b16543be2b2618d854ad063707c24e5a0dcc855645bef18c1f2f7efe3156e3575c4b94e4f8481789e",
    );

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_of_version_1_stay_as_they_are() {
        let sealed = codec().seal(&example(), [5; 12]);
        assert_eq!(hex(&sealed), GOLDEN);
        assert_eq!(sealed.len(), OVERHEAD + example().payload.len());
        assert_eq!(codec().open(&sealed), Ok(example()));
        assert_eq!(
            Head::default().after(&sealed).to_string(),
            "c6213e42a7c1777248c90799718c8941806bec70dfed229710f6d9117d97d93f"
        );
    }

    #[test]
    fn the_bytes_of_all_kinds_stay_as_they_are() {
        for (kind, byte) in KINDS {
            assert_eq!((kind.to_byte(), Kind::from_byte(byte)), (byte, kind));
        }
        let begin = Record { kind: Kind::SnapshotBegin, payload: Bytes::from_static(&[1]), ..example() };
        let sealed = codec().seal(&begin, [5; 12]);
        assert_eq!(hex(&sealed), GOLDEN_BEGIN);
        assert_eq!(codec().open(&sealed), Ok(begin));
    }

    #[test]
    fn no_other_key_topic_or_changed_byte_opens_a_record() {
        let sealed = codec().seal(&example(), [5; 12]);
        assert_eq!(Codec::new(&StateKey::new([8; 32]), "rk.journal").open(&sealed), Err(Unopened::Foreign));
        assert_eq!(Codec::new(&StateKey::new([7; 32]), "rk2.journal").open(&sealed), Err(Unopened::Foreign));
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert_eq!(codec().open(&changed), Err(Unopened::Foreign), "byte {at}");
            assert_eq!(codec().open(&sealed[..at]), Err(Unopened::Foreign), "cut to {at}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_foreign_bytes() {
        let mut body = Vec::new();
        encode_body(&example(), &mut body);
        body[0] = 2;
        assert_eq!(decode_body(1, body.into()), Err(Unopened::Newer(2)));
        let other = Record { kind: Kind::Other(6), ..example() };
        assert_eq!(codec().open(&codec().seal(&other, [0; 12])), Ok(other));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(
            kind in any::<u8>(), epoch in any::<u32>(), writer in any::<u128>(), seq in any::<u64>(),
            prev in any::<[u8; 32]>(), payload in prop::collection::vec(any::<u8>(), 0..300), nonce in any::<[u8; 12]>(),
        ) {
            let kind = Kind::from_byte(kind);
            let record = Record { kind, epoch, writer, seq, prev: Head(prev), payload: payload.into() };
            prop_assert_eq!(codec().open(&codec().seal(&record, nonce)), Ok(record));
        }

        #[test]
        fn garbage_is_refused_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(codec().open(&bytes).is_err());
            if let Some(first) = bytes.first_mut() {
                *first = 1;
            }
            prop_assert!(codec().open(&bytes).is_err());
            let _ = decode_body(0, bytes.into());
        }
    }
}
