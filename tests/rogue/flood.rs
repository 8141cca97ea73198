//! Handshakes by the thousand. Each that is let through costs the controller a connection and an answer, so hardly any may be.

use std::time::{Duration, Instant};

use remoting_kafka::{
    kafka::{KafkaCluster, Record},
    link::{
        Credential,
        packet::{Incarnation, is_long},
    },
};

use crate::{
    packets::{Initials, prove, up, with_datagram},
    rig::resident,
    stage::{self, HONEST, Stage},
    support::user::ADMIN,
};

/// Handshakes a second.
const RATE: u64 = 2000;
/// Those of them that were recorded, the honest agent's own.
const RECORDED: u64 = 200;
/// Written at once, so many times a second.
const BATCHES: u64 = 100;

/// How long the flood lasts.
fn seconds() -> u64 {
    std::env::var("RK_FLOOD_SECONDS").map_or(20, |text| text.parse().expect("RK_FLOOD_SECONDS is a number"))
}

struct Flood {
    cluster: KafkaCluster,
    topic: String,
    partition: i32,
    own: Credential,
    initials: Initials,
    recorded: Vec<Record>,
}

impl Flood {
    /// Writes for so long; the records and the bytes.
    async fn run(&mut self, time: Duration) -> (u64, u64) {
        let (start, mut written, mut bytes) = (Instant::now(), 0u64, 0u64);
        let mut tick = tokio::time::interval(Duration::from_millis(1000 / BATCHES));
        while start.elapsed() < time {
            tick.tick().await;
            let mut batch: Vec<Record> =
                (0..(RATE - RECORDED) / BATCHES).map(|n| self.handshake(written + n)).collect();
            let recorded =
                (0..RECORDED / BATCHES).map(|n| self.recorded[(written + n) as usize % self.recorded.len()].clone());
            batch.extend(recorded);
            written += batch.len() as u64;
            bytes += batch.iter().map(|record| record.value.len() as u64).sum::<u64>();
            stage::write(&self.cluster, &self.topic, self.partition, batch).await.unwrap();
        }
        (written, bytes)
    }

    /// One that nobody can tell from the rogue agent's own, in a run of its own.
    fn handshake(&mut self, number: u64) -> Record {
        let initial = self.initials.next();
        let header = up(Incarnation { starts: number + 1, random: number }, 0);
        with_datagram("rogue", &header, &initial, prove(&self.own, "rogue", &header, &initial))
    }
}

#[test]
#[ignore = "takes 20 s or RK_FLOOD_SECONDS: make test-rogue"]
fn a_flood_of_handshakes_keeps_nobody_out_and_is_not_answered_in_kind() {
    let stage = Stage::start("flood");
    stage.rig.add("rogue", &[]);
    let topic = stage.prefix.up_control();
    let is_handshake =
        |record: &Record| record.key == HONEST && record.value.get(24).is_some_and(|first| is_long(&[*first]));
    let recorded: Vec<Record> =
        stage.read_all(&topic).into_iter().map(|(_, record)| record).filter(is_handshake).collect();
    assert!(!recorded.is_empty());
    let mut flood = Flood {
        cluster: stage.cluster(ADMIN),
        topic,
        // On the honest agent's partition: its packets stand in the same queue.
        partition: stage.partition(HONEST),
        own: stage.credential("rogue"),
        initials: Initials::new(),
        recorded,
    };
    let down = || stage.read_all(&stage.prefix.down_control());
    let bytes = |records: &[(i32, Record)]| records.iter().map(|(_, record)| record.value.len()).sum::<usize>() as u64;
    let (before, memory, start) = (bytes(&down()), resident(stage.controller_id()), Instant::now());
    let cpu = processor(stage.controller_id());
    let time = Duration::from_secs(seconds());
    let (written, came) = stage.attempt("flood", || stage.block_on(flood.run(time)));
    let took = start.elapsed();
    let after = down();
    let (went, grown) = (bytes(&after) - before, resident(stage.controller_id()).saturating_sub(memory));
    let cpu = processor(stage.controller_id()) - cpu;
    println!("| handshakes a second | {:.0} |", written as f64 / took.as_secs_f64());
    println!("| KiB in, KiB out | {}, {} |", came >> 10, went >> 10);
    println!("| MiB that the controller grew by, of | {grown}, {memory} |");
    println!("| seconds of a processor, of | {cpu:.1}, {:.1} |", took.as_secs_f64());
    println!("| dropped | {} |", stage.all_dropped());
    let to_rogue = after.iter().filter(|(_, record)| record.key == "rogue").count();
    println!("| records to the rogue | {to_rogue} |");
    assert!(stage.dropped("half_open") > written / 2, "the limits hold it back");
    assert!(grown < 64, "{grown} MiB");
    assert!(went < came, "{went} bytes for {came}");

    // Another agent that comes while it lasts is let in.
    let credential = stage.rig.add("late", &[]);
    let late = stage.attempt("flood, while an agent starts", || {
        std::thread::scope(|scope| {
            let flooding = scope.spawn(|| stage.block_on(flood.run(Duration::from_secs(12))));
            std::thread::sleep(Duration::from_secs(2));
            let start = Instant::now();
            let mut late = stage.rig.start_agent("late", &credential);
            stage.rig.wait_online("late", &mut late);
            let took = start.elapsed();
            assert!(!flooding.is_finished(), "it came in after {took:?}, when the flood was over");
            flooding.join().unwrap();
            println!("| a new agent was online after | {took:.2?} |");
            late
        })
    });
    drop(late);
}

/// Seconds of a processor that a process has used.
fn processor(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
