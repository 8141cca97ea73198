//! What we know of a cluster: its brokers, who leads which partition. Shared by all readers and writers of one cluster,
//! so that opening many partitions asks once, on one connection.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kafka_protocol::{
    messages::{MetadataRequest, MetadataResponse, TopicName, metadata_request::MetadataRequestTopic},
    protocol::StrBytes,
};

use super::{Error, TopicDescription, code::Asked, config::Address, connection::Connection, dialer::Dialer};

/// How long the broker that answered last may take. Then another one is asked: this one may have frozen.
const KEPT: Duration = Duration::from_secs(5);

/// The shared knowledge of one cluster.
pub(super) struct Metadata {
    pub(super) dialer: Dialer,
    known: Mutex<Known>,
    /// The connection for questions about the cluster. Whoever holds it asks; who comes meanwhile finds the answer.
    asking: tokio::sync::Mutex<Option<Arc<Connection>>>,
}

#[derive(Default)]
struct Known {
    brokers: BTreeMap<i32, Address>,
    controller: i32,
    topics: BTreeMap<String, Topic>,
    /// Counts answers, so that what is forgotten is not what somebody else has just learnt.
    answers: u64,
    /// Who answered last.
    good: Option<Address>,
}

/// A topic as the cluster described it.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub(super) description: TopicDescription,
    leaders: BTreeMap<i32, i32>,
    answer: u64,
}

/// Who leads a partition, and in which answer we learnt it.
#[derive(Debug, Clone)]
pub(super) struct Leader {
    pub(super) broker: Address,
    pub(super) answer: u64,
}

impl Metadata {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, known: Mutex::default(), asking: tokio::sync::Mutex::new(None) }
    }

    /// The leader of a partition, from memory where we know it.
    pub(super) async fn leader(&self, topic: &str, partition: i32) -> Result<Leader, Error> {
        if let Some(leader) = self.known().leader(topic, partition)? {
            return Ok(leader);
        }
        let mut asking = self.asking.lock().await;
        if let Some(leader) = self.known().leader(topic, partition)? {
            return Ok(leader);
        }
        let response = self.ask(&mut asking, &[topic]).await?;
        self.learn(&response);
        self.topic_of(&response, topic)?;
        self.known().leader(topic, partition)?.ok_or_else(|| Error::Transient {
            broker: format!("{topic}/{partition}"),
            request: "Metadata",
            code: "LEADER_NOT_AVAILABLE".to_owned(),
        })
    }

    /// Forgets a topic's leaders, unless they were learnt after `answer`.
    pub(super) fn forget(&self, topic: &str, answer: u64) {
        let mut known = self.known();
        if known.topics.get(topic).is_some_and(|topic| topic.answer <= answer) {
            known.topics.remove(topic);
        }
    }

    /// Asks for `topics` anew. One result per topic, in their order.
    pub(super) async fn describe(&self, topics: &[&str]) -> Result<Vec<Result<Topic, Error>>, Error> {
        let mut asking = self.asking.lock().await;
        let response = self.ask(&mut asking, topics).await?;
        self.learn(&response);
        Ok(topics.iter().map(|topic| self.topic_of(&response, topic)).collect())
    }

    /// How many brokers the cluster had at the last answer.
    pub(super) fn brokers(&self) -> usize {
        self.known().brokers.len()
    }

    /// A connection to a broker that may create topics.
    pub(super) async fn controller(&self) -> Result<Arc<Connection>, Error> {
        let mut asking = self.asking.lock().await;
        let response = self.ask(&mut asking, &[]).await?;
        self.learn(&response);
        let connection = asking.as_ref().expect("an answer came over it").clone();
        let address = {
            let known = self.known();
            known.brokers.get(&known.controller).cloned()
        };
        match address {
            Some(address) if address != *connection.broker() => match self.dialer.open(&address).await {
                Ok(connection) => Ok(Arc::new(connection)),
                // In KRaft every broker passes the request on.
                Err(_) => Ok(connection),
            },
            _ => Ok(connection),
        }
    }

    async fn ask(&self, asking: &mut Option<Arc<Connection>>, topics: &[&str]) -> Result<MetadataResponse, Error> {
        let names = topics.iter().map(|topic| {
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string((*topic).to_owned()))))
        });
        let request =
            MetadataRequest::default().with_topics(Some(names.collect())).with_allow_auto_topic_creation(false);
        if let Some(connection) = asking.take().filter(|connection| connection.is_usable())
            && let Ok(response) = connection.call(&request, self.dialer.request_timeout().min(KEPT)).await
        {
            *asking = Some(connection);
            return Ok(response);
        }
        let connection = Arc::new(self.dialer.open_any(&self.addresses()).await?);
        self.known().good = Some(connection.broker().clone());
        let response = connection.call(&request, self.dialer.request_timeout()).await?;
        *asking = Some(connection);
        Ok(response)
    }

    /// Whom to ask, likely ones first.
    fn addresses(&self) -> Vec<Address> {
        let known = self.known();
        let mut addresses: Vec<Address> = Vec::new();
        let all = known.good.iter().chain(known.brokers.values()).chain(self.dialer.bootstrap());
        for address in all {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    fn learn(&self, response: &MetadataResponse) {
        let mut known = self.known();
        known.answers += 1;
        known.controller = response.controller_id.0;
        let address = |host: &str, port| Some(Address { host: host.to_owned(), port: u16::try_from(port).ok()? });
        known.brokers =
            response.brokers.iter().filter_map(|b| Some((b.node_id.0, address(&b.host, b.port)?))).collect();
        let answer = known.answers;
        for topic in response.topics.iter().filter(|topic| topic.error_code == 0) {
            let Some(name) = &topic.name else { continue };
            let leaders = topic.partitions.iter().map(|p| (p.partition_index, p.leader_id.0)).collect();
            let description = TopicDescription {
                id: topic.topic_id.as_u128(),
                partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
                replication: topic
                    .partitions
                    .first()
                    .map_or(0, |p| i16::try_from(p.replica_nodes.len()).unwrap_or(i16::MAX)),
            };
            known.topics.insert(name.to_string(), Topic { description, leaders, answer });
        }
    }

    fn topic_of(&self, response: &MetadataResponse, topic: &str) -> Result<Topic, Error> {
        let found = response.topics.iter().find(|t| t.name.as_ref().is_some_and(|name| name.as_str() == topic));
        let missing = || Error::TopicMissing { topic: topic.to_owned() };
        let code = found.ok_or_else(missing)?.error_code;
        let asked = Asked {
            request: "Metadata",
            topic,
            partition: None,
            right: "Describe",
            principal: self.dialer.principal(),
            bytes: 0,
        };
        asked.check(code)?;
        self.known().topics.get(topic).cloned().ok_or_else(missing)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// `None`: we have to ask.
    fn leader(&self, topic: &str, partition: i32) -> Result<Option<Leader>, Error> {
        let Some(known) = self.topics.get(topic) else { return Ok(None) };
        let Some(leader) = known.leaders.get(&partition) else {
            return Err(Error::Config(format!(
                "topic {topic} has {} partitions and no partition {partition}; the number of partitions must be the \
                 one the cluster was set up with",
                known.description.partitions
            )));
        };
        let broker = self.brokers.get(leader).cloned();
        Ok(broker.map(|broker| Leader { broker, answer: known.answer }))
    }
}
