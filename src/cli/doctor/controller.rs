//! The controller: over its API, as an admin sees it, and over Kafka, as an agent does; and the agent's credential.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    Case, Chart,
    report::{Finding, Hop},
    way::timed,
};
use crate::{
    api::{ClientError, Code, Status},
    cli::{Failure, client, failure},
    config::{Settings, keys},
    kafka::KafkaCluster,
    link::{self, Credential, Dialer, LinkError, Profile},
};

use super::judge;

/// How long the controller may take to answer.
const ANSWER: Duration = Duration::from_secs(8);
/// The same with opening and closing what it takes.
const VISIT: Duration = Duration::from_secs(10);

const ISSUER: &str = "who issued the credential, or who gave it to this machine";

/// An agent's credential, or why it is none.
pub type Pass = Result<Credential, Finding>;

/// The credential that the settings name; `None` if they name none.
pub fn pass(settings: &mut Settings) -> Option<Pass> {
    let next = "get a new one with `rk agents add NAME`, keep it with mode 0600, and name it with --credential";
    if let Err(e) = settings.take_pass() {
        let failure = Failure::from(e);
        return Some(Err(Finding::fail(failure.code, failure.message, ISSUER, next)));
    }
    let parsed = settings.credential_text()?.expose().parse::<Credential>();
    Some(parsed.map_err(|e| Finding::fail(failure::USAGE, e.to_string(), ISSUER, next)))
}

/// Asks the controller over its API, and holds the credential against it if there is one.
pub async fn ask(case: &Case, chart: &mut Chart) -> Result<(), Failure> {
    let client = client::connect(&case.api).map(|client| client.with_timeout(ANSWER));
    let address = case.api.parse::<String>(&keys::API)?.unwrap_or_else(|| crate::api::DEFAULT_ADDRESS.to_owned());
    let address = address.trim_start_matches("http://").trim_start_matches("https://").to_owned();
    let (took, status) = match &client {
        Ok(client) => timed(async { client.status().await.map_err(|e| refused(&e)) }).await,
        Err(e) => (Duration::ZERO, Err(no_client(e))),
    };
    let finding = match &status {
        Ok(status) => answered(case, status),
        Err(finding) => finding.clone(),
    };
    chart.add(vec![Hop::new("api", address, took, finding)])?;
    let Some(pass) = &case.pass else { return Ok(()) };
    let (took, finding) = match (pass, &client, &status) {
        (Err(finding), ..) => (Duration::ZERO, finding.clone()),
        (Ok(_), Err(_), _) | (Ok(_), _, Err(_)) => {
            return chart.add(vec![Hop::skipped("credential", "", "the controller does not answer")]);
        }
        (Ok(credential), _, Ok(status)) if credential.controller.to_string() != status.fingerprint => {
            (Duration::ZERO, another(&credential.controller.to_string(), &status.fingerprint))
        }
        (Ok(credential), Ok(client), Ok(_)) => {
            let (took, agent) = timed(client.agent(&credential.name)).await;
            let finding = match agent {
                Ok(_) => Finding::ok("of this controller, which knows the agent"),
                Err(ClientError::Api(e)) if e.code == Code::UnknownAgent => unknown(e.to_string()),
                Err(e) => refused(&e),
            };
            (took, finding)
        }
    };
    chart.add(vec![Hop::new("credential", name(pass), took, finding)])
}

/// Knocks at the controller over Kafka as the agent does. It is let in as a process older than any other of this name, so
/// that one that runs is not disturbed; it takes no work, and leaves at once.
pub async fn enter(case: &Case, is_reachable: bool) -> Vec<Hop> {
    let Some(pass) = &case.pass else { return Vec::new() };
    let skip = |hop, why: &str| Hop::skipped(hop, name(pass), why);
    let credential = match pass {
        Ok(credential) => credential.clone(),
        Err(finding) => {
            return vec![skip("controller", "there is no credential"), Hop::known("credential", "", finding.clone())];
        }
    };
    if !is_reachable {
        let why = "Kafka cannot be reached";
        return vec![skip("controller", why), skip("credential", why)];
    }
    let (took, knocked) = timed(timeout(VISIT, knock(case, credential))).await;
    let knocked = knocked.unwrap_or(Err(LinkError::NoAnswer(VISIT)));
    let controller = |finding| Hop::new("controller", case.link.prefix.to_string(), took, finding);
    let credential = |finding| Hop::known("credential", name(pass), finding);
    let both_ways = || controller(Finding::ok("its answer came over Kafka"));
    match knocked {
        Ok(epoch) => vec![both_ways(), credential(Finding::ok(format!("let in, epoch {epoch}")))],
        Err(LinkError::Superseded(_)) => {
            vec![both_ways(), credential(Finding::ok("it is known; a newer process of this agent runs, or ran"))]
        }
        Err(LinkError::AnotherController { expected, found }) => {
            vec![both_ways(), credential(another(&expected.to_string(), &found.to_string()))]
        }
        Err(e @ (LinkError::UnknownAgent(_) | LinkError::Removed(_))) => {
            vec![both_ways(), credential(unknown(e.to_string()))]
        }
        Err(e) => vec![controller(silent(&e)), skip("credential", "the controller does not answer")],
    }
}

