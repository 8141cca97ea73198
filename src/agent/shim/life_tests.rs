//! Scripts of lives: what happens when, and what is then to be done.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    life::{Action, Life, Rules},
    spec::{Background, Cause},
};

const RULES: Rules =
    Rules { timeout: Some(s(100)), signal: 15, grace: s(10), linger: s(2), background: Background::End };

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn life(rules: Rules) -> Life {
    Life::new(s(0), rules)
}

fn actions(life: &mut Life) -> Vec<Action> {
    std::iter::from_fn(|| life.poll_action()).collect()
}

#[test]
fn a_process_that_ends_by_itself_with_its_output_is_over_at_once() {
    let mut life = life(RULES);
    assert_eq!(life.deadline(), Some(s(100)));
    life.handle_alone(s(1));
    life.handle_exit(s(1));
    assert!(!life.is_over(), "its output is still there");
    life.handle_output_end(s(1));
    assert!(life.is_over());
    assert_eq!((actions(&mut life), life.cause(), life.deadline()), (vec![], None, None));
}

#[test]
fn a_timeout_asks_first_and_kills_after_the_grace() {
    let mut life = life(RULES);
    life.handle_time(s(99));
    assert_eq!(actions(&mut life), []);
    life.handle_time(s(100));
    assert_eq!(actions(&mut life), [Action::Signal(15)]);
    assert_eq!((life.cause(), life.deadline()), (Some(Cause::TimedOut), Some(s(110))));
    life.handle_time(s(110));
    life.handle_time(s(111));
    assert_eq!(actions(&mut life), [Action::Kill]);
    assert_eq!(life.deadline(), None);
    life.handle_alone(s(111));
    life.handle_exit(s(111));
    life.handle_output_end(s(111));
    assert!(life.is_over() && !life.killed_leftovers());
}

#[test]
fn the_first_cause_counts_and_a_second_cancel_only_shortens_the_grace() {
    let mut life = life(RULES);
    life.handle_cancel(s(50), 2, s(30));
    life.handle_cancel(s(51), 15, s(60));
    assert_eq!((actions(&mut life), life.deadline()), (vec![Action::Signal(2), Action::Signal(15)], Some(s(80))));
    life.handle_cancel(s(52), 15, s(5));
    life.handle_time(s(56));
    assert_eq!(actions(&mut life), [Action::Signal(15)]);
    life.handle_time(s(57));
    assert_eq!((actions(&mut life), life.cause()), (vec![Action::Kill], Some(Cause::Cancelled)));
    life.handle_time(s(100));
    assert_eq!(life.cause(), Some(Cause::Cancelled));
}

#[test]
fn a_child_that_holds_the_output_is_killed_after_the_linger() {
    let mut life = life(RULES);
    life.handle_exit(s(1));
    assert_eq!((actions(&mut life), life.deadline()), (vec![], Some(s(3))));
    life.handle_time(s(3));
    assert_eq!((actions(&mut life), life.killed_leftovers()), (vec![Action::Kill], true));
    life.handle_alone(s(3));
    life.handle_output_end(s(3));
    assert!(life.is_over());
}

#[test]
fn a_child_without_output_is_killed_when_the_output_ends() {
    let mut life = life(RULES);
    life.handle_exit(s(1));
    life.handle_output_end(s(1));
    assert_eq!((actions(&mut life), life.killed_leftovers(), life.is_over()), (vec![Action::Kill], true, false));
}

#[test]
fn children_of_a_cancelled_process_have_the_rest_of_the_grace() {
    let mut life = life(RULES);
    life.handle_cancel(s(10), 15, s(10));
    life.handle_exit(s(11));
    life.handle_output_end(s(11));
    assert_eq!((actions(&mut life), life.deadline()), (vec![Action::Signal(15)], Some(s(20))));
    life.handle_time(s(20));
    assert_eq!(actions(&mut life), [Action::Kill]);
}

#[test]
fn a_process_that_the_kernel_keeps_is_left_with_its_output() {
    let mut life = life(RULES);
    life.handle_exit(s(1));
    life.handle_time(s(3));
    assert_eq!((actions(&mut life), life.deadline()), (vec![Action::Kill], Some(s(8))));
    life.handle_time(s(8));
    assert_eq!((actions(&mut life), life.is_over()), (vec![Action::CloseOutput], false));
    life.handle_output_end(s(8));
    assert!(life.is_over());
}

