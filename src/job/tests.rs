//! The decision table of a job's fold, and what holds for every sequence of events.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::id::AgentName;

fn agent(name: &str) -> AgentName {
    name.parse().expect("name")
}

fn submitted(retries: u8, key: u8) -> Event {
    let target = Target::Selector("os=linux".parse().expect("selector"));
    let spec = Spec { retries, ..Spec::new("ann", target, ["make"]) };
    Event::Submitted { at_ms: 1, spec: Box::new(spec), log_key: Hidden::new([key; 32]), retry_of: None }
}

fn assigned(attempt: u32, to: &str) -> Event {
    Event::Assigned { at_ms: 2, attempt, agent: agent(to) }
}

fn started(attempt: u32, pid: u32) -> Event {
    Event::Started { at_ms: 3, attempt, agent_ms: 33, pid, boot: 9 }
}

fn ended(attempt: u32, outcome: Outcome) -> Event {
    Event::Ended {
        at_ms: 4,
        attempt,
        agent_ms: 44,
        outcome,
        stdout: StreamEnd::default(),
        stderr: StreamEnd::default(),
    }
}

fn lost(attempt: u32) -> Event {
    Event::Lost { at_ms: 5, attempt, reason: Loss::HostRebooted }
}

fn retried(attempt: u32) -> Event {
    Event::Retried { at_ms: 5, attempt, reason: Loss::ShimGone }
}

fn returned(attempt: u32) -> Event {
    Event::Returned { at_ms: 5, attempt, reason: Returned::Draining }
}

fn cancel(at_ms: u64) -> Event {
    Event::CancelRequested { at_ms, by: "bob".to_owned(), cancel: None }
}

fn deadline(secs: u64) -> Event {
    Event::DeadlineSet { at_ms: 6, by: "op".to_owned(), deadline: Some(Duration::from_secs(secs)) }
}

fn logged(attempt: u32) -> Event {
    Event::Logged { attempt, place: LogPlace { partition: 1, first: 5, last: 6 } }
}

fn artifacts(attempt: u32) -> Event {
    Event::Artifacts { at_ms: 7, attempt, artifacts: Artifacts::Missing { why: "it was cancelled".to_owned() } }
}

/// A job after these events, the first of which submits it.
fn after(events: &[Event]) -> Job {
    let mut job = Job::open(&events[0]).expect("submitted");
    for event in &events[1..] {
        job.apply(event).unwrap_or_else(|e| panic!("{event:?}: {e}"));
    }
    job
}

/// What a cell of the table says: `.` nothing, `n` noted, `!` refused, otherwise the state after it.
fn cell(job: &Job, event: &Event) -> &'static str {
    let mut job = job.clone();
    let before = job.clone();
    match job.apply(event) {
        Ok(Change::Nothing) => {
            assert_eq!(job, before, "{event:?}");
            "."
        }
        Err(_) => {
            assert_eq!(job, before, "{event:?}");
            "!"
        }
        Ok(Change::Noted) => {
            assert_eq!(job.state(), before.state());
            assert_ne!(job, before);
            "n"
        }
        Ok(Change::Moved) => match job.state() {
            State::Queued => "Q",
            State::Assigned => "A",
            State::Running => "R",
            State::Succeeded => "ok",
            State::Failed(_) => "F",
            State::Signalled(_) => "S",
            State::Cancelled => "C",
            State::TimedOut => "T",
            State::Lost(_) => "L",
        },
    }
}

