//! A real Hudson: its process, and what a user does with it over HTTP.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    http::{self, Answer},
    rig::sha256,
    support::{ports, process::Process, wait},
};

/// How long its start may take on a busy machine.
const START: Duration = Duration::from_secs(300);

/// How long a build may take, with everything that is killed meanwhile.
const BUILD: Duration = Duration::from_secs(180);

/// Packages of the JDK into whose classes a Hudson of 2011 looks.
const OPENED: [&str; 14] = [
    "java.base/java.lang",
    "java.base/java.lang.reflect",
    "java.base/java.lang.invoke",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.util.concurrent.locks",
    "java.base/java.util.zip",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.text",
    "java.base/java.security",
    "java.desktop/java.awt",
    "java.desktop/java.awt.font",
];

/// No slave connects by itself: the port for that stays closed.
const CONFIG: &str = "<?xml version='1.0' encoding='UTF-8'?>
<hudson><version>1.395</version><numExecutors>0</numExecutors><useSecurity>false</useSecurity>\
<slaveAgentPort>-1</slaveAgentPort></hudson>
";

/// A Hudson. Dropping it kills it.
pub struct Hudson {
    port: u16,
    home: PathBuf,
    process: Process,
}

/// What Hudson knows of a node's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Since when, in milliseconds.
    pub since: u64,
    /// Which object the channel is.
    pub channel: String,
}

/// A build that ended.
#[derive(Debug)]
pub struct Build {
    pub result: String,
    pub took: Duration,
    pub console: String,
    /// SHA-256 of the artifact.
    pub artifact: String,
}

impl Build {
    /// The process id of the JVM on the node.
    pub fn pid(&self) -> u32 {
        let pid = self.console.lines().find_map(|line| line.strip_prefix("jvm ")).expect("it is printed");
        pid.parse().expect("a number")
    }
}

