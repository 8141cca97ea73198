//! The command line of an old agent: `java -jar remoting-kafka-agent.jar -name … -master … -secret …`.

use super::cluster::Store;

/// What it said. Secrets are noted as given, and forgotten.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Agent {
    pub name: Option<String>,
    pub master: Option<String>,
    pub brokers: Option<String>,
    pub user: Option<String>,
    pub truststore: Option<Store>,
    pub keystore: Option<Store>,
    /// It went without TLS and without a login.
    pub noauth: bool,
    /// Options that carried a secret in the open.
    pub secrets: Vec<&'static str>,
    /// It read its secrets from stdin.
    pub read_secret: bool,
}

/// Options with a value, in the plugin's spelling.
const WITH_VALUE: [&str; 11] = [
    "-name",
    "-master",
    "-secret",
    "-kafkaURL",
    "-kafkaUsername",
    "-kafkaPassword",
    "-sslTruststoreLocation",
    "-sslTruststorePassword",
    "-sslKeystoreLocation",
    "-sslKeystorePassword",
    "-sslKeyPassword",
];

/// Reads the words of a command line. Those before the first option of ours to know (`java -jar X.jar`) are passed over.
pub fn parse(words: &[String]) -> Result<Agent, String> {
    let mut agent = Agent::default();
    let is_option = |word: &str| WITH_VALUE.contains(&word) || ["-noauth", "-readSecret"].contains(&word);
    let first = words.iter().position(|word| is_option(word)).ok_or_else(|| {
        format!("no option of the plugin's agent is in this command line; it has {}, …", WITH_VALUE[..4].join(", "))
    })?;
    let mut rest = words[first..].iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-noauth" => agent.noauth = true,
            "-readSecret" => agent.read_secret = true,
            name => match WITH_VALUE.into_iter().find(|known| *known == name) {
                Some(name) => {
                    let value = rest.next().filter(|value| !is_option(value));
                    agent.take(name, value.ok_or_else(|| format!("{name} has no value in this command line"))?);
                }
                // It may be the value of a secret that was cut in two: it is not repeated.
                None => {
                    return Err("there is a word in this command line that is no option of the plugin's agent".into());
                }
            },
        }
    }
    Ok(agent)
}

impl Agent {
    fn take(&mut self, name: &'static str, value: &str) {
        let text = || Some(value.to_owned());
        match name {
            "-name" => self.name = text(),
            "-master" => self.master = text(),
            "-kafkaURL" => self.brokers = text(),
            "-kafkaUsername" => self.user = text(),
            "-sslTruststoreLocation" => self.truststore = Some(Store::at(value)),
            "-sslKeystoreLocation" => self.keystore = Some(Store::at(value)),
            _ => self.secrets.push(name),
        }
    }
}

/// Splits a launch script's line into words, as a shell does with blanks, quotes and backslashes. Lines that are comments are left out.
pub fn split(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let text = lines.join("\n");
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => match chars.next() {
                Some('\n') | None => (),
                Some(c) => word.get_or_insert_default().push(c),
            },
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}
