//! What a snapshot's records carry, and how many payloads become few records.
//!
//! ```text
//! begin   = founding (1)                                   0 or 1
//! part    = (length (4) ‖ payload)*
//! end     = seq of the begin (8) ‖ number of parts (8)     big endian
//! ```
//!
//! Where the snapshot stands and what came before it is in every record's header: the begin's `prev` is the head over
//! all before it. The chain shows that no part is missing that its writer sealed; the end's number, that its writer
//! sealed all it meant to.
//!
//! The decoders are public for the fuzz target: the seal keeps foreign bytes from ever coming here.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::MAX_PAYLOAD;

/// A part's largest payload, unless one of its payloads alone exceeds it: a batch's worth, with room for a few events.
pub(super) const PART_BYTES: usize = 240 << 10;

const LENGTH: usize = 4;

/// Where a snapshot was begun. The state that belongs into it is the fold of all events before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Its writer's epoch.
    pub epoch: u32,
    /// The begin's number within the epoch.
    pub seq: u64,
    /// The begin's offset in the topic.
    pub offset: i64,
}

/// The begin's payload.
pub(super) fn encode_begin(founding: bool) -> Bytes {
    Bytes::copy_from_slice(&[u8::from(founding)])
}

/// Whether a begin's snapshot replaces what is before it; none for other bytes than ours.
pub fn decode_begin(payload: &[u8]) -> Option<bool> {
    match payload {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

/// What an end says of its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The begin's seq.
    pub begin: u64,
    /// How many parts are between.
    pub parts: u64,
}

impl End {
    pub(super) fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(16);
        bytes.put_u64(self.begin);
        bytes.put_u64(self.parts);
        bytes.freeze()
    }

    /// Decodes an end's payload; none for other bytes than ours.
    pub fn decode(mut payload: &[u8]) -> Option<Self> {
        if payload.len() != 16 {
            return None;
        }
        Some(Self { begin: payload.get_u64(), parts: payload.get_u64() })
    }
}

/// A part that is being filled.
#[derive(Debug, Default)]
pub(super) struct Part(BytesMut);

impl Part {
    /// Adds `payload`, of no more than [`MAX_PAYLOAD`], and returns what was full before it.
    pub(super) fn push(&mut self, payload: &[u8], part_bytes: usize) -> Option<Bytes> {
        let length = u32::try_from(payload.len()).expect("a payload is below its limit");
        let is_full = self.0.len() + LENGTH + payload.len() > part_bytes && !self.0.is_empty();
        let full = is_full.then(|| self.0.split().freeze());
        self.0.put_u32(length);
        self.0.put_slice(payload);
        full
    }

    /// What was pushed last.
    pub(super) fn finish(self) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| self.0.freeze())
    }
}

/// The payloads of a part, which share its bytes; none if they are not ours.
pub fn decode_part(mut part: Bytes) -> Option<Vec<Bytes>> {
    let mut payloads = Vec::new();
    while !part.is_empty() {
        let length = part.try_get_u32().ok()? as usize;
        if length > MAX_PAYLOAD.min(part.len()) {
            return None;
        }
        payloads.push(part.split_to(length));
    }
    Some(payloads)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_of_a_snapshot_stay_as_they_are() {
        assert_eq!(encode_begin(false)[..], [0]);
        assert_eq!(encode_begin(true)[..], [1]);
        let end = End { begin: 0x0102, parts: 3 };
        assert_eq!(end.encode()[..], [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        let mut part = Part::default();
        assert_eq!((part.push(b"ab", 100), part.push(b"", 100), part.push(b"c", 100)), (None, None, None));
        assert_eq!(part.finish().expect("a part")[..], *b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c");
    }

    proptest! {
        #[test]
        fn payloads_come_back_in_order_from_parts_that_are_full(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..40), limit in 1..120usize,
        ) {
            let mut part = Part::default();
            let mut parts: Vec<_> = payloads.iter().filter_map(|payload| part.push(payload, limit)).collect();
            parts.extend(part.finish());
            prop_assert!(parts.windows(2).all(|two| two[0].len() + two[1].len() > limit));
            let decoded: Vec<_> = parts.into_iter().map(|part| (part.len(), decode_part(part).expect("ours"))).collect();
            prop_assert!(decoded.iter().all(|(length, payloads)| *length <= limit || payloads.len() == 1));
            let decoded: Vec<_> = decoded.into_iter().flat_map(|(_, payloads)| payloads).collect();
            prop_assert_eq!(decoded, payloads);
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(decode_begin(&bytes).map(encode_begin), decode_begin(&bytes).map(|_| Bytes::from(bytes.clone())));
            prop_assert_eq!(End::decode(&bytes).is_some(), bytes.len() == 16);
            for payload in decode_part(bytes.into()).into_iter().flatten() {
                prop_assert!(payload.len() <= 60);
            }
        }
    }
}
