//! The tail of a partition in memory, so that a reader that keeps up never touches the disk.

use super::batch::Header;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// The newest batches, without gaps, of a bounded number of bytes (and always the very newest).
#[derive(Debug)]
pub(crate) struct Tail {
    batches: VecDeque<Cached>,
    bytes: usize,
    most: usize,
}

#[derive(Debug)]
struct Cached {
    first: i64,
    last: i64,
    bytes: Bytes,
}

impl Tail {
    pub fn new(most: usize) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, most }
    }

    /// Adds the batch that follows the newest one.
    pub fn push(&mut self, header: &Header, bytes: Bytes) {
        self.bytes += bytes.len();
        self.batches.push_back(Cached { first: header.base_offset, last: header.last_offset(), bytes });
        while self.bytes > self.most && self.batches.len() > 1 {
            let oldest = self.batches.pop_front().expect("more than one batch is there");
            self.bytes -= oldest.bytes.len();
        }
    }

    /// Whole batches from the one that holds `offset` on, at most `most` bytes, but the first one whatever its size
    /// if `at_least_one`. None: `offset` is older than what is kept here.
    pub fn read(&self, offset: i64, most: usize, at_least_one: bool) -> Option<Bytes> {
        let start = self.batches.partition_point(|b| b.last < offset);
        let first = self.batches.get(start).filter(|b| b.first <= offset)?;
        if first.bytes.len() > most {
            return Some(if at_least_one { first.bytes.clone() } else { Bytes::new() });
        }
        let mut total = 0;
        let fitting = self.batches.range(start..).take_while(|b| {
            total += b.bytes.len();
            total <= most
        });
        let count = fitting.count();
        if count == 1 {
            return Some(first.bytes.clone());
        }
        let chosen = || self.batches.range(start..start + count);
        let mut joined = BytesMut::with_capacity(chosen().map(|b| b.bytes.len()).sum());
        chosen().for_each(|b| joined.extend_from_slice(&b.bytes));
        Some(joined.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::{Incoming, tests::produced};
    use super::*;

    fn tail(most: usize, batches: i64) -> (Tail, usize) {
        let mut tail = Tail::new(most);
        let mut size = 0;
        for offset in 0..batches {
            let (header, bytes) = Incoming::check(&produced(&[b"x", b"y"], 1, None), None).unwrap().place(offset * 2);
            size = bytes.len();
            tail.push(&header, bytes);
        }
        (tail, size)
    }

    #[test]
    fn reading_joins_whole_batches_from_the_one_that_holds_the_offset() {
        let (tail, size) = tail(1 << 20, 5);
        let read = tail.read(3, size * 2 + 1, true).unwrap();
        assert_eq!(read.len(), size * 2);
        assert_eq!(Header::read(&read).unwrap().base_offset, 2);
        assert_eq!(tail.read(3, 1, false).unwrap().len(), 0);
        assert_eq!(tail.read(3, 1, true).unwrap().len(), size);
    }

    #[test]
    fn what_is_too_old_is_not_answered() {
        let (tail, size) = tail(1, 5);
        assert!(tail.read(7, 100, true).is_none());
        assert_eq!(tail.read(8, 10_000, true).unwrap().len(), size);
    }
}
