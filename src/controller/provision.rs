//! What agents need in Kafka: topics of their own, and, where the controller may, users and rights of their own.

use std::{collections::BTreeSet, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use crate::{
    api::agents::KafkaLogin,
    id::AgentName,
    kafka::{
        Admin, Error, Offered, Prefix, ScramMechanism,
        topics::{AgentNeeds, Difference, agent_of_user, principal_of},
    },
    layout::Layout,
    secret::{self, Secret},
};

/// How a user of its own logs in.
const MECHANISM: ScramMechanism = ScramMechanism::Sha512;
/// How long a new user and its rights may take until every broker knows them.
const KNOWN: Duration = Duration::from_secs(10);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);

/// An agent's own login.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub user: String,
    /// Its password.
    pub password: Secret<String>,
}

impl Login {
    /// As the API tells it.
    pub(super) fn told(self) -> KafkaLogin {
        KafkaLogin { mechanism: MECHANISM.to_string(), username: self.user, password: self.password.expose().clone() }
    }
}

/// What came of making what an agent needs.
#[derive(Debug, Clone, Default)]
pub struct Made {
    /// The agent's own login.
    pub login: Option<Login>,
    /// What somebody has to do who may, and why: commands of Kafka's own tools.
    pub left: Option<String>,
}

/// Makes and removes what agents need.
pub trait Provision: Send + Sync + 'static {
    /// Makes it. An error is a cluster that could not be asked, or a topic that could not be made.
    fn make<'a>(&'a self, agent: &'a AgentName, layout: Layout) -> BoxFuture<'a, Result<Made, Error>>;

    /// Makes the agent's login and rights anew, where it has some of its own.
    fn let_in<'a>(&'a self, agent: &'a AgentName, layout: Layout) -> BoxFuture<'a, Result<Made, Error>>;

    /// Takes the agent's login and rights away.
    fn bar<'a>(&'a self, agent: &'a AgentName, layout: Layout) -> BoxFuture<'a, Result<(), Error>>;

    /// The agents for which something is there that was made for them.
    fn found(&self) -> BoxFuture<'_, Result<BTreeSet<AgentName>, Error>>;

    /// Deletes the agent's topic.
    fn clear<'a>(&'a self, agent: &'a AgentName) -> BoxFuture<'a, Result<(), Error>>;
}

/// Makes it on a cluster.
pub struct OnCluster {
    admin: Admin,
    prefix: Prefix,
    /// Whether agents get users and rights of their own.
    users: bool,
}

impl OnCluster {
    /// For the installation with this prefix. With `users` each agent gets a user and rights of its own.
    pub fn new(admin: Admin, prefix: Prefix, users: bool) -> Self {
        Self { admin, prefix, users }
    }

    async fn needs(&self, agent: &AgentName, layout: Layout) -> Result<AgentNeeds, Error> {
        Ok(AgentNeeds::new(&self.prefix, agent, layout, self.admin.brokers().await?))
    }

    async fn make(&self, agent: &AgentName, layout: Layout) -> Result<Made, Error> {
        let needs = self.needs(agent, layout).await?;
        if let Some(topic) = &needs.topic {
            let wanted = [Difference::CreateTopic(topic.clone())];
            for applied in crate::kafka::topics::apply(&self.admin, &wanted).await? {
                applied.result?;
            }
        }
        if !self.users {
            // Somebody else gives it its rights, if there are any to give.
            let left = needs.topic.is_some().then(|| needs.commands(&self.admin.bootstrap()));
            return Ok(Made { login: None, left });
        }
        self.give(&needs).await
    }

    async fn let_in(&self, agent: &AgentName, layout: Layout) -> Result<Made, Error> {
        if !self.users {
            return Ok(Made::default());
        }
        self.give(&self.needs(agent, layout).await?).await
    }

