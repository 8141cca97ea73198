//! Controller and agent in two network namespaces from which nothing can be reached but the brokers.

use std::{
    fs::File,
    io,
    net::{Shutdown, TcpListener, TcpStream},
    process::Command,
    thread,
};

use nix::sched::{CloneFlags, setns};

use crate::{
    rig::{PATIENCE, Rig, Running, run},
    support::wait,
};

/// A network namespace with a loopback of its own and nothing else.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Namespace {
        let name = format!("{name}-{}", std::process::id());
        ip(&["netns", "add", &name]);
        let namespace = Namespace(name);
        ip(&["netns", "exec", &namespace.0, "ip", "link", "set", "lo", "up"]);
        namespace
    }

    /// The same command inside.
    fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.0]).arg(command.get_program()).args(command.get_args());
        inside.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside
    }

    /// Lets those inside reach `127.0.0.1:port` of the outside, under the same name: accepted by a thread inside,
    /// dialled by one outside.
    fn let_through(&self, port: u16) {
        let file = File::open(format!("/var/run/netns/{}", self.0)).unwrap();
        let listen = move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind(("127.0.0.1", port)).unwrap()
        };
        let listener = thread::spawn(listen).join().unwrap();
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if let Ok(far) = TcpStream::connect(("127.0.0.1", port)) {
                    pass_on(near.try_clone().unwrap(), far.try_clone().unwrap());
                    pass_on(far, near);
                }
            }
        });
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.0]).status().ok();
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        io::copy(&mut from, &mut to).ok();
        to.shutdown(Shutdown::Write).ok();
    });
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).status().unwrap();
    assert!(done.success(), "ip {}", args.join(" "));
}

#[test]
#[ignore = "needs root and ip netns: make test-kafka"]
fn controller_and_agent_that_reach_only_the_brokers_work_together() {
    let rig = Rig::prepare("netns", 2);
    let (here, there) = (Namespace::new("rk-controller"), Namespace::new("rk-agent"));
    let ports = rig.cluster.bootstrap();
    let ports = ports.split(',').filter_map(|broker| broker.rsplit(':').next()?.parse::<u16>().ok());
    for port in ports.filter(|port| *port > 1) {
        here.let_through(port);
        there.let_through(port);
    }
    let _controller = rig.process(here.inside(&rig.controller_command("controller", rig.port)), "controller.log");
    let rk = |args: &[&str]| run(here.inside(&rig.rk(args)), b"");
    wait::until("the controller serves", PATIENCE, || {
        let ran = rk(&["status", "--health"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
    // Nobody outside, and nobody in the other namespace, reaches the controller.
    rig.run(&["status"]).code(69);
    assert_eq!(run(there.inside(&rig.rk(&["status"])), b"").code, 69);

    let credential = rig.path("a.credential");
    rk(&["agents", "add", "a", "--out", credential.to_str().unwrap()]).ok();
    let _agent = Running::start(there.inside(&rig.agent_command("a", &credential)));
    wait::until("the agent takes work", PATIENCE, || {
        let ran = rk(&["exec", "a", "--", "true"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
    let bytes = crate::rig::noise(8 << 20);
    let ran = run(here.inside(&rig.rk(&["exec", "a", "--", "cat"])), &bytes).ok();
    assert!(ran.stdout == bytes);
}
