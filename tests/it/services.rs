//! `rk call` and `rk forward`: services of an agent.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::Stdio,
    thread,
    time::Duration,
};

use crate::rig::{Rig, Running, noise};

#[test]
fn methods_are_called_and_listed() {
    let rig = Rig::start("call");
    let _agent = rig.agent("a", &["role=web"]);
    let ran = rig.run(&["call", "a", "agent.info"]).ok();
    let info: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&info["name"], &info["labels"]["os"]), (&"a".into(), &"linux".into()));
    let ran = rig.run(&["call", "-o", "jsonl", "a", "agent.echo", "n=5", "text=Ada", "list=[1,2]"]).ok();
    assert_eq!(ran.text(), "{\"list\":[1,2],\"n\":5,\"text\":\"Ada\"}\n");
    let ran = rig.run(&["call", "a", "--list"]).ok();
    assert!(ran.text().contains("  agent.info  its name, labels and version\n"), "{}", ran.text());
    let ran = rig.run(&["call", "a", "agent.none"]).code(64);
    assert!(ran.line().contains("echo, info"), "{}", ran.stderr);
    let ran = rig.run(&["call", "a", "none.none"]).code(64);
    assert!(ran.line().contains("--list"), "{}", ran.stderr);
    rig.run(&["call", "b", "agent.info"]).code(64);
    rig.add("off", &[]);
    rig.run(&["call", "off", "agent.info"]).code(69);
}

/// Starts `rk forward`, and returns it with the port where it listens.
fn forward(rig: &Rig, args: &[&str]) -> (Running, u16) {
    let mut command = rig.rk(&["forward"]);
    command.args(args).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut forward = Running::start(command);
    let mut said = BufReader::new(forward.0.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let port = line.split_whitespace().next().and_then(|address| address.rsplit_once(':')?.1.parse().ok());
    let port = port.unwrap_or_else(|| panic!("no port in {line:?}"));
    thread::spawn(move || std::io::copy(&mut said, &mut std::io::stderr()));
    (forward, port)
}

/// Sends back what comes, and ends when its sender has.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            thread::spawn(move || {
                let mut from = connection.try_clone().unwrap();
                let _ = std::io::copy(&mut from, &mut connection);
                let _ = connection.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

/// Sends `blob` to `port`, ends our direction, and returns all that comes back.
fn there_and_back(port: u16, blob: &[u8]) -> Vec<u8> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (mut to, blob) = (connection.try_clone().unwrap(), blob.to_vec());
    let sent = thread::spawn(move || {
        to.write_all(&blob).unwrap();
        to.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    connection.read_to_end(&mut back).unwrap();
    sent.join().unwrap();
    back
}

#[test]
fn connections_are_forwarded_both_ways_many_at_once_each_end_by_itself() {
    let rig = Rig::start("forward");
    let _agent = rig.agent("a", &[]);
    let echo = echo();
    let (mut near, port) = forward(&rig, &[&format!("0:a/localhost:{echo}")]);
    let blob = noise(8 << 20);
    assert!(there_and_back(port, &blob) == blob);
    // One that nobody reads holds up no other.
    let mut stuck = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stuck.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    while stuck.write_all(&[1; 1 << 20]).is_ok() {}
    let many: Vec<_> = (0..24)
        .map(|i| {
            thread::spawn(move || {
                let blob = noise(100_000 + i);
                there_and_back(port, &blob) == blob
            })
        })
        .collect();
    assert!(many.into_iter().all(|one| one.join().unwrap()));
    drop(stuck);
    near.signal("TERM");
    assert_eq!(near.code(), 143);

    let (_far, port) = forward(&rig, &["-R", &format!("0:a/127.0.0.1:{echo}")]);
    assert!(there_and_back(port, &blob) == blob);
    assert!(there_and_back(port, b"") == b"");
}

#[test]
fn connections_go_only_where_the_operator_lets_them() {
    let rig = Rig::start("forward-policy");
    let credential = rig.add("a", &[]);
    let mut command = rig.agent_command("a", &credential);
    command.arg("--no-forward");
    let mut agent = rig.process(command, "a.log");
    rig.wait_online("a", &mut agent);
    let ran = rig.run(&["forward", "-R", "0:a/127.0.0.1:1"]).code(77);
    assert!(ran.line().contains("--no-forward"), "{}", ran.stderr);
    let ran = rig.run(&["forward", "-R", "0.0.0.0:0:a/127.0.0.1:1"]).code(77);
    assert!(!ran.line().is_empty());
    // A connection that may not be made ends at once, and the reason is told.
    let mut command = rig.rk(&["forward", &format!("0:a/localhost:{}", echo())]);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let mut near = Running::start(command);
    let mut said = BufReader::new(near.0.stderr.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    let port: u16 = first.split_whitespace().next().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let ended = connection.read(&mut [0; 1]);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let told = said.next().unwrap().unwrap();
    assert!(told.contains("--forward-to"), "{told}");
    rig.run(&["forward", "0:none/localhost:1"]).code(64);
}