#[test]
fn output_that_waits_for_room_makes_nobody_hurry() {
    let mut life = life(RULES);
    life.handle_alone(s(1));
    life.handle_exit(s(1));
    life.handle_time(s(3));
    assert_eq!((actions(&mut life), life.killed_leftovers()), (vec![Action::CloseOutput], false));
    assert_eq!((life.deadline(), life.is_over()), (None, false), "it may take for ever");
    life.handle_output_end(s(9000));
    assert!(life.is_over());
}

#[test]
fn background_children_that_may_stay_stay_without_their_output() {
    let rules = Rules { background: Background::Leave, ..RULES };
    let mut silent = life(rules);
    silent.handle_exit(s(1));
    silent.handle_output_end(s(1));
    assert!(silent.is_over());
    let mut loud = life(rules);
    loud.handle_exit(s(1));
    loud.handle_time(s(3));
    assert_eq!((actions(&mut loud), loud.is_over()), (vec![Action::CloseOutput], false));
    loud.handle_output_end(s(3));
    assert!(loud.is_over() && !loud.killed_leftovers());
    let mut cancelled = life(rules);
    cancelled.handle_cancel(s(1), 15, s(1));
    cancelled.handle_exit(s(1));
    cancelled.handle_output_end(s(1));
    cancelled.handle_time(s(2));
    assert_eq!(actions(&mut cancelled), [Action::Signal(15), Action::Kill]);
}

#[test]
fn an_order_to_kill_kills_at_once_and_once() {
    let mut running = life(RULES);
    running.handle_kill(s(1));
    running.handle_kill(s(2));
    running.handle_time(s(500));
    assert_eq!((actions(&mut running), running.cause()), (vec![Action::Kill], Some(Cause::Cancelled)));
    let mut ended = life(RULES);
    ended.handle_exit(s(1));
    ended.handle_kill(s(1));
    assert_eq!((actions(&mut ended), ended.cause()), (vec![Action::Kill], None), "it ended by itself");
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Cancel(u64),
    Kill,
    Exit,
    OutputEnd,
}

proptest! {
    /// Whatever happens, once the process has ended the attempt is over after a bounded time, if the driver closes the
    /// output when it is told to: nobody has to go by himself.
    #[test]
    fn an_ended_process_never_waits_for_ever(
        steps in prop::collection::vec(
            prop_oneof![
                (0u64..30).prop_map(Step::Wait),
                (0u64..30).prop_map(Step::Cancel),
                Just(Step::Kill),
                Just(Step::Exit),
                Just(Step::OutputEnd),
            ],
            0..12,
        ),
        leave in any::<bool>(),
    ) {
        let background = if leave { Background::Leave } else { Background::End };
        let mut life = life(Rules { background, ..RULES });
        let mut now = s(0);
        let (mut kills, mut closes) = (0, 0);
        let mut output_ended = false;
        let mut exited = false;
        for step in steps {
            match step {
                Step::Wait(seconds) => now += s(seconds),
                Step::Cancel(grace) => life.handle_cancel(now, 15, s(grace)),
                Step::Kill => life.handle_kill(now),
                Step::Exit if exited => {}
                Step::Exit => {
                    exited = true;
                    life.handle_exit(now);
                }
                Step::OutputEnd => {
                    output_ended = true;
                    life.handle_output_end(now);
                }
            }
            life.handle_time(now);
        }
        if !exited {
            life.handle_exit(now);
        }
        for _ in 0..10 {
            for action in actions(&mut life) {
                kills += u32::from(action == Action::Kill);
                closes += u32::from(action == Action::CloseOutput);
                if action == Action::CloseOutput {
                    output_ended = true;
                    life.handle_output_end(now);
                }
            }
            let Some(deadline) = life.deadline() else { break };
            prop_assert!(!life.is_over());
            now = now.max(deadline);
            life.handle_time(now);
            // Else the driver would not wait at all.
            prop_assert!(life.deadline().is_none_or(|next| next > now), "{:?}", life);
        }
        prop_assert!(life.is_over() && output_ended, "{life:?}");
        prop_assert!(kills <= 1 && closes <= 1);
    }
}
