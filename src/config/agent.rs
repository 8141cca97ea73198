//! Settings of an agent.

use std::collections::BTreeMap;

use super::{Error, Settings, keys};
use crate::{
    agent::{
        self, Config,
        forward::Forwards,
        policy::{Files, InvalidPattern, Policy},
        run_as::User,
        update, wasm,
    },
    id::AgentName,
    link::{Credential, JoinToken},
    selector::{self, Labels},
    size,
};

impl Settings {
    /// Who the agent is.
    pub fn credential(&self) -> Result<Credential, Error> {
        let text = self.pass.credential.as_ref().ok_or_else(|| {
            let cure = "an agent needs its credential, which `rk agents add NAME` prints, or --join with a token";
            self.missing(&keys::CREDENTIAL, cure)
        })?;
        text.expose()
            .parse()
            .map_err(|e| Error::Value { origin: self.origin(&keys::CREDENTIAL), problem: format!("{e}") })
    }

    /// The join token by which the agent gets a credential, and the name that it wishes for.
    pub fn join(&self) -> Result<Option<(JoinToken, AgentName)>, Error> {
        let name = self.parse::<AgentName>(&keys::NAME)?;
        let refused = |key, problem: String| Err(Error::Value { origin: self.origin(key), problem });
        let Some(text) = self.secret(&keys::JOIN)? else {
            return match name {
                Some(_) => refused(&keys::NAME, "it is for --join; a credential has a name in it".to_owned()),
                None => Ok(None),
            };
        };
        if self.pass.credential.is_some() {
            return refused(&keys::JOIN, "there is a credential as well; give one of the two".to_owned());
        }
        let token = text
            .expose()
            .parse()
            .map_err(|e| Error::Value { origin: self.origin(&keys::JOIN), problem: format!("{e}") })?;
        let name = name.or_else(agent::default_name);
        let name = name.ok_or_else(|| self.missing(&keys::NAME, "the host's name is no name of an agent"))?;
        Ok(Some((token, name)))
    }

    /// How the agent's program, whose file this is, is replaced.
    pub fn updates(&self, program: std::path::PathBuf) -> Result<update::Settings, Error> {
        // Where commands may do anything as the agent they may replace its program too.
        let limited = self.switch(&keys::NO_EXEC)? || !self.list(&keys::ALLOW).is_empty();
        let usual = match limited || self.parse::<String>(&keys::RUN_AS)?.is_some() {
            true => update::Policy::Signed,
            false => update::Policy::Any,
        };
        let policy = self.parse(&keys::UPDATES)?.unwrap_or(usual);
        let keys = self.require_signed()?.is_some();
        Ok(update::Settings { program, policy, keys, trial: self.environment().on_trial() })
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
        let restricted = self.switch(&keys::NO_EXEC)? || !self.list(&keys::ALLOW).is_empty();
        let listed = self.list(&keys::FORWARD_TO).iter().map(|text| text.parse()).collect::<Result<_, String>>();
        let listed: Vec<_> =
            listed.map_err(|problem| Error::Value { origin: self.origin(&keys::FORWARD_TO), problem })?;
        let forwards = match self.switch(&keys::NO_FORWARD)? {
            true => Forwards::none(),
            false => Forwards::new(!restricted, listed),
        };
        let below = self.list(&keys::FILES);
        let files = match (self.switch(&keys::NO_FILES)?, below.is_empty()) {
            (true, _) => Files::Nothing,
            (false, true) => Files::AsCommands,
            (false, false) => Files::Below(below.iter().map(Into::into).collect()),
        };
        let policy = Policy { no_exec: self.switch(&keys::NO_EXEC)?, allow, files };
        let run_as = self.convert(&keys::RUN_AS, |name| User::find(name).map_err(|e| e.to_string()))?;
        let usual = wasm::Limits::default();
        let limits = wasm::Limits {
            memory: self.convert(&keys::WASM_MEMORY, size::parse)?.unwrap_or(usual.memory),
            fuel: self.number(&keys::WASM_FUEL)?,
        };
        Ok(Config {
            link: self.link()?,
            data: self.data_dir()?,
            labels,
            work_dir: self.path(&keys::WORK),
            environment: self.environment().variables(),
            slots: if policy.no_exec { 0 } else { slots.unwrap_or(default.slots) },
            policy,
            forwards,
            run_as,
            wasm: wasm::AVAILABLE.then(|| wasm::Runner::ourselves(limits)),
            hooks: self.path(&keys::HOOKS),
            one_shot: self.switch(&keys::ONE_SHOT)?,
            idle_exit: self.duration(&keys::IDLE_EXIT)?,
            max_uptime: self.duration(&keys::MAX_UPTIME)?,
            wait_for_jobs: self.switch(&keys::WAIT_FOR_JOBS)?,
            max_execs: max_execs.unwrap_or(default.max_execs),
            bundle_cache: self.convert(&keys::BUNDLE_CACHE, size::parse)?.unwrap_or(default.bundle_cache),
            artifact_limit: self.convert(&keys::ARTIFACT_LIMIT, size::parse)?.unwrap_or(default.artifact_limit),
            require_signed: self.require_signed()?,
            ..Config::default()
        })
    }
}
