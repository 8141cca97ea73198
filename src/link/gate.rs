//! What the controller looks at before quinn sees a packet: one hash decides whether a handshake is worth its cost.
//!
//! Pure but for the counters: who is known comes from the [`Roster`], which runs have authenticated is remembered here.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{
    Credential, EnrolRefusal, EnrolRequest, Lane, SecretHash, TokenId,
    caller::Caller,
    notice::Reason,
    packet::{self, Header, Incarnation, Kind, MAC},
    proof,
    until::until,
};
use crate::{id::AgentName, layout::Layout};

/// The hashes of the secrets by which an agent authenticates now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secrets {
    /// Of the newest.
    pub newest: SecretHash,
    /// Of the one before, while it is still valid.
    pub older: Option<SecretHash>,
}

impl From<SecretHash> for Secrets {
    fn from(newest: SecretHash) -> Self {
        Self { newest, older: None }
    }
}

impl Secrets {
    /// The one that `is_it` finds right.
    pub fn find(self, is_it: impl Fn(&SecretHash) -> bool) -> Option<SecretHash> {
        [Some(self.newest), self.older].into_iter().flatten().find(is_it)
    }
}

/// Who may connect. All but [`enrol`](Self::enrol) is called for each record: fast, no waiting.
pub trait Roster: Send + Sync + 'static {
    /// The stored hashes of the agent's secrets, also of a removed or revoked agent that is still remembered; `None` if
    /// the name is not known.
    fn secrets(&self, name: &AgentName) -> Option<Secrets>;

    /// Which topics carry what is sent to it.
    fn layout(&self, _: &AgentName) -> Layout {
        Layout::Shared
    }

    /// Whether the agent was removed: it authenticates, and is told so.
    fn is_removed(&self, name: &AgentName) -> bool;

    /// Whether the agent was revoked: it authenticates, and is told so.
    fn is_revoked(&self, _name: &AgentName) -> bool {
        false
    }

    /// The stored hash of a join token's secret, also of one that is of no use any more and still remembered.
    fn token_hash(&self, _id: TokenId) -> Option<SecretHash> {
        None
    }

    /// Somebody proved to hold the token and asks for a credential. The use is durable before there is one.
    fn enrol(&self, _request: EnrolRequest) -> BoxFuture<'_, Result<Credential, EnrolRefusal>> {
        Box::pin(std::future::ready(Err(EnrolRefusal::Unknown)))
    }
}

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To quinn; `proven` if a MAC says who sent it.
    Pass {
        /// Whether a MAC was checked.
        proven: bool,
    },
    /// Dropped and counted.
    Drop,
    /// Dropped and counted, and the sender may be told why.
    Tell(Reason),
}

/// Packets that were dropped, by reason. They only grow.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Not a packet record, or not of an agent.
    pub malformed: AtomicU64,
    /// Of a name that is not known.
    pub unknown: AtomicU64,
    /// With a MAC that the agent's secret does not give.
    pub forged: AtomicU64,
    /// Of a run older than the one that authenticated.
    pub old: AtomicU64,
    /// Of an agent that knows a newer controller.
    pub fenced: AtomicU64,
    /// For want of room.
    pub overflow: AtomicU64,
    /// Handshakes above the limits.
    pub half_open: AtomicU64,
}

impl Dropped {
    /// All counts, by the reason's name.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("malformed", &self.malformed),
            ("unknown", &self.unknown),
            ("forged", &self.forged),
            ("old", &self.old),
            ("fenced", &self.fenced),
            ("overflow", &self.overflow),
            ("half_open", &self.half_open),
        ];
        all.into_iter().map(|(reason, count)| (reason, count.load(Ordering::Relaxed))).collect()
    }

    /// Adds one.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The controller's judgement, shared by all its sockets.
pub struct Gate {
    roster: Arc<dyn Roster>,
    epoch: u32,
    newest: Mutex<BTreeMap<AgentName, Incarnation>>,
    fenced: watch::Sender<u32>,
    pub dropped: Dropped,
}

impl Gate {
    pub fn new(roster: Arc<dyn Roster>, epoch: u32) -> Self {
        let fenced = watch::Sender::new(0);
        Self { roster, epoch, newest: Mutex::default(), fenced, dropped: Dropped::default() }
    }

