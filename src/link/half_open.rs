//! Handshakes under way: how many there may be, and whose. Pure.
//!
//! One for each run of an agent and lane, a few for all runs of it, one for each token, and not many in all. So an agent that
//! pretends to be many runs takes no place that another needs.

use std::collections::BTreeSet;

use super::{Lane, caller::Caller, packet::Incarnation};

/// Of all agents and tokens.
const ALL: usize = 256;
/// Of one agent on one lane: its run, and runs before it that died in the middle of theirs.
const OF_ONE: usize = 4;

type Place = (Caller, Lane, Incarnation);

/// The places that are taken.
#[derive(Default)]
pub struct HalfOpen(BTreeSet<Place>);

impl HalfOpen {
    /// Takes a place; false if there is none.
    pub fn take(&mut self, caller: &Caller, lane: Lane, incarnation: Incarnation) -> bool {
        let at = |end| (caller.clone(), lane, Incarnation { starts: end, random: end });
        let of_one = self.0.range(at(u64::MIN)..=at(u64::MAX)).count();
        self.0.len() < ALL && of_one < OF_ONE && self.0.insert(place(caller, lane, incarnation))
    }

    /// Gives a place back.
    pub fn give_back(&mut self, caller: &Caller, lane: Lane, incarnation: Incarnation) {
        self.0.remove(&place(caller, lane, incarnation));
    }
}

/// The place of a run. All that hold one token share one: whoever guesses names with it does so one at a time.
fn place(caller: &Caller, lane: Lane, incarnation: Incarnation) -> Place {
    let run = match caller {
        Caller::Agent(_) => incarnation,
        Caller::Token(_) => Incarnation { starts: 0, random: 0 },
    };
    (caller.clone(), lane, run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::TokenId;

    fn run(starts: u64) -> Incarnation {
        Incarnation { starts, random: !starts }
    }

    fn agent(name: &str) -> Caller {
        Caller::Agent(name.parse().expect("a name"))
    }

    #[test]
    fn no_agent_takes_the_places_of_others_by_pretending_to_be_many_runs() {
        let mut half_open = HalfOpen::default();
        let b = agent("b");
        let taken = (0..1000).filter(|starts| half_open.take(&b, Lane::Control, run(*starts))).count();
        assert_eq!(taken, OF_ONE);
        assert!(half_open.take(&b, Lane::Bulk, run(1)), "another lane");
        assert!(
            half_open.take(&agent("a"), Lane::Control, run(1)) && half_open.take(&agent("c"), Lane::Control, run(1))
        );
        assert!(!half_open.take(&agent("a"), Lane::Control, run(1)), "one for each run");
        let all = (0..1000).filter(|n| half_open.take(&agent(&format!("a{n}")), Lane::Control, run(1))).count();
        assert_eq!(all + OF_ONE + 3, ALL);
        half_open.give_back(&b, Lane::Control, run(0));
        assert!(half_open.take(&b, Lane::Control, run(7)));
    }

    #[test]
    fn all_that_hold_a_token_share_a_place() {
        let mut half_open = HalfOpen::default();
        let token = Caller::Token(TokenId([1; 8]));
        assert!(half_open.take(&token, Lane::Control, run(1)));
        assert!(!half_open.take(&token, Lane::Control, run(2)));
        half_open.give_back(&token, Lane::Control, run(2));
        assert!(half_open.take(&token, Lane::Control, run(3)));
    }
}
