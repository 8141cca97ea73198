//! What happens to agents, and what they report.

use std::{collections::BTreeSet, time::Duration};

use super::{Event, Now, Order, Report, Scheduler, Session};
use crate::{
    api::AgentState,
    id::AgentName,
    job::{self, Job, JobId, LogPlace, Loss, Outcome, Returned, State},
};

/// The longest message of an agent that is journalled, in characters.
pub(super) const MAX_MESSAGE: usize = 500;

impl Scheduler {
    /// This controller leads from now on; nothing about agents' sessions comes before. `partition_of` says on which partition an agent's control lane is.
    pub fn handle_leading(&mut self, now: Now, partition_of: impl Fn(&AgentName) -> u32) {
        self.leading = true;
        for (name, agent) in &mut self.agents {
            agent.partition.get_or_insert_with(|| partition_of(name));
        }
        let placed: Vec<(JobId, AgentName)> =
            self.jobs.iter().filter_map(|(id, job)| Some((id, job.holder()?.0.clone()))).collect();
        for (id, name) in placed {
            match self.agents.get_mut(&name) {
                Some(agent) => {
                    agent.jobs.insert(id);
                    self.arm(id, &name);
                }
                None => self.lose(now, id, Loss::AgentRemoved),
            }
        }
        self.expire(now);
    }

    /// The agent has a session, and said in it what it has. False if there is no such agent: the session must end.
    pub fn handle_session(&mut self, now: Now, name: &AgentName, session: Session) -> bool {
        let Some(agent) = self.agents.get_mut(name) else { return false };
        agent.slots = session.slots;
        agent.partition = Some(session.partition);
        agent.state = AgentState::Online;
        (agent.session, agent.heard, agent.draining, agent.gone) = (true, true, false, None);
        agent.strays.clear();
        let jobs = agent.jobs.clone();
        self.lanes.set_agent(name, &session.labels);
        let mut held = BTreeSet::new();
        for (id, attempt, report) in session.inventory {
            held.insert((id, attempt));
            self.take_report(now, name, id, attempt, report);
        }
        for id in jobs {
            self.deadlines.disarm(id);
            self.compare(now, name, id, &held);
        }
        self.refresh(now, name);
        true
    }

