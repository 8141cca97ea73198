//! The list of an attempt's artifacts, as it lies in the topic beside their contents.
//!
//! ```text
//! pack     = the different contents, one behind the other in the order of their files' paths, as one blob in chunks
//! manifest = version (1) ‖ postcard: the files with their place in the pack, and where in the topic each 32nd chunk of it begins
//! ```
//!
//! So small files cost no records of their own, and who wants one of a million bytes reads little more than it.

use std::{collections::BTreeSet, fmt};

use ring::digest::{Context, SHA256};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};

use crate::{
    bundle::{Archive, Digest},
    versioned,
};

const VERSION: u8 = 1;

/// The most files of one attempt.
pub const MAX_FILES: usize = 100_000;
/// The longest path, in bytes.
pub const MAX_PATH: usize = 4096;
/// The largest manifest, in bytes: as many files as there may be, with paths of a usual length.
pub const MAX_MANIFEST: u64 = 64 << 20;
/// The most that is said of what was left out.
pub const MAX_LEFT_OUT: usize = 100;
/// Where each of so many chunks of the pack begins is noted.
pub const GROUP: usize = 32;

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The files, sorted by their paths.
    #[serde(deserialize_with = "one_by_one")]
    pub files: Vec<File>,
    /// What the pack's records are called, and its size.
    pub pack: Archive,
    /// The offset of each [`GROUP`]th chunk of the pack.
    pub index: Vec<i64>,
    /// The offset of the last chunk.
    pub last: i64,
    /// What was wanted and is not there, with the reason: the first of them.
    pub left_out: Vec<String>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path below the work directory.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: Digest,
    /// Where in the pack they begin.
    pub offset: u64,
    /// Its permissions: the lowest nine bits.
    pub mode: u32,
    /// When it was changed last, in nanoseconds since 1970.
    pub modified_ns: i64,
}

/// The bytes are no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the list of artifacts is none that this version knows ({0})")]
pub struct InvalidManifest(String);

impl Manifest {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        versioned::encode(VERSION, self).into()
    }

    /// Reads [`encode`](Self::encode)'s bytes. An agent wrote them, which may lie: what comes out names nothing outside a directory
    /// and nothing outside the pack.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidManifest> {
        let manifest: Self = versioned::decode(VERSION, bytes).map_err(InvalidManifest)?;
        manifest.check().map_err(|why| InvalidManifest(why.to_owned()))?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.files.len() > MAX_FILES || self.left_out.len() > MAX_LEFT_OUT {
            return Err("there are too many files");
        }
        if self.files.windows(2).any(|pair| pair[0].path >= pair[1].path) {
            return Err("its files are not sorted");
        }
        let inside = |file: &File| file.offset.checked_add(file.size).is_some_and(|end| end <= self.pack.size);
        if !self.files.iter().all(inside) {
            return Err("a file lies outside its contents");
        }
        if !self.files.iter().all(|file| is_below(&file.path)) {
            return Err("a path leads out of the directory");
        }
        Ok(())
    }

    /// The file with this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        let at = self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok()?;
        self.files.get(at)
    }
}

