//! What a record says beyond its bytes: when they were written, where the log stood, the way back. It is sealed with the
//! bytes, or covered by the MAC.
//!
//! ```text
//! meta  = topic id (16) ‖ batch + 1 ‖ index + 1 ‖ before (3) ‖ before − acked (3) ‖ body       LEB128 numbers
//! data  = count ‖ count × (time: zigzag, less the one before ‖ bytes)
//! end   = SHA-256 (32)
//! index = count ‖ count × (offset: zigzag, less the one before ‖ positions (3), less those before ‖ time: as above)
//! ```

use super::Stream;

/// How many times a record can tell, and how many points an index.
pub(super) const MAX_ITEMS: usize = 1024;

/// Byte positions in the three streams: how many bytes were written of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Positions(pub [u64; 3]);

impl std::ops::Index<Stream> for Positions {
    type Output = u64;

    fn index(&self, stream: Stream) -> &u64 {
        &self.0[stream as usize]
    }
}

impl std::ops::IndexMut<Stream> for Positions {
    fn index_mut(&mut self, stream: Stream) -> &mut u64 {
        &mut self.0[stream as usize]
    }
}

/// What a record says beyond its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The topic that `acked`, `batch` and `index` speak of; 0 if unknown.
    pub topic: u128,
    /// The highest offset at which a batch of this job had been acknowledged (of its first record) when this one was
    /// first sent. Whoever reads from there on finds every byte from `before` on.
    pub batch: Option<i64>,
    /// The offset of the latest index record.
    pub index: Option<i64>,
    /// The streams' positions before this record.
    pub before: Positions,
    /// Up to where all had been acknowledged: those bytes lie in front of this record in the log, or are lost.
    pub acked: Positions,
    /// What depends on the kind.
    pub body: Body,
}

/// The part that depends on a record's kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Bytes, with the time of each run of them.
    Data(Vec<Run>),
    /// The stream ends where this record stands; the digest of all its bytes.
    End([u8; 32]),
    /// Batches of this job that were acknowledged since the last index, in the order of their bytes.
    Index(Vec<Point>),
}

impl Body {
    /// The kind of record that has this body.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Data(_) => Kind::Data,
            Self::End(_) => Kind::End,
            Self::Index(_) => Kind::Index,
        }
    }

    /// The first time in it.
    pub fn time(&self) -> Option<i64> {
        match self {
            Self::Data(runs) => runs.first().map(|run| run.time),
            Self::End(_) => None,
            Self::Index(points) => points.first().map(|point| point.time),
        }
    }
}

/// Bytes of one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Milliseconds since 1970, by the agent's clock.
    pub time: i64,
    /// How many bytes.
    pub length: u32,
}

/// Where a batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The offset of its first record.
    pub offset: i64,
    /// The streams' positions before it.
    pub before: Positions,
    /// Its first time.
    pub time: i64,
}

impl Meta {
    /// Appends the meta.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.topic.to_be_bytes());
        for pointer in [self.batch, self.index] {
            put(out, pointer.map_or(0, |offset| offset as u64 + 1));
        }
        self.before.0.iter().for_each(|position| put(out, *position));
        for (before, acked) in self.before.0.iter().zip(&self.acked.0) {
            put(out, before.saturating_sub(*acked));
        }
        match &self.body {
            Body::Data(runs) => {
                put(out, runs.len() as u64);
                let mut last = 0;
                for run in runs {
                    put(out, zigzag(run.time.wrapping_sub(last)));
                    put(out, u64::from(run.length));
                    last = run.time;
                }
            }
            Body::End(digest) => out.extend_from_slice(digest),
            Body::Index(points) => encode_points(points, out),
        }
    }

    /// Reads a meta of that kind, to its last byte. Public for the fuzz target: the seal keeps foreign bytes from ever
    /// coming here.
    pub fn decode(bytes: &[u8], kind: Kind) -> Option<Self> {
        let mut rest = Rest(bytes);
        let topic = u128::from_be_bytes(rest.array()?);
        let batch = rest.pointer()?;
        let index = rest.pointer()?;
        let before = rest.positions()?;
        let lag = rest.positions()?;
        let mut acked = before;
        for (acked, lag) in acked.0.iter_mut().zip(lag.0) {
            *acked = acked.checked_sub(lag)?;
        }
        let body = match kind {
            Kind::Data => Body::Data(rest.runs()?),
            Kind::End => Body::End(rest.array()?),
            Kind::Index => Body::Index(rest.points()?),
        };
        rest.0.is_empty().then_some(Self { topic, batch, index, before, acked, body })
    }
}

