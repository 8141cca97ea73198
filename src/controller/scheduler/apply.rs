//! What follows from what was read back.

use super::{Action, Agent, Event, Now, Order, PAUSE, Scheduler, jobs::Phase};
use crate::{
    id::AgentName,
    job::{self, Change, Job, JobId, Loss, Refused, Returned, State},
    selector::Labels,
};

impl Scheduler {
    /// Applies the next event of the journal. A refused one changed nothing, and is to be logged: who wrote it was wrong.
    pub fn apply(&mut self, now: Now, event: &Event) -> Result<Change, Refused> {
        match event {
            Event::Job { id, event } => return self.apply_job(now, *id, event),
            Event::AgentDrained { name, .. } => return Ok(self.set_drained(now, name, true)),
            Event::AgentResumed { name } => return Ok(self.set_drained(now, name, false)),
            Event::Forgotten { ids } => {
                self.on_the_way.forgetting = false;
                ids.iter().for_each(|id| self.jobs.forget(*id));
                self.expire(now);
            }
            Event::ArtifactsForgotten { at_ms, ids } => {
                self.on_the_way.forgetting_artifacts = false;
                ids.iter().for_each(|id| self.jobs.forget_artifacts(*id, *at_ms));
                self.expire(now);
            }
            Event::Restored { id, job } => {
                if !self.jobs.restore(*id, (**job).clone()) {
                    return Ok(Change::Nothing);
                }
                self.adopt(now, *id);
            }
        }
        Ok(Change::Moved)
    }

    /// An agent was added, with these labels. Without effect if there is one.
    pub fn apply_agent_added(&mut self, name: &AgentName, labels: &Labels) {
        if !self.agents.contains_key(name) {
            let mut agent = Agent::new();
            // It may have been removed a moment ago, with assignments on their way to it.
            let on_the_way = self.on_the_way.assignments.iter().filter(|(_, (_, to))| to == name);
            agent.jobs.extend(on_the_way.map(|(id, _)| *id));
            self.agents.insert(name.clone(), agent);
            self.lanes.set_agent(name, labels);
        }
    }

    /// An agent was removed: what it had is lost.
    pub fn apply_agent_removed(&mut self, now: Now, name: &AgentName) {
        let Some(agent) = self.agents.remove(name) else { return };
        self.lanes.remove_agent(name);
        if let Some(until) = agent.paused {
            self.paused.remove(&(until, name.clone()));
        }
        for id in agent.jobs {
            self.deadlines.disarm(id);
            // An assignment that is on its way comes back to nobody, and is returned then.
            if self.leading && !self.on_the_way.assignments.contains_key(&id) {
                self.lose(now, id, Loss::AgentRemoved);
            }
        }
    }

    fn apply_job(&mut self, now: Now, id: JobId, event: &job::Event) -> Result<Change, Refused> {
        let mine = self.landed(id, event);
        let before = self.jobs.phase(id);
        let result = self.jobs.apply(id, event);
        match (before, self.jobs.phase(id)) {
            (Phase::None, Phase::Queued) => self.enqueue(now, id),
            (Phase::Queued, Phase::Placed(agent, attempt)) => self.placed(now, id, attempt, &agent, mine.is_some()),
            (Phase::Queued, Phase::Done) => {
                // If it is on its way to an agent, its place is given free when that was read back.
                self.dequeue(id, false);
                self.expire(now);
            }
            (Phase::Placed(agent, attempt), after @ (Phase::Queued | Phase::Done)) => {
                self.left(now, id, attempt, &agent, after == Phase::Queued, event);
            }
            (Phase::Placed(..), Phase::Placed(..)) if result == Ok(Change::Noted) => self.noted(now, id, event),
            (before, _) => {
                if let Some(agent) = mine {
                    // It crossed the event that ended the job.
                    let mut lanes = self.vacate(id, &agent);
                    if before == Phase::Queued {
                        lanes.extend(self.push(id));
                    }
                    self.refresh_with(now, &agent, lanes);
                }
            }
        }
        result
    }

    /// The event is not on its way any more. Returns the agent if it is an assignment of ours.
    fn landed(&mut self, id: JobId, event: &job::Event) -> Option<AgentName> {
        let way = &mut self.on_the_way;
        match event {
            job::Event::Assigned { attempt, agent, .. } => {
                let ours = way.assignments.get(&id).is_some_and(|(a, to)| (a, to) == (attempt, agent));
                return way.assignments.remove(&id).filter(|_| ours).map(|(_, agent)| agent);
            }
            job::Event::Started { attempt, .. } => drop(way.starts.remove(&(id, *attempt))),
            job::Event::Ended { attempt, .. }
            | job::Event::Lost { attempt, .. }
            | job::Event::Retried { attempt, .. }
            | job::Event::Returned { attempt, .. } => drop(way.ends.remove(&(id, *attempt))),
            job::Event::Logged { attempt, .. } => {
                if let Some(Some(later)) = way.logs.remove(&(id, *attempt)) {
                    self.propose_log(id, *attempt, later);
                }
            }
            job::Event::Artifacts { attempt, .. } => drop(way.artifacts.remove(&(id, *attempt))),
            job::Event::Submitted { .. } | job::Event::CancelRequested { .. } | job::Event::DeadlineSet { .. } => {}
        }
        None
    }

