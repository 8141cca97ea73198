//! `rk certs` and `certs/make.sh`: what they make is what a broker, a controller and an agent take.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use remoting_kafka::broker::ListenerConfig;
use serde_json::Value;

use crate::{
    failures::refused,
    rig::{PATIENCE, Ran, Rig, run},
    support::{embedded::Embedded, process::Process, wait},
};

/// `rk certs` in a folder.
fn certs(rig: &Rig, folder: &Path, args: &[&str]) -> Ran {
    let mut command = rig.bare(&["certs"]);
    command.args(args).arg("--out").arg(folder);
    run(command, &[])
}

fn show(rig: &Rig, file: &Path) -> Value {
    let ran = run(rig.bare(&["certs", "show", "-o", "json", file.to_str().unwrap()]), &[]).ok();
    serde_json::from_slice::<Value>(&ran.stdout).unwrap()[0].take()
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

/// A broker with the certificate `kafka` of a folder, which lets in who shows one of the same authority.
fn broker(folder: &Path) -> Embedded {
    let folder = folder.to_owned();
    let of = move |name: &str| folder.join(name);
    Embedded::start_with(
        |_, _| {},
        move |config, _| {
            let listener = ListenerConfig::tls_from_pem(&of("kafka.pem"), &of("kafka.key"), Some(&of("ca.pem")));
            config.listener = listener.unwrap();
            config.super_users.clear();
        },
    )
}

/// `command` on that broker, with the certificate `name` of a folder.
fn through(rig: &Rig, mut command: Command, broker: &Embedded, folder: &Path, name: Option<&str>) -> Command {
    command.args(["--brokers", &broker.bootstrap().join(","), "--prefix", &rig.prefix]);
    command.args(["--partitions", &rig.partitions.to_string()]).arg("--tls-ca").arg(folder.join("ca.pem"));
    if let Some(name) = name {
        command.arg("--tls-cert").arg(folder.join(format!("{name}.pem")));
        command.arg("--tls-key").arg(folder.join(format!("{name}.key")));
    }
    command
}

fn controller(rig: &Rig) -> Command {
    let mut command = rig.bare(&["controller", "run", "--listen", &format!("127.0.0.1:{}", rig.port)]);
    command.arg("--data").arg(rig.path("controller"));
    command
}

fn agent(rig: &Rig, credential: &Path) -> Command {
    let mut command = rig.bare(&["agent", "run", "--credential", &format!("file:{}", credential.display())]);
    command.arg("--data").arg(rig.path("a.data"));
    command
}

#[test]
fn certificates_of_our_own_let_controller_and_agent_in_and_are_renewed_with_the_same_key() {
    let rig = Rig::prepare("certs", 2);
    let (pki, other) = (rig.path("pki"), rig.path("other"));
    certs(&rig, &pki, &["init", "--name", "mine"]).ok();
    certs(&rig, &pki, &["broker", "kafka", "--san", "localhost,127.0.0.1"]).ok();
    certs(&rig, &pki, &["client", "controller"]).ok();
    certs(&rig, &pki, &["client", "agent"]).ok();
    certs(&rig, &other, &["init"]).ok();
    certs(&rig, &other, &["client", "agent"]).ok();
    let shown = show(&rig, &pki.join("kafka.pem"));
    assert_eq!((&shown["issuer"], &shown["names"]), (&"mine".into(), &serde_json::json!(["localhost", "127.0.0.1"])));
    assert_eq!(show(&rig, &pki.join("agent.pem"))["subject"], "agent");
    let text = run(rig.bare(&["certs", "show", pki.join("ca.pem").to_str().unwrap()]), &[]).ok().text();
    assert!(text.contains("signing others") && text.contains("SHA-256"), "{text}");

    let broker = broker(&pki);
    refused(through(&rig, controller(&rig), &broker, &pki, None), 77, &["client certificate"]);
    rig.launch_controller(through(&rig, controller(&rig), &broker, &pki, Some("controller")));
    let credential = rig.add("a", &[]);
    // The broker's authority is trusted, and its own is not.
    fs::copy(pki.join("ca.pem"), other.join("ca.pem")).unwrap();
    refused(through(&rig, agent(&rig, &credential), &broker, &other, Some("agent")), 77, &["certificate"]);
    let start = || -> Process {
        let command = through(&rig, agent(&rig, &credential), &broker, &pki, Some("agent"));
        let mut process = rig.process(command, "a.log");
        rig.wait_online("a", &mut process);
        process
    };
    let before = start();
    assert_eq!(rig.run(&["exec", "a", "--", "echo", "in"]).ok().text(), "in\n");

    let read = |name: &str| fs::read(pki.join(name)).unwrap();
    let (key, certificate) = (read("agent.key"), read("agent.pem"));
    certs(&rig, &pki, &["client", "agent", "--renew"]).ok();
    assert!(read("agent.key") == key && read("agent.pem") != certificate);
    certs(&rig, &pki, &["client", "agent", "--renew", "--new-key"]).ok();
    assert!(read("agent.key") != key);
    drop(before);
    let _agent = start();
    // The session of the one before may still look alive.
    wait::until("the new one answers", PATIENCE, || {
        let ran = rig.run(&["exec", "a", "--", "echo", "again"]);
        if ran.text() == "again\n" { Ok(()) } else { Err(ran.stderr) }
    });
}

#[test]
fn nothing_is_overwritten_unasked_and_a_key_that_others_can_read_signs_nothing() {
    let rig = Rig::prepare("certs-refused", 2);
    let pki = rig.path("pki");
    let early = certs(&rig, &pki, &["client", "a"]).code(64);
    assert!(early.line().contains("rk certs init"), "{}", early.stderr);
    certs(&rig, &pki, &["init"]).ok();
    certs(&rig, &pki, &["client", "a"]).ok();
    let read = |name: &str| fs::read(pki.join(name)).unwrap();
    let before = ["ca.pem", "ca.key", "a.pem", "a.key"].map(read);
    for again in [&["init"][..], &["client", "a"], &["broker", "a"]] {
        let ran = certs(&rig, &pki, again).code(64);
        assert!(ran.line().contains("--renew"), "{}", ran.stderr);
    }
    assert!(["ca.pem", "ca.key", "a.pem", "a.key"].map(read) == before);
    assert_eq!(["ca.key", "a.key", "ca.pem"].map(|name| mode(&pki.join(name))), [0o600, 0o600, 0o644]);
    fs::set_permissions(pki.join("ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
    for refused in [&["client", "b"][..], &["broker", "b"], &["init", "--renew"]] {
        let ran = certs(&rig, &pki, refused).code(77);
        assert!(ran.line().contains("chmod 600"), "{}", ran.stderr);
    }
    assert!(!pki.join("b.pem").exists() && !pki.join("b.key").exists());
}

/// Runs `certs/make.sh`.
fn make(rig: &Rig, args: &[&str]) -> Ran {
    let rk = rig.bare(&[]);
    let mut command = Command::new("sh");
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("certs/make.sh")).args(args);
    command.env("RK", rk.get_program());
    run(command, &[])
}

#[test]
fn one_script_makes_all_that_an_installation_needs_and_leaves_alone_what_is_there() {
    let rig = Rig::prepare("certs-make", 2);
    let pki = rig.path("p k i");
    let folder = pki.to_str().unwrap();
    let args = ["-d", folder, "-b", "kafka-1=localhost,127.0.0.1", "-b", "kafka-2", "-c", "agent"];
    make(&rig, &args).ok();
    assert_eq!(show(&rig, &pki.join("kafka-1.pem"))["names"], serde_json::json!(["localhost", "127.0.0.1"]));
    assert_eq!(show(&rig, &pki.join("kafka-2.pem"))["names"], serde_json::json!(["kafka-2"]));
    assert_eq!(show(&rig, &pki.join("agent.pem"))["subject"], "agent");
    let read = |name: &str| fs::read_to_string(pki.join(name)).unwrap();
    let store = pki.join("kafka-1.keystore.pem");
    assert_eq!(read("kafka-1.keystore.pem"), read("kafka-1.key") + &read("kafka-1.pem"));
    assert_eq!((mode(&store), mode(&pki.join("ca.key"))), (0o600, 0o600));

    let all = || -> Vec<(PathBuf, Vec<u8>)> {
        let files = fs::read_dir(&pki).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        files.sort();
        files
    };
    let before = all();
    make(&rig, &args).ok();
    assert!(all() == before, "something was made anew");
    make(&rig, &["-d", folder, "-c", "another"]).ok();
    assert_eq!(all().len(), before.len() + 2);
    for wrong in [&["-d", folder][..], &["-x"], &["-d", folder, "-c", "late", "more"], &["-d", folder, "-c", "../up"]] {
        make(&rig, wrong).code(64);
    }
    assert!(!pki.join("late.pem").exists());
}