    /// Judges one datagram of a record that claims to be from `caller`.
    pub fn judge(
        &self,
        caller: &Caller,
        header: &Header,
        lane: Lane,
        datagram: &[u8],
        mac: Option<[u8; MAC]>,
    ) -> Verdict {
        let drop = |counter| {
            Dropped::count(counter);
            Verdict::Drop
        };
        if header.kind != Kind::Up {
            return drop(&self.dropped.malformed);
        }
        // Who enrols has nothing to carry on another lane.
        if matches!(caller, Caller::Token(_)) && lane != Lane::Control {
            return drop(&self.dropped.malformed);
        }
        let Some(secrets) = self.secrets(caller) else {
            Dropped::count(&self.dropped.unknown);
            return if packet::is_long(datagram) { Verdict::Tell(Reason::Unknown) } else { Verdict::Drop };
        };
        let old = self.newest(caller).is_some_and(|newest| header.incarnation < newest);
        let Some(mac) = mac else {
            return if old { drop(&self.dropped.old) } else { Verdict::Pass { proven: false } };
        };
        if secrets.find(|hash| proof::check(hash, caller, header, lane, datagram, &mac)).is_none() {
            Dropped::count(&self.dropped.forged);
            return Verdict::Tell(Reason::Unknown);
        }
        if header.epoch > self.epoch {
            self.fenced.send_if_modified(|seen| {
                let higher = header.epoch > *seen;
                *seen = header.epoch.max(*seen);
                higher
            });
            return drop(&self.dropped.fenced);
        }
        if old {
            Dropped::count(&self.dropped.old);
            return Verdict::Tell(Reason::Superseded);
        }
        Verdict::Pass { proven: true }
    }

    /// The run of `name` authenticated: older ones are dropped from now on. False if a newer one already has.
    pub fn authenticated(&self, name: &AgentName, incarnation: Incarnation) -> bool {
        let mut newest = self.newest.lock().expect("no holder panics");
        match newest.get(name) {
            Some(known) if *known > incarnation => false,
            _ => {
                newest.insert(name.clone(), incarnation);
                true
            }
        }
    }

    /// Who may connect.
    pub fn roster(&self) -> &dyn Roster {
        &*self.roster
    }

    /// Waits until an agent has proven that it knows a controller with a higher epoch, and returns that.
    pub async fn fenced(&self) -> u32 {
        until(&self.fenced, |epoch| (*epoch > 0).then_some(*epoch)).await
    }

    fn secrets(&self, caller: &Caller) -> Option<Secrets> {
        match caller {
            Caller::Agent(name) => self.roster.secrets(name),
            Caller::Token(id) => self.roster.token_hash(*id).map(Secrets::from),
        }
    }

    /// The run of an agent that authenticated last. Many hold a token, and none is older than another.
    fn newest(&self, caller: &Caller) -> Option<Incarnation> {
        let Caller::Agent(name) = caller else { return None };
        self.newest.lock().expect("no holder panics").get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Fingerprint, JoinToken};

    struct One(Credential, JoinToken);

    impl Roster for One {
        fn secrets(&self, name: &AgentName) -> Option<Secrets> {
            let older = Some(SecretHash::of(&[7; 32]));
            (*name == self.0.name).then(|| Secrets { newest: self.0.secret_hash(), older })
        }

        fn token_hash(&self, id: TokenId) -> Option<SecretHash> {
            (id == self.1.id).then(|| self.1.secret_hash())
        }

        fn is_removed(&self, _: &AgentName) -> bool {
            false
        }
    }

    /// A long header with a source connection id of two bytes.
    const INITIAL: &[u8] = &[0xc0, 0, 0, 0, 1, 1, 9, 2, 7, 7, 0];
    const SHORT: &[u8] = &[0x40, 1, 2, 3];

