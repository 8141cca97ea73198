//! `rk exec -t`: a terminal there and one here, which a test types at and looks at.

mod losses;
mod screen;
mod tmux;

use std::{fs, os::unix::fs::PermissionsExt};

use nix::unistd::geteuid;

use crate::{
    failures::refused,
    rig::{Rig, run, wait_gone, wait_number},
    run_as::agent_command,
};
use screen::Screen;

#[test]
fn the_command_has_a_terminal_of_our_size_and_kind_and_ours_is_as_it_was() {
    let rig = Rig::start("tty");
    let _agent = rig.agent("a", &[]);
    let script = "tty; stty size; echo kind:$TERM; echo err >&2; exit 7";
    let mut screen = Screen::start(&rig, &["exec", "-it", "a", "--", "sh", "-c", script]);
    assert_eq!(screen.code(), 7);
    let text = screen.text();
    for part in ["/dev/pts/", "30 100\r\n", "kind:xterm\r\n", "err\r\n"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    screen.assert_as_before();
    // Without stdin it needs no terminal of ours, and what runs there still has one.
    let ran = run(rig.rk(&["exec", "-t", "--no-stdin", "a", "--", "sh", "-c", "tty; stty size"]), b"").ok();
    assert!(ran.text().starts_with("/dev/pts/") && ran.text().ends_with("24 80\r\n"), "{}", ran.text());
    // Whose code it is does not depend on a terminal.
    rig.run(&["exec", "-t", "--no-stdin", "a", "--", "sh", "-c", "kill -TERM $$"]).code(143);
    rig.run(&["exec", "-t", "--no-stdin", "a", "--", "no-such-program"]).code(127);
    rig.run(&["exec", "-t", "--no-stdin", "--timeout", "300ms", "a", "--", "sleep", "60"]).code(124);
}

#[test]
fn a_terminal_that_cannot_be_is_refused_with_a_cure() {
    let rig = Rig::start("no-tty");
    let mut command = rig.agent_command("a", &rig.add("a", &[]));
    command.args(["--allow", "tty"]);
    let mut agent = rig.process(command, "a.log");
    rig.wait_online("a", &mut agent);
    let ran = rig.run(&["exec", "-it", "a", "--", "tty"]).code(64);
    assert!(ran.line().contains("no terminal") && ran.line().contains("leave -t out"), "{}", ran.stderr);
    let ran = rig.run(&["exec", "--attach", &format!("a/{:032x}", 7)]).code(64);
    assert!(ran.line().contains("no terminal"), "{}", ran.stderr);
    let ran = rig.run(&["exec", "-t", "--no-stdin", "--resume", "0s", "a", "--", "tty"]).code(64);
    assert!(ran.line().contains("--resume"), "{}", ran.stderr);
    rig.run(&["exec", "-t", "--no-stdin", "-o", "jsonl", "a", "--", "tty"]).code(64);
    // The agent's own policy holds, and a terminal's kind is no variable to it.
    rig.run(&["exec", "-t", "--no-stdin", "a", "--", "tty"]).ok();
    let ran = rig.run(&["exec", "-t", "--no-stdin", "a", "--", "id"]).code(77);
    assert!(ran.line().contains("--allow"), "{}", ran.stderr);
    let mut screen = Screen::start(&rig, &["exec", "--attach", &format!("a/{:032x}", 7)]);
    assert_eq!(screen.code(), 75);
    screen.wait_for("not there any more");
    screen.assert_as_before();
}

#[test]
fn keys_sizes_and_jobs_are_those_of_a_terminal() {
    let rig = Rig::start("tty-shell");
    let _agent = rig.agent("a", &[]);
    let mut screen = Screen::start(&rig, &["exec", "-i", "-t", "a", "--", "sh"]);
    screen.type_line("echo shell''is:$$:");
    screen.wait_for("shellis:");
    // A size is followed, and what is in the foreground is told.
    screen.type_line("sh -c 'trap \"stty size\" WINCH; echo loop\"\"ing; while :; do sleep 0.05; done'");
    screen.wait_for("looping");
    screen.resize(120, 40);
    screen.wait_for("40 120\r\n");
    screen.resize(90, 20);
    screen.wait_for("20 90\r\n");
    // ^C interrupts what runs and not the shell.
    screen.press("\x03");
    screen.type_line("echo stop''ped");
    screen.wait_for("stopped");
    // Jobs are stopped and go on.
    let job = r#"trap "echo go\"\"ing" CONT; echo work""ing; while :; do sleep 0.05; done"#;
    screen.type_line(&format!("sh -c '{job}'"));
    screen.wait_for("working");
    screen.press("\x1a");
    screen.wait_for("Stopped");
    screen.type_line("fg");
    screen.wait_for("going");
    screen.press("\x03");
    screen.type_line("echo after''wards");
    screen.wait_for("afterwards");
    // What is no key of ours goes there, whatever begins it.
    screen.type_line("~x");
    screen.wait_for("~x: not found");
    screen.type_line("cat");
    screen.type_line("~~.");
    screen.wait_for("~.\r\n~.\r\n");
    screen.press("\x04");
    // What is pasted faster than it is read arrives whole.
    let (file, lines) = (rig.path("paper"), (0..3000).map(|number| format!("line-{number:05}")));
    screen.type_line(&format!("cat > {}", file.display()));
    for line in lines.clone() {
        screen.type_line(&line);
    }
    screen.press("\x04");
    screen.type_line("echo past''ed");
    screen.wait_for("pasted\r\n");
    let pasted = fs::read_to_string(&file).unwrap();
    assert!(pasted.lines().eq(lines), "{} bytes came", pasted.len());
    screen.press("\r~?");
    screen.wait_for("ends the command");
    screen.type_line("exit 5");
    assert_eq!(screen.code(), 5);
    screen.assert_as_before();
}

#[test]
fn the_terminal_of_a_command_that_runs_as_somebody_is_theirs() {
    let rig = Rig::prepare("tty-run-as", 2);
    if !geteuid().is_root() {
        refused(agent_command(&rig, "nobody"), 64, &["only root"]);
        return;
    }
    rig.start_controller();
    fs::set_permissions(rig.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    let mut command = rig.agent_command("a", &rig.add("a", &[]));
    command.args(["--run-as", "nobody"]);
    let mut agent = rig.process(command, "a.log");
    rig.wait_online("a", &mut agent);
    let script = "id -un; stat -c own:%U: $(tty); echo o''pen >/dev/tty; echo er''r >/dev/stderr; ps -o tty= -p $$";
    let mut screen = Screen::start(&rig, &["exec", "-it", "a", "--", "sh", "-c", script]);
    assert_eq!(screen.code(), 0, "{}", screen.text());
    for part in ["nobody\r\n", "own:nobody:", "open\r\n", "err\r\n", "pts/"] {
        assert!(screen.text().contains(part), "{part:?} is not in {}", screen.text());
    }
}

#[test]
fn our_terminal_is_as_it_was_whatever_ends_us() {
    let rig = Rig::start("tty-ends");
    let _agent = rig.agent("a", &[]);
    let pid_file = rig.path("pid");
    let script = format!("trap '' TERM INT; echo $$ > {}; while :; do sleep 1; done", pid_file.display());
    let args = ["exec", "-it", "--grace", "300ms", "a", "--", "sh", "-c", &script];
    for (signals, code) in [(&["HUP"][..], 129), (&["TERM", "TERM"], 143), (&["INT", "INT"], 130)] {
        let mut screen = Screen::start(&rig, &args);
        let pid = wait_number(&pid_file);
        screen.wait_raw();
        for signal in signals {
            screen.signal(signal);
            if signals.len() > 1 {
                // Two at once are one for the kernel.
                screen.pause();
            }
        }
        assert_eq!(screen.code(), code);
        screen.assert_as_before();
        // Who goes ends what it began, and does not leave it to its time.
        wait_gone(pid);
        fs::remove_file(&pid_file).unwrap();
    }
    let mut screen = Screen::start(&rig, &args);
    let pid = wait_number(&pid_file);
    screen.press("\r~.");
    assert_eq!(screen.code(), 130);
    screen.assert_as_before();
    wait_gone(pid);
}
