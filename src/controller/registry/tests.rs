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
