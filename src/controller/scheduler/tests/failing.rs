//! Agents that go, come back, and have forgotten or kept too much.

use super::{super::*, world::*};
use crate::job::{LogPlace, Loss, Returned, Spec, State, Target};

fn retried(n: u8) -> Spec {
    Spec { retries: n, ..any() }
}

#[test]
fn an_agent_that_is_gone_keeps_its_job_and_gets_nothing_new() {
    let mut world = World::with(&[("a", "", 2)]);
    let runs = world.submit(retried(3));
    world.report("a", runs, 1, started());
    world.go("a");
    let waits = world.submit(any());
    world.wait(secs(1_000_000));
    assert_eq!((world.state(runs), world.s.view(runs).expect("known").unreachable), (State::Running, true));
    assert_eq!(world.waiting(waits), Some(Waiting::Unreachable));
    world.told();
    world.come("a", "", 2, vec![(runs, 1, exited(0))]);
    assert_eq!(world.state(runs), State::Succeeded);
    assert_eq!(world.told(), ["a release 1/1", "a start 2/1"]);
}

#[test]
fn a_silent_agent_gets_nothing_new() {
    let mut world = World::with(&[("a", "", 2)]);
    world.s.handle_presence(world.now(), &name("a"), crate::api::AgentState::Silent);
    let id = world.submit(any());
    assert_eq!(world.holder(id), None);
    world.s.handle_presence(world.now(), &name("a"), crate::api::AgentState::Online);
    world.settle();
    assert!(world.holder(id).is_some());
}

/// Whether it runs, whether it is to be cancelled, what the agent has; what it is told, and the state after that.
type Row = (bool, bool, Option<Report>, &'static [&'static str], State);

#[test]
fn what_an_agent_is_told_again_depends_on_what_it_has() {
    // What the journal says, what the agent has, and what follows.
    #[rustfmt::skip]
    let table: [Row; 8] = [
        (false, false, None,                    &["a start 1/1"],     State::Assigned),
        (false, false, Some(Report::Claimed),   &[],                  State::Assigned),
        (false, false, Some(started()),         &[],                  State::Running),
        (false, true,  None,                    &["a release 1/1"],   State::Cancelled),
        (true,  false, None,                    &[],                  State::Lost(Loss::NoTrace)),
        (true,  false, Some(started()),         &[],                  State::Running),
        (true,  true,  Some(started()),         &["a cancel 15 1/1"], State::Running),
        (true,  false, Some(Report::Lost(Loss::HostRebooted)), &["a release 1/1"], State::Lost(Loss::HostRebooted)),
    ];
    for (running, cancelled, has, told, state) in table {
        let mut world = World::with(&[("a", "", 1)]);
        let id = world.submit(any());
        if running {
            world.report("a", id, 1, started());
        }
        world.go("a");
        if cancelled {
            world.cancel(id);
        }
        world.told();
        let row = format!("running {running}, cancelled {cancelled}, has {has:?}");
        world.come("a", "", 1, has.into_iter().map(|report| (id, 1, report)).collect());
        assert_eq!((world.told(), world.state(id)), (told.iter().map(|s| (*s).to_owned()).collect(), state), "{row}");
    }
}

#[test]
fn a_loss_is_repeated_as_often_as_the_job_allows() {
    let mut world = World::with(&[("a", "", 1)]);
    let id = world.submit(retried(1));
    world.report("a", id, 1, started());
    world.report("a", id, 1, Report::Lost(Loss::ShimGone));
    assert_eq!((world.state(id), world.s.job(id).expect("known").attempt()), (State::Assigned, 2));
    assert_eq!(world.told(), ["a start 1/1", "a release 1/1", "a start 1/2"]);
    world.report("a", id, 1, started());
    assert_eq!(world.told(), ["a cancel 15 1/1"], "the old attempt is not wanted any more");
    world.report("a", id, 2, Report::Lost(Loss::HostRebooted));
    assert_eq!(world.state(id), State::Lost(Loss::HostRebooted));
    world.report("a", id, 2, exited(0));
    assert_eq!(world.state(id), State::Lost(Loss::HostRebooted), "a late end changes nothing");
}

