//! What readers read, to the byte.

use super::*;
use crate::job::{Command, Event, Hidden, JobSecret, Loss, Outcome, SecretRoute, Spec, Stdin, StreamEnd, Target};

const AT: u64 = 1_790_000_000_000;
const ID: Id = Id::Journal(Place { journal: 0xab, epoch: 3, seq: 17 });

fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

fn json(happening: &Happening) -> String {
    String::from_utf8(happening.render("/rk/rk", ID)).expect("text")
}

/// The envelope around `data`.
fn enveloped(kind: &str, subject: &str, time: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"000000000000000000000000000000ab.3.17","source":"/rk/rk","type":"{kind}","subject":"{subject}",{time}"datacontenttype":"application/json","data":{data}}}"#
    )
}

const TIME: &str = r#""time":"2026-09-21T14:13:20.000Z","#;

fn job_id() -> JobId {
    JobId::new(AT, 7)
}

/// A job that holds a secret in every place that can hold one.
fn job() -> Job {
    let mut spec = Spec::new("ada", Target::Agent(name("b7")), ["hush"]);
    spec.name = Some("nightly".to_owned());
    spec.command = Command::Script { text: "echo hush".to_owned(), interpreter: vec!["hush".to_owned()] };
    spec.env.insert("HUSH".to_owned(), "hush".to_owned());
    spec.cwd = Some("/hush".to_owned());
    spec.stdin = Some(Stdin::Inline(b"hush".to_vec()));
    let value = Hidden::new(b"hush".to_vec());
    spec.secrets.insert("HUSH".to_owned(), JobSecret { value, route: SecretRoute::Variable });
    spec.concurrency = Some("hush".to_owned());
    let log_key = Hidden::new([7; 32]);
    Job::open(&Event::Submitted { at_ms: AT, spec: Box::new(spec), log_key, retry_of: None }).expect("the first")
}

fn assigned(job: &mut Job) {
    job.apply(&Event::Assigned { at_ms: AT, attempt: 1, agent: name("b7") }).expect("assigned");
}

fn ended(job: &mut Job, outcome: Outcome) {
    let stream = |length| StreamEnd { length, sha256: [1; 32] };
    let (stdout, stderr) = (stream(5), stream(0));
    job.apply(&Event::Ended { at_ms: AT, attempt: 1, agent_ms: 1, outcome, stdout, stderr }).expect("ended");
}

fn turn() -> Turn {
    Turn { at_ms: AT, ..Turn::default() }
}

