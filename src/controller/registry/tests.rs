//! Decision tables of the registry.

use super::*;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn name(text: &str) -> AgentName {
    text.parse().expect("name")
}

fn added(text: &str, labels: &[(&str, &str)]) -> Event {
    Event::AgentAdded {
        name: name(text),
        secret: SecretHash::of(&[text.len() as u8; 32]),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    }
}

fn profile(labels: &[(&str, &str)]) -> Profile {
    Profile {
        version: "1.2.3".to_owned(),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        pid: 42,
        ..Profile::default()
    }
}

/// A controller with one partition and agent `a`, which has session 1, at a time when silence counts.
struct World {
    registry: Registry,
    now: u64,
    heard: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self { registry: Registry::default(), now: 100, heard: 0 };
        assert_eq!(world.registry.fold(added("a", &[])), Change::Added);
        world.work(15);
        assert!(world.registry.handle_session(secs(world.now), &name("a"), 1, 0, profile(&[])));
        world
    }

    /// Kafka works for `n` seconds: each second a probe comes back.
    fn work(&mut self, n: u64) {
        for _ in 0..n {
            self.now += 1;
            self.registry.handle_probes(secs(self.now), [secs(0)]);
        }
    }

    /// Kafka is away for `n` seconds.
    fn outage(&mut self, n: u64) {
        for age in 1..=n {
            self.now += 1;
            self.registry.handle_probes(secs(self.now), [secs(age)]);
        }
    }

    fn speak(&mut self) {
        self.heard += 1;
        self.registry.handle_heard(secs(self.now), &name("a"), 1, self.heard);
    }

    fn state(&self) -> AgentState {
        self.registry.state(&name("a")).expect("known")
    }
}

#[test]
fn an_agent_is_silent_after_6_s_and_offline_after_15_and_online_when_heard() {
    let mut world = World::new();
    let table = [(5, AgentState::Online), (6, AgentState::Silent), (14, AgentState::Silent), (15, AgentState::Offline)];
    let mut at = 0;
    for (seconds, expected) in table {
        world.work(seconds - at);
        at = seconds;
        assert_eq!(world.state(), expected, "after {seconds} s");
    }
    world.speak();
    assert_eq!(world.state(), AgentState::Online);
    world.work(5);
    assert_eq!(world.state(), AgentState::Online);
}

#[test]
fn a_count_that_does_not_grow_is_no_sign_of_life() {
    let mut world = World::new();
    world.speak();
    world.work(7);
    world.registry.handle_heard(secs(world.now), &name("a"), 1, world.heard);
    world.registry.handle_heard(secs(world.now), &name("a"), 99, world.heard + 1);
    assert_eq!(world.state(), AgentState::Silent);
}

#[test]
fn an_outage_makes_nobody_s_state_worse_however_long_it_is() {
    for (quiet_before, expected) in [(0, AgentState::Online), (5, AgentState::Online), (6, AgentState::Silent)] {
        let mut world = World::new();
        world.work(quiet_before);
        for _ in 0..60 {
            world.outage(10);
            assert_eq!(world.state(), expected, "quiet for {quiet_before} s before");
        }
    }
}

#[test]
fn after_an_outage_silence_counts_only_after_a_quiet_period() {
    let mut world = World::new();
    world.outage(600);
    world.work(QUIET.as_secs() + 1);
    assert_eq!(world.state(), AgentState::Online);
    world.work(6);
    assert_eq!(world.state(), AgentState::Silent, "it had 10 s, and then 6 s more");
}

#[test]
fn a_controller_that_stood_still_takes_it_for_an_outage() {
    let mut world = World::new();
    world.now += 3600;
    world.work(QUIET.as_secs() + 5);
    assert_eq!(world.state(), AgentState::Online);
}

#[test]
fn a_session_s_end_makes_offline_at_once_but_not_in_an_outage() {
    let mut world = World::new();
    world.registry.handle_session_end(secs(world.now), &name("a"), 1);
    assert_eq!(world.state(), AgentState::Offline);

    let mut world = World::new();
    world.outage(1000);
    world.registry.handle_session_end(secs(world.now), &name("a"), 1);
    assert_eq!(world.state(), AgentState::Online, "nobody knows better");
    world.work(QUIET.as_secs());
    assert_eq!(world.state(), AgentState::Online, "it may come back");
    world.work(2);
    assert_eq!(world.state(), AgentState::Offline, "it did not");
}