#[test]
fn what_was_given_back_goes_elsewhere_however_often_and_its_agent_rests() {
    let mut world = World::with(&[("a", "", 5), ("b", "", 1)]);
    let id = world.submit(any());
    world.report("a", id, 1, given_back());
    assert_eq!(world.holder(id).as_deref(), Some("b"));
    world.report("b", id, 2, given_back());
    assert_eq!(world.holder(id), None);
    world.wait(PAUSE);
    assert_eq!(world.holder(id).as_deref(), Some("a"));
    assert_eq!(world.s.job(id).expect("known").retries_left(), 0, "it never ran");
    world.report("a", id, 3, started());
    world.report("a", id, 3, given_back());
    assert_eq!(world.state(id), State::Running, "it did run");
}

#[test]
fn an_agent_that_goes_before_it_was_told_never_had_the_job() {
    let mut world = World::with(&[("a", "", 1)]);
    let id = JobId::new(START_MS, 1);
    let key = crate::job::Hidden::new([1; 32]);
    let submit = world.s.submit(world.now(), id, any(), key, None).expect("good");
    world.apply(&submit).expect("new");
    world.s.handle_session_end(world.now(), &name("a"));
    world.settle();
    assert_eq!((world.state(id), world.told()), (State::Queued, vec![]));
    let returned = crate::job::Event::Returned { at_ms: 0, attempt: 1, reason: Returned::NeverTold };
    let is_returned = |event: &Event| matches!(event, Event::Job { event, .. } if event.attempt() == Some(1) && std::mem::discriminant(event) == std::mem::discriminant(&returned));
    assert!(world.journal.iter().any(is_returned));
}

#[test]
fn only_an_operator_s_deadline_makes_the_job_of_an_unreachable_agent_lost() {
    let mut world = World::with(&[("a", "", 1)]);
    let id = world.submit(any());
    world.report("a", id, 1, started());
    world.go("a");
    world.wait(secs(1000));
    let set = world.s.set_deadline(world.now(), id, "op", Some(secs(1060))).expect("live");
    world.apply(&set).expect("live");
    world.settle();
    world.wait(secs(59));
    assert_eq!(world.state(id), State::Running, "it counts from when the agent went");
    world.wait(secs(1));
    assert_eq!(world.state(id), State::Lost(Loss::Deadline));
    assert!(world.s.queue.is_clean() && world.s.deadlines.is_clean());
    world.told();
    world.come("a", "", 1, vec![(id, 1, started())]);
    assert_eq!(world.told(), ["a cancel 15 1/1"], "nobody accounts for it any more");
    let next = world.submit(any());
    assert_eq!(world.holder(next), None, "it still takes the slot");
    world.report("a", id, 1, exited(0));
    assert_eq!(world.told(), ["a release 1/1", "a start 2/1"]);
    assert_eq!(world.state(id), State::Lost(Loss::Deadline));
}

#[test]
fn an_agent_that_is_back_in_time_stops_the_deadline() {
    let mut world = World::new(Config { deadline: Some(secs(60)), ..Config::default() });
    world.add("a", "");
    world.come("a", "", 1, vec![]);
    let id = world.submit(any());
    for _ in 0..5 {
        world.go("a");
        world.wait(secs(40));
        world.come("a", "", 1, vec![(id, 1, started())]);
    }
    world.wait(secs(1000));
    assert_eq!(world.state(id), State::Running);
    assert!(world.s.deadlines.is_clean());
}

#[test]
fn an_outage_and_the_time_after_it_count_for_no_deadline() {
    let mut world = World::new(Config { deadline: Some(secs(60)), ..Config::default() });
    world.add("a", "");
    world.come("a", "", 1, vec![]);
    let id = world.submit(any());
    world.wait(secs(20));
    world.go("a");
    world.wait(secs(50));
    world.outage(false);
    world.wait(secs(100_000));
    world.outage(true);
    world.wait(super::super::super::registry::QUIET + secs(9));
    assert_eq!(world.state(id), State::Assigned);
    world.wait(secs(1));
    assert_eq!(world.state(id), State::Lost(Loss::Deadline));
}

