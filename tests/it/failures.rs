//! What stands in the way is told in one line with the cure, and by a documented exit code.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, process::Command};

use crate::{
    rig::{Ran, Rig, run},
    support::{certs::Authority, cluster::TestCluster, user},
};

/// Runs a controller or an agent that must refuse to start.
pub fn refused(command: Command, code: i32, parts: &[&str]) -> Ran {
    let ran = run(command, b"").code(code);
    let line = ran.stderr.lines().rfind(|line| line.starts_with("rk: ")).unwrap_or_default().to_owned();
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?} of {}", ran.stderr);
    }
    ran
}

/// The value behind `flag` is replaced.
pub fn replaced(command: Command, flag: &str, value: &str) -> Command {
    let mut changed = Command::new(command.get_program());
    let mut args = command.get_args();
    while let Some(arg) = args.next() {
        changed.arg(arg);
        if arg == flag {
            args.next();
            changed.arg(value);
        }
    }
    changed.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    changed
}

fn private_file(rig: &Rig, name: &str, text: &str) -> String {
    let path = rig.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn a_wrong_password_is_told_from_everything_else() {
    let rig = Rig::start("password");
    let wrong = format!("file:{}", private_file(&rig, "wrong", "not-it"));
    let controller = replaced(rig.controller_command("other", 0), "--sasl-password", &wrong);
    refused(controller, 77, &["SASL", "password"]);
    let credential = rig.add("a", &[]);
    let agent = replaced(rig.agent_command("a", &credential), "--sasl-password", &wrong);
    refused(agent, 77, &["SASL", "password"]);
}

#[test]
fn a_wrong_authority_and_a_wrong_name_are_told_apart() {
    let rig = Rig::start("tls");
    let other = Authority::new(&rig.path("other-ca"));
    let ca = other.ca().display().to_string();
    let parts = &["TLS", "authority"];
    refused(replaced(rig.controller_command("c1", 0), "--tls-ca", &ca), 77, parts);
    let credential = rig.add("a", &[]);
    refused(replaced(rig.agent_command("a", &credential), "--tls-ca", &ca), 77, parts);
    // The certificates name localhost and 127.0.0.1; this is another way to the same port.
    let bootstrap = rig.cluster.bootstrap();
    let port = bootstrap.rsplit(':').next().unwrap();
    let elsewhere = format!("127.0.0.2:{port}");
    if TestCluster::shared().nodes() == 1 {
        let forward = forward(&elsewhere, &format!("127.0.0.1:{port}"));
        refused(replaced(rig.controller_command("c2", 0), "--brokers", &elsewhere), 77, &["TLS", "127.0.0.2"]);
        drop(forward);
    }
}

/// Passes TCP connections on, as long as the returned listener lives.
fn forward(from: &str, to: &str) -> TcpListener {
    let listener = TcpListener::bind(from).unwrap();
    let accepting = listener.try_clone().unwrap();
    let to = to.to_owned();
    std::thread::spawn(move || {
        for near in accepting.incoming().flatten() {
            let far = std::net::TcpStream::connect(&to).unwrap();
            let (mut a, mut b) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut a, &mut b));
            std::thread::spawn(move || std::io::copy(&mut far.try_clone().unwrap(), &mut near.try_clone().unwrap()));
        }
    });
    listener
}

