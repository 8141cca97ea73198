//! What is known of an execution's stdin beyond the connections that carry it: what the process did not take stays here.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Buf, Bytes};
use tokio::sync::Semaphore;

use crate::api::{
    exec::{MAX_PAYLOAD, STDIN_WINDOW},
    frames::ToController,
};

/// What is known of stdin.
pub(super) struct Stdin {
    pieces: VecDeque<Bytes>,
    /// Where they begin.
    base: u64,
    end: u64,
    /// No more comes.
    pub ended: bool,
    /// Where the connection goes on.
    sent: u64,
    end_sent: bool,
    /// How much the controller takes on this connection.
    pub credit: u64,
    /// Room for more, given back when the process takes some.
    room: Arc<Semaphore>,
}

impl Stdin {
    /// Stdin from its byte `at` on; `room` is given back what the process takes.
    pub fn new(at: u64, room: Arc<Semaphore>) -> Self {
        Self {
            pieces: VecDeque::new(),
            base: at,
            end: at,
            ended: false,
            sent: at,
            end_sent: false,
            credit: u64::from(STDIN_WINDOW),
            room,
        }
    }

    /// More of it.
    pub fn push(&mut self, bytes: Bytes) {
        self.end += bytes.len() as u64;
        self.pieces.push_back(bytes);
    }

    /// What need not be kept.
    pub fn taken(&mut self, up_to: u64) {
        if up_to == u64::MAX {
            self.room.add_permits(usize::try_from(self.end - self.base).unwrap_or(0));
            (self.base, self.sent) = (self.end, self.end);
            self.pieces.clear();
            return;
        }
        let mut more = up_to.min(self.end).saturating_sub(self.base);
        self.room.add_permits(usize::try_from(more).unwrap_or(0));
        self.base += more;
        self.sent = self.sent.max(self.base);
        while let Some(piece) = self.pieces.front_mut() {
            if piece.len() as u64 > more {
                piece.advance(usize::try_from(more).unwrap_or(0));
                break;
            }
            more -= piece.len() as u64;
            self.pieces.pop_front();
        }
    }

    /// The next piece to send.
    pub fn next(&mut self) -> Option<ToController> {
        if self.sent == self.end {
            let end = self.ended && !self.end_sent;
            self.end_sent |= end;
            return end.then_some(ToController::StdinEnd);
        }
        let mut skip = self.sent - self.base;
        for piece in &self.pieces {
            let length = piece.len() as u64;
            if skip < length {
                let part = (length - skip).min(MAX_PAYLOAD as u64).min(self.credit);
                if part == 0 {
                    return None;
                }
                self.sent += part;
                self.credit -= part;
                let from = usize::try_from(skip).unwrap_or(0);
                return Some(ToController::Stdin(piece.slice(from..from + usize::try_from(part).unwrap_or(0))));
            }
            skip -= length;
        }
        None
    }

    /// Another connection goes on at `at`.
    pub fn go_on(&mut self, at: u64) {
        self.taken(at);
        self.sent = self.base;
        self.credit = u64::from(STDIN_WINDOW);
        // A process that takes no more needs no end.
        self.end_sent = at == u64::MAX;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stdin() -> Stdin {
        Stdin { credit: 1000, ..Stdin::new(0, Arc::new(Semaphore::new(0))) }
    }

    proptest! {
        #[test]
        fn whatever_breaks_in_between_the_process_gets_every_byte_of_stdin_once(
            sizes in prop::collection::vec(1usize..500, 1..30),
            steps in prop::collection::vec((0u8..3, 0usize..2000), 0..200),
        ) {
            let whole: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|n| (n / 7) as u8).collect();
            let (mut stdin, mut got, mut on_the_way) = (stdin(), Vec::new(), Vec::new());
            let mut rest = Bytes::from(whole.clone());
            for size in sizes {
                stdin.push(rest.split_to(size));
            }
            stdin.ended = true;
            for (kind, n) in steps {
                match kind {
                    0 => match stdin.next() {
                        Some(ToController::Stdin(bytes)) => on_the_way.extend_from_slice(&bytes),
                        _ => stdin.credit += n as u64,
                    },
                    1 => {
                        got.extend(on_the_way.drain(..n.min(on_the_way.len())));
                        stdin.taken(got.len() as u64 / 2);
                    }
                    _ => {
                        on_the_way.clear();
                        stdin.go_on(got.len() as u64);
                    }
                }
                prop_assert!(whole.starts_with(&got));
                prop_assert!(stdin.base <= got.len() as u64);
            }
            stdin.go_on(got.len() as u64);
            stdin.credit = u64::MAX;
            while let Some(ToController::Stdin(bytes)) = stdin.next() {
                got.extend_from_slice(&bytes);
            }
            prop_assert!(got == whole && stdin.end_sent);
            stdin.taken(whole.len() as u64);
            prop_assert_eq!(stdin.room.available_permits(), whole.len());
        }
    }
}
