use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use super::*;

fn wanted(root: &Path, globs: &[&str]) -> Wanted {
    let globs = globs.iter().map(|text| text.parse().expect("a pattern")).collect();
    Wanted { root: root.to_owned(), globs, limit: 1 << 20, user: None }
}

fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("below")).expect("made");
    fs::write(path, bytes).expect("written");
}

/// What is found, and its bytes; or why not.
fn run(wanted: Wanted, sent: Option<(Archive, u64)>) -> Result<(Gathered, u64, Vec<u8>), String> {
    let mut gathering = begin(wanted, sent).expect("a thread");
    let (found, from) = match gathering.steps.blocking_recv() {
        Some(Step::Found(found, from)) => (*found, from),
        Some(Step::Failed(why)) => return Err(why),
        _ => panic!("it begins with what there is"),
    };
    let mut bytes = Vec::new();
    loop {
        match gathering.steps.blocking_recv() {
            Some(Step::Piece(piece)) => bytes.extend(piece),
            Some(Step::Done) => return Ok((found, from, bytes)),
            Some(Step::Changed(path)) => return Err(format!("{path} changed")),
            Some(Step::Failed(why)) => return Err(why),
            _ => panic!("nothing else comes"),
        }
    }
}

fn paths(found: &Gathered) -> Vec<&str> {
    found.manifest.files.iter().map(|file| file.path.as_str()).collect()
}

#[test]
fn what_matches_is_found_sorted_and_each_content_comes_once() {
    let dir = tempfile::tempdir().expect("dir");
    for (path, bytes) in [("b/x", &b"one"[..]), ("a", b"two"), ("c/d/e", b"one"), ("c/empty", b""), ("other/x", b"no")]
    {
        write(dir.path(), path, bytes);
    }
    fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o4751)).expect("mode");
    let (found, from, bytes) = run(wanted(dir.path(), &["[ab]*/**", "a", "c"]), None).expect("found");
    assert_eq!((paths(&found), from, &bytes[..]), (vec!["a", "b/x", "c/d/e", "c/empty"], 0, &b"twoone"[..]));
    let offsets: Vec<_> = found.manifest.files.iter().map(|file| (file.offset, file.size)).collect();
    assert_eq!(offsets, [(0, 3), (3, 3), (3, 3), (6, 0)]);
    assert_eq!(found.manifest.files[0].mode, 0o751, "what is more than permissions is not kept");
    assert_eq!((found.left_out, found.manifest.pack.size), (0, 6));
    // Who comes again gets the rest.
    let sent = Some((found.manifest.pack, 4));
    let (_, from, bytes) = run(wanted(dir.path(), &["[ab]*/**", "a", "c"]), sent).expect("found");
    assert_eq!((from, &bytes[..]), (4, &b"ne"[..]));
    let (_, from, bytes) = run(wanted(dir.path(), &["a"]), sent).expect("found");
    assert_eq!((from, &bytes[..]), (0, &b"two"[..]), "another pack is sent from its start");
}

#[test]
fn links_and_what_is_no_file_are_left_out_and_nothing_outside_is_read() {
    let dir = tempfile::tempdir().expect("dir");
    let (root, outside) = (dir.path().join("work"), dir.path().join("outside"));
    write(&root, "file", b"x");
    write(&outside, "secret", b"hunter2");
    symlink(&outside, root.join("dir")).expect("a link");
    symlink(outside.join("secret"), root.join("link")).expect("a link");
    symlink("file", root.join("inside")).expect("a link");
    symlink("..", root.join("up")).expect("a link");
    nix::unistd::mkfifo(&root.join("pipe"), Mode::from_bits_truncate(0o600)).expect("a pipe");
    fs::write(root.join(OsStr::from_bytes(b"\xff")), "x").expect("written");
    for globs in [&["**"][..], &["*", "dir/*", "up/outside/secret", "**/secret"]] {
        let (found, _, bytes) = run(wanted(&root, globs), None).expect("found");
        assert_eq!((paths(&found), &bytes[..]), (vec!["file"], &b"x"[..]), "{globs:?}");
        let mut said = found.manifest.left_out.clone();
        said.sort();
        let expected = [
            "dir: it is a link",
            "inside: it is a link",
            "link: it is a link",
            "pipe: it is no file",
            "up: it is a link",
            "\u{fffd}: its name is no UTF-8",
        ];
        assert_eq!(said, expected, "{globs:?}");
    }
    // The directory itself is not followed either.
    symlink(&root, dir.path().join("work-link")).expect("a link");
    assert!(run(wanted(&dir.path().join("work-link"), &["**"]), None).is_err());
}

