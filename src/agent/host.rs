//! What the agent says of its host.

use std::{
    collections::BTreeMap,
    env::consts::{ARCH, OS},
};

use crate::id::{AgentName, MAX_AGENT_NAME};

/// The host's name as the name of an agent: what a name can't have becomes `-`. `None` if nothing is left.
pub fn default_name() -> Option<AgentName> {
    as_name(&nix::unistd::gethostname().ok()?.to_string_lossy())
}

fn as_name(host: &str) -> Option<AgentName> {
    let valid = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String =
        host.chars().map(valid).skip_while(|c| !c.is_ascii_alphanumeric()).take(MAX_AGENT_NAME).collect();
    name.trim_end_matches('-').parse().ok()
}

/// The host's labels with `given` over them.
pub(super) fn labels(given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let hostname = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    let mut labels = BTreeMap::from([("os".to_owned(), OS.to_owned()), ("arch".to_owned(), ARCH.to_owned())]);
    labels.extend(hostname.ok().map(|hostname| ("hostname".to_owned(), hostname)));
    labels.extend(given.iter().map(|(key, value)| (key.clone(), value.clone())));
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_s_name_is_made_an_agent_s() {
        for (host, name) in [("build7", "build7"), ("b7.example.com", "b7-example-com"), ("-Ä_x.", "x"), ("a b", "a-b")]
        {
            assert_eq!(as_name(host).expect(host).as_str(), name);
        }
        assert_eq!(as_name(&"x".repeat(200)).expect("cut").as_str().len(), MAX_AGENT_NAME);
        assert_eq!((as_name(""), as_name("...")), (None, None));
    }

    #[test]
    fn given_labels_win_over_those_of_the_host() {
        let given = BTreeMap::from([("arch".to_owned(), "mine".to_owned()), ("role".to_owned(), "web".to_owned())]);
        let labels = labels(&given);
        assert_eq!((labels["arch"].as_str(), labels["role"].as_str(), labels["os"].as_str()), ("mine", "web", OS));
        assert!(labels.contains_key("hostname"));
    }
}
