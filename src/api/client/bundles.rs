//! A client's requests about bundles.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http_body_util::StreamBody;
use hyper::{Method, body::Frame, header};

use super::{Client, ClientError, percent_encoded};
use crate::{
    api::{
        MAX_JSON,
        bundles::{Blob, Bundle, BundleList, PushBundle},
    },
    bundle::Archive,
};

/// How slow an upload may be, in bytes a second.
const SLOWEST: u64 = 128 << 10;
/// What an upload may take beside that: the controller reads it back.
const BESIDE: Duration = Duration::from_secs(300);

impl Client {
    /// All bundles, the newest first.
    pub async fn bundles(&self) -> Result<BundleList, ClientError> {
        self.json(Method::GET, "/v1/bundles", Bytes::new()).await
    }

    /// The bundle that `text` means: a name, `NAME@DIGEST`, a digest, or the beginning of one.
    pub async fn bundle(&self, text: &str) -> Result<Bundle, ClientError> {
        self.json(Method::GET, &format!("/v1/bundles/{}", percent_encoded(text)), Bytes::new()).await
    }

    /// Makes a bundle of archives that were uploaded.
    pub async fn push_bundle(&self, request: &PushBundle) -> Result<Bundle, ClientError> {
        self.json(Method::POST, "/v1/bundles", self.body(request)?).await
    }

    /// Forgets a bundle.
    pub async fn remove_bundle(&self, text: &str) -> Result<Bundle, ClientError> {
        self.json(Method::DELETE, &format!("/v1/bundles/{}", percent_encoded(text)), Bytes::new()).await
    }

    /// Whether an archive is in Kafka.
    pub async fn has_blob(&self, archive: &Archive) -> Result<bool, ClientError> {
        let blob: Blob = self.json(Method::GET, &path(archive), Bytes::new()).await?;
        Ok(blob.present)
    }

    /// Uploads an archive, whose bytes `pieces` brings. It is in Kafka when this returns.
    pub async fn upload(
        &self,
        archive: &Archive,
        pieces: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), ClientError> {
        let frames: stream::BoxStream<'static, std::io::Result<Frame<Bytes>>> =
            pieces.map(|piece| piece.map(Frame::data)).boxed();
        let request = self
            .head(Method::PUT, &path(archive))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, archive.size)
            .body(StreamBody::new(frames))
            .map_err(|e| self.protocol(e))?;
        let patience = BESIDE + Duration::from_secs(archive.size / SLOWEST);
        self.within(patience, async { self.collect(self.send_once(request).await?, MAX_JSON).await }).await.map(drop)
    }
}

fn path(archive: &Archive) -> String {
    format!("/v1/blobs/{}?size={}", archive.sha256, archive.size)
}