/// Attempt 2 is the current one wherever there was one, so that attempt 1 is old and 3 the next. In the column of its
/// retries being used up the first attempt was lost, in the others it was returned.
#[test]
fn every_event_in_every_state_does_what_the_table_says() {
    let first = [submitted(1, 1), assigned(1, "a"), returned(1)];
    let with = |more: &[Event]| after(&[&first[..], more].concat());
    let a = assigned(2, "a");
    let run = started(2, 7);
    let columns = [
        ("queued", with(&[a.clone(), returned(2)])),
        ("assigned", with(std::slice::from_ref(&a))),
        ("running", with(&[a.clone(), run.clone()])),
        ("assigned, to be cancelled", with(&[a.clone(), cancel(1)])),
        ("running, to be cancelled", with(&[a.clone(), run.clone(), cancel(1)])),
        ("running, retries used", after(&[submitted(1, 1), assigned(1, "a"), retried(1), a.clone(), run.clone()])),
        ("succeeded", with(&[a.clone(), run.clone(), ended(2, Outcome::Exited(0))])),
        ("failed", with(&[a.clone(), run.clone(), ended(2, Outcome::Exited(3))])),
        ("signalled", with(&[a.clone(), run.clone(), ended(2, Outcome::Signalled(9))])),
        ("cancelled", with(&[a.clone(), run.clone(), cancel(1), ended(2, Outcome::Cancelled)])),
        ("timed out", with(&[a.clone(), run.clone(), ended(2, Outcome::TimedOut)])),
        ("lost", with(&[a, run, lost(2)])),
    ];
    #[rustfmt::skip]
    let rows: [(&str, Event, &str); 39] = [
        //                                                            Q  A  R  Ac Rc Ru ok F  S  C  T  L
        ("the same submission",          submitted(1, 1),            ".  .  .  .  .  .  .  .  .  .  .  ."),
        ("another submission",           submitted(1, 2),            "!  !  !  !  !  !  !  !  !  !  !  !"),
        ("old assigned",                 assigned(1, "a"),           ".  .  .  .  .  .  .  .  .  .  .  ."),
        ("assigned",                     assigned(2, "a"),           ".  .  .  .  .  .  .  .  .  .  .  ."),
        ("assigned to another",          assigned(2, "b"),           ".  !  !  !  !  !  .  .  .  .  .  ."),
        ("next assigned",                assigned(3, "b"),           "A  !  !  !  !  !  .  .  .  .  .  ."),
        ("assigned out of order",        assigned(4, "a"),           "!  !  !  !  !  !  !  !  !  !  !  !"),
        ("old started",                  started(1, 7),              ".  .  .  .  .  .  .  .  .  .  .  ."),
        ("started",                      started(2, 7),              ".  R  .  R  .  .  .  .  .  .  .  ."),
        ("started as another process",   started(2, 8),              ".  R  !  R  !  !  .  .  .  .  .  ."),
        ("started, never assigned",      started(3, 7),              "!  !  !  !  !  !  !  !  !  !  !  !"),
        ("attempt 0 started",            started(0, 7),              "!  !  !  !  !  !  !  !  !  !  !  !"),
        ("old ended",                    ended(1, Outcome::Exited(0)), ".  .  .  .  .  .  .  .  .  .  .  ."),
        ("exited 0",                     ended(2, Outcome::Exited(0)), ".  ok ok ok ok ok .  !  !  !  !  ."),
        ("exited 3",                     ended(2, Outcome::Exited(3)), ".  F  F  F  F  F  !  .  !  !  !  ."),
        ("signalled",                    ended(2, Outcome::Signalled(9)), ".  S  S  S  S  S  !  !  .  !  !  ."),
        ("ended cancelled",              ended(2, Outcome::Cancelled), ".  C  C  C  C  C  !  !  !  .  !  ."),
        ("timed out",                    ended(2, Outcome::TimedOut), ".  T  T  T  T  T  !  !  !  !  .  ."),
        ("not started",                  ended(2, Outcome::NotStarted { code: 127, message: "no".to_owned() }),
                                                                     ".  F  F  F  F  F  !  !  !  !  !  ."),
        ("ended, never assigned",        ended(3, Outcome::Exited(0)), "!  !  !  !  !  !  !  !  !  !  !  !"),
        ("old lost",                     lost(1),                    ".  .  .  .  .  .  .  .  .  .  .  ."),
        ("lost",                         lost(2),                    ".  L  L  L  L  L  .  .  .  .  .  ."),
        ("lost, never assigned",         lost(3),                    "!  !  !  !  !  !  !  !  !  !  !  !"),
        ("old retried",                  retried(1),                 ".  .  .  .  .  .  .  .  .  .  .  ."),
        ("retried",                      retried(2),                 ".  Q  Q  L  L  !  .  .  .  .  .  ."),
        ("retried, never assigned",      retried(3),                 "!  !  !  !  !  !  !  !  !  !  !  !"),
        ("old returned",                 returned(1),                ".  .  .  .  .  .  .  .  .  .  .  ."),
        ("returned",                     returned(2),                ".  Q  !  C  !  !  .  .  .  .  .  ."),
        ("returned, never assigned",     returned(3),                "!  !  !  !  !  !  !  !  !  !  !  !"),
        ("cancel requested",             cancel(2),                  "C  n  n  n  n  n  .  .  .  .  .  ."),
        ("the same cancel request",      cancel(1),                  "C  n  n  .  .  n  .  .  .  .  .  ."),
        ("deadline set",                 deadline(9),                "n  n  n  n  n  n  .  .  .  .  .  ."),
        ("logged",                       logged(2),                  ".  n  n  n  n  n  n  n  n  n  n  n"),
        ("old logged",                   logged(1),                  ".  .  .  .  .  n  .  .  .  .  .  ."),
        ("logged, never assigned",       logged(3),                  "!  !  !  !  !  !  !  !  !  !  !  !"),
        ("artifacts",                    artifacts(2),               ".  n  n  n  n  n  n  n  n  n  n  n"),
        ("old artifacts",                artifacts(1),               ".  .  .  .  .  .  .  .  .  .  .  ."),
        ("artifacts, never assigned",    artifacts(3),               "!  !  !  !  !  !  !  !  !  !  !  !"),
        ("attempt 0 logged",             logged(0),                  "!  !  !  !  !  !  !  !  !  !  !  !"),
    ];
    for (row, event, expected) in rows {
        let expected: Vec<&str> = expected.split_whitespace().collect();
        for ((column, job), expected) in columns.iter().zip(&expected) {
            assert_eq!(cell(job, &event), *expected, "{row} when {column}");
        }
        assert_eq!(expected.len(), columns.len(), "{row}");
    }
}

