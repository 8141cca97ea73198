//! Bundles of code: a set of files, for each kind of machine where they differ, under one digest.
//!
//! ```text
//! variant: target (x86_64-linux, aarch64-linux, …, any) ─▶ SHA-256 and size of an archive ([`archive`])
//! bundle:  SHA-256 over the list of its variants; the same files have the same digest, whoever packs them
//! ```
//!
//! A digest that came by an authenticated way vouches for all that it names, so an archive may come from where anybody can
//! write. Who may put a name on a bundle is another question, which signatures answer ([`sign`]).

pub mod archive;
pub mod sign;

use std::{collections::BTreeMap, fmt, str::FromStr};

use ring::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::job::Hidden;
use sign::Signature;

/// The largest archive: 8 GiB.
pub const MAX_SIZE: u64 = 8 << 30;
/// The most variants of a bundle.
pub const MAX_VARIANTS: usize = 16;
/// The most bundles that one command uses.
pub const MAX_USED: usize = 16;
/// The most signatures of a bundle.
pub const MAX_SIGNATURES: usize = 8;
/// The longest name or target.
const MAX_WORD: usize = 64;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// The text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no digest; one is 64 hex digits, with or without sha256: before them")]
pub struct InvalidDigest(String);

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_ring(&digest::digest(&digest::SHA256, bytes))
    }

    /// Of what was hashed.
    pub fn from_ring(hash: &digest::Digest) -> Self {
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The first digits, enough for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let refuse = || InvalidDigest(shortened(text));
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        if digits.len() != 64 {
            return Err(refuse());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |d: u8| match d {
                b'0'..=b'9' => Ok(d - b'0'),
                b'a'..=b'f' => Ok(d - b'a' + 10),
                _ => Err(refuse()),
            };
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return String::deserialize(deserializer)?.parse().map_err(D::Error::custom);
        }
        <[u8; 32]>::deserialize(deserializer).map(Self)
    }
}

/// A word with rules of its own.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $check:expr, $what:literal, $cure:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidWord;

            fn from_str(text: &str) -> Result<Self, InvalidWord> {
                let check: fn(&str) -> bool = $check;
                if !text.is_empty() && text.len() <= MAX_WORD && check(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(InvalidWord { text: shortened(text), what: $what, cure: $cure })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidWord;

            fn try_from(text: String) -> Result<Self, InvalidWord> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> String {
                word.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// The text is no such word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}; {cure}")]
pub struct InvalidWord {
    text: String,
    what: &'static str,
    cure: &'static str,
}

word!(
    /// What people call a bundle: 1 to 64 of `a-z A-Z 0-9 . _ -`, a letter first. The newest bundle of a name has it.
    Name,
    |text| {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && text.as_bytes()[0].is_ascii_alphabetic()
    },
    "name of a bundle",
    "use 1 to 64 letters, digits, '.', '_' and '-', a letter first"
);

word!(
    /// A kind of machine: processor and system like `x86_64-linux`, or `any`.
    Target,
    |text| {
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        text == "any" || text.split_once('-').is_some_and(|(arch, os)| word(arch) && word(os))
    },
    "target",
    "use one like x86_64-linux, aarch64-linux or any"
);

impl Target {
    /// Every machine.
    pub fn any() -> Self {
        Self("any".to_owned())
    }

    /// This machine.
    pub fn here() -> Self {
        Self(format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS))
    }
}

impl Name {
    /// The variable that holds where the bundle lies: `RK_BUNDLE_` and the name in capitals.
    pub fn variable(&self) -> String {
        let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        format!("RK_BUNDLE_{}", self.0.chars().map(word).collect::<String>())
    }
}

/// One archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Archive {
    /// Its SHA-256.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// The archives of a bundle, for each target.
pub type Variants = BTreeMap<Target, Archive>;

/// The digest of the bundle that consists of these.
pub fn digest(variants: &Variants) -> Digest {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(b"remoting-kafka bundle 1\n");
    for (target, archive) in variants {
        // No target has a space in it, nor a line end.
        hash.update(format!("{target} {} {}\n", archive.sha256, archive.size).as_bytes());
    }
    Digest::from_ring(&hash.finish())
}

/// Where an archive lies in the topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The topic's id; 0 if unknown.
    pub topic: u128,
    /// The partition.
    pub partition: u32,
    /// The offset of the first record.
    pub first: i64,
    /// The offset of the last one.
    pub last: i64,
    /// What its records are signed with.
    pub key: Hidden<[u8; 32]>,
}

/// A bundle that a command uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Which one.
    pub digest: Digest,
    /// As it was called when it was asked for.
    pub name: Name,
}

