//! `POST /v1/services`: a stream to an agent's service on an upgraded connection. Frames are passed on as they are.

use axum::{
    extract::{Request, State},
    response::Response,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    access::from,
    exec::{Client, FAREWELL, abandoned},
    upgrade::{PATIENCE, upgrade},
};
use crate::{
    api::{
        SERVICE_PROTOCOL,
        service::{MAX_OPEN, OPEN, OpenService},
    },
    controller::{Handle, access::Caller, audit::Entry, service::Line},
    protocol::service::{MAX_PAYLOAD, OUTCOME, Start},
    service::{Outcome, Refusal},
    tagged::{TaggedReader, TaggedWriter},
};

const _: () = assert!(MAX_OPEN <= MAX_PAYLOAD);

/// Answers 101, and serves the stream on what follows.
pub async fn open(State(handle): State<Handle>, caller: Caller, request: Request) -> Response {
    let client = Client { caller, from: from(&request) };
    upgrade(SERVICE_PROTOCOL, "services", request, async move |stream| serve(&handle, &client, stream).await)
}

async fn serve<S: AsyncRead + AsyncWrite>(handle: &Handle, client: &Client, stream: S) {
    let (read, write) = tokio::io::split(stream);
    let (mut reader, mut writer) = (TaggedReader::new(read, MAX_PAYLOAD), TaggedWriter::new(write));
    let served = async {
        let outcome = match request(&mut reader).await? {
            Ok(request) => match permitted(handle, client, request).await {
                Ok(line) => tokio::select! {
                    relayed = relay(&mut reader, &mut writer, line) => relayed?,
                    // A frame may have been begun: the client sees that the connection broke.
                    _ = handle.token_ended(&client.caller) => return None,
                },
                Err(outcome) => Some(outcome),
            },
            Err(why) => Some(Outcome::Refused(Refusal::Invalid, why)),
        };
        if let Some(outcome) = outcome {
            writer.write(OUTCOME, &postcard::to_stdvec(&outcome).ok()?).await.ok()?;
        }
        Some(())
    };
    let told = tokio::select! {
        told = served => told,
        // A client that does not read what it is told cannot keep the controller from stopping.
        () = abandoned(handle) => None,
    };
    if told.is_some() {
        // Closing with unread input would reset the connection, and the client might lose the end.
        let farewell = async {
            writer.shutdown().await.ok()?;
            while reader.next().await.ok()?.is_some() {}
            Some(())
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}

/// The first frame. `None` if the client is gone, an error for what is none.
async fn request<R: AsyncRead + Unpin>(reader: &mut TaggedReader<R>) -> Option<Result<OpenService, String>> {
    match timeout(PATIENCE, reader.next()).await {
        Ok(Ok(Some((OPEN, text)))) => {
            Some(serde_json::from_slice(&text).map_err(|e| format!("the request is malformed: {e}")))
        }
        Ok(Ok(Some(_))) => Some(Err("the first frame must be the request".to_owned())),
        Ok(Err(error)) => Some(Err(error.to_string())),
        Ok(Ok(None)) | Err(_) => None,
    }
}

/// Notes what is asked for, and opens what may be.
async fn permitted(handle: &Handle, client: &Client, request: OpenService) -> Result<Line, Outcome> {
    let verb = request.verb();
    let checked = client.caller.check(verb).map_err(Into::into);
    let checked = checked.and_then(|()| handle.check_agent(&client.caller, &request.agent));
    let status = checked.as_ref().map_or_else(|error| error.code.http_status(), |()| 101);
    let detail = Some(format!("{}: {} {}", request.agent, request.service, request.about));
    let (who, what) = (Some(client.caller.name()), "POST /v1/services");
    let entry = Entry { who, from: client.from, verb: verb.as_str(), request: what, detail, status };
    handle.audit().note(entry).await;
    checked.map_err(|error| Outcome::Refused(Refusal::Denied, error.message))?;
    let deadline = request.deadline();
    let start =
        Start { service: request.service, caller: client.caller.name().to_owned(), deadline, about: request.about };
    handle.service_line(&request.agent, start).await
}

/// Passes frames on until the outcome was, or is to be told. `None` if the client is gone: the stream is given up.
async fn relay<R, W>(reader: &mut TaggedReader<R>, writer: &mut TaggedWriter<W>, line: Line) -> Option<Option<Outcome>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Line { send, recv, way } = line;
    let (mut to_agent, mut from_agent) = (TaggedWriter::new(send), TaggedReader::new(recv, MAX_PAYLOAD));
    let up = async {
        while let Ok(Some((kind, payload))) = reader.next().await {
            if to_agent.write(kind, &payload).await.is_err() {
                // Whoever reads from the agent learns why.
                std::future::pending::<()>().await;
            }
        }
    };
    let down = async {
        while let Ok(Some((kind, payload))) = from_agent.next().await {
            writer.write(kind, &payload).await.ok()?;
            if kind == OUTCOME {
                return Some(None);
            }
        }
        Some(Some(way.broke().await))
    };
    let relayed = tokio::select! {
        biased;
        relayed = down => relayed,
        () = up => None,
    };
    if relayed == Some(None) {
        let _ = to_agent.shutdown().await;
    }
    relayed
}
