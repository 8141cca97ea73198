//! Brokers that die under a stream.

use std::{
    io::{Read, Write},
    process::Stdio,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use ring::digest::{Context, SHA256};

use crate::{
    rig::{Rig, Running, noise},
    support::cluster::kafka_nodes,
};

/// 1 GiB in quarters: one for each dead broker, and one when all are back.
const QUARTER: usize = 256 << 20;
const PIECE: usize = 1 << 20;
/// A dead leader is replaced after the brokers' session timeout; the stream then goes on.
const OUTAGE: Duration = Duration::from_secs(180);

#[test]
#[ignore = "needs three nodes of Apache Kafka: make test-kafka"]
fn a_gibibyte_there_and_back_survives_the_death_of_each_broker() {
    assert_eq!(kafka_nodes(), 3, "RK_TEST_KAFKA=3 gives the three nodes");
    let rig = Rig::start("chaos");
    let mut agent = rig.agent("a", &[]);
    let mut command = rig.rk(&["exec", "a", "--", "cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut exec = Running::start(command);
    let (mut stdin, mut stdout) = (exec.0.stdin.take().unwrap(), exec.0.stdout.take().unwrap());
    let (go, may_go) = mpsc::channel::<()>();
    let (back, came) = mpsc::channel::<usize>();
    let writer = thread::spawn(move || {
        let mut hash = Context::new(&SHA256);
        let mut block = noise(PIECE);
        for quarter in 0..4_u8 {
            may_go.recv().unwrap();
            for piece in 0..QUARTER / PIECE {
                block[..8].copy_from_slice(&(usize::from(quarter) << 32 | piece).to_le_bytes());
                stdin.write_all(&block).unwrap();
                hash.update(&block);
            }
        }
        hash.finish()
    });
    let reader = thread::spawn(move || {
        let mut hash = Context::new(&SHA256);
        let mut buffer = vec![0; PIECE];
        let mut total = 0;
        loop {
            match stdout.read(&mut buffer).unwrap() {
                0 => return (hash.finish(), total),
                n => {
                    hash.update(&buffer[..n]);
                    total += n;
                    back.send(total).ok();
                }
            }
        }
    });
    let wait_for = |bytes: usize| {
        let deadline = Instant::now() + OUTAGE;
        let mut last = 0;
        while last < bytes {
            let left = deadline.saturating_duration_since(Instant::now());
            last = came.recv_timeout(left).unwrap_or_else(|e| panic!("{last} of {bytes} bytes are back: {e}"));
        }
    };
    for node in 0..3 {
        go.send(()).unwrap();
        // In the middle of the quarter.
        wait_for(node * QUARTER + QUARTER / 4);
        rig.cluster.kill(node);
        wait_for((node + 1) * QUARTER);
        rig.cluster.restart(node);
        rig.cluster.wait_until_in_sync();
    }
    go.send(()).unwrap();
    let sent = writer.join().unwrap();
    let (received, total) = reader.join().unwrap();
    assert_eq!((total, received.as_ref()), (4 * QUARTER, sent.as_ref()));
    assert_eq!(exec.code(), 0);
    assert!(agent.ended().is_none());
    let log = std::fs::read_to_string(rig.path("a.log")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains(" online")).count(), 1, "one session throughout: {log}");
}
