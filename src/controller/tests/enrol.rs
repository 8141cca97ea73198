//! Tokens, rotations and revocations, as the controller's handle does them, with agents in memory.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    api::{
        AgentState, Code,
        enrol::{CreateToken, RotateAgent, Taken, TokenState},
    },
    clock,
    controller::{
        directory::Directory,
        enrol::Door,
        testing::{FakeAgent, Site, World, name, soon},
    },
    frame,
    link::{Credential, Dismissal, EnrolRefusal, EnrolRequest, Enrolment, JoinToken, Roster, SecretHash},
    protocol::{
        Open,
        call::{Answer, Call},
    },
    selector::Labels,
};

fn token(uses: u32, ttl_ms: u64) -> CreateToken {
    CreateToken { uses, ttl_ms, labels: Labels::new(), name_prefix: String::new() }
}

const HOUR_MS: u64 = 3_600_000;

fn door(world: &World) -> Door {
    let shared = world.handle.shared();
    Door::new(shared.directory.clone(), shared.store.clone(), shared.fingerprint)
}

fn secrets(directory: &Directory, agent: &str) -> (SecretHash, Option<SecretHash>) {
    let secrets = directory.ask(|registry| registry.secrets(clock::unix_ms(), &name(agent))).expect("known");
    (secrets.newest, secrets.older)
}

/// Takes the credential that the controller tells, or refuses it.
async fn told(agent: &mut FakeAgent, answer: Answer) -> Credential {
    let (open, mut stream) = agent.accept().await;
    assert_eq!(open, Open::Call(Call::TakeCredential));
    let mut text = String::new();
    soon(stream.recv.read_to_string(&mut text)).await.expect("a body");
    soon(frame::write(&mut stream.send, &answer)).await.expect("answered");
    soon(stream.send.shutdown()).await.expect("ended");
    text.parse().expect("a credential")
}

#[tokio::test]
async fn of_many_that_enrol_at_once_as_many_get_in_as_the_token_says_and_the_next_controller_knows() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let created = world.handle.create_token(token(3, HOUR_MS)).await.expect("created");
    let made: JoinToken = created.token.parse().expect("a token");
    let door = door(&world);
    assert_eq!(door.token_hash(made.id), Some(made.secret_hash()));
    let ask = |n: u8| EnrolRequest { token: made.id, enrolment: Enrolment([n; 16]), name: name(&format!("a{n}")) };
    let results = soon(futures_util::future::join_all((0..8).map(|n| door.enrol(ask(n))))).await;
    let enrolled: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(enrolled.len(), 3);
    assert!(results.iter().all(|r| matches!(r, Ok(_) | Err(EnrolRefusal::Exhausted))), "{results:?}");
    assert_eq!(world.handle.tokens().tokens[0].state, TokenState::Exhausted);

    let again: u8 = enrolled[0].name.as_str()[1..].parse().expect("a number");
    let repeated = soon(door.enrol(ask(again))).await.expect("asked again");
    assert_ne!(repeated.secret_hash(), enrolled[0].secret_hash());
    let next = site.controller().await.expect("took over");
    let directory = next.handle.shared().directory.clone();
    assert_eq!(secrets(&directory, repeated.name.as_str()), (repeated.secret_hash(), None));
    assert_eq!(next.handle.tokens().tokens[0].uses_left, 0);
    assert_eq!(next.handle.agents(&"".parse().expect("selector")).agents.len(), 3);
}

#[tokio::test]
async fn what_a_token_cannot_be_is_refused() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let prefix = |text: &str| CreateToken { name_prefix: text.to_owned(), ..token(1, HOUR_MS) };
    let wrong = [token(0, 1), token(100_001, 1), token(1, 0), token(1, u64::MAX), prefix("-"), prefix(&"x".repeat(64))];
    for wrong in wrong {
        assert_eq!(
            world.handle.create_token(wrong.clone()).await.expect_err("refused").code,
            Code::Invalid,
            "{wrong:?}"
        );
    }
    let made = world.handle.create_token(token(1, HOUR_MS)).await.expect("created");
    let id = made.info.id.parse().expect("an id");
    assert_eq!(world.handle.revoke_token(id).await.expect("revoked").state, TokenState::Revoked);
    let stranger = "0000000000000000".parse().expect("an id");
    assert_eq!(world.handle.revoke_token(stranger).await.expect_err("unknown").code, Code::NotFound);
}

