//! Tokens of the API: what each lets its holder do.

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    api::{
        AddAgent, Client, ClientError, Code, ExecEnd, ExecRequest, RefusalKind,
        access::{AddAccess, Role, Verb},
        frames::ToClient,
        jobs::{AskedBy, JobQuery, SubmitJob},
        logs::LogQuery,
    },
    controller::{
        Limits,
        testing::{Api, Site, World, name, soon},
    },
    health::Health,
    metrics::Page,
    secret::Secret,
    selector::{Labels, Selector},
};

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Code {
    match result {
        Err(ClientError::Api(error)) => error.code,
        other => panic!("unexpected {other:?}"),
    }
}

fn wish(of: &str, role: Role) -> AddAccess {
    let (verbs, agents, selector) = (BTreeSet::new(), BTreeSet::new(), Selector::default());
    AddAccess { name: name(of), role, verbs, agents, selector, ttl_ms: None }
}

async fn client(api: &Api, wish: AddAccess) -> Client {
    let token = api.client.add_access(&wish).await.expect("made").token;
    Client::new(&api.address.to_string(), &Secret::new(token), None).expect("a client")
}

fn job(agent: Option<&str>, selector: &str) -> SubmitJob {
    let mut job = serde_json::json!({ "argv": ["true"], "submitter": "ada@desk", "selector": selector });
    if let Some(agent) = agent {
        job["agent"] = agent.into();
    }
    serde_json::from_value(job).expect("a job")
}