#[test]
fn after_an_outage_an_agent_gets_nothing_until_it_was_heard() {
    let mut world = World::with(&[("a", "", 1), ("b", "", 1)]);
    world.outage(false);
    let id = world.submit(any());
    assert_eq!(world.holder(id), None, "nobody is reached");
    world.s.handle_heard(world.now(), &name("a"));
    world.outage(true);
    assert_eq!(world.holder(id), None);
    world.s.handle_heard(world.now(), &name("b"));
    world.settle();
    assert_eq!(world.holder(id).as_deref(), Some("b"));
}

#[test]
fn a_removed_agent_s_jobs_are_lost_and_repeated_if_they_may_be() {
    let mut world = World::with(&[("a", "", 2)]);
    let [once, again] = [world.submit(any()), world.submit(retried(1))];
    world.s.apply_agent_removed(world.now(), &name("a"));
    world.settle();
    assert_eq!((world.state(once), world.state(again)), (State::Lost(Loss::AgentRemoved), State::Queued));
    let named = Spec { target: Target::Agent(name("a")), ..any() };
    assert!(world.s.submit(world.now(), JobId::new(1, 1), named, crate::job::Hidden::new([0; 32]), None).is_err());
}

#[test]
fn another_agent_s_word_about_a_job_does_not_count() {
    let mut world = World::with(&[("a", "", 1), ("b", "x=y", 0)]);
    let id = world.submit(any());
    world.told();
    world.report("b", id, 1, exited(0));
    assert_eq!((world.state(id), world.told()), (State::Assigned, vec!["b release 1/1".to_owned()]));
    world.report("b", id, 1, Report::Logged(LogPlace { partition: 0, first: 0, last: 9 }));
    assert_eq!(world.s.job(id).expect("known").attempts()[&1].log, None);
}

#[test]
fn what_is_repeated_while_it_is_on_its_way_is_journalled_once() {
    let mut world = World::with(&[("a", "", 1)]);
    let id = world.submit(any());
    let before = world.journal.len();
    let place = |last| Report::Logged(LogPlace { partition: 0, first: 1, last });
    for last in 1..100 {
        for report in [started(), place(last), exited(0), Report::Lost(Loss::ShimGone)] {
            world.s.handle_report(world.now(), &name("a"), id, 1, report);
        }
    }
    world.settle();
    assert_eq!(world.journal.len() - before, 4, "started, where its log is twice, ended");
    assert_eq!(world.state(id), State::Succeeded);
    assert_eq!(world.s.job(id).expect("known").attempts()[&1].log.expect("known").last, 99);
}

#[test]
fn a_new_controller_goes_on_where_the_old_one_ended() {
    let mut world = World::with(&[("a", "", 1), ("b", "", 1)]);
    let [one, two, three] = [world.submit(keyed("k")), world.submit(any()), world.submit(keyed("k"))];
    let agents = [world.holder(one).expect("held"), world.holder(two).expect("held")];
    world.report(&agents[0], one, 1, started());
    let events: Vec<Event> = world.s.snapshot().collect();
    for events in [&world.journal, &events] {
        let follower = world.replay(events);
        assert!(follower.jobs().eq(world.s.jobs()));
        let mut next = World { s: follower, journal: vec![], actions: vec![], ..World::new(Config::default()) };
        next.s.handle_leading(next.now(), |_| 0);
        next.s.handle_partition(next.now(), 0, true);
        next.settle();
        assert_eq!(next.told(), [""; 0], "nobody is there yet");
        next.come(&agents[1], "", 1, vec![]);
        assert_eq!(next.told(), [format!("{} start 2/1", agents[1])], "it may not have heard the first time");
        next.come(&agents[0], "", 1, vec![(one, 1, exited(0))]);
        assert_eq!(next.state(one), State::Succeeded);
        assert_eq!(next.holder(three), Some(agents[0].clone()), "the key is free");
    }
}