/// All that an agent needs to come to a bundle. What it names is checked against the digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Which bundle.
    pub used: Used,
    /// Its archives, and where they lie; none if the controller does not know the bundle any more.
    pub variants: BTreeMap<Target, (Archive, Place)>,
    /// Who vouches for it.
    pub signatures: Vec<Signature>,
}

/// Why a ticket leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTicket {
    /// The controller does not know it any more.
    #[error("bundle {name} ({digest:.12}) was removed; push it again (`rk bundle push`)")]
    Unknown {
        /// How it was called.
        name: Name,
        /// Which.
        digest: String,
    },
    /// The archives are not the bundle's.
    #[error("bundle {0} is not what its digest says; that must not happen, look at the controller")]
    Altered(Name),
    /// No archive fits.
    #[error("bundle {name} has no files for {here}, only for {there}; push it again with a variant for it")]
    Target {
        /// The bundle.
        name: Name,
        /// This machine.
        here: Target,
        /// What it has.
        there: String,
    },
}

impl Ticket {
    /// The archive for `here`: its own, or that for any machine.
    pub fn choose(&self, here: &Target) -> Result<&(Archive, Place), InvalidTicket> {
        let name = || self.used.name.clone();
        if self.variants.is_empty() {
            return Err(InvalidTicket::Unknown { name: name(), digest: self.used.digest.to_string() });
        }
        let variants = self.variants.iter().map(|(target, (archive, _))| (target.clone(), *archive)).collect();
        if digest(&variants) != self.used.digest {
            return Err(InvalidTicket::Altered(name()));
        }
        let found = self.variants.get(here).or_else(|| self.variants.get(&Target::any()));
        found.ok_or_else(|| {
            let there: Vec<&str> = self.variants.keys().map(Target::as_str).collect();
            InvalidTicket::Target { name: name(), here: here.clone(), there: there.join(", ") }
        })
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(byte: u8) -> Archive {
        Archive { sha256: Digest([byte; 32]), size: u64::from(byte) }
    }

    fn place() -> Place {
        Place { topic: 1, partition: 2, first: 3, last: 4, key: Hidden::new([5; 32]) }
    }

    #[test]
    fn a_digest_is_read_as_it_is_written_and_nothing_else_is_one() {
        let digest = Digest::of(b"x");
        let text = digest.to_string();
        assert_eq!((text.parse(), format!("sha256:{text}").parse()), (Ok(digest), Ok(digest)));
        for bad in ["", "sha256:", &text[1..], &text.to_uppercase(), &"ä".repeat(32), &format!("{text}0")] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&digest).expect("text"), format!("\"{text}\""));
        assert_eq!(postcard::to_stdvec(&digest).expect("bytes"), digest.0);
    }

    #[test]
    fn words_have_rules() {
        for good in ["x86_64-linux", "aarch64-linux", "any"] {
            assert!(good.parse::<Target>().is_ok(), "{good}");
        }
        for bad in ["", "linux", "x86-64-linux-", "X86-linux", "a b-c", "../a-b"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
        assert_eq!("my-tools.2".parse::<Name>().expect("good").variable(), "RK_BUNDLE_MY_TOOLS_2");
        for bad in ["", "-a", "a/b", "..", "a b", &"a".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bundle_is_its_archives_and_a_ticket_that_says_otherwise_leads_nowhere() {
        let (here, other): (Target, Target) = ("x86_64-linux".parse().expect("t"), "sparc-linux".parse().expect("t"));
        let variants: Variants = [(here.clone(), archive(1)), (Target::any(), archive(2))].into();
        let used = Used { digest: digest(&variants), name: "tools".parse().expect("name") };
        let placed = variants.iter().map(|(target, archive)| (target.clone(), (*archive, place()))).collect();
        let ticket = Ticket { used, variants: placed, signatures: Vec::new() };
        assert_eq!(ticket.choose(&here).map(|found| found.0), Ok(archive(1)));
        assert_eq!(ticket.choose(&other).map(|found| found.0), Ok(archive(2)));
        let mut altered = ticket.clone();
        altered.variants.insert(here.clone(), (archive(3), place()));
        assert!(matches!(altered.choose(&here), Err(InvalidTicket::Altered(_))));
        altered.variants.clear();
        assert!(matches!(altered.choose(&here), Err(InvalidTicket::Unknown { .. })));
        let only: Variants = [(here.clone(), archive(1))].into();
        let used = Used { digest: digest(&only), ..ticket.used };
        let ticket = Ticket { used, variants: [(here, (archive(1), place()))].into(), signatures: Vec::new() };
        let refused = ticket.choose(&other).expect_err("no variant").to_string();
        assert!(refused.contains("sparc-linux") && refused.contains("only for x86_64-linux"), "{refused}");
    }
}
