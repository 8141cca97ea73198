//! `rk doctor`: goes the way to the cluster and the controller hop by hop and says which one fails, whose fault that is
//! and what to do next.
//!
//! The controller's view by default, an agent's with `--agent`. What is found is judged in `judge`; here and beside is
//! only doing. Every record that is written is one that all readers pass over; see [`role`].
//!
//! Promises: a hop takes at most 10 s and the whole at most 60; nothing is tried twice, and nothing is changed but that
//! a few records of some bytes lie in topics until their retention takes them.

mod controller;
mod judge;
mod report;
mod rights;
mod role;
mod topics;
mod way;

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, timeout_at};

use super::{
    Failure, failure,
    flags::DoctorFlags,
    log,
    output::{self, Format},
};
use crate::{
    certs, clock,
    config::{
        Environment, Settings,
        keys::{self, Role as Section},
    },
    id::AgentName,
    kafka::{
        config::{Pem, Roots, client_id},
        examine::Examiner,
    },
    layout::Layout,
    link,
};
use controller::Pass;
use report::{Finding, Hop};
use role::Role;

/// How long one step may take.
const STEP: Duration = Duration::from_secs(5);
/// How long all of it may take.
const ALL: Duration = Duration::from_secs(60);

/// Find the broken hop between here, Kafka and the controller.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Look as an agent does: with its credential and its rights
    #[arg(long)]
    agent: bool,
    #[command(flatten)]
    flags: DoctorFlags,
}

/// Runs the command. The exit code is that of the first hop that failed.
pub async fn run(args: DoctorArgs, environment: &Environment) -> Result<u8, Failure> {
    let settings = args.flags.settings(environment)?;
    log::start(&settings, log::COMMAND)?;
    let format = settings.parse::<Format>(&keys::OUTPUT)?.unwrap_or_default();
    let role = if args.agent { Role::Agent } else { Role::Controller };
    let case = Case::open(&settings, role)?;
    let mut chart = Chart { hops: Vec::new(), printed: 0, format };
    if timeout_at(Instant::now() + ALL, examine(&case, &mut chart)).await.is_err() {
        let next = "mend what failed or took long above, and run it again";
        let detail = format!("not all was done within {} s", ALL.as_secs());
        let finding = Finding::fail(failure::UNREACHABLE, detail, "whoever answers slowly", next);
        chart.hops.push(Hop::new("time", "", ALL, finding));
    }
    chart.show()?;
    match format {
        Format::Table => output::say(&format!("rk: {}", report::summary(&chart.hops))),
        Format::Json => output::print_json(&chart.hops)?,
        Format::Jsonl | Format::Name => (),
    }
    Ok(report::exit_code(&chart.hops))
}

async fn examine(case: &Case, chart: &mut Chart) -> Result<(), Failure> {
    chart.add(vec![own_settings(case)])?;
    let Ok(examiner) = Examiner::new(case.kafka.clone(), STEP) else { return Ok(()) };
    let (hops, cluster) = way::to_cluster(&examiner).await;
    chart.add(hops)?;
    match cluster {
        Some(cluster) => {
            let brokers = way::brokers(&examiner, &cluster).await;
            chart.add(brokers)?;
            let found = topics::look(case, &cluster).await;
            chart.add(found.hops)?;
            let tried = rights::try_all(case, &examiner, &found.topics, &cluster).await;
            chart.add(tried)?;
        }
        None => {
            let why = "Kafka cannot be reached";
            let hops = ["cluster", "topic", "write", "read", "quota", "clock", "roundtrip"];
            chart.add(hops.map(|hop| Hop::skipped(hop, "", why)).to_vec())?;
        }
    }
    let is_reachable = !chart.hops.iter().any(|hop| hop.hop == "cluster" && hop.finding.verdict != report::Verdict::Ok);
    match case.role {
        Role::Controller => controller::ask(case, chart).await,
        Role::Agent => chart.add(controller::enter(case, is_reachable).await),
    }
}

/// What the doctor was given.
struct Case {
    role: Role,
    /// As clients of the API have them.
    api: Settings,
    kafka: crate::kafka::Config,
    link: link::Config,
    /// How long bundles are to be kept.
    blobs_retention: Option<Duration>,
    artifacts_retention: Option<Duration>,
    /// The agent's credential, or why it is none.
    pass: Option<Pass>,
}

