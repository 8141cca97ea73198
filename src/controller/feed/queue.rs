//! What waits to be written: bounded in bytes, in the order in which it was told. Pure.
//!
//! What anybody who reaches the API's port can cause has a share of its own: a flood of wrong tokens displaces no job.

use std::collections::VecDeque;

use bytes::Bytes;

use super::event::Place;

/// What the lives of agents and jobs may take: about 10,000 events.
const LIVES: usize = 6 << 20;
/// What requests to the API may take.
const ACCESS: usize = 2 << 20;

/// An event that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// To whom it happened.
    pub key: Bytes,
    /// The event.
    pub value: Bytes,
    /// Where it stands in the journal, if another controller may have written it already.
    pub repeats: Option<Place>,
    /// Whether it is about a request to the API.
    pub is_access: bool,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    lives: Share,
    access: Share,
    next: u64,
}

#[derive(Debug)]
struct Share {
    lines: VecDeque<(u64, Line)>,
    bytes: usize,
    most: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(LIVES, ACCESS)
    }
}

impl Queue {
    /// At most so many bytes of each.
    pub fn new(lives: usize, access: usize) -> Self {
        let share = |most| Share { lines: VecDeque::new(), bytes: 0, most };
        Self { lives: share(lives), access: share(access), next: 0 }
    }

    /// Puts an event behind the others. How many were dropped for it: the oldest of its share, for what is newest says how
    /// things are.
    pub fn push(&mut self, line: Line) -> usize {
        let number = self.next;
        self.next += 1;
        let share = if line.is_access { &mut self.access } else { &mut self.lives };
        share.bytes += line.size();
        share.lines.push_back((number, line));
        let mut dropped = 0;
        while share.bytes > share.most && share.pop().is_some() {
            dropped += 1;
        }
        dropped
    }

    /// Takes the oldest events: at least one if there is any, of no more than `most` bytes if there are more.
    pub fn batch(&mut self, most: usize) -> Vec<Line> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(share) = self.oldest() {
            let size = share.lines.front().map_or(0, |(_, line)| line.size());
            if bytes + size > most && !batch.is_empty() {
                break;
            }
            bytes += size;
            batch.extend(share.pop());
        }
        batch
    }

    /// Leaves of those that repeat only the ones for which `keep` says so. How many went.
    pub fn retain_repeated(&mut self, keep: impl Fn(Place) -> bool) -> usize {
        let before = self.lives.lines.len();
        self.lives.lines.retain(|(_, line)| line.repeats.is_none_or(&keep));
        self.lives.bytes = self.lives.lines.iter().map(|(_, line)| line.size()).sum();
        before - self.lives.lines.len()
    }

    fn oldest(&mut self) -> Option<&mut Share> {
        let number = |share: &Share| share.lines.front().map(|(number, _)| *number);
        match (number(&self.lives), number(&self.access)) {
            (None, None) => None,
            (Some(life), Some(access)) if access < life => Some(&mut self.access),
            (None, Some(_)) => Some(&mut self.access),
            (Some(_), _) => Some(&mut self.lives),
        }
    }
}

impl Share {
    fn pop(&mut self) -> Option<Line> {
        let (_, line) = self.lines.pop_front()?;
        self.bytes -= line.size();
        Some(line)
    }
}

impl Line {
    /// What it takes, about.
    fn size(&self) -> usize {
        self.key.len() + self.value.len() + 128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of 1000 bytes.
    fn line(name: &str, is_access: bool) -> Line {
        let value = Bytes::from(format!("{name:>0$}", 1000 - 128 - 1));
        Line { key: Bytes::from_static(b"k"), value, repeats: None, is_access }
    }

    fn names(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| std::str::from_utf8(&line.value).expect("text").trim_start()).collect()
    }

    #[test]
    fn the_order_is_that_of_the_telling_and_batches_are_bounded() {
        let mut queue = Queue::default();
        for (name, is_access) in [("1", false), ("2", true), ("3", true), ("4", false), ("5", false)] {
            assert_eq!(queue.push(line(name, is_access)), 0);
        }
        assert_eq!(names(&queue.batch(3999)), ["1", "2", "3"]);
        assert_eq!(names(&queue.batch(1)), ["4"], "one that is larger goes alone");
        assert_eq!(names(&queue.batch(4000)), ["5"]);
        assert!(queue.batch(4000).is_empty());
    }

    #[test]
    fn a_full_share_drops_its_oldest_and_leaves_the_other_alone() {
        let mut queue = Queue::new(3000, 2000);
        assert_eq!(queue.push(line("job", false)), 0);
        let dropped: usize = (0..1000).map(|guess| queue.push(line(&guess.to_string(), true))).sum();
        assert_eq!(dropped, 998);
        assert_eq!(names(&queue.batch(usize::MAX)), ["job", "998", "999"]);
        let dropped: usize = (0..5).map(|number| queue.push(line(&number.to_string(), false))).sum();
        assert_eq!((dropped, names(&queue.batch(usize::MAX))), (2, vec!["2", "3", "4"]));
        assert_eq!((queue.lives.bytes, queue.access.bytes), (0, 0));
        let mut small = Queue::new(999, 999);
        assert_eq!(small.push(line("x", false)), 1, "one that is too large is dropped itself");
        assert!(small.batch(1).is_empty());
    }

    #[test]
    fn what_repeats_can_be_taken_out() {
        let mut queue = Queue::default();
        for seq in 1..=4 {
            let place = Place { journal: 1, epoch: 1, seq };
            queue.push(Line { repeats: (seq < 4).then_some(place), ..line(&seq.to_string(), false) });
        }
        assert_eq!(queue.retain_repeated(|place| place.seq > 2), 2);
        assert_eq!(queue.lives.bytes, 2000);
        assert_eq!(names(&queue.batch(usize::MAX)), ["3", "4"]);
    }
}
