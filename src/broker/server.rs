//! Accepting connections, and everything that lives as long as the broker does.

use super::authorizer::Authorizer;
use super::config::{Config, Sync, Users};
use super::connection;
use super::credentials::Credentials;
use super::sasl::Accounts;
use super::settings::Defaults;
use super::topics::Topics;
use super::{Error, upkeep};
use std::fs::{File, TryLockError};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Everything is this node: it leads every partition.
pub(crate) const NODE: i32 = 1;

/// Accepting goes on after an error such as too many open files, but not in a tight loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The last tasks on blocking threads have so long to let go of the data directory.
const LAST_TASKS: Duration = Duration::from_secs(10);

/// What all connections share.
pub(crate) struct Shared {
    pub topics: Topics,
    pub accounts: Accounts,
    /// None: everybody may do everything.
    pub authorizer: Option<Authorizer>,
    pub sync: Sync,
    /// Where clients are told to connect to.
    pub host: String,
    pub port: u16,
    pub config: Config,
    /// Held as long as anybody uses the data directory.
    _lock: File,
}

/// Serves `listener` until `shutdown` completes. Opens nothing but the data directory.
///
/// Connections wait in the listener's queue while logs are read and repaired. When it returns, everything that was
/// written has been forced to stable storage (unless [`Sync::Never`]) and the directory is free for the next broker.
///
/// # Errors
/// The data directory can't be used, or its logs can't be read.
pub async fn run(listener: TcpListener, config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::Listener)?;
    let opened = tokio::task::spawn_blocking(move || Shared::open(config, address));
    let shared = Arc::new(opened.await.map_err(|e| Error::Listener(io::Error::other(e)))??);
    tracing::info!(
        %address, host = %shared.host, port = shared.port, topics = shared.topics.all().len(),
        tls = shared.config.listener.tls.is_some(), sasl = shared.must_authenticate(),
        acls = shared.authorizer.is_some(), "broker is up"
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(upkeep::retain(Arc::clone(&shared)));
    tasks.spawn(upkeep::sync(Arc::clone(&shared)));
    tokio::select! {
        () = accept(&listener, &shared, &mut tasks) => {}
        () = shutdown => {}
    }
    drop(listener);
    tasks.shutdown().await;
    if shared.sync != Sync::Never {
        upkeep::sync_all(&shared).await;
    }
    let patience = Instant::now() + LAST_TASKS;
    while Arc::strong_count(&shared) > 1 && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tracing::info!("broker is down");
    Ok(())
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>, tasks: &mut JoinSet<()>) {
    // The tasks of `run` itself are in the set too.
    let most = shared.config.max_connections.saturating_add(tasks.len());
    loop {
        while tasks.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= most {
            tracing::warn!(%peer, limit = shared.config.max_connections, "closed a connection: too many at a time");
            continue;
        }
        let shared = Arc::clone(shared);
        tasks.spawn(async move {
            if let Err(error) = connection::serve(stream, peer, &shared).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
}

impl Shared {
    /// Opens the data directory and repairs its logs; blocks. `address` is told to clients unless the configuration
    /// says otherwise.
    pub fn open(config: Config, address: SocketAddr) -> Result<Self, Error> {
        let data = |source| Error::Data { path: config.data.clone(), source };
        std::fs::create_dir_all(&config.data).map_err(data)?;
        let lock = lock(&config.data)?;
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        let defaults = Defaults {
            retention_ms: config.retention.map_or(-1, millis),
            retention_bytes: config.retention_bytes.map_or(-1, |b| i64::try_from(b).unwrap_or(i64::MAX)),
            segment_bytes: config.segment_bytes.clamp(1, i32::MAX as u64),
            segment_ms: millis(config.segment_age).max(1),
            max_message_bytes: config.max_message_bytes.min(connection::LARGEST_FRAME),
        };
        let topics = Topics::open(&config.data, defaults, config.cache_bytes).map_err(data)?;
        let credentials = Credentials::open(&config.data).map_err(data)?;
        let accounts = Accounts::new(config.listener.sasl.as_ref().unwrap_or(&Users::default()), credentials);
        let authorizer = if config.super_users.is_empty() {
            if Authorizer::is_kept(&config.data) {
                tracing::warn!("no super user is named: the access control list that is kept here counts for nothing");
            }
            None
        } else {
            Some(Authorizer::open(&config.data, &config.super_users).map_err(data)?)
        };
        let host = config.advertised_host.clone().unwrap_or_else(|| {
            if address.ip().is_unspecified() { "localhost".to_owned() } else { address.ip().to_string() }
        });
        Ok(Self {
            topics,
            accounts,
            authorizer,
            sync: config.sync,
            host,
            port: config.advertised_port.unwrap_or_else(|| address.port()),
            config,
            _lock: lock,
        })
    }

    /// Whether clients must say and prove who they are.
    pub fn must_authenticate(&self) -> bool {
        self.config.listener.sasl.is_some()
    }
}

/// Keeps a second broker out. The lock goes with the process, however it ends.
fn lock(directory: &Path) -> Result<File, Error> {
    let data = |source| Error::Data { path: directory.to_owned(), source };
    let file = File::create(directory.join("lock")).map_err(data)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(data(error)),
    }
}
