//! What a process starts with, and why it may not.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::super::{Config, executor::Phase, testing::*};
use crate::{
    id::ExecId,
    protocol::{
        CANCELLED, Open, UNKNOWN_STREAM,
        exec::{Channel, Event, Outcome, Refusal, Size, Stdio, Terminal},
    },
};

#[tokio::test]
async fn stdout_and_stderr_come_apart_and_the_exit_code_passes() {
    for code in [0, 1, 42, 126, 127, 130, 255] {
        let (event, out, err) = run_all(script(&format!("echo to-out; echo to-err >&2; exit {code}"))).await;
        assert_eq!(event, Event::Exited(Outcome::Code(code)));
        assert_eq!((out.as_str(), err.as_str()), ("to-out\n", "to-err\n"));
    }
}

#[tokio::test]
async fn the_environment_is_cleared_and_the_request_adds_to_it() {
    let mut start = command(&["env"]);
    start.env = vec![("GIVEN".to_owned(), "a b=c".to_owned())];
    let executor = executor_with(Config {
        environment: vec![("SECRET".into(), "x".into()), ("HOME".into(), "/home/x".into())],
        labels: [("role".to_owned(), "web".to_owned())].into(),
        ..Config::default()
    });
    let (_, out, _) = run(&executor, start).await.finish().await;
    let out = String::from_utf8(out).expect("text");
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    let expected = [
        "GIVEN=a b=c",
        "HOME=/home/x",
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "RK=1",
        "RK_AGENT_LABELS=role=web",
        "RK_AGENT_NAME=a1",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn it_runs_in_the_directory_it_names_and_else_in_the_work_directory() {
    let dir = tempfile::tempdir().expect("dir");
    let work_dir = dir.path().canonicalize().expect("path");
    std::fs::create_dir(work_dir.join("sub")).expect("dir");
    let executor = executor_with(Config { work_dir: Some(work_dir.clone()), ..Config::default() });
    for (cwd, expected) in
        [(None, work_dir.clone()), (Some("/usr"), "/usr".into()), (Some("sub"), work_dir.join("sub"))]
    {
        let mut start = command(&["pwd"]);
        start.cwd = cwd.map(str::to_owned);
        let (event, out, _) = run(&executor, start).await.finish().await;
        assert_eq!(event, Event::Exited(Outcome::Code(0)));
        assert_eq!(String::from_utf8_lossy(&out), format!("{}\n", expected.display()));
    }
    let mut start = command(&["pwd"]);
    start.cwd = Some("/nowhere".to_owned());
    let (event, ..) = run(&executor, start).await.finish().await;
    assert!(matches!(&event, Event::Refused(Refusal::NotFound(why)) if why.contains("/nowhere")), "{event:?}");
}

#[tokio::test]
async fn a_missing_program_and_one_that_cannot_be_executed_are_told_apart() {
    let (event, ..) = run_all(command(&["no-such-program"])).await;
    assert!(matches!(event, Event::Refused(Refusal::NotFound(_))), "{event:?}");
    let (event, ..) = run_all(command(&["/etc/passwd"])).await;
    assert!(matches!(event, Event::Refused(Refusal::NotExecutable(_))), "{event:?}");
    let dir = tempfile::tempdir().expect("dir");
    let no_format = dir.path().join("x");
    std::fs::write(&no_format, "echo hi\n").expect("write");
    std::fs::set_permissions(&no_format, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let (event, ..) = run_all(command(&[no_format.to_str().expect("text")])).await;
    assert!(matches!(&event, Event::Refused(Refusal::NotExecutable(why)) if why.contains("#!")), "{event:?}");
}

#[tokio::test]
async fn nonsense_is_refused_with_a_reason() {
    let mut bad_env = script("true");
    bad_env.env = vec![("A=B".to_owned(), String::new())];
    let nul = command(&["sh", "a\0b"]);
    // What ends with its streams has no terminal that could outlive them.
    let mut terminal = script("true");
    terminal.terminal = Some(Terminal { kind: "vt".to_owned(), size: Size { columns: 80, rows: 24 } });
    for start in [command(&[]), bad_env, nul, terminal] {
        let (event, ..) = run_all(start).await;
        assert!(matches!(event, Event::Refused(Refusal::Failed(_))), "{event:?}");
    }
}

#[tokio::test]
async fn without_stdin_it_reads_an_end_at_once() {
    let mut start = command(&["cat"]);
    start.stdin = false;
    let mut run = run(&executor(), start).await;
    run.started().await;
    assert_eq!(run.control.event().await, Event::Exited(Outcome::Code(0)));
}

#[tokio::test]
async fn a_draining_agent_takes_nothing_new_and_waits_for_what_runs() {
    let executor = executor();
    let mut first = run(&executor, command(&["cat"])).await;
    first.started().await;
    executor.advance(Phase::Draining);
    let (event, ..) = run(&executor, script("true")).await.finish().await;
    assert_eq!(event, Event::Refused(Refusal::Draining));
    assert_eq!(executor.running(), 1);
    drop(first.stdin);
    assert_eq!(first.control.event().await, Event::Exited(Outcome::Code(0)));
    drop((first.stdout, first.stderr));
    soon(executor.idle()).await;
}

#[tokio::test]
async fn there_is_a_limit_to_what_runs_at_once() {
    let executor = executor_with(Config { max_execs: 1, ..Config::default() });
    let mut first = run(&executor, command(&["cat"])).await;
    first.started().await;
    let (event, ..) = run(&executor, script("true")).await.finish().await;
    assert!(matches!(&event, Event::Refused(Refusal::Failed(why)) if why.contains("limit")), "{event:?}");
    first.finish_quietly().await;
    let (event, ..) = run(&executor, script("true")).await.finish().await;
    assert_eq!(event, Event::Exited(Outcome::Code(0)));
}

#[tokio::test(start_paused = true)]
async fn without_its_stdio_streams_it_is_not_started() {
    let executor = executor();
    let mut control = open(&executor, &Open::Exec(script("true"))).await;
    let event = tokio::time::timeout(Duration::from_secs(11), control.event()).await.expect("in time");
    assert!(matches!(&event, Event::Refused(Refusal::Failed(why)) if why.contains("stdio")), "{event:?}");
    let mut orphan = open(&executor, &Open::Stdio(Stdio { id: ExecId(1), channel: Channel::Err })).await;
    orphan.served().await;
    assert_eq!(orphan.was_reset(), Some(CANCELLED));
}

#[tokio::test]
async fn who_leaves_before_the_streams_came_starts_nothing() {
    let executor = executor();
    let control = open(&executor, &Open::Exec(script("true"))).await;
    assert_eq!(control.leave().await, Some(CANCELLED));
    assert_eq!(executor.running(), 0);
}

#[tokio::test]
async fn a_stream_for_something_unknown_is_reset() {
    let executor = executor();
    for bytes in [&[1u8, 0, 0, 0, 99][..], &[0, 0, 0, 0], &[255, 255, 255, 255], &[2, 0, 0, 0, 1, 200]] {
        let (send, recv, mut far) = stream();
        far.send.write_all(bytes).await.expect("write");
        soon(executor.serve(send, recv)).await;
        assert_eq!(far.was_reset(), Some(UNKNOWN_STREAM), "{bytes:?}");
    }
    let (send, recv, far) = stream();
    drop(far.send);
    soon(executor.serve(send, recv)).await;
    assert_eq!(executor.running(), 0);
}
