//! Which agents may take what: for each distinct target the agents that it fits, and those of them that have room.
//!
//! Cost: a new target looks at every agent once, a new agent or new labels at every target once; room that comes or
//! goes touches the targets that fit the agent. A target whose last job left is remembered for a while, so that jobs that come
//! one at a time do not pay for it again.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::queue::LaneId;
use crate::{id::AgentName, job::Target, selector::Labels};

/// How many targets without jobs are remembered.
const IDLE: usize = 256;

/// Targets and agents.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: BTreeMap<LaneId, Lane>,
    by_target: BTreeMap<Target, LaneId>,
    agents: BTreeMap<AgentName, Known>,
    /// Lanes without jobs, the longest without first.
    idle: BTreeSet<(u64, LaneId)>,
    last: u64,
}

#[derive(Debug)]
struct Lane {
    target: Target,
    fit: BTreeSet<AgentName>,
    /// Those with room, the most room first.
    open: BTreeSet<(Reverse<u32>, AgentName)>,
    idle: Option<u64>,
}

#[derive(Debug)]
struct Known {
    labels: Labels,
    lanes: BTreeSet<LaneId>,
    free: u32,
}

impl Lanes {
    /// The target's lane, which has a job from now on.
    pub fn enter(&mut self, target: &Target) -> LaneId {
        if let Some(id) = self.by_target.get(target).copied() {
            if let Some(since) = self.lanes.get_mut(&id).and_then(|lane| lane.idle.take()) {
                self.idle.remove(&(since, id));
            }
            return id;
        }
        self.last += 1;
        let id = self.last;
        let mut lane = Lane { target: target.clone(), fit: BTreeSet::new(), open: BTreeSet::new(), idle: None };
        let named = match target {
            Target::Agent(name) => self.agents.get_mut(name).map(|agent| (name, agent)).into_iter().collect(),
            Target::Selector(_) => self.agents.iter_mut().collect::<Vec<_>>(),
        };
        for (name, agent) in named {
            lane.consider(id, name, agent);
        }
        self.lanes.insert(id, lane);
        self.by_target.insert(target.clone(), id);
        id
    }

    /// The lane has no job any more.
    pub fn leave(&mut self, id: LaneId) {
        self.last += 1;
        let now = self.last;
        if let Some(lane) = self.lanes.get_mut(&id)
            && lane.idle.is_none()
        {
            lane.idle = Some(now);
            self.idle.insert((now, id));
        }
        while self.idle.len() > IDLE {
            let Some((_, id)) = self.idle.pop_first() else { break };
            let Some(lane) = self.lanes.remove(&id) else { continue };
            self.by_target.remove(&lane.target);
            for name in &lane.fit {
                if let Some(agent) = self.agents.get_mut(name) {
                    agent.lanes.remove(&id);
                }
            }
        }
    }

    /// There is such an agent, with these labels.
    pub fn set_agent(&mut self, name: &AgentName, labels: &Labels) {
        match self.agents.get_mut(name) {
            Some(agent) if agent.labels == *labels => return,
            Some(_) => self.remove_agent(name),
            None => {}
        }
        let mut agent = Known { labels: labels.clone(), lanes: BTreeSet::new(), free: 0 };
        for (id, lane) in &mut self.lanes {
            lane.consider(*id, name, &mut agent);
        }
        self.agents.insert(name.clone(), agent);
    }

    /// There is no such agent any more.
    pub fn remove_agent(&mut self, name: &AgentName) {
        let Some(agent) = self.agents.remove(name) else { return };
        for id in &agent.lanes {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.fit.remove(name);
                lane.open.remove(&(Reverse(agent.free), name.clone()));
            }
        }
    }

    /// The agent has room for so many more.
    pub fn set_free(&mut self, name: &AgentName, free: u32) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let before = std::mem::replace(&mut agent.free, free);
        if before == free {
            return;
        }
        for id in &agent.lanes {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.open.remove(&(Reverse(before), name.clone()));
                if free > 0 {
                    lane.open.insert((Reverse(free), name.clone()));
                }
            }
        }
    }

    /// Room that the agent has for more.
    pub fn free(&self, name: &AgentName) -> u32 {
        self.agents.get(name).map_or(0, |agent| agent.free)
    }

    /// The lanes that the agent may take from.
    pub fn of_agent(&self, name: &AgentName) -> impl Iterator<Item = LaneId> + '_ {
        self.agents.get(name).into_iter().flat_map(|agent| agent.lanes.iter().copied())
    }

    /// The agent with the most room for a job of the lane.
    pub fn open(&self, id: LaneId) -> Option<&AgentName> {
        self.lanes.get(&id)?.open.first().map(|(_, name)| name)
    }

    /// The agents that fit the lane.
    pub fn fit(&self, id: LaneId) -> impl Iterator<Item = &AgentName> {
        self.lanes.get(&id).into_iter().flat_map(|lane| lane.fit.iter())
    }

    /// Whether jobs wait for this target.
    pub fn has_jobs(&self, target: &Target) -> bool {
        self.by_target.get(target).and_then(|id| self.lanes.get(id)).is_some_and(|lane| lane.idle.is_none())
    }

    /// How many targets jobs wait for.
    pub fn busy(&self) -> usize {
        self.lanes.len() - self.idle.len()
    }
}

impl Lane {
    fn consider(&mut self, id: LaneId, name: &AgentName, agent: &mut Known) {
        let fits = match &self.target {
            Target::Agent(target) => target == name,
            Target::Selector(selector) => selector.matches(&agent.labels),
        };
        if fits {
            agent.lanes.insert(id);
            self.fit.insert(name.clone());
            if agent.free > 0 {
                self.open.insert((Reverse(agent.free), name.clone()));
            }
        }
    }
}
