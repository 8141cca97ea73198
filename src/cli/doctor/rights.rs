//! Writing and reading tried on each topic, and what those answers tell besides: quotas, the broker's clock, and whether
//! a record comes back.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::{
    Case, STEP, judge,
    report::{Finding, Hop, Verdict},
    role::{self, Role},
    topics::Looked,
    way::{Cluster, timed},
};
use crate::{
    clock,
    kafka::{
        At, Error,
        config::Address,
        examine::{Appended, Examiner, Visit},
    },
    secret,
};

/// The partition on which it is tried: rights are those of the topic.
const PARTITION: i32 = 0;

/// What trying one topic told.
#[derive(Default)]
struct Tried {
    hops: Vec<Hop>,
    throttled: Duration,
    stamp: Option<Stamp>,
}

/// The broker's stamp on a record, and our clock around it, in milliseconds since 1970.
#[derive(Clone, Copy)]
struct Stamp {
    before: i64,
    stamped: i64,
    after: i64,
}

/// Tries all topics at the same time, each on a connection of its own: a broker that holds us back does so for each.
pub async fn try_all(case: &Case, examiner: &Examiner, topics: &[Looked], cluster: &Cluster) -> Vec<Hop> {
    let tried = join_all(topics.iter().map(|topic| try_topic(case, examiner, topic, cluster))).await;
    let (mut throttled, mut stamps, mut hops) = (cluster.visit.throttled(), Vec::new(), Vec::new());
    for one in tried {
        throttled = throttled.max(one.throttled);
        stamps.extend(one.stamp);
        hops.extend(one.hops);
    }
    let back = round_trip(case, examiner, topics, cluster).await;
    throttled = throttled.max(back.throttled);
    hops.push(Hop::known(
        "quota",
        examiner.config().client_id.clone(),
        judge::quota(throttled, &examiner.config().client_id),
    ));
    // The quicker the answer, the less it leaves open.
    let best = stamps.into_iter().min_by_key(|stamp| stamp.after - stamp.before);
    hops.push(match best {
        Some(Stamp { before, stamped, after }) => Hop::known("clock", "", judge::clock(before, stamped, after)),
        None => Hop::skipped("clock", "", "no record was written that the broker stamped"),
    });
    hops.extend(back.hops);
    hops
}

async fn try_topic(case: &Case, examiner: &Examiner, topic: &Looked, cluster: &Cluster) -> Tried {
    let name = topic.wanted.name.clone();
    let mut tried = Tried::default();
    let tries = [("write", topic.need.write), ("read", topic.need.read)];
    let tries: Vec<&'static str> = tries.into_iter().filter(|(_, needed)| *needed).map(|(hop, _)| hop).collect();
    if topic.missing {
        tried.hops = tries.iter().map(|hop| Hop::skipped(hop, name.clone(), "the topic is missing")).collect();
        return tried;
    }
    let leader = leader(topic, cluster);
    for hop in tries {
        // A connection that a broker holds back is of no use for the next question.
        let (took, visit) = timed(timeout(STEP, examiner.visit(&leader))).await;
        let visit = match visit {
            Ok(Ok(visit)) => visit,
            Ok(Err(_)) | Err(_) => {
                let why = format!("its leader {leader} cannot be reached");
                tried.hops.push(Hop { took: Some(took), ..Hop::skipped(hop, name.clone(), why) });
                continue;
            }
        };
        let finding = match hop {
            "write" => write(case, &visit, &name, &mut tried).await,
            _ => read(&visit, &name).await,
        };
        tried.hops.push(Hop::new(hop, name.clone(), finding.0, finding.1));
        tried.throttled = tried.throttled.max(visit.throttled());
    }
    tried
}

/// Whom to ask: the leader, or anybody where we may not know who that is. Who lacks the right is told so by everybody.
fn leader(topic: &Looked, cluster: &Cluster) -> Address {
    let partition = topic.view.as_ref().and_then(|view| view.partitions.first());
    let known = partition.and_then(|partition| partition.leader).and_then(|id| cluster.view.brokers.get(&id));
    known.unwrap_or_else(|| cluster.visit.broker()).clone()
}

async fn write(case: &Case, visit: &Visit, name: &str, tried: &mut Tried) -> (Duration, Finding) {
    let prefix = &case.link.prefix;
    if name == prefix.journal() && !takes_a_record(visit, name).await {
        return (Duration::ZERO, Finding::skipped("not tried: no record may be the first of a journal that was cut"));
    }
    let (took, appended, stamp) = append(visit, name, role::harmless(prefix, name, nonce())).await;
    tried.stamp = stamp;
    match appended {
        Ok(appended) => (took, Finding::ok(format!("offset {}", appended.offset))),
        Err(e) => (took, judge::error(&e)),
    }
}

