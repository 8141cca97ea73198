//! The table of settings: each line is a flag, an environment variable and a key of the YAML file at once.
//!
//! `cli` makes its flags from this table, so the three spellings cannot drift apart. A key knows nothing of its type:
//! the module that converts it says what it takes.

/// Who takes a setting: the commands that offer it as a flag. A file may hold settings of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `rk controller run`.
    Controller,
    /// `rk agent run`.
    Agent,
    /// `rk broker`.
    Broker,
    /// Commands that ask a running controller.
    Client,
    /// `rk topics`.
    Topics,
    /// `rk doctor`: the settings of all that it looks at.
    Doctor,
    /// `rk jenkins-agent`: a client with settings of its own.
    Jenkins,
    /// Commands that only print.
    Local,
}

impl Role {
    /// The section of the YAML file whose keys are this role's alone; they win over the keys outside sections.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Agent => "agent",
            Self::Broker => "broker",
            Self::Client => "client",
            Self::Topics => "topics",
            Self::Doctor => "doctor",
            Self::Jenkins => "jenkins-agent",
            Self::Local => "local",
        }
    }

    /// The role whose section of the YAML file has this name.
    pub fn of_section(name: &str) -> Option<Self> {
        let roles = [Self::Controller, Self::Agent, Self::Broker, Self::Client, Self::Topics, Self::Jenkins];
        roles.into_iter().find(|role| role.section() == name)
    }

    /// The role whose section counts as well, below this one's own.
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::Jenkins => Some(Self::Client),
            _ => None,
        }
    }
}

/// How a setting is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One value.
    One,
    /// Several: the flag is repeated, or one value has commas; a list or a map in the file.
    Many,
    /// On or off: the flag needs no value.
    Switch,
}

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// The key in the file, and the flag without its dashes.
    pub name: &'static str,
    /// A second name of the flag.
    pub alias: Option<&'static str>,
    /// The flag's letter.
    pub short: Option<char>,
    /// What its value looks like.
    pub value: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// How it is given.
    pub kind: Kind,
    /// The heading in `--help` under which it stands.
    pub heading: &'static str,
    /// Which commands offer it.
    pub roles: &'static [Role],
    /// Left out of `--help`.
    pub hidden: bool,
    /// Its value may begin with a dash.
    pub dashes: bool,
}

