//! A client's requests about the files that jobs left.

use bytes::Bytes;
use hyper::Method;

use super::{Client, ClientError, items::Items, percent_encoded};
use crate::api::{
    ApiError, Code,
    artifacts::{ArtifactList, ArtifactQuery, PackItem, PackQuery},
};

impl Client {
    /// A page of the files that a job left.
    pub async fn artifacts(&self, id: &str, query: &ArtifactQuery) -> Result<ArtifactList, ClientError> {
        let path = format!("/v1/jobs/{}/artifacts{}", percent_encoded(id), self.query(query)?);
        self.json(Method::GET, &path, Bytes::new()).await
    }

    /// Opens a part of a job's pack.
    pub async fn pack(&self, id: &str, query: PackQuery) -> Result<PackReceiver, ClientError> {
        let path = format!("/v1/jobs/{}/pack{}", percent_encoded(id), self.query(&query)?);
        Ok(PackReceiver { items: Items::open(self, &path).await?, done: false })
    }
}

/// A part of a pack as it comes.
#[derive(Debug)]
pub struct PackReceiver {
    items: Items<PackItem>,
    done: bool,
}

impl PackReceiver {
    /// The next bytes; `None` at the end, and empty ones to show that the connection lives. An error of the controller's says what is
    /// gone; another one that the answer broke: ask again from where you are.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.done {
            return Ok(None);
        }
        match self.items.next().await? {
            PackItem::Bytes(bytes) => Ok(Some(bytes)),
            PackItem::Idle => Ok(Some(Bytes::new())),
            PackItem::Gone(why) => Err(ApiError::new(Code::Gone, why).into()),
            PackItem::Failed(why) => Err(ApiError::new(Code::Internal, why).into()),
            PackItem::Done => {
                self.done = true;
                Ok(None)
            }
        }
    }
}
