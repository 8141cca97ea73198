//! Keeps the journal short: the state goes into it now and then, and what is before that is cut away.

use std::time::Duration;

use tokio::{sync::mpsc, time::sleep};

use super::{
    Error,
    store::{Copy, Store},
};
use crate::journal::{self, Journal};

/// How often it is looked whether the journal has grown enough.
const LOOK: Duration = Duration::from_secs(1);
/// The pause after a snapshot that did not succeed.
const PAUSE: Duration = Duration::from_secs(60);
/// So many bytes make a snapshot worth its while, however few records they are.
const BYTES: u64 = 64 << 20;

/// What a controller remembers whose journal was deleted and created anew.
pub(super) struct Legacy {
    /// The epoch in which it led.
    pub epoch: u32,
    /// Payloads of events.
    pub state: Vec<bytes::Bytes>,
}

/// Writes a snapshot whenever the journal has grown by `every` records, or many bytes. Never ends.
pub(super) async fn keep(journal: Journal, mut copies: mpsc::Receiver<Copy>, every: u64) {
    loop {
        sleep(LOOK).await;
        let growth = journal.growth();
        if growth.records < every && growth.bytes < BYTES {
            continue;
        }
        if let Err(error) = write(&journal, false, &mut copies).await {
            tracing::warn!(%error, "no snapshot was written into the journal; it is tried again");
            sleep(PAUSE).await;
        }
    }
}

/// Makes a new journal out of a state that outlived the one before. Bounded by the caller.
pub(super) async fn found(store: &Store, copies: &mut mpsc::Receiver<Copy>) -> Result<(), Error> {
    loop {
        match write(store.journal(), true, copies).await {
            Err(journal::Error::Torn) => {}
            result => return Ok(result?),
        }
    }
}

async fn write(journal: &Journal, founding: bool, copies: &mut mpsc::Receiver<Copy>) -> Result<(), journal::Error> {
    // One that was not waited for.
    let _ = copies.try_recv();
    if founding {
        journal.begin_founding().await?
    } else {
        journal.begin_snapshot().await?
    }
    let (snapshot, state) = copies.recv().await.ok_or(journal::Error::Closed)?;
    let payloads = state.len();
    journal.write_snapshot(snapshot, state).await?;
    tracing::info!(payloads, "wrote a snapshot into the journal");
    // That it can't be cut was said there, and costs nothing but room.
    let _ = journal.cut().await;
    Ok(())
}
