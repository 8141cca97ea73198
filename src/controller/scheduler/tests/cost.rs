//! What an input costs does not grow with the queue.

use super::{super::*, world::*};
use crate::job::Spec;

const MANY: usize = 100_000;
/// Lanes, buckets and places looked at for one job's whole way. Found by looking: 20 in a queue of one submitter.
const ENOUGH: u64 = 60;

fn steps(world: &mut World, what: impl FnOnce(&mut World)) -> u64 {
    let before = world.s.queue.steps;
    what(world);
    world.s.queue.steps - before
}

/// A queue of so many jobs of 20 submitters, 10 targets and a key that half of them share; one slot is taken.
fn full(jobs: usize) -> (World, JobId) {
    let mut world = World::with(&[("a", "os=linux,n=1", 1)]);
    world.s.config.queued = 2 * MANY;
    let running = world.submit(on("os=linux"));
    for i in 0..jobs {
        let spec = Spec {
            submitter: format!("user{}", i % 20),
            priority: (i % 3) as u8,
            concurrency: (i % 2 == 0).then(|| "k".to_owned()),
            ..on(&format!("n={}", i % 10))
        };
        world.submit(spec);
    }
    (world, running)
}

#[test]
fn no_input_walks_through_a_queue_of_100_000_jobs() {
    let (mut world, mut running) = full(MANY);
    assert_eq!(world.s.counts().queued, MANY);
    for _ in 0..50 {
        let cost = steps(&mut world, |world| {
            world.submit(of("zoe"));
        });
        assert!(cost <= ENOUGH, "submit: {cost}");
        let cost = steps(&mut world, |world| world.finish(running, 0));
        running = world.s.agents[&name("a")].jobs.first().copied().expect("there are more");
        // A key's jobs lie in at most 10 lanes × 3 priorities × 20 submitters.
        assert!(cost <= ENOUGH + 2 * 600, "finish: {cost}");
        let waits = world.s.queue.place(running).is_none();
        assert!(waits);
        let last = world.s.jobs().next_back().map(|(id, _)| id).expect("many");
        let cost = steps(&mut world, |world| world.cancel(last));
        assert!(cost <= ENOUGH, "cancel: {cost}");
    }
}

#[test]
fn a_longer_queue_of_the_same_shape_costs_no_more() {
    let cost = |jobs| {
        let (mut world, running) = full(jobs);
        steps(&mut world, |world| {
            world.finish(running, 0);
            world.submit(of("zoe"));
        })
    };
    assert_eq!(cost(3_000), cost(30_000));
}

#[test]
fn nothing_is_left_when_all_jobs_have_ended() {
    let (mut world, _) = full(500);
    while let Some(id) = world.s.agents[&name("a")].jobs.first().copied() {
        world.finish(id, 0);
    }
    let waiting: Vec<JobId> = world.s.jobs().filter(|(_, job)| !job.state().is_terminal()).map(|(id, _)| id).collect();
    waiting.into_iter().for_each(|id| world.cancel(id));
    assert!(world.s.queue.is_clean() && world.s.deadlines.is_clean());
    assert_eq!(world.s.jobs.live_weight(), 0);
    let way = &world.s.on_the_way;
    assert!(way.assignments.is_empty() && way.starts.is_empty() && way.ends.is_empty() && way.logs.is_empty());
}
