//! `rk setup compose kafka`: waits for the brokers, then does what `rk topics apply` does, and lets the web page look.

use std::time::Duration;

use clap::Args;

use super::super::topics;
use crate::{
    cli::{Failure, failure, flags::TopicsFlags, output},
    config::Environment,
    controller::outage,
    kafka::{
        Admin, Error, Offered, Prefix,
        acl::{Acl, Operation},
        topics::principal_of,
    },
};

/// Make topics and rights, once all brokers serve
#[derive(Debug, Args)]
pub struct KafkaArgs {
    /// How many brokers there have to be
    #[arg(long, value_name = "N", default_value_t = 3)]
    expect: usize,
    /// How long they are waited for
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = crate::config::duration)]
    wait: Duration,
    /// Kafka user of a web page that may look at the topics
    #[arg(long, value_name = "USER")]
    reader: Option<String>,
    #[command(flatten)]
    flags: TopicsFlags,
}

/// Makes what is missing.
pub async fn run(args: KafkaArgs, environment: &Environment) -> Result<u8, Failure> {
    let session = topics::open(args.flags, environment)?;
    let (admin, prefix) = (session.admin(), session.prefix());
    outage::through(args.wait, passes, || all_serve(admin, args.expect)).await.map_err(|e| missing(e, args.wait))?;
    if let Some(user) = &args.reader {
        let rules = reading(&principal_of(user), prefix);
        match admin.create_acls(&rules.iter().collect::<Vec<_>>()).await? {
            Offered::Present(results) => results.into_iter().collect::<Result<(), _>>()?,
            Offered::Absent => output::say("rk: the brokers keep no access rules; everybody may do everything"),
        }
    }
    topics::apply(&session).await
}

/// Why not all brokers serve.
#[derive(Debug, thiserror::Error)]
enum Waiting {
    #[error(transparent)]
    Kafka(#[from] Error),
    #[error("{there} of {expected} brokers serve")]
    Few { there: usize, expected: usize },
}

async fn all_serve(admin: &Admin, expected: usize) -> Result<(), Waiting> {
    match admin.brokers().await? {
        there if there < expected => Err(Waiting::Few { there, expected }),
        _ => Ok(()),
    }
}

fn passes(error: &Waiting) -> bool {
    match error {
        Waiting::Kafka(error) => error.is_outage(),
        Waiting::Few { .. } => true,
    }
}

fn missing(error: Waiting, wait: Duration) -> Failure {
    match error {
        Waiting::Few { .. } => Failure::new(
            failure::UNREACHABLE,
            format!("{error} after {}; look at `docker compose logs` of the others", output::duration(wait)),
        ),
        Waiting::Kafka(error) => error.into(),
    }
}

/// May see the topics, what is in them, and their settings.
fn reading(principal: &str, prefix: &Prefix) -> Vec<Acl> {
    let operations = [Operation::Read, Operation::Describe, Operation::DescribeConfigs];
    operations.map(|operation| Acl::on_topics_below(principal, &prefix.start(), operation)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_that_are_missing_are_waited_for_and_counted() {
        let few = Waiting::Few { there: 2, expected: 3 };
        assert!(passes(&few));
        let failure = missing(few, Duration::from_secs(180));
        assert_eq!(failure.code, failure::UNREACHABLE);
        assert!(failure.message.starts_with("2 of 3 brokers serve after 3m"), "{}", failure.message);
        let refused = Waiting::Kafka(Error::Config("no brokers".to_owned()));
        assert!(!passes(&refused) && missing(refused, Duration::ZERO).code == failure::USAGE);
    }

    #[test]
    fn a_web_page_only_looks() {
        let rules: Vec<String> = reading("User:ui", &Prefix::default()).iter().map(ToString::to_string).collect();
        assert!(rules.iter().all(|rule| !rule.contains("Write") && !rule.contains("All")), "{rules:?}");
        assert_eq!(rules.len(), 3);
    }
}
