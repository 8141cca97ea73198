//! What the agent says on an execution's control stream, written so that a `select!` may give up waiting.

use bytes::BytesMut;
use tokio::{
    io::{AsyncWriteExt, Result},
    sync::watch,
};

use super::stream::SendHalf;
use crate::{frame, protocol::exec::Event};

/// The sending half of a control stream.
pub(super) struct Events {
    send: Box<dyn SendHalf>,
    /// The rest of an event that went out in part.
    pending: BytesMut,
}

impl Events {
    pub fn new(send: Box<dyn SendHalf>) -> Self {
        Self { send, pending: BytesMut::new() }
    }

    /// Says it. Not cancel-safe.
    pub async fn say(&mut self, event: &Event) -> Result<()> {
        self.put(event);
        self.send.write_all_buf(&mut self.pending).await?;
        self.send.flush().await
    }

    /// Passes on how far stdin may run, as it changes; only the newest if it changes faster. Ends only if the stream
    /// broke. Cancel-safe.
    pub async fn allow(&mut self, stdin: &mut watch::Receiver<u64>) -> Result<std::convert::Infallible> {
        loop {
            while !self.pending.is_empty() {
                if self.send.write_buf(&mut self.pending).await? == 0 {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
            }
            if stdin.changed().await.is_err() {
                // Whoever consumed stdin is gone, and has said so.
                std::future::pending::<()>().await;
            }
            let up_to = *stdin.borrow_and_update();
            self.put(&Event::Allow { up_to });
        }
    }

    /// Breaks the stream.
    pub fn reset(&mut self, code: u32) {
        self.send.reset(code);
    }

    /// Ends the stream, and returns when the controller has everything.
    pub async fn finish(mut self) -> Result<()> {
        self.send.shutdown().await?;
        self.send.delivered().await;
        Ok(())
    }

    fn put(&mut self, event: &Event) {
        frame::encode(event, &mut self.pending).expect("an event can be encoded");
    }
}