#[tokio::test]
async fn an_agent_that_takes_its_new_secret_without_overlap_has_no_other() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.agent("a").await;
    let directory = world.handle.shared().directory.clone();
    let before = secrets(&directory, "a").0;
    let rotating = async {
        let request = RotateAgent { overlap_ms: 0, show: false };
        world.handle.rotate_agent(&name("a"), request).await.expect("rotated")
    };
    let telling = async {
        let (open, mut stream) = agent.accept().await;
        assert_eq!(open, Open::Call(Call::TakeCredential));
        let mut text = String::new();
        soon(stream.recv.read_to_string(&mut text)).await.expect("a body");
        assert_eq!(secrets(&directory, "a").1, Some(before), "valid until it has answered");
        soon(frame::write(&mut stream.send, &Answer::Ok)).await.expect("answered");
        soon(stream.send.shutdown()).await.expect("ended");
        text.parse::<Credential>().expect("a credential")
    };
    let (rotated, credential) = soon(async { tokio::join!(rotating, telling) }).await;
    assert_eq!((rotated.taken, rotated.credential, rotated.old_until_ms), (Taken::Yes, None, None));
    assert_eq!(secrets(&directory, "a"), (credential.secret_hash(), None));
    // Its session was authenticated by the old secret, and goes on.
    super::super::look(world.handle.shared());
    assert_eq!(*agent.dismissed.borrow(), None);
}

#[tokio::test]
async fn an_agent_that_does_not_take_its_new_secret_goes_when_the_old_one_is_void() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.agent("a").await;
    let directory = world.handle.shared().directory.clone();
    let before = secrets(&directory, "a").0;
    let (a, request) = (name("a"), RotateAgent { overlap_ms: HOUR_MS, show: false });
    let rotating = world.handle.rotate_agent(&a, request.clone());
    let (rotated, _) =
        soon(async { tokio::join!(rotating, told(&mut agent, Answer::Failed("full".to_owned()))) }).await;
    let rotated = rotated.expect("rotated");
    assert!(matches!(&rotated.taken, Taken::No(why) if why.contains("full")), "{rotated:?}");
    let given: Credential = rotated.credential.expect("shown").parse().expect("a credential");
    assert_eq!(secrets(&directory, "a"), (given.secret_hash(), Some(before)));

    // What it has lives on, not what it never got.
    let rotating = world.handle.rotate_agent(&a, request);
    soon(async { tokio::join!(rotating, told(&mut agent, Answer::Failed("full".to_owned()))) })
        .await
        .0
        .expect("rotated");
    assert_eq!(secrets(&directory, "a").1, Some(before));
    let shared = world.handle.shared();
    directory.look(&*shared.endpoints, shared.link.partitions, clock::unix_ms() + 2 * HOUR_MS);
    soon(agent.dismissed.wait_for(|why| *why == Some(Dismissal::SecretVoid))).await.expect("told");
}

#[tokio::test]
async fn a_revoked_agent_loses_its_session_and_a_new_secret_lets_it_in() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.agent("a").await;
    assert!(world.handle.revoke_agent(&name("a")).await.expect("revoked").had_session);
    soon(agent.dismissed.wait_for(|why| *why == Some(Dismissal::Revoked))).await.expect("told");
    assert_eq!(world.handle.agent(&name("a")).expect("listed").state, AgentState::Revoked);
    assert!(door(&world).is_revoked(&name("a")));
    assert_eq!(world.handle.revoke_agent(&name("b")).await.expect_err("unknown").code, Code::UnknownAgent);
    let request = RotateAgent { overlap_ms: HOUR_MS, show: false };
    let rotated = world.handle.rotate_agent(&name("a"), request.clone()).await.expect("rotated");
    assert_eq!((rotated.taken, rotated.old_until_ms), (Taken::Offline, None), "the old one stays void");
    assert!(!door(&world).is_revoked(&name("a")));
    world.connect("a").await;
    assert_eq!(world.handle.rotate_agent(&name("b"), request).await.expect_err("unknown").code, Code::UnknownAgent);
}
