//! Giving jobs to agents.

use std::collections::BTreeSet;

use super::{Event, Now, Scheduler, queue::LaneId, queue::Place};
use crate::{
    id::AgentName,
    job::{self, Job, JobId},
};

impl Scheduler {
    /// The job waits, and goes at once if it can.
    pub(super) fn enqueue(&mut self, now: Now, id: JobId) {
        let lane = self.push(id);
        self.place(now, &lane.into_iter().collect());
    }

    /// The job waits, in this lane.
    pub(super) fn push(&mut self, id: JobId) -> Option<LaneId> {
        let spec = self.jobs.job(id)?.spec();
        let place = Place {
            lane: self.lanes.enter(&spec.target),
            priority: spec.priority,
            submitter: spec.submitter.as_str().into(),
            key: spec.concurrency.as_deref().map(Into::into),
        };
        let lane = place.lane;
        self.queue.push(id, place);
        Some(lane)
    }

    /// The job, which waits, does so no more: it is under way, or not wanted.
    pub(super) fn dequeue(&mut self, id: JobId, under_way: bool) {
        let Some(lane) = self.queue.place(id).map(|place| place.lane) else { return };
        if under_way {
            self.queue.take(id)
        } else {
            self.queue.remove(id)
        }
        if self.queue.is_empty(lane) {
            self.lanes.leave(lane);
        }
    }

    /// The agent's room may be another than before: fills it.
    pub(super) fn refresh(&mut self, now: Now, name: &AgentName) {
        self.refresh_with(now, name, BTreeSet::new());
    }

    /// [`refresh`](Self::refresh) and [`place`](Self::place) in one, so that who is first is first in both.
    pub(super) fn refresh_with(&mut self, now: Now, name: &AgentName, mut lanes: BTreeSet<LaneId>) {
        self.note_room(name);
        if self.lanes.free(name) > 0 {
            lanes.extend(self.lanes.of_agent(name));
        }
        self.place(now, &lanes);
    }

    /// Jobs of these lanes may go that could not before.
    pub(super) fn place(&mut self, now: Now, lanes: &BTreeSet<LaneId>) {
        while self.leading {
            let (queue, open) = (&mut self.queue, &self.lanes);
            let next = lanes.iter().filter_map(|lane| Some((open.open(*lane)?, queue.best(*lane)?)));
            let Some((name, next)) = next.min_by(|(_, a), (_, b)| a.cmp(b)) else { return };
            let name = name.clone();
            self.assign(now, next.id, name);
        }
    }

    /// The agent has the job no more. Returns the lanes in which others may go now, beside the agent's.
    pub(super) fn vacate(&mut self, id: JobId, name: &AgentName) -> BTreeSet<LaneId> {
        self.deadlines.disarm(id);
        if let Some(agent) = self.agents.get_mut(name) {
            agent.jobs.remove(&id);
        }
        self.queue.finish(id)
    }

    /// Tells the lanes how much room the agent has.
    pub(super) fn note_room(&mut self, name: &AgentName) {
        let Some(agent) = self.agents.get(name) else { return };
        let works = agent.partition.is_some_and(|partition| self.deadlines.is_working(partition));
        let free = agent.free(works);
        self.lanes.set_free(name, free);
    }

    fn assign(&mut self, now: Now, id: JobId, name: AgentName) {
        let attempt = self.jobs.job(id).map_or(0, Job::attempt).saturating_add(1);
        self.dequeue(id, true);
        if let Some(agent) = self.agents.get_mut(&name) {
            agent.jobs.insert(id);
        }
        self.note_room(&name);
        self.on_the_way.assignments.insert(id, (attempt, name.clone()));
        let event = job::Event::Assigned { at_ms: now.unix_ms, attempt, agent: name };
        self.events.push_back(Event::Job { id, event });
    }
}
