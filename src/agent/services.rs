//! Serves streams to services.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    executor::{Phase, Shared},
    stream::{RecvHalf, SendHalf},
};
use crate::{
    id::AgentName,
    protocol::{CANCELLED, service::Start},
    service::{self, Context, Outcome, Refusal, Services, json::Methods},
};

/// The service that each agent has about itself.
const OWN: &str = "agent";

/// `services`, and the one about the agent itself unless there is one of its name.
pub(super) fn with_own(services: Services, name: &AgentName, labels: &BTreeMap<String, String>) -> Services {
    if services.names().any(|service| service == OWN) {
        return services;
    }
    let info = serde_json::json!({ "name": name, "labels": labels, "version": env!("CARGO_PKG_VERSION") });
    let own = Methods::new("this agent itself")
        .method("info", "its name, labels and version", move |_, _: serde_json::Value| {
            std::future::ready(Ok(info.clone()))
        })
        .method("echo", "its parameters, as they are", |_: Context, value: serde_json::Value| {
            std::future::ready(Ok(value))
        });
    services.with(OWN, own)
}

/// Serves one stream to its outcome, or until its opener goes away or the agent ends what runs.
pub(super) async fn serve(shared: &Arc<Shared>, start: Start, send: impl SendHalf, recv: impl RecvHalf) {
    let (channel, serving) = service::accepted(recv, send, &shared.budget);
    let mut phase = shared.phase.subscribe();
    let work = async {
        if !shared.is_open() {
            return Outcome::Refused(Refusal::Busy, "the agent takes no new work: it drains".to_owned());
        }
        let Ok(_place) = shared.services_room.try_acquire() else {
            let text = format!("{} services are being served already, which is this agent's limit", shared.max_execs());
            return Outcome::Refused(Refusal::Busy, text);
        };
        tracing::debug!(service = start.service, caller = start.caller, "a service is asked for");
        tokio::select! {
            outcome = shared.services.serve(start, channel) => outcome,
            _ = phase.wait_for(|phase| *phase >= Phase::Cutting) => {
                Outcome::Failed("the agent was stopped, and ended it".to_owned())
            }
        }
    };
    let (told, mut send) = serving.finish(work).await;
    match told {
        Some(_) => send.delivered().await,
        None => send.reset(CANCELLED),
    }
}