#[test]
fn a_job_s_life_is_told_by_its_events() {
    let job = after(&[
        submitted(1, 1),
        assigned(1, "a"),
        started(1, 7),
        logged(1),
        retried(1),
        assigned(2, "b"),
        started(2, 8),
        Event::Logged { attempt: 2, place: LogPlace { partition: 1, first: 9, last: 9 } },
        Event::Logged { attempt: 2, place: LogPlace { partition: 1, first: 12, last: 30 } },
        cancel(7),
        ended(2, Outcome::Exited(3)),
    ]);
    assert_eq!(job.state(), State::Failed(3), "it ended by itself before it was cancelled");
    assert_eq!(job.state().to_string(), "failed (3)");
    assert_eq!((job.submitted_ms(), job.ended_ms(), job.attempt(), job.retries_left()), (1, Some(4), 2, 0));
    assert_eq!(job.holder(), None);
    assert_eq!(job.attempts()[&1].end, Some(AttemptEnd::Lost { at_ms: 5, reason: Loss::ShimGone }));
    assert_eq!(job.attempts()[&2].agent, agent("b"));
    assert_eq!(job.attempts()[&2].started, Some(Started { agent_ms: 33, pid: 8, boot: 9 }));
    assert_eq!(job.attempts()[&2].log, Some(LogPlace { partition: 1, first: 9, last: 30 }));
}

#[test]
fn the_latest_request_to_end_counts_and_the_spec_says_how_otherwise() {
    let mut job = after(&[submitted(0, 1), assigned(1, "a"), cancel(1)]);
    assert_eq!(job.cancel().expect("requested").cancel, Cancel::default());
    let kill = Cancel { signal: 9, grace: Duration::ZERO };
    let event = Event::CancelRequested { at_ms: 2, by: "bob".to_owned(), cancel: Some(kill) };
    assert_eq!(job.apply(&event), Ok(Change::Noted));
    assert_eq!(job.cancel().expect("requested").cancel, kill);
    assert_eq!(job.apply(&event), Ok(Change::Nothing));
}

#[test]
fn a_process_that_was_not_started_failed_as_in_a_shell() {
    let outcome = Outcome::NotStarted { code: 127, message: "no such program".to_owned() };
    assert_eq!(after(&[submitted(0, 1), assigned(1, "a"), ended(1, outcome)]).state(), State::Failed(127));
}

#[test]
fn only_an_ended_job_is_trimmed_and_what_is_shown_of_it_stays() {
    let mut job = after(&[submitted(0, 1)]);
    job.trim();
    assert!(!job.is_trimmed());
    job.apply(&cancel(1)).expect("queued");
    job.trim();
    assert!(job.is_trimmed());
    assert_eq!(job.spec().command, Command::Argv(vec!["make".to_owned()]));
    assert_eq!(job.apply(&submitted(0, 1)), Ok(Change::Nothing), "a trimmed job knows its own submission");
}