/// Appends a record and keeps the times around it.
async fn append(
    visit: &Visit,
    name: &str,
    record: crate::kafka::Record,
) -> (Duration, Result<Appended, Error>, Option<Stamp>) {
    let before = ms();
    let (took, appended) = timed(visit.produce(name, PARTITION, record)).await;
    let after = ms();
    let stamped = appended.as_ref().ok().and_then(|appended| appended.time);
    (took, appended, stamped.map(|stamped| Stamp { before, stamped, after }))
}

/// Whether a foreign record in the journal does no harm: it is passed over, unless it is the first of a log that was cut.
async fn takes_a_record(visit: &Visit, name: &str) -> bool {
    match (visit.offset(name, PARTITION, At::Earliest).await, visit.offset(name, PARTITION, At::Latest).await) {
        (Ok(earliest), Ok(latest)) => earliest == 0 || latest > earliest,
        // Nothing will be written where not even this is allowed; writing says which right is missing.
        (Err(Error::Authorization { .. }), _) => true,
        _ => false,
    }
}

async fn read(visit: &Visit, name: &str) -> (Duration, Finding) {
    let end = visit.offset(name, PARTITION, At::Latest).await.unwrap_or(0);
    let (took, fetched) = timed(visit.fetch(name, PARTITION, end, Duration::ZERO)).await;
    match fetched {
        // Retention may have moved on meanwhile; that we are told so takes the right to read.
        Ok(_) | Err(Error::OffsetOutOfRange { .. }) => (took, Finding::ok(format!("up to offset {end}"))),
        Err(e) => (took, judge::error(&e)),
    }
}

/// A record written and read again.
async fn round_trip(case: &Case, examiner: &Examiner, topics: &[Looked], cluster: &Cluster) -> Tried {
    const HOP: &str = "roundtrip";
    let name = case.link.prefix.up_control();
    let skip = |why: &str| Tried { hops: vec![Hop::skipped(HOP, name.clone(), why)], ..Tried::default() };
    let Some(topic) = topics.iter().find(|topic| topic.wanted.name == name) else { return skip("no such topic") };
    if case.role == Role::Agent {
        return skip("an agent may not read what it writes; the controller's answer below goes both ways");
    }
    if topic.missing {
        return skip("the topic is missing");
    }
    let Ok(Ok(visit)) = timeout(STEP, examiner.visit(&leader(topic, cluster))).await else {
        return skip("the partition's leader cannot be reached");
    };
    let nonce = nonce();
    let record = role::harmless(&case.link.prefix, &name, nonce);
    let start = Instant::now();
    let appended = match append(&visit, &name, record.clone()).await.1 {
        Ok(appended) => appended,
        Err(e) => return skip(&format!("nothing can be written: {e}")),
    };
    let mut throttled = visit.throttled();
    // A connection that is held back would make the way look broken.
    let visit = match throttled.is_zero() {
        true => visit,
        false => match timeout(STEP, examiner.visit(&leader(topic, cluster))).await {
            Ok(Ok(visit)) => visit,
            _ => return skip("the partition's leader cannot be reached"),
        },
    };
    let finding = match timeout(STEP, find(&visit, &name, appended.offset, &record)).await {
        Ok(Ok(())) => Finding::ok("a record came back"),
        Ok(Err(e)) => judge::error(&e),
        Err(_) => Finding::fail(
            judge::BROKEN,
            format!("the record at offset {} did not come back within {STEP:?}", appended.offset),
            "who runs Kafka",
            "see whether the replicas are in sync, and the broker's log",
        ),
    };
    throttled = throttled.max(visit.throttled());
    let finding = match finding.verdict {
        Verdict::Fail if !throttled.is_zero() => Finding::skipped("a quota holds us back"),
        _ => finding,
    };
    Tried { hops: vec![Hop::new(HOP, name, start.elapsed(), finding)], throttled, stamp: None }
}

async fn find(visit: &Visit, name: &str, from: i64, record: &crate::kafka::Record) -> Result<(), Error> {
    let mut next = from;
    loop {
        let fetched = visit.fetch(name, PARTITION, next, Duration::from_secs(1)).await?;
        if fetched.records.iter().any(|(_, found)| found == record) {
            return Ok(());
        }
        next = fetched.next_offset;
    }
}

fn nonce() -> u64 {
    u64::from_le_bytes(secret::random())
}

fn ms() -> i64 {
    i64::try_from(clock::unix_ms()).unwrap_or(i64::MAX)
}
