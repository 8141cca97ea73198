//! From a first packet to an authenticated session, at the controller.

use std::{sync::Arc, time::Duration};

use quinn::{Connection, Endpoint, Incoming};
use serde::Serialize;

use super::{
    EnrolRefusal, EnrolRequest, Lane, SecretHash, TokenId,
    caller::Caller,
    enrol::{Answer, Ask},
    gate::Dropped,
    hello::{Hello, Refusal, ToAgent, close},
    listener::Shared,
    packet::Incarnation,
    route::Route,
    session::Session,
};
use crate::{frame, id::AgentName};

/// How long a refused agent may take to read why.
const REFUSAL: Duration = Duration::from_secs(3);

/// Takes connections of one endpoint in, for ever.
pub async fn serve(shared: Arc<Shared>, endpoint: Endpoint, route: Arc<Route>) {
    let Route::Down(down) = &*route else { return };
    while let Some(incoming) = endpoint.accept().await {
        let Some((caller, incarnation)) = down.peer(incoming.remote_address()) else {
            // Forgotten since, for later runs of the same agent.
            Dropped::count(&shared.gate.dropped.half_open);
            incoming.ignore();
            continue;
        };
        if !shared.begin(&caller, down.lane, incarnation) {
            // Never `refuse`, which answers: the agent's next try finds a free place.
            incoming.ignore();
            continue;
        }
        let (shared, lane) = (shared.clone(), down.lane);
        let task = {
            let shared = shared.clone();
            async move {
                let limit = shared.config.connect_timeout;
                let entered = tokio::time::timeout(limit, async {
                    match &caller {
                        Caller::Agent(name) => enter(&shared, incoming, name, incarnation, lane).await,
                        Caller::Token(id) => enrol(&shared, incoming, *id).await.map(|()| None),
                    }
                });
                let entered = entered.await;
                shared.end(&caller, lane, incarnation);
                let admitted = match entered {
                    // Outside the limit: an agent that was welcomed counts on it.
                    Ok(Ok(Some(session))) => Ok(admit(&shared, session).await),
                    Ok(Ok(None)) => Ok(Ok(())),
                    Ok(Err(reason)) => Ok(Err(reason)),
                    Err(late) => Err(late),
                };
                match admitted {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => tracing::info!(agent = %caller, ?lane, reason, "connection was not let in"),
                    Err(_) => tracing::debug!(agent = %caller, ?lane, "handshake took too long"),
                }
            }
        };
        shared.spawn(task);
    }
}

/// Lets a connection in; of the control lane it is a session.
async fn enter(
    shared: &Arc<Shared>,
    incoming: Incoming,
    name: &AgentName,
    incarnation: Incarnation,
    lane: Lane,
) -> Result<Option<Session>, String> {
    let connection = incoming.await.map_err(|e| e.to_string())?;
    let (mut send, mut recv) = connection.accept_bi().await.map_err(|e| e.to_string())?;
    let words = frame::read_bytes(&mut recv, frame::MAX_MESSAGE).await.map_err(|e| e.to_string())?;
    let hello = Hello::read(&words).map_err(|e| e.to_string())?;
    let secret = match judge(shared, &hello, name, lane) {
        Ok(secret) => secret,
        Err(refusal) => {
            last_words(&connection, send, &ToAgent::Refused(refusal)).await;
            return Err(format!("refused: {refusal:?}"));
        }
    };
    if !shared.gate.authenticated(name, incarnation) {
        connection.close(close::SUPERSEDED, b"a newer process runs under this name");
        return Err("superseded".to_owned());
    }
    let welcome = ToAgent::Welcome { epoch: shared.epoch, version: env!("CARGO_PKG_VERSION").to_owned() };
    frame::write(&mut send, &welcome).await.map_err(|e| e.to_string())?;
    match lane {
        Lane::Control => Ok(Some(Session::new(shared, name.clone(), incarnation, hello, secret, connection, send))),
        Lane::Bulk => attach(shared, name, incarnation, hello.attempt, connection, send).map(|()| None),
    }
}

/// Hands a session to whoever takes them.
async fn admit(shared: &Arc<Shared>, session: Session) -> Result<(), String> {
    if !shared.enter(&session) {
        return Err("overtaken by a later connection of the same process".to_owned());
    }
    shared.spawn(forget_when_closed(shared.clone(), session.clone()));
    shared.sessions.send(session).await.map_err(|_| "the controller stopped".to_owned())
}

/// Says why not, and gives the peer time to read it.
async fn last_words(connection: &Connection, mut send: quinn::SendStream, words: &impl Serialize) {
    let said = async {
        frame::write(&mut send, words).await.ok();
        send.finish().ok();
        connection.closed().await;
    };
    let _ = tokio::time::timeout(REFUSAL, said).await;
    connection.close(close::REFUSED, b"refused");
}

/// Answers who holds a join token.
async fn enrol(shared: &Arc<Shared>, incoming: Incoming, id: TokenId) -> Result<(), String> {
    let connection = incoming.await.map_err(|e| e.to_string())?;
    let (send, mut recv) = connection.accept_bi().await.map_err(|e| e.to_string())?;
    let Ask::Credential { token, secret, enrolment, name } = frame::read(&mut recv).await.map_err(|e| e.to_string())?;
    let roster = shared.gate.roster();
    // The routing hint of the record and the token that authenticates must be the same.
    let known = token == id && roster.token_hash(id).is_some_and(|hash| hash == SecretHash::of(&secret));
    let answer = match known {
        true => roster.enrol(EnrolRequest { token, enrolment, name }).await,
        false => Err(EnrolRefusal::Unknown),
    };
    match answer {
        Ok(credential) => {
            let (secret, controller) = (*credential.secret.expose(), credential.controller);
            last_words(&connection, send, &Answer::Credential { secret, controller }).await;
            Ok(())
        }
        Err(refusal) => {
            let reason = format!("refused: {refusal:?}");
            last_words(&connection, send, &Answer::Refused(refusal)).await;
            Err(reason)
        }
    }
}

/// Whether an agent that showed this may come in, and the hash of what it showed.
fn judge(shared: &Shared, hello: &Hello, name: &AgentName, lane: Lane) -> Result<SecretHash, Refusal> {
    let shown = SecretHash::of(&hello.secret);
    let known = shared.gate.roster().secrets(&hello.name).and_then(|secrets| secrets.find(|hash| *hash == shown));
    // The routing hint of the record and the name that authenticates must be the same.
    if hello.name != *name || hello.lane != lane || known.is_none() {
        return Err(Refusal::Unknown);
    }
    if hello.epoch > shared.epoch {
        return Err(Refusal::Stale);
    }
    if shared.gate.roster().is_removed(name) {
        return Err(Refusal::Removed);
    }
    if shared.gate.roster().is_revoked(name) {
        return Err(Refusal::Revoked);
    }
    Ok(shown)
}

fn attach(
    shared: &Arc<Shared>,
    name: &AgentName,
    incarnation: Incarnation,
    attempt: u32,
    connection: Connection,
    hello: quinn::SendStream,
) -> Result<(), String> {
    let Some(session) = shared.live(name, incarnation) else {
        connection.close(close::REFUSED, b"no session");
        return Err("a bulk lane without a session".to_owned());
    };
    session.attach_bulk(attempt, connection, hello);
    Ok(())
}

async fn forget_when_closed(shared: Arc<Shared>, session: Session) {
    session.closed().await;
    shared.leave(&session);
}
