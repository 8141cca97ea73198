//! A client's requests about how agents get in.

use bytes::Bytes;
use hyper::Method;

use super::{Client, ClientError, percent_encoded};
use crate::{
    api::enrol::{CreateToken, CreatedToken, RevokedAgent, RotateAgent, RotatedAgent, Token, TokenList},
    id::AgentName,
};

impl Client {
    /// Makes a join token; the answer holds it, which cannot be had again.
    pub async fn create_token(&self, request: &CreateToken) -> Result<CreatedToken, ClientError> {
        self.json(Method::POST, "/v1/tokens", self.body(request)?).await
    }

    /// The join tokens, the newest first.
    pub async fn tokens(&self) -> Result<TokenList, ClientError> {
        self.json(Method::GET, "/v1/tokens", Bytes::new()).await
    }

    /// Revokes a join token.
    pub async fn revoke_token(&self, id: &str) -> Result<Token, ClientError> {
        self.json(Method::DELETE, &format!("/v1/tokens/{}", percent_encoded(id)), Bytes::new()).await
    }

    /// Gives an agent a new secret.
    pub async fn rotate_agent(&self, name: &AgentName, request: &RotateAgent) -> Result<RotatedAgent, ClientError> {
        self.json(Method::POST, &format!("/v1/agents/{name}/rotate"), self.body(request)?).await
    }

    /// Ends an agent's session, and lets it in no more before it gets a new secret.
    pub async fn revoke_agent(&self, name: &AgentName) -> Result<RevokedAgent, ClientError> {
        self.json(Method::POST, &format!("/v1/agents/{name}/revoke"), Bytes::new()).await
    }
}