/// Reads a list without room for more than came: what a file has here is more than what the least one takes there.
fn one_by_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<File>, D::Error> {
    struct Files;

    impl<'de> Visitor<'de> for Files {
        type Value = Vec<File>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("files")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut files: A) -> Result<Vec<File>, A::Error> {
            let mut all = Vec::new();
            while let Some(file) = files.next_element()? {
                all.push(file);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_seq(Files)
}

/// Whether a path stays below where it begins: relative, and without `.` and `..`.
pub fn is_below(path: &str) -> bool {
    path.len() <= MAX_PATH
        && !path.contains('\0')
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// What the records of a pack are called that consists of these contents in this order.
pub fn pack(contents: impl IntoIterator<Item = (Digest, u64)>) -> Archive {
    let mut hash = Context::new(&SHA256);
    hash.update(b"remoting-kafka pack 1\n");
    let mut size = 0;
    for (digest, length) in contents {
        hash.update(&digest.0);
        hash.update(&length.to_be_bytes());
        size += length;
    }
    Archive { sha256: Digest::from_ring(&hash.finish()), size }
}

/// The contents of files in the order of the pack, each once, by the number of the first file that has it. Sets the files' offsets.
pub fn lay_out(files: &mut [File]) -> Vec<usize> {
    let mut seen = std::collections::BTreeMap::new();
    let (mut order, mut end) = (Vec::new(), 0);
    for (number, file) in files.iter_mut().enumerate() {
        file.offset = *seen.entry((file.sha256, file.size)).or_insert_with(|| {
            if file.size > 0 {
                order.push(number);
            }
            let at = end;
            end += file.size;
            at
        });
    }
    order
}

/// The directories that paths need, those above before those below.
pub fn directories<'a>(paths: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let above = |path: &'a str| path.match_indices('/').map(move |(at, _)| &path[..at]);
    paths.into_iter().flat_map(above).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(path: &str, content: &[u8]) -> File {
        File {
            path: path.to_owned(),
            size: content.len() as u64,
            sha256: Digest::of(content),
            offset: 0,
            mode: 0o644,
            modified_ns: 5,
        }
    }

    fn manifest(mut files: Vec<File>) -> Manifest {
        let order = lay_out(&mut files);
        let pack = pack(order.iter().map(|at| (files[*at].sha256, files[*at].size)));
        Manifest { files, pack, index: vec![300], last: 301, left_out: vec!["x: no".to_owned()] }
    }

    #[test]
    fn equal_contents_lie_in_the_pack_once() {
        let all = manifest(vec![file("a", b"one"), file("b", b""), file("c/d", b"three"), file("e", b"one")]);
        let offsets: Vec<u64> = all.files.iter().map(|file| file.offset).collect();
        assert_eq!((offsets, all.pack.size), (vec![0, 3, 3, 0], 8));
        assert_eq!(Manifest::decode(&all.encode()), Ok(all.clone()));
        assert_eq!(all.file("c/d").map(|file| file.size), Some(5));
        assert_eq!(all.file("c"), None);
        assert_eq!(directories(["a/b/c", "a/d", "e"]), ["a", "a/b"].into());
    }

    #[test]
    fn a_manifest_has_the_bytes_that_it_always_had() {
        let all = manifest(vec![file("a", b"x")]);
        let bytes = [
            &[1, 1, 1, b'a', 1][..],
            &Digest::of(b"x").0,
            &[0, 0xa4, 3, 10],
            &all.pack.sha256.0,
            &[1, 1, 0xd8, 4, 0xda, 4],
            b"\x01\x05x: no",
        ];
        assert_eq!(all.encode(), bytes.concat());
    }

    #[test]
    fn what_leads_out_of_the_directory_or_the_pack_is_refused() {
        for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".", "a/./b", "a\0b", &"x".repeat(5000)] {
            let bytes = manifest(vec![file(path, b"x")]).encode();
            assert!(Manifest::decode(&bytes).is_err(), "{path}");
        }
        let mut outside = manifest(vec![file("a", b"x")]);
        outside.files[0].offset = u64::MAX;
        assert!(Manifest::decode(&outside.encode()).is_err());
        assert!(Manifest::decode(&manifest(vec![file("b", b"x"), file("a", b"y")]).encode()).is_err());
        assert!(Manifest::decode(&manifest(vec![file("a", b"x"), file("a", b"y")]).encode()).is_err());
        let newer = [&[2], &manifest(Vec::new()).encode()[1..]].concat();
        assert!(Manifest::decode(&newer).expect_err("newer").to_string().contains("format 2"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::decode(&bytes);
            let _ = Manifest::decode(&[&[1][..], &bytes].concat());
        }

        #[test]
        fn nothing_that_was_cut_or_altered_is_taken_for_more_than_it_is(at in 0usize..200, bit in 0u8..8) {
            let good = manifest(vec![file("a", b"x"), file("b/c", b"yy")]).encode();
            let at = at % good.len();
            prop_assert!(Manifest::decode(&good[..at]).is_err());
            let mut altered = good.clone();
            altered[at] ^= 1 << bit;
            if let Ok(read) = Manifest::decode(&altered) {
                prop_assert!(read.files.iter().all(|file| is_below(&file.path)));
            }
        }
    }
}