    /// The agent's session ended, and it has no newer one.
    pub fn handle_session_end(&mut self, now: Now, name: &AgentName) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        agent.session = false;
        self.note_reach(now, name);
    }

    /// The registry says so of the agent.
    pub fn handle_presence(&mut self, now: Now, name: &AgentName, state: AgentState) {
        match self.agents.get_mut(name) {
            Some(agent) if agent.state != state => agent.state = state,
            _ => return,
        }
        self.note_reach(now, name);
    }

    /// The agent spoke.
    pub fn handle_heard(&mut self, now: Now, name: &AgentName) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let works = agent.partition.is_some_and(|partition| self.deadlines.is_working(partition));
        if works && !agent.heard {
            agent.heard = true;
            self.refresh(now, name);
        }
    }

    /// The agent takes no new jobs, or does so again. Forgotten when it has a new session.
    pub fn handle_draining(&mut self, now: Now, name: &AgentName, draining: bool) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        agent.draining = draining;
        self.refresh(now, name);
    }

    /// Whether Kafka works on the partition. Agents on it get nothing until they were heard after an outage.
    pub fn handle_partition(&mut self, now: Now, partition: u32, working: bool) {
        if self.deadlines.is_working(partition) == working {
            return;
        }
        self.deadlines.set_working(now.elapsed, partition, working);
        let there = self.agents.iter_mut().filter(|(_, agent)| agent.partition == Some(partition));
        let names: Vec<AgentName> = there
            .map(|(name, agent)| {
                agent.heard &= working;
                name.clone()
            })
            .collect();
        names.iter().for_each(|name| self.refresh(now, name));
    }

    /// The time of `poll_timeout` has come. Also to be called every hour or so, for jobs that are old enough to be forgotten.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((at, _)) = self.paused.first()
            && *at <= now.elapsed
        {
            let Some((_, name)) = self.paused.pop_first() else { break };
            if let Some(agent) = self.agents.get_mut(&name) {
                agent.paused = None;
                self.refresh(now, &name);
            }
        }
        self.expire_deadlines(now);
        self.expire(now);
    }

    /// The agent says so about an attempt. Without effect if it has no session.
    pub fn handle_report(&mut self, now: Now, name: &AgentName, id: JobId, attempt: u32, report: Report) {
        self.take_report(now, name, id, attempt, report);
        self.refresh(now, name);
    }

    /// Changes what room the agent has, and does not fill it: what else the agent has may not be known yet.
    fn take_report(&mut self, now: Now, name: &AgentName, id: JobId, attempt: u32, report: Report) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        if !agent.session {
            return;
        }
        let job = self.jobs.job(id);
        if let Report::Logged(place) = report {
            let theirs = job.and_then(|job| job.attempts().get(&attempt)).is_some_and(|attempt| attempt.agent == *name);
            if theirs {
                self.propose_log(id, attempt, place);
            }
            return;
        }
        if let Report::Stored(_) | Report::NotStored(_) = report {
            // What nobody waits for any more may be deleted already.
            let theirs = job.filter(|job| job.holder() == Some((name, attempt)) && job.left().is_none());
            if theirs.is_some() {
                self.propose_artifacts(now, id, attempt, report);
            }
            return;
        }
        if job.and_then(Job::holder) == Some((name, attempt)) {
            self.report_current(now, id, attempt, report);
            return;
        }
        // Nobody wants it any more: it was lost, repeated, or forgotten.
        let cancel = job.map(|job| job.spec().cancel).unwrap_or_default();
        let order = match report {
            Report::Claimed | Report::Started { .. } => {
                agent.strays.insert((id, attempt));
                Order::Cancel(cancel)
            }
            _ => {
                agent.strays.remove(&(id, attempt));
                Order::Release
            }
        };
        self.order(name, id, attempt, order);
    }

    fn report_current(&mut self, now: Now, id: JobId, attempt: u32, report: Report) {
        let at_ms = now.unix_ms;
        match report {
            Report::Claimed | Report::Logged(_) | Report::Stored(_) | Report::NotStored(_) => {}
            Report::Started { agent_ms, pid, boot } => {
                if !self.has_started(id, attempt) && self.on_the_way.starts.insert((id, attempt)) {
                    let event = job::Event::Started { at_ms, attempt, agent_ms, pid, boot };
                    self.events.push_back(Event::Job { id, event });
                }
            }
            Report::Ended { agent_ms, mut outcome, stdout, stderr } => {
                if let Outcome::NotStarted { message, .. } = &mut outcome {
                    *message = message.chars().take(MAX_MESSAGE).collect();
                }
                self.propose_end(id, job::Event::Ended { at_ms, attempt, agent_ms, outcome, stdout, stderr });
            }
            Report::Lost(reason) => self.lose(now, id, reason),
            // Of one that runs the fold would refuse it.
            Report::Returned(_) if self.has_started(id, attempt) => {}
            Report::Returned(reason) => self.give_back(now, id, reason),
        }
    }

    pub(super) fn propose_log(&mut self, id: JobId, attempt: u32, place: LogPlace) {
        let known = self.jobs.job(id).and_then(|job| job.attempts().get(&attempt)).and_then(|attempt| attempt.log);
        if known.is_some_and(|known| known.merged(place) == known) {
            return;
        }
        match self.on_the_way.logs.get_mut(&(id, attempt)) {
            Some(later) => *later = Some(later.map_or(place, |later| later.merged(place))),
            None => {
                self.on_the_way.logs.insert((id, attempt), None);
                self.events.push_back(Event::Job { id, event: job::Event::Logged { attempt, place } });
            }
        }
    }

    /// What the journal says of the agent's job against what the agent has.
    fn compare(&mut self, now: Now, name: &AgentName, id: JobId, held: &BTreeSet<(JobId, u32)>) {
        let Some(job) = self.jobs.job(id) else { return };
        let cancel = job.cancel().map(|request| request.cancel);
        let Some((holder, attempt)) = job.holder() else { return };
        if holder != name {
            return;
        }
        match (held.contains(&(id, attempt)), self.has_started(id, attempt), cancel) {
            (true, _, Some(cancel)) => self.order(name, id, attempt, Order::Cancel(cancel)),
            (true, _, None) => {}
            (false, true, _) => self.lose(now, id, Loss::NoTrace),
            (false, false, Some(_)) => self.give_back(now, id, Returned::Unwanted),
            (false, false, None) => self.order(name, id, attempt, Order::Start),
        }
    }

    fn has_started(&self, id: JobId, attempt: u32) -> bool {
        let is_running = self.jobs.job(id).is_some_and(|job| job.state() == State::Running);
        is_running || self.on_the_way.starts.contains(&(id, attempt))
    }

    /// The agent may have become reachable, or not reachable.
    fn note_reach(&mut self, now: Now, name: &AgentName) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let present = agent.is_present();
        if present == agent.gone.is_none() {
            return self.refresh(now, name);
        }
        let counted = agent.partition.map_or(Duration::ZERO, |p| self.deadlines.counted(now.elapsed, p));
        agent.gone = (!present).then_some(counted);
        for id in agent.jobs.clone() {
            self.arm(id, name);
        }
        self.refresh(now, name);
    }

    /// Sets or clears the job's deadline as its agent is there or not.
    pub(super) fn arm(&mut self, id: JobId, name: &AgentName) {
        self.deadlines.disarm(id);
        let (Some(agent), Some(job)) = (self.agents.get(name), self.jobs.job(id)) else { return };
        let deadline = job.deadline().map_or(self.config.deadline, |deadline| deadline.deadline);
        if let (Some(gone), Some(partition), Some(deadline)) = (agent.gone, agent.partition, deadline)
            && self.leading
            && job.holder().is_some()
        {
            self.deadlines.arm(id, partition, gone.saturating_add(deadline));
        }
    }

    pub(super) fn expire_deadlines(&mut self, now: Now) {
        while let Some(id) = self.deadlines.expired(now.elapsed) {
            self.lose(now, id, Loss::Deadline);
        }
    }
}
