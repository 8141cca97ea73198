//! Signals, slow readers, and what is left when somebody dies: nothing.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    rig::{PATIENCE, Rig, Running, is_alive, noise, resident, run, wait_gone, wait_number},
    support::wait,
};

/// More than the windows of all hops, and much less than what the process could write.
const MOST_IN_FLIGHT: u64 = 200;
/// More than a process needs with all its windows full.
const MOST_RESIDENT: u64 = 250;

/// Starts a script on agent `a`, quietly.
fn start(rig: &Rig, options: &[&str], script: &str) -> Running {
    let mut args = vec!["exec"];
    args.extend(options);
    args.extend(["a", "--", "sh", "-c", script]);
    let mut command: Command = rig.rk(&args);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Running::start(command)
}

/// A script that writes its process id and its grandchild's, and then waits.
fn family(rig: &Rig, before: &str) -> String {
    let (child, grandchild) = (rig.path("child"), rig.path("grandchild"));
    format!(
        "{before} sleep 600 & echo $! > {}; echo $$ > {}; while :; do wait; sleep 1; done",
        grandchild.display(),
        child.display()
    )
}

fn family_ids(rig: &Rig) -> [u32; 2] {
    [wait_number(&rig.path("child")), wait_number(&rig.path("grandchild"))]
}

#[test]
fn signals_are_passed_on_and_the_exit_code_still_comes() {
    let rig = Rig::start("signals");
    let _agent = rig.agent("a", &[]);
    for (signal, code) in [("INT", 41), ("TERM", 42)] {
        let ready = rig.path(&format!("ready-{signal}"));
        let script = format!("trap 'exit {code}' {signal}; echo $$ > {}; while :; do sleep 0.1; done", ready.display());
        let mut command = start(&rig, &[], &script);
        let pid = wait_number(&ready);
        command.signal(signal);
        assert_eq!(command.code(), code);
        wait_gone(pid);
    }
}

#[test]
fn a_second_interrupt_ends_the_command_line_and_hangs_the_process_up() {
    let rig = Rig::start("interrupt");
    let _agent = rig.agent("a", &[]);
    let mut command = start(&rig, &["--grace", "500ms"], &family(&rig, "trap '' INT;"));
    let family = family_ids(&rig);
    command.signal("INT");
    let interrupted = Instant::now();
    // The first one is passed on and ignored; the second may follow at once.
    while command.0.try_wait().unwrap().is_none() && interrupted.elapsed() < Duration::from_millis(1900) {
        command.signal("INT");
        std::thread::yield_now();
    }
    assert_eq!(command.code(), 130);
    family.into_iter().for_each(wait_gone);
}

