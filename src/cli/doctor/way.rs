//! From each bootstrap address into the cluster, and from there to each broker that it names.

use std::{future::Future, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    judge, now,
    report::{Finding, Hop, Verdict},
};
use crate::{
    certs::{self, Certificate},
    kafka::{
        Error, Hop as Step,
        config::Address,
        examine::{ClusterView, Examiner, Shown, Visit},
    },
};

/// A cluster that was reached.
pub struct Cluster {
    /// The connection over which it was asked.
    pub visit: Visit,
    /// Its brokers.
    pub view: ClusterView,
}

/// Goes the way from each bootstrap address, all at the same time.
pub async fn to_cluster(examiner: &Examiner) -> (Vec<Hop>, Option<Cluster>) {
    let walked = join_all(examiner.bootstrap().iter().map(|address| walk(examiner, address))).await;
    let (mut ways, visits): (Vec<Vec<Hop>>, Vec<Option<Visit>>) = walked.into_iter().unzip();
    judge::settle(&mut ways);
    let mut hops = ways.concat();
    for visit in visits.into_iter().flatten() {
        let (took, view) = timed(visit.cluster(&[])).await;
        let target = visit.broker().to_string();
        match view {
            Ok(view) if view.brokers.is_empty() => {
                let next = "set advertised.listeners to an address that clients reach";
                let finding = Finding::fail(judge::BROKEN, "it names no broker at all", "who runs Kafka", next);
                hops.push(Hop::new("cluster", target, took, finding));
            }
            Ok(view) => {
                let brokers = view.brokers.iter().map(|(id, address)| format!("{id} at {address}"));
                let detail = format!("brokers: {}", brokers.collect::<Vec<_>>().join(", "));
                hops.push(Hop::new("cluster", target, took, Finding::ok(detail)));
                return (hops, Some(Cluster { visit, view }));
            }
            Err(e) => hops.push(Hop::new("cluster", target, took, judge::error(&e))),
        }
    }
    (hops, None)
}

/// One way, as far as it goes. What follows a failure is skipped.
async fn walk(examiner: &Examiner, address: &Address) -> (Vec<Hop>, Option<Visit>) {
    let mut way = Way { target: address.to_string(), hops: Vec::new(), with_tls: examiner.config().tls.is_some() };
    let visit = way.go(examiner, address).await;
    if visit.is_none() {
        let done = way.hops.len();
        for name in way.names().into_iter().skip(done) {
            way.hops.push(Hop::skipped(name, way.target.clone(), "an earlier hop failed"));
        }
    }
    (way.hops, visit)
}

struct Way {
    target: String,
    hops: Vec<Hop>,
    with_tls: bool,
}

impl Way {
    fn names(&self) -> Vec<&'static str> {
        let tls = self.with_tls.then_some("tls");
        ["dns", "tcp"].into_iter().chain(tls).chain(["protocol", "sasl"]).collect()
    }

    async fn go(&mut self, examiner: &Examiner, address: &Address) -> Option<Visit> {
        let (took, resolved) = timed(examiner.resolve(address)).await;
        let said = |found: &Vec<std::net::SocketAddr>| {
            let ips = found.iter().map(|address| address.ip().to_string()).filter(|ip| *ip != address.host);
            ips.collect::<Vec<_>>().join(", ")
        };
        let addresses = self.note("dns", took, resolved, said)?;
        let (took, connected) = timed(examiner.connect(address, &addresses)).await;
        let stream = self.note("tcp", took, connected, |_| String::new())?;
        let (took, (secured, shown)) = timed(examiner.secure(address, stream)).await;
        let line = if self.with_tls { self.note_tls(took, secured, &shown)? } else { secured.ok()? };
        let (took, greeted) = timed(examiner.greet(line)).await;
        // A broker refuses our certificate only now: it was the TLS handshake that failed.
        if let (true, Err(e @ Error::Unreachable { hop: Step::Tls, .. })) = (self.with_tls, &greeted) {
            self.hops.last_mut()?.finding = judge::error(e);
            return None;
        }
        let greeted =
            self.note("protocol", took, greeted, |greeted| format!("Kafka, {} requests", greeted.requests()))?;
        let (took, visit) = timed(examiner.login(greeted)).await;
        let how = examiner.config().sasl.as_ref().map_or("no login is wanted", |sasl| sasl.mechanism().name());
        self.note("sasl", took, visit, |_| how.to_owned())
    }

    fn note<T>(
        &mut self,
        name: &'static str,
        took: Duration,
        result: Result<T, Error>,
        say: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let finding = match &result {
            Ok(value) => Finding::ok(say(value)),
            Err(e) => judge::error(e),
        };
        self.hops.push(Hop::new(name, self.target.clone(), took, finding));
        result.ok()
    }

    fn note_tls<T>(&mut self, took: Duration, result: Result<T, Error>, shown: &Shown) -> Option<T> {
        let leaf = leaf(shown);
        let finding = match &result {
            Ok(_) => judge::certificate(leaf.as_ref(), now()),
            Err(e) => judge::refused_certificate(judge::error(e), leaf.as_ref(), now()),
        };
        self.hops.push(Hop::new("tls", self.target.clone(), took, finding));
        result.ok()
    }
}

fn leaf(shown: &Shown) -> Option<Certificate> {
    shown.chain.first().and_then(|der| certs::read_der(der).ok())
}

/// Dials every broker at the address that it tells clients, all at the same time.
pub async fn brokers(examiner: &Examiner, cluster: &Cluster) -> Vec<Hop> {
    let dial = |(id, address): (&i32, &Address)| {
        let (id, address) = (*id, address.clone());
        async move {
            let limit = super::STEP * 2;
            let (took, dialled) = timed(tokio::time::timeout(limit, examiner.visit(&address))).await;
            let finding = match dialled {
                Ok(Ok(_)) => Finding::ok(format!("broker {id}, dialled and logged in")),
                Ok(Err(e)) => advertised(id, &address, &e),
                Err(_) => {
                    let detail = format!("not done within {limit:?}");
                    let broker = address.to_string();
                    advertised(id, &address, &Error::Unreachable { hop: Step::Request, broker, detail })
                }
            };
            Hop::new("broker", address.to_string(), took, finding)
        }
    };
    join_all(cluster.view.brokers.iter().map(dial)).await
}

/// A broker tells clients an address at which it cannot be reached from here.
fn advertised(id: i32, address: &Address, e: &Error) -> Finding {
    let why = judge::error(e);
    let said = match e {
        Error::Unreachable { hop, .. } => format!("{hop}: {}", why.detail),
        _ => why.detail,
    };
    let detail = format!("broker {id} tells clients to connect to {address}, and that fails: {said}");
    let fault = format!("advertised.listeners of broker {id}, or the network between here and there");
    let next = format!(
        "set advertised.listeners of broker {id} to an address that this machine reaches{}",
        why.next.map(|next| format!("; {next}")).unwrap_or_default()
    );
    Finding { verdict: Verdict::Fail, ..Finding::fail(why.code, detail, fault, next) }
}

/// Runs a future and tells how long it took.
pub async fn timed<T>(future: impl Future<Output = T>) -> (Duration, T) {
    let start = Instant::now();
    let value = future.await;
    (start.elapsed(), value)
}
