//! Who gets what, and when.

use super::{super::*, world::*};
use crate::job::{Hidden, Spec, State, Target};

#[test]
fn a_job_goes_to_an_agent_that_fits_and_is_told_only_when_that_was_read_back() {
    let mut world = World::with(&[("a", "os=linux", 1), ("b", "os=plan9", 1)]);
    let id = JobId::new(START_MS, 1);
    let submit = world.s.submit(world.now(), id, on("os=plan9"), Hidden::new([1; 32]), None).expect("good");
    assert_eq!(world.s.counts(), Counts::default(), "a command changes nothing");
    world.apply(&submit).expect("new");
    let assigned = world.s.poll_event().expect("there is room");
    assert_eq!((world.s.poll_action(), world.state(id)), (None, State::Queued));
    assert_eq!(world.waiting(id), Some(Waiting::Placing(name("b"))));
    world.apply(&assigned).expect("true");
    world.settle();
    assert_eq!(world.told(), ["b start 1/1"]);
    world.finish(id, 3);
    assert_eq!((world.state(id), world.told()), (State::Failed(3), vec!["b release 1/1".to_owned()]));
}

#[test]
fn the_agent_with_the_most_room_is_taken() {
    let mut world = World::with(&[("a", "", 2), ("b", "", 4)]);
    let ids: Vec<_> = (0..6).map(|_| world.submit(any())).collect();
    let agents: Vec<_> = ids.into_iter().map(|id| world.holder(id).expect("room")).collect();
    assert_eq!(agents, ["b", "b", "a", "b", "a", "b"]);
    let id = world.submit(any());
    assert_eq!(world.waiting(id), Some(Waiting::Slots));
}

#[test]
fn a_named_agent_is_waited_for_and_an_unknown_one_refused() {
    let mut world = World::with(&[("a", "", 1)]);
    world.add("b", "");
    let to = |agent: &str| Spec { target: Target::Agent(name(agent)), ..any() };
    let id = world.submit(to("b"));
    assert_eq!(world.waiting(id), Some(Waiting::Unreachable));
    world.come("b", "", 1, vec![]);
    assert_eq!(world.holder(id).as_deref(), Some("b"));
    let refused = world.s.submit(world.now(), JobId::new(1, 1), to("c"), Hidden::new([0; 32]), None);
    assert_eq!(refused, Err(Refusal::UnknownAgent(name("c"))));
}

#[test]
fn the_greater_priority_goes_first_and_then_the_older() {
    let mut world = World::with(&[("a", "", 1)]);
    let first = world.submit(any());
    let low = world.submit(Spec { priority: 1, ..any() });
    let [one, two] = [world.submit(any()), world.submit(any())];
    let high = world.submit(Spec { priority: 9, ..on("!gpu") });
    let mut order = vec![];
    let mut running = first;
    for _ in 0..4 {
        world.finish(running, 0);
        let next = [low, one, two, high].into_iter().find(|id| world.holder(*id).is_some()).expect("one runs");
        order.push(next);
        running = next;
    }
    assert_eq!(order, [high, one, two, low]);
}

#[test]
fn who_has_the_fewest_jobs_under_way_is_served_first() {
    let mut world = World::with(&[("a", "", 3)]);
    let anns: Vec<_> = (0..6).map(|_| world.submit(of("ann"))).collect();
    let bobs: Vec<_> = (0..2).map(|_| world.submit(of("bob"))).collect();
    world.finish(anns[0], 0);
    assert!(world.holder(bobs[0]).is_some(), "bob has none, ann has two");
    world.finish(anns[1], 0);
    assert!(world.holder(anns[3]).is_some(), "both have one, and bob was served last");
    world.finish(anns[2], 0);
    assert!(world.holder(bobs[1]).is_some(), "both have one, and ann was served last");
    world.finish(bobs[0], 0);
    assert!(world.holder(anns[4]).is_some(), "bob has no more");
}

