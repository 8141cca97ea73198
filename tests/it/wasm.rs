//! WebAssembly modules as commands: what they print and see, and how they end, under an agent and by themselves.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    rig::{Ran, Rig, run},
    support::process::{folder, rk},
};

const HELLO: &str = include_str!("../../src/agent/wasm/tests/hello.wat");
const TELL: &str = include_str!("../../src/agent/wasm/tests/tell.wat");
const OPEN: &str = include_str!("../../src/agent/wasm/tests/open.wat");
const EXIT: &str = "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
    (memory (export \"memory\") 1) (func (export \"_start\") (call $exit (i32.const 7))))";
const LOOP: &str = "(module (memory (export \"memory\") 1) (func (export \"_start\") (loop (br 0))))";
const GROW: &str = "(module (memory (export \"memory\") 1) (func (export \"_start\")
    (loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable))";
const MISSING: &str = "(module (import \"env\" \"f\" (func)) (func (export \"_start\")))";

/// Writes these modules, and one that is none, as files that nobody may execute.
fn modules(dir: &Path) {
    let all = [("hello", HELLO), ("tell", TELL), ("open", OPEN), ("exit", EXIT), ("loop", LOOP), ("grow", GROW)];
    for (name, text) in all.into_iter().chain([("missing", MISSING)]) {
        fs::write(dir.join(format!("{name}.wasm")), wat::parse_str(text).unwrap()).unwrap();
    }
    fs::write(dir.join("garbage.wasm"), "no module").unwrap();
}

/// What `tell` told.
fn told(ran: &Ran) -> BTreeSet<String> {
    ran.text().split_terminator('\0').map(str::to_owned).collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Modules in a directory of their own below the rig's.
fn place(rig: &Rig) -> PathBuf {
    let dir = rig.path("modules");
    fs::create_dir(&dir).unwrap();
    modules(&dir);
    dir
}

#[test]
fn a_modules_process_is_told_all_that_it_sees_on_its_command_line() {
    let dir = folder("wasm");
    modules(&dir);
    let wasm_run = |options: &[&str], module: &str, arguments: &[&str]| {
        let module = dir.join(module).display().to_string();
        let mut command = rk(&[&["wasm-run"], options, &[&module, "--"], arguments].concat());
        command.env("GIVEN", "from outside").env("OTHER", "x");
        run(command, b"")
    };
    assert_eq!(wasm_run(&[], "hello.wasm", &[]).ok().text(), "hello\n");
    let ran =
        wasm_run(&["--env", "A=b=c", "--env", "GIVEN", "--env", "NONE", "--name", "t"], "tell.wasm", &["-x", "--"]);
    assert_eq!(told(&ran.ok()), set(&["t", "-x", "--", "A=b=c", "GIVEN=from outside"]));
    let grant = format!("{}=/in:ro", dir.display());
    fs::write(dir.join("f"), "what is in it").unwrap();
    assert_eq!(wasm_run(&["--dir", &grant], "open.wasm", &["3", "r", "f"]).ok().text(), "what is in it");
    wasm_run(&["--dir", &grant], "open.wasm", &["3", "r", "../f"]).code(63);
    wasm_run(&["--dir", &grant], "open.wasm", &["3", "w", "new"]).code(63);
    wasm_run(&[], "open.wasm", &["3", "r", "f"]).code(8);
    for (options, module, code, part) in [
        (&["--fuel", "100000"][..], "loop.wasm", 152, "fuel of 100000"),
        (&["--memory", "4M"], "grow.wasm", 137, "4194304 bytes"),
        (&[], "garbage.wasm", 126, "no WebAssembly module"),
        (&[], "missing.wasm", 126, "env.f"),
        (&[], "none.wasm", 127, "none.wasm"),
        (&["--dir", "/no/such/dir=."], "hello.wasm", 126, "/no/such/dir"),
        (&["--net", "on"], "hello.wasm", 64, "--net"),
    ] {
        let ran = wasm_run(options, module, &[]).code(code);
        assert!(ran.line().contains(part) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    }
}

#[test]
fn an_exec_runs_a_module_as_any_command() {
    let rig = Rig::start("wasm");
    let _agent = rig.agent("a", &[]);
    let dir = place(&rig);
    let cwd = dir.to_str().unwrap();
    fs::copy(dir.join("hello.wasm"), dir.join("hello")).unwrap();
    fs::set_permissions(dir.join("hello"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("f"), "what is in it").unwrap();
    for resume in ["60s", "0s"] {
        let exec = |options: &[&str], command: &[&str]| {
            let given = ["exec", "--resume", resume, "--cwd", cwd];
            rig.run(&[&given, options, &["a", "--"], command].concat())
        };
        // By its name, and by how it begins.
        for command in ["./hello.wasm", "./hello"] {
            assert_eq!(exec(&[], &[command]).ok().text(), "hello\n");
        }
        exec(&[], &["./exit.wasm"]).code(7);
        let told = told(&exec(&["--env", "A=b c"], &["./tell.wasm", "x y"]).ok());
        let all = set(&["./tell.wasm", "x y", "A=b c", "RK=1", "RK_AGENT_NAME=a"]);
        assert!(told.is_superset(&all), "{told:?}");
        assert!(!told.iter().any(|word| word.starts_with("RK_API") || word.starts_with("RK_CONFIG")), "{told:?}");
        assert_eq!(exec(&[], &["./open.wasm", "3", "r", "f"]).ok().text(), "what is in it");
        exec(&[], &["./open.wasm", "3", "w", resume]).ok();
        assert_eq!(fs::read(dir.join(resume)).unwrap(), b"written");
        exec(&[], &["./open.wasm", "3", "r", "../a.credential"]).code(63);
        exec(&[], &["./open.wasm", "5", "r", "f"]).code(8);
        let ran = exec(&["--timeout", "500ms", "--grace", "500ms"], &["./loop.wasm"]).code(124);
        assert!(ran.line().contains("timed out"), "{}", ran.stderr);
        for (module, code, part) in [
            ("./grow.wasm", 137, "--wasm-memory"),
            ("./garbage.wasm", 126, "no WebAssembly module"),
            ("./missing.wasm", 126, "env.f"),
            ("./none.wasm", 127, "none.wasm"),
        ] {
            let ran = exec(&[], &[module]).code(code);
            assert!(ran.line().contains(part), "{}", ran.stderr);
        }
    }
    // The agent's own files are in none of these.
    let data = rig.path("a.data/agent/a").display().to_string();
    for cwd in ["/", &data] {
        let hello = dir.join("hello.wasm").display().to_string();
        let ran = rig.run(&["exec", "--cwd", cwd, "a", "--", &hello]).code(126);
        assert!(ran.line().contains("--work"), "{}", ran.stderr);
    }
}

#[test]
fn the_agents_limits_and_its_policy_hold_for_modules() {
    let rig = Rig::start("wasm-limits");
    let dir = place(&rig);
    let credential = rig.add("a", &[]);
    let mut command = rig.agent_command("a", &credential);
    command.args(["--wasm-fuel", "1000000", "--allow", "./*.wasm *", "--work"]).arg(&dir);
    command.env("RK_WASM_MEMORY", "2M");
    let mut agent = rig.process(command, "a.log");
    rig.wait_online("a", &mut agent);
    assert_eq!(rig.run(&["exec", "a", "--", "./hello.wasm"]).ok().text(), "hello\n");
    let ran = rig.run(&["exec", "a", "--", "./loop.wasm"]).code(152);
    assert!(ran.line().contains("fuel of 1000000"), "{}", ran.stderr);
    let ran = rig.run(&["exec", "a", "--", "./grow.wasm"]).code(137);
    assert!(ran.line().contains("2097152 bytes"), "{}", ran.stderr);
    // Nobody gets around it by saying himself how a module is run.
    let program = rk(&[]).get_program().to_str().unwrap().to_owned();
    let ran = rig.run(&["exec", "a", "--", &program, "wasm-run", "--dir", "/=/", "hello.wasm"]).code(77);
    assert!(ran.line().contains("--allow"), "{}", ran.stderr);
}

#[test]
fn a_job_is_a_module_with_its_workspace_and_its_secrets() {
    let rig = Rig::start("wasm-job");
    let _agent = rig.agent("a", &[]);
    let dir = place(&rig);
    let module = |name: &str| dir.join(format!("{name}.wasm")).display().to_string();
    let job = |options: &[&str], command: &[&str]| rig.run(&[&["run", "-q"], options, &["--"], command].concat());
    assert_eq!(job(&[], &[&module("hello")]).ok().text(), "hello\n");
    job(&[], &[&module("exit")]).code(7);
    let ran = job(&["-e", "A=b"], &[&module("tell"), "x"]).ok();
    let told = told(&ran);
    let all = set(&[&module("tell"), "x", "A=b", "RK_ATTEMPT=1", "RK_AGENT_NAME=a"]);
    assert!(told.is_superset(&all), "{told:?}");
    job(&[], &[&module("open"), "3", "w", "made"]).ok();
    job(&[], &[&module("open"), "3", "r", "made"]).code(44);
    job(&[], &[&module("open"), "3", "r", "../../jobs"]).code(63);
    job(&["--timeout", "500ms"], &[&module("loop")]).code(124);
    let ran = job(&[], &[&module("grow")]).code(137);
    assert!(ran.stderr.contains("--wasm-memory"), "{}", ran.stderr);
    // The directory is 3, by its own name 4, and the secrets are 5.
    let key = rig.path("key");
    fs::write(&key, "k-value").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = ["--secret-file".to_owned(), format!("KEY=file:{}", key.display())];
    let secret = [secret[0].as_str(), secret[1].as_str()];
    let ran = job(&secret, &[&module("open"), "5", "r", "KEY"]).ok();
    assert!(!ran.stdout.is_empty() && !ran.text().contains("k-value"), "it is masked: {}", ran.text());
    job(&secret, &[&module("open"), "5", "w", "KEY"]).code(63);
    // A script finds no interpreter in a module.
    let script = rig.path("s");
    fs::write(&script, "x").unwrap();
    let interpreter = module("hello");
    let ran = job(&["--interpreter", &interpreter, "--script", script.to_str().unwrap()], &[]);
    assert!(ran.code == 126 && ran.stderr.contains("interpreter"), "{}: {}", ran.code, ran.stderr);
}
