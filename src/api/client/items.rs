//! An answer of framed items, as they come.

use std::{marker::PhantomData, time::Duration};

use bytes::{Buf, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Method, body::Incoming};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Client, ClientError};
use crate::{api::MAX_JSON, frame::MAX_MESSAGE};

/// An answer that says nothing for so long is taken for broken: the controller shows more often that it lives.
const SILENCE: Duration = Duration::from_secs(30);

/// The items of an answer.
#[derive(Debug)]
pub(super) struct Items<T> {
    client: Client,
    body: Incoming,
    buffer: BytesMut,
    items: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Items<T> {
    /// Asks for what `path` has.
    pub async fn open(client: &Client, path: &str) -> Result<Self, ClientError> {
        let request = client.head(Method::GET, path).body(Full::default()).map_err(|e| client.protocol(e))?;
        let response = client.within(client.timeout, client.send(request)).await?;
        if !response.status().is_success() {
            client.collect(response, MAX_JSON).await?;
            return Err(client.protocol("an error without one"));
        }
        Ok(Self { client: client.clone(), body: response.into_body(), buffer: BytesMut::new(), items: PhantomData })
    }

    /// The next item. Cancel-safe. An answer has a last item: to end without it is to break.
    pub async fn next(&mut self) -> Result<T, ClientError> {
        loop {
            if let Some(item) = self.take()? {
                return Ok(item);
            }
            let frame = match timeout(SILENCE, self.body.frame()).await {
                Ok(Some(frame)) => frame.map_err(|e| self.client.broken(e))?,
                Ok(None) => return Err(self.client.broken("the answer ended early")),
                Err(_) => return Err(self.client.broken(format_args!("nothing came for {SILENCE:?}"))),
            };
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    fn take(&mut self) -> Result<Option<T>, ClientError> {
        let Some(length) = self.buffer.first_chunk().map(|length| u32::from_le_bytes(*length) as usize) else {
            return Ok(None);
        };
        if length > MAX_MESSAGE {
            return Err(self.client.protocol(format_args!("an item of {length} bytes")));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        let item = self.buffer.split_to(length);
        postcard::from_bytes(&item).map(Some).map_err(|e| self.client.protocol(e))
    }
}
