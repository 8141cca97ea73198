//! How jobs are named: sortable by time, unique, and short enough to type.
//!
//! An id is 80 bits, 42 of milliseconds since 1970 (enough until the year 2109) and 38 random ones, written as 16
//! characters of Crockford's alphabet in lower case. Like commits they are typed as a prefix: seven characters tell apart
//! what was submitted an eighth of a second apart.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Characters of an id.
const LENGTH: usize = 16;
const BITS: u32 = 80;
const RANDOM_BITS: u32 = 38;
const MAX_MS: u64 = (1 << (BITS - RANDOM_BITS)) - 1;
/// Without i, l, o and u: nobody mistakes one for another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// How many of the jobs that a prefix fits are named in an error.
const NAMED: usize = 3;

/// A job's id. Ids sort by the time at which their jobs were submitted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId([u8; BITS as usize / 8]);

/// The start of an id, or a whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPrefix {
    text: String,
    first: JobId,
    last: JobId,
}

/// The text is no id, and no start of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "job id {text:?} {problem}; ids are 16 of 0-9 and a-z without i, l, o and u, or the start of that: `rk jobs ls` lists them"
)]
pub struct InvalidJobId {
    text: String,
    problem: &'static str,
}

/// No job, or more than one, has that prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// None.
    #[error("there is no job {0}; `rk jobs ls` lists them")]
    Unknown(String),
    /// More than one.
    #[error("job id {prefix} is the start of more than one job ({}, …); type more of it", some.iter().map(JobId::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was looked for.
        prefix: String,
        /// Some of those that it fits, the oldest first.
        some: Vec<JobId>,
    },
}

impl JobId {
    /// The id of a job that is submitted at `unix_ms`. Of `random` the 38 lowest bits count; they must be drawn anew
    /// for every id.
    pub fn new(unix_ms: u64, random: u64) -> Self {
        let random = random & ((1 << RANDOM_BITS) - 1);
        Self::from_bits((u128::from(unix_ms.min(MAX_MS)) << RANDOM_BITS) | u128::from(random))
    }

    /// When it was drawn, in milliseconds since 1970.
    pub fn unix_ms(self) -> u64 {
        (self.bits() >> RANDOM_BITS) as u64
    }

    /// Its ten bytes, which sort as ids do.
    pub fn as_bytes(&self) -> &[u8; BITS as usize / 8] {
        &self.0
    }

    fn from_bits(bits: u128) -> Self {
        let mut id = [0; BITS as usize / 8];
        id.copy_from_slice(&bits.to_be_bytes()[6..]);
        Self(id)
    }

    fn bits(self) -> u128 {
        let mut bytes = [0; 16];
        bytes[6..].copy_from_slice(&self.0);
        u128::from_be_bytes(bytes)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.bits();
        let text: String =
            (1..=LENGTH as u32).map(|i| ALPHABET[(bits >> (BITS - 5 * i)) as usize & 31] as char).collect();
        f.pad(&text)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(s: &str) -> Result<Self, InvalidJobId> {
        let prefix: JobPrefix = s.parse()?;
        if s.len() < LENGTH {
            return Err(InvalidJobId { text: s.to_owned(), problem: "is too short for a whole one" });
        }
        Ok(prefix.first)
    }
}

impl FromStr for JobPrefix {
    type Err = InvalidJobId;

    fn from_str(s: &str) -> Result<Self, InvalidJobId> {
        let refuse = |problem| InvalidJobId { text: s.chars().take(40).collect(), problem };
        if s.is_empty() {
            return Err(refuse("is empty"));
        }
        if s.len() > LENGTH {
            return Err(refuse("is too long"));
        }
        let mut bits = 0;
        for byte in s.bytes() {
            bits = (bits << 5) | u128::from(digit(byte).ok_or_else(|| refuse("has a wrong character"))?);
        }
        let open = BITS - 5 * s.len() as u32;
        let first = bits << open;
        let last = first | ((1 << open) - 1);
        let (first, last) = (JobId::from_bits(first), JobId::from_bits(last));
        Ok(Self { text: first.to_string()[..s.len()].to_owned(), first, last })
    }
}

impl fmt::Display for JobPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            Deserialize::deserialize(deserializer).map(Self)
        }
    }
}