    /// The job was given to the agent.
    fn placed(&mut self, now: Now, id: JobId, attempt: u32, name: &AgentName, mine: bool) {
        if !mine {
            self.dequeue(id, true);
        }
        let Some(agent) = self.agents.get_mut(name) else {
            if self.leading {
                self.give_back(now, id, Returned::NeverTold);
            }
            return;
        };
        let told = agent.session;
        agent.jobs.insert(id);
        self.note_room(name);
        if !self.leading {
            return;
        }
        if told {
            self.order(name, id, attempt, Order::Start);
        } else {
            self.give_back(now, id, Returned::NeverTold);
        }
    }

    /// The agent has the job no more.
    fn left(&mut self, now: Now, id: JobId, attempt: u32, name: &AgentName, again: bool, event: &job::Event) {
        let mut lanes = self.vacate(id, name);
        let (returned, farewell) = farewell(event);
        if let Some(agent) = self.agents.get_mut(name) {
            if self.leading && returned && farewell.is_some() {
                let until = now.elapsed + PAUSE;
                if let Some(before) = agent.paused.replace(until) {
                    self.paused.remove(&(before, name.clone()));
                }
                self.paused.insert((until, name.clone()));
            }
            match farewell {
                Some(Farewell::Release) if agent.session => self.order(name, id, attempt, Order::Release),
                Some(Farewell::End) if agent.session => {
                    agent.strays.insert((id, attempt));
                    let cancel = self.jobs.job(id).map(|job| job.spec().cancel).unwrap_or_default();
                    self.order(name, id, attempt, Order::Cancel(cancel));
                }
                _ => {}
            }
        }
        if again {
            lanes.extend(self.push(id));
        } else {
            self.expire(now);
        }
        self.refresh_with(now, name, lanes);
    }

    /// Something about a job that is with an agent.
    fn noted(&mut self, now: Now, id: JobId, event: &job::Event) {
        let Some(job) = self.jobs.job(id) else { return };
        let (Some((name, attempt)), cancel) = (job.holder(), job.cancel().map(|request| request.cancel)) else {
            return;
        };
        let name = name.clone();
        let has_session = self.agents.get(&name).is_some_and(|agent| agent.session);
        match (event, cancel) {
            (job::Event::CancelRequested { .. }, Some(cancel)) if has_session => {
                self.order(&name, id, attempt, Order::Cancel(cancel));
            }
            (job::Event::DeadlineSet { .. }, _) => {
                self.arm(id, &name);
                self.expire_deadlines(now);
            }
            _ => {}
        }
    }

    /// A job came with a snapshot.
    fn adopt(&mut self, now: Now, id: JobId) {
        match self.jobs.phase(id) {
            Phase::Queued => self.enqueue(now, id),
            Phase::Placed(agent, _) => {
                self.push(id);
                self.dequeue(id, true);
                if let Some(agent) = self.agents.get_mut(&agent) {
                    agent.jobs.insert(id);
                }
            }
            Phase::None | Phase::Done => {}
        }
    }

    fn set_drained(&mut self, now: Now, name: &AgentName, drained: bool) -> Change {
        match self.agents.get_mut(name) {
            Some(agent) if agent.drained != drained => {
                agent.drained = drained;
                self.refresh(now, name);
                Change::Moved
            }
            _ => Change::Nothing,
        }
    }

    pub(super) fn order(&mut self, agent: &AgentName, job: JobId, attempt: u32, order: Order) {
        if self.leading {
            self.actions.push_back(Action { agent: agent.clone(), job, attempt, order });
        }
    }

    /// Nobody knows how the job's attempt ended: it is repeated if it may be.
    pub(super) fn lose(&mut self, now: Now, id: JobId, reason: Loss) {
        let Some(job) = self.jobs.job(id) else { return };
        let (attempt, at_ms) = (job.attempt(), now.unix_ms);
        let event = if job.cancel().is_none() && job.retries_left() > 0 {
            job::Event::Retried { at_ms, attempt, reason }
        } else {
            job::Event::Lost { at_ms, attempt, reason }
        };
        self.propose_end(id, event);
    }

    /// The job's attempt certainly did not run.
    pub(super) fn give_back(&mut self, now: Now, id: JobId, reason: Returned) {
        let attempt = self.jobs.job(id).map_or(0, Job::attempt);
        self.propose_end(id, job::Event::Returned { at_ms: now.unix_ms, attempt, reason });
    }

    /// An end of the job's current attempt; the first one that is on its way counts.
    pub(super) fn propose_end(&mut self, id: JobId, event: job::Event) {
        let Some(attempt) = event.attempt() else { return };
        let is_live = self.jobs.job(id).is_some_and(|job| matches!(job.state(), State::Assigned | State::Running));
        if is_live && self.on_the_way.ends.insert((id, attempt)) {
            self.events.push_back(Event::Job { id, event });
        }
    }
}

/// What an agent is told that has the job no more.
enum Farewell {
    /// It said itself that the attempt is over.
    Release,
    /// It was not asked, and may still have the attempt.
    End,
}

/// Whether the job was returned, and what its agent is told. Nothing if the agent can't have anything of it.
fn farewell(event: &job::Event) -> (bool, Option<Farewell>) {
    match event {
        job::Event::Returned { reason: Returned::NeverTold, .. } => (true, None),
        job::Event::Returned { .. } => (true, Some(Farewell::Release)),
        job::Event::Lost { reason, .. } | job::Event::Retried { reason, .. } => match reason {
            Loss::ShimGone | Loss::HostRebooted => (false, Some(Farewell::Release)),
            Loss::Deadline | Loss::AgentRemoved => (false, Some(Farewell::End)),
            Loss::NoTrace => (false, None),
        },
        _ => (false, Some(Farewell::Release)),
    }
}
