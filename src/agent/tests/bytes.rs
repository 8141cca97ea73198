//! What goes through the pipes, and how much of it waits where.

use ring::digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::testing::*;
use crate::protocol::{
    Open,
    call::{Answer, Call, Condition},
    exec::{Event, Outcome},
};

/// Bytes that do not repeat in step with any buffer.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_of_any_bytes_come_back_as_they_went() {
    let bytes = noise((8 << 20) + 13);
    let mut run = run(&executor(), command(&["cat"])).await;
    run.started().await;
    let expected = hash(&bytes);
    let feeding = tokio::spawn(feed(run.stdin, bytes));
    let mut out = Vec::new();
    soon(run.stdout.read_to_end(&mut out)).await.expect("stdout");
    feeding.await.expect("fed");
    assert_eq!(hash(&out), expected);
    assert_eq!(run.control.event().await, Event::Exited(Outcome::Code(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_output_comes_before_the_exit_even_if_nobody_read_until_then() {
    let start = script("head -c 3000000 /dev/zero; head -c 300000 /dev/zero >&2; exit 3");
    let (event, out, err) = run(&executor(), start).await.finish().await;
    assert_eq!((event, out.len(), err.len()), (Event::Exited(Outcome::Code(3)), 3_000_000, 300_000));
}

#[tokio::test]
async fn a_process_that_closes_stdin_early_breaks_nothing() {
    let mut run = run(&executor(), script("head -c 5; exec 0<&-; echo; echo done")).await;
    run.started().await;
    let feeding = tokio::spawn(async move {
        // Until the agent stops reading.
        while run.stdin.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    let mut out = String::new();
    soon(run.stdout.read_to_string(&mut out)).await.expect("stdout");
    assert_eq!(out, "xxxxx\ndone\n");
    assert_eq!(run.control.event().await, Event::Exited(Outcome::Code(0)));
    soon(feeding).await.expect("stdin was stopped");
}

#[tokio::test]
async fn a_reader_that_stops_breaks_the_pipe_of_the_process() {
    let mut run = run(&executor(), command(&["yes"])).await;
    run.started().await;
    let mut some = [0; 1000];
    soon(run.stdout.read_exact(&mut some)).await.expect("stdout");
    drop(run.stdout);
    let sigpipe = nix::sys::signal::Signal::SIGPIPE as i32;
    assert_eq!(run.control.event().await, Event::Exited(Outcome::Signal(sigpipe)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_blocks_the_process_before_it_wrote_much() {
    let dir = tempfile::tempdir().expect("dir");
    let count = dir.path().join("count");
    // Writes 64 KiB pieces and counts them in a file.
    let text = format!(
        "i=0; while [ $i -lt 400 ]; do head -c 65536 /dev/zero; i=$((i+1)); echo $i >{0}.new; mv {0}.new {0}; done",
        count.display()
    );
    let mut run = run(&executor(), script(&text)).await;
    run.started().await;
    // Blocked in a write: the count stands still. If it only paused, the bound holds all the more.
    let mut written = line(&count).await;
    soon(async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let now = line(&count).await;
            if now == std::mem::replace(&mut written, now.clone()) {
                break;
            }
        }
    })
    .await;
    let written: usize = written.parse().expect("a number");
    let bound = super::super::pump::PIPE as usize + super::super::pump::CHUNK + WINDOW + 2 * 65536;
    assert!(written * 65536 <= bound, "{written} pieces");
    let mut out = Vec::new();
    soon(run.stdout.read_to_end(&mut out)).await.expect("stdout");
    assert_eq!(out.len(), 400 * 65536);
    assert_eq!(run.control.event().await, Event::Exited(Outcome::Code(0)));
}

#[tokio::test]
async fn a_child_in_the_background_does_not_hold_the_exit_up() {
    let mut run = run(&executor(), script("sleep 1000 & echo $!")).await;
    run.started().await;
    let mut out = String::new();
    soon(run.stdout.read_to_string(&mut out)).await.expect("stdout");
    assert_eq!(run.control.event().await, Event::Exited(Outcome::Code(0)));
    let pid: i32 = out.trim().parse().expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("it runs on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_answers_with_the_body_whatever_its_size() {
    let executor = executor();
    for length in [0, 1, 131_072, 131_073, 5 << 20] {
        let bytes = noise(length);
        let mut call = open(&executor, &Open::Call(Call::Echo)).await;
        let expected = hash(&bytes);
        let feeding = tokio::spawn(feed(call.far.send, bytes));
        assert_eq!(soon(crate::frame::read::<Answer>(&mut call.far.recv)).await.expect("answer"), Answer::Ok);
        let mut body = Vec::new();
        soon(call.far.recv.read_to_end(&mut body)).await.expect("body");
        soon(feeding).await.expect("fed");
        assert_eq!((body.len(), hash(&body)), (length, expected));
    }
}

#[tokio::test]
async fn the_condition_counts_what_runs() {
    let executor = executor();
    let mut first = run(&executor, command(&["cat"])).await;
    first.started().await;
    let mut call = open(&executor, &Open::Call(Call::Condition)).await;
    assert_eq!(crate::frame::read::<Answer>(&mut call.far.recv).await.expect("answer"), Answer::Ok);
    let mut body = Vec::new();
    soon(call.far.recv.read_to_end(&mut body)).await.expect("body");
    assert_eq!(postcard::from_bytes::<Condition>(&body).expect("a condition").running, 1);
    first.finish_quietly().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture stream_speed"]
async fn stream_speed() {
    let mut run = run(&executor(), command(&["head", "-c", "2G", "/dev/zero"])).await;
    run.started().await;
    let before = tokio::time::Instant::now();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let read = run.stdout.read(&mut buffer).await.expect("stdout");
        if read == 0 {
            break;
        }
        total += read;
    }
    let seconds = before.elapsed().as_secs_f64();
    println!("{:.0} MiB/s", total as f64 / seconds / f64::from(1 << 20));
}