/// The one job whose id starts with `prefix`.
pub fn lookup<T>(jobs: &BTreeMap<JobId, T>, prefix: &JobPrefix) -> Result<JobId, LookupError> {
    let some: Vec<JobId> = jobs.range(prefix.first..=prefix.last).map(|(id, _)| *id).take(NAMED).collect();
    match some[..] {
        [] => Err(LookupError::Unknown(prefix.text.clone())),
        [id] => Ok(id),
        _ => Err(LookupError::Ambiguous { prefix: prefix.text.clone(), some }),
    }
}

/// People read ids to each other: capitals, and the letters that look like digits, are taken for what they look like.
fn digit(byte: u8) -> Option<u8> {
    let byte = match byte.to_ascii_lowercase() {
        b'o' => b'0',
        b'i' | b'l' => b'1',
        byte => byte,
    };
    ALPHABET.iter().position(|letter| *letter == byte).map(|at| at as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_16_characters_that_always_mean_the_same() {
        let id = JobId::new(1_790_000_000_000, 0x1234_5678);
        assert_eq!(id.to_string(), "d0rh86r000938nkr");
        assert_eq!(id.unix_ms(), 1_790_000_000_000);
        assert_eq!("DORH86ROOO938NKR".parse(), Ok(id));
        assert_eq!(serde_json::to_string(&id).expect("json"), "\"d0rh86r000938nkr\"");
        assert_eq!(postcard::to_stdvec(&id).expect("postcard"), id.as_bytes());
    }

    #[test]
    fn a_clock_out_of_range_costs_the_order_and_no_panic() {
        assert_eq!(JobId::new(u64::MAX, u64::MAX).to_string(), "z".repeat(16));
        assert_eq!(JobId::new(0, 0).to_string(), "0".repeat(16));
    }

    #[test]
    fn a_bad_id_says_what_ids_look_like() {
        for bad in ["", "u", "ä", "a b", "../../etc/passwd", &"0".repeat(17), "0123"] {
            let message = bad.parse::<JobId>().expect_err(bad).to_string();
            assert!(message.contains("rk jobs ls"), "{message}");
        }
    }

    #[test]
    fn a_job_is_found_by_any_prefix_that_no_other_has() {
        let [a, b] = [JobId::new(1_790_000_000_000, 7), JobId::new(1_790_000_000_500, 7)];
        let jobs = BTreeMap::from([(a, ()), (b, ())]);
        let find = |text: &str| lookup(&jobs, &text.parse().expect(text));
        assert_eq!(find(&a.to_string()), Ok(a));
        assert_eq!(find(&b.to_string()[..7]), Ok(b));
        assert_eq!(find("zz"), Err(LookupError::Unknown("zz".to_owned())));
        assert_eq!(find("D0"), Err(LookupError::Ambiguous { prefix: "d0".to_owned(), some: vec![a, b] }));
        let message = find("d").expect_err("both").to_string();
        assert!(message.contains(&b.to_string()), "{message}");
    }

    proptest! {
        #[test]
        fn ids_survive_text_and_bytes_and_sort_as_their_text_does(a in any::<[u8; 10]>(), b in any::<[u8; 10]>()) {
            let (a, b) = (JobId(a), JobId(b));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            let bytes = postcard::to_stdvec(&a).expect("postcard");
            prop_assert_eq!(postcard::from_bytes::<JobId>(&bytes), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in any::<String>(), ascii in "[ -~]{0,20}") {
            let _ = (text.parse::<JobId>(), text.parse::<JobPrefix>());
            if let Ok(prefix) = ascii.parse::<JobPrefix>() {
                prop_assert!(prefix.first <= prefix.last);
                prop_assert!(prefix.first.to_string().starts_with(&prefix.text));
            }
        }
    }
}
