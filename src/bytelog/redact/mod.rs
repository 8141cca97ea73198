//! Masks the values of declared secrets in a byte stream, before it is spooled: what is masked was never on disk, and a
//! position in the stream means the same bytes for ever.
//!
//! Each value is masked as it is; without its last line break; if it has several lines, with the line breaks of a terminal
//! or of JSON between them, and each line of [`MIN_LINE`] bytes or more alone; and in base64, wherever it stands in the
//! encoded text, in both alphabets. Every place that such forms cover, overlapping ones together, becomes [`MASK`].
//!
//! Promises: the output does not depend on how the input is cut into pieces; no form is in the output (the mask aside);
//! what is held back is no more than the longest beginning of a form that the input ends with.
//!
//! What is held back comes out with the next bytes that decide it. When the stream is idle, [`Redactor::idle`] lets it go
//! if it is at most three bytes and at most a quarter of the shortest form: so a prompt shows, and a secret that is printed
//! in two halves shows no more than that of itself; the rest of it is still masked. What is longer waits. At the
//! stream's end half a form or more is masked, less is let go.
//!
//! Not found: values that the job changes in another way (compressed, encrypted, in hexadecimal, reversed, cut up by line
//! breaks of its own), and values below [`MIN_SECRET`] bytes.

mod forms;
mod machine;

use std::{collections::BTreeSet, sync::Arc};

use aho_corasick::automaton::StateID;
use machine::{Hold, Machine};

use crate::secret::Secret;

/// What stands for a secret.
pub const MASK: &[u8] = b"***";
/// Shorter values are not masked: they would be found everywhere.
pub const MIN_SECRET: usize = 4;
/// Shorter lines of a value are not masked alone.
pub const MIN_LINE: usize = 8;
/// The most bytes that the values of a job's secrets may have together.
pub const MAX_SECRETS: usize = 64 << 10;
/// What [`Redactor::idle`] lets go at most.
const IDLE: usize = 3;

/// The secrets are too large to be looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the secrets have {bytes} bytes together, and at most {MAX_SECRETS} can be masked; give large files to the job by another way"
)]
pub struct TooLarge {
    bytes: usize,
}

/// The secrets of a job, ready to be looked for. Clones share them.
#[derive(Clone)]
pub struct Secrets {
    machine: Option<Arc<Machine>>,
    too_short: usize,
}

impl Secrets {
    /// Takes the values. Those that are too short to be masked are [counted](Self::too_short): tell whoever declared them.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a Secret<Vec<u8>>>) -> Result<Self, TooLarge> {
        let (mut forms, mut too_short, mut bytes) = (BTreeSet::new(), 0, 0_usize);
        for value in values {
            bytes = bytes.saturating_add(value.expose().len());
            if bytes > MAX_SECRETS {
                return Err(TooLarge { bytes });
            }
            too_short += usize::from(!forms::add(value.expose(), &mut forms));
        }
        if forms.is_empty() {
            return Ok(Self { machine: None, too_short });
        }
        let forms: Vec<_> = forms.into_iter().collect();
        let machine = Machine::new(&forms).expect("some hundred thousand states are within what it can number");
        Ok(Self { machine: Some(Arc::new(machine)), too_short })
    }

    /// How many values are too short to be masked.
    pub fn too_short(&self) -> usize {
        self.too_short
    }
}

/// Masks one stream.
pub struct Redactor {
    machine: Option<Arc<Machine>>,
    state: Option<StateID>,
    /// How many bytes came in, and how many of them were decided upon.
    read: u64,
    decided: u64,
    /// The bytes between.
    held: Vec<u8>,
    /// Places of forms that were found and not decided upon: ascending, none overlaps another.
    found: Vec<(u64, u64)>,
    /// Where the last place ends that was masked.
    masked: u64,
}

impl Redactor {
    /// A redactor at the beginning of a stream.
    pub fn new(secrets: &Secrets) -> Self {
        let state = secrets.machine.as_ref().map(|machine| machine.start());
        let machine = secrets.machine.clone();
        Self { machine, state, read: 0, decided: 0, held: Vec::new(), found: Vec::new(), masked: 0 }
    }

    /// Takes the next bytes, and appends to `out` what can be told of the stream now.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let (Some(machine), Some(state)) = (&self.machine, self.state) else {
            out.extend_from_slice(input);
            return;
        };
        let (read, found) = (self.read, &mut self.found);
        let state = machine.run(state, input, |end, length| {
            let end = read + end as u64;
            add(found, (end.saturating_sub(length as u64), end));
        });
        let hold = machine.hold(state).bytes as u64;
        self.state = Some(state);
        self.read += input.len() as u64;
        let upto = self.read - hold;
        if self.held.is_empty() {
            self.decide(upto, input, out);
        } else {
            let mut bytes = std::mem::take(&mut self.held);
            bytes.extend_from_slice(input);
            self.decide(upto, &bytes, out);
        }
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Nothing came for a while: appends to `out` what may be let go.
    pub fn idle(&mut self, out: &mut Vec<u8>) {
        let shortest = self.machine.as_ref().map_or(0, |machine| machine.shortest);
        if !self.held.is_empty() && self.held.len() <= IDLE.min(shortest / 4) {
            self.release(out);
        }
    }

    /// The stream is at its end: appends the rest to `out`.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        let hold = match (&self.machine, self.state) {
            (Some(machine), Some(state)) => machine.hold(state),
            _ => Hold::default(),
        };
        if hold.bytes > 0 && 2 * hold.bytes >= hold.form {
            add(&mut self.found, (self.read - hold.bytes as u64, self.read));
        }
        self.release(out);
    }

    /// Everything before `upto` is decided: appends it to `out`, masked, and keeps the rest. `bytes` are those that were
    /// not decided upon.
    fn decide(&mut self, upto: u64, bytes: &[u8], out: &mut Vec<u8>) {
        let from = self.decided;
        // After an idle time a part of what would be held was let go.
        let upto = upto.max(from);
        let mut next = from.max(self.masked);
        let decided = self.found.iter().take_while(|(start, _)| *start < upto).count();
        for (start, end) in self.found.drain(..decided) {
            if start >= self.masked {
                if next < start {
                    out.extend_from_slice(&bytes[(next - from) as usize..(start - from) as usize]);
                }
                out.extend_from_slice(MASK);
            }
            self.masked = self.masked.max(end);
            next = next.max(end);
        }
        if next < upto {
            out.extend_from_slice(&bytes[(next - from) as usize..(upto - from) as usize]);
        }
        self.held = bytes[(upto - from) as usize..].to_vec();
        self.decided = upto;
    }

    /// All that is held back is decided.
    fn release(&mut self, out: &mut Vec<u8>) {
        let bytes = std::mem::take(&mut self.held);
        self.decide(self.read, &bytes, out);
    }
}

/// Adds a place; its end is not before that of any other one. Overlapping ones become one.
fn add(found: &mut Vec<(u64, u64)>, (mut start, end): (u64, u64)) {
    while let Some((before, upto)) = found.last().copied().filter(|(_, upto)| *upto > start) {
        start = start.min(before);
        debug_assert!(upto <= end);
        found.pop();
    }
    found.push((start, end));
}

#[cfg(test)]
mod tests;
