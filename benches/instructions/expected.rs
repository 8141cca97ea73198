//! What the paths cost when somebody last said that it is right.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use crate::Cost;

/// The same compiler: what else differs is the processor's copies.
const SAME: f64 = 0.03;
/// Another compiler inlines otherwise.
const OTHER: f64 = 0.15;

/// `rustc VERSION`, and a line for each path: its name, instructions and allocations a round.
#[derive(Debug, Default)]
pub struct Expected {
    compiler: String,
    costs: BTreeMap<String, Cost>,
}

/// Where it is kept.
pub fn file() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "benches", "instructions", "expected.txt"].iter().collect()
}

/// The compiler's version.
fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = std::process::Command::new(rustc).arg("--version").output().expect("rustc is there");
    String::from_utf8_lossy(&said.stdout).split_whitespace().nth(1).unwrap_or("unknown").to_owned()
}

impl Expected {
    /// What was measured now.
    pub fn of(costs: &[(&'static str, Cost)]) -> Self {
        let costs = costs.iter().map(|(name, cost)| ((*name).to_owned(), *cost)).collect();
        Self { compiler: compiler(), costs }
    }

    /// Whether `cost` is what was expected of `name`, or how far from it.
    pub fn judge(&self, name: &str, cost: Cost) -> Result<(), String> {
        let expected = self.costs.get(name).ok_or("not expected: no line in expected.txt")?;
        let off = |now: f64, then: f64| (now - then) / then.max(1.0);
        let instructions = off(cost.instructions, expected.instructions);
        // A count of whole things, but for those that come once in many rounds.
        let allocations = off(cost.allocations, expected.allocations);
        let most = self.most();
        if instructions.abs() <= most && allocations.abs() <= SAME {
            return Ok(());
        }
        Err(format!("instructions {:+.1} %, allocations {:+.1} %", 100.0 * instructions, 100.0 * allocations))
    }

    fn most(&self) -> f64 {
        if self.compiler == compiler() { SAME } else { OTHER }
    }

    /// What may differ, as a sentence.
    pub fn tolerance(&self) -> String {
        let now = compiler();
        format!("rustc {now}, expected with {}: ± {:.0} %", self.compiler, 100.0 * self.most())
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rustc {}", self.compiler)?;
        for (name, cost) in &self.costs {
            writeln!(f, "{name} {:.0} {:.2}", cost.instructions, cost.allocations)?;
        }
        Ok(())
    }
}

impl FromStr for Expected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut expected = Self::default();
        for line in text.lines() {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["rustc", version] => expected.compiler = version.to_owned(),
                [name, instructions, allocations] => {
                    let number = |text: &str| text.parse().map_err(|_| format!("{line:?}: {text} is no number"));
                    let cost = Cost { instructions: number(instructions)?, allocations: number(allocations)? };
                    expected.costs.insert(name.to_owned(), cost);
                }
                _ => return Err(format!("{line:?} is no line of it")),
            }
        }
        Ok(expected)
    }
}