#[test]
fn the_end_of_an_old_session_does_not_touch_a_new_one() {
    let mut world = World::new();
    assert!(world.registry.handle_session(secs(world.now), &name("a"), 2, 0, profile(&[])));
    world.registry.handle_session_end(secs(world.now), &name("a"), 1);
    assert_eq!(world.state(), AgentState::Online);
    world.registry.handle_session_end(secs(world.now), &name("a"), 2);
    assert_eq!(world.state(), AgentState::Offline);
}

#[test]
fn partitions_have_clocks_of_their_own() {
    let mut registry = Registry::default();
    for agent in ["a", "b"] {
        registry.fold(added(agent, &[]));
    }
    let step = |registry: &mut Registry, now: u64, dead: u64| registry.handle_probes(secs(now), [secs(0), secs(dead)]);
    (1..20).for_each(|now| step(&mut registry, now, 0));
    registry.handle_session(secs(20), &name("a"), 1, 0, profile(&[]));
    registry.handle_session(secs(20), &name("b"), 2, 1, profile(&[]));
    (20..60).for_each(|now| step(&mut registry, now, now - 19));
    assert_eq!(registry.state(&name("a")), Some(AgentState::Offline));
    assert_eq!(registry.state(&name("b")), Some(AgentState::Online));
    assert_eq!(registry.unreachable_partitions(secs(60)), [1]);
    assert!(registry.is_reachable(secs(60), 0) && !registry.is_reachable(secs(60), 1));
    assert_eq!(registry.counts(), AgentCounts { online: 1, silent: 0, offline: 1 });
}

#[test]
fn before_the_first_probe_came_back_nothing_counts() {
    let mut registry = Registry::default();
    registry.handle_probes(secs(5), [Duration::MAX]);
    assert_eq!(registry.unreachable_partitions(secs(5)), [0]);
    registry.handle_probes(secs(6), [secs(0)]);
    assert_eq!(registry.unreachable_partitions(secs(6)), [0u32; 0]);
}

#[test]
fn a_removed_agent_is_remembered_until_it_is_added_again() {
    let mut world = World::new();
    let first = SecretHash::of(&[1; 32]);
    assert_eq!(world.registry.fold(Event::AgentRemoved { name: name("a") }), Change::Removed(Some(1)));
    assert_eq!(world.registry.fold(Event::AgentRemoved { name: name("a") }), Change::Nothing);
    assert_eq!(world.registry.state(&name("a")), None);
    assert!(world.registry.is_removed(&name("a")));
    assert_eq!(world.registry.secrets(0, &name("a")), Some(first.into()));
    assert!(!world.registry.handle_session(secs(world.now), &name("a"), 2, 0, profile(&[])));

    assert_eq!(world.registry.fold(added("a", &[])), Change::Added);
    assert!(!world.registry.is_removed(&name("a")));
    assert_eq!(world.state(), AgentState::Offline);
}

#[test]
fn the_first_of_two_additions_wins() {
    let mut registry = Registry::default();
    assert_eq!(registry.fold(added("a", &[("zone", "a")])), Change::Added);
    assert_eq!(registry.fold(added("a", &[("zone", "b")])), Change::Nothing);
    assert_eq!(registry.agent(secs(0), &name("a")).expect("known").labels["zone"], "a");
    assert_eq!(registry.secrets(0, &name("b")), None);
}

#[test]
fn given_labels_win_over_the_host_s_and_selectors_see_both() {
    let mut registry = Registry::default();
    registry.fold(added("a", &[("zone", "given")]));
    registry.fold(added("b", &[]));
    registry.handle_session(secs(1), &name("a"), 1, 0, profile(&[("zone", "own"), ("os", "linux")]));
    let agent = registry.agent(secs(3), &name("a")).expect("known");
    assert_eq!((agent.labels["zone"].as_str(), agent.labels["os"].as_str()), ("given", "linux"));
    assert_eq!((agent.version.as_deref(), agent.pid, agent.last_heard_ms), (Some("1.2.3"), Some(42), Some(2000)));
    for (selector, expected) in
        [("", &["a", "b"][..]), ("os=linux", &["a"]), ("zone=own", &[]), ("zone=given", &["a"]), ("!os", &["b"])]
    {
        let selector = selector.parse().expect("selector");
        let names: Vec<_> = registry.agents(secs(3), &selector).into_iter().map(|a| a.name.to_string()).collect();
        assert_eq!(names, expected, "{selector}");
    }
}