    #[test]
    fn only_what_the_agent_itself_sent_now_is_let_through() {
        let a = Credential::generate("a".parse().expect("name"), Fingerprint([0; 32]));
        let gate = Gate::new(Arc::new(One(a.clone(), JoinToken::generate(Fingerprint([0; 32])))), 5);
        let caller = Caller::Agent(a.name.clone());
        let run = |starts| Incarnation { starts, random: 1 };
        let header = |starts, epoch| Header { kind: Kind::Up, incarnation: run(starts), epoch };
        let mac = |h: &Header, lane| proof::prove(&a.secret_hash(), &caller, h, lane, INITIAL);
        let judge = |h: &Header, lane, mac| gate.judge(&caller, h, lane, INITIAL, mac);

        let good = header(3, 5);
        assert_eq!(judge(&good, Lane::Control, mac(&good, Lane::Control)), Verdict::Pass { proven: true });
        assert_eq!(gate.judge(&caller, &good, Lane::Control, SHORT, None), Verdict::Pass { proven: false });
        assert_eq!(judge(&good, Lane::Bulk, mac(&good, Lane::Control)), Verdict::Tell(Reason::Unknown), "other lane");
        assert_eq!(judge(&header(4, 5), Lane::Control, mac(&good, Lane::Control)), Verdict::Tell(Reason::Unknown));
        let b = Caller::Agent("b".parse().expect("name"));
        let m = mac(&good, Lane::Control);
        assert_eq!(gate.judge(&b, &good, Lane::Control, INITIAL, m), Verdict::Tell(Reason::Unknown));
        assert_eq!(gate.judge(&b, &good, Lane::Control, SHORT, None), Verdict::Drop, "no answer to what is cheap");

        assert!(gate.authenticated(&a.name, run(3)));
        let older = header(2, 5);
        assert_eq!(judge(&older, Lane::Control, mac(&older, Lane::Control)), Verdict::Tell(Reason::Superseded));
        assert_eq!(gate.judge(&caller, &older, Lane::Control, SHORT, None), Verdict::Drop);
        assert!(!gate.authenticated(&a.name, run(2)));

        let later = header(3, 6);
        assert_eq!(
            judge(&later, Lane::Control, mac(&later, Lane::Control)),
            Verdict::Drop,
            "a newer controller is known"
        );
        assert_eq!(*gate.fenced.borrow(), 6);
    }

    #[test]
    fn a_secret_that_was_rotated_is_let_through_while_it_is_valid() {
        let a = Credential::generate("a".parse().expect("name"), Fingerprint([0; 32]));
        let gate = Gate::new(Arc::new(One(a.clone(), JoinToken::generate(Fingerprint([0; 32])))), 5);
        let caller = Caller::Agent(a.name.clone());
        let header = Header { kind: Kind::Up, incarnation: Incarnation { starts: 1, random: 1 }, epoch: 5 };
        let judge = |secret| {
            let mac = proof::prove(&SecretHash::of(&secret), &caller, &header, Lane::Control, INITIAL);
            gate.judge(&caller, &header, Lane::Control, INITIAL, mac)
        };
        assert_eq!(judge(*a.secret.expose()), Verdict::Pass { proven: true });
        assert_eq!(judge([7; 32]), Verdict::Pass { proven: true });
        assert_eq!(judge([8; 32]), Verdict::Tell(Reason::Unknown));
    }

    #[test]
    fn who_holds_a_token_is_let_through_on_the_control_lane_in_any_run() {
        let a = Credential::generate("a".parse().expect("name"), Fingerprint([0; 32]));
        let token = JoinToken::generate(Fingerprint([0; 32]));
        let gate = Gate::new(Arc::new(One(a, token.clone())), 5);
        let caller = Caller::Token(token.id);
        let header = |starts| Header { kind: Kind::Up, incarnation: Incarnation { starts, random: 1 }, epoch: 0 };
        let judge = |caller: &Caller, h: &Header, lane, hash| {
            gate.judge(caller, h, lane, INITIAL, proof::prove(&hash, caller, h, lane, INITIAL))
        };
        let good = token.secret_hash();
        for starts in [9, 3] {
            assert_eq!(judge(&caller, &header(starts), Lane::Control, good), Verdict::Pass { proven: true });
        }
        assert_eq!(judge(&caller, &header(1), Lane::Bulk, good), Verdict::Drop);
        let wrong = SecretHash::of(&[1; 32]);
        assert_eq!(judge(&caller, &header(1), Lane::Control, wrong), Verdict::Tell(Reason::Unknown));
        let stranger = Caller::Token(TokenId([1; 8]));
        assert_eq!(judge(&stranger, &header(1), Lane::Control, good), Verdict::Tell(Reason::Unknown));
        // Its id is no agent's name.
        let agent = Caller::Agent(token.id.to_string().parse().expect("a name too"));
        assert_eq!(judge(&agent, &header(1), Lane::Control, good), Verdict::Tell(Reason::Unknown));
    }
}
