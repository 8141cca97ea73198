//! The cluster as the plugin was told of it.

/// A Java key store.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Store {
    /// Where it lies; unknown where only a credential's id is.
    pub path: Option<String>,
    /// The Jenkins credential that held path and password.
    pub credential: Option<String>,
}

impl Store {
    /// One at this path.
    pub fn at(path: &str) -> Self {
        Self { path: Some(path.to_owned()), credential: None }
    }

    /// Its path, or a name that stands for it.
    pub fn place<'a>(&'a self, otherwise: &'a str) -> &'a str {
        self.path.as_deref().unwrap_or(otherwise)
    }
}

/// Where Kafka is and how to get in.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub brokers: Option<String>,
    pub zookeeper: Option<String>,
    /// TLS and SASL/PLAIN: the plugin knew all or nothing.
    pub secure: bool,
    pub user: Option<String>,
    /// The Jenkins credential that held user and password.
    pub credential: Option<String>,
    pub truststore: Option<Store>,
    pub keystore: Option<Store>,
}

impl Cluster {
    /// Puts what an agent's command line says where nothing is known yet.
    pub fn fill(&mut self, brokers: Option<&String>, user: Option<&String>, stores: [Option<&Store>; 2], secure: bool) {
        let unknown = *self == Self::default();
        self.brokers = self.brokers.take().or_else(|| brokers.cloned());
        self.user = self.user.take().or_else(|| user.cloned());
        let [truststore, keystore] = stores;
        let fill = |known: Option<Store>, other: Option<&Store>| match (known, other) {
            (Some(known), Some(other)) if known.path.is_none() => Some(Store { path: other.path.clone(), ..known }),
            (known, other) => known.or_else(|| other.cloned()),
        };
        self.truststore = fill(self.truststore.take(), truststore);
        self.keystore = fill(self.keystore.take(), keystore);
        if unknown {
            self.secure = secure;
        }
    }
}
