//! What is written is read, from anywhere, while it grows and is cut; what is torn is not.

use std::{
    fs::{self, OpenOptions},
    path::Path,
};

use proptest::prelude::*;

use super::{Chunk, MAX_CHUNK, Next, Offsets, Reader, SpoolError, Stream, Writer, cut, segment};

const LEAST: u64 = 256 << 10;

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (seed.wrapping_mul(31).wrapping_add(at.wrapping_mul(7)) >> 2) as u8).collect()
}

fn rest(reader: &mut Reader) -> Vec<Chunk> {
    std::iter::from_fn(|| match reader.read().expect("readable") {
        Next::Chunk(chunk) => Some(chunk),
        Next::End => None,
    })
    .collect()
}

/// What chunks hold of a stream, which must follow each other.
fn joined(chunks: &[Chunk], stream: Stream, mut at: u64) -> Vec<u8> {
    let mut all = Vec::new();
    for chunk in chunks.iter().filter(|chunk| chunk.stream == stream) {
        assert_eq!(chunk.offset, at);
        at += chunk.bytes.len() as u64;
        all.extend_from_slice(&chunk.bytes);
    }
    all
}

fn segments(dir: &Path) -> Vec<u64> {
    segment::numbers(dir).expect("numbers")
}

#[test]
fn a_reader_follows_the_writer_over_segments() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path().join("spool");
    let mut reader = Reader::new(&dir, Offsets::default());
    assert_eq!(reader.read().expect("no spool yet"), Next::End);
    let mut writer = Writer::create(&dir, 1 << 20).expect("spool");
    let mut written = Vec::new();
    let mut got = Vec::new();
    for step in 0..40 {
        let stream = if step % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
        let piece = bytes(step, 1 + step as usize * 500);
        let offset = writer.ends().of(stream);
        writer.append(stream, 1000 + step, &piece).expect("append");
        written.push(Chunk { stream, offset, time: 1000 + step, bytes: piece.into() });
        got.extend(rest(&mut reader));
    }
    assert_eq!(got, written);
    assert!(segments(&dir).len() > 2);
}

#[test]
fn what_was_shipped_is_cut_and_makes_room() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path().join("spool");
    let mut writer = Writer::create(&dir, LEAST).expect("spool");
    let piece = bytes(1, 20_000);
    while writer.room() >= piece.len() {
        writer.append(Stream::Stdout, 1, &piece).expect("append");
    }
    assert!(writer.used() <= LEAST);
    writer.append(Stream::Stderr, 1, &[1]).expect("append");
    let ends = writer.ends();
    writer.cut(&Offsets { stdout: ends.stdout, stderr: 0 }).expect("cut");
    let after = segments(&dir);
    assert_eq!(after.len(), 1, "the last one has bytes that were not shipped, and stays");
    assert!(writer.room() >= piece.len());
    let on_disk: u64 =
        fs::read_dir(&dir).expect("dir").map(|entry| entry.expect("entry").metadata().expect("file").len()).sum();
    assert_eq!(on_disk, writer.used());
    writer.sync().expect("sync");
    assert!(!writer.is_unsynced());
    // A reader that wants what was cut begins where the rest begins.
    let first = rest(&mut Reader::new(&dir, Offsets::default())).remove(0);
    assert!(first.offset > 0);
    writer.append(Stream::Stdout, 2, &bytes(2, MAX_CHUNK)).expect("append");
    cut(&dir, &writer.ends()).expect("cut");
    assert_eq!(segments(&dir).len(), 1);
}

#[test]
fn a_reader_that_is_overtaken_by_a_cut_goes_on_behind_it() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path().join("spool");
    let mut writer = Writer::create(&dir, LEAST).expect("spool");
    writer.append(Stream::Stdout, 1, &bytes(0, 20_000)).expect("append");
    let mut reader = Reader::new(&dir, Offsets::default());
    assert_eq!(rest(&mut reader).len(), 1);
    for step in 0..7 {
        writer.append(Stream::Stdout, 1, &bytes(step, 20_000)).expect("append");
    }
    writer.cut(&writer.ends()).expect("cut");
    let rest = rest(&mut reader);
    assert!(rest.last().is_some_and(|chunk| chunk.offset + chunk.bytes.len() as u64 == writer.ends().stdout));
}

