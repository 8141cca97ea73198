//! Who asks for a job, its end, or an agent's rest: shown to others, and counted for fairness. It proves nothing.

use crate::job::LIMITS;

/// The user and the machine, like `ada@build-7`.
pub fn name() -> String {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    let host = nix::unistd::gethostname().ok().map(|host| host.to_string_lossy().into_owned());
    joined(&user.unwrap_or_else(|| format!("uid-{uid}")), host.as_deref())
}

/// What the controller takes for a name, whatever the system's names are.
fn joined(user: &str, host: Option<&str>) -> String {
    let name = match host {
        Some(host) if !host.is_empty() => format!("{user}@{host}"),
        _ => user.to_owned(),
    };
    let mut short = String::new();
    for c in name.chars().filter(|c| !c.is_control()) {
        if short.len() + c.len_utf8() > LIMITS.word {
            break;
        }
        short.push(c);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::check_word;

    #[test]
    fn odd_names_become_ones_that_the_controller_takes() {
        assert_eq!(joined("ada", Some("build-7")), "ada@build-7");
        assert_eq!(joined("ada", None), "ada");
        check_word("name", &joined("a\nb", Some(&"ä".repeat(300)))).expect("taken");
        check_word("name", &name()).expect("taken");
    }
}
