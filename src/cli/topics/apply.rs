//! `rk topics apply`.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Compared, Session, render, render::Format};
use crate::{
    cli::{Failure, failure, output},
    kafka::{
        Error,
        topics::{self, Applied, Difference, Mend},
    },
};

/// How long it may take until a broker that is asked has heard of what another one did.
const SETTLED: Duration = Duration::from_secs(10);

/// How often it is asked.
const LOOK: Duration = Duration::from_millis(100);

/// Something is left.
const LEFT: u8 = 1;

/// Makes what can be made, and looks again.
pub async fn run(session: &Session) -> Result<u8, Failure> {
    if matches!(session.format, Format::KafkaCli | Format::Strimzi) {
        return Err(Failure::usage("`rk topics plan` prints commands and resources; apply takes table, json or jsonl"));
    }
    let Compared { differences, .. } = session.compare().await?;
    let applied = topics::apply(&session.admin, &differences).await?;
    let left = settled(session, &applied).await?;
    print(session, &applied, &left)?;
    session.warn(&left.warnings);
    if let Some(refused) = refused(session, &applied) {
        return Err(refused);
    }
    if left.differences.is_empty() {
        session.say(&format!("the topics of {} are as they have to be", left.desired.prefix));
        return Ok(0);
    }
    let number = left.differences.len();
    session.say(&format!("{number} left that apply can't make; `rk topics plan` prints them again"));
    Ok(LEFT)
}

/// Looks until nothing is left of what was made.
async fn settled(session: &Session, applied: &[Applied<'_>]) -> Result<Compared, Failure> {
    let made: Vec<&Difference> =
        applied.iter().filter(|done| done.result.is_ok()).map(|done| done.difference).collect();
    let deadline = Instant::now() + SETTLED;
    loop {
        let left = session.compare().await?;
        let waiting = left.differences.iter().any(|difference| made.contains(&difference));
        if !waiting || Instant::now() >= deadline {
            return Ok(left);
        }
        sleep(LOOK).await;
    }
}

fn print(session: &Session, applied: &[Applied<'_>], left: &Compared) -> Result<(), Failure> {
    let by_hand: Vec<&Difference> = left.differences.iter().filter(|d| d.mend() == Mend::ByHand).collect();
    match session.format {
        Format::Json => output::print_json(&json!({
            "applied": applied.iter().map(item).collect::<Vec<_>>(),
            "left": left.differences.iter().map(render::item).collect::<Vec<_>>(),
        }))?,
        Format::Jsonl => {
            for done in applied {
                output::print_jsonl(&item(done))?;
            }
        }
        Format::Name => {
            let made = applied.iter().filter(|done| done.result.is_ok()).map(|done| done.difference.clone());
            output::print(&render::names(&made.collect::<Vec<_>>()))?;
        }
        Format::Table | Format::KafkaCli | Format::Strimzi => {
            let mut text: String = applied.iter().map(line).collect();
            text.extend(by_hand.iter().map(|difference| format!("by hand  {difference}\n")));
            output::print(&text)?;
        }
    }
    Ok(())
}

fn line(done: &Applied<'_>) -> String {
    let what = match done.difference {
        Difference::CreateTopic(topic) => format!("topic {}", topic.name),
        Difference::Setting { topic, key, wanted, .. } => format!("topic {topic}: {key}={wanted}"),
        Difference::AddAcl(acl) => format!("rule: {acl}"),
        other => other.to_string(),
    };
    match &done.result {
        Ok(()) if done.difference.mend() == Mend::Change => format!("changed  {what}\n"),
        Ok(()) => format!("created  {what}\n"),
        Err(error) => format!("failed   {what}: {error}\n"),
    }
}

fn item(done: &Applied<'_>) -> Value {
    let mut item = render::item(done.difference);
    item["done"] = json!(done.result.is_ok());
    if let Err(error) = &done.result {
        item["error"] = json!(error.to_string());
    }
    item
}

/// What we had no right to, as commands for somebody who has it.
fn refused(session: &Session, applied: &[Applied<'_>]) -> Option<Failure> {
    let is_refused = |done: &&Applied<'_>| matches!(done.result, Err(Error::Authorization { .. }));
    let refused: Vec<Difference> = applied.iter().filter(is_refused).map(|done| done.difference.clone()).collect();
    if refused.is_empty() {
        return None;
    }
    let commands = topics::commands::of_differences(&refused, &session.admin.bootstrap());
    let principal = session.admin.principal();
    let message = format!("{principal} lacks the rights for {} of it; somebody who has them runs:", refused.len());
    Some(Failure { below: Some(commands.trim_end().to_owned()), ..Failure::new(failure::REFUSED, message) })
}
