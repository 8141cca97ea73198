//! One call: a stream with a request and an answer.
//!
//! A small body goes with the request in one piece on the control lane; a large one streams on the bulk lane, both ways
//! at once, so that neither side holds it.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::peer::{BoxReader, Peer, Sending};
use crate::{
    api::{ApiError, Code},
    frame::{self, FrameError},
    link::{Lane, LinkError},
    protocol::{
        Open,
        call::{Answer, Call, MAX_BODY},
    },
};

/// Up to this size a body runs on the control lane: more would delay other calls.
pub const SMALL: usize = 64 << 10;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Answered(String),
}

/// Sends a body and returns the answer's. Ends within `patience` and the time that large bodies take.
pub async fn whole(peer: &Arc<dyn Peer>, call: Call, body: Bytes, patience: Duration) -> Result<Bytes, ApiError> {
    if body.len() > SMALL {
        let (mut send, answer) = open(peer, call, Lane::Bulk, patience).await?;
        let sent = async {
            send.write_all(&body).await?;
            send.shutdown().await
        };
        let received = async {
            let mut recv = answered(peer, answer, patience).await?;
            rest(peer, &mut recv, body.len()).await
        };
        // An error of the sending half shows on the receiving one as well, and better.
        return tokio::join!(sent, received).1;
    }
    let exchange = async {
        let (mut send, mut recv) = peer.open(Lane::Control).await?;
        let mut request = BytesMut::with_capacity(body.len() + 64);
        frame::encode(&Open::Call(call), &mut request)?;
        request.extend_from_slice(&body);
        send.write_all(&request).await.map_err(FrameError::from)?;
        send.shutdown().await.map_err(FrameError::from)?;
        answer(&mut recv).await?;
        let mut got = Vec::with_capacity(body.len() + 1);
        (&mut recv).take(MAX_BODY as u64).read_to_end(&mut got).await.map_err(FrameError::from)?;
        Ok(Bytes::from(got))
    };
    match timeout(patience, exchange).await {
        Ok(result) => result.map_err(|failure| error(peer, &failure)),
        Err(_) => Err(silent(peer, patience)),
    }
}

/// Opens a call whose body streams: the caller writes it to the returned half and shuts that down.
pub async fn open(
    peer: &Arc<dyn Peer>,
    call: Call,
    lane: Lane,
    patience: Duration,
) -> Result<(Sending, BoxReader), ApiError> {
    let open = async {
        let (mut send, recv) = peer.open(lane).await?;
        frame::write(&mut send, &Open::Call(call)).await?;
        Ok((send, recv))
    };
    match timeout(patience, open).await {
        Ok(result) => result.map_err(|failure| error(peer, &failure)),
        Err(_) => Err(silent(peer, patience)),
    }
}

/// Waits for the answer, after which its body can be read.
pub async fn answered(peer: &Arc<dyn Peer>, mut recv: BoxReader, patience: Duration) -> Result<BoxReader, ApiError> {
    match timeout(patience, answer(&mut recv)).await {
        Ok(Ok(())) => Ok(recv),
        Ok(Err(failure)) => Err(error(peer, &failure)),
        Err(_) => Err(silent(peer, patience)),
    }
}

async fn rest(peer: &Arc<dyn Peer>, recv: &mut BoxReader, expected: usize) -> Result<Bytes, ApiError> {
    let mut got = Vec::with_capacity(expected.min(1 << 20));
    match recv.take(MAX_BODY as u64).read_to_end(&mut got).await {
        Ok(_) => Ok(Bytes::from(got)),
        Err(e) => Err(error(peer, &FrameError::from(e).into())),
    }
}

async fn answer(recv: &mut BoxReader) -> Result<(), Failure> {
    match frame::read(recv).await? {
        Answer::Ok => Ok(()),
        Answer::Failed(reason) => Err(Failure::Answered(reason)),
    }
}

fn error(peer: &Arc<dyn Peer>, failure: &Failure) -> ApiError {
    let name = peer.name();
    match failure {
        Failure::Answered(reason) => ApiError::new(Code::AgentFailed, format!("agent {name} could not: {reason}")),
        other => ApiError::new(
            Code::NoAnswer,
            format!("the call to agent {name} broke: {other}; `rk agents show {name}` tells how it is"),
        ),
    }
}

fn silent(peer: &Arc<dyn Peer>, patience: Duration) -> ApiError {
    let name = peer.name();
    ApiError::new(
        Code::NoAnswer,
        format!("agent {name} did not answer within {patience:?}; `rk agents show {name}` tells how it is"),
    )
}
