//! Controllers that die, come back, and take over from each other; and what a controller costs its cluster.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use crate::{
    rig::{PATIENCE, Rig},
    support::{cluster::TestCluster, kafka::admin::agents_have_topics, ports, process::Process, wait},
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

/// Starts a controller that finds no broker, and returns when it has said that it waits.
fn waiting(rig: &Rig) -> Process {
    let mut controller = rig.process(rig.controller_command("controller", rig.port), "controller.log");
    wait::until("the controller says that it waits", PATIENCE, || {
        let log = fs::read_to_string(rig.path("controller.log")).unwrap_or_default();
        assert_eq!(controller.ended(), None, "{log}");
        if log.contains("trying again for 60 s") { Ok(()) } else { Err(log) }
    });
    controller
}

#[test]
fn a_controller_that_starts_while_the_brokers_are_away_waits_for_them_and_can_be_stopped() {
    let cluster: &TestCluster = Box::leak(Box::new(TestCluster::start()));
    let rig = Rig::on(cluster, "away", 2);
    cluster.kill_all();
    let mut stopped = waiting(&rig);
    stopped.signal("TERM");
    let ended = || stopped.ended().ok_or_else(|| "it runs".to_owned());
    assert_eq!(wait::until("it stops", PATIENCE, ended).code(), Some(0));
    fs::remove_file(rig.path("controller.log")).unwrap();
    let mut controller = waiting(&rig);
    cluster.restart_all();
    wait::until("the controller serves", PATIENCE, || {
        assert_eq!(controller.ended(), None, "{}", rig.log("controller.log"));
        let ran = rig.run(&["status", "--health"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
    // It was leaked for the rig, and nobody needs it any more.
    drop(controller);
    cluster.kill_all();
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

/// The connections that a process dialled, by the inodes of its sockets: those that its server on `own` accepted
/// do not count.
fn dialled(pid: u32, own: u16) -> usize {
    let sockets: BTreeSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|fd| {
            fs::read_link(fd.path()).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    let own = format!(":{own:04X}");
    let is_dialled = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|local| !local.ends_with(&own))
            && fields.get(3) == Some(&"01")
            && fields.get(9).is_some_and(|inode| sockets.contains(*inode))
    };
    fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap().lines().filter(is_dialled).count()
}

/// The controller's connections to the cluster, once they stay the same.
fn settled_connections(rig: &Rig) -> usize {
    let mut last = (0, Instant::now());
    wait::until("the connections settle", PATIENCE, || {
        let now = dialled(rig.controller_id(), rig.port);
        if now != last.0 {
            last = (now, Instant::now());
        }
        if now > 0 && last.1.elapsed() > Duration::from_secs(3) { Ok(now) } else { Err(now.to_string()) }
    })
}

fn wait_for_online(rig: &Rig, count: usize) {
    wait::until(&format!("{count} are online"), Duration::from_secs(180), || {
        let status = rig.run(&["status", "-o", "json"]).ok();
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        if status["agents"]["online"] == count { Ok(()) } else { Err(status["agents"].to_string()) }
    });
}

/// The control partition of an agent.
fn partition(rig: &Rig, agent: &str) -> u64 {
    let shown = rig.run(&["agents", "show", "-o", "json", agent]).ok();
    let agent: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    agent["partition"].as_u64().unwrap()
}

#[test]
fn the_controller_has_as_many_connections_with_200_agents_as_with_2() {
    let rig = Rig::prepare("sockets", 2);
    rig.start_controller();
    let mut names: Vec<String> = (0..200).map(|i| format!("a{i}")).collect();
    for name in &names {
        rig.add(name, &[]);
    }
    // A partition without an agent needs no writer: the two agents are on both.
    let other = names.iter().position(|name| partition(&rig, name) != partition(&rig, "a0")).unwrap();
    names.swap(1, other);
    let start = |name: &String| rig.start_agent(name, &rig.path(&format!("{name}.credential")));
    let mut agents: Vec<Process> = names[..2].iter().map(start).collect();
    wait_for_online(&rig, 2);
    wait_for_work(&rig, &names[0]);
    wait_for_work(&rig, &names[1]);
    let few = settled_connections(&rig);
    agents.extend(names[2..].iter().map(start));
    wait_for_online(&rig, 200);
    let workers = ["a7", "a99", "a199"];
    for name in workers {
        wait_for_work(&rig, name);
    }
    // Where agents have topics of their own: one for each, and one for the bulk lane of each that worked.
    let own = if agents_have_topics() { agents.len() - 2 + workers.len() } else { 0 };
    assert_eq!(few + own, settled_connections(&rig));
}