#[test]
fn a_directory_that_is_swapped_for_a_link_leads_nowhere() {
    let dir = tempfile::tempdir().expect("dir");
    let (root, outside) = (dir.path().join("work"), dir.path().join("outside"));
    write(&root, "d/secret", b"mine");
    write(&outside, "secret", b"hunter2");
    let open: OwnedFd = OpenFile::open(&root).expect("open").into();
    assert!(open_file(&open, "d/secret").is_ok());
    fs::rename(root.join("d"), root.join("e")).expect("moved");
    symlink(&outside, root.join("d")).expect("a link");
    assert!(open_file(&open, "d/secret").is_err() && open_dir(&open, "d").is_err());
    assert!(open_file(&open, "../outside/secret").is_err() && open_file(&open, "e/../../outside/secret").is_err());
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_sent() {
    let dir = tempfile::tempdir().expect("dir");
    for (path, length) in [("a", 600), ("b", 500), ("c", 1)] {
        write(dir.path(), path, &vec![7; length]);
    }
    let why = run(Wanted { limit: 1000, ..wanted(dir.path(), &["*"]) }, None).err().expect("too much");
    assert!(why.starts_with("b (500 bytes)") && why.contains("--artifact-limit"), "{why}");
    assert!(run(Wanted { limit: 1101, ..wanted(dir.path(), &["*"]) }, None).is_ok());
}

#[test]
fn what_vanished_or_changed_meanwhile_is_noticed() {
    let dir = tempfile::tempdir().expect("dir");
    write(dir.path(), "a", &vec![7; 3 * CHUNK]);
    write(dir.path(), "z", b"before");
    let walk = || Walk { wanted: wanted(dir.path(), &["*"]), stop: Arc::default(), left_out: Vec::new(), more: 0 };
    let open: OwnedFd = OpenFile::open(dir.path()).expect("open").into();
    let one = walk();
    let mut size = 0;
    let gone = one.look(&open, "gone", &mut size);
    assert!(matches!(gone, Ok(Err(why)) if why == "it is gone"));
    // More than may wait is read before the second file, so that this comes in time.
    let mut gathering = begin(wanted(dir.path(), &["*"]), None).expect("a thread");
    assert!(matches!(gathering.steps.blocking_recv(), Some(Step::Found(..))));
    let Ok(Some(_)) = one.look(&open, "z", &mut size).map(Result::ok) else { panic!("it is there") };
    let file = one.look(&open, "z", &mut size).ok().and_then(Result::ok).expect("it is there");
    fs::write(dir.path().join("z"), "after!").expect("written");
    let (send, _steps) = mpsc::channel(8);
    let sent = walk().send(&open, &file, 0, &mut Vec::new(), &send);
    assert!(matches!(sent, Err(Step::Changed(path)) if path == "z"), "the same length, other bytes");
    fs::write(dir.path().join("z"), "longer than before").expect("written");
    assert!(walk().send(&open, &file, 0, &mut Vec::new(), &send).is_err());
    fs::remove_file(dir.path().join("z")).expect("removed");
    assert!(walk().send(&open, &file, 0, &mut Vec::new(), &send).is_err());
}

#[test]
fn a_file_that_cannot_be_read_is_left_out_also_by_root_who_reads_as_somebody() {
    let dir = tempfile::tempdir().expect("dir");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    write(dir.path(), "open", b"x");
    write(dir.path(), "closed", b"hunter2");
    fs::set_permissions(dir.path().join("open"), fs::Permissions::from_mode(0o644)).expect("mode");
    fs::set_permissions(dir.path().join("closed"), fs::Permissions::from_mode(0o000)).expect("mode");
    let user = nix::unistd::geteuid().is_root().then_some((65534, 65534));
    let (found, _, _) = run(Wanted { user, ..wanted(dir.path(), &["*"]) }, None).expect("found");
    assert_eq!(paths(&found), ["open"]);
    assert!(found.manifest.left_out[0].starts_with("closed: Permission denied"), "{:?}", found.manifest.left_out);
    // The rights were one thread's alone.
    assert!(!nix::unistd::geteuid().is_root() || fs::read(dir.path().join("closed")).is_ok());
}
