//! The controller and the credential, in both views.

use std::process::Command;

use super::{examine, text};
use crate::{
    rig::Rig,
    support::user::{self, AGENT, CONTROLLER, private},
};

fn admin(rig: &Rig) -> Command {
    rig.kafka(rig.rk(&["doctor"]), CONTROLLER)
}

fn agent(rig: &Rig, credential: &str) -> Command {
    rig.kafka(rig.bare(&["doctor", "--agent", "--credential", &format!("file:{credential}")]), AGENT)
}

#[test]
fn all_is_well_in_both_views_and_a_running_agent_is_not_disturbed() {
    let rig = Rig::start("doctor");
    let credential = rig.add("a", &[]).display().to_string();
    examine("agent's view, no agent runs", agent(&rig, &credential)).works();
    let mut process = rig.start_agent("a", credential.as_ref());
    rig.wait_online("a", &mut process);
    let beside = examine("agent's view, the agent runs", agent(&rig, &credential)).works();
    let let_in = beside.hops.last().unwrap();
    assert_eq!((&let_in["hop"], let_in["verdict"].as_str()), (&"credential".into(), Some("ok")), "{let_in:#?}");
    let mut command = admin(&rig);
    command.args(["--credential", &format!("file:{credential}")]);
    let hops = examine("controller's view", command).works().hops;
    for hop in [
        "settings",
        "dns",
        "tcp",
        "tls",
        "sasl",
        "cluster",
        "broker",
        "topic",
        "write",
        "read",
        "quota",
        "clock",
        "roundtrip",
        "api",
        "credential",
    ] {
        assert!(hops.iter().any(|found| found["hop"] == hop && found["verdict"] == "ok"), "{hop}: {hops:#?}");
    }
    // Neither the agent nor the journal, in which the doctor wrote, minds.
    assert!(process.ended().is_none(), "{}", rig.log("a.log"));
    rig.run(&["exec", "a", "--", "true"]).ok();
    rig.kill_controller();
    rig.start_controller();
    rig.wait_online("a", &mut process);
    rig.run(&["exec", "a", "--", "true"]).ok();
}

#[test]
fn a_credential_of_another_cluster_is_named() {
    let rig = Rig::start("doctor");
    let known = text(&rig.add("a", &[]));
    let (known, under) = known.split_once('\n').unwrap_or((&known, ""));
    let mut parts: Vec<&str> = known.split('.').collect();
    let other = "A".repeat(43);
    parts[3] = &other;
    let pinned = private(&rig.path("pinned"), &format!("{}\n{under}", parts.join("."))).display().to_string();
    let examined = examine("credential of another cluster, agent", agent(&rig, &pinned));
    examined.fails(77, "credential", &["another controller", "issued"]);
    let mut command = admin(&rig);
    command.args(["--credential", &format!("file:{pinned}")]);
    examine("credential of another cluster, admin", command).fails(77, "credential", &["another controller"]);
    let ghost = private(&rig.path("ghost"), &known.replacen("rk1.a.", "rk1.ghost.", 1)).display().to_string();
    examine("unknown agent", agent(&rig, &ghost)).fails(77, "credential", &["ghost", "rk agents add"]);
    let nonsense = private(&rig.path("nonsense"), "hunter2").display().to_string();
    let examined = examine("no credential", agent(&rig, &nonsense));
    examined.fails(64, "credential", &["no agent credential"]);
    assert!(!format!("{:?}", examined.hops).contains("hunter2"));
}

#[test]
fn a_controller_that_is_down_and_a_wrong_token_are_named() {
    let rig = Rig::start("doctor");
    let credential = rig.add("a", &[]).display().to_string();
    let wrong = private(&rig.path("wrong"), "0123456789abcdef0123456789abcdef").display().to_string();
    let mut command = admin(&rig);
    command.env("RK_API_TOKEN", format!("file:{wrong}"));
    examine("wrong token", command).fails(77, "api", &["token"]);
    rig.kill_controller();
    examine("controller down, admin", admin(&rig)).fails(69, "api", &["rk controller run"]);
    examine("controller down, agent", agent(&rig, &credential)).fails(69, "controller", &["rk controller run"]);
}

#[test]
fn the_report_fits_eighty_columns_and_a_credential_is_asked_for() {
    let rig = Rig::prepare("doctor", 2);
    let ran = crate::rig::run(rig.kafka(rig.bare(&["doctor", "--api", "127.0.0.1:1"]), CONTROLLER), b"");
    let long: Vec<_> = ran.text().lines().filter(|line| line.chars().count() > 80).map(str::to_owned).collect();
    assert!(long.is_empty(), "{long:?}");
    assert!(ran.line().contains("failed"), "{}", ran.stderr);
    let ran = crate::rig::run(rig.kafka(rig.bare(&["doctor", "--agent"]), user::AGENT), b"").code(64);
    assert!(ran.line().contains("--credential"), "{}", ran.stderr);
}