#[test]
fn a_trimmed_spec_is_small_whatever_it_was() {
    let mut spec = Spec::new("ann", Target::Agent(agent("a")), vec!["x".repeat(1000); 400]);
    spec.env = (0..100).map(|i| (format!("V{i}"), "v".repeat(300))).collect();
    spec.stdin = Some(Stdin::Inline(vec![0; 1000]));
    assert!(spec.weight() > 400_000);
    spec.trim();
    assert!(spec.weight() < 1000, "{}", spec.weight());
}

mod checks {
    use super::*;

    fn good() -> Spec {
        Spec::new("ann", Target::Agent(agent("a")), ["make", "test"])
    }

    fn secret(value: &[u8], route: SecretRoute) -> JobSecret {
        JobSecret { value: Hidden::new(value.to_vec()), route }
    }

    #[test]
    fn a_usual_job_is_taken() {
        let mut spec = good();
        spec.env.insert("PATH".to_owned(), "/bin".to_owned());
        spec.secrets.insert("TOKEN".to_owned(), secret(b"t", SecretRoute::Variable));
        spec.secrets.insert("KEY".to_owned(), secret(&[0; 60 << 10], SecretRoute::File));
        spec.timeout = Some(Duration::from_secs(60));
        spec.workspace = Workspace::Keep { quota: 1 << 30 };
        assert_eq!(spec.check(), Ok(()));
        spec.command = Command::Script { text: "#!/bin/sh\nmake\n".to_owned(), interpreter: Vec::new() };
        assert_eq!(spec.check(), Ok(()));
    }

    #[test]
    #[expect(clippy::type_complexity, reason = "a table of changes")]
    fn what_is_not_allowed_is_refused_by_name() {
        let table: [(&str, fn(&mut Spec)); 26] = [
            ("the command is empty", |s| s.command = Command::Argv(vec![])),
            ("the command is empty", |s| s.command = Command::Argv(vec![String::new()])),
            ("the command has 5000 arguments", |s| s.command = Command::Argv(vec!["x".to_owned(); 5000])),
            ("argument 1 has a zero byte", |s| s.command = Command::Argv(vec!["x".to_owned(), "\0".to_owned()])),
            ("argument 0 has 131072 bytes", |s| s.command = Command::Argv(vec!["x".repeat(128 << 10)])),
            ("the script is empty", |s| {
                s.command = Command::Script { text: " \n".to_owned(), interpreter: Vec::new() };
            }),
            ("the interpreter is empty", |s| {
                s.command = Command::Script { text: "x".to_owned(), interpreter: vec![String::new()] };
            }),
            ("the job has ", |s| {
                s.command = Command::Script { text: "x".repeat(500 << 10), interpreter: Vec::new() };
            }),
            ("the work directory is empty", |s| s.cwd = Some(String::new())),
            ("the work directory has 5000 bytes", |s| s.cwd = Some("x".repeat(5000))),
            ("variable \"A=\" has no name", |s| drop(s.env.insert("A=".to_owned(), String::new()))),
            ("variable \"1\" has no name", |s| drop(s.env.insert("1".to_owned(), String::new()))),
            ("variable \"RK_X\" has a name of ours", |s| drop(s.env.insert("RK_X".to_owned(), String::new()))),
            ("the environment has 2000 variables", |s| {
                s.env = (0..2000).map(|i| (format!("V{i}"), String::new())).collect();
            }),
            ("secret \"S\" is empty", |s| drop(s.secrets.insert("S".to_owned(), secret(b"", SecretRoute::File)))),
            ("secret \"S\" does not fit", |s| {
                s.secrets.insert("S".to_owned(), secret(b"\0", SecretRoute::Variable));
            }),
            ("secret \"S\" is also a variable", |s| {
                s.env.insert("S".to_owned(), String::new());
                s.secrets.insert("S".to_owned(), secret(b"x", SecretRoute::File));
            }),
            ("the submitter \"\"", |s| s.submitter.clear()),
            ("the job's name", |s| s.name = Some("a\nb".to_owned())),
            ("the concurrency key", |s| s.concurrency = Some("x".repeat(129))),
            ("the selector is longer", |s| {
                s.target = Target::Selector(vec!["x".repeat(250); 5].join(",").parse().expect("selector"));
            }),
            ("the priority is 10", |s| s.priority = 10),
            ("retries are 11", |s| s.retries = 11),
            ("the timeout is 0", |s| s.timeout = Some(Duration::ZERO)),
            ("the spool limit is 1 bytes", |s| s.spool_limit = 1),
            ("the signal is 65", |s| s.cancel.signal = 65),
        ];
        for (expected, change) in table {
            let mut spec = good();
            change(&mut spec);
            let message = spec.check().expect_err(expected).to_string();
            assert!(message.contains(expected), "{message}");
            assert!(message.contains("; "), "no cure: {message}");
        }
    }

