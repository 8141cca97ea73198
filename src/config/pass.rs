//! A credential file: the credential, and under it the settings with which it was made, so that one file starts an agent.
//!
//! They are below all others: a flag, a variable and the configuration file win over them.

use super::{Given, keys};
use crate::secret::Secret;

/// What may stand under a credential. The password is the secret itself, as the credential is.
const KNOWN: [&keys::Key; 6] = [
    &keys::PREFIX,
    &keys::PARTITIONS,
    &keys::LAYOUT,
    &keys::SASL_MECHANISM,
    &keys::SASL_USERNAME,
    &keys::SASL_PASSWORD,
];

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct Pass {
    /// The first line.
    pub credential: Option<Secret<String>>,
    /// The lines under it.
    pub values: Hidden,
}

/// Values that `Debug` does not show.
#[derive(Clone, Default)]
pub struct Hidden(Given);

impl std::ops::Deref for Hidden {
    type Target = Given;

    fn deref(&self) -> &Given {
        &self.0
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Pass {
    /// Reads the text of a credential file. What it says of a wrong one shows no secret.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        let credential = lines.next().map(|(_, line)| Secret::new(line.to_owned()));
        let mut values = Given::new();
        for (number, line) in lines.filter(|(_, line)| !line.starts_with('#')) {
            let known = line.split_once(':').and_then(|(key, value)| {
                let key = KNOWN.into_iter().find(|known| known.name == key.trim_end())?;
                Some((key.name, value.trim().to_owned()))
            });
            let (key, value) = known.ok_or_else(|| {
                let names = KNOWN.map(|key| key.name).join(", ");
                format!(
                    "line {} is none that a credential may have under it: one of {names}, a colon, a value",
                    number + 1
                )
            })?;
            values.insert(key, vec![value]);
        }
        Ok(Self { credential, values: Hidden(values) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_may_bring_the_settings_with_which_it_was_made() {
        let pass = Pass::read("rk1.a.b.c\n\n# own login\nlayout: per-agent\nsasl-password:  p:w \n").expect("read");
        assert_eq!(pass.credential.as_ref().expect("there").expose(), "rk1.a.b.c");
        assert_eq!(pass.values["layout"], ["per-agent"]);
        assert_eq!(pass.values["sasl-password"], ["p:w"]);
        assert!(!format!("{pass:?}").contains("p:w"));
        assert!(Pass::read("rk1.a.b.c").expect("read").values.is_empty());
    }

    #[test]
    fn what_it_may_not_bring_is_refused_without_showing_it() {
        for bad in ["rk1.a.b.c\nhunter2", "rk1.a.b.c\ndata: /", "rk1.a.b.c\nsasl-password hunter2"] {
            let e = Pass::read(bad).expect_err("refused");
            assert!(e.contains("line 2") && !e.contains("hunter2"), "{e}");
        }
    }
}