async fn knock(case: &Case, credential: Credential) -> Result<u32, LinkError> {
    let cluster = KafkaCluster::new(case.kafka.clone())?;
    let config = link::Config { connect_timeout: ANSWER, ..case.link.clone() };
    let profile =
        Profile { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id(), ..Profile::default() };
    let dialer = Dialer::open(Arc::new(cluster), config, Arc::new(credential), profile, 0).await?;
    let session = dialer.connect().await;
    let epoch = session.as_ref().map(|session| {
        session.close("the doctor leaves");
        session.epoch()
    });
    let epoch = epoch.map_err(Clone::clone);
    drop(session);
    dialer.close().await;
    epoch
}

fn name(pass: &Pass) -> String {
    pass.as_ref().map(|credential| credential.name.to_string()).unwrap_or_default()
}

fn silent(e: &LinkError) -> Finding {
    match e {
        LinkError::Kafka(e) => judge::error(e),
        LinkError::Version(_) => Finding::fail(
            judge::BROKEN,
            e.to_string(),
            "the older one of the two programs",
            "bring both to the same version",
        ),
        _ => Finding::fail(
            failure::UNREACHABLE,
            format!("no answer over Kafka within {} s", ANSWER.as_secs()),
            "the controller is down, or has another --prefix, --partitions or cluster",
            "see whether `rk controller run` is up; there, `rk doctor` shows its side",
        ),
    }
}

fn another(expected: &str, found: &str) -> Finding {
    Finding::fail(
        failure::REFUSED,
        format!("the credential is of another controller: it pins {expected}, and this one has {found}"),
        ISSUER,
        "use a credential that this controller issued, or the brokers and the prefix of the other one",
    )
}

fn unknown(what: String) -> Finding {
    let next = "`rk agents add NAME` on the controller's side prints a new credential";
    Finding::fail(failure::REFUSED, what.split("; ").next().unwrap_or_default(), ISSUER, next)
}

/// There is no client to ask with: no token, or an address that cannot be.
fn no_client(e: &Failure) -> Finding {
    let next = "start `rk controller run` here, or name its address and token with --api and --api-token";
    Finding::fail(
        e.code,
        e.message.split(": start ").next().unwrap_or_default(),
        "the settings given here, or a controller that never ran",
        next,
    )
}

fn refused(e: &ClientError) -> Finding {
    let (fault, next) = match e {
        ClientError::Api(e) if e.code == Code::Unauthorized => {
            ("the token given here", "take it from api.token in the controller's data directory: --api-token file:PATH")
        }
        ClientError::Address(_) => ("the address given here", "write it like http://127.0.0.1:7480"),
        _ => (
            "the controller is down, or another address is meant",
            "start `rk controller run`, or name its address with --api",
        ),
    };
    Finding::fail(e.exit_code(), e.to_string().split("; ").next().unwrap_or_default(), fault, next)
}

fn answered(case: &Case, status: &Status) -> Finding {
    let fault = "the settings given here, or those of the controller";
    let here = (case.link.prefix.to_string(), case.link.partitions);
    if here != (status.prefix.clone(), status.partitions) {
        return Finding::fail(
            failure::USAGE,
            format!(
                "the controller serves {}.* with {} partitions, and what was looked at here is {}.* with {}",
                status.prefix, status.partitions, here.0, here.1
            ),
            fault,
            "give the same --prefix and --partitions everywhere",
        );
    }
    if !status.kafka.reachable {
        let detail = status.kafka.detail.clone().unwrap_or_else(|| "its own records do not come back".to_owned());
        let next = "run `rk doctor` on the controller's machine, with its settings";
        return Finding::fail(judge::BROKEN, format!("it cannot reach Kafka: {detail}"), "the controller's way", next);
    }
    if let Some(warning) = status.warnings.first() {
        return Finding::warn(warning.clone(), "the controller", "see `rk status`");
    }
    Finding::ok(format!("version {}, epoch {}, {} agents", status.version, status.epoch, status.agents.total()))
}