#[test]
fn a_flood_of_one_submitter_leaves_others_every_second_turn() {
    let mut world = World::with(&[("a", "", 1)]);
    let mut flood = (0..1000).map(|_| world.submit(of("ann"))).collect::<Vec<_>>().into_iter();
    world.finish(flood.next().expect("many"), 0);
    // Who comes for the first time counts as served just now: one more of ann's goes first.
    let mut bob = world.submit(of("bob"));
    world.finish(flood.next().expect("many"), 0);
    for _ in 0..10 {
        world.finish(flood.next().expect("many"), 0);
        assert!(world.holder(bob).is_some());
        world.finish(bob, 0);
        bob = world.submit(of("bob"));
    }
}

#[test]
fn many_who_submit_one_job_at_a_time_starve_nobody() {
    let mut world = World::with(&[("a", "", 1)]);
    let names: Vec<String> = (0..20).map(|i| format!("user{i}")).collect();
    let mut waiting: Vec<JobId> = names.iter().map(|name| world.submit(of(name))).collect();
    let mut turns = vec![0; names.len()];
    for _ in 0..200 {
        let n = waiting.iter().position(|id| world.holder(*id).is_some()).expect("one runs");
        turns[n] += 1;
        world.finish(waiting[n], 0);
        waiting[n] = world.submit(of(&names[n]));
    }
    assert!(turns.iter().all(|turns| (9..=11).contains(turns)), "{turns:?}");
}

#[test]
fn of_a_concurrency_key_one_is_under_way_and_others_are_not_held_up() {
    let mut world = World::with(&[("a", "os=linux", 3)]);
    world.add("b", "os=plan9");
    let elsewhere = world.submit(Spec { concurrency: Some("k".to_owned()), ..on("os=plan9") });
    let first = world.submit(keyed("k"));
    assert!(world.holder(first).is_some(), "one that can't go does not hold the key");
    let [second, other, free] = [world.submit(keyed("k")), world.submit(keyed("l")), world.submit(any())];
    assert_eq!(world.waiting(second), Some(Waiting::Concurrency(first)));
    assert!(world.holder(other).is_some() && world.holder(free).is_some());
    world.come("b", "os=plan9", 1, vec![]);
    assert_eq!(world.waiting(elsewhere), Some(Waiting::Concurrency(first)));
    world.finish(first, 0);
    assert!(world.holder(elsewhere).is_some(), "it is older");
    world.check();
    world.finish(elsewhere, 1);
    assert!(world.holder(second).is_some());
    for id in [second, other, free] {
        world.finish(id, 0);
    }
    assert!(world.s.queue.is_clean());
}

#[test]
fn a_drained_agent_gets_nothing_and_keeps_what_it_has() {
    let mut world = World::with(&[("a", "", 2)]);
    let running = world.submit(any());
    let drain = world.s.drain(&name("a"), "op").expect("known");
    world.apply(&drain).expect("true");
    world.settle();
    let waits = world.submit(any());
    assert_eq!(world.waiting(waits), Some(Waiting::Drained));
    assert_eq!(world.holder(running).as_deref(), Some("a"));
    world.come("a", "", 2, vec![(running, 1, started())]);
    assert_eq!(world.holder(waits), None, "a new session does not end it");
    let resume = world.s.resume(&name("a")).expect("known");
    world.apply(&resume).expect("true");
    world.settle();
    assert!(world.holder(waits).is_some());
}

#[test]
fn an_agent_that_drains_itself_gets_nothing_until_it_comes_back() {
    let mut world = World::with(&[("a", "", 1)]);
    world.s.handle_draining(world.now(), &name("a"), true);
    let id = world.submit(any());
    assert_eq!(world.holder(id), None);
    world.come("a", "", 1, vec![]);
    assert!(world.holder(id).is_some());
}

#[test]
fn what_waits_is_cancelled_at_once_and_what_runs_by_its_agent() {
    let mut world = World::with(&[("a", "", 1)]);
    let [runs, waits] = [world.submit(any()), world.submit(any())];
    world.told();
    world.cancel(waits);
    assert_eq!((world.state(waits), world.told().len()), (State::Cancelled, 0));
    world.report("a", runs, 1, started());
    world.cancel(runs);
    assert_eq!((world.state(runs), world.told()), (State::Running, vec!["a cancel 15 1/1".to_owned()]));
    let outcome = crate::job::Outcome::Cancelled;
    let (stdout, stderr) = Default::default();
    world.report("a", runs, 1, Report::Ended { agent_ms: 1, outcome, stdout, stderr });
    assert_eq!((world.state(runs), world.told()), (State::Cancelled, vec!["a release 1/1".to_owned()]));
    let refused = world.s.cancel(world.now(), runs, "bob", None);
    assert_eq!(refused, Err(Refusal::Ended(runs, State::Cancelled)));
    assert!(world.s.queue.is_clean());
}