#[test]
fn agents_come_and_go() {
    let labels: Labels = [("os".to_owned(), "linux".to_owned())].into();
    let added = Happening::added(&name("b7"), &labels, None);
    assert_eq!(
        json(&added),
        enveloped("rk.agent.added", "agent/b7", "", r#"{"name":"b7","labels":{"os":"linux"}}"#),
        "when is not known when it is told again"
    );
    assert_eq!(
        json(&added.at(AT)),
        enveloped("rk.agent.added", "agent/b7", TIME, r#"{"name":"b7","labels":{"os":"linux"}}"#)
    );
    let drained = Happening::drained(&name("b7"), "ada").at(AT);
    assert_eq!(json(&drained), enveloped("rk.agent.drained", "agent/b7", TIME, r#"{"name":"b7","by":"ada"}"#));
    let online = Happening::presence(AT, &name("b7"), AgentState::Online);
    assert_eq!(json(&online), enveloped("rk.agent.online", "agent/b7", TIME, r#"{"name":"b7"}"#));
    assert_eq!(online.at(AT + 1), Happening::presence(AT, &name("b7"), AgentState::Online), "what is known stays");
}

#[test]
fn a_job_goes_its_way() {
    let mut job = job();
    let (id, subject) = (job_id(), format!("job/{}", job_id()));
    let data = |rest: &str| format!(r#"{{"id":"{id}","name":"nightly","submitter":"ada","target":"b7",{rest}}}"#);
    let is = |happening: Happening, kind: &str, rest: &str| {
        assert_eq!(json(&happening), enveloped(kind, &subject, TIME, &data(rest)));
    };
    is(Happening::moved(id, &job, turn()), "rk.job.queued", r#""state":"queued","attempt":0"#);
    assigned(&mut job);
    is(Happening::moved(id, &job, turn()), "rk.job.assigned", r#""state":"assigned","attempt":1,"agent":"b7""#);
    job.apply(&Event::Started { at_ms: AT, attempt: 1, agent_ms: 1, pid: 2, boot: 3 }).expect("started");
    is(Happening::moved(id, &job, turn()), "rk.job.running", r#""state":"running","attempt":1,"agent":"b7""#);
    job.apply(&Event::CancelRequested { at_ms: AT, by: "eve".to_owned(), cancel: None }).expect("asked");
    is(
        Happening::cancelling(id, &job, turn()),
        "rk.job.cancelling",
        r#""state":"running","attempt":1,"agent":"b7","cancelled_by":"eve""#,
    );
    ended(&mut job, Outcome::Exited(3));
    is(
        Happening::moved(id, &job, turn()),
        "rk.job.ended",
        r#""state":"failed","attempt":1,"agent":"b7","number":3,"exit_code":3,"cancelled_by":"eve","stdout_bytes":5,"stderr_bytes":0"#,
    );
}

#[test]
fn a_job_that_is_lost_or_waits_again_says_why() {
    let mut lost = job();
    assigned(&mut lost);
    lost.apply(&Event::Lost { at_ms: AT, attempt: 1, reason: Loss::HostRebooted }).expect("lost");
    let text = json(&Happening::moved(job_id(), &lost, turn()));
    assert!(
        text.contains(r#""state":"lost","attempt":1,"agent":"b7","exit_code":75,"reason":"the agent's host"#),
        "{text}"
    );
    let mut returned = job();
    assigned(&mut returned);
    let reason = crate::job::Returned::NoRoom;
    returned.apply(&Event::Returned { at_ms: AT, attempt: 1, reason }).expect("returned");
    let turn = Turn { reason: Some(reason.to_string()), agent: Some(name("b7")), ..turn() };
    let text = json(&Happening::moved(job_id(), &returned, turn));
    assert!(text.contains(r#""state":"queued","attempt":1,"agent":"b7","reason":"the agent has no room""#), "{text}");
}

#[test]
fn nothing_that_a_job_holds_is_told() {
    let mut job = job();
    let mut told = vec![json(&Happening::moved(job_id(), &job, turn()))];
    assigned(&mut job);
    told.push(json(&Happening::moved(job_id(), &job, turn())));
    // Its message names the program.
    ended(&mut job, Outcome::NotStarted { code: 127, message: "hush: no such program".to_owned() });
    told.push(json(&Happening::moved(job_id(), &job, turn())));
    assert!(told[2].contains(r#""state":"failed""#));
    assert!(!told.iter().any(|text| text.to_lowercase().contains("hush")), "{told:?}");
}

#[test]
fn what_is_asked_for_is_told_without_details() {
    let mut entry = Entry {
        who: Some("jenkins"),
        from: Some("127.0.0.1:9".parse().expect("an address")),
        verb: "exec",
        request: "POST /v1/exec",
        detail: Some("b7: echo hush".to_owned()),
        status: 403,
    };
    let data = r#"{"who":"jenkins","from":"127.0.0.1:9","request":"POST /v1/exec","status":403}"#;
    assert_eq!(json(&Happening::access(AT, &entry)), enveloped("rk.access.exec", "access/jenkins", TIME, data));
    let long = format!("GET /{}", "ü".repeat(1000));
    entry = Entry { who: None, from: None, verb: "", request: &long, status: 401, ..entry };
    let text = json(&Happening::access(AT, &entry));
    assert!(text.contains(r#""type":"rk.access.unauthorized","subject":"access","#), "{text}");
    assert!(text.contains(r#""who":null,"from":null,"request":"GET /üü"#) && text.len() < 600, "{text}");
}

#[test]
fn ids_are_read_as_they_are_written() {
    let place = Place { journal: u128::MAX, epoch: 1, seq: u64::MAX };
    for id in [ID, Id::Journal(place), Id::Seen(place)] {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    assert_ne!(Id::Journal(place).to_string(), Id::Seen(place).to_string());
    for wrong in ["", "ab", "ab.1", "ab.1.x", "ab.1.s", "ab.1.2.3", "g.1.2", "ab.-1.2", "ab.1.ss2"] {
        assert_eq!(wrong.parse::<Id>(), Err(InvalidId), "{wrong}");
    }
}
