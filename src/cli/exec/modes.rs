//! What the command left our terminal in, so that whoever goes before its end can put that back. Pure.
//!
//! A program that fills the screen takes the other screen, hides the cursor, asks for the mouse, and takes all that back at its end. It
//! does so by private modes (`ESC [ ? 1049 h`); of those that hurt at a prompt we note which are on.

/// The modes that are put back: the number, and whether it is usually on.
const MODES: [(u16, bool); 9] = [
    // Cursor keys for programs.
    (1, false),
    // The cursor is shown.
    (25, true),
    // The mouse.
    (1000, false),
    (1002, false),
    (1003, false),
    (1006, false),
    // Where the focus is.
    (1004, false),
    // What is pasted is marked.
    (2004, false),
    // The other screen, with its own cursor. Last, so that the rest is said on the screen where it began.
    (1049, false),
];

/// Notes the modes in what is shown.
#[derive(Debug, Clone)]
pub struct Modes {
    at: At,
    /// The numbers of the sequence at hand, as many as we look at.
    numbers: Vec<u16>,
    on: [bool; MODES.len()],
}

/// Where in a sequence we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Text,
    Escape,
    Bracket,
    Numbers,
}

/// More numbers in one sequence than anybody sends.
const MOST: usize = 16;

impl Default for Modes {
    fn default() -> Self {
        Self { at: At::Text, numbers: Vec::new(), on: MODES.map(|(_, usual)| usual) }
    }
}

impl Modes {
    /// These bytes are shown.
    pub fn note(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.at = match (self.at, byte) {
                (_, 0x1b) => At::Escape,
                (At::Escape, b'[') => At::Bracket,
                (At::Bracket, b'?') => {
                    self.numbers.clear();
                    self.numbers.push(0);
                    At::Numbers
                }
                (At::Numbers, b'0'..=b'9') => {
                    if let Some(last) = self.numbers.last_mut() {
                        *last = last.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                    }
                    At::Numbers
                }
                (At::Numbers, b';') if self.numbers.len() < MOST => {
                    self.numbers.push(0);
                    At::Numbers
                }
                (At::Numbers, b'h' | b'l') => {
                    self.set(byte == b'h');
                    At::Text
                }
                _ => At::Text,
            };
        }
    }

    fn set(&mut self, on: bool) {
        for ((number, _), is_on) in MODES.iter().zip(&mut self.on) {
            if self.numbers.contains(number) {
                *is_on = on;
            }
        }
    }

    /// What puts them back; nothing if all are as usual.
    pub fn undo(&self) -> String {
        let changed = MODES.iter().zip(self.on).filter(|((_, usual), on)| usual != on);
        let undo: String =
            changed.map(|((number, usual), _)| format!("\x1b[?{number}{}", if *usual { 'h' } else { 'l' })).collect();
        // Colours too: they were the program's.
        if undo.is_empty() { undo } else { undo + "\x1b[m" }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn undo(pieces: &[&str]) -> String {
        let mut modes = Modes::default();
        pieces.iter().for_each(|piece| modes.note(piece.as_bytes()));
        modes.undo()
    }

    #[test]
    fn what_is_on_is_taken_back_and_nothing_else() {
        assert_eq!(undo(&["plain \x1b[31mred\x1b[m"]), "");
        assert_eq!(undo(&["\x1b[?1049h\x1b[?25l"]), "\x1b[?25h\x1b[?1049l\x1b[m");
        assert_eq!(undo(&["\x1b", "[?10", "49h"]), "\x1b[?1049l\x1b[m");
        assert_eq!(undo(&["\x1b[?1049h text \x1b[?1049l"]), "");
        assert_eq!(undo(&["\x1b[?1000;1006h"]), "\x1b[?1000l\x1b[?1006l\x1b[m");
        assert_eq!(undo(&["\x1b[1049h ?1049h"]), "");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_nor_grow(bytes in prop::collection::vec(prop_oneof![Just(0x1b), Just(b'['), Just(b'?'), Just(b';'), any::<u8>()], 0..500)) {
            let mut modes = Modes::default();
            modes.note(&bytes);
            prop_assert!(modes.numbers.len() <= MOST && modes.undo().len() < 100);
        }
    }
}
