//! What can be asked about the API's tokens.

use std::{future::pending, time::Duration};

use tokio::time::timeout;

use super::{
    Handle,
    access::{Caller, Grant, Scope, Standing, Token},
};
use crate::{
    api::{
        ApiError, Code,
        access::{Access, AccessList, AddAccess, AddedAccess},
    },
    clock,
    id::AgentName,
    secret,
};

/// How often it is looked whether a token's time is over, at least.
const LOOK: Duration = Duration::from_secs(60);

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

    /// Ends a token, and what waits or runs under it; what it asked for and was done stays.
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

    /// Waits until the token of `caller` is good no more, and returns what its holder is told.
    pub(super) fn token_ended(&self, caller: &Caller) -> impl Future<Output = ApiError> + Send + 'static {
        let (handle, caller) = (self.clone(), caller.clone());
        async move {
            // Who can read the data directory can do so to the end.
            let Caller::Granted(grant) = caller else { return pending().await };
            let state = handle.shared().store.state();
            let mut changes = state.token_changes();
            let why = loop {
                changes.mark_unchanged();
                let now = clock::unix_ms();
                let standing = state.tokens().standing_of(&grant.name, &grant.hash, now);
                let left = match standing {
                    Standing::Good(grant) => grant.expires_ms.map(|expires| expires.saturating_sub(now)),
                    Standing::Expired => break "has expired",
                    Standing::Unknown => break "was revoked",
                };
                // The clock may be set meanwhile.
                let left = left.map_or(LOOK, Duration::from_millis).min(LOOK);
                // The sender lives as long as this handle.
                let _ = timeout(left, changes.changed()).await;
            };
            let cure = "ask an admin for another (`rk access add`)";
            let message = format!("the token of {} {why}, and what ran with it is ended; {cure}", grant.name);
            ApiError::new(Code::Unauthorized, message)
        }
    }

    /// Whether `caller` may work with the agent `name`.
    pub(super) fn check_agent(&self, caller: &Caller, name: &AgentName) -> Result<(), ApiError> {
        let labels = self.shared().directory.ask(|registry| registry.labels(name));
        Ok(caller.check_agent(name, &labels)?)
    }
}
