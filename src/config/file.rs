//! The YAML file: keys as the flags are named, at the top for every command or below `controller:`, `agent:`,
//! `broker:`, `client:`, `topics:`, `jenkins-agent:` for one role.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    Error,
    keys::{self, Kind, Role},
};

/// A file of settings is small; this much and no more is read.
const LARGEST: u64 = 1 << 20;

/// The values of a file, as text.
#[derive(Debug, Clone, Default)]
pub struct File {
    path: PathBuf,
    top: BTreeMap<&'static str, Vec<String>>,
    sections: BTreeMap<&'static str, BTreeMap<&'static str, Vec<String>>>,
}

impl File {
    /// Reads the file at `path`; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let failed = |problem: String| Error::File { path: path.to_owned(), problem };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e.to_string())),
        };
        let mut text = String::new();
        file.take(LARGEST).read_to_string(&mut text).map_err(|e| failed(e.to_string()))?;
        Self::parse(path, &text).map(Some)
    }

    /// Reads the text of a file; `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let failed = |problem: String| Error::File { path: path.to_owned(), problem };
        let mut file = Self { path: path.to_owned(), ..Self::default() };
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(file);
        }
        let document: BTreeMap<String, Value> = serde_saphyr::from_str(text)
            .map_err(|e| failed(e.to_string().lines().next().unwrap_or("it is no YAML").to_owned()))?;
        for (name, value) in document {
            match (Role::of_section(&name), value) {
                (Some(role), Value::Object(values)) => {
                    let section = file.sections.entry(role.section()).or_default();
                    for (name, value) in values {
                        let (key, texts) = setting(path, &name, value)?;
                        section.insert(key, texts);
                    }
                }
                (Some(_), Value::Null) => (),
                (Some(_), _) => return Err(failed(format!("{name} is a section: settings stand indented below it"))),
                (None, value) => {
                    let (key, texts) = setting(path, &name, value)?;
                    file.top.insert(key, texts);
                }
            }
        }
        Ok(file)
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The values of a setting for a role: its section wins.
    pub fn values(&self, role: Role, name: &str) -> Option<&[String]> {
        let roles = [Some(role), role.below()].into_iter().flatten();
        let sections = roles.filter_map(|role| self.sections.get(role.section())?.get(name));
        sections.chain(self.top.get(name)).next().map(Vec::as_slice)
    }
}

fn setting(path: &Path, name: &str, value: Value) -> Result<(&'static str, Vec<String>), Error> {
    let failed = |problem: String| Error::File { path: path.to_owned(), problem };
    let key = keys::named(name).filter(|key| key.name != keys::CONFIG.name && !key.hidden).ok_or_else(|| {
        let meant = keys::similar(name).map(|known| format!("; did you mean {known}?")).unwrap_or_default();
        failed(format!("unknown key {name}{meant}"))
    })?;
    let texts = match value {
        Value::Array(items) if key.kind == Kind::Many => items
            .iter()
            .map(|item| scalar(item).ok_or_else(|| failed(format!("{name} takes a list of plain values"))))
            .collect::<Result<Vec<String>, Error>>()?,
        Value::Object(entries) if key.kind == Kind::Many => entries
            .iter()
            .map(|(key, value)| Some(format!("{key}={}", scalar(value)?)))
            .collect::<Option<Vec<String>>>()
            .ok_or_else(|| failed(format!("{name} takes a map of plain values")))?,
        value => {
            vec![scalar(&value).ok_or_else(|| failed(format!("{name} takes one plain value, like {}", key.value)))?]
        }
    };
    Ok((key.name, texts))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        File::parse(Path::new("/etc/rk/config.yaml"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn lists_maps_numbers_and_sections_are_taken() {
        let file = parse(
            "brokers: [a:9092, b:9092]\npartitions: 16\nlisten: 127.0.0.1:1\nlabel: {role: web, zone: a}\n\
             broker:\n  listen: 127.0.0.1:2\n",
        )
        .expect("parsed");
        assert_eq!(file.values(Role::Agent, "brokers"), Some(&["a:9092".to_owned(), "b:9092".to_owned()][..]));
        assert_eq!(file.values(Role::Agent, "partitions"), Some(&["16".to_owned()][..]));
        assert_eq!(file.values(Role::Agent, "label"), Some(&["role=web".to_owned(), "zone=a".to_owned()][..]));
        assert_eq!(file.values(Role::Controller, "listen"), Some(&["127.0.0.1:1".to_owned()][..]));
        assert_eq!(file.values(Role::Broker, "listen"), Some(&["127.0.0.1:2".to_owned()][..]));
        let file = parse("api: a:1\nclient: {api: b:1}\njenkins-agent: {java: /opt/java}\n").expect("parsed");
        assert_eq!(file.values(Role::Jenkins, "java"), Some(&["/opt/java".to_owned()][..]));
        assert_eq!(file.values(Role::Jenkins, "api"), Some(&["b:1".to_owned()][..]), "a client's holds for it too");
        assert!(parse("# nothing yet\n").expect("empty").top.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_the_file_and_the_cure() {
        for (text, part) in [
            ("broker-list: a", "/etc/rk/config.yaml: unknown key broker-list"),
            ("sasl-user: a", "unknown key sasl-user; did you mean sasl-username?"),
            ("agent:\n  lable: a=b", "did you mean label?"),
            ("agent: 7", "agent is a section"),
            ("prefix: [a, b]", "prefix takes one plain value"),
            ("config: x", "unknown key config"),
            ("prefix: a\nprefix: b", "config.yaml: "),
            ("a: [", "config.yaml: "),
        ] {
            let e = parse(text).expect_err(text);
            assert!(e.contains(part) && !e.contains('\n'), "{text:?}: {e}");
        }
    }
}
