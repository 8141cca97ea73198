//! What other systems are told of what the controller does.

use std::time::Duration;

use serde_json::Value;

use crate::{
    api::{
        AddAgent,
        enrol::CreateToken,
        jobs::{AskedBy, CancelJob, SubmitJob},
    },
    controller::testing::{Site, World, name, soon},
    id::AgentName,
    job::{JobId, Outcome, Returned, StreamEnd},
    link::{EnrolRequest, Enrolment, Roster},
    protocol::jobs::{Order, Report},
    selector::Labels,
};

const TOPIC: &str = "rk.events";

fn site() -> Site {
    let mut site = Site::new();
    site.config.events = true;
    site.cluster.create(TOPIC, 1);
    site
}

/// All that was told, once nothing waits to be.
async fn told(site: &Site, world: &World) -> Vec<Value> {
    soon(world.handle.shared().feed.as_ref().expect("there is one").idle()).await;
    let records = site.cluster.everything(TOPIC, 0).expect("the topic is there");
    records.iter().map(|record| serde_json::from_slice(&record.value).expect("JSON")).collect()
}

/// The types of those about `subject`, without `rk.` and what they are about.
fn of(told: &[Value], subject: &str) -> Vec<String> {
    let about = told.iter().filter(|event| event["subject"] == subject);
    about.map(|event| event["type"].as_str().expect("text").rsplit('.').next().expect("a word").to_owned()).collect()
}