#[test]
fn an_unknown_agent_and_another_controllers_key_are_refused() {
    let rig = Rig::start("unknown");
    // The secret of an agent that this controller has never heard of, with its own key.
    let known = fs::read_to_string(rig.add("a", &[])).unwrap();
    let (known, under) = known.split_once('\n').unwrap();
    // It reads what all may read: it has no topic of its own.
    let unknown = private_file(&rig, "unknown", &known.replacen("rk1.a.", "rk1.ghost.", 1));
    let ghost = rig.agent_command("ghost", unknown.as_ref());
    refused(ghost, 77, &["does not know", "ghost", "rk agents add ghost"]);
    let ran = rig.run(&["exec", "ghost", "--", "true"]).code(64);
    assert!(ran.line().contains("ghost"), "{}", ran.stderr);
    // A credential that pins another controller.
    let mut parts: Vec<&str> = known.trim().split('.').collect();
    let other = "A".repeat(43);
    parts[3] = &other;
    let pinned = private_file(&rig, "pinned", &format!("{}\n{under}", parts.join(".")));
    refused(rig.agent_command("a", pinned.as_ref()), 77, &["another key"]);
    let nonsense = private_file(&rig, "nonsense", "hunter2");
    let ran = refused(rig.agent_command("a", nonsense.as_ref()), 64, &["rk agents add"]);
    assert!(!ran.stderr.contains("hunter2"));
}

#[test]
fn a_credential_that_others_can_read_is_refused() {
    let rig = Rig::start("exposed");
    let credential = rig.add("a", &[]);
    fs::set_permissions(&credential, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = refused(rig.agent_command("a", &credential), 77, &["chmod 600", "a.credential"]);
    ran.line();
    let token = rig.path("controller/api.token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o640)).unwrap();
    let ran = rig.run(&["status"]).code(77);
    assert!(ran.line().contains("chmod 600"), "{}", ran.stderr);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let rig = Rig::prepare("port", 2);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ran = refused(rig.controller_command("controller", port), 75, &[&format!("127.0.0.1:{port}"), "--listen"]);
    ran.line();
    let open = replaced(rig.controller_command("controller", port), "--listen", "0.0.0.0:0");
    refused(open, 64, &["TLS", "--listen-cert"]).line();
}

#[test]
fn a_cluster_and_a_controller_that_are_not_there_are_named() {
    let rig = Rig::prepare("nobody", 2);
    let mut dead = replaced(rig.controller_command("controller", 0), "--brokers", "127.0.0.1:1");
    dead.args(["--wait-for-kafka", "1s"]);
    let ran = refused(dead, 69, &["127.0.0.1:1"]);
    let told = ran.stderr.lines().filter(|line| line.contains("127.0.0.1:1") && line.contains("trying again for 1 s"));
    assert_eq!(told.count(), 1, "{}", ran.stderr);
    private_file(&rig, "token", "0123456789abcdef0123456789abcdef");
    let mut status = rig.bare(&["status", "--api", "127.0.0.1:1", "--api-token"]);
    status.arg(format!("file:{}", rig.path("token").display()));
    let ran = run(status, b"").code(69);
    assert!(ran.line().contains("rk controller run"), "{}", ran.stderr);
    let ran = rig.run(&["status"]).code(64);
    assert!(ran.line().contains("api.token"), "{}", ran.stderr);
}

#[test]
fn a_wrong_token_is_refused() {
    let rig = Rig::start("token");
    let wrong = private_file(&rig, "token", "0123456789abcdef0123456789abcdef");
    let mut command = rig.rk(&["status"]);
    command.env("RK_API_TOKEN", format!("file:{wrong}"));
    let ran = run(command, b"").code(77);
    assert!(ran.line().contains("token"), "{}", ran.stderr);
}

#[test]
fn topics_that_may_not_be_created_are_told_with_the_commands() {
    let rig = Rig::prepare("norights", 2);
    let command = rig.bare(&["controller", "run", "--listen", "127.0.0.1:0", "--data"]);
    let mut command = rig.kafka(
        {
            let mut command = command;
            command.arg(rig.path("controller"));
            command
        },
        user::STRANGER,
    );
    command.env("RK_LOG", "off");
    let ran = refused(command, 77, &["not authorized"]);
    for topic in ["down.control", "up.control", "down.bulk", "up.bulk", "journal"] {
        let name = format!("--topic {}.{topic}", rig.prefix);
        let line =
            ran.stderr.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{name}: {}", ran.stderr));
        assert!(line.starts_with("kafka-topics.sh ") && line.contains("--create"), "{line}");
    }
}
