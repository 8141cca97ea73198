//! Enrolment over the whole link, and secrets that change under a session.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use futures_util::future::{BoxFuture, join_all};

use super::pair::*;
use crate::{
    id::AgentName,
    link::{
        Config, Credential, Dismissal, EnrolRefusal, EnrolRequest, Enrolment, Fingerprint, Held, JoinToken, Lane,
        LinkError, Listener, Profile, Roster, SecretHash, Secrets, TokenId, enrol,
    },
};

/// A controller that enrols up to `left` names by one token.
struct Enroller {
    token: JoinToken,
    left: Mutex<usize>,
    names: Mutex<BTreeSet<AgentName>>,
}

impl Roster for Enroller {
    fn secrets(&self, _: &AgentName) -> Option<Secrets> {
        None
    }

    fn is_removed(&self, _: &AgentName) -> bool {
        false
    }

    fn token_hash(&self, id: TokenId) -> Option<SecretHash> {
        (id == self.token.id).then(|| self.token.secret_hash())
    }

    fn enrol(&self, request: EnrolRequest) -> BoxFuture<'_, Result<Credential, EnrolRefusal>> {
        Box::pin(async move {
            let mut left = self.left.lock().expect("lock");
            *left = left.checked_sub(1).ok_or(EnrolRefusal::Exhausted)?;
            self.names.lock().expect("lock").insert(request.name.clone());
            Ok(Credential::generate(request.name, self.token.controller))
        })
    }
}

async fn enroller(world: &World, left: usize) -> (Listener, Arc<Enroller>) {
    let token = JoinToken::generate(world.identity.fingerprint());
    let roster = Arc::new(Enroller { token, left: Mutex::new(left), names: Mutex::default() });
    let (cluster, config) = (world.cluster.clone(), world.config.clone());
    let opened = Listener::open(cluster, config, world.identity.clone(), 1, roster.clone()).await;
    (opened.expect("listener").0, roster)
}

async fn ask(world: &World, token: &JoinToken, n: u8) -> Result<Credential, LinkError> {
    let name = format!("a{n}").parse().expect("name");
    let config = Config { seed: world.config.seed.map(|seed| seed + u64::from(n)), ..world.config.clone() };
    // As an agent does, until there is an answer.
    loop {
        match enrol(world.cluster.clone(), config.clone(), token, &name, Enrolment([n; 16]), 1).await {
            Err(LinkError::NoAnswer(_) | LinkError::Ended(_)) => {}
            answered => return answered,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_enrol_with_one_token_at_once_and_the_rest_are_told_why_not() {
    let world = World::new(Arc::new(memory(2)), 1, 2);
    let (_listener, roster) = enroller(&world, 20).await;
    let answers = join_all((0..24).map(|n| ask(&world, &roster.token, n))).await;
    let enrolled = answers.iter().filter_map(|answer| answer.as_ref().ok());
    let names: BTreeSet<AgentName> = enrolled.map(|credential| credential.name.clone()).collect();
    assert_eq!(names.len(), 20);
    assert_eq!(names, *roster.names.lock().expect("lock"));
    for answer in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert!(matches!(answer, LinkError::NotEnrolled(why) if why.contains("no uses left")), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_no_token_of_this_controller_is_told_so() {
    let world = World::new(Arc::new(memory(1)), 1, 1);
    let (_listener, roster) = enroller(&world, 1).await;
    let unknown = JoinToken::generate(world.identity.fingerprint());
    let mut forged = roster.token.clone();
    forged.secret = unknown.secret.clone();
    for token in [&unknown, &forged] {
        let error = ask(&world, token, 1).await.expect_err("refused");
        assert!(matches!(&error, LinkError::NotEnrolled(why) if why.contains("does not know join token")), "{error}");
    }
    let mut elsewhere = roster.token.clone();
    elsewhere.controller = Fingerprint([9; 32]);
    let error = ask(&world, &elsewhere, 1).await.expect_err("refused");
    assert!(matches!(error, LinkError::AnotherController { .. }), "{error}");
    assert_eq!(*roster.left.lock().expect("lock"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_secret_serves_the_lanes_that_a_session_dials_later() {
    let world = World::new(Arc::new(memory(2)), 1, 2);
    let (_listener, mut sessions) = world.listen(1).await;
    let credential = world.admit("a");
    let held = Held::from(credential.clone());
    let dialer =
        crate::link::Dialer::open(world.cluster.clone(), world.config.clone(), held.clone(), Profile::default(), 1);
    tokio::spawn(live(dialer.await.expect("dialer")));
    let session = sessions.recv().await.expect("session");
    assert_eq!(session.secret(), credential.secret_hash());
    let new = world.admit("a");
    held.replace(new.clone());
    round_trip(&session, Lane::Bulk, 1, 1000).await.expect("the bulk lane opens with the new secret");
    session.dismiss(Dismissal::SecretVoid);
    let session = sessions.recv().await.expect("it comes back");
    assert_eq!(session.secret(), new.secret_hash());
}

#[tokio::test(start_paused = true)]
async fn a_revoked_session_ends_with_the_reason() {
    let world = World::new(Arc::new(memory(1)), 1, 1);
    let (_listener, mut sessions) = world.listen(1).await;
    let dialer = world.dial(&world.admit("a"), 1).await;
    let session = dialer.connect().await.expect("connected");
    sessions.recv().await.expect("session").dismiss(Dismissal::Revoked);
    let error = echo(session).await;
    assert!(matches!(&error, LinkError::Revoked(name) if name == "a"), "{error}");
}
