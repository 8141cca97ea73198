//! One lane's way to one partition: a socket with its endpoint, and the two pumps that move its records.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime, VarInt};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::task::JoinHandle;

use super::{
    inbox::Inbox,
    pump::{self, Health},
    queue::Queue,
    route::Route,
    socket::PartitionSocket,
};
use crate::kafka::{At, Error, PartitionWriter, Record, SharedCluster};

/// How long a reader waits for quinn to make room before it drops.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(2);

/// Decides what becomes of a record: datagrams for quinn are pushed with the address they come from.
pub type Sort = Arc<dyn Fn(Record, &mut Vec<(SocketAddr, Bytes)>) + Send + Sync>;

/// What a port is made of.
pub struct Plan {
    /// What is read.
    pub read: (String, i32),
    pub sort: Sort,
    pub mouth: Mouth,
}

/// The part of a port that does not read.
pub struct Mouth {
    pub writer: Arc<dyn PartitionWriter>,
    pub route: Arc<Route>,
    pub local: SocketAddr,
    pub endpoint: EndpointConfig,
    pub server: Option<ServerConfig>,
    pub random: StdRng,
}

/// An open endpoint. Dropping it stops its tasks at once.
pub struct Port {
    pub endpoint: Endpoint,
    pub queue: Arc<Queue>,
    pub inbox: Arc<Inbox>,
    pub health: Health,
    writer: JoinHandle<()>,
    /// None where somebody else reads and fills the inbox.
    reader: Option<JoinHandle<()>>,
}

impl Port {
    /// Finds the log's end, from where this port reads, and starts. The end comes first: what a peer answers to us
    /// then lies behind it.
    pub async fn open(cluster: &SharedCluster, plan: Plan) -> Result<Self, Error> {
        let Plan { read: (topic, partition), sort, mut mouth } = plan;
        let mut reader = cluster.reader(&topic, partition);
        let start = reader.offset(At::Latest).await?;
        let random = StdRng::from_seed(mouth.random.random());
        let mut port = Self::speaking(mouth);
        let inbox = port.inbox.clone();
        let deliver = move |records| deliver(records, sort.clone(), inbox.clone());
        port.reader = Some(tokio::spawn(pump::read(reader, start, deliver, port.health.clone(), random)));
        Ok(port)
    }

    /// A port whose inbox is filled by others.
    pub fn speaking(mouth: Mouth) -> Self {
        let Mouth { writer, route, local, endpoint, server, random } = mouth;
        let queue = Arc::new(Queue::new());
        let inbox = Arc::new(Inbox::new());
        let health = Health::new();
        let socket = Arc::new(PartitionSocket { queue: queue.clone(), inbox: inbox.clone(), route, local });
        let endpoint = Endpoint::new_with_abstract_socket(endpoint, server, socket, Arc::new(TokioRuntime))
            .expect("our socket has an address");
        let writer = tokio::spawn(pump::write(queue.clone(), writer, health.clone(), random));
        Self { endpoint, queue, inbox, health, writer, reader: None }
    }

    /// Stops both pumps without a word.
    #[cfg(test)]
    pub fn stop_dead(&self) {
        self.writer.abort();
        self.reader.iter().for_each(JoinHandle::abort);
    }

    /// Closes all connections with `code`, sends what is queued and stops, within 2 s.
    pub async fn close(mut self, code: VarInt, reason: &[u8]) {
        self.endpoint.close(code, reason);
        let all_sent = async {
            self.endpoint.wait_idle().await;
            self.queue.close();
            let _ = (&mut self.writer).await;
        };
        let _ = tokio::time::timeout(CLOSE, all_sent).await;
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.endpoint.close(super::hello::close::GOING_AWAY, b"");
        self.queue.close();
        self.writer.abort();
        self.reader.iter().for_each(JoinHandle::abort);
    }
}

async fn deliver(records: Vec<(i64, Record)>, sort: Sort, inbox: Arc<Inbox>) {
    let mut datagrams = Vec::new();
    for (_, record) in records {
        sort(record, &mut datagrams);
        for (from, datagram) in datagrams.drain(..) {
            while !inbox.push(from, datagram.clone()) {
                if tokio::time::timeout(PATIENCE, inbox.drained()).await.is_err() {
                    break;
                }
            }
        }
    }
    inbox.wake();
}
