//! Being somebody else: another agent, or the controller.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use remoting_kafka::{
    kafka::Record,
    link::{
        Credential,
        packet::{Datagrams, Header, Incarnation, Kind, is_long},
    },
};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::Serialize;

use crate::{
    packets::{self, Initials, prove, up, with_datagram},
    rig::{PATIENCE, noise},
    stage::{self, Done, HONEST, Stage},
    support::{
        ports,
        user::{ADMIN, AGENT},
        wait,
    },
};

#[test]
fn nobody_takes_another_agents_name_without_its_secret() {
    let stage = Stage::start("takeover");
    let honest = stage.credential(HONEST);
    let forged = stage.dropped("forged");
    stage.attempt("the right name with a wrong secret", || {
        let wrong = Credential::generate(honest.name.clone(), honest.controller);
        let line = stage.refused(stage.impostor("impostor", &wrong));
        assert!(line.contains("does not know agent honest with this secret"), "{line}");
    });
    stage.wait_dropped("forged", forged, 1);

    stage.rig.add("rogue", &[]);
    let own = stage.credential("rogue");
    let forged = stage.dropped("forged");
    stage.attempt("its own secret under the other's record key", || {
        let (mut initials, at) = (Initials::new(), stage.partition(HONEST));
        let later = up(Incarnation { starts: u64::MAX, random: 1 }, 0);
        let names = ["rogue", HONEST].into_iter().cycle();
        let records = names.take(20).map(|name| {
            let initial = initials.next();
            with_datagram(HONEST, &later, &initial, prove(&own, name, &later, &initial))
        });
        stage.write(AGENT, &stage.prefix.up_control(), at, records.collect());
        stage.wait_dropped("forged", forged, 20);
    });

    // What the controller really said to the impostor, given to the honest agent.
    let (topic, at) = (stage.prefix.down_control(), stage.partition(HONEST));
    let said: Vec<(Header, Record)> = stage
        .read(&topic, at)
        .into_iter()
        .filter_map(|(_, record)| Some((packets::header(&record)?, record)))
        .filter(|(header, record)| record.key == HONEST && header.kind == Kind::Notice)
        .collect();
    let ours = stage.read(&topic, at).into_iter().filter(|(_, record)| record.key == HONEST);
    let run = ours.filter_map(|(_, record)| packets::header(&record)).find(|header| header.kind == Kind::Down).unwrap();
    assert!(!said.is_empty(), "the impostor was told");
    let moved = said.iter().map(|(header, record)| {
        let body = record.value.slice(22..);
        packets::record(HONEST, &Header { incarnation: run.incarnation, ..*header }, &body)
    });
    let moved: Vec<Record> = moved.chain(said.iter().map(|(_, record)| record.clone())).collect();
    while_it_comes_back(&stage, "the impostor's notices, given to the honest agent", &moved);
}

/// The body of a notice, from its description.
#[derive(Serialize)]
struct Notice {
    reason: u8,
    subject: [u8; 16],
    key: Vec<u8>,
    signature: Vec<u8>,
}

/// A notice that somebody who is not the controller signed, about something that the agent sent.
fn notice(key: &Ed25519KeyPair, incarnation: Incarnation, epoch: u32, reason: u8, subject: [u8; 16]) -> Record {
    let spki = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], key.public_key().as_ref()];
    let signed = [b"rk1 notice" as &[u8], &[reason], &subject, &incarnation.to_bytes(), HONEST.as_bytes()].concat();
    let signature = key.sign(&signed).as_ref().to_vec();
    let body = postcard::to_allocvec(&Notice { reason, subject, key: spki.concat(), signature }).unwrap();
    packets::record(HONEST, &Header { kind: Kind::Notice, incarnation, epoch }, &body)
}

/// What a notice about this record's first datagram, one of a handshake on the control lane, names it by.
fn subject(record: &Record) -> [u8; 16] {
    let header = packets::header(record).unwrap();
    let (datagram, mac) = Datagrams::new(&header, record.value.slice(22..)).next().unwrap().unwrap();
    let mut hash = digest::Context::new(&digest::SHA256);
    let parts = [&header.incarnation.to_bytes()[..], &header.epoch.to_le_bytes(), &[0], &mac.unwrap(), &datagram];
    parts.iter().for_each(|part| hash.update(part));
    hash.finish().as_ref()[..16].try_into().unwrap()
}

/// Writes records down to the honest agent while it works, and while it has lost its controller and looks for it.
fn while_it_comes_back(stage: &Stage, what: &str, records: &[Record]) {
    let (topic, at) = (stage.prefix.down_control(), stage.partition(HONEST));
    stage.attempt(what, || stage.write(ADMIN, &topic, at, records.to_vec()));
    stage.kill_controller();
    stage.write(ADMIN, &topic, at, records.to_vec());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                stage.write(ADMIN, &topic, at, records.to_vec());
            }
        });
        stage.start_controller();
    });
    stage.wait_for_work();
}