impl Case {
    /// The agent whose view it is, if it has a topic of its own.
    fn agent_with_a_topic(&self) -> Option<&AgentName> {
        let own = self.role == Role::Agent && self.link.layout == Layout::PerAgent;
        self.pass.as_ref().filter(|_| own)?.as_ref().ok().map(|credential| &credential.name)
    }

    /// Reads the settings; what cannot be read at all is no hop but a wrong command line.
    fn open(settings: &Settings, role: Role) -> Result<Self, Failure> {
        let api = settings.seen_as(Section::Client);
        let mut settings = settings.seen_as(match role {
            Role::Controller => Section::Controller,
            Role::Agent => Section::Agent,
        });
        // First, since what stands under a credential counts for its agent.
        let pass = match role {
            Role::Agent => controller::pass(&mut settings),
            Role::Controller => controller::pass(&mut settings.seen_as(Section::Controller)),
        };
        let link = settings.link()?;
        if role == Role::Agent && pass.is_none() {
            let what = "an agent's view needs its credential, which `rk agents add NAME` prints";
            return Err(settings.missing(&keys::CREDENTIAL, what).into());
        }
        let client_id = match (role, &pass) {
            (Role::Agent, Some(Ok(credential))) => client_id("agent", credential.name.as_str()),
            (Role::Agent, _) => client_id("agent", "doctor"),
            (Role::Controller, _) => client_id("controller", &link.prefix.to_string()),
        };
        let kafka = settings.kafka(client_id)?;
        let blobs_retention = settings.duration(&keys::BLOBS_RETENTION)?;
        let artifacts_retention = settings.duration(&keys::ARTIFACTS_RETENTION)?;
        Ok(Self { role, api, kafka, link, blobs_retention, artifacts_retention, pass })
    }
}

/// The hops so far. A table is printed as it grows.
struct Chart {
    hops: Vec<Hop>,
    printed: usize,
    format: Format,
}

impl Chart {
    fn add(&mut self, hops: Vec<Hop>) -> Result<(), Failure> {
        self.hops.extend(hops);
        self.show()
    }

    fn show(&mut self) -> Result<(), Failure> {
        for hop in &self.hops[self.printed..] {
            match self.format {
                Format::Json => (),
                Format::Table => output::print(&hop.lines())?,
                Format::Jsonl => output::print_jsonl(hop)?,
                Format::Name if hop.failed() => output::print(&format!("{} {}\n", hop.hop, hop.target))?,
                Format::Name => (),
            }
        }
        self.printed = self.hops.len();
        Ok(())
    }
}

/// The first hop: whether the settings can be used at all, and our own certificates.
fn own_settings(case: &Case) -> Hop {
    let kafka = &case.kafka;
    let finding = match Examiner::new(kafka.clone(), STEP) {
        Err(e) => judge::error(&e),
        Ok(_) => own_files(kafka).into_iter().next().unwrap_or_else(|| {
            let tls = if kafka.tls.is_some() { "TLS" } else { "no TLS" };
            let login = kafka.sasl.as_ref().map_or("no login", |sasl| sasl.mechanism().name());
            Finding::ok(format!("{tls}, {login}, topics {}.*", case.link.prefix))
        }),
    };
    Hop::known("settings", kafka.principal(), finding)
}

/// What is to be said of the certificates that the settings name; failures first.
fn own_files(kafka: &crate::kafka::Config) -> Vec<Finding> {
    let Some(tls) = &kafka.tls else { return Vec::new() };
    let authority = match &tls.roots {
        Roots::Pem(pem) => Some(("the CA's certificate", pem)),
        Roots::System => None,
    };
    let client = tls.client.as_ref().map(|client| ("the client certificate", &client.chain));
    let judge = |(what, pem): (&str, &Pem)| {
        let (file, text) = match pem {
            Pem::File(path) => (path.display().to_string(), std::fs::read(path).ok()?),
            Pem::Text(text) => ("the settings".to_owned(), text.expose().as_bytes().to_vec()),
        };
        let validity = certs::expiry_of(&text).ok()?;
        judge::own_certificate(&format!("{what} in {file}"), validity.state(now()))
    };
    let mut findings: Vec<Finding> = [authority, client].into_iter().flatten().filter_map(judge).collect();
    findings.sort_by_key(|finding| finding.verdict != report::Verdict::Fail);
    findings
}

/// Seconds since 1970.
fn now() -> i64 {
    i64::try_from(Duration::from_millis(clock::unix_ms()).as_secs()).unwrap_or(i64::MAX)
}
