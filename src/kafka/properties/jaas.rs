//! One login module of a JAAS configuration: `class required name="value" …;`.

use std::collections::BTreeMap;

/// A login module with its options.
pub(super) struct Module {
    pub(super) class: String,
    pub(super) options: BTreeMap<String, String>,
}

/// Reads `sasl.jaas.config`. Its errors repeat no value: values are secrets.
pub(super) fn parse(text: &str) -> Result<Module, String> {
    let wrong = |what: &str| format!("sasl.jaas.config cannot be read: {what}");
    let mut words = words(text).map_err(wrong)?.into_iter();
    let class = words.next().ok_or_else(|| wrong("it is empty"))?;
    let flag = words.next().unwrap_or_default();
    if !["required", "requisite", "sufficient", "optional"].contains(&flag.to_ascii_lowercase().as_str()) {
        return Err(wrong("behind the login module's class comes the word required"));
    }
    let mut options = BTreeMap::new();
    for word in words {
        let (name, value) = word.split_once('=').ok_or_else(|| wrong("options are written name=\"value\""))?;
        options.insert(name.to_owned(), value.to_owned());
    }
    Ok(Module { class, options })
}

/// Words up to the semicolon; quotes keep blanks and semicolons together and are taken off.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut started = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ';' => {
                words.extend(started.then_some(word));
                return Ok(words);
            }
            quote @ ('"' | '\'') => {
                started = true;
                loop {
                    match chars.next().ok_or("a quote is not closed")? {
                        end if end == quote => break,
                        '\\' => word.push(chars.next().ok_or("a quote is not closed")?),
                        other => word.push(other),
                    }
                }
            }
            blank if blank.is_whitespace() => {
                words.extend(std::mem::take(&mut started).then(|| std::mem::take(&mut word)));
            }
            other => {
                started = true;
                word.push(other);
            }
        }
    }
    Err("the semicolon at its end is missing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_has_a_class_and_options() {
        let module =
            parse("a.b.ScramLoginModule required\n  username=\"rk\"  password='p w;\\'\"=';").expect("readable");
        assert_eq!(module.class, "a.b.ScramLoginModule");
        assert_eq!(module.options["username"], "rk");
        assert_eq!(module.options["password"], "p w;'\"=");
    }

    #[test]
    fn an_error_repeats_no_secret() {
        for text in ["", ";", "a", "a required", "a required password=\"hunter2", "a hunter2;", "a required hunter2;"] {
            let error = parse(text).err().unwrap_or_else(|| panic!("{text:?} was read"));
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