/// How an execution ended that did not run.
async fn refused(client: &Client, agent: &str) -> RefusalKind {
    let (_, mut receiver) = client.exec(&ExecRequest::new(name(agent), ["true"])).await.expect("asked");
    match soon(receiver.next()).await.expect("answered") {
        Some(ToClient::Exit(ExecEnd::Refused { reason, .. })) => reason,
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn a_viewer_sees_and_changes_nothing() {
    let site = Site::new();
    let mut world = site.controller().await.expect("started");
    let _agent = world.agent("a").await;
    let api = world.serve(&site).await;
    let viewer = client(&api, wish("eve", Role::Viewer)).await;
    assert_eq!(viewer.agents(&Selector::default()).await.expect("listed").agents.len(), 1);
    viewer.status().await.expect("status");
    viewer.jobs(&JobQuery::default()).await.expect("jobs");
    let by = AskedBy { by: "x".to_owned() };
    let add = AddAgent { name: name("b"), labels: Labels::new(), layout: None };
    assert_eq!(code(viewer.add_agent(&add).await), Code::Forbidden);
    assert_eq!(code(viewer.remove_agent(&name("a")).await), Code::Forbidden);
    assert_eq!(code(viewer.drain_agent(&name("a"), &by).await), Code::Forbidden);
    assert_eq!(code(viewer.submit(&job(None, "")).await), Code::Forbidden);
    assert_eq!(code(viewer.access().await), Code::Forbidden);
    assert_eq!(code(viewer.add_access(&wish("f", Role::Admin)).await), Code::Forbidden);
    let exec = viewer.exec(&ExecRequest::new(name("a"), ["true"])).await;
    assert!(matches!(exec.err(), Some(ClientError::Api(e)) if e.code == Code::Forbidden));
    assert_eq!(api.client.agents(&Selector::default()).await.expect("listed").agents.len(), 1, "nothing changed");
}

#[tokio::test]
async fn a_token_for_one_node_executes_there_and_nowhere_else() {
    let site = Site::new();
    let mut world = site.controller().await.expect("started");
    for agent in ["node-1", "node-2"] {
        world
            .handle
            .add_agent(AddAgent { name: name(agent), labels: Labels::new(), layout: None })
            .await
            .expect("added");
    }
    let api = world.serve(&site).await;
    let verbs = [Verb::Exec].into();
    let jenkins = AddAccess { verbs, agents: [name("node-1")].into(), ..wish("jenkins", Role::Operator) };
    let jenkins = client(&api, jenkins).await;
    // That it is offline says that it was let through.
    assert_eq!(refused(&jenkins, "node-1").await, RefusalKind::Offline);
    assert_eq!(refused(&jenkins, "node-2").await, RefusalKind::Forbidden);
    assert_eq!(refused(&jenkins, "nobody").await, RefusalKind::Forbidden, "what there is it is not told");
    assert_eq!(code(jenkins.agents(&Selector::default()).await), Code::Forbidden);
    assert_eq!(code(jenkins.submit(&job(Some("node-1"), "")).await), Code::Forbidden);
    let noted = |audit: String| audit.contains(r#""who":"root""#) && audit.contains("jenkins as operator");
    soon(async {
        while !noted(std::fs::read_to_string(site.config.data.join("audit.log")).expect("an audit log")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_for_some_labels_runs_jobs_on_them_under_its_own_name() {
    let site = Site::new();
    let mut world = site.controller().await.expect("started");
    for (agent, zone) in [("a", "1"), ("b", "2")] {
        let labels: Labels = [("zone".to_owned(), zone.to_owned())].into();
        world.handle.add_agent(AddAgent { name: name(agent), labels, layout: None }).await.expect("added");
    }
    let api = world.serve(&site).await;
    let selector: Selector = "zone=1".parse().expect("a selector");
    let ci = client(&api, AddAccess { selector, ..wish("ci", Role::Operator) }).await;
    let names = ci.agents(&Selector::default()).await.expect("listed").agents;
    assert_eq!(names.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(code(ci.agent(&name("b")).await), Code::Forbidden);
    assert_eq!(code(ci.submit(&job(Some("b"), "")).await), Code::Forbidden);
    let mine = ci.submit(&job(None, "os=linux")).await.expect("submitted");
    assert_eq!((mine.submitter.as_str(), mine.target.contains("os=linux,zone=1")), ("ci", true), "{}", mine.target);
    let other = api.client.submit(&job(Some("b"), "")).await.expect("submitted");
    assert_eq!(other.submitter, "ada@desk", "the controller's own token may speak for others");
    assert_eq!(code(ci.job(&other.id.to_string()).await), Code::Forbidden);
    assert_eq!(code(ci.submit(&SubmitJob { id: Some(other.id), ..job(None, "") }).await), Code::Forbidden);
    let seen = ci.jobs(&JobQuery::default()).await.expect("listed").jobs;
    assert_eq!(seen.iter().map(|job| job.id).collect::<Vec<_>>(), [mine.id]);
    assert_eq!(code(ci.retry_job(&mine.id.to_string(), &AskedBy { by: "x".to_owned() }).await), Code::Forbidden);
}

#[tokio::test]
async fn a_token_ends_when_it_is_revoked_and_survives_the_controller() {
    let site = Site::new();
    let mut world = site.controller().await.expect("started");
    let api = world.serve(&site).await;
    let added = api.client.add_access(&wish("ops", Role::Operator)).await.expect("made");
    assert_eq!(code(api.client.add_access(&wish("ops", Role::Viewer)).await), Code::Exists);
    let zero = AddAccess { ttl_ms: Some(0), ..wish("x", Role::Viewer) };
    assert_eq!(code(api.client.add_access(&zero).await), Code::Invalid);
    let brief = AddAccess { ttl_ms: Some(1), ..wish("brief", Role::Viewer) };
    let brief = client(&api, brief).await;
    soon(async {
        while brief.status().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(code(brief.status().await), Code::Unauthorized);

    let mut second = site.controller().await.expect("took over");
    let later = second.serve(&site).await;
    let token = Secret::new(added.token);
    let ops = Client::new(&later.address.to_string(), &token, None).expect("a client");
    ops.status().await.expect("still good");
    let listed = later.client.access().await.expect("listed").access;
    let expected = [("brief", true), ("ops", false)];
    assert_eq!(listed.iter().map(|a| (a.name.as_str(), a.expired)).collect::<Vec<_>>(), expected);
    later.client.revoke_access(&name("ops")).await.expect("revoked");
    assert_eq!(code(ops.status().await), Code::Unauthorized);
    assert_eq!(code(later.client.revoke_access(&name("ops")).await), Code::NotFound);
}

/// The answer to a request with this token, as text.
async fn shown(api: &Api, token: &str) -> String {
    let mut stream = TcpStream::connect(api.address).await.expect("connected");
    let head =
        format!("GET /v1/status HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.expect("answered");
    answer
}

/// How many requests came too often, by what they are counted by.
fn limited(world: &World, by: &str) -> u64 {
    let mut page = Page::default();
    world.handle.measure(&mut page);
    let start = format!("rk_api_limited_total{{by=\"{by}\"}} ");
    let text = page.into_text();
    let count = text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok());
    count.unwrap_or_else(|| panic!("{text}"))
}

#[tokio::test]
async fn who_guesses_is_slowed_down_and_a_good_token_behind_it_is_not_even_looked_at() {
    let mut site = Site::new();
    site.config.limits = Limits { address: 1, loopback: true, ..Limits::default() };
    let mut world = site.controller().await.expect("started");
    let api = world.serve(&site).await;
    assert!(shown(&api, "a-wrong-one").await.starts_with("HTTP/1.1 401"));
    for token in ["a-wrong-one", api.token.expose()] {
        let answer = shown(&api, token).await;
        assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: "), "{answer}");
        assert!(answer.contains("too_often") && answer.contains("--api-token"), "{answer}");
    }
    let error = api.client.clone().with_timeout(Duration::from_secs(5)).status().await.expect_err("too late for it");
    assert_eq!((error.exit_code(), code(Err::<(), _>(error))), (75, Code::TooOften));
    assert_eq!((limited(&world, "address"), limited(&world, "token")), (3, 0));
}

#[tokio::test]
async fn a_client_that_asks_too_often_waits_and_others_do_not() {
    let mut site = Site::new();
    site.config.limits = Limits { token: 1, ..Limits::default() };
    let mut world = site.controller().await.expect("started");
    let api = world.serve(&site).await;
    let busy = client(&api, wish("busy", Role::Viewer)).await;
    soon(async {
        while limited(&world, "token") == 0 {
            busy.status().await.expect("answered, if late");
        }
    })
    .await;
    let before = limited(&world, "token");
    let other = client(&api, wish("other", Role::Viewer)).await;
    other.status().await.expect("it did not ask yet");
    for _ in 0..30 {
        api.client.status().await.expect("answered");
    }
    assert_eq!(limited(&world, "token"), before, "neither it nor the controller's own token had to wait");
}

#[tokio::test]
async fn who_waits_for_a_job_or_follows_its_log_hears_at_once_that_the_token_was_revoked() {
    let site = Site::new();
    let mut world = site.controller().await.expect("started");
    let api = world.serve(&site).await;
    let ci = client(&api, wish("ci", Role::Operator)).await;
    let id = ci.submit(&job(None, "")).await.expect("submitted").id.to_string();
    let mut log = ci.job_log(&id, &LogQuery { follow: true, ..LogQuery::default() }).await.expect("opened");
    let waiting = ci.wait_for_job(&id, Duration::from_secs(60));
    let revoking = async { api.client.revoke_access(&name("ci")).await.expect("revoked") };
    let (waited, _) = soon(async { tokio::join!(waiting, revoking) }).await;
    assert_eq!(code(waited), Code::Unauthorized);
    let error = soon(log.next()).await.expect_err("it ends early");
    assert!(error.may_pass(), "it is asked for the rest: {error}");
    let rest = ci.job_log(&id, &LogQuery { follow: true, ..LogQuery::default() }).await;
    assert_eq!(code(rest), Code::Unauthorized);
    api.client.job(&id).await.expect("the job is the installation's, and goes on");
}
