//! What the agent says on an execution's control stream, written so that a `select!` may give up waiting.

use tokio::{
    io::{AsyncWriteExt, Result},
    sync::watch,
};

use super::stream::SendHalf;
use crate::{frame::Outgoing, protocol::exec::Event};

/// What is to be said of a resumable execution's stdin.
pub(super) struct Said {
    allow: watch::Receiver<u64>,
    confirm: watch::Receiver<u64>,
}

impl Said {
    pub fn new(allow: &watch::Sender<u64>, confirm: &watch::Sender<u64>) -> Self {
        Self { allow: allow.subscribe(), confirm: confirm.subscribe() }
    }
}

/// The sending half of a control stream.
pub(super) struct Events(Outgoing<Box<dyn SendHalf>>);

impl Events {
    pub fn new(send: Box<dyn SendHalf>) -> Self {
        Self(Outgoing::new(send))
    }

    /// Says it. Not cancel-safe.
    pub async fn say(&mut self, event: &Event) -> Result<()> {
        self.put(event);
        self.0.send().await
    }

    /// Passes on how far stdin may run, as it changes; only the newest if it changes faster. Ends only if the stream
    /// broke. Cancel-safe.
    pub async fn allow(&mut self, stdin: &mut watch::Receiver<u64>) -> Result<std::convert::Infallible> {
        loop {
            self.0.send().await?;
            if stdin.changed().await.is_err() {
                // Whoever consumed stdin is gone, and has said so.
                std::future::pending::<()>().await;
            }
            let up_to = *stdin.borrow_and_update();
            self.put(&Event::Allow { up_to });
        }
    }

    /// The same, and which bytes of stdin were taken.
    pub async fn keep_saying(&mut self, said: &mut Said) -> Result<std::convert::Infallible> {
        loop {
            self.0.send().await?;
            let event = tokio::select! {
                biased;
                Ok(()) = said.confirm.changed() => Event::Taken { up_to: *said.confirm.borrow_and_update() },
                Ok(()) = said.allow.changed() => Event::Allow { up_to: *said.allow.borrow_and_update() },
                else => std::future::pending().await,
            };
            self.put(&event);
        }
    }

    /// Breaks the stream.
    pub fn reset(&mut self, code: u32) {
        self.0.stream().reset(code);
    }

    /// Ends the stream, and returns when the controller has everything.
    pub async fn finish(mut self) -> Result<()> {
        self.0.stream().shutdown().await?;
        self.0.stream().delivered().await;
        Ok(())
    }

    fn put(&mut self, event: &Event) {
        self.0.put(event).expect("an event can be encoded");
    }
}