#[test]
fn a_command_line_that_is_killed_leaves_no_process() {
    let rig = Rig::start("killed");
    let agent = rig.agent("a", &[]);
    for trap in ["", "trap '' HUP;"] {
        let mut command = start(&rig, &["--grace", "500ms"], &family(&rig, trap));
        let family = family_ids(&rig);
        command.0.kill().unwrap();
        command.wait();
        family.into_iter().for_each(wait_gone);
        for file in ["child", "grandchild"] {
            fs::remove_file(rig.path(file)).unwrap();
        }
    }
    // An agent that is killed leaves none either, if none comes in its place in time, or none may; the command line learns of
    // it when the session is given up.
    drop(agent);
    for resume in ["0s", "1s"] {
        let agent = rig.start_agent("a", &rig.path("a.credential"));
        // The one before is known as online until the new one comes.
        wait::until("the new agent answers", PATIENCE, || {
            let pid = format!("\"pid\":{}", agent.id());
            let shown = rig.run(&["agents", "show", "-o", "json", "a"]).text().replace(' ', "");
            if shown.contains(&pid) { Ok(()) } else { Err(shown) }
        });
        let script = family(&rig, "trap '' HUP; echo up;");
        let mut command = rig.rk(&["exec", "--grace", "500ms", "--resume", resume, "a", "--", "sh", "-c", &script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut command = Running::start(command);
        let family = family_ids(&rig);
        // What it printed came through the agent, which has told the warden of it before.
        command.0.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
        drop(agent);
        family.into_iter().for_each(wait_gone);
        for file in ["child", "grandchild"] {
            fs::remove_file(rig.path(file)).unwrap();
        }
    }
}

#[test]
fn an_agent_that_is_stopped_lets_its_processes_end_and_then_ends_them() {
    let rig = Rig::start("drain");
    let mut agent = rig.agent("a", &[]);
    let go = rig.path("go");
    let script = format!("{} exit 9", wait_for(&go, &rig.path("pid")));
    let mut command = start(&rig, &[], &script);
    wait_number(&rig.path("pid"));
    agent.signal("TERM");
    wait::until("new work is refused", PATIENCE, || {
        let ran = rig.run(&["exec", "a", "--", "true"]);
        if ran.code == 75 { Ok(()) } else { Err(format!("{}: {}", ran.code, ran.stderr)) }
    });
    fs::write(&go, "").unwrap();
    assert_eq!(command.code(), 9, "a drained agent waits for what runs");
    let status = wait::until("the agent ends", PATIENCE, || agent.ended().ok_or_else(|| "it runs".to_owned()));
    assert_eq!(status.code(), Some(0));
}

fn wait_for(go: &Path, pid: &Path) -> String {
    format!("echo $$ > {}; while ! [ -e {} ]; do sleep 0.05; done;", pid.display(), go.display())
}

#[test]
fn a_slow_reader_slows_the_process_and_memory_stays_bounded() {
    let rig = Rig::start("slow");
    let agent = rig.agent("a", &[]);
    let progress = rig.path("progress");
    let script = format!("while head -c 1048576 /dev/zero; do printf x >> {}; done", progress.display());
    let mut command = rig.rk(&["exec", "--grace", "500ms", "a", "--", "sh", "-c", &script]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut running = Running::start(command);
    // Nobody reads: what the process could write stops growing.
    let written = || fs::metadata(&progress).map_or(0, |file| file.len());
    let mut last = (0, Instant::now());
    wait::until("the process is held up", PATIENCE, || {
        let now = written();
        if now != last.0 {
            last = (now, Instant::now());
        }
        if now > 0 && last.1.elapsed() > Duration::from_secs(2) { Ok(()) } else { Err(format!("{now} MiB")) }
    });
    assert!(written() < MOST_IN_FLIGHT, "{} MiB are in flight", written());
    for (who, pid) in [("rk exec", running.0.id()), ("controller", rig.controller_id()), ("agent", agent.id())] {
        let resident = resident(pid);
        assert!(resident < MOST_RESIDENT, "{who} has {resident} MiB resident");
    }
    // Reading lets it go on.
    let mut out = running.0.stdout.take().unwrap();
    let held = written();
    let mut buffer = vec![0; 1 << 20];
    let mut read = 0;
    while read < (held as usize + 50) << 20 {
        read += out.read(&mut buffer).unwrap();
        assert!(buffer.iter().all(|byte| *byte == 0));
    }
    drop(out);
    assert_eq!(running.code(), 0);
    assert!(!is_alive(running.0.id()));
}

#[test]
fn commands_that_are_stuck_hold_no_other_up_and_the_agents_memory_stays_bounded() {
    let rig = Rig::start("stuck");
    let agent = rig.agent("a", &[]);
    let before = resident(agent.id());
    let mut stuck = Vec::new();
    for _ in 0..8 {
        // One whose output nobody reads, and one that does not read what is sent to it without end.
        let mut unread = rig.rk(&["exec", "--grace", "500ms", "--no-stdin", "a", "--", "cat", "/dev/zero"]);
        unread.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut unheeded = rig.rk(&["exec", "--grace", "500ms", "a", "--", "sleep", "600"]);
        unheeded.stdin(fs::File::open("/dev/zero").unwrap()).stdout(Stdio::null()).stderr(Stdio::inherit());
        stuck.extend([Running::start(unread), Running::start(unheeded)]);
    }
    let name = "a".parse().unwrap();
    wait::until("all run", PATIENCE, || {
        let running = rig.block_on(rig.client().condition(&name)).map_err(|error| error.to_string())?.running;
        if running == 16 { Ok(()) } else { Err(format!("{running} run")) }
    });
    let bytes = noise(64 << 20);
    for _ in 0..2 {
        let start = Instant::now();
        let ran = run(rig.rk(&["exec", "a", "--", "cat"]), &bytes).ok();
        println!("64 MiB through cat and back in {:?}", start.elapsed());
        assert!(ran.stdout == bytes, "{} bytes came back", ran.stdout.len());
    }
    let after = resident(agent.id());
    println!("the agent's resident memory: {before} MiB before, {after} MiB after");
    // 8 windows of stdin at their largest, which these don't reach, 8 pumps each way, and what is in flight.
    assert!(after < before + 64 + 64, "{before} MiB before, {after} MiB after");
    assert!(stuck.iter().all(|command| is_alive(command.0.id())), "they are stuck, not ended");
}
