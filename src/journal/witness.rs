//! What somebody has seen of a journal, by which an older or another one is recognized.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::head::Head;

/// The last valid record that somebody has seen. One line of text, which the controller keeps in a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Witness {
    /// The topic's id; 0 where the broker knows none.
    pub topic_id: u128,
    /// The epoch of the claim that won last; 0 before the first.
    pub epoch: u32,
    /// The offset of the last valid record; -1 before the first.
    pub offset: i64,
    /// The head after it.
    pub head: Head,
    /// Its number within the epoch; 0 also where that is not known.
    pub seq: u64,
}

/// A line that is no witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a journal's high-water mark; expected `rkj2 TOPIC-ID EPOCH OFFSET HEAD SEQ`")]
pub struct InvalidWitness;

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic_id, epoch, offset, head, seq } = self;
        write!(f, "rkj2 {topic_id:032x} {epoch} {offset} {head} {seq}")
    }
}

impl FromStr for Witness {
    type Err = InvalidWitness;

    fn from_str(line: &str) -> Result<Self, InvalidWitness> {
        let mut words = line.split_ascii_whitespace();
        let mut word = || words.next().ok_or(InvalidWitness);
        let has_seq = match word()? {
            // Written before journals were cut.
            "rkj1" => false,
            "rkj2" => true,
            _ => return Err(InvalidWitness),
        };
        let topic_id = u128::from_str_radix(word()?, 16).map_err(|_| InvalidWitness)?;
        let epoch = word()?.parse().map_err(|_| InvalidWitness)?;
        let offset = word()?.parse().map_err(|_| InvalidWitness)?;
        let head = parse_head(word()?).ok_or(InvalidWitness)?;
        let seq = if has_seq { word()?.parse().map_err(|_| InvalidWitness)? } else { 0 };
        match words.next() {
            None => Ok(Self { topic_id, epoch, offset, head, seq }),
            Some(_) => Err(InvalidWitness),
        }
    }
}

impl TryFrom<String> for Witness {
    type Error = InvalidWitness;

    fn try_from(line: String) -> Result<Self, InvalidWitness> {
        line.parse()
    }
}

impl From<Witness> for String {
    fn from(witness: Witness) -> String {
        witness.to_string()
    }
}

fn parse_head(hex: &str) -> Option<Head> {
    let mut head = Head::default();
    if hex.len() != 2 * head.0.len() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in head.0.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_witness_survives_its_line(topic_id in any::<u128>(), epoch in any::<u32>(), offset in any::<i64>(), head in any::<[u8; 32]>(), seq in any::<u64>()) {
            let witness = Witness { topic_id, epoch, offset, head: Head(head), seq };
            prop_assert_eq!(format!("{witness}\n").parse(), Ok(witness));
            let json = serde_json::to_string(&witness).expect("json");
            prop_assert_eq!(serde_json::from_str::<Witness>(&json).expect("json"), witness);
        }

        #[test]
        fn a_witness_of_the_first_version_is_still_read(epoch in any::<u32>(), offset in any::<i64>()) {
            let head = Head([0xab; 32]);
            let line = format!("rkj1 {:032x} {epoch} {offset} {head}", 7);
            prop_assert_eq!(line.parse(), Ok(Witness { topic_id: 7, epoch, offset, head, seq: 0 }));
            prop_assert_eq!(format!("{line} 1").parse::<Witness>(), Err(InvalidWitness));
        }

        #[test]
        fn garbage_is_no_witness(line in ".{0,120}") {
            prop_assert_eq!(line.parse::<Witness>(), Err(InvalidWitness));
        }
    }
}
