//! Answers calls.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    executor::Shared,
    stream::{RecvHalf, SendHalf},
};
use crate::{
    frame,
    link::Program,
    protocol::{
        CANCELLED,
        call::{Answer, Call, Condition, MAX_BODY, MAX_CREDENTIAL},
        update::MAX_ORDER,
    },
};

/// How much of a body is held at once.
const CHUNK: usize = 128 << 10;
/// Room for a first read.
const SHORT: usize = 4 << 10;

/// Serves one call to its end. A caller that goes away is not an error.
pub(super) async fn serve(call: Call, shared: &Shared, mut send: impl SendHalf, recv: impl RecvHalf) {
    let served = match call {
        Call::Echo => echo(&mut send, recv).await,
        Call::Condition => condition(shared, &mut send).await,
        Call::TakeCredential | Call::PinNext => keep(&call, shared, &mut send, recv).await,
        Call::Update => update(shared, &mut send, recv).await,
        Call::UpdateState => update_state(shared, &mut send).await,
    };
    match served {
        Ok(()) => send.delivered().await,
        Err(error) => {
            tracing::debug!("a call broke: {error}");
            send.reset(CANCELLED);
        }
    }
}

/// Sends the body back as it comes. One that fits into a chunk is read to its end first, so that it goes back in one
/// piece with the answer.
async fn echo(send: &mut impl SendHalf, mut recv: impl RecvHalf) -> std::io::Result<()> {
    let mut buffer = BytesMut::new();
    answer(&Answer::Ok, &mut buffer);
    let mut left = MAX_BODY;
    loop {
        let full = buffer.len() + CHUNK;
        let mut ended = false;
        while buffer.len() < full {
            // Most bodies are small: room grows with what comes.
            buffer.reserve((buffer.len() * 2).clamp(SHORT, CHUNK));
            let read = recv.read_buf(&mut buffer).await?;
            ended = read == 0;
            left = left.checked_sub(read).ok_or_else(|| std::io::Error::other("the body is above the limit"))?;
            if ended {
                break;
            }
        }
        send.write_all_buf(&mut buffer).await?;
        if ended {
            return send.shutdown().await;
        }
    }
}

async fn condition(shared: &Shared, send: &mut impl SendHalf) -> std::io::Result<()> {
    let running = u32::try_from(shared.running()).unwrap_or(u32::MAX);
    let condition = Condition { running, uptime: shared.uptime().as_secs() };
    let mut buffer = BytesMut::new();
    answer(&Answer::Ok, &mut buffer);
    buffer.extend_from_slice(&postcard::to_stdvec(&condition).expect("two numbers can be encoded"));
    send.write_all_buf(&mut buffer).await?;
    send.shutdown().await
}

/// Holds another credential, or accepts another key too, which is on the disk when the answer goes out.
async fn keep(call: &Call, shared: &Shared, send: &mut impl SendHalf, recv: impl RecvHalf) -> std::io::Result<()> {
    let mut text = String::new();
    recv.take(MAX_CREDENTIAL as u64 + 1).read_to_string(&mut text).await?;
    let taken = match &shared.wallet {
        Some(wallet) if *call == Call::PinNext => wallet.pin_next(&text).await,
        Some(wallet) => wallet.take(&text).await,
        None => Err("it keeps no credential".to_owned()),
    };
    let mut buffer = BytesMut::new();
    answer(&taken.map_or_else(Answer::Failed, |()| Answer::Ok), &mut buffer);
    send.write_all_buf(&mut buffer).await?;
    send.shutdown().await
}

/// Takes an order to change the program.
async fn update(shared: &Shared, send: &mut impl SendHalf, recv: impl RecvHalf) -> std::io::Result<()> {
    let mut body = Vec::new();
    recv.take(MAX_ORDER as u64 + 1).read_to_end(&mut body).await?;
    let taken = match (&shared.updates, postcard::from_bytes(&body)) {
        _ if body.len() > MAX_ORDER => Err(format!("the order is above {MAX_ORDER} bytes")),
        (Some(updates), Ok(order)) => updates.accept(order, shared.bundles.as_ref()).await,
        (None, _) => Err("its program is not rk's own, and cannot be replaced from here".to_owned()),
        (_, Err(error)) => Err(format!("the order is none that it knows: {error}")),
    };
    let mut buffer = BytesMut::new();
    answer(&taken.map_or_else(Answer::Failed, |()| Answer::Ok), &mut buffer);
    send.write_all_buf(&mut buffer).await?;
    send.shutdown().await
}

/// Says what the program is, and how its last change stands.
async fn update_state(shared: &Shared, send: &mut impl SendHalf) -> std::io::Result<()> {
    let program = match &shared.updates {
        Some(updates) => updates.program().await,
        None => Program::default(),
    };
    let mut buffer = BytesMut::new();
    answer(&Answer::Ok, &mut buffer);
    buffer.extend_from_slice(&postcard::to_stdvec(&program).expect("plain data can be encoded"));
    send.write_all_buf(&mut buffer).await?;
    send.shutdown().await
}

fn answer(answer: &Answer, buffer: &mut BytesMut) {
    frame::encode(answer, buffer).expect("a small enum can be encoded");
}