    /// Makes a user with its rights, or says what somebody has to do who may.
    async fn give(&self, needs: &AgentNeeds) -> Result<Made, Error> {
        match self.user(needs).await {
            Ok(login) => Ok(Made { login: Some(login), left: None }),
            Err(error @ Error::Authorization { .. }) => {
                let commands = needs.commands(&self.admin.bootstrap());
                Ok(Made { login: None, left: Some(format!("# {}\n{commands}", error.to_string().replace('\n', " "))) })
            }
            Err(error) => Err(error),
        }
    }

    async fn user(&self, needs: &AgentNeeds) -> Result<Login, Error> {
        let password = Secret::new(URL_SAFE_NO_PAD.encode(secret::random::<24>()));
        let none = |what: &str| {
            Err(Error::Config(format!("the cluster keeps no {what}; leave --provision-kafka out, or turn them on")))
        };
        // Rights first: a user without them would be refused for good.
        match self.admin.create_acls(&needs.acls.iter().collect::<Vec<_>>()).await? {
            Offered::Present(results) => results.into_iter().collect::<Result<(), _>>()?,
            Offered::Absent => return none("access rules"),
        }
        match self.admin.set_scram_user(&needs.user, MECHANISM, &password).await? {
            Offered::Present(()) => {}
            Offered::Absent => return none("SCRAM users"),
        }
        let until = Instant::now() + KNOWN;
        while !self.is_known(&needs.user).await? && Instant::now() < until {
            sleep(LOOK).await;
        }
        Ok(Login { user: needs.user.clone(), password })
    }

    async fn is_known(&self, user: &str) -> Result<bool, Error> {
        let users = self.admin.scram_users(&[user]).await?.present().unwrap_or_default();
        Ok(users.iter().any(|found| found.name == user))
    }

    async fn bar(&self, agent: &AgentName, layout: Layout) -> Result<(), Error> {
        if !self.users {
            return Ok(());
        }
        let needs = self.needs(agent, layout).await?;
        let rules = self.admin.topic_acls(Some(&principal_of(&needs.user))).await?.present().unwrap_or_default();
        if rules.iter().all(|rule| rule.name.starts_with(&self.prefix.start())) {
            self.admin.delete_scram_user(&needs.user, MECHANISM).await?;
        } else {
            tracing::warn!(%agent, "its Kafka user has rights beside this installation's, and stays");
        }
        // Last: as long as they are there it is known that there is something to take away.
        self.admin.delete_acls(&needs.acls.iter().collect::<Vec<_>>()).await?;
        Ok(())
    }

    async fn found(&self) -> Result<BTreeSet<AgentName>, Error> {
        let topics = self.admin.topics_below(&self.prefix.start()).await?;
        let mut found: BTreeSet<AgentName> =
            topics.iter().filter_map(|topic| self.prefix.agent_of(&topic.name)).collect();
        if self.users {
            let rules = self.admin.topic_acls(None).await?.present().unwrap_or_default();
            let ours = rules.iter().filter(|rule| rule.name.starts_with(&self.prefix.start()));
            found.extend(ours.filter_map(|rule| agent_of_user(&rule.principal)));
        }
        Ok(found)
    }

    async fn clear(&self, agent: &AgentName) -> Result<(), Error> {
        let topic = self.prefix.agent_down(agent);
        for result in self.admin.delete_topics(&[&topic]).await? {
            match result {
                Ok(()) | Err(Error::TopicMissing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Provision for OnCluster {
    fn make<'a>(&'a self, agent: &'a AgentName, layout: Layout) -> BoxFuture<'a, Result<Made, Error>> {
        Box::pin(self.make(agent, layout))
    }

    fn let_in<'a>(&'a self, agent: &'a AgentName, layout: Layout) -> BoxFuture<'a, Result<Made, Error>> {
        Box::pin(self.let_in(agent, layout))
    }

    fn bar<'a>(&'a self, agent: &'a AgentName, layout: Layout) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.bar(agent, layout))
    }

    fn found(&self) -> BoxFuture<'_, Result<BTreeSet<AgentName>, Error>> {
        Box::pin(self.found())
    }

    fn clear<'a>(&'a self, agent: &'a AgentName) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.clear(agent))
    }
}