/// Waits until the last event about `subject` is of this type.
async fn until(site: &Site, world: &World, subject: &str, word: &str) -> Vec<Value> {
    soon(async {
        loop {
            let told = told(site, world).await;
            if of(&told, subject).last().is_some_and(|last| last == word) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

fn request(submitter: &str) -> SubmitJob {
    let json = serde_json::json!({ "argv": ["true"], "submitter": submitter });
    serde_json::from_value(json).expect("a request")
}

async fn ended(world: &World, id: JobId) {
    soon(world.handle.wait_for_job(&id.to_string(), Duration::from_secs(50))).await.expect("known");
}

fn exited(code: i32) -> Report {
    let none = StreamEnd::default();
    Report::Ended { agent_ms: 9, outcome: Outcome::Exited(code), stdout: none, stderr: none }
}

#[tokio::test]
async fn a_job_is_told_from_its_beginning_to_its_end() {
    let site = site();
    let world = site.controller().await.expect("started");
    let mut agent = world.worker("a").await;
    let job = world.handle.submit_job(request("ada")).await.expect("submitted").id;
    assert!(matches!(agent.order().await, Order::Start { attempt: 1, .. }));
    agent.report(job, 1, Report::Returned(Returned::NoRoom)).await;
    while !matches!(agent.order().await, Order::Start { attempt: 2, .. }) {}
    agent.report(job, 2, Report::Started { agent_ms: 5, pid: 42, boot: 7 }).await;
    until(&site, &world, &format!("job/{job}"), "running").await;
    let cancel = CancelJob { by: "eve".to_owned(), signal: None, grace_ms: None };
    world.handle.cancel_job(&job.to_string(), &cancel).await.expect("asked");
    for _ in 0..2 {
        agent.report(job, 2, exited(0)).await;
    }
    ended(&world, job).await;
    let told = told(&site, &world).await;
    let subject = format!("job/{job}");
    let words = ["queued", "assigned", "queued", "assigned", "running", "cancelling", "ended"];
    assert_eq!(of(&told, &subject), words);
    let data: Vec<&Value> =
        told.iter().filter(|event| event["subject"] == *subject).map(|event| &event["data"]).collect();
    assert_eq!((&data[2]["reason"], &data[2]["agent"]), (&"the agent has no room".into(), &"a".into()));
    assert_eq!((&data[6]["state"], &data[6]["exit_code"]), (&"succeeded".into(), &0.into()));
    assert!(told.iter().all(|event| event["time"].is_string() && event["source"] == "/rk/rk"));

    // One that waits ends at once.
    let waits = SubmitJob { selector: "is=nowhere".to_owned(), ..request("ada") };
    let waits = world.handle.submit_job(waits).await.expect("submitted").id;
    world.handle.cancel_job(&waits.to_string(), &cancel).await.expect("cancelled");
    let told = until(&site, &world, &format!("job/{waits}"), "ended").await;
    let last = told.iter().rfind(|event| event["data"]["id"] == waits.to_string()).expect("told");
    assert_eq!(last["data"]["state"], "cancelled");
}

#[tokio::test]
async fn what_happens_to_agents_is_told_and_what_changes_nothing_is_not() {
    let site = site();
    let world = site.controller().await.expect("started");
    let add = || AddAgent { name: name("a"), labels: Labels::new(), layout: None };
    soon(futures_util::future::join_all((0..4).map(|_| world.handle.add_agent(add())))).await;
    let agent = world.connect("a").await;
    until(&site, &world, "agent/a", "online").await;
    let by = AskedBy { by: "ada".to_owned() };
    for _ in 0..2 {
        world.handle.drain_agent(&name("a"), &by).await.expect("drained");
    }
    world.handle.resume_agent(&name("a"), &by).await.expect("resumed");
    agent.end("it goes");
    until(&site, &world, "agent/a", "offline").await;
    world.handle.revoke_agent(&name("a")).await.expect("revoked");
    world.handle.remove_agent(&name("a")).await.expect("removed");
    let words = ["added", "online", "drained", "resumed", "offline", "revoked", "removed"];
    assert_eq!(of(&told(&site, &world).await, "agent/a"), words);

    let token = CreateToken { uses: 1, ttl_ms: 60_000, labels: Labels::new(), name_prefix: String::new() };
    let token = world.handle.create_token(token).await.expect("made").info.id;
    let shared = world.handle.shared();
    let door = crate::controller::enrol::Door::new(shared.directory.clone(), shared.store.clone(), shared.fingerprint);
    let ask = EnrolRequest { token: token.parse().expect("an id"), enrolment: Enrolment([1; 16]), name: name("b") };
    for _ in 0..2 {
        soon(door.enrol(ask.clone())).await.expect("enrolled");
    }
    let told = told(&site, &world).await;
    assert_eq!(of(&told, "agent/b"), ["added"], "asking again adds nobody");
    assert_eq!(told.last().expect("told")["data"]["token"], *token);
}

#[tokio::test]
async fn the_next_controller_tells_again_what_was_lost_under_the_same_ids() {
    let site = site();
    let world = site.controller().await.expect("started");
    for agent in ["a", "b", "c"] {
        world
            .handle
            .add_agent(AddAgent { name: name(agent), labels: Labels::new(), layout: None })
            .await
            .expect("added");
    }
    let before = told(&site, &world).await;
    assert_eq!(before.len(), 3);
    drop(world);
    site.cluster.lose_tail(TOPIC, 0, 1).expect("lost");
    let world = site.controller().await.expect("took over");
    world.handle.remove_agent(&name("c")).await.expect("removed");
    let after = told(&site, &world).await;
    let ids = |events: &[Value]| events.iter().map(|event| event["id"].to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&after)[..3], ids(&before));
    assert_eq!((after.len(), &after[3]["type"]), (4, &"rk.agent.removed".into()));
    assert!(after[1].get("time").is_none(), "when it was is not known");
    drop(world);
    let world = site.controller().await.expect("took over");
    assert_eq!(told(&site, &world).await, after, "what is there is not told again");
}

#[tokio::test]
async fn a_feed_that_cannot_be_written_holds_nothing_up() {
    let mut site = Site::new();
    // There is no such topic.
    site.config.events = true;
    let mut world = site.controller().await.expect("started");
    let agents: Vec<AgentName> = (0..20).map(|number| name(&format!("a{number}"))).collect();
    for agent in &agents {
        let request = AddAgent { name: agent.clone(), labels: Labels::new(), layout: None };
        soon(world.handle.add_agent(request)).await.expect("added");
    }
    let api = world.serve(&site).await;
    api.client.status().await.expect("answered");
    assert_eq!(world.handle.shared().feed.as_ref().expect("there is one").waiting(), 20);
    api.shutdown.send(()).await.expect("asked");
    soon(api.served).await.expect("joined").expect("it stops all the same");
}
