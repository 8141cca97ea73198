//! A client's requests about the files that jobs left.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Method, body::Incoming};
use tokio::time::timeout;

use super::{Client, ClientError, percent_encoded};
use crate::{
    api::{
        ApiError, Code, MAX_JSON,
        artifacts::{ArtifactList, ArtifactQuery, PackItem, PackQuery},
    },
    frame::MAX_MESSAGE,
};

/// An answer that says nothing for so long is taken for broken: the controller says [`PackItem::Idle`] more often.
const SILENCE: Duration = Duration::from_secs(30);

impl Client {
    /// A page of the files that a job left.
    pub async fn artifacts(&self, id: &str, query: &ArtifactQuery) -> Result<ArtifactList, ClientError> {
        let path = format!("/v1/jobs/{}/artifacts{}", percent_encoded(id), self.query(query)?);
        self.json(Method::GET, &path, Bytes::new()).await
    }

    /// Opens a part of a job's pack.
    pub async fn pack(&self, id: &str, query: PackQuery) -> Result<PackReceiver, ClientError> {
        let path = format!("/v1/jobs/{}/pack{}", percent_encoded(id), self.query(&query)?);
        let request = self.head(Method::GET, &path).body(Full::default()).map_err(|e| self.protocol(e))?;
        let response = self.within(self.timeout, self.send(request)).await?;
        if !response.status().is_success() {
            self.collect(response, MAX_JSON).await?;
            return Err(self.protocol("an error without one"));
        }
        Ok(PackReceiver { client: self.clone(), body: response.into_body(), buffer: BytesMut::new(), done: false })
    }
}

/// A part of a pack as it comes.
#[derive(Debug)]
pub struct PackReceiver {
    client: Client,
    body: Incoming,
    buffer: BytesMut,
    done: bool,
}

impl PackReceiver {
    /// The next bytes; `None` at the end, and empty ones to show that the connection lives. An error of the controller's says what is
    /// gone; another one that the answer broke: ask again from where you are.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while !self.done {
            match self.take()? {
                Some(PackItem::Bytes(bytes)) => return Ok(Some(bytes)),
                Some(PackItem::Idle) => return Ok(Some(Bytes::new())),
                Some(PackItem::Gone(why)) => return Err(ApiError::new(Code::Gone, why).into()),
                Some(PackItem::Failed(why)) => return Err(ApiError::new(Code::Internal, why).into()),
                Some(PackItem::Done) => {
                    self.done = true;
                    continue;
                }
                None => {}
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
        Ok(None)
    }

    fn take(&mut self) -> Result<Option<PackItem>, ClientError> {
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
