//! How agents get in: the door at which they show what they have, join tokens, new secrets and the end of old ones.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{
    Handle, call,
    directory::Directory,
    event::{self, Event},
    needs::Turn,
    provision::Login,
    store::{Store, unknown_agent},
};
use crate::{
    api::{
        ApiError, Code,
        enrol::{
            CreateToken, CreatedToken, MAX_TTL_MS, MAX_USES, RevokedAgent, RotateAgent, RotatedAgent, Taken, Token,
            TokenList, TokenState,
        },
    },
    clock,
    id::{AgentName, MAX_AGENT_NAME},
    layout::Layout,
    link::{Credential, EnrolRefusal, EnrolRequest, Fingerprint, JoinToken, Roster, SecretHash, Secrets, TokenId},
    protocol::call::Call,
    selector,
};

/// The most tokens that are remembered at once.
const MAX_TOKENS: usize = 10_000;

/// For so long the old secret outlives the telling of a new one, whatever overlap was asked for: an answer that is lost must
/// lock nobody out.
const TELLING: Duration = Duration::from_secs(5);

/// Who may connect, as the journal has it.
pub struct Door {
    directory: Arc<Directory>,
    store: Store,
    fingerprint: Fingerprint,
}

impl Door {
    /// The door of a controller whose key has this fingerprint.
    pub fn new(directory: Arc<Directory>, store: Store, fingerprint: Fingerprint) -> Self {
        Self { directory, store, fingerprint }
    }
}

impl Roster for Door {
    fn secrets(&self, name: &AgentName) -> Option<Secrets> {
        self.directory.ask(|registry| registry.secrets(clock::unix_ms(), name))
    }

    fn layout(&self, name: &AgentName) -> Layout {
        self.directory.ask(|registry| registry.layout(name))
    }

    fn is_removed(&self, name: &AgentName) -> bool {
        self.directory.ask(|registry| registry.is_removed(name))
    }

    fn is_revoked(&self, name: &AgentName) -> bool {
        self.directory.ask(|registry| registry.is_revoked(name))
    }

    fn token_hash(&self, id: TokenId) -> Option<SecretHash> {
        self.directory.ask(|registry| registry.token_hash(id))
    }

    fn enrol(&self, request: EnrolRequest) -> BoxFuture<'_, Result<Credential, EnrolRefusal>> {
        let (directory, store, fingerprint) = (self.directory.clone(), self.store.clone(), self.fingerprint);
        // Whoever asked may be gone before the journal has answered; what was begun is ended.
        let enrolled = tokio::spawn(async move { enrol(&directory, &store, fingerprint, request).await });
        Box::pin(async move {
            enrolled.await.unwrap_or_else(|_| Err(EnrolRefusal::Unavailable("the controller stops".to_owned())))
        })
    }
}

/// Uses a token, which is in the journal before this returns.
async fn enrol(
    directory: &Directory,
    store: &Store,
    fingerprint: Fingerprint,
    request: EnrolRequest,
) -> Result<Credential, EnrolRefusal> {
    let judge = || directory.ask(|registry| registry.judge_enrolment(clock::unix_ms(), &request));
    judge()?;
    let credential = Credential::generate(request.name.clone(), fingerprint);
    let event = Event::TokenUsed {
        token: request.token,
        enrolment: request.enrolment,
        name: request.name.clone(),
        secret: credential.secret_hash(),
    };
    store.commit(event).await.map_err(|e| EnrolRefusal::Unavailable(e.message))?;
    // Of those that were under way at once, the first in the journal got the last use, or the name.
    match directory.ask(|registry| registry.secrets(0, &request.name)) {
        Some(stored) if stored.newest == credential.secret_hash() => {
            tracing::info!(agent = %request.name, token = %request.token, "enrolled");
            Ok(credential)
        }
        _ => Err(judge().err().unwrap_or(EnrolRefusal::NameTaken)),
    }
}

