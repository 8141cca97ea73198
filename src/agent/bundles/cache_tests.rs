use super::*;

/// A bundle with one file.
fn packed(content: &[u8]) -> (Vec<u8>, Archive) {
    let dir = tempfile::tempdir().expect("dir");
    fs::create_dir(dir.path().join("bin")).expect("dir");
    fs::write(dir.path().join("bin/tool"), content).expect("file");
    let mut bytes = Vec::new();
    let archive = archive::pack(dir.path(), &mut bytes).expect("packed");
    (bytes, archive)
}

fn make(cache: &Cache, (bytes, archive): &(Vec<u8>, Archive)) -> Result<Pin, Unkept> {
    let making = cache.begin(archive)?.expect("nobody else makes it");
    making.file()?.write_all(bytes)?;
    making.finish()
}

fn names(cache: &Cache) -> Vec<String> {
    let names = fs::read_dir(&cache.dir).expect("dir").map(|e| e.expect("entry").file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).filter(|n| n != ".lock").collect();
    names.sort();
    names
}

#[test]
fn the_one_that_was_not_used_for_longest_goes_and_those_in_use_stay() {
    let dir = tempfile::tempdir().expect("dir");
    let [a, b, c, d] = [b"a", b"b", b"c", b"d"].map(|content| packed(&content.repeat(10_000)));
    let cache = Cache::open(dir.path().join("bundles"), 2 * a.1.size + 100).expect("cache");
    let used = make(&cache, &a).expect("made");
    drop(make(&cache, &b).expect("made"));
    assert_eq!(fs::read(used.root().join("bin/tool")).expect("read"), b"a".repeat(10_000));
    // The older one is used.
    let third = make(&cache, &c).expect("made");
    let here = |archive: &Archive| cache.pin(&archive.sha256).expect("looked").is_some();
    assert!(here(&a.1) && !here(&b.1) && here(&c.1));
    let refused = make(&cache, &d).expect_err("all are used").to_string();
    assert!(refused.contains("--bundle-cache"), "{refused}");
    drop(used);
    drop(make(&cache, &d).expect("made"));
    assert!(!here(&a.1) && here(&c.1) && here(&d.1));
    drop(third);
    let large = packed(&[7; 100_000]);
    assert!(matches!(cache.begin(&large.1), Err(Unkept::TooLarge { .. })));
    assert!(here(&c.1) && here(&d.1), "nothing was removed for it");
    assert_eq!(names(&cache).len(), 4, "{:?}", names(&cache));
}

#[test]
fn one_makes_it_and_others_find_that_out_and_what_is_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let cache = Cache::open(dir.path().join("bundles"), 1 << 20).expect("cache");
    let a = packed(b"a");
    let making = cache.begin(&a.1).expect("begun").expect("first");
    assert!(cache.begin(&a.1).expect("looked").is_none());
    assert!(cache.pin(&a.1.sha256).expect("looked").is_none());
    // Another agent that starts now leaves it alone.
    let other = Cache::open(dir.path().join("bundles"), 1 << 20).expect("cache");
    assert!(making.part().exists());
    drop(making);
    assert!(names(&cache).is_empty(), "{:?}", names(&cache));
    let pin = make(&other, &a).expect("made");
    assert!(cache.begin(&a.1).expect("looked").is_none(), "it is there");
    assert_eq!(cache.pin(&a.1.sha256).expect("looked").expect("there").root(), pin.root());
}

#[test]
fn bytes_that_are_others_are_not_installed() {
    let dir = tempfile::tempdir().expect("dir");
    let cache = Cache::open(dir.path().join("bundles"), 1 << 20).expect("cache");
    let (mut bytes, archive) = packed(b"some");
    *bytes.last_mut().expect("bytes") ^= 1;
    assert!(matches!(make(&cache, &(bytes, archive)), Err(Unkept::Altered)));
    assert!(names(&cache).is_empty(), "{:?}", names(&cache));
}

#[test]
fn what_a_killed_agent_left_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().expect("dir");
    let cache = Cache::open(dir.path().join("bundles"), 1 << 20).expect("cache");
    let a = packed(b"a");
    let mut making = cache.begin(&a.1).expect("begun").expect("first");
    making.file().expect("file").write_all(&a.0).expect("written");
    // As if its process were gone: nothing is tidied up, and the lock is free.
    making.finished = true;
    drop(making);
    assert_eq!(names(&cache).len(), 2);
    let cache = Cache::open(dir.path().join("bundles"), 1 << 20).expect("cache");
    assert!(names(&cache).is_empty(), "{:?}", names(&cache));
}
