//! What dies under a terminal, and what comes back to it.

use std::fs;

use super::screen::Screen;
use crate::{
    rig::{PATIENCE, Rig, is_alive, wait_gone, wait_number},
    support::wait,
};

/// A shell at a terminal, and its process's id.
fn shell(rig: &Rig, args: &[&str]) -> (Screen, u32) {
    let mut screen = Screen::start(rig, &[&["exec", "-it"], args, &["a", "--", "sh"]].concat());
    screen.type_line("echo p''id:$$:");
    let pid = screen.between("pid:", ":").parse().unwrap();
    (screen, pid)
}

/// Panics unless the shell with this id answers, as `name`.
fn answers(screen: &mut Screen, name: &str, pid: u32) {
    let (first, rest) = name.split_at(1);
    screen.type_line(&format!("echo {first}''{rest}:$$:"));
    assert_eq!(screen.between(&format!("{name}:"), ":"), pid.to_string());
}

#[test]
fn a_shell_outlives_its_agent_and_the_controller() {
    let rig = Rig::start("tty-agent");
    let credential = rig.add("a", &[]);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    let (mut screen, pid) = shell(&rig, &[]);
    drop(agent);
    // What is typed and written meanwhile is not lost.
    screen.type_line("echo mean''while");
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    screen.wait_for("meanwhile");
    answers(&mut screen, "again", pid);
    rig.kill_controller();
    screen.type_line("echo wait''ing");
    rig.start_controller();
    screen.wait_for("waiting");
    answers(&mut screen, "third", pid);
    screen.type_line("exit 4");
    assert_eq!(screen.code(), 4);
    screen.assert_as_before();
    wait_gone(pid);
}

#[test]
fn who_was_killed_comes_back_to_what_was_missed() {
    let rig = Rig::start("tty-attach");
    let _agent = rig.agent("a", &[]);
    let (mut screen, pid) = shell(&rig, &[]);
    let (kept, file) = (screen.kept(), rig.path("go"));
    screen.type_line(&format!("until [ -e {} ]; do sleep 0.05; done; seq 1 20000; echo mis''sed", file.display()));
    screen.wait_for("; do sleep");
    screen.kill();
    fs::write(&file, "").unwrap();
    let mut screen = Screen::start(&rig, &["exec", "--attach", &kept]);
    screen.wait_for("missed");
    let text = screen.text();
    for number in [1, 4_321, 19_999, 20_000] {
        assert!(text.contains(&format!("\r\n{number}\r\n")), "{number} is not there");
    }
    answers(&mut screen, "home", pid);
    screen.resize(77, 22);
    screen.type_line("until [ \"$(stty size)\" = '22 77' ]; do sleep 0.05; done; echo si''zed");
    screen.wait_for("sized");
    screen.type_line("exit 3");
    assert_eq!(screen.code(), 3);
    screen.assert_as_before();
    // It is over, and everybody knows: first those who come before the agent heard that its end arrived.
    wait::until("the end is forgotten", PATIENCE, || match Screen::start(&rig, &["exec", "--attach", &kept]).code() {
        75 => Ok(()),
        3 => Err("it is told again".to_owned()),
        other => panic!("{other}"),
    });
}

#[test]
fn who_leaves_on_purpose_comes_back_and_shuts_out_who_is_there() {
    let rig = Rig::start("tty-detach");
    let credential = rig.add("a", &[]);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    let (mut screen, pid) = shell(&rig, &[]);
    let (kept, file) = (screen.kept(), rig.path("typed"));
    // What was typed just before arrives.
    screen.press(&format!("echo $$ > {}\r~d", file.display()));
    assert_eq!(screen.code(), 0);
    screen.assert_as_before();
    screen.wait_for("kept for 10m");
    assert_eq!(wait_number(&file), pid);
    assert!(is_alive(pid));
    // Also an agent that was started meanwhile knows it.
    drop(agent);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    let mut first = Screen::start(&rig, &["exec", "--attach", &kept]);
    answers(&mut first, "first", pid);
    let mut second = Screen::start(&rig, &["exec", "--attach", &kept]);
    assert_eq!(first.code(), 75);
    first.wait_for("has taken the execution over");
    first.assert_as_before();
    answers(&mut second, "second", pid);
    second.press("\r~.");
    assert_eq!(second.code(), 130);
    second.assert_as_before();
    wait_gone(pid);
}

#[test]
fn a_dead_session_can_be_left_and_nobody_waits_for_ever() {
    let rig = Rig::start("tty-dead");
    let agent = rig.agent("a", &[]);
    let (mut screen, pid) = shell(&rig, &["--resume", "3s"]);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let keeper = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    rig.kill_controller();
    drop(agent);
    screen.wait_for("cannot be reached");
    // Nothing can be sent, and yet the keys are looked through.
    screen.press(&"x".repeat(2000));
    screen.press("\r~.");
    assert_eq!(screen.code(), 130, "within {PATIENCE:?}");
    screen.assert_as_before();
    wait_gone(pid);
    wait_gone(keeper);
}