impl Handle {
    /// Makes a join token. It is in the journal when this returns.
    pub async fn create_token(&self, request: CreateToken) -> Result<CreatedToken, ApiError> {
        check(&request)?;
        let shared = self.shared();
        let now_ms = clock::unix_ms();
        let live = shared.directory.ask(|registry| registry.tokens().filter(|(_, t)| t.expires_ms > now_ms).count());
        if live >= MAX_TOKENS {
            let message = format!("there are {MAX_TOKENS} tokens that have not expired; use those, or wait");
            return Err(ApiError::new(Code::Busy, message));
        }
        let made = JoinToken::generate(shared.fingerprint);
        let token = event::Token {
            secret: made.secret_hash(),
            uses: request.uses,
            used: 0,
            created_ms: now_ms,
            expires_ms: now_ms + request.ttl_ms,
            labels: request.labels,
            name_prefix: request.name_prefix,
            revoked: false,
        };
        let info = view(now_ms, made.id, &token);
        shared.store.commit(Event::TokenCreated { id: made.id, token }).await?;
        tracing::info!(token = %made.id, "made a join token");
        let (prefix, partitions) = (shared.link.prefix.to_string(), shared.link.partitions);
        Ok(CreatedToken { token: made.to_text(), info, prefix, partitions })
    }

    /// The join tokens, the newest first.
    pub fn tokens(&self) -> TokenList {
        let now_ms = clock::unix_ms();
        let mut tokens: Vec<Token> = self
            .shared()
            .directory
            .ask(|registry| registry.tokens().map(|(id, token)| view(now_ms, id, token)).collect());
        tokens.sort_by_key(|token| std::cmp::Reverse(token.created_ms));
        TokenList { tokens }
    }

    /// Revokes a join token: nobody enrols with it any more.
    pub async fn revoke_token(&self, id: TokenId) -> Result<Token, ApiError> {
        let shared = self.shared();
        let now = |id| shared.directory.ask(|registry| registry.token(id).map(|t| view(clock::unix_ms(), id, t)));
        let unknown = || ApiError::new(Code::NotFound, format!("there is no token {id}; `rk tokens ls` lists them"));
        now(id).ok_or_else(unknown)?;
        shared.store.commit(Event::TokenRevoked { id }).await?;
        tracing::info!(token = %id, "revoked a join token");
        now(id).ok_or_else(unknown)
    }

