//! What the agent says of its host.

use std::{
    collections::BTreeMap,
    env::consts::{ARCH, OS},
};

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
    fn given_labels_win_over_those_of_the_host() {
        let given = BTreeMap::from([("arch".to_owned(), "mine".to_owned()), ("role".to_owned(), "web".to_owned())]);
        let labels = labels(&given);
        assert_eq!((labels["arch"].as_str(), labels["role"].as_str(), labels["os"].as_str()), ("mine", "web", OS));
        assert!(labels.contains_key("hostname"));
    }
}
