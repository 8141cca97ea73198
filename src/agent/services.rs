//! Serves streams to services.

use std::sync::Arc;

use super::{
    executor::{Phase, Shared},
    stream::{RecvHalf, SendHalf},
};
use crate::{
    protocol::{CANCELLED, service::Start},
    service::{self, Outcome, Refusal},
};

/// Serves one stream to its outcome, or until its opener goes away or the agent ends what runs.
pub(super) async fn serve(shared: &Arc<Shared>, start: Start, send: impl SendHalf, recv: impl RecvHalf) {
    let (channel, serving) = service::accepted(recv, send, &shared.budget);
    let mut phase = shared.phase.subscribe();
    let work = async {
        if *shared.phase.borrow() != Phase::Open {
            return Outcome::Refused(Refusal::Busy, "the agent takes no new work: it drains".to_owned());
        }
        let Ok(_place) = shared.services_room.try_acquire() else {
            let text = format!("{} services are being served already, which is this agent's limit", shared.max_execs());
            return Outcome::Refused(Refusal::Busy, text);
        };
        tracing::debug!(service = start.service, caller = start.caller, "a service is asked for");
        tokio::select! {
            outcome = shared.services.serve(start, channel) => outcome,
            _ = phase.wait_for(|phase| *phase == Phase::Cancelling) => {
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