    /// Gives an agent a new secret, tells it if it has a session, and lets the old one live for the overlap.
    pub async fn rotate_agent(&self, name: &AgentName, request: RotateAgent) -> Result<RotatedAgent, ApiError> {
        if request.overlap_ms > MAX_TTL_MS {
            return Err(ApiError::new(Code::Invalid, "the overlap is above a year; use less"));
        }
        let shared = self.shared();
        // Of two at once the agent might take the one that lost.
        let _turn = Turn::take(&shared.rotating, name).ok_or_else(|| {
            ApiError::new(Code::Busy, format!("agent {name} is being given a new secret already; try again"))
        })?;
        let current = shared.directory.ask(|registry| registry.secrets(0, name)).filter(|_| self.agent(name).is_ok());
        let current = current.ok_or_else(|| unknown_agent(name))?;
        let revoked = shared.directory.ask(|registry| registry.is_revoked(name));
        let peer = self.session(name).ok().filter(|_| !revoked);
        // What the agent has is what must live on: that may be another than the newest, which it then never got.
        let old = shared.directory.live(name).map_or(current.newest, |(_, secret)| secret);
        let telling = if peer.is_some() { self.patience() + TELLING } else { Duration::ZERO };
        let lives_ms = request.overlap_ms.max(telling.as_millis().try_into().unwrap_or(u64::MAX));
        let kept = (lives_ms > 0 && !revoked).then(|| (old, clock::unix_ms() + lives_ms));
        let credential = Credential::generate(name.clone(), shared.fingerprint);
        let secret = credential.secret_hash();
        // What it had in Kafka was taken away with its right to come.
        let (made, turn) = match revoked {
            true => self.let_in_again(name).await.map(|(made, turn)| (made, Some(turn)))?,
            false => Default::default(),
        };
        if let Err(error) = shared.store.commit(Event::AgentRotated { name: name.clone(), secret, kept }).await {
            if revoked {
                self.retire(name.clone(), false);
            }
            return Err(error);
        }
        drop(turn);
        let taken = match &peer {
            None => Taken::Offline,
            Some(peer) => {
                let body = Bytes::from(credential.to_text());
                match call::whole(peer, Call::TakeCredential, body, self.patience()).await {
                    Ok(_) => {
                        shared.directory.took(peer, secret);
                        Taken::Yes
                    }
                    Err(error) => Taken::No(error.message),
                }
            }
        };
        let mut old_until_ms = kept.map(|(_, until_ms)| until_ms);
        if taken == Taken::Yes && request.overlap_ms == 0 {
            shared.store.commit(Event::AgentSecretRetired { name: name.clone(), secret }).await?;
            old_until_ms = None;
        }
        tracing::info!(agent = %name, ?taken, "got a new secret");
        let credential = (request.show || taken != Taken::Yes).then(|| credential.to_text());
        let layout = shared.directory.ask(|registry| registry.layout(name));
        Ok(RotatedAgent {
            name: name.clone(),
            taken,
            old_until_ms,
            credential,
            layout,
            prefix: shared.link.prefix.to_string(),
            partitions: shared.link.partitions,
            kafka: made.login.map(Login::told),
            commands: made.left,
        })
    }

    /// Revokes an agent: its session ends, and it is not let in before it gets a new secret.
    pub async fn revoke_agent(&self, name: &AgentName) -> Result<RevokedAgent, ApiError> {
        self.agent(name)?;
        let had_session = self.session(name).is_ok();
        self.shared().store.commit(Event::AgentRevoked { name: name.clone() }).await?;
        self.retire(name.clone(), false);
        tracing::info!(agent = %name, "revoked");
        Ok(RevokedAgent { name: name.clone(), had_session })
    }
}

fn check(request: &CreateToken) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::new(Code::Invalid, message));
    selector::check(&request.labels).map_err(|e| ApiError::new(Code::Invalid, e.to_string()))?;
    if !(1..=MAX_USES).contains(&request.uses) {
        return invalid(format!("{} is no number of uses; use 1 to {MAX_USES}", request.uses));
    }
    if !(1..=MAX_TTL_MS).contains(&request.ttl_ms) {
        return invalid("a token lives for 1 ms to 366 days; use a time like 1h".to_owned());
    }
    let prefix = &request.name_prefix;
    // At least one name must begin with it.
    if prefix.len() > MAX_AGENT_NAME || (!prefix.is_empty() && prefix.parse::<AgentName>().is_err()) {
        return invalid(format!("no agent's name can begin with {prefix:?}; use letters, digits, '-' and '_'"));
    }
    Ok(())
}

/// A token as the API shows it at `now_ms`.
fn view(now_ms: u64, id: TokenId, token: &event::Token) -> Token {
    let uses_left = token.uses.saturating_sub(token.used);
    let state = match () {
        () if token.revoked => TokenState::Revoked,
        () if now_ms >= token.expires_ms => TokenState::Expired,
        () if uses_left == 0 => TokenState::Exhausted,
        () => TokenState::Valid,
    };
    Token {
        id: id.to_string(),
        state,
        uses: token.uses,
        uses_left,
        created_ms: token.created_ms,
        expires_ms: token.expires_ms,
        expires_in_ms: token.expires_ms.saturating_sub(now_ms),
        labels: token.labels.clone(),
        name_prefix: token.name_prefix.clone(),
    }
}
