//! Ways into Kafka that are no passwords, for controller and agent at once: client certificates, and tokens that end while a
//! command runs.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

use crate::{
    failures::refused,
    rig::{PATIENCE, Rig, Running, noise, run},
    support::{
        cluster::TestCluster,
        kafka,
        process::Process,
        user::{AGENT, CONTROLLER, STRANGER, User},
        wait,
    },
};

/// How long a token is good.
const LIFE: Duration = Duration::from_secs(5);

/// Prints an unsigned token of the user `$1`, good for `$2` seconds, and notes in the file `$3` that it did.
const TOKEN: &str = r#"now=$(date +%s)
part() { printf %s "$1" | base64 -w0 | tr '+/' '-_' | tr -d '='; }
echo "$(part '{"alg":"none"}').$(part "{\"sub\":\"$1\",\"iat\":$now,\"exp\":$((now + $2))}")."
echo "$now" >>"$3"
"#;

fn apache(rig: &Rig) -> &'static kafka::Cluster {
    let TestCluster::Kafka(cluster) = rig.cluster else { panic!("RK_TEST_KAFKA=3 gives Apache Kafka") };
    cluster
}

/// How a process gets in as a user.
struct Door<'a> {
    brokers: Vec<String>,
    login: &'a dyn Fn(User) -> Vec<String>,
}

impl Door<'_> {
    fn through(&self, rig: &Rig, mut command: Command, user: User) -> Command {
        command.args(["--brokers", &self.brokers.join(","), "--prefix", &rig.prefix]);
        command.args(["--partitions", &rig.partitions.to_string()]);
        command.arg("--tls-ca").arg(rig.cluster.ca()).args((self.login)(user));
        command
    }

    fn controller(&self, rig: &Rig, user: User) -> Command {
        let listen = format!("127.0.0.1:{}", rig.port);
        let mut command = rig.bare(&["controller", "run", "--listen", &listen]);
        command.arg("--data").arg(rig.path("controller"));
        self.through(rig, command, user)
    }

    /// Starts a controller and an agent.
    fn start(&self, rig: &Rig) -> Process {
        rig.launch_controller(self.controller(rig, CONTROLLER));
        let credential = rig.add("a", &[]);
        let mut command = rig.bare(&["agent", "run", "--credential", &format!("file:{}", credential.display())]);
        command.arg("--data").arg(rig.path("a.data"));
        let mut agent = rig.process(self.through(rig, command, AGENT), "a.log");
        rig.wait_online("a", &mut agent);
        agent
    }
}

#[test]
#[ignore = "needs Apache Kafka's listener for client certificates: make test-kafka"]
fn client_certificates_alone_let_controller_and_agent_in_with_the_rights_of_their_names() {
    let rig = Rig::prepare("certificates", 2);
    let cluster = apache(&rig);
    let login = |user: User| {
        let pem = cluster.authority().client(user.name);
        vec!["--tls-cert".to_owned(), pem.display().to_string()]
    };
    let door = Door { brokers: cluster.bootstrap_mutual(), login: &login };
    refused(door.controller(&rig, STRANGER), 77, &["not authorized"]);
    let bare = Door { brokers: cluster.bootstrap_mutual(), login: &|_| Vec::new() };
    refused(bare.controller(&rig, CONTROLLER), 77, &["client certificate"]);
    let _agent = door.start(&rig);
    let bytes = noise(4 << 20);
    let ran = run(rig.rk(&["exec", "a", "--", "cat"]), &bytes).ok();
    assert!(ran.stdout == bytes);
    assert_eq!(rig.run(&["run", "-q", "--", "echo", "job"]).ok().text(), "job\n");
}

#[test]
#[ignore = "needs Apache Kafka's tokens: make test-kafka"]
fn tokens_from_a_file_end_and_the_command_that_runs_meanwhile_does_not() {
    let rig = Rig::prepare("token-file", 2);
    fs::write(rig.path("token.sh"), TOKEN).unwrap();
    let file = |user: User| rig.path(&format!("{}.token", user.name)).display().to_string();
    // Somebody renews the files, as an identity provider's sidecar does.
    let renew = |user: User| {
        let (make, file) = (token(&rig, user), file(user));
        let renewing = format!("while :; do {make} >{file}.new && mv {file}.new {file}; sleep 1; done");
        rig.process(plain(&rig.bare(&[]), "sh", &["-c", &renewing]), "renewing.log")
    };
    let _renewing = [CONTROLLER, AGENT].map(renew);
    for user in [CONTROLLER, AGENT] {
        wait::until("there is a token", PATIENCE, || fs::metadata(file(user)).map_err(|e| e.to_string()));
    }
    let login = |user: User| vec!["--sasl-token-file".to_owned(), file(user)];
    let door = Door { brokers: apache(&rig).bootstrap(), login: &login };
    let mut agent = door.start(&rig);
    a_command_outlives_its_tokens(&rig, &mut agent);
}

#[test]
#[ignore = "needs Apache Kafka's tokens: make test-kafka"]
fn tokens_from_a_command_are_asked_for_again_before_they_end_while_a_command_runs() {
    let rig = Rig::prepare("token-command", 2);
    fs::write(rig.path("token.sh"), TOKEN).unwrap();
    let login = |user: User| vec!["--sasl-token-command".to_owned(), token(&rig, user)];
    let door = Door { brokers: apache(&rig).bootstrap(), login: &login };
    let mut agent = door.start(&rig);
    let made = |user: User| fs::read_to_string(rig.path(&format!("{}.made", user.name))).unwrap().lines().count();
    let before = [CONTROLLER, AGENT].map(made);
    a_command_outlives_its_tokens(&rig, &mut agent);
    for (user, before) in [CONTROLLER, AGENT].into_iter().zip(before) {
        assert!(made(user) >= before + 2, "{}: {before} tokens, then {}", user.name, made(user));
    }
}

/// The command that prints a user's token.
fn token(rig: &Rig, user: User) -> String {
    let path = |name: &str| rig.path(name).display().to_string();
    format!("sh {} {} {} {}", path("token.sh"), user.name, LIFE.as_secs(), path(&format!("{}.made", user.name)))
}

/// Another program in the environment of `command`.
fn plain(command: &Command, program: &str, args: &[&str]) -> Command {
    let mut other = Command::new(program);
    other.args(args).env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other
}

/// A command that answers line by line until every token of its beginning has ended twice over, in one session.
fn a_command_outlives_its_tokens(rig: &Rig, agent: &mut Process) {
    let mut command = rig.rk(&["exec", "a", "--", "cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut exec = Running::start(command);
    let (mut stdin, stdout) = (exec.0.stdin.take().unwrap(), exec.0.stdout.take().unwrap());
    let (line, lines) = mpsc::channel();
    thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
    let end = SystemTime::now() + 3 * LIFE;
    let mut number = 0;
    wait::until("the tokens of its beginning have ended", PATIENCE, || {
        number += 1;
        writeln!(stdin, "{number}").unwrap();
        let answer = lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("line {number} did not come back: {e}"));
        assert_eq!(answer, number.to_string());
        let left = end.duration_since(SystemTime::now());
        left.map_or(Ok(()), |left| Err(format!("{left:?} are left")))
    });
    drop(stdin);
    assert_eq!(exec.code(), 0);
    assert!(agent.ended().is_none());
    assert_eq!(online(&rig.path("a.log")), 1, "one session throughout: {}", rig.log("a.log"));
}

/// How many sessions there were.
fn online(log: &Path) -> usize {
    fs::read_to_string(log).unwrap().lines().filter(|line| line.contains(" online")).count()
}
