//! What lets agents in: secrets that are rotated and revoked, and join tokens.
//!
//! Times are milliseconds since 1970 on the controller's clock. They are arguments: whether a token has expired is
//! judged before its use is journalled, so that folding the journal again gives the same.

use super::{AgentName, Change, Entry, Presence, Registry};
use crate::{
    controller::event::{Event, Token},
    layout::Layout,
    link::{EnrolRefusal, EnrolRequest, SecretHash, Secrets, TokenId},
    selector::Labels,
};

/// A token is remembered for so long after its end, so that who comes late is told what became of it: a week.
const REMEMBERED_MS: u64 = 7 * 24 * 3600 * 1000;

impl Registry {
    /// What the agent authenticates by at `now_ms`, also if it was removed or revoked.
    pub fn secrets(&self, now_ms: u64, name: &AgentName) -> Option<Secrets> {
        match self.agents.get(name) {
            Some(entry) => {
                let kept = entry.kept.filter(|(_, until_ms)| now_ms < *until_ms);
                Some(Secrets { newest: entry.secret, older: kept.map(|(hash, _)| hash) })
            }
            None => self.removed.get(name).map(|removed| removed.secret.into()),
        }
    }

    /// Whether the agent was revoked and got no new secret since.
    pub fn is_revoked(&self, name: &AgentName) -> bool {
        self.agents.get(name).is_some_and(|entry| entry.revoked)
    }

    /// The hash of a token's secret, also of one that is of no use any more and still remembered.
    pub fn token_hash(&self, id: TokenId) -> Option<SecretHash> {
        self.tokens.get(&id).map(|token| token.secret)
    }

    /// The remembered tokens, by id.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = (TokenId, &Token)> {
        self.tokens.iter().map(|(id, token)| (*id, token))
    }

    /// One token.
    pub fn token(&self, id: TokenId) -> Option<&Token> {
        self.tokens.get(&id)
    }

    /// Whether there is a credential for who asks at `now_ms`.
    pub fn judge_enrolment(&self, now_ms: u64, request: &EnrolRequest) -> Result<(), EnrolRefusal> {
        match self.tokens.get(&request.token) {
            None => Err(EnrolRefusal::Unknown),
            Some(token) if token.revoked => Err(EnrolRefusal::Revoked),
            Some(token) if now_ms >= token.expires_ms => Err(EnrolRefusal::Expired),
            Some(token) => self.judge_use(token, request),
        }
    }

    /// The agent that folding `event` would add through a token, with its labels.
    pub fn admits<'a>(&'a self, event: &'a Event) -> Option<(&'a AgentName, &'a Labels)> {
        let Event::TokenUsed { token, enrolment, name, .. } = event else { return None };
        let request = EnrolRequest { token: *token, enrolment: *enrolment, name: name.clone() };
        let token = self.tokens.get(token).filter(|token| !token.revoked)?;
        let new = self.judge_use(token, &request).is_ok() && !self.agents.contains_key(name);
        new.then_some((name, &token.labels))
    }

    /// Everything but the token's time and revocation.
    fn judge_use(&self, token: &Token, request: &EnrolRequest) -> Result<(), EnrolRefusal> {
        let agent = self.agents.get(&request.name);
        // It asks again: its answer was lost, or what it was given was.
        if agent.is_some_and(|agent| agent.enrolment == Some((request.token, request.enrolment)) && !agent.revoked) {
            return Ok(());
        }
        if token.used >= token.uses {
            return Err(EnrolRefusal::Exhausted);
        }
        if !request.name.as_str().starts_with(&token.name_prefix) {
            return Err(EnrolRefusal::NamePrefix(token.name_prefix.clone()));
        }
        if agent.is_some() { Err(EnrolRefusal::NameTaken) } else { Ok(()) }
    }

    /// A token was made; those that nobody asks for any more are forgotten.
    pub(super) fn fold_token(&mut self, id: TokenId, token: Token) -> Change {
        self.tokens.retain(|_, other| other.expires_ms.saturating_add(REMEMBERED_MS) > token.created_ms);
        self.tokens.entry(id).or_insert(token);
        Change::Nothing
    }

    /// A token may not be used any more.
    pub(super) fn fold_token_revoked(&mut self, id: TokenId) -> Change {
        if let Some(token) = self.tokens.get_mut(&id) {
            token.revoked = true;
        }
        Change::Nothing
    }

    /// A token was used, or the same use repeated.
    pub(super) fn fold_token_used(&mut self, request: EnrolRequest, secret: SecretHash) -> Change {
        let Some(token) = self.tokens.get(&request.token).filter(|token| !token.revoked) else {
            return Change::Nothing;
        };
        if self.judge_use(token, &request).is_err() {
            return Change::Nothing;
        }
        let enrolment = (request.token, request.enrolment);
        if let Some(entry) = self.agents.get_mut(&request.name) {
            (entry.secret, entry.kept) = (secret, None);
            return Change::Nothing;
        }
        let token = self.tokens.get_mut(&request.token).expect("just seen");
        token.used += 1;
        let entry = Entry { enrolment: Some(enrolment), ..Entry::new(secret, token.labels.clone()) };
        self.removed.remove(&request.name);
        self.agents.insert(request.name, entry);
        Change::Added
    }

    /// An agent got a new secret. Whoever enrolled it has no say in it any more.
    pub(super) fn fold_rotated(
        &mut self,
        name: &AgentName,
        secret: SecretHash,
        kept: Option<(SecretHash, u64)>,
    ) -> Change {
        if let Some(entry) = self.agents.get_mut(name) {
            (entry.secret, entry.kept, entry.revoked, entry.enrolment) = (secret, kept, false, None);
        }
        Change::Nothing
    }

    /// The agent has the secret with this hash: older ones are void.
    pub(super) fn fold_retired(&mut self, name: &AgentName, secret: SecretHash) -> Change {
        if let Some(entry) = self.agents.get_mut(name).filter(|entry| entry.secret == secret) {
            entry.kept = None;
        }
        Change::Nothing
    }

    /// An agent may not come back.
    pub(super) fn fold_revoked(&mut self, name: &AgentName) -> Change {
        let Some(entry) = self.agents.get_mut(name).filter(|entry| !entry.revoked) else { return Change::Nothing };
        entry.revoked = true;
        let session = entry.session();
        // Why it is gone is known: no outage leaves it in doubt.
        entry.presence = Presence::Gone;
        Change::Revoked(session)
    }

    /// Events that, folded after an agent's addition, make its entry the same.
    pub(super) fn snapshot_entry<'a>(name: &'a AgentName, entry: &'a Entry) -> impl Iterator<Item = Event> + 'a {
        let rotated =
            entry.kept.map(|kept| Event::AgentRotated { name: name.clone(), secret: entry.secret, kept: Some(kept) });
        let enrolled =
            entry.enrolment.map(|(token, enrolment)| Event::AgentEnrolled { name: name.clone(), token, enrolment });
        let placed = (entry.layout != Layout::default())
            .then(|| Event::AgentPlaced { name: name.clone(), layout: entry.layout });
        let revoked = entry.revoked.then(|| Event::AgentRevoked { name: name.clone() });
        [placed, rotated, enrolled, revoked].into_iter().flatten()
    }
}
