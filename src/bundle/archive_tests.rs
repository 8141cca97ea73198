use proptest::prelude::*;

use super::*;

/// One entry, as an attacker writes it.
fn entry(kind: u8, path: &[u8], content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_be_bytes();
    [&[kind][..], &(path.len() as u16).to_be_bytes(), path, &length, content].concat()
}

fn whole(entries: &[Vec<u8>]) -> Vec<u8> {
    [MAGIC, &entries.concat(), &[END]].concat()
}

fn unpacked(archive: &[u8]) -> (tempfile::TempDir, Result<(), Error>) {
    let dir = tempfile::tempdir().expect("dir");
    let result = unpack(archive, &dir.path().join("root"));
    (dir, result)
}

fn packed(from: &Path) -> (Vec<u8>, Archive) {
    let mut bytes = Vec::new();
    let archive = pack(from, &mut bytes).expect("packed");
    assert_eq!((archive.sha256, archive.size), (Digest::of(&bytes), bytes.len() as u64));
    (bytes, archive)
}

#[test]
fn what_is_packed_comes_out_read_only_and_packs_to_the_same_digest() {
    let top = tempfile::tempdir().expect("dir");
    let from = top.path().join("from");
    fs::create_dir_all(from.join("bin/sub")).expect("dirs");
    fs::create_dir(from.join("bin-x")).expect("dir");
    fs::write(from.join("bin/tool"), "#!/bin/sh\n").expect("file");
    fs::set_permissions(from.join("bin/tool"), fs::Permissions::from_mode(0o700)).expect("mode");
    fs::write(from.join("bin/sub/data"), vec![7; 300_000]).expect("file");
    symlink("../bin/tool", from.join("bin-x/link")).expect("link");
    let (bytes, archive) = packed(&from);
    let root = top.path().join("root");
    unpack(&bytes[..], &root).expect("unpacked");
    let mode = |path: &str| fs::symlink_metadata(root.join(path)).expect("there").mode() & 0o777;
    assert_eq!((mode(""), mode("bin/tool"), mode("bin/sub/data")), (0o555, 0o555, 0o444));
    assert_eq!(fs::read(root.join("bin-x/link")).expect("read"), b"#!/bin/sh\n");
    assert_eq!(packed(&root).1, archive);
    // A single file is a bundle too.
    let (bytes, _) = packed(&from.join("bin/tool"));
    let (dir, result) = unpacked(&bytes);
    result.expect("unpacked");
    assert!(dir.path().join("root/tool").is_file());
}

#[test]
fn what_leaves_the_root_is_refused_and_nothing_is_written_beside_it() {
    let dir = |path: &[u8]| entry(0, path, b"");
    for (what, entries) in [
        ("traversal", vec![entry(1, b"../out", b"x")]),
        ("traversal below", vec![dir(b"a"), entry(1, b"a/../../out", b"x")]),
        ("absolute", vec![entry(1, b"/tmp/rk-out", b"x")]),
        ("dot", vec![entry(1, b"./out", b"x")]),
        ("empty", vec![entry(1, b"", b"x")]),
        ("zero byte", vec![entry(1, b"a\0b", b"x")]),
        ("absolute link", vec![entry(3, b"l", b"/etc/passwd")]),
        ("link that leaves", vec![entry(3, b"l", b"../out")]),
        ("link that may leave", vec![dir(b"a"), entry(3, b"a/l", b"../b/../../out")]),
        ("through a link", vec![entry(3, b"a", b"b"), dir(b"b"), entry(1, b"a/out", b"x")]),
        ("twice", vec![entry(1, b"a", b"x"), entry(1, b"a", b"y")]),
        ("descending", vec![entry(1, b"b", b"x"), entry(1, b"a", b"y")]),
        ("no directory", vec![entry(1, b"a/b", b"x")]),
        ("file as directory", vec![entry(1, b"a", b"x"), entry(1, b"a/b", b"x")]),
        ("device", vec![entry(4, b"a", b"x")]),
        ("directory with content", vec![entry(0, b"a", b"x")]),
    ] {
        let (dir, result) = unpacked(&whole(&entries));
        assert!(matches!(result, Err(Error::Malformed(_))), "{what}: {result:?}");
        let beside: Vec<_> = fs::read_dir(dir.path()).expect("dir").map(|e| e.expect("entry").file_name()).collect();
        assert!(beside.is_empty() || beside == ["root"], "{what}: {beside:?}");
        assert!(!Path::new("/tmp/rk-out").exists(), "{what}");
    }
    let good = whole(&[entry(1, b"a", b"x")]);
    assert!(unpacked(&good).1.is_ok());
    assert!(unpacked(&[&good[..], b"y"].concat()).1.is_err(), "something follows");
    assert!(unpacked(&good[..good.len() - 1]).1.is_err(), "cut");
    assert!(unpacked(b"PK\x03\x04").1.is_err(), "another format");
}

#[test]
fn what_a_bundle_must_not_hold_is_not_packed() {
    let top = tempfile::tempdir().expect("dir");
    let refused = |cure: &str| {
        let error = pack(top.path(), io::sink()).expect_err("refused").to_string();
        assert!(error.contains(cure), "{error}");
    };
    let path = top.path().join("x");
    fs::write(&path, "").expect("file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).expect("mode");
    refused("chmod ug-s");
    fs::remove_file(&path).expect("removed");
    symlink("/etc/passwd", &path).expect("link");
    refused("copy what it points to");
    fs::remove_file(&path).expect("removed");
    let _socket = std::os::unix::net::UnixListener::bind(&path).expect("socket");
    refused("leave it out");
}

proptest! {
    #[test]
    fn no_archive_makes_unpacking_panic_or_write_beside_its_root(
        kinds in prop::collection::vec((0u8..6, "[a./]{0,6}", prop::collection::vec(any::<u8>(), 0..8)), 0..6),
        flip in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let entries: Vec<_> = kinds.iter().map(|(kind, path, content)| entry(*kind, path.as_bytes(), content)).collect();
        let mut bytes = whole(&entries);
        let at = flip.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let (dir, _) = unpacked(&bytes);
        prop_assert!(fs::read_dir(dir.path()).expect("dir").all(|e| e.expect("entry").file_name() == "root"));
    }
}
