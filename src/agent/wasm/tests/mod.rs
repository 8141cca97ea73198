//! How modules end, and what they come to. What they print, and how they run under an agent, is in `tests/it`.

use std::{ffi::OsString, fs, os::unix::fs::symlink, path::Path};

use super::{
    Limits,
    order::{Folder, Order},
    sandbox::{self, Failure},
};

/// What WASI calls the errors.
const NOT_PERMITTED: u8 = 63;
const NO_ENTRY: u8 = 44;
const BAD_DESCRIPTOR: u8 = 8;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("dir"))
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn order(&self, text: &str, arguments: &[&str], limits: Limits) -> Order {
        let module = self.path("m.wasm");
        fs::write(&module, wat::parse_str(text).expect("a module")).expect("written");
        Order {
            folders: Vec::new(),
            variables: Vec::new(),
            limits,
            name: Some("m".into()),
            module,
            arguments: arguments.iter().map(OsString::from).collect(),
        }
    }

    fn run(&self, text: &str, limits: Limits) -> Result<u8, Failure> {
        sandbox::run(&self.order(text, &[], limits), &[])
    }

    fn fails(&self, text: &str, limits: Limits, code: u8, part: &str) {
        let failure = self.run(text, limits).expect_err(text);
        assert!(failure.code == code && failure.message.contains(part), "{text}: {failure:?}");
        assert!(!failure.message.contains('\n') && failure.message.starts_with("m: "), "{failure:?}");
    }
}

