//! A client's requests about tokens of the API.

use bytes::Bytes;
use hyper::Method;

use super::{Client, ClientError};
use crate::{
    api::access::{Access, AccessList, AddAccess, AddedAccess},
    id::AgentName,
};

impl Client {
    /// All tokens, without their secrets.
    pub async fn access(&self) -> Result<AccessList, ClientError> {
        self.json(Method::GET, "/v1/access", Bytes::new()).await
    }

    /// Makes a token; the answer holds it, and it cannot be had again.
    pub async fn add_access(&self, request: &AddAccess) -> Result<AddedAccess, ClientError> {
        self.json(Method::POST, "/v1/access", self.body(request)?).await
    }

    /// Ends a token.
    pub async fn revoke_access(&self, name: &AgentName) -> Result<Access, ClientError> {
        self.json(Method::DELETE, &format!("/v1/access/{name}"), Bytes::new()).await
    }
}