mod enrolment {
    use super::*;
    use crate::link::EnrolRefusal;

    const T: TokenId = TokenId([1; 8]);
    const HASH: SecretHash = SecretHash([7; 32]);

    fn token(uses: u32) -> Token {
        Token {
            secret: HASH,
            uses,
            used: 0,
            created_ms: 1000,
            expires_ms: 2000,
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            name_prefix: "b".to_owned(),
            revoked: false,
        }
    }

    fn asks(text: &str, who: u8) -> EnrolRequest {
        EnrolRequest { token: T, enrolment: Enrolment([who; 16]), name: name(text) }
    }

    fn used(text: &str, who: u8, secret: u8) -> Event {
        let EnrolRequest { token, enrolment, name } = asks(text, who);
        Event::TokenUsed { token, enrolment, name, secret: SecretHash([secret; 32]) }
    }

    fn with_token(uses: u32) -> Registry {
        let mut registry = Registry::default();
        registry.fold(Event::TokenCreated { id: T, token: token(uses) });
        registry
    }

    #[test]
    fn a_token_enrols_as_many_as_it_may_and_says_why_not() {
        let mut registry = with_token(2);
        assert_eq!(registry.judge_enrolment(1999, &asks("b1", 1)), Ok(()));
        assert_eq!(registry.judge_enrolment(2000, &asks("b1", 1)), Err(EnrolRefusal::Expired));
        let prefix = EnrolRefusal::NamePrefix("b".to_owned());
        assert_eq!(registry.judge_enrolment(1500, &asks("a1", 1)), Err(prefix));
        let (admitted, labels) = registry.admits(&used("b1", 1, 1)).map(|(n, l)| (n.clone(), l.clone())).expect("new");
        assert_eq!((admitted, labels["zone"].as_str()), (name("b1"), "a"));
        assert_eq!(registry.fold(used("b1", 1, 1)), Change::Added);
        assert_eq!(registry.judge_enrolment(1500, &asks("b1", 2)), Err(EnrolRefusal::NameTaken));
        assert_eq!(registry.fold(used("b1", 2, 9)), Change::Nothing);
        assert_eq!(registry.secrets(0, &name("b1")), Some(SecretHash([1; 32]).into()), "the first has the name");
        assert_eq!(registry.fold(used("b2", 2, 2)), Change::Added);
        assert_eq!(registry.judge_enrolment(1500, &asks("b3", 3)), Err(EnrolRefusal::Exhausted));
        assert_eq!(registry.fold(used("b3", 3, 3)), Change::Nothing);
        assert_eq!(registry.state(&name("b3")), None);
        assert_eq!(registry.agent(secs(0), &name("b2")).expect("enrolled").labels["zone"], "a");
        registry.fold(Event::TokenRevoked { id: T });
        assert_eq!(registry.judge_enrolment(1500, &asks("b1", 1)), Err(EnrolRefusal::Revoked));
        assert_eq!(registry.admits(&used("b4", 4, 4)), None);
        let stranger = EnrolRequest { token: TokenId([2; 8]), ..asks("b1", 1) };
        assert_eq!(registry.judge_enrolment(1500, &stranger), Err(EnrolRefusal::Unknown));
    }

    #[test]
    fn who_asks_again_gets_another_secret_and_uses_nothing() {
        let mut registry = with_token(1);
        registry.fold(used("b1", 1, 1));
        assert_eq!(registry.judge_enrolment(1500, &asks("b1", 1)), Ok(()));
        assert_eq!(registry.admits(&used("b1", 1, 2)), None, "it is there already");
        registry.fold(used("b1", 1, 2));
        assert_eq!(registry.secrets(0, &name("b1")), Some(SecretHash([2; 32]).into()));
        assert_eq!(registry.token(T).expect("known").used, 1);
        // A secret that an operator gave is not displaced, nor an agent of the same name that is another.
        registry.fold(Event::AgentRotated { name: name("b1"), secret: HASH, kept: None });
        assert_eq!(registry.judge_enrolment(1500, &asks("b1", 1)), Err(EnrolRefusal::Exhausted));
        registry.fold(used("b1", 1, 3));
        assert_eq!(registry.secrets(0, &name("b1")), Some(HASH.into()));
    }

