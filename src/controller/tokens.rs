//! What can be asked about the API's tokens.

use super::{
    Handle,
    access::{Caller, Grant, Scope, Standing, Token},
};
use crate::{
    api::{
        ApiError,
        access::{Access, AccessList, AddAccess, AddedAccess},
    },
    clock,
    id::AgentName,
    secret,
};

impl Handle {
    /// All tokens, without their secrets.
    pub fn access(&self) -> AccessList {
        let now = clock::unix_ms();
        AccessList { access: self.shared().store.state().tokens().iter().map(|grant| grant.info(now)).collect() }
    }

    /// Makes a token. It is in the journal when this returns.
    pub async fn add_access(&self, request: AddAccess) -> Result<AddedAccess, ApiError> {
        let AddAccess { name, role, verbs, agents, selector, ttl_ms } = request;
        let token = Token::new(name.clone(), secret::random());
        let now = clock::unix_ms();
        let grant = Grant {
            name,
            hash: token.hash(),
            role,
            verbs,
            scope: Scope { agents, selector },
            created_ms: now,
            expires_ms: ttl_ms.map(|ttl| now.saturating_add(ttl)),
        };
        let access = grant.info(now);
        self.shared().store.grant(grant).await?;
        tracing::info!(name = %access.name, role = %access.role, "made a token of the API");
        Ok(AddedAccess { token: token.to_text(), access })
    }

    /// Ends a token; requests that are under way go on.
    pub async fn revoke_access(&self, name: &AgentName) -> Result<Access, ApiError> {
        let before = self.shared().store.state().tokens().get(name).cloned();
        self.shared().store.revoke(name).await?;
        tracing::info!(%name, "revoked a token of the API");
        let before = before.expect("only one that there is can be revoked");
        Ok(before.info(clock::unix_ms()))
    }

    /// What a shown token is.
    pub(super) fn standing(&self, token: &Token) -> Standing {
        self.shared().store.state().tokens().standing(token, clock::unix_ms())
    }

    /// Whether `caller` may work with the agent `name`.
    pub(super) fn check_agent(&self, caller: &Caller, name: &AgentName) -> Result<(), ApiError> {
        let labels = self.shared().directory.ask(|registry| registry.labels(name));
        Ok(caller.check_agent(name, &labels)?)
    }
}
