//! No byte is lost: not at the limit, not on a full disk, not of binary output.

use std::process::Command;

use remoting_kafka::agent::{
    shim::{Blocked, Launcher, Order, Shim, spec::Outcome},
    spool::{Next, Offsets, Reader, Stream},
    warden::Program,
};
use ring::digest::{Context, SHA256};

use super::rig::*;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn binary_output_is_spooled_as_it_was_written() {
    let rig = Rig::new();
    let copy = rig.path("copy");
    let spec = script(&format!("head -c 5000000 /dev/urandom | tee {} ; head -c 70000 {0} >&2", copy.display()));
    let (attempt, exit) = rig.run("a", &spec).await;
    let written = std::fs::read(&copy).expect("copy");
    let [out, err] = spooled(&attempt);
    assert!(out == written && err == written[..70_000]);
    assert_eq!((exit.stdout.length, exit.stdout.sha256), (5_000_000, sha256(&written)));
    assert_eq!((exit.stderr.length, exit.stderr.sha256), (70_000, sha256(&written[..70_000])));
}

#[tokio::test]
async fn a_hundred_mebibytes_pass_through_ten_and_none_is_lost() {
    let rig = Rig::new();
    // Lines with their numbers: a byte at a wrong place changes the hash.
    let mut spec = script("seq 1 20000000 | head -c 104857600");
    spec.spool_limit = 10 * MIB;
    let (attempt, _) = rig.start("a", &spec).await;
    let mut shim = Shim::connect(&attempt).await.expect("connected");
    // Nobody ships: it blocks, and stays below the limit.
    let full = report(&mut shim, |report| report.blocked == Some(Blocked::Limit)).await;
    assert!(full.used <= 10 * MIB && full.used > 9 * MIB, "{full:?}");
    let mut reader = Reader::new(&attempt.spool(), Offsets::default());
    let mut hash = Context::new(&SHA256);
    let mut had = Offsets::default();
    soon(async {
        loop {
            while let Next::Chunk(chunk) = reader.read().expect("readable") {
                assert_eq!((chunk.stream, chunk.offset), (Stream::Stdout, had.stdout));
                hash.update(&chunk.bytes);
                had.stdout += chunk.bytes.len() as u64;
            }
            if shim.order(Order::Acked(had)).await.is_err() {
                break;
            }
            match shim.changed().await {
                Some(report) => assert!(report.used <= 10 * MIB, "{report:?}"),
                None => break,
            }
        }
    })
    .await;
    while let Next::Chunk(chunk) = reader.read().expect("readable") {
        hash.update(&chunk.bytes);
        had.stdout += chunk.bytes.len() as u64;
    }
    let exit = ended(&attempt).await;
    assert_eq!((exit.outcome, exit.stdout.length, had.stdout), (Outcome::Code(0), 100 * MIB, 100 * MIB));
    assert_eq!(hash.finish().as_ref(), exit.stdout.sha256);
    let expected =
        Command::new("sh").args(["-c", "seq 1 20000000 | head -c 104857600 | sha256sum"]).output().expect("sha");
    let hex: String = exit.stdout.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(String::from_utf8_lossy(&expected.stdout).starts_with(&hex));
}

#[tokio::test]
async fn a_higher_limit_lets_a_blocked_process_go_on() {
    let rig = Rig::new();
    let mut spec = script("head -c 3000000 /dev/zero");
    spec.spool_limit = 256 << 10;
    let (attempt, _) = rig.start("a", &spec).await;
    let mut shim = Shim::connect(&attempt).await.expect("connected");
    report(&mut shim, |report| report.blocked == Some(Blocked::Limit)).await;
    shim.order(Order::Limit(10 * MIB)).await.expect("ordered");
    let exit = ended(&attempt).await;
    assert_eq!((exit.outcome, exit.stdout.length), (Outcome::Code(0), 3_000_000));
}

#[tokio::test]
async fn what_a_killed_process_wrote_before_the_limit_let_it_is_not_lost() {
    let rig = Rig::new();
    let mut spec = script("head -c 3000000 /dev/zero");
    spec.spool_limit = 256 << 10;
    let (attempt, _) = rig.start("a", &spec).await;
    let mut shim = Shim::connect(&attempt).await.expect("connected");
    let full = report(&mut shim, |report| report.blocked == Some(Blocked::Limit)).await;
    shim.order(Order::Kill).await.expect("ordered");
    report(&mut shim, |report| report.exited && report.blocked == Some(Blocked::Limit)).await;
    shim.order(Order::Acked(full.spooled)).await.expect("ordered");
    let exit = ended(&attempt).await;
    assert!(exit.stdout.length > full.spooled.stdout, "what was in the pipe came after it");
}

#[tokio::test]
async fn a_disk_that_refuses_blocks_and_loses_nothing() {
    let rig = Rig::new();
    let mut spec = script("seq 1 1000000");
    spec.spool_limit = 64 * MIB;
    let attempt = rig.claim("a", &spec);
    // A limit on the size of files refuses writes as a full disk does, and can be lifted.
    let limited = ["-c", "ulimit -S -f 512; exec \"$0\" job-shim \"$1\"", env!("CARGO_BIN_EXE_rk")];
    let program = Program { path: "/bin/sh".into(), args: limited.map(Into::into).to_vec() };
    soon(Launcher::new(program).start(&attempt)).await.expect("started");
    let mut shim = Shim::connect(&attempt).await.expect("connected");
    let refused = report(&mut shim, |report| matches!(report.blocked, Some(Blocked::Disk { .. }))).await;
    assert_eq!(refused.blocked, Some(Blocked::Disk { errno: nix::errno::Errno::EFBIG as i32 }));
    let pid = shim_of(&attempt).expect("a shim").to_string();
    let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status().expect("prlimit");
    assert!(lifted.success());
    let exit = ended(&attempt).await;
    let expected: String = (1..=1_000_000).map(|number| format!("{number}\n")).collect();
    assert!(text(&attempt, &exit)[0] == expected);
}
