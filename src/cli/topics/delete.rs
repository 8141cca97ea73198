//! `rk topics delete`: the only command that deletes topics, and only those whose names are of our making.

use serde_json::json;

use super::{Compared, Session, render::Format};
use crate::{
    cli::{Failure, failure, output},
    kafka::{Error, topics::commands},
};

/// Deletes the installation's topics, or lists what it would delete.
pub async fn run(yes: bool, orphans: bool, session: &Session) -> Result<u8, Failure> {
    if matches!(session.format, Format::KafkaCli | Format::Strimzi) {
        return Err(Failure::usage("`rk topics plan` prints commands and resources; delete takes table, json or name"));
    }
    if orphans && session.installation.per_agent.is_none() {
        return Err(Failure::usage(
            "whose topics are orphans depends on which agents there are: name them with --per-agent, or say with \
             `--per-agent=` that there are none",
        ));
    }
    let compared = session.compare().await?;
    let names = names(&compared, orphans);
    if names.is_empty() {
        session.say(&format!("there is nothing to delete below {}", compared.desired.prefix.start()));
        return Ok(0);
    }
    if !yes {
        print(session, names.iter().map(|name| (*name, None)), "delete")?;
        let number = names.len();
        return Err(Failure::usage(format!(
            "nothing was deleted; --yes deletes these topics ({number}) with all that they hold, for ever"
        )));
    }
    let results = session.admin.delete_topics(&names).await?;
    print(session, names.iter().copied().zip(results.iter().map(Some)), "deleted")?;
    let is_refused = |result: &Result<(), Error>| matches!(result, Err(Error::Authorization { .. }));
    let refused = names.iter().zip(&results).filter(|(_, result)| is_refused(result));
    let bootstrap = session.admin.bootstrap();
    let refused: Vec<String> = refused.map(|(name, _)| commands::delete_topic(name, &bootstrap)).collect();
    if !refused.is_empty() {
        let message = format!("{} needs Delete on the topics; somebody who has it runs:", session.admin.principal());
        return Err(Failure { below: Some(refused.join("\n")), ..Failure::new(failure::REFUSED, message) });
    }
    match results.into_iter().find_map(Result::err) {
        Some(error) => Err(error.into()),
        None => Ok(0),
    }
}

/// The topics that exist and whose names we gave: the fixed ones, and those of agents. Of the latter only orphans, if so
/// asked.
fn names(compared: &Compared, orphans: bool) -> Vec<&str> {
    let Compared { desired, found, .. } = compared;
    let is_ours = |name: &str| {
        let is_known = desired.topics.iter().any(|topic| topic.name == name) || name == desired.prefix.events();
        (is_known && !orphans) || (!is_known && desired.prefix.agent_of(name).is_some())
    };
    found.topics.keys().map(String::as_str).filter(|name| is_ours(name)).collect()
}

fn print<'a>(
    session: &Session,
    topics: impl Iterator<Item = (&'a str, Option<&'a Result<(), Error>>)>,
    verb: &str,
) -> Result<(), Failure> {
    let mut items = Vec::new();
    let mut text = String::new();
    for (topic, result) in topics {
        let error = result.and_then(|result| result.as_ref().err()).map(ToString::to_string);
        match session.format {
            Format::Table => {
                text += &match &error {
                    Some(error) => format!("failed   topic {topic}: {error}\n"),
                    None => format!("{verb:<8} topic {topic}\n"),
                };
            }
            _ if error.is_none() => text += &format!("{topic}\n"),
            _ => (),
        }
        items.push(json!({ "topic": topic, "deleted": result.is_some() && error.is_none(), "error": error }));
    }
    match session.format {
        Format::Json => output::print_json(&items)?,
        Format::Jsonl => items.iter().try_for_each(output::print_jsonl)?,
        _ => output::print(&text)?,
    }
    Ok(())
}