fn exit(code: i32) -> String {
    format!(
        "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32))) (memory (export \"memory\") 1)
           (func (export \"_start\") (call $exit (i32.const {code})) unreachable))"
    )
}

/// A program of these instructions.
fn program(instructions: &str) -> String {
    format!("(module (memory (export \"memory\") 1) (func $start (export \"_start\") {instructions}))")
}

#[test]
fn the_exit_code_is_the_modules_own() {
    let place = Place::new();
    for (code, expected) in [(0, 0), (7, 7), (125, 125), (200, 200), (255, 255), (256, 0), (-1, 255)] {
        assert_eq!(place.run(&exit(code), Limits::default()).expect("it ended"), expected, "{code}");
    }
    assert_eq!(place.run(&program("nop"), Limits::default()).expect("it ended"), 0);
}

#[test]
fn a_trap_has_a_code_and_a_line() {
    let place = Place::new();
    for (instructions, part) in [
        ("unreachable", "unreachable"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("(drop (i32.load (i32.const -4)))", "out of bounds"),
        ("(call $start)", "exhausted"),
    ] {
        place.fails(&program(instructions), Limits::default(), 134, part);
    }
}

#[test]
fn a_loop_without_end_ends_with_its_fuel() {
    let limits = Limits { fuel: Some(1_000_000), ..Limits::default() };
    let place = Place::new();
    place.fails(&program("(loop (br 0))"), limits, 152, "fuel of 1000000");
    // Filling memory is work as well.
    let fill = "(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br 0))";
    place.fails(&program(fill), limits, 152, "--wasm-fuel");
    // Also what runs before the start.
    let early = "(module (func $f (loop (br 0))) (start $f) (func (export \"_start\")))";
    place.fails(early, limits, 152, "fuel");
    assert_eq!(place.run(&exit(3), limits).expect("it ended"), 3);
}

#[test]
fn memory_is_refused_above_the_limit() {
    let limits = Limits { memory: 1 << 20, fuel: None };
    let place = Place::new();
    // It counts what it got, and has 16 pages in the end.
    let grow = "(loop $next (br_if $next (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
                (if (i32.ne (memory.size) (i32.const 16)) (then unreachable))";
    assert_eq!(place.run(&program(grow), limits).expect("it ended"), 0);
    let give_up = format!("{grow} unreachable");
    place.fails(&program(&give_up), limits, 137, "--wasm-memory");
    let large = "(module (memory (export \"memory\") 17) (func (export \"_start\")))";
    place.fails(large, limits, 137, "1048576 bytes");
    // Tables are memory too, and several memories are one.
    let table = "(module (table 100000 funcref) (func (export \"_start\")))";
    place.fails(table, limits, 137, "1048576 bytes");
    let two = "(module (memory 9) (memory 9) (func (export \"_start\")))";
    place.fails(two, limits, 137, "1048576 bytes");
    // A maximum of its own is no matter of ours.
    let own = "(module (memory 1 2) (func (export \"_start\") (drop (memory.grow (i32.const 99))) unreachable))";
    place.fails(own, limits, 134, "trapped");
}

#[test]
fn what_is_no_program_is_refused_with_what_would_do() {
    let place = Place::new();
    let any = Limits::default();
    let missing = "(module (import \"env\" \"f\" (func)) (import \"env\" \"g\" (func)) (func (export \"_start\")))";
    place.fails(missing, any, 126, "env.f");
    let socket = "(module (import \"wasi_snapshot_preview1\" \"sock_open\" (func)) (func (export \"_start\")))";
    place.fails(socket, any, 126, "without a network");
    let other = "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func)) (func (export \"_start\")))";
    place.fails(other, any, 126, "cannot be run");
    place.fails("(module)", any, 126, "library");
    place.fails("(module (func (export \"_start\") (param i32)))", any, 126, "cannot be run");
    place.fails("(component)", any, 126, "wasm32-wasip1");
    let order = place.order("(module)", &[], any);
    for bytes in [&b""[..], b"\0asm", b"garbage that is longer than a header", b"\0asm\x01\0\0\0\xff\xff\xff\xff\xff"] {
        fs::write(&order.module, bytes).expect("written");
        let failure = sandbox::run(&order, &[]).expect_err("no module");
        assert!(failure.code == 126 && failure.message.contains("no WebAssembly module"), "{bytes:?}: {failure:?}");
    }
    fs::remove_file(&order.module).expect("removed");
    assert_eq!(sandbox::run(&order, &[]).expect_err("it is gone").code, 127);
}

#[test]
fn a_module_comes_to_what_it_was_granted_and_to_nothing_else() {
    let place = Place::new();
    for dir in ["own/sub", "read", "secret"] {
        fs::create_dir_all(place.path(dir)).expect("dir");
    }
    for file in ["own/sub/f", "read/f", "secret/f"] {
        fs::write(place.path(file), "").expect("file");
    }
    let secret = place.path("secret/f");
    symlink(&secret, place.path("own/absolute")).expect("link");
    symlink("../secret/f", place.path("own/relative")).expect("link");
    symlink("../secret", place.path("own/dir")).expect("link");
    symlink("sub/f", place.path("own/inside")).expect("link");
    let open = |fd: &str, how: &str, path: &str| {
        let mut order = place.order(include_str!("open.wat"), &[fd, how, path], Limits::default());
        let folder = |name: &str, writable| Folder::new(&place.path(name), Path::new(name), writable).expect("fine");
        order.folders = vec![folder("own", true), folder("read", false)];
        sandbox::run(&order, &[]).expect("it ended")
    };
    for how in ["r", "w"] {
        for path in
            ["../secret/f", "sub/../../secret/f", "relative", "dir/f", "absolute", secret.to_str().expect("text")]
        {
            assert_eq!(open("3", how, path), NOT_PERMITTED, "{how} {path}");
        }
        for path in ["sub/f", "./sub/../sub/f", "inside"] {
            assert_eq!(open("3", how, path), 0, "{how} {path}");
        }
        assert_eq!(open("5", how, "f"), BAD_DESCRIPTOR);
    }
    assert_eq!(fs::read(place.path("secret/f")).expect("file"), b"");
    assert_eq!(fs::read(place.path("own/sub/f")).expect("file"), b"written");
    assert_eq!((open("3", "r", "none"), open("3", "d", "made"), open("3", "u", "inside")), (NO_ENTRY, 0, 0));
    assert!(place.path("own/made").is_dir() && !place.path("own/inside").exists());

    assert_eq!(open("4", "r", "f"), 0);
    for (how, path) in [("w", "f"), ("w", "new"), ("d", "new"), ("u", "f"), ("r", "../secret/f")] {
        assert_eq!(open("4", how, path), NOT_PERMITTED, "{how} {path}");
    }
    assert_eq!((open("3", "t", "sub/f"), open("4", "t", "f")), (0, BAD_DESCRIPTOR));
    assert_eq!(fs::read_dir(place.path("read")).expect("dir").count(), 1);
}
