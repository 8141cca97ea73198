//! Packs what a job writes into records and batches. Pure: the [`shipper`](super::shipper) sends.
//!
//! A record holds bytes of one stream without a gap. One that is not sent yet takes more bytes, so that a slow cluster gets
//! fewer and larger records; the bytes of another stream begin a new one, so that a reader sees the streams in the order in
//! which they were written.

use std::collections::VecDeque;

use super::{
    Stream,
    meta::{Body, MAX_ITEMS, Positions, Run},
    record::OVERHEAD,
};

/// About how many bytes one time of a record takes in its meta, which the open format writes as base64.
const RUN: usize = 20;

/// A record to be sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) stream: Stream,
    /// The streams' positions before it.
    pub(super) before: Positions,
    pub(super) bytes: Vec<u8>,
    pub(super) body: Body,
}

impl Draft {
    /// About what it takes in a batch.
    fn size(&self) -> usize {
        let runs = if let Body::Data(runs) = &self.body { runs.len() } else { 0 };
        self.bytes.len() + OVERHEAD + runs * RUN
    }
}

/// Records in the order of their bytes.
pub(super) struct Packer {
    max_record: usize,
    max_batch: usize,
    drafts: VecDeque<Draft>,
    /// The sizes of `drafts`.
    size: usize,
    /// Up to where bytes were taken.
    taken: Positions,
    /// How many drafts were ever begun.
    begun: u64,
    /// Whether the last draft filled up: then the next one will, and gets its room at once.
    fills: bool,
}

impl Packer {
    /// Records of at most `max_record` bytes, in batches of about `max_batch` at most, from `start` on.
    pub(super) fn new(max_record: usize, max_batch: usize, start: Positions) -> Self {
        Self { max_record, max_batch, drafts: VecDeque::new(), size: 0, taken: start, begun: 0, fills: false }
    }

    /// Up to where bytes were taken.
    pub(super) fn taken(&self) -> Positions {
        self.taken
    }

    /// How many records were ever begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// How many bytes wait, about.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Takes the first bytes of `bytes` behind those that were taken, as many as one record has room for while fewer than
    /// two batches wait. Returns how many; none if there is no room.
    pub(super) fn push(&mut self, stream: Stream, time: i64, bytes: &[u8]) -> usize {
        if self.size >= 2 * self.max_batch || bytes.is_empty() {
            return 0;
        }
        let length = match self.drafts.back_mut().and_then(|draft| room(draft, stream, time, self.max_record)) {
            Some(room) => room.min(bytes.len()),
            None => {
                let length = self.max_record.min(bytes.len());
                let capacity = if self.fills { self.max_record } else { length } + OVERHEAD;
                self.fills = false;
                self.begin(stream, Vec::with_capacity(capacity), Body::Data(Vec::new()));
                length
            }
        };
        let draft = self.drafts.back_mut().expect("one was begun");
        let before = draft.size();
        draft.bytes.extend_from_slice(&bytes[..length]);
        if let Body::Data(runs) = &mut draft.body {
            match runs.last_mut() {
                Some(run) if run.time == time => run.length += length as u32,
                _ => runs.push(Run { time, length: length as u32 }),
            }
        }
        self.fills |= draft.bytes.len() == self.max_record;
        self.size += draft.size() - before;
        self.taken[stream] += length as u64;
        length
    }

    /// The end of `stream`.
    pub(super) fn end(&mut self, stream: Stream, digest: [u8; 32]) {
        self.begin(stream, Vec::new(), Body::End(digest));
    }

    fn begin(&mut self, stream: Stream, bytes: Vec<u8>, body: Body) {
        let draft = Draft { stream, before: self.taken, bytes, body };
        self.size += draft.size();
        self.begun += 1;
        self.drafts.push_back(draft);
    }

