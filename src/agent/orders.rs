//! What the controller sends on an execution's control stream, read so that a `select!` may give up waiting.

use std::{future::pending, pin::Pin};

use super::stream::RecvHalf;
use crate::{
    frame::{self, FrameError},
    protocol::exec::Steer,
};

type Reading = Pin<Box<dyn Future<Output = (Box<dyn RecvHalf>, Result<Steer, FrameError>)> + Send>>;

/// The receiving half of a control stream.
pub(super) struct Orders {
    reading: Option<Reading>,
    /// Read by [`Orders::left`] before anybody could follow it.
    early: Option<Steer>,
}

impl Orders {
    pub fn new(recv: Box<dyn RecvHalf>) -> Self {
        Self { reading: Some(read(recv)), early: None }
    }

    /// The next order; `None` for ever when whoever sends them is gone, or no longer makes sense.
    pub async fn next(&mut self) -> Option<Steer> {
        if let Some(early) = self.early.take() {
            return Some(early);
        }
        let (recv, order) = self.reading.as_mut()?.await;
        match order {
            Ok(order) => {
                self.reading = Some(read(recv));
                Some(order)
            }
            Err(error) => {
                tracing::debug!("no more orders: {error}");
                self.reading = None;
                None
            }
        }
    }

    /// Ends when whoever sends orders is gone. One order that comes meanwhile is kept, others stay in the stream.
    pub async fn left(&mut self) {
        if self.early.is_some() {
            pending::<()>().await;
        }
        self.early = self.next().await;
        if self.early.is_some() {
            pending::<()>().await;
        }
    }
}

fn read(mut recv: Box<dyn RecvHalf>) -> Reading {
    Box::pin(async move {
        let order = frame::read(&mut recv).await;
        (recv, order)
    })
}