/// What a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of a stream.
    Data,
    /// The end of a stream.
    End,
    /// Where batches lie. It belongs to no stream, and stands under `system` at 0.
    Index,
}

fn encode_points(points: &[Point], out: &mut Vec<u8>) {
    put(out, points.len() as u64);
    let mut last = Point { offset: 0, before: Positions::default(), time: 0 };
    for point in points {
        put(out, zigzag(point.offset.wrapping_sub(last.offset)));
        for (position, last) in point.before.0.iter().zip(last.before.0) {
            put(out, position.wrapping_sub(last));
        }
        put(out, zigzag(point.time.wrapping_sub(last.time)));
        last = *point;
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn pointer(&mut self) -> Option<Option<i64>> {
        match self.number()? {
            0 => Some(None),
            next => i64::try_from(next - 1).ok().map(Some),
        }
    }

    fn positions(&mut self) -> Option<Positions> {
        Some(Positions([self.number()?, self.number()?, self.number()?]))
    }

    /// A count of items that take at least `least` bytes each.
    fn count(&mut self, least: usize) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= MAX_ITEMS && *count <= self.0.len() / least)
    }

    fn runs(&mut self) -> Option<Vec<Run>> {
        let count = self.count(2)?;
        let mut runs = Vec::with_capacity(count);
        let mut time = 0_i64;
        for _ in 0..count {
            time = time.wrapping_add(self.signed()?);
            let length = u32::try_from(self.number()?).ok().filter(|length| *length > 0)?;
            runs.push(Run { time, length });
        }
        Some(runs)
    }

    fn points(&mut self) -> Option<Vec<Point>> {
        let count = self.count(5)?;
        let mut points = Vec::with_capacity(count);
        let mut last = Point { offset: 0, before: Positions::default(), time: 0 };
        for _ in 0..count {
            last.offset = last.offset.wrapping_add(self.signed()?);
            let more = self.positions()?;
            for (position, more) in last.before.0.iter_mut().zip(more.0) {
                *position = position.wrapping_add(more);
            }
            last.time = last.time.wrapping_add(self.signed()?);
            points.push(last);
        }
        Some(points)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn bodies() -> impl Strategy<Value = (Kind, Body)> {
        let runs = prop::collection::vec((any::<i64>(), 1..2000_u32), 1..20);
        let points = prop::collection::vec((0..i64::MAX, any::<[u64; 3]>(), any::<i64>()), 0..20);
        prop_oneof![
            runs.prop_map(|runs| {
                let runs = runs.into_iter().map(|(time, length)| Run { time, length });
                (Kind::Data, Body::Data(runs.collect()))
            }),
            any::<[u8; 32]>().prop_map(|digest| (Kind::End, Body::End(digest))),
            points.prop_map(|points| {
                let point = |(offset, before, time)| Point { offset, before: Positions(before), time };
                (Kind::Index, Body::Index(points.into_iter().map(point).collect()))
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_meta_reads_as_it_was_written(
            topic in any::<u128>(), batch in prop::option::of(0..i64::MAX), index in prop::option::of(0..i64::MAX),
            before in any::<[u64; 3]>(), lag in any::<[u64; 3]>(), (kind, body) in bodies(), cut in any::<usize>(),
        ) {
            let acked = [0, 1, 2].map(|i| before[i].saturating_sub(lag[i]));
            let (before, acked) = (Positions(before), Positions(acked));
            let meta = Meta { topic, batch, index, before, acked, body };
            let mut bytes = Vec::new();
            meta.encode(&mut bytes);
            prop_assert_eq!(Meta::decode(&bytes[..cut % bytes.len()], kind), None);
            prop_assert_eq!(Meta::decode(&bytes, kind), Some(meta));
            bytes.push(0);
            prop_assert_eq!(Meta::decode(&bytes, kind), None);
        }

        #[test]
        fn garbage_makes_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in [Kind::Data, Kind::End, Kind::Index] {
                let _ = Meta::decode(&bytes, kind);
            }
        }
    }
}
