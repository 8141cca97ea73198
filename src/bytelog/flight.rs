//! One batch on its way: sealed, and sent until it is there.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    meta::{Body, Meta},
    pack::Draft,
    record::Sealer,
    shipper::View,
};
use crate::{
    backoff::Backoff,
    kafka::{Error, PartitionWriter, Record},
};

/// A produce ends within 40 s by contract; this is the belt to those braces.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Flight {
    pub(super) number: u64,
    /// What the records share.
    pub(super) meta: Meta,
    pub(super) batch: Vec<Draft>,
    pub(super) sealer: Arc<Sealer>,
    pub(super) writer: Arc<dyn PartitionWriter>,
    pub(super) view: watch::Sender<View>,
    /// Any number, for the pauses between tries.
    pub(super) seed: u64,
}

/// What became of it.
pub(super) struct Landed {
    pub(super) number: u64,
    /// The first record's offset.
    pub(super) result: Result<i64, Error>,
    /// The highest offset of a batch when this one was first sent.
    pub(super) bound: Option<i64>,
    /// Whether it took more than one try.
    pub(super) retried: bool,
}

impl Flight {
    /// Seals here and not in the driver, so that several cores may.
    pub(super) async fn run(mut self) -> Landed {
        let batch = std::mem::take(&mut self.batch);
        let records: Vec<Record> = batch.into_iter().map(|draft| self.seal(draft)).collect();
        let mut retried = false;
        let result = self.append(records, &mut retried).await;
        Landed { number: self.number, result, bound: self.meta.batch, retried }
    }

    fn seal(&self, draft: Draft) -> Record {
        let Draft { stream, before, bytes, body } = draft;
        let offset = if matches!(body, Body::Index(_)) { 0 } else { before[stream] };
        self.sealer.seal(stream, offset, bytes, &Meta { before, body, ..self.meta.clone() })
    }

    /// Appends for ever, unless a right is missing or a single record is too large for the topic.
    fn append<'a>(&'a mut self, records: Vec<Record>, retried: &'a mut bool) -> BoxFuture<'a, Result<i64, Error>> {
        async move {
            let mut backoff = Backoff::kafka();
            loop {
                let produce = timeout(LIMIT, self.writer.produce(records.clone())).await;
                let error = match produce.unwrap_or_else(|_| Err(hung())) {
                    Ok(base) => return Ok(base),
                    Err(error) => error,
                };
                match error {
                    Error::TooLarge { .. } if records.len() > 1 => {
                        let (first, rest) = records.split_at(records.len() / 2);
                        let base = self.append(first.to_vec(), retried).await?;
                        self.append(rest.to_vec(), retried).await?;
                        return Ok(base);
                    }
                    Error::TooLarge { .. } | Error::Authorization { .. } => return Err(error),
                    _ => {}
                }
                tracing::debug!(%error, "a log can't be shipped, trying again");
                *retried = true;
                self.view.send_modify(|view| view.stalled = Some(error));
                self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                sleep(backoff.next(self.seed >> 16)).await;
            }
        }
        .boxed()
    }
}

fn hung() -> Error {
    let code = format!("nothing within {} s", LIMIT.as_secs());
    Error::Transient { broker: "the leader".to_owned(), request: "Produce", code }
}