impl Hudson {
    /// Starts one whose state is in `home`, with these variables for the commands that it launches, and waits until it serves.
    pub fn start(home: &Path, variables: &[(&str, &OsStr)]) -> Hudson {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let war = root.join(".hudson/hudson-war.war");
        assert!(war.is_file(), "Hudson is not here: run `make .hudson` first");
        fs::create_dir_all(home).unwrap();
        fs::write(home.join("config.xml"), CONFIG).unwrap();
        let port = ports::free([127, 0, 0, 1].into());
        let mut command = Command::new("java");
        command.args(["-Xmx512m", "-XX:+UseSerialGC", "-Djava.awt.headless=true"]);
        // It answers who looks for it by broadcast, which cannot be turned off: at least at no port that another one takes.
        command.args(["-Dhudson.DNSMultiCast.disabled=true", "-Dhudson.udp=0"]);
        command.arg(format!("-Djava.io.tmpdir={}", home.display()));
        for package in OPENED {
            command.args(["--add-opens", &format!("{package}=ALL-UNNAMED")]);
        }
        command.arg("-cp").arg(&war).arg(root.join("compose/hudson/Boot.java"));
        command.args([&format!("--httpPort={port}"), "--httpListenAddress=127.0.0.1"]);
        command.args(["--ajp13Port=-1", "--httpsPort=-1"]);
        command.env("HUDSON_HOME", home);
        command.envs(variables.iter().copied());
        let log = home.with_extension("log");
        let mut hudson = Hudson { port, home: home.to_owned(), process: Process::start(command, &log).unwrap() };
        wait::until("Hudson serves", START, || {
            if let Some(status) = hudson.process.ended() {
                panic!("Hudson ended with {status}: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            let answer = hudson.get("/api/json")?;
            if answer.status == 200 { Ok(()) } else { Err(format!("HTTP {}", answer.status)) }
        });
        hudson
    }

    /// Where its state is.
    pub fn home(&self) -> &Path {
        &self.home
    }

    fn get(&self, path: &str) -> Result<Answer, String> {
        http::send(self.port, "GET", path, "", &[])
    }

    fn post(&self, path: &str, kind: &str, body: &[u8]) -> Result<Answer, String> {
        let answer = http::send(self.port, "POST", path, kind, body)?;
        if answer.status < 400 { Ok(answer) } else { Err(format!("{path}: HTTP {}: {}", answer.status, answer.text())) }
    }

    /// Runs a Groovy script and returns what it prints.
    pub fn script(&self, script: &str) -> String {
        let script = format!("import hudson.model.*\nimport hudson.slaves.*\n{script}");
        let answer = self.post("/scriptText", http::FORM, &http::form("script", &script)).unwrap();
        answer.text().trim().to_owned()
    }

    /// Adds a node that this command launches, and a job that runs there.
    pub fn add(&self, node: &str, command: &str) {
        let files = self.home.join(format!("files-{node}"));
        let said = self.script(&format!(
            "Hudson.instance.addNode(new DumbSlave('{node}', '', '{}', '1', Node.Mode.NORMAL, '', \
             new CommandLauncher('''{command}'''), RetentionStrategy.INSTANCE, new ArrayList()))",
            files.display()
        ));
        assert_eq!(said, "", "the node is added");
        let job = format!(
            "<project><actions/><keepDependencies>false</keepDependencies><properties>\
             <hudson.model.ParametersDefinitionProperty><parameterDefinitions><hudson.model.FileParameterDefinition>\
             <name>blob</name><description/></hudson.model.FileParameterDefinition></parameterDefinitions>\
             </hudson.model.ParametersDefinitionProperty></properties><assignedNode>{node}</assignedNode>\
             <canRoam>false</canRoam><disabled>false</disabled><concurrentBuild>false</concurrentBuild>\
             <builders><hudson.tasks.Shell><command>echo jvm $PPID; sha256sum blob</command></hudson.tasks.Shell></builders>\
             <publishers><hudson.tasks.ArtifactArchiver><artifacts>blob</artifacts><latestOnly>false</latestOnly>\
             </hudson.tasks.ArtifactArchiver></publishers><buildWrappers/></project>"
        );
        self.post(&format!("/createItem?name={node}"), "application/xml", job.as_bytes()).unwrap();
    }

    /// Waits until a node is online.
    pub fn wait_online(&self, node: &str) {
        wait::until(&format!("node {node} is online"), BUILD, || {
            let said = self.script(&format!("println Hudson.instance.getComputer('{node}').online"));
            if said == "true" { Ok(()) } else { Err(format!("online: {said}")) }
        });
    }

    /// A node's connection.
    pub fn connection(&self, node: &str) -> Connection {
        let said = self.script(&format!(
            "def c = Hudson.instance.getComputer('{node}')\nprintln c.connectTime + ' ' + System.identityHashCode(c.channel)"
        ));
        let (since, channel) = said.split_once(' ').unwrap_or_else(|| panic!("{said}"));
        Connection { since: since.parse().unwrap(), channel: channel.to_owned() }
    }

    /// What a node's log shows.
    pub fn log(&self, node: &str) -> String {
        self.script(&format!("println Hudson.instance.getComputer('{node}').log"))
    }

    /// What Hudson can still say after a failure.
    pub fn last_words(&self) -> String {
        let text = |path: &str| self.get(path).map_or_else(|e| e, |answer| answer.text());
        let log = fs::read_to_string(self.home.with_extension("log")).unwrap_or_default();
        format!(
            "{log}\n== far\n{}\n== direct\n{}",
            text("/computer/far/logText/progressiveText"),
            text("/computer/direct/logText/progressiveText")
        )
    }

    /// Ends a node's channel, as the button "Disconnect" does.
    pub fn disconnect(&self, node: &str) {
        let cause = "new OfflineCause.ByCLI('test')";
        self.script(&format!("Hudson.instance.getComputer('{node}').disconnect({cause}).get()"));
    }

    /// How long the response-time monitor's call takes, so many times, in microseconds, sorted.
    pub fn response_times(&self, node: &str, times: usize) -> Vec<u64> {
        let said = self.script(&format!(
            "def monitor = hudson.node_monitors.ResponseTimeMonitor.DESCRIPTOR\ndef c = Hudson.instance.getComputer('{node}')\n\
             monitor.monitor(c)\n{times}.times {{ def start = System.nanoTime(); monitor.monitor(c); \
             println((long) ((System.nanoTime() - start) / 1000)) }}"
        ));
        let mut times: Vec<u64> = said.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("{said}"))).collect();
        times.sort_unstable();
        times
    }

    /// Starts a build with a file, which it hashes there and archives, and waits until it runs. Its number.
    pub fn build(&self, job: &str, file: &[u8]) -> u64 {
        let next = self.json(&format!("/job/{job}/api/json")).unwrap()["nextBuildNumber"].as_u64().unwrap();
        self.post(&format!("/job/{job}/build?delay=0sec"), http::UPLOAD, &http::upload(file)).unwrap();
        wait::until(&format!("build {next} of {job} runs"), BUILD, || {
            self.json(&format!("/job/{job}/{next}/api/json"))
        });
        next
    }

    /// Waits for a build's end.
    pub fn finish(&self, job: &str, number: u64) -> Build {
        let build = wait::until(&format!("build {number} of {job} ends"), BUILD, || {
            let build = self.json(&format!("/job/{job}/{number}/api/json"))?;
            if build["building"] == Value::Bool(false) { Ok(build) } else { Err("it runs".to_owned()) }
        });
        let console = self.get(&format!("/job/{job}/{number}/consoleText")).unwrap().text();
        let artifact = self.get(&format!("/job/{job}/{number}/artifact/blob")).unwrap();
        Build {
            result: build["result"].as_str().unwrap_or("none").to_owned(),
            took: Duration::from_millis(build["duration"].as_u64().unwrap_or_default()),
            console,
            artifact: sha256(&artifact.body),
        }
    }

    fn json(&self, path: &str) -> Result<Value, String> {
        let answer = self.get(path)?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map_err(|e| format!("{path}: {e}")),
            status => Err(format!("{path}: HTTP {status}")),
        }
    }
}
