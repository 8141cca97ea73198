//! What runs on streams for users: copies, forwarded connections, remote methods.

use std::{
    fs::{self, File},
    process::Stdio,
};

use remoting_kafka::id::AgentName;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::{
    report::{Report, median},
    rows::{Effort, rate},
    stage::Stage,
};

/// `rk cp` in both directions beside `rk exec` that carries the same bytes between the same files.
pub async fn copies(report: &mut Report, stage: &Stage, agent: &AgentName, effort: Effort) {
    let (source, target) = (stage.path("source"), stage.path("target"));
    fs::write(&source, vec![7; effort.copy]).unwrap();
    let (from, to) = (source.to_str().unwrap(), target.to_str().unwrap());
    let (mut there, mut back) = (Vec::new(), Vec::new());
    for _ in 0..effort.pairs {
        let mut exec = stage.cli(&["exec", agent.as_str(), "--", "dd", "bs=256k", &format!("of={to}")]);
        exec.stdin(File::open(&source).unwrap()).stderr(Stdio::null());
        let base = timed(exec, effort.copy).await;
        fs::remove_file(&target).unwrap();
        there.push((timed(stage.cli(&["cp", from, &format!("{agent}:{to}")]), effort.copy).await, base));
        fs::remove_file(&target).unwrap();
        let mut exec = stage.cli(&["exec", agent.as_str(), "--", "cat", from]);
        exec.stdin(Stdio::null()).stdout(File::create(&target).unwrap());
        let base = timed(exec, effort.copy).await;
        fs::remove_file(&target).unwrap();
        back.push((timed(stage.cli(&["cp", &format!("{agent}:{from}"), to]), effort.copy).await, base));
        fs::remove_file(&target).unwrap();
    }
    report.pairs("cp", "MiB/s", &there);
    report.pairs("cp_back", "MiB/s", &back);
}

async fn timed(command: std::process::Command, bytes: usize) -> f64 {
    let start = Instant::now();
    assert!(tokio::process::Command::from(command).status().await.unwrap().success());
    rate(bytes, start)
}

/// `rk forward`: bytes from the agent's side beside `rk exec` that carries the same, and how long a connection takes until its first byte is
/// back.
pub async fn forwards(report: &mut Report, stage: &Stage, agent: &AgentName, effort: Effort) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let bytes = effort.stream;
    // Sends back one byte, then as much as it is asked for.
    let server = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let word = connection.read_u8().await.unwrap();
                connection.write_u8(word).await.unwrap();
                let piece = vec![7; 256 << 10];
                for _ in 0..if word == 1 { bytes / piece.len() } else { 0 } {
                    connection.write_all(&piece).await.unwrap();
                }
            });
        }
    });
    let mut command = tokio::process::Command::from(stage.cli(&["forward", &format!("0:{agent}/localhost:{port}")]));
    let mut forward = command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut said = BufReader::new(forward.stderr.take().unwrap()).lines();
    let line = said.next_line().await.unwrap().expect("where it listens");
    let port: u16 = line.split(' ').next().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
    let mut connects = Vec::new();
    for _ in 0..100 {
        let start = Instant::now();
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        connection.write_u8(0).await.unwrap();
        connection.read_u8().await.unwrap();
        connects.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let source = stage.path("forwarded");
    fs::write(&source, vec![7; bytes]).unwrap();
    let mut pairs = Vec::new();
    for _ in 0..effort.pairs {
        let mut exec = stage.cli(&["exec", agent.as_str(), "--", "cat", source.to_str().unwrap()]);
        exec.stdin(Stdio::null()).stdout(File::create("/dev/null").unwrap());
        let base = timed(exec, bytes).await;
        let start = Instant::now();
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        connection.write_u8(1).await.unwrap();
        let (mut buffer, mut got) = (vec![0; 256 << 10], 0);
        loop {
            match connection.read(&mut buffer).await.unwrap() {
                0 => break,
                read => got += read,
            }
        }
        assert_eq!(got, bytes + 1);
        pairs.push((rate(bytes, start), base));
    }
    report.pairs("forward", "MiB/s", &pairs);
    report.alone("forward_connect", "ms", median(connects));
    forward.kill().await.unwrap();
    server.abort();
}

#[cfg(feature = "rmi")]
pub mod methods {
    use std::sync::Arc;

    use bytes::Bytes;
    use remoting_kafka::{
        agent, link,
        protocol::{call::Call, service::Start},
        service::{
            Services,
            rmi::{
                self,
                remoc::{self, prelude::*},
            },
        },
    };
    use tokio::sync::mpsc;

    use super::*;
    use crate::{report::percentile, rows::sorted};

    #[rtc::remote]
    trait Echo {
        async fn echo(&self, body: Vec<u8>) -> Result<Vec<u8>, rmi::Error<()>>;
    }

    struct Echoes;

    impl Echo for Echoes {
        async fn echo(&self, body: Vec<u8>) -> Result<Vec<u8>, rmi::Error<()>> {
            Ok(body)
        }
    }

    /// A remote method beside a plain call of the same agent, which is in this process.
    pub async fn measure(report: &mut Report, stage: &Stage, effort: Effort) {
        let credential = std::fs::read_to_string(stage.add("rmi").await).unwrap();
        let services = Services::new().with(
            "echo",
            rmi::service(|_| {
                let (server, client) = EchoServerShared::<_, remoc::codec::Default>::new(Arc::new(Echoes), 16);
                (client, async move { drop(server.serve(true).await) })
            }),
        );
        let link =
            link::Config { prefix: stage.prefix.clone(), partitions: stage.partitions, ..link::Config::default() };
        let config = agent::Config { link, data: stage.path("rmi.data"), services, ..agent::Config::default() };
        let (stop, stops) = mpsc::channel(2);
        let credential = Arc::new(credential.trim().parse().unwrap());
        let running = tokio::spawn(agent::run(config, stage.cluster.clone(), credential, stops));
        let name: AgentName = "rmi".parse().unwrap();
        stage.wait_online(&name).await;
        let about = String::new();
        let start = Start { service: "echo".to_owned(), caller: "bench".to_owned(), deadline: None, about };
        let (channel, ending) = stage.handle.open_service(&name, start).await.expect("opened");
        let remote = rmi::connect::<EchoClient>(channel, ending).await.expect("a client");
        let (mut pairs, body) = (Vec::new(), vec![7; 100]);
        for _ in 0..effort.pairs {
            let (mut plain, mut ours) = (Vec::new(), Vec::new());
            for _ in 0..effort.calls {
                let start = Instant::now();
                stage.handle.call(&name, Call::Echo, Bytes::copy_from_slice(&body)).await.expect("answered");
                plain.push(start.elapsed().as_secs_f64() * 1e3);
                let start = Instant::now();
                remote.client.echo(body.clone()).await.expect("answered");
                ours.push(start.elapsed().as_secs_f64() * 1e3);
            }
            pairs.push((percentile(&sorted(ours), 0.5), percentile(&sorted(plain), 0.5)));
        }
        report.pairs("rmi_call", "ms", &pairs);
        drop(remote);
        stop.send(()).await.unwrap();
        running.await.unwrap().expect("stopped");
    }
}
