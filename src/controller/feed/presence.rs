//! When an agent's state became another one, out of what a look once a second shows. Pure: `now` is the time since the
//! controller took over.

use std::{collections::BTreeMap, time::Duration};

use crate::{api::AgentState, id::AgentName};

/// Agents find a new controller within some seconds. Those that have not by then are offline, and perhaps nobody has said so.
const SETTLED: Duration = Duration::from_secs(60);

/// What was told of whom.
#[derive(Debug, Default)]
pub struct Presence {
    /// None: it was offline when this controller took over, perhaps because that took its session.
    told: BTreeMap<AgentName, Option<AgentState>>,
    looked: bool,
}

impl Presence {
    /// Which agents are in another state than was told last. A new agent is offline, which needs no telling.
    pub fn look(&mut self, now: Duration, states: &[(AgentName, AgentState)]) -> Vec<(AgentName, AgentState)> {
        let before = std::mem::take(&mut self.told);
        let mut changed = Vec::new();
        for (name, state) in states {
            let first = if self.looked { Some(AgentState::Offline) } else { None };
            let told = match before.get(name).copied().unwrap_or(first) {
                None if *state == AgentState::Offline && now < SETTLED => None,
                told => {
                    if told != Some(*state) {
                        changed.push((name.clone(), *state));
                    }
                    Some(*state)
                }
            };
            self.told.insert(name.clone(), told);
        }
        self.looked = true;
        changed
    }
}

#[cfg(test)]
mod tests {
    use AgentState::{Offline, Online, Silent};

    use super::*;

    fn look(presence: &mut Presence, secs: u64, states: &[(&str, AgentState)]) -> Vec<String> {
        let named: Vec<_> = states.iter().map(|(name, state)| (name.parse().expect("a name"), *state)).collect();
        let changed = presence.look(Duration::from_secs(secs), &named);
        changed.iter().map(|(name, state)| format!("{name} {state}")).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        let mut presence = Presence::default();
        assert_eq!(look(&mut presence, 0, &[]), [""; 0]);
        assert_eq!(look(&mut presence, 1, &[("a", Offline)]), [""; 0], "a new one");
        assert_eq!(look(&mut presence, 2, &[("a", Online), ("b", Online)]), ["a online", "b online"]);
        assert_eq!(look(&mut presence, 3, &[("a", Online), ("b", Silent)]), ["b silent"]);
        assert_eq!(look(&mut presence, 4, &[("a", Offline), ("b", Online)]), ["a offline", "b online"]);
        assert_eq!(look(&mut presence, 5, &[("b", Online)]), [""; 0], "one that was removed");
        assert_eq!(look(&mut presence, 6, &[("a", Offline), ("b", Online)]), [""; 0], "it was added again");
    }

    #[test]
    fn who_does_not_find_a_new_controller_is_told_to_be_offline_once() {
        let mut presence = Presence::default();
        assert_eq!(look(&mut presence, 0, &[("a", Offline), ("b", Offline)]), [""; 0]);
        assert_eq!(look(&mut presence, 4, &[("a", Online), ("b", Offline)]), ["a online"]);
        assert_eq!(look(&mut presence, 60, &[("a", Online), ("b", Offline)]), ["b offline"]);
        assert_eq!(look(&mut presence, 61, &[("a", Online), ("b", Offline)]), [""; 0]);
    }
}
