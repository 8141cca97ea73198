//! The keys that are for us and not for the command. Pure.
//!
//! They begin with one character at the beginning of a line, so that nothing else has to be taken away from what is typed; typed
//! twice it stands for itself. Followed by a key that is none of ours, both go to the command.

use std::str::FromStr;

/// Finds our keys in what is typed.
#[derive(Debug, Clone)]
pub struct Escape {
    /// None: there are no such keys.
    character: Option<u8>,
    at: At,
}

/// Where in a line we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Beginning,
    /// Behind the character, which nobody has got yet.
    Held,
    Inside,
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// End the command and go.
    Leave,
    /// Go, and leave the command as it is.
    Detach,
    /// Say which keys there are.
    Help,
}

impl Default for Escape {
    fn default() -> Self {
        Self { character: Some(b'~'), at: At::Beginning }
    }
}

impl FromStr for Escape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let character = match text.as_bytes() {
            b"none" => None,
            [byte @ 0x21..=0x7e] => Some(*byte),
            // A control character as it is usually written.
            [b'^', byte @ (0x40..=0x5f | b'a'..=b'z')] => Some(byte & 0x1f),
            _ => return Err(format!("{text:?} is no key; use one character like ~, a control key like ^], or none")),
        };
        Ok(Self { character, ..Self::default() })
    }
}

impl Escape {
    /// Moves what is for the command from `typed` to `out`, up to the first key of ours: what that asks for, and how much of `typed` is
    /// done with.
    pub fn take(&mut self, typed: &[u8], out: &mut Vec<u8>) -> Option<(Wish, usize)> {
        let Some(character) = self.character else {
            out.extend_from_slice(typed);
            return None;
        };
        for (index, &byte) in typed.iter().enumerate() {
            let held = self.at == At::Held;
            let wish = match byte {
                b'.' if held => Some(Wish::Leave),
                b'd' if held => Some(Wish::Detach),
                b'?' if held => Some(Wish::Help),
                _ => None,
            };
            if let Some(wish) = wish {
                self.at = At::Beginning;
                return Some((wish, index + 1));
            }
            if byte == character && self.at == At::Beginning {
                self.at = At::Held;
                continue;
            }
            if held && byte != character {
                out.push(character);
            }
            out.push(byte);
            self.at = if matches!(byte, b'\r' | b'\n') { At::Beginning } else { At::Inside };
        }
        None
    }

    /// The character as people write it; none if there are no such keys.
    pub fn name(&self) -> Option<String> {
        self.character.map(|byte| match byte {
            0x20.. => char::from(byte).to_string(),
            _ => format!("^{}", char::from(byte | 0x40)),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What goes to the command, with each wish in its place.
    fn typed(escape: &str, pieces: &[&[u8]]) -> String {
        let mut escape: Escape = escape.parse().expect("a key");
        let mut text = String::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let mut out = Vec::new();
                let found = escape.take(rest, &mut out);
                text.push_str(&String::from_utf8_lossy(&out));
                let Some((wish, used)) = found else { break };
                text.push_str(&format!("<{wish:?}>"));
                rest = &rest[used..];
            }
        }
        text
    }

    #[test]
    fn a_key_counts_only_at_the_beginning_of_a_line() {
        for (keys, expected) in [
            ("~.", "<Leave>"),
            ("~d", "<Detach>"),
            ("ls\r~d", "ls\r<Detach>"),
            ("ls\n~.", "ls\n<Leave>"),
            ("ls ~.", "ls ~."),
            ("~~.", "~."),
            ("~~~.", "~~."),
            ("~/bin\r", "~/bin\r"),
            ("~\r~d", "~\r<Detach>"),
            ("~?~.x", "<Help><Leave>x"),
            ("~x~.", "~x~."),
        ] {
            assert_eq!(typed("~", &[keys.as_bytes()]), expected, "{keys:?}");
            let single: Vec<&[u8]> = keys.as_bytes().chunks(1).collect();
            assert_eq!(typed("~", &single), expected, "{keys:?} key by key");
        }
    }

    #[test]
    fn the_character_can_be_another_or_none() {
        assert_eq!(typed("^]", &[b"~.\r\x1d."]), "~.\r<Leave>");
        assert_eq!(typed("none", &[b"~.~d"]), "~.~d");
        assert_eq!(typed("%", &[b"%d"]), "<Detach>");
        assert_eq!("^]".parse::<Escape>().expect("a key").name().as_deref(), Some("^]"));
        assert_eq!(Escape::default().name().as_deref(), Some("~"));
        for bad in ["", "ab", "ä", "^1", " ", "\r"] {
            assert!(bad.parse::<Escape>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_holds_no_key_passes_as_it_is(bytes in prop::collection::vec(any::<u8>().prop_filter("the key", |b| *b != b'~'), 0..300)) {
            let mut out = Vec::new();
            prop_assert!(Escape::default().take(&bytes, &mut out).is_none());
            prop_assert_eq!(out, bytes);
        }
    }
}
