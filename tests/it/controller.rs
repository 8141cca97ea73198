//! Controllers that die, come back, and take over from each other; and what a controller costs its cluster.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use crate::{
    rig::{PATIENCE, Rig},
    support::{ports, process::Process, wait},
};

/// Waits until a command on `agent` succeeds.
fn wait_for_work(rig: &Rig, agent: &str) {
    wait::until(&format!("{agent} takes work"), PATIENCE, || {
        let ran = rig.run(&["exec", agent, "--", "true"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
}

#[test]
fn a_controller_that_is_killed_keeps_its_agents_and_they_come_back_at_once() {
    let rig = Rig::start("restart");
    let mut agents = [rig.agent("a", &["role=web"]), rig.agent("b", &[])];
    rig.kill_controller();
    let start = Instant::now();
    rig.start_controller();
    for (name, agent) in ["a", "b"].into_iter().zip(&mut agents) {
        rig.wait_online(name, agent);
    }
    let took = start.elapsed();
    assert_eq!(rig.run(&["agents", "ls", "-o", "name", "-l", "role=web"]).ok().text(), "a\n");
    wait_for_work(&rig, "a");
    wait_for_work(&rig, "b");
    // A heartbeat is 5 s; the rest is the controller's start on a busy machine.
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_controller_with_the_same_identity_takes_over_and_the_older_one_goes() {
    let mut rig = Rig::start("takeover");
    let mut agent = rig.agent("a", &[]);
    let mut old = rig.take_controller();
    fs::create_dir(rig.path("standby")).unwrap();
    fs::copy(rig.path("controller/identity.pem"), rig.path("standby/identity.pem")).unwrap();
    fs::copy(rig.path("controller/api.token"), rig.path("standby/api.token")).unwrap();
    let port = ports::free([127, 0, 0, 1].into());
    let _new = rig.process(rig.controller_command("standby", port), "standby.log");
    let status = wait::until("the older controller goes", PATIENCE, || old.ended().ok_or_else(|| "it runs".to_owned()));
    let log = rig.log("controller.log");
    assert_eq!(status.code(), Some(5), "{log}");
    assert!(log.lines().any(|line| line.starts_with("rk: superseded")), "{log}");
    rig.port = port;
    rig.wait_for_controller();
    rig.wait_online("a", &mut agent);
    wait_for_work(&rig, "a");
}

#[test]
fn a_controller_that_was_paused_harms_nobody_when_it_wakes_up() {
    let mut rig = Rig::start("paused");
    let mut agent = rig.agent("a", &[]);
    let mut old = rig.take_controller();
    old.signal("STOP");
    fs::create_dir(rig.path("standby")).unwrap();
    fs::copy(rig.path("controller/identity.pem"), rig.path("standby/identity.pem")).unwrap();
    fs::copy(rig.path("controller/api.token"), rig.path("standby/api.token")).unwrap();
    let old_port = rig.port;
    rig.port = ports::free([127, 0, 0, 1].into());
    let _new = rig.process(rig.controller_command("standby", rig.port), "standby.log");
    rig.wait_for_controller();
    rig.wait_online("a", &mut agent);
    wait_for_work(&rig, "a");
    old.signal("CONT");
    let status = wait::until("the older controller goes", PATIENCE, || old.ended().ok_or_else(|| "it runs".to_owned()));
    assert_eq!(status.code(), Some(5), "{} (port {old_port})", rig.log("controller.log"));
    for _ in 0..5 {
        rig.run(&["exec", "a", "--", "true"]).ok();
    }
    assert!(agent.ended().is_none());
}

/// The TCP connections of a process, by the inodes of its sockets.
fn connections(pid: u32) -> usize {
    let sockets: BTreeSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|fd| {
            fs::read_link(fd.path()).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    let established = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(3) == Some(&"01") && fields.get(9).is_some_and(|inode| sockets.contains(*inode))
    };
    fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap().lines().filter(established).count()
}

/// The controller's connections, once they stay the same.
fn settled_connections(pid: u32) -> usize {
    let mut last = (0, Instant::now());
    wait::until("the connections settle", PATIENCE, || {
        let now = connections(pid);
        if now != last.0 {
            last = (now, Instant::now());
        }
        if now > 0 && last.1.elapsed() > Duration::from_secs(3) { Ok(now) } else { Err(now.to_string()) }
    })
}

#[test]
fn the_controller_has_as_many_connections_with_200_agents_as_with_2() {
    let rig = Rig::prepare("sockets", 4);
    rig.start_controller();
    let mut agents: Vec<Process> = (0..2).map(|i| rig.agent(&format!("a{i}"), &[])).collect();
    wait_for_work(&rig, "a0");
    let few = settled_connections(rig.controller_id());
    for i in 2..200 {
        let name = format!("a{i}");
        let credential = rig.add(&name, &[]);
        agents.push(rig.start_agent(&name, &credential));
    }
    wait::until("all are online", Duration::from_secs(180), || {
        let status = rig.run(&["status", "-o", "json"]).ok();
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        if status["agents"]["online"] == 200 { Ok(()) } else { Err(status["agents"].to_string()) }
    });
    let many = settled_connections(rig.controller_id());
    assert_eq!(few, many);
}