    /// The first records, one at least, up to a batch's limit. Empty if none wait.
    pub(super) fn take(&mut self) -> Vec<Draft> {
        let mut batch = Vec::new();
        let mut size = 0;
        while let Some(draft) = self.drafts.front() {
            size += draft.size();
            if size > self.max_batch && !batch.is_empty() {
                break;
            }
            self.size -= draft.size();
            batch.extend(self.drafts.pop_front());
        }
        batch
    }
}

/// How many more bytes `draft` takes, if it takes any with this stream and time.
fn room(draft: &Draft, stream: Stream, time: i64, max_record: usize) -> Option<usize> {
    let Body::Data(runs) = &draft.body else { return None };
    let another = runs.last().is_none_or(|run| run.time != time);
    let fits = draft.stream == stream && !(another && runs.len() >= MAX_ITEMS);
    (fits && draft.bytes.len() < max_record).then(|| max_record - draft.bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_of_one_stream_share_a_record_and_another_stream_begins_a_new_one() {
        let mut packer = Packer::new(100, 10_000, Positions([7, 0, 0]));
        for (stream, time, bytes) in
            [(Stream::Stdout, 1, "ab"), (Stream::Stdout, 1, "c"), (Stream::Stdout, 2, "d"), (Stream::Stderr, 2, "e")]
        {
            assert_eq!(packer.push(stream, time, bytes.as_bytes()), bytes.len());
        }
        let batch = packer.take();
        let runs = vec![Run { time: 1, length: 3 }, Run { time: 2, length: 1 }];
        assert_eq!(batch.len(), 2);
        assert_eq!((&batch[0].bytes[..], &batch[0].body), (&b"abcd"[..], &Body::Data(runs)));
        assert_eq!((batch[0].before, batch[1].before), (Positions([7, 0, 0]), Positions([11, 0, 0])));
        assert_eq!((packer.taken(), packer.size(), packer.begun()), (Positions([11, 1, 0]), 0, 2));
        assert!(packer.take().is_empty());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut packer = Packer::new(1000, 5000, Positions::default());
        let mut taken = 0;
        loop {
            match packer.push(Stream::Stdout, 0, &[0; 300]) {
                0 => break,
                more => taken += more,
            }
        }
        assert!((6000..12_000).contains(&taken), "{taken}");
        assert!(packer.size() < 12_000);
        assert!(!packer.take().is_empty());
        assert!(packer.push(Stream::Stdout, 0, &[0; 300]) > 0);
    }

    proptest! {
        #[test]
        fn whatever_is_pushed_comes_out_in_order_and_within_the_limits(
            chunks in prop::collection::vec((0..3_usize, 0..4_i64, 1..700_usize), 0..60),
        ) {
            let mut packer = Packer::new(500, 3000, Positions::default());
            let (mut written, mut sent) = ([vec![], vec![], vec![]], [vec![], vec![], vec![]]);
            let mut send = |packer: &mut Packer| {
                let batch = packer.take();
                prop_assert!(batch.iter().map(Draft::size).sum::<usize>() <= 3000);
                for draft in batch {
                    prop_assert!(draft.bytes.len() <= 500);
                    let sent = &mut sent[draft.stream as usize];
                    prop_assert_eq!(draft.before[draft.stream], sent.len() as u64);
                    let Body::Data(runs) = draft.body else { panic!("no end was pushed") };
                    let runs = runs.iter().flat_map(|run| std::iter::repeat_n(run.time, run.length as usize));
                    sent.extend(draft.bytes.into_iter().zip(runs));
                }
                Ok(())
            };
            for (index, (stream, time, length)) in chunks.into_iter().enumerate() {
                let bytes = vec![index as u8; length];
                let mut from = 0;
                while from < length {
                    let taken = packer.push(Stream::ALL[stream], time, &bytes[from..]);
                    from += taken;
                    if taken == 0 {
                        send(&mut packer)?;
                    }
                }
                written[stream].extend(bytes.into_iter().map(|byte| (byte, time)));
            }
            while packer.size() > 0 {
                send(&mut packer)?;
            }
            prop_assert_eq!(written, sent);
        }
    }
}
