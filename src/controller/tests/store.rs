//! What is added stays, whoever is the controller.

use crate::{
    api::{
        AddAgent, Agent, AgentState, Code,
        jobs::{AskedBy, JobList, JobQuery},
    },
    controller::{
        Error,
        testing::{Site, World, name, soon},
    },
    journal,
    kafka::{At, Cluster},
    link::Dismissal,
    selector::{Labels, Selector},
};

fn request(text: &str) -> AddAgent {
    AddAgent { name: name(text), labels: Labels::new(), layout: None }
}

#[tokio::test]
async fn an_agent_is_added_once_and_removed_once() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let added = world.handle.add_agent(request("a")).await.expect("added");
    assert!(added.credential.starts_with("rk1.a."), "{added:?}");
    assert_eq!(world.handle.add_agent(request("a")).await.expect_err("there is one").code, Code::AgentExists);
    assert_eq!(world.handle.agent(&name("a")).expect("known").state, AgentState::Offline);

    let removed = world.handle.remove_agent(&name("a")).await.expect("removed");
    assert!(!removed.had_session);
    assert_eq!(world.handle.remove_agent(&name("a")).await.expect_err("there is none").code, Code::UnknownAgent);
    world.handle.add_agent(request("a")).await.expect("the name is free again");
}

#[tokio::test]
async fn of_many_that_add_one_name_at_once_one_wins() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let adding = (0..8).map(|_| world.handle.add_agent(request("a")));
    let results = soon(futures_util::future::join_all(adding)).await;
    let added: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(added.len(), 1);
    let credential: crate::link::Credential = added[0].credential.parse().expect("credential");
    let directory = world.handle.shared().directory.clone();
    assert_eq!(directory.ask(|r| r.secrets(0, &name("a"))), Some(credential.secret_hash().into()));
}

#[tokio::test]
async fn a_malformed_label_is_refused() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let labels = [("a b".to_owned(), "c".to_owned())].into();
    let error =
        world.handle.add_agent(AddAgent { name: name("a"), labels, layout: None }).await.expect_err("malformed");
    assert_eq!(error.code, Code::Invalid);
}

#[tokio::test]
async fn removing_an_agent_ends_its_session() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.agent("a").await;
    assert!(world.handle.remove_agent(&name("a")).await.expect("removed").had_session);
    soon(agent.dismissed.wait_for(|why| *why == Some(Dismissal::Removed))).await.expect("told");
    assert_eq!(world.handle.session(&name("a")).err().expect("unknown").code, Code::UnknownAgent);
}

#[tokio::test]
async fn the_next_controller_knows_the_agents_and_the_one_before_steps_down() {
    let site = Site::new();
    let first = site.controller().await.expect("started");
    for agent in ["a", "b", "c"] {
        first.handle.add_agent(request(agent)).await.expect("added");
    }
    first.handle.remove_agent(&name("b")).await.expect("removed");

    let second = site.controller().await.expect("started");
    let names = second.handle.agents(&"".parse().expect("selector")).agents;
    assert_eq!(names.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(second.handle.status().epoch, first.handle.status().epoch + 1);

    let ended = soon(first.controller.as_ref().expect("not served").ended()).await;
    assert!(matches!(ended, Error::Superseded { epoch } if epoch == second.handle.status().epoch), "{ended}");
    let error = first.handle.add_agent(request("d")).await.expect_err("it leads no more");
    assert_eq!(error.code, Code::Superseded);
    second.handle.add_agent(request("d")).await.expect("added");
}

#[tokio::test]
async fn a_journal_that_lost_what_was_seen_is_refused_unless_told_otherwise() {
    let mut site = Site::new();
    let world = site.controller().await.expect("started");
    world.handle.add_agent(request("a")).await.expect("added");
    let controller = world.controller.expect("not served");
    controller.close(&site.config.data).await;

    site.cluster.create("rk.journal", 1);
    let error = site.controller().await.err().expect("rolled back");
    assert!(matches!(error, Error::Journal(journal::Error::RolledBack { .. })), "{error}");
    assert!(error.to_string().contains("--accept-rollback"), "{error}");
    site.config.accept_rollback = true;
    let world = site.controller().await.expect("told to");
    assert_eq!(world.handle.agent(&name("a")).expect_err("forgotten").code, Code::UnknownAgent);
}

/// What a controller remembers, as people see it.
fn memory(world: &World) -> (Vec<Agent>, JobList) {
    let agents = world.handle.agents(&Selector::default()).agents;
    (agents, world.handle.jobs(&JobQuery::default()).expect("listed"))
}

async fn fill(world: &World, jobs: usize) {
    for text in ["a", "b", "c"] {
        world.handle.add_agent(request(text)).await.expect("added");
    }
    world.handle.remove_agent(&name("b")).await.expect("removed");
    world.handle.drain_agent(&name("c"), &AskedBy { by: "me".to_owned() }).await.expect("drained");
    for number in 0..jobs {
        let job = serde_json::json!({ "argv": ["true", number.to_string()], "submitter": "me" });
        world.handle.submit_job(serde_json::from_value(job).expect("a job")).await.expect("submitted");
    }
}

#[tokio::test(start_paused = true)]
async fn the_journal_is_cut_and_the_next_controller_knows_the_same() {
    let mut site = Site::new();
    site.config.snapshot_every = 20;
    let world = site.controller().await.expect("started");
    fill(&world, 40).await;
    let start = async || site.cluster.reader("rk.journal", 0).offset(At::Earliest).await.expect("there");
    soon(async {
        while start().await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    world
        .handle
        .submit_job(serde_json::from_str(r#"{"argv":["x"],"submitter":"me"}"#).expect("a job"))
        .await
        .expect("in");
    let before = memory(&world);
    assert_eq!((before.0.len(), before.1.jobs.len(), before.0[1].drained), (2, 41, true));
    drop(world);
    let world = site.controller().await.expect("took over");
    assert_eq!(memory(&world), before);
    let directory = world.handle.shared().directory.clone();
    assert!(directory.ask(|registry| registry.is_removed(&name("b"))), "it is told that it was removed");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_was_created_anew_is_written_again_by_who_led() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    fill(&world, 3).await;
    let (before, legacy) = (memory(&world), world.handle.legacy());
    site.cluster.create("rk.journal", 1);
    soon(world.controller.as_ref().expect("runs").ended()).await;
    drop(world);
    let world = site.controller_with(Some(legacy)).await.expect("founded");
    assert_eq!(memory(&world), before);
    let epoch = world.handle.status().epoch;
    drop(world);
    let world = site.controller().await.expect("took over");
    assert_eq!(memory(&world), before);
    assert!(world.handle.status().epoch > epoch);
}
