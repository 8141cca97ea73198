//! Settings of an installation, as its cluster has to know it.

use super::{Error, Settings, keys};
use crate::kafka::topics::{Installation, principal_of};

impl Settings {
    /// The topics without which a controller does not start.
    pub fn topics_of_controller(&self) -> Result<Installation, Error> {
        let link = self.link()?;
        Ok(Installation {
            prefix: link.prefix,
            partitions: i32::try_from(link.partitions).unwrap_or(i32::MAX),
            events: self.switch(&keys::EVENTS)?,
            blobs_retention: self.duration(&keys::BLOBS_RETENTION)?,
            artifacts_retention: self.duration(&keys::ARTIFACTS_RETENTION)?,
            ..Installation::default()
        })
    }

    /// The installation whose topics and rights are looked at.
    pub fn installation(&self) -> Result<Installation, Error> {
        let agents = || {
            let origin = self.origin(&keys::PER_AGENT);
            let refused = |e: crate::id::InvalidName| Error::Value { origin: origin.clone(), problem: e.to_string() };
            self.list(&keys::PER_AGENT).iter().map(|name| name.parse().map_err(refused)).collect()
        };
        let principal = |key| Ok(self.parse::<String>(key)?.map(|user| principal_of(&user)));
        Ok(Installation {
            per_agent: self.values(&keys::PER_AGENT).map(|_| agents()).transpose()?,
            agents_as: principal(&keys::AGENTS_AS)?,
            controller_as: principal(&keys::CONTROLLER_AS)?,
            ..self.topics_of_controller()?
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Environment, Given, Role, Settings, keys};

    fn settings(flags: &[(&'static str, &str)]) -> Settings {
        let flags: Given = flags.iter().map(|(name, value)| (*name, vec![(*value).to_owned()])).collect();
        let environment = Environment::of([("RK_CONFIG", "/dev/null")]);
        Settings::gather(Role::Topics, flags, environment).expect("settings")
    }

    #[test]
    fn users_become_principals_and_no_agents_is_something_else_than_unknown_agents() {
        let given = settings(&[("agents-as", "agent"), ("controller-as", "User:CN=c"), ("per-agent", "a,b")]);
        let installation = given.installation().expect("good");
        assert_eq!(installation.agents_as.as_deref(), Some("User:agent"));
        assert_eq!(installation.controller_as.as_deref(), Some("User:CN=c"));
        assert_eq!(installation.per_agent.map(|agents| agents.len()), Some(2));
        assert_eq!(settings(&[("per-agent", "")]).installation().expect("good").per_agent, Some([].into()));
        assert_eq!(settings(&[]).installation().expect("good").per_agent, None);
        for (flags, events) in [(&[][..], false), (&[("events", "true")], true)] {
            assert_eq!(settings(flags).installation().expect("good").events, events);
            assert_eq!(settings(flags).topics_of_controller().expect("good").events, events);
        }
    }

    #[test]
    fn a_name_that_no_agent_can_have_is_refused_with_its_place() {
        let e = settings(&[("per-agent", "a,b.c")]).installation().expect_err("a dot").to_string();
        assert!(e.starts_with("--per-agent: ") && e.contains("b.c"), "{e}");
        assert_eq!(keys::named("topics-manage").map(|key| key.roles), Some(&[Role::Controller][..]));
    }
}