#[test]
fn nobody_answers_as_the_controller_without_its_key() {
    let stage = Stage::start("answer");
    let (topic, at) = (stage.prefix.down_control(), stage.partition(HONEST));
    let down = stage.read(&topic, at);
    let last = down.iter().rev().find(|(_, record)| record.key == HONEST).unwrap();
    let real = packets::header(&last.1).unwrap();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let (run, sent) = handshakes(&stage, at, None);
    assert_eq!(run, real.incarnation);
    let subjects: Vec<[u8; 16]> = sent.iter().map(subject).chain([[0; 16]]).collect();
    let told = subjects.iter().flat_map(|subject| [0, 1].map(|reason| notice(&key, run, real.epoch, reason, *subject)));
    let mut records: Vec<Record> = told.collect();
    records.push(packets::record(HONEST, &Header { kind: Kind::Notice, ..real }, &noise(2000)));
    // A version negotiation, an Initial that is none of the controller's, a reset's look, and noise, of this and a later epoch.
    let negotiation = [&[0x80, 0, 0, 0, 0, 8][..], &[1; 8], &[8], &[2; 8], &[0x0a, 0x1a, 0x2a, 0x3a]].concat();
    let datagrams = [Bytes::from(negotiation), Initials::new().next(), noise(60).into(), noise(1400).into()];
    for epoch in [real.epoch, u32::MAX] {
        let header = Header { kind: Kind::Down, epoch, ..real };
        records.extend(datagrams.iter().map(|datagram| with_datagram(HONEST, &header, datagram, [0; 16])));
    }
    while_it_comes_back(&stage, "a stranger's notices and packets", &records);
}

/// The handshakes of the honest agent's newest run, once there are some.
fn handshakes(stage: &Stage, at: i32, older: Option<Incarnation>) -> (Incarnation, Vec<Record>) {
    wait::until("the honest agent dials", PATIENCE, || {
        let records = stage.read(&stage.prefix.up_control(), at).into_iter().map(|(_, record)| record);
        let ours: Vec<(Incarnation, Record)> = records
            .filter(|record| record.key == HONEST && record.value.get(24).is_some_and(|first| is_long(&[*first])))
            .map(|record| (packets::header(&record).unwrap().incarnation, record))
            .collect();
        let newest = ours.iter().map(|(run, _)| *run).max().filter(|run| older.is_none_or(|older| *run > older));
        let newest = newest.ok_or("it has not")?;
        Ok((newest, ours.into_iter().filter(|(run, _)| *run == newest).map(|(_, record)| record).collect()))
    })
}

#[test]
fn a_controller_cannot_be_made_to_send_an_agent_away_that_dials() {
    let stage = Stage::start("sentaway");
    let at = stage.partition(HONEST);
    let (mut run, _) = handshakes(&stage, at, None);
    let initial = Initials::new().next();
    for what in ["guesses", "its own on the other lane", "its own with another connection id and its MAC"] {
        stage.kill_controller();
        stage.start_honest();
        let (newest, own) = handshakes(&stage, at, Some(run));
        run = newest;
        let (topic, records): (String, Vec<Record>) = match what {
            "guesses" => {
                let guess = |n| with_datagram(HONEST, &up(run, 0), &initial, [n; 16]);
                (stage.prefix.up_control(), (0..20).map(guess).collect())
            }
            "its own on the other lane" => (stage.prefix.up_bulk(), own),
            _ => {
                let changed = own.into_iter().map(|record| {
                    let mut value = record.value.to_vec();
                    // Behind the envelope, the length, the flags, the version, and the other connection id.
                    let place = 24 + 6 + usize::from(value[24 + 5]) + 1;
                    value[place] ^= 1;
                    Record { value: value.into(), ..record }
                });
                (stage.prefix.up_control(), changed.collect())
            }
        };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let cluster = stage.cluster(ADMIN);
                while !done.load(Ordering::SeqCst) {
                    stage.block_on(stage::write(&cluster, &topic, at, records.clone())).unwrap();
                }
            });
            let _guard = Done(&done);
            stage.start_controller();
            stage.wait_for_work();
        });
        println!("{what}: {} dropped as forged, and the agent dialled on", stage.dropped("forged"));
        assert!(stage.dropped("forged") > 0, "{what}");
    }
}

#[test]
fn a_controller_with_another_key_on_the_same_topics_gets_no_agent_and_changes_nothing() {
    let stage = Stage::start("second");
    let port = ports::free([127, 0, 0, 1].into());
    let before = stage.rig.run(&["agents", "ls"]).ok().text();
    let mut second = stage.attempt("a second controller", || {
        let mut second = stage.rig.process(stage.rig.controller_command("second", port), "second.log");
        let url = format!("http://127.0.0.1:{port}");
        wait::until("the second controller serves or ends", PATIENCE, || {
            let mut command = stage.rig.rk(&["status", "--health"]);
            command.env("RK_API", &url);
            command.env("RK_API_TOKEN", format!("file:{}", stage.rig.path("second/api.token").display()));
            let ran = crate::rig::run(command, &[]);
            if ran.code == 0 || second.ended().is_some() { Ok(()) } else { Err(ran.stderr) }
        });
        second
    });
    println!("the second controller: {:?}, {}", second.ended(), stage.rig.log("second.log"));
    // An agent that starts beside it finds the right one.
    stage.restart_honest();
    stage.attempt("a second controller that stays", || ());
    assert_eq!(stage.rig.run(&["agents", "ls"]).ok().text().lines().count(), before.lines().count());
    stage.kill_controller();
    stage.start_controller();
    stage.wait_for_work();
}
