//! Output cut into lines, for those who show who printed it.

use bytes::BytesMut;

/// A longer line is shown in pieces.
const LONGEST: usize = 64 << 10;

/// What came of one stream and is no whole line yet.
#[derive(Debug, Default)]
pub struct Lines(BytesMut);

impl Lines {
    /// Takes what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole line with its end, or a piece of one that is too long.
    pub fn next(&mut self) -> Option<BytesMut> {
        match self.0.iter().take(LONGEST).position(|byte| *byte == b'\n') {
            Some(end) => Some(self.0.split_to(end + 1)),
            None if self.0.len() >= LONGEST => Some(self.0.split_to(LONGEST)),
            None => None,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left at the end: a line without its end.
    pub fn rest(&mut self) -> Option<BytesMut> {
        let rest = std::mem::take(&mut self.0);
        (!rest.is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_long_ones_come_in_pieces() {
        let mut lines = Lines::default();
        lines.push(b"one\ntw");
        assert_eq!(lines.next().as_deref(), Some(&b"one\n"[..]));
        assert_eq!(lines.next(), None);
        lines.push(b"o");
        assert_eq!(lines.rest().as_deref(), Some(&b"two"[..]));
        assert_eq!(lines.rest(), None);
        lines.push(&vec![b'x'; LONGEST + 1]);
        assert_eq!(lines.next().map(|piece| piece.len()), Some(LONGEST));
        assert_eq!(lines.next(), None);
    }
}
