//! Settings of an agent.

use std::collections::BTreeMap;

use super::{Error, Settings, keys};
use crate::{
    agent::{
        Config,
        policy::{InvalidPattern, Policy},
    },
    link::Credential,
    selector::{self, Labels},
};

impl Settings {
    /// Who the agent is.
    pub fn credential(&self) -> Result<Credential, Error> {
        let text = self.secret(&keys::CREDENTIAL)?.ok_or_else(|| {
            self.missing(&keys::CREDENTIAL, "an agent needs its credential, which `rk agents add NAME` prints")
        })?;
        text.expose()
            .parse()
            .map_err(|e| Error::Value { origin: self.origin(&keys::CREDENTIAL), problem: format!("{e}") })
    }

    /// The agent's settings.
    pub fn agent(&self) -> Result<Config, Error> {
        let default = Config::default();
        let labels: Labels = self
            .list(&keys::LABEL)
            .iter()
            .map(|text| selector::label(text))
            .collect::<Result<BTreeMap<_, _>, _>>()
            .map_err(|e| Error::Value { origin: self.origin(&keys::LABEL), problem: e.to_string() })?;
        let max_execs = self.convert(&keys::MAX_EXECS, |text| {
            let number = text.parse().ok().filter(|n| *n > 0);
            number.ok_or_else(|| format!("{text:?} is no number of processes; use 1 or more"))
        })?;
        let slots = self.convert(&keys::SLOTS, |text| {
            text.parse().map_err(|_| format!("{text:?} is no number of jobs; use 0 or more"))
        })?;
        let allow = self.list(&keys::ALLOW).iter().map(|text| text.parse()).collect::<Result<_, InvalidPattern>>();
        let allow = allow.map_err(|e| Error::Value { origin: self.origin(&keys::ALLOW), problem: e.to_string() })?;
        let policy = Policy { no_exec: self.switch(&keys::NO_EXEC)?, allow };
        Ok(Config {
            link: self.link()?,
            data: self.data_dir()?,
            labels,
            work_dir: self.path(&keys::WORK),
            environment: self.environment().variables(),
            slots: if policy.no_exec { 0 } else { slots.unwrap_or(default.slots) },
            policy,
            hooks: self.path(&keys::HOOKS),
            one_shot: self.switch(&keys::ONE_SHOT)?,
            idle_exit: self.duration(&keys::IDLE_EXIT)?,
            max_uptime: self.duration(&keys::MAX_UPTIME)?,
            wait_for_jobs: self.switch(&keys::WAIT_FOR_JOBS)?,
            max_execs: max_execs.unwrap_or(default.max_execs),
            ..Config::default()
        })
    }
}