    #[test]
    fn no_secret_is_in_what_people_read() {
        let mut spec = good();
        spec.secrets.insert("TOKEN".to_owned(), secret(b"hunter2", SecretRoute::Variable));
        let event = Event::Submitted { at_ms: 0, spec: Box::new(spec), log_key: Hidden::new([7; 32]), retry_of: None };
        let job = Job::open(&event).expect("submitted");
        let shown = format!("{job:?} {}", serde_json::to_string(&job).expect("json"));
        assert!(!shown.contains("hunter2") && !shown.contains("7, 7") && shown.contains("***"), "{shown}");
    }
}

/// Events with small numbers, so that they meet.
fn any_event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        (0..3).prop_map(Outcome::Exited),
        (1..3).prop_map(Outcome::Signalled),
        Just(Outcome::TimedOut),
        Just(Outcome::Cancelled),
    ];
    let attempt = || 0..5u32;
    prop_oneof![
        1 => (0..2u8).prop_map(|key| submitted(2, key)),
        5 => (attempt(), "[ab]").prop_map(|(attempt, to)| assigned(attempt, &to)),
        5 => (attempt(), 0..2u32).prop_map(|(attempt, pid)| started(attempt, pid)),
        2 => (attempt(), outcome).prop_map(|(attempt, outcome)| ended(attempt, outcome)),
        1 => attempt().prop_map(lost),
        3 => attempt().prop_map(retried),
        3 => attempt().prop_map(returned),
        1 => (0..3u64).prop_map(cancel),
        1 => (0..3u64).prop_map(deadline),
        3 => attempt().prop_map(logged),
        3 => attempt().prop_map(artifacts),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_sequence_has_at_most_one_terminal_state_and_replays_to_the_same(
        events in prop::collection::vec(any_event(), 0..60),
    ) {
        let mut job = after(&[submitted(2, 1)]);
        let mut terminal = None;
        let mut true_events = Vec::new();
        for event in &events {
            let before = job.clone();
            match job.apply(event) {
                Ok(Change::Moved) => {
                    prop_assert!(terminal.is_none(), "{before:?} moved by {event:?}");
                    prop_assert_ne!(before.state(), job.state());
                    true_events.push(event);
                }
                Ok(Change::Noted) => {
                    prop_assert_eq!(before.state(), job.state());
                    true_events.push(event);
                }
                Ok(Change::Nothing) | Err(_) => prop_assert_eq!(&before, &job),
            }
            if job.state().is_terminal() {
                prop_assert_eq!(*terminal.get_or_insert(job.state()), job.state());
            }
            prop_assert_eq!(job.ended_ms().is_some(), job.state().is_terminal());
            prop_assert_eq!(job.holder().is_some(), matches!(job.state(), State::Assigned | State::Running));
            prop_assert!(job.attempts().len() <= usize::from(job.spec().retries) + 1);
            // Whatever was applied may come again at any time.
            let again = job.clone();
            let _ = job.apply(event);
            prop_assert_eq!(again.state(), job.state(), "{:?} twice", event);
        }
        let mut replayed = after(&[submitted(2, 1)]);
        for event in true_events {
            prop_assert!(replayed.apply(event).is_ok());
        }
        prop_assert_eq!(&replayed, &job);
        let bytes = postcard::to_stdvec(&job).expect("postcard");
        prop_assert_eq!(postcard::from_bytes::<Job>(&bytes).expect("decode"), job);
    }

    #[test]
    fn an_encoding_is_never_heavier_than_the_weight(
        argv in prop::collection::vec(".{0,40}", 1..20),
        env in prop::collection::btree_map("[A-Z]{1,9}", ".{0,40}", 0..20),
        stdin in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
    ) {
        let mut spec = Spec::new("ann", Target::Agent(agent("a")), argv);
        spec.env = env;
        spec.stdin = stdin.map(Stdin::Inline);
        prop_assert!(postcard::to_stdvec(&spec).expect("postcard").len() <= spec.weight());
    }
}
