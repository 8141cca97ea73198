//! Getting in, and what is said to those who do not.

use std::{path::Path, time::Instant};

use remoting_kafka::kafka::{Config, Error, Hop, KafkaCluster, config::Mechanism};

use crate::{
    Door,
    support::{
        certs::Authority,
        user::{ADMIN, User},
    },
};

pub async fn every_password_mechanism_opens(door: &Door) {
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512] {
        let start = Instant::now();
        let cluster = KafkaCluster::new(door.config(ADMIN, mechanism)).unwrap();
        cluster.check().await.unwrap();
        println!("{mechanism:?}: in after {:.1?}", start.elapsed());
    }
}

pub async fn a_wrong_password_is_named(door: &Door) {
    let user = User { password: "wrong", ..ADMIN };
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512] {
        let cluster = KafkaCluster::new(door.config(user, mechanism)).unwrap();
        let error = cluster.check().await.unwrap_err();
        assert!(matches!(error, Error::Login { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("check user \"admin\"") && !text.contains("wrong\""), "{text}");
        println!("{text}");
    }
}

pub async fn a_wrong_authority_is_named(door: &Door, folder: &Path) {
    let other = Door { ca: Authority::new(folder).ca(), ..door.clone() };
    let error = other.cluster(ADMIN).check().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { hop: Hop::Tls, .. }), "{error}");
    println!("{error}");
    assert!(error.to_string().contains("authority"), "{error}");
}

pub async fn no_tls_at_a_tls_port_is_named(door: &Door) {
    let config = Config { tls: None, ..door.config(ADMIN, Mechanism::ScramSha512) };
    let error = KafkaCluster::new(config).unwrap().check().await.unwrap_err();
    println!("{error}");
    assert!(matches!(error, Error::Unreachable { hop: Hop::Request, .. }), "{error}");
    assert!(error.to_string().contains("TLS"), "{error}");
}
