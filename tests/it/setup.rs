//! `rk setup compose`: its three steps, one after the other and all of them twice, on the embedded broker in place of three
//! Apache Kafkas.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use remoting_kafka::broker::{ListenerConfig, Users};

use crate::{
    rig::{PATIENCE, Ran, Rig, run},
    support::{embedded::Embedded, process::Process, wait},
};

/// A broker with the certificate and the users that the first step made.
fn broker(volumes: &Path) -> Embedded {
    let volumes = volumes.to_owned();
    Embedded::start_with(
        |_, _| {},
        move |config, _| {
            let of = |name: &str| volumes.join("authority").join(name);
            let passwords: Vec<(&str, String)> = ["admin", "controller", "agent", "ui"]
                .map(|user| (user, fs::read_to_string(of(&format!("{user}.password"))).unwrap().trim().to_owned()))
                .into();
            let users: Users = passwords.iter().map(|(user, password)| (*user, password.as_str())).collect();
            let listener = ListenerConfig::tls_from_pem(&of("broker-1.pem"), &of("broker-1.key"), None);
            config.listener = listener.unwrap().with_users(users);
        },
    )
}

struct Installation {
    rig: Rig,
    volumes: PathBuf,
    broker: Embedded,
}

impl Installation {
    fn step(&self, step: &str, args: &[&str]) -> Ran {
        run(self.command(step, args), &[])
    }

    fn command(&self, step: &str, args: &[&str]) -> Command {
        let mut command = self.rig.bare(&["setup", "compose", step]);
        command.args(args);
        match step {
            "kafka" => self.on(command, "admin"),
            _ => {
                command.arg("--dir").arg(&self.volumes);
                command
            }
        }
    }

    /// A command that is told the way to the brokers by the file of a volume, but for where they are.
    fn on(&self, mut command: Command, volume: &str) -> Command {
        command.arg("--command-config").arg(self.volumes.join(volume).join("kafka.properties"));
        command.args([
            "--brokers",
            &self.broker.bootstrap().join(","),
            "--prefix",
            &self.rig.prefix,
            "--partitions",
            "2",
        ]);
        command
    }

    fn kafka(&self, expect: &str, wait: &str) -> Ran {
        let args = [
            "--expect",
            expect,
            "--wait",
            wait,
            "--agents-as",
            "agent",
            "--controller-as",
            "controller",
            "--reader",
            "ui",
        ];
        self.step("kafka", &args)
    }

    fn agents(&self) -> Ran {
        let mut command = self.command("agents", &["--wait", "30s"]);
        let controller = self.volumes.join("controller");
        command.args(["--api", &format!("https://127.0.0.1:{}", self.rig.port)]);
        command.arg("--api-ca").arg(controller.join("ca.pem"));
        command.arg("--api-token").arg(format!("file:{}", controller.join("api.token").display()));
        run(command, &[])
    }

    fn agent(&self, volume: &str, args: &[&str]) -> Process {
        let mut command = self.rig.bare(&["agent", "run"]);
        command.args(args).arg("--data").arg(self.rig.path(&format!("{volume}.data")));
        self.rig.process(self.on(command, volume), &format!("{volume}.log"))
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let folders = fs::read_dir(&self.volumes).unwrap().map(|entry| entry.unwrap().path());
        let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
        files.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

#[test]
fn three_steps_make_an_installation_whose_agents_come_by_themselves_and_change_nothing_the_second_time() {
    let rig = Rig::prepare("setup", 2);
    let volumes = rig.path("volumes");
    let mut first = rig.bare(&["setup", "compose", "files", "--dir"]);
    run(
        {
            first.arg(&volumes);
            first
        },
        &[],
    )
    .ok();
    let broker = broker(&volumes);
    let on = Installation { rig, volumes, broker };

    let few = on.kafka("2", "1s").code(69);
    assert!(few.line().contains("1 of 2 brokers serve"), "{}", few.stderr);
    let made = on.kafka("1", "30s").ok().text();
    assert!(made.contains("created  topic") && made.contains("User:agent may Read"), "{made}");

    let mut command = on.rig.bare(&["controller", "run", "--listen", &format!("127.0.0.1:{}", on.rig.port)]);
    let data = on.volumes.join("controller");
    command.arg("--data").arg(&data).arg("--listen-cert").arg(data.join("api.pem"));
    command.arg("--listen-key").arg(data.join("api.key")).args(["--topics-manage", "plan-only"]);
    let _controller = on.rig.process(on.on(command, "controller"), "controller.log");
    wait::until("the controller has written its token", PATIENCE, || {
        if data.join("api.token").exists() { Ok(()) } else { Err(on.rig.log("controller.log")) }
    });
    let made = on.agents().ok().text();
    assert_eq!(made, "made     agent agent-1\nmade     agent agent-2\nmade     a join token\n");

    let before = on.files();
    let again = on.step("files", &[]).ok();
    assert!(again.text().is_empty() && again.stderr.contains("as they have to be"), "{}", again.stderr);
    assert_eq!(on.kafka("1", "30s").ok().text(), "");
    assert_eq!(on.agents().ok().text(), "");
    assert!(on.files() == before, "a second run changed files");

    // A run that ended between the controller's answer and the file.
    fs::remove_file(on.volumes.join("agent-2/credential")).unwrap();
    assert_eq!(on.agents().ok().text(), "made     agent agent-2\n");

    let file = |name: &str| format!("file:{}", on.volumes.join(name).display());
    let health = format!("127.0.0.1:{}", crate::support::ports::free([127, 0, 0, 1].into()));
    let _first = on.agent("agent-1", &["--credential", &file("agent-1/credential"), "--health-addr", &health]);
    let _second = on.agent("agent-2", &["--credential", &file("agent-2/credential")]);
    let _third = on.agent("join", &["--join", &file("join/token"), "--name", "joined"]);
    let ask = |args: &[&str]| {
        let mut command = on.rig.bare(args);
        command.env("RK_API", format!("https://127.0.0.1:{}", on.rig.port)).env("RK_API_CA", data.join("ca.pem"));
        command.env("RK_API_TOKEN", file("controller/api.token"));
        run(command, &[])
    };
    wait::until("all are online", PATIENCE, || {
        let listed = ask(&["agents", "ls"]).ok().text();
        if listed.matches(" online ").count() == 3 { Ok(()) } else { Err(listed) }
    });
    wait::until("an agent's health address says so", PATIENCE, || {
        let ran = run(on.rig.bare(&["status", "--health", "--health-addr", &health]), &[]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
    assert_eq!(ask(&["run", "-q", "-l", "demo=yes", "--", "echo", "works"]).ok().text(), "works\n");

    let other = on.step("files", &["--no-auth"]).code(64);
    assert!(other.line().contains("make down"), "{}", other.stderr);
}