#[test]
fn damage_in_the_middle_is_named_and_nothing_behind_it_is_read() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path().join("spool");
    let mut writer = Writer::create(&dir, LEAST).expect("spool");
    for step in 0..8 {
        writer.append(Stream::Stdout, 1, &bytes(step, 10_000)).expect("append");
    }
    let first = segment::path(&dir, 0);
    let length = fs::metadata(&first).expect("file").len();
    OpenOptions::new().write(true).open(&first).expect("open").set_len(length - 1).expect("torn");
    let mut reader = Reader::new(&dir, Offsets::default());
    let mut got = 0;
    let error = loop {
        match reader.read() {
            Ok(Next::Chunk(chunk)) => got += chunk.bytes.len(),
            Ok(Next::End) => panic!("the damage was passed over"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, SpoolError::Damaged { segment, .. } if *segment == first), "{error}");
    assert_eq!(got % 10_000, 0);
}

#[test]
fn a_new_spool_replaces_that_of_a_shim_that_started_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path().join("spool");
    Writer::create(&dir, LEAST).expect("spool").append(Stream::Stdout, 1, b"old").expect("append");
    Writer::create(&dir, LEAST).expect("spool");
    assert_eq!(rest(&mut Reader::new(&dir, Offsets::default())), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn from_any_offsets_exactly_the_rest_is_read(
        pieces in prop::collection::vec((any::<bool>(), 1usize..9000), 1..30),
        from in (0.0f64..1.1, 0.0f64..1.1),
    ) {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path().join("spool");
        let mut writer = Writer::create(&dir, LEAST).expect("spool");
        let mut all = [Vec::new(), Vec::new()];
        for (index, (err, length)) in pieces.into_iter().enumerate() {
            let stream = if err { Stream::Stderr } else { Stream::Stdout };
            let piece = bytes(index as u64, length);
            writer.append(stream, 0, &piece).expect("append");
            all[usize::from(err)].extend(piece);
        }
        let stdout = (all[0].len() as f64 * from.0) as u64;
        let stderr = (all[1].len() as f64 * from.1) as u64;
        let chunks = rest(&mut Reader::new(&dir, Offsets { stdout, stderr }));
        for (stream, at, all) in [(Stream::Stdout, stdout, &all[0]), (Stream::Stderr, stderr, &all[1])] {
            prop_assert_eq!(joined(&chunks, stream, at), all.get(at as usize..).unwrap_or(&[]));
        }
    }

    /// A crash in the middle of a write, or a disk that made zeros or noise of the last block: the records before are read, and
    /// nothing else.
    #[test]
    fn a_torn_tail_is_cut(
        pieces in prop::collection::vec(1usize..3000, 1..8),
        keep in 0.0f64..1.0,
        junk in prop::collection::vec(any::<u8>(), 0..200),
        flip in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path().join("spool");
        let mut writer = Writer::create(&dir, LEAST).expect("spool");
        let mut all = Vec::new();
        for (index, length) in pieces.into_iter().enumerate() {
            let piece = bytes(index as u64, length);
            writer.append(Stream::Stdout, 0, &piece).expect("append");
            all.extend(piece);
        }
        let path = segment::path(&dir, 0);
        let mut file = fs::read(&path).expect("file");
        file.truncate((file.len() as f64 * keep) as usize);
        if let Some(flip) = flip.filter(|_| !file.is_empty()) {
            let at = flip.index(file.len());
            file[at] ^= 0x10;
        }
        file.extend(junk);
        fs::write(&path, file).expect("write");
        let mut reader = Reader::new(&dir, Offsets::default());
        let chunks = rest(&mut reader);
        let got = joined(&chunks, Stream::Stdout, 0);
        prop_assert!(all.starts_with(&got));
        prop_assert_eq!(reader.read().expect("readable"), Next::End);
    }

    #[test]
    fn strange_files_are_read_without_harm(files in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4)) {
        let dir = tempfile::tempdir().expect("dir");
        for (number, file) in files.iter().enumerate() {
            let mut whole = segment::header(&Offsets::default()).to_vec();
            whole.extend(file);
            fs::write(segment::path(dir.path(), number as u64), if number % 2 == 0 { &whole } else { file }).expect("write");
        }
        let mut reader = Reader::new(dir.path(), Offsets::default());
        let ended = (0..1000).any(|_| !matches!(reader.read(), Ok(Next::Chunk(_))));
        prop_assert!(ended);
        cut(dir.path(), &Offsets { stdout: u64::MAX, stderr: u64::MAX }).expect("cut");
    }
}