    #[test]
    fn the_secret_before_is_valid_until_its_time_or_until_it_is_retired() {
        let mut registry = Registry::default();
        registry.fold(added("a", &[]));
        let (old, new) = (SecretHash::of(&[1; 32]), SecretHash([2; 32]));
        let rotated = Event::AgentRotated { name: name("a"), secret: new, kept: Some((old, 5000)) };
        registry.fold(rotated.clone());
        let at = |registry: &Registry, now_ms| registry.secrets(now_ms, &name("a")).expect("known");
        assert_eq!((at(&registry, 4999).newest, at(&registry, 4999).older), (new, Some(old)));
        assert_eq!(at(&registry, 5000), new.into());
        registry.fold(Event::AgentSecretRetired { name: name("a"), secret: old });
        assert_eq!(at(&registry, 0).older, Some(old), "that was about another secret");
        registry.fold(Event::AgentSecretRetired { name: name("a"), secret: new });
        assert_eq!(at(&registry, 0), new.into());
    }

    #[test]
    fn a_revoked_agent_stays_listed_and_out_until_it_is_rotated() {
        let mut world = World::new();
        assert_eq!(world.registry.fold(Event::AgentRevoked { name: name("a") }), Change::Revoked(Some(1)));
        assert_eq!(world.registry.fold(Event::AgentRevoked { name: name("a") }), Change::Nothing);
        assert_eq!(world.registry.agent(secs(0), &name("a")).expect("listed").state, AgentState::Revoked);
        assert_eq!(world.state(), AgentState::Offline, "nobody gives it work");
        assert!(!world.registry.handle_session(secs(world.now), &name("a"), 2, 0, profile(&[])));
        world.registry.fold(Event::AgentRotated { name: name("a"), secret: HASH, kept: None });
        assert!(!world.registry.is_revoked(&name("a")));
        assert!(world.registry.handle_session(secs(world.now), &name("a"), 3, 0, profile(&[])));
    }

    #[test]
    fn a_token_is_forgotten_a_week_after_its_end() {
        let mut registry = with_token(1);
        let week = 7 * 24 * 3600 * 1000;
        let later = |n, at| (TokenId([n; 8]), Token { created_ms: at, expires_ms: at + 1, ..token(1) });
        for (n, at, remembered) in [(2, 2000 + week - 1, true), (3, 2000 + week, false)] {
            let (id, token) = later(n, at);
            registry.fold(Event::TokenCreated { id, token });
            assert_eq!(registry.token_hash(T).is_some(), remembered);
        }
    }

    #[test]
    fn a_snapshot_folds_to_the_same_tokens_secrets_and_revocations() {
        let mut registry = with_token(3);
        registry.fold(added("a", &[("k", "v")]));
        registry.fold(used("b1", 1, 1));
        registry.fold(used("b2", 2, 2));
        let kept = Some((SecretHash::of(&[1; 32]), 5000));
        registry.fold(Event::AgentRotated { name: name("a"), secret: HASH, kept });
        registry.fold(Event::AgentRevoked { name: name("b2") });
        registry.fold(Event::TokenCreated { id: TokenId([2; 8]), token: Token { expires_ms: 9000, ..token(9) } });
        registry.fold(Event::TokenRevoked { id: TokenId([2; 8]) });

        let mut again = Registry::default();
        for event in registry.snapshot() {
            again.fold(Event::decode(&event.encode()).expect("own bytes"));
        }
        assert_eq!(again.snapshot().collect::<Vec<_>>(), registry.snapshot().collect::<Vec<_>>());
        for agent in ["a", "b1", "b2"] {
            assert_eq!(again.secrets(0, &name(agent)), registry.secrets(0, &name(agent)));
            assert_eq!(again.is_revoked(&name(agent)), agent == "b2");
        }
        assert_eq!(again.judge_enrolment(1500, &asks("b1", 1)), Ok(()), "it may ask again");
        assert_eq!(again.judge_enrolment(1500, &asks("b2", 2)), Err(EnrolRefusal::NameTaken), "this one not");
        assert_eq!(again.tokens().map(|(_, t)| (t.used, t.revoked)).collect::<Vec<_>>(), [(2, false), (0, true)]);
    }
}