#[test]
fn a_cancel_that_crosses_the_assignment_wins_and_gives_the_place_free() {
    let mut world = World::with(&[("a", "", 1)]);
    let id = JobId::new(START_MS, 99);
    let submit = world.s.submit(world.now(), id, keyed("k"), Hidden::new([1; 32]), None).expect("good");
    world.apply(&submit).expect("new");
    let cancel = world.s.cancel(world.now(), id, "bob", None).expect("live");
    let assigned = world.s.poll_event().expect("decided");
    world.apply(&cancel).expect("queued");
    let next = world.submit(keyed("k"));
    assert_eq!(world.holder(next), None, "the place is not free yet");
    world.apply(&assigned).expect("late, and harmless");
    world.settle();
    assert_eq!(world.state(id), State::Cancelled);
    assert!(world.holder(next).is_some());
    assert_eq!(world.told(), ["a start 1/1"], "the cancelled one, 99, was never told");
}

#[test]
fn too_much_is_refused_with_what_to_do() {
    let config = Config { queued: 3, targets: 2, live_weight: 20_000, ..Config::default() };
    let mut world = World::new(config);
    world.submit(on("a=1"));
    world.submit(on("a=2"));
    let submit = |world: &World, spec| world.s.submit(world.now(), JobId::new(1, 1), spec, Hidden::new([0; 32]), None);
    let message = |result: Result<Event, Refusal>| result.expect_err("full").to_string();
    assert!(message(submit(&world, on("a=3"))).contains("2 different targets"));
    let heavy = Spec { env: [("A".to_owned(), "x".repeat(20_000))].into(), ..on("a=2") };
    assert!(message(submit(&world, heavy)).contains("bytes already"));
    world.submit(on("a=2"));
    let text = message(submit(&world, on("a=1")));
    assert!(text.contains("3 jobs wait") && text.contains("try again"), "{text}");
}

#[test]
fn an_ended_job_is_repeated_as_a_new_one() {
    let mut world = World::with(&[("a", "", 1)]);
    let old = world.submit(any());
    let retry = |world: &World| world.s.retry(world.now(), old, JobId::new(START_MS, 77), Hidden::new([7; 32]));
    assert_eq!(retry(&world), Err(Refusal::NotEnded(old, State::Assigned)));
    world.finish(old, 1);
    let event = retry(&world).expect("ended");
    world.apply(&event).expect("new");
    world.settle();
    let new = world.s.job(JobId::new(START_MS, 77)).expect("there");
    assert_eq!((new.retry_of(), new.spec()), (Some(old), &any()));
    assert_eq!(world.state(old), State::Failed(1), "the old one stays as it ended");
}

#[test]
fn ended_jobs_are_forgotten_by_number_and_by_age_and_their_room_is_bounded() {
    let config = Config { keep_jobs: 100, keep: secs(3600), keep_weight: 5000, ..Config::default() };
    let mut world = World::new(config);
    let mut ids = vec![];
    for _ in 0..300 {
        let id = world.submit(any());
        world.cancel(id);
        ids.push(id);
        assert!(world.s.counts().ended <= 100);
    }
    assert!(world.s.job(ids[0]).is_none() && world.s.job(ids[299]).is_some());
    let whole = world.s.jobs().filter(|(_, job)| !job.is_trimmed()).count();
    assert!((1..50).contains(&whole), "{whole}");
    let trimmed = world.s.jobs().find(|(_, job)| job.is_trimmed()).expect("some").0;
    let refused = world.s.retry(world.now(), trimmed, JobId::new(1, 1), Hidden::new([0; 32]));
    assert_eq!(refused, Err(Refusal::Trimmed(trimmed)));
    let alive = world.submit(any());
    world.wait(secs(3601));
    assert_eq!(world.s.counts(), Counts { queued: 1, ..Counts::default() });
    assert!(world.s.job(alive).is_some());
}