impl Key {
    /// The environment variable: `RK_` and the name in capitals.
    pub fn variable(&self) -> String {
        format!("RK_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// The two parts of its help: what it means, and its default where there is one.
    pub fn meaning_and_default(&self) -> (&'static str, Option<&'static str>) {
        match self.help.split_once(" [default: ") {
            Some((meaning, default)) => (meaning, default.strip_suffix(']')),
            None => (self.help, None),
        }
    }

    const fn new(heading: &'static str, roles: &'static [Role], name: &'static str, value: &'static str) -> Self {
        let (alias, short, help, kind) = (None, None, "", Kind::One);
        Self { name, alias, short, value, help, kind, heading, roles, hidden: false, dashes: false }
    }

    const fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    const fn many(self) -> Self {
        Self { kind: Kind::Many, ..self }
    }

    const fn switch(self) -> Self {
        Self { kind: Kind::Switch, ..self }
    }

    const fn alias(self, alias: &'static str) -> Self {
        Self { alias: Some(alias), ..self }
    }

    const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    const fn dashes(self) -> Self {
        Self { dashes: true, ..self }
    }
}

use Role::{Agent, Broker, Client, Controller, Doctor, Jenkins, Local, Topics};

const KAFKA: &str = "Kafka";
const KAFKA_ROLES: &[Role] = &[Controller, Agent, Topics, Doctor];
const GENERAL: &str = "General";
const EVERYWHERE: &[Role] = &[Controller, Agent, Broker, Client, Topics, Doctor, Jenkins, Local];

const fn kafka(name: &'static str, value: &'static str) -> Key {
    Key::new(KAFKA, KAFKA_ROLES, name, value)
}

const fn controller(name: &'static str, value: &'static str) -> Key {
    Key::new("Controller", &[Controller], name, value)
}

const fn agent(name: &'static str, value: &'static str) -> Key {
    Key::new("Agent", &[Agent], name, value)
}

const fn broker(name: &'static str, value: &'static str) -> Key {
    Key::new("Broker", &[Broker], name, value)
}

const fn client(name: &'static str, value: &'static str) -> Key {
    Key::new("Controller's API", &[Client, Doctor, Jenkins], name, value)
}

const fn jenkins(name: &'static str, value: &'static str) -> Key {
    Key::new("Jenkins", &[Jenkins], name, value)
}

const fn output(name: &'static str, value: &'static str) -> Key {
    Key::new("Output", &[Client, Topics, Doctor], name, value)
}

const fn topics(name: &'static str, value: &'static str) -> Key {
    Key::new("Topics", &[Topics], name, value)
}

const fn general(name: &'static str, value: &'static str) -> Key {
    Key::new(GENERAL, EVERYWHERE, name, value)
}

macro_rules! keys {
    ($($(#[$doc:meta])* $ident:ident = $key:expr;)*) => {
        $($(#[$doc])* pub static $ident: Key = $key;)*

        /// All settings, in the order of `--help`.
        pub static KEYS: &[&Key] = &[$(&$ident),*];
    };
}

keys! {
    /// Bootstrap addresses.
    BROKERS = kafka("brokers", "HOST:PORT,…").many().alias("bootstrap-server")
        .help("Kafka brokers to start from; a dead one among them does not matter");
    /// Kafka's own client settings.
    COMMAND_CONFIG = kafka("command-config", "FILE")
        .help("Read Kafka's own client.properties; our flags win over it");
    /// Plaintext, TLS, SASL.
    SECURITY_PROTOCOL = kafka("security-protocol", "PROTOCOL")
        .help("PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL [default: what the other flags call for]");
    /// Whom to trust.
    TLS_CA = kafka("tls-ca", "FILE").help("PEM file with the CA of the brokers [default: the system's CAs]");
    /// Client certificate.
    TLS_CERT = kafka("tls-cert", "FILE").help("PEM file with our client certificate");
    /// Client key.
    TLS_KEY = kafka("tls-key", "FILE").help("PEM file with the client certificate's key");
    /// How to log in.
    SASL_MECHANISM = kafka("sasl-mechanism", "NAME")
        .help("PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER [default: SCRAM-SHA-512]");
    /// Login.
    SASL_USERNAME = kafka("sasl-username", "NAME").help("User name at the brokers");
    /// Its password.
    SASL_PASSWORD = kafka("sasl-password", "SOURCE").help("Its password: file:PATH, fd:N or env:NAME");
    /// OAUTHBEARER from a file.
    SASL_TOKEN_FILE = kafka("sasl-token-file", "FILE").help("OAUTHBEARER token, read anew before it expires");
    /// OAUTHBEARER from a command.
    SASL_TOKEN_COMMAND = kafka("sasl-token-command", "COMMAND").help("Command that prints an OAUTHBEARER token");
    /// Bound on connecting.
    CONNECT_TIMEOUT = kafka("connect-timeout", "DURATION").help("How long connecting to a broker may take [default: 10s]");
    /// Bound on a request.
    REQUEST_TIMEOUT = kafka("request-timeout", "DURATION").help("How long a request to a broker may take [default: 30s]");
    /// The topics' prefix.
    PREFIX = kafka("prefix", "NAME").help("Prefix of all topics; one for each installation [default: rk]");
    /// Partitions of the packet topics.
    PARTITIONS = kafka("partitions", "N")
        .help("Partitions of each packet topic, fixed when they are created [default: 8]");

    /// Where the API listens, or the broker.
    LISTEN = Key::new("Network", &[Controller, Broker], "listen", "HOST:PORT")
        .help("Address to listen on [default: 127.0.0.1:7480, a broker 127.0.0.1:9092]");
    /// The API's or the broker's certificate.
    LISTEN_CERT = Key::new("Network", &[Controller, Broker], "listen-cert", "FILE")
        .help("PEM certificate chain; turns TLS on for what listens");
    /// Its key.
    LISTEN_KEY = Key::new("Network", &[Controller, Broker], "listen-key", "FILE")
        .help("PEM key of --listen-cert");

    /// Where others see how it is.
    HEALTH_ADDR = Key::new("Network", &[Controller, Agent], "health-addr", "HOST:PORT")
        .help("Serve /health/live, /health/ready and /metrics here, over plain HTTP [default: nowhere]");

    /// How long code is kept.
    BLOBS_RETENTION = Key::new(KAFKA, &[Controller, Topics, Doctor], "blobs-retention", "DURATION")
        .help("How long Kafka keeps pushed bundles, if we make the topic [default: 30 days]");

    /// How long the files of jobs are kept.
    ARTIFACTS_RETENTION = Key::new(KAFKA, &[Controller, Topics, Doctor], "artifacts-retention", "DURATION")
        .help("How long Kafka keeps the artifacts of jobs, if we make the topic [default: 30 days]");

    /// Which topics carry what agents are sent.
    LAYOUT = Key::new(KAFKA, &[Controller, Agent], "layout", "NAME")
        .help("shared, or per-agent: a topic of its own down to each agent; a controller's is for new ones [default: shared]");
    /// What happens, for other systems.
    EVENTS = Key::new("Controller", &[Controller, Topics], "events", "").switch()
        .help("Write what happens to agents and jobs, and who asked for what, into PREFIX.events as CloudEvents");
    /// Users and rights of their own for agents.
    PROVISION_KAFKA = controller("provision-kafka", "").switch()
        .help("Give each new agent a Kafka user and rights of its own, and take them when it goes");

    /// The controller's key.
    IDENTITY = controller("identity", "FILE")
        .help("The controller's key, made if missing: back it up [default: DATA/identity.pem]");
    /// Start on an older journal.
    ACCEPT_ROLLBACK = controller("accept-rollback", "").switch()
        .help("Start although the journal holds less than this machine has seen");
    /// Brokers that are away at the start.
    WAIT_FOR_KAFKA = controller("wait-for-kafka", "DURATION")
        .help("How long the start waits for brokers that are away [default: 60s]");
    /// When a job of an agent that is away is given up.
    LOST_AFTER = controller("lost-after", "DURATION")
        .help("Jobs are lost whose agent is unreachable for so long while Kafka works [default: never]");
    /// How long ended jobs are remembered.
    KEEP_JOBS_FOR = controller("keep-jobs-for", "DURATION").help("How long ended jobs are remembered [default: 30 days]");
    /// How many ended jobs are remembered.
    KEEP_JOBS = controller("keep-jobs", "N").help("How many ended jobs are remembered at most [default: 10000]");
    /// How long the files of jobs are listed.
    ARTIFACTS_AGE = controller("artifacts-age", "DURATION")
        .help("How long the artifacts of a job are kept [default: 30 days]");
    /// How many jobs' files are listed.
    ARTIFACTS_KEEP = controller("artifacts-keep", "N")
        .help("Of how many jobs of one name the artifacts are kept, the newest [default: 100]");
    /// How often one token is used.
    TOKEN_RATE = controller("token-rate", "N")
        .help("Requests a second with one token, but the controller's own; 10 times as many at once, 0 for no limit [default: 200]");
    /// How often somebody guesses.
    FAILURE_RATE = controller("failure-rate", "N")
        .help("Requests a minute from one address that have no good token; 0 for no limit [default: 30]");
    /// Whether this machine's users are limited too.
    LIMIT_LOOPBACK = controller("limit-loopback", "").switch()
        .help("Hold addresses of this machine to --failure-rate too, where no proxy stands in front");
    /// What the controller does about its topics.
    TOPICS_MANAGE = controller("topics-manage", "MODE")
        .help("auto makes topics that are missing, plan-only refuses to start without them, off does not look [default: auto]");

    /// Who the agent is.
    CREDENTIAL = Key::new("Agent", &[Agent, Doctor], "credential", "SOURCE")
        .help("What `rk agents add` printed: file:PATH, fd:N or env:NAME");
    /// How an agent whose name is not known ahead comes to a credential.
    JOIN = agent("join", "SOURCE").help("A join token that `rk tokens create` printed, where there is no credential");
    /// Under which name it wishes to be known.
    NAME = agent("name", "NAME").help("With --join: the agent's name [default: that of the host]");
    /// What the agent says of itself.
    LABEL = agent("label", "KEY=VALUE,…").many().help("Labels besides os, arch and hostname; may be repeated");
    /// Nothing is run.
    NO_EXEC = agent("no-exec", "").switch().help("Run no commands, whatever the controller asks for");
    /// Only this is run.
    ALLOW = agent("allow", "PATTERN").many()
        .help("Run only commands like 'git *'; no scripts, no variables; may be repeated");
    /// Whose files.
    FILES = agent("files", "DIR").many()
        .help("Give and take files only below this directory; may be repeated");
    /// Nobody's files.
    NO_FILES = agent("no-files", "").switch().help("Give and take no files (rk cp, rk fs)");
    /// Whose ports.
    FORWARD_TO = agent("forward-to", "HOST:PORT").many()
        .help("Forward connections there too, like db.internal:5432 or *:443; may be repeated");
    /// Nobody's ports.
    NO_FORWARD = agent("no-forward", "").switch().help("Forward no connections (rk forward)");
    /// Somebody else's rights.
    RUN_AS = agent("run-as", "USER").help("Run commands and jobs as this user; the agent itself then runs as root");
    /// What a WebAssembly module may have.
    WASM_MEMORY = agent("wasm-memory", "SIZE").help("Memory that a WebAssembly module may have [default: 256M]");
    /// What it may execute.
    WASM_FUEL = agent("wasm-fuel", "N")
        .help("About how many instructions a WebAssembly module may execute [default: without a limit]");
    /// Room for code.
    BUNDLE_CACHE = agent("bundle-cache", "SIZE").help("Room for bundles below DATA/bundles; 0 takes none [default: 10G]");
    /// Room for files of jobs.
    ARTIFACT_LIMIT = agent("artifact-limit", "SIZE")
        .help("What the artifacts of one job may have together; 0 takes none [default: 10G]");
    /// Whose code.
    REQUIRE_SIGNED = Key::new("Bundles", &[Controller, Agent], "require-signed", "FILE")
        .help("Take only bundles that one of the public keys in this PEM file has signed");
    /// Other versions.
    UPDATES = agent("updates", "POLICY").help(
        "Programs that `rk agents update` may put in this one's place: any, signed or no [default: any, with limits or \
         --run-as signed]",
    );
    /// Bound on concurrent executions.
    MAX_EXECS = agent("max-execs", "N").help("Processes that may run at once [default: 256]");
    /// Jobs at once.
    SLOTS = agent("slots", "N").help("Jobs that run at once [default: as many as there are processors]");
    /// Programs around jobs.
    HOOKS = agent("hooks", "DIR")
        .help("Programs that run around jobs: agent-startup, agent-shutdown, pre-job, post-job, on-cancel");
    /// One job.
    ONE_SHOT = agent("one-shot", "").switch().help("Take one job, wait for its end, and stop");
    /// No job.
    IDLE_EXIT = agent("idle-exit", "DURATION").help("Stop when nothing ran for so long");
    /// Old age.
    MAX_UPTIME = agent("max-uptime", "DURATION").help("Take no jobs after so long, wait for those that run, and stop");
    /// What a stop means for jobs.
    WAIT_FOR_JOBS = agent("wait-for-jobs", "").switch()
        .help("When told to stop wait for jobs, instead of leaving them to the next agent");
    /// Where commands start.
    WORK = agent("work", "DIR").help("Where commands run that name no --cwd [default: where the agent started, or the home of --run-as]");

    /// What the broker tells clients.
    ADVERTISE = broker("advertise", "HOST:PORT").help("Address that clients are told [default: the one listened on]");
    /// Who may log in.
    USERS = broker("users", "FILE").help("Who may log in: lines of name:password, mode 0600 [default: everybody may]");
    /// Who may do everything, and that others may not.
    SUPER_USERS = broker("super-users", "NAME,…").many()
        .help("Who may do everything; others may then do what ACLs allow them [default: everybody may do everything]");
    /// How long records stay.
    RETENTION = broker("retention", "DURATION").help("How long records stay in topics that do not say [default: 7 days]");
    /// When writes are fsynced.
    FSYNC = broker("fsync", "always|DURATION").help("When writes reach the disk for certain [default: 1s]");

    /// Where the controller is.
    API = client("api", "URL").help("Address of the controller [default: http://127.0.0.1:7480]");
    /// What lets us in.
    API_TOKEN = client("api-token", "SOURCE")
        .help("Its token: file:PATH, fd:N or env:NAME [default: file:DATA/api.token]");
    /// Whom to trust.
    API_CA = client("api-ca", "FILE").help("PEM file with the CA of an https controller [default: the system's CAs]");
    /// What runs on the agent.
    JAR = jenkins("jar", "FILE")
        .help("The agent's jar, here [default: that of Jenkins in JENKINS_HOME or HUDSON_HOME]");
    /// What runs it.
    JAVA = jenkins("java", "PATH").help("The agent's Java, there [default: java in the agent's PATH]");
    /// How it runs it.
    JAVA_OPTS = jenkins("java-opts", "OPTIONS").dashes().help("Options for Java, in one value, like '-Xmx512m -Dfile.encoding=UTF-8'");
    /// Agents of the per-agent layout.
    PER_AGENT = topics("per-agent", "NAME,…").many()
        .help("The agents that have a topic of their own; `--per-agent=` says that there are none");
    /// Whose rights are looked at.
    AGENTS_AS = topics("agents-as", "USER").help("Kafka user of the other agents, whose rights are looked at");
    /// Whose rights are looked at.
    CONTROLLER_AS = topics("controller-as", "USER").help("Kafka user of the controller, whose rights are looked at");

    /// How results are shown.
    OUTPUT = output("output", "FORMAT").short('o').help("table, json, jsonl or name [default: table]");
    /// Talk less.
    QUIET = output("quiet", "").switch().short('q').help("Print no talk on stderr, only results and errors");

    /// Where state lives.
    DATA = Key::new(GENERAL, &[Controller, Agent, Broker, Client, Doctor, Jenkins], "data", "DIR")
        .help("Where state lives [default: /var/lib/rk for root, else ~/.local/state/rk]");
    /// The file itself; not a key of the file.
    CONFIG = general("config", "FILE").help("Settings in YAML [default: ~/.config/rk/config.yaml, else /etc/rk/config.yaml]");
    /// What is logged.
    LOG = general("log", "FILTER").help("What is logged on stderr, like info or debug,quinn=info");
    /// Children of the demo and of tests go with their parent.
    EXIT_WITH_STDIN = Key::new(GENERAL, &[Controller, Agent, Broker], "exit-with-stdin", "").switch().hidden()
        .help("Exit at once when stdin ends: a child that must not outlive its parent");
}

/// The settings that a role's command offers.
pub fn of_role(role: Role) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().copied().filter(move |key| key.roles.contains(&role))
}

/// The setting with this name, which may be an alias.
pub fn named(name: &str) -> Option<&'static Key> {
    KEYS.iter().copied().find(|key| key.name == name || key.alias == Some(name))
}

/// The name that a mistyped one was probably meant to be.
pub fn similar(name: &str) -> Option<&'static str> {
    let candidates = KEYS.iter().filter(|key| !key.hidden).map(|key| key.name);
    let (distance, best) = candidates.map(|known| (distance(name, known), known)).min()?;
    let near = distance <= 1 + name.len() / 4 || (name.len() > 2 && best.starts_with(name));
    near.then_some(best)
}

/// Levenshtein's distance: how many insertions, deletions and replacements make `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(!x.eq_ignore_ascii_case(&y));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_key_has_help_that_fits_a_line() {
        let names: BTreeSet<&str> = KEYS.iter().flat_map(|key| [Some(key.name), key.alias]).flatten().collect();
        assert_eq!(names.len(), KEYS.iter().map(|key| 1 + usize::from(key.alias.is_some())).sum::<usize>());
        for key in KEYS {
            assert!(!key.help.is_empty(), "{}", key.name);
            assert!(Role::of_section(key.name).is_none(), "{} is a section", key.name);
        }
    }

    #[test]
    fn a_typo_is_recognised_and_nonsense_is_not() {
        assert_eq!(similar("broker"), Some("brokers"));
        assert_eq!(similar("sasl_password"), Some("sasl-password"));
        assert_eq!(similar("Prefix"), Some("prefix"));
        assert_eq!(similar("zookeeper-connect"), None);
    }

    #[test]
    fn variables_are_the_names_in_capitals() {
        assert_eq!(SASL_PASSWORD.variable(), "RK_SASL_PASSWORD");
    }
}
