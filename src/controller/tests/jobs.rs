//! Jobs through the controller: journalled first, given to agents, accounted for.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    api::{
        jobs::{AskedBy, CancelJob, JobInfo, JobQuery, SubmitJob},
        logs::{Digest, LogItem, LogQuery, LogStream},
    },
    bytelog::{self, AttemptKey, End, JobKey, Shipper, Stream},
    controller::testing::{FakeAgent, Site, name, soon},
    job::{JobId, LogPlace, Outcome, StreamEnd},
    protocol::jobs::{LogTicket, Order, Report},
};

fn request(argv: &[&str]) -> SubmitJob {
    let json = serde_json::json!({ "argv": argv, "submitter": "me@here" });
    serde_json::from_value(json).expect("a request")
}

fn started() -> Report {
    Report::Started { agent_ms: 5, pid: 42, boot: 7 }
}

fn stream(bytes: &[u8]) -> StreamEnd {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    StreamEnd { length: bytes.len() as u64, sha256: digest.as_ref().try_into().expect("32 bytes") }
}

fn exited(code: i32, stdout: &[u8]) -> Report {
    let outcome = Outcome::Exited(code);
    Report::Ended { agent_ms: 9, outcome, stdout: stream(stdout), stderr: stream(b"") }
}

async fn start(agent: &mut FakeAgent) -> (JobId, u32, LogTicket) {
    match agent.order().await {
        Order::Start { job, attempt, log, .. } => (job, attempt, log),
        other => panic!("unexpected {other:?}"),
    }
}

async fn ended(handle: &crate::controller::Handle, id: JobId) -> JobInfo {
    soon(handle.wait_for_job(&id.to_string(), Duration::from_secs(50))).await.expect("known")
}

#[tokio::test]
async fn a_job_goes_to_an_agent_and_its_end_is_kept_by_the_next_controller() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.worker("a").await;
    let job = world.handle.submit_job(request(&["true"])).await.expect("submitted");
    let (id, attempt, _) = start(&mut agent).await;
    assert_eq!((id, attempt), (job.id, 1));
    agent.report(id, 1, started()).await;
    agent.report(id, 1, exited(3, b"")).await;
    let job = ended(&world.handle, id).await;
    assert_eq!((job.state.as_str(), job.number, job.exit_code), ("failed", Some(3), Some(3)));
    assert_eq!(agent.order().await, Order::Release { job: id, attempt: 1 });
    // Said again after the release was lost: released again.
    agent.report(id, 1, exited(3, b"")).await;
    assert_eq!(agent.order().await, Order::Release { job: id, attempt: 1 });
    drop(world);
    let world = site.controller().await.expect("took over");
    assert_eq!(world.handle.job(&id.to_string()[..8]).expect("kept"), job);
}

#[tokio::test]
async fn a_job_without_an_agent_waits_and_says_why_and_can_be_cancelled() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let job = world.handle.submit_job(request(&["true"])).await.expect("submitted");
    assert!(world.handle.job(&job.id.to_string()).expect("known").waiting.expect("a reason").contains("rk agents ls"));
    let cancel = CancelJob { by: "me".to_owned(), signal: None, grace_ms: None };
    let job = world.handle.cancel_job(&job.id.to_string(), &cancel).await.expect("cancelled");
    assert_eq!((job.state.as_str(), job.exit_code, job.cancelled_by.as_deref()), ("cancelled", Some(130), Some("me")));
    assert_eq!(world.handle.cancel_job(&job.id.to_string(), &cancel).await, Ok(job));
    let list = |state: &str| {
        let query = JobQuery { state: state.to_owned(), ..JobQuery::default() };
        world.handle.jobs(&query).expect("listed").jobs.len()
    };
    assert_eq!((list(""), list("live"), list("cancelled,lost")), (1, 0, 1));
}

#[tokio::test]
async fn a_submission_that_is_repeated_makes_one_job() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let id = JobId::new(1_790_000_000_000, 7);
    let submit = || world.handle.submit_job(SubmitJob { id: Some(id), ..request(&["true"]) });
    let (a, b) = soon(async { tokio::join!(submit(), submit()) }).await;
    assert_eq!((a.expect("made").id, b.expect("there").id), (id, id));
    assert_eq!(submit().await.expect("there").id, id);
    assert_eq!(world.handle.jobs(&JobQuery::default()).expect("listed").jobs.len(), 1);
}

