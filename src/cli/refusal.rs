//! What is answered to a command line that was not taken.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Failure, failure, output};

/// Help and version are data, all else is one line.
pub fn refuse(e: &clap::Error) -> Result<u8, Failure> {
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::print(&e.render().to_string())?;
            return Ok(0);
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::say(e.render().to_string().trim_end());
            return Err(Failure::silent(failure::USAGE));
        }
        _ => (),
    }
    let text = e.render().to_string();
    // What clap says before its tips and its usage, as one line.
    let said = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    let meant = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue]
        .into_iter()
        .find_map(|kind| match e.get(kind)? {
            ContextValue::String(meant) => Some(meant.clone()),
            ContextValue::Strings(meant) => meant.first().cloned(),
            _ => None,
        })
        .map(|meant| format!("; did you mean {meant}?"))
        .unwrap_or_default();
    let usage = match e.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    // "Usage: rk agents add [OPTIONS] …" names the command whose help is wanted.
    let words = usage.split_whitespace().skip_while(|word| *word != "rk");
    let is_name = |word: &&str| !word.starts_with('-') && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let words: Vec<&str> = words.take_while(is_name).collect();
    let command = if words.is_empty() { "rk".to_owned() } else { words.join(" ") };
    Err(Failure::usage(format!("{said}{meant}; `{command} --help` shows what it takes")))
}
