//! What an input costs does not grow with the queue.

use super::{super::*, world::*};
use crate::job::Spec;

const MANY: usize = 100_000;
/// What `full` makes: targets, priorities and submitters.
const SHAPE: [u64; 3] = [10, 3, 20];
/// The steps of an input about jobs without a key: one submitter's places are sorted anew when a job ends and another's when
/// one goes, and each lane is asked for its first, once before and once after that. Measured: 73.
const ENOUGH: u64 = 2 * SHAPE[0] * SHAPE[1] + 2 * (SHAPE[0] + 2) + 10;
/// The same when a key is freed and taken: the places in which the key has jobs are offered and withdrawn. Every second job has
/// the key, so it is in half of the lanes. Measured: 659.
const ENOUGH_WITH_KEY: u64 = ENOUGH + 2 * (SHAPE[0] / 2 * SHAPE[1] * SHAPE[2]);

fn steps(world: &mut World, what: impl FnOnce(&mut World)) -> u64 {
    let before = world.s.queue.steps;
    what(world);
    world.s.queue.steps - before
}

/// A queue of so many jobs of 20 submitters, 10 targets that all fit the agent, 3 priorities, and a key that half of them
/// share. One slot is taken.
fn full(jobs: usize) -> (World, JobId) {
    let mut world = World::with(&[("a", "os=linux", 1)]);
    world.s.config.queued = 2 * MANY;
    let running = world.submit(on("os=linux"));
    for i in 0..jobs {
        let spec = Spec {
            submitter: format!("user{}", i / 10 % 20),
            priority: (i % 3) as u8,
            concurrency: (i % 2 == 0).then(|| "k".to_owned()),
            ..on(&format!("n!={}", i % 10))
        };
        world.submit(spec);
    }
    (world, running)
}

fn running(world: &World) -> JobId {
    world.s.agents[&name("a")].jobs.first().copied().expect("the slot is never free")
}

#[test]
fn no_input_walks_through_a_queue_of_100_000_jobs() {
    let (mut world, _) = full(MANY);
    assert_eq!(world.s.counts().queued, MANY);
    let is_keyed = |world: &World, id| world.s.job(id).expect("known").spec().concurrency.is_some();
    let (mut taken, mut most) = ([0, 0], [0, 0]);
    for _ in 0..200 {
        let id = running(&world);
        let cost = steps(&mut world, |world| world.finish(id, 0));
        let next = running(&world);
        // The job that goes frees the key, the one that comes takes it.
        let keyed = usize::from(is_keyed(&world, id) || is_keyed(&world, next));
        taken[keyed] += 1;
        most[keyed] = cost.max(most[keyed]);

        let mut id = None;
        let cost = steps(&mut world, |world| id = Some(world.submit(Spec { priority: 0, ..of("zoe") })));
        assert!(cost <= ENOUGH, "submit: {cost}");
        let id = id.expect("submitted");
        assert!(world.s.queue.place(id).is_some(), "it waits");
        let cost = steps(&mut world, |world| world.cancel(id));
        assert!((1..=ENOUGH).contains(&cost), "cancel: {cost}");
    }
    assert!(taken.iter().all(|times| *times > 20), "both kinds had their turn: {taken:?}");
    assert!(most[0] <= ENOUGH && most[1] <= ENOUGH_WITH_KEY, "finish: {most:?}");
    assert!(most[1] > ENOUGH, "a key costs what its places do: {most:?}");
    let keyed = world.s.jobs().find(|(id, _)| is_keyed(&world, *id) && world.s.queue.place(*id).is_some());
    let keyed = keyed.expect("many").0;
    let cost = steps(&mut world, |world| world.cancel(keyed));
    assert!(cost <= ENOUGH, "cancel with a key: {cost}");
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