#[tokio::test]
async fn a_controller_that_comes_later_finds_what_the_agent_has() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.worker("a").await;
    let job = world.handle.submit_job(request(&["true"])).await.expect("submitted");
    let (id, ..) = start(&mut agent).await;
    // It started, and ended, while nobody listened.
    drop((world, agent));
    let world = site.controller().await.expect("took over");
    assert_eq!(world.handle.job(&job.id.to_string()).expect("kept").state, "assigned");
    assert!(world.handle.job(&job.id.to_string()).expect("kept").unreachable);
    let mut agent = world.connect("a").await;
    agent.take_jobs(1, &[(id, 1, exited(0, b""))]).await;
    assert_eq!(ended(&world.handle, id).await.state, "succeeded");
    assert_eq!(agent.order().await, Order::Release { job: id, attempt: 1 });
    // The slot is free again.
    let retry = world.handle.retry_job(&id.to_string(), &AskedBy { by: "me".to_owned() }).await.expect("retried");
    assert_eq!((start(&mut agent).await.0, retry.retry_of), (retry.id, Some(id)));
}

#[tokio::test]
async fn a_drained_agent_gets_nothing_until_it_is_resumed() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.worker("a").await;
    let by = AskedBy { by: "me".to_owned() };
    assert!(world.handle.drain_agent(&name("a"), &by).await.expect("drained").drained);
    let job = world.handle.submit_job(request(&["true"])).await.expect("submitted");
    let waiting = world.handle.job(&job.id.to_string()).expect("known").waiting.expect("it waits");
    assert!(waiting.contains("take no new jobs"), "{waiting}");
    assert!(!world.handle.resume_agent(&name("a"), &by).await.expect("resumed").drained);
    assert_eq!(start(&mut agent).await.0, job.id);
}

/// Ships `bytes` as the attempt's stdout.
async fn ship(site: &Site, job: JobId, ticket: &LogTicket, bytes: &[u8]) {
    let attempt =
        bytelog::Attempt::new(JobKey::new(job.to_string()).expect("fits"), 1, &AttemptKey::new(*ticket.key.expose()));
    let (cluster, partition) = (std::sync::Arc::new(site.cluster.clone()), ticket.partition as i32);
    let start = bytelog::Acked::default();
    let shipper = Shipper::start(cluster, "rk.logs", partition, attempt, start, bytelog::Config::default());
    let mut shipper = soon(shipper).await.expect("started");
    soon(shipper.ship(Stream::Stdout, 0, 1000, bytes)).await.expect("taken");
    let end = |bytes: &[u8]| End { total: bytes.len() as u64, sha256: stream(bytes).sha256 };
    soon(shipper.finish([end(bytes), end(b""), end(b"")])).await.expect("finished");
}

#[tokio::test]
async fn a_log_is_followed_to_the_jobs_end_and_read_again_later() {
    let site = Site::new();
    let mut world = site.controller().await.expect("started");
    let mut agent = world.worker("a").await;
    let api = world.serve(&site).await;
    let job = api.client.submit(&request(&["true"])).await.expect("submitted");
    let id = job.id.to_string();
    let follow = LogQuery { follow: true, ..LogQuery::default() };
    let mut log = soon(api.client.job_log(&id, &follow)).await.expect("opened");
    let (_, _, ticket) = start(&mut agent).await;
    agent.report(job.id, 1, started()).await;
    ship(&site, job.id, &ticket, b"hello\nworld\n").await;
    agent.report(job.id, 1, Report::Logged(LogPlace { partition: ticket.partition, first: 0, last: 0 })).await;
    agent.report(job.id, 1, exited(0, b"hello\nworld\n")).await;
    let read = async |log: &mut crate::api::client::LogReceiver| {
        let mut items = Vec::new();
        while let Some(item) = soon(log.next()).await.expect("an item") {
            items.push(item);
        }
        items
    };
    let items = read(&mut log).await;
    assert_eq!(items[0], LogItem::Attempt(1));
    let bytes = Bytes::from_static(b"hello\nworld\n");
    let stdout = LogStream::Stdout;
    assert_eq!(items[1], LogItem::Chunk { stream: stdout, offset: 0, time_ms: 1000, bytes: bytes.clone() });
    assert!(items.contains(&LogItem::End { stream: stdout, total: 12, verdict: Digest::Right }), "{items:?}");
    let Some(LogItem::Done(done)) = items.last() else { panic!("{items:?}") };
    assert_eq!(serde_json::from_str::<JobInfo>(done).expect("a job").exit_code, Some(0));

    let from = LogQuery { from_stdout: 6, ..LogQuery::default() };
    let items = read(&mut soon(api.client.job_log(&id, &from)).await.expect("opened")).await;
    assert_eq!(items[1], LogItem::Chunk { stream: stdout, offset: 6, time_ms: 1000, bytes: bytes.slice(6..) });
}
