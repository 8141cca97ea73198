//! `make bench-instructions`: what the packets', the logs' and the journal's paths cost in instructions and allocations.
//!
//! Each case runs under valgrind in a process of its own, for so many rounds and for twice as many; the difference is what the
//! rounds cost, without what a process costs. What a cipher or a copy of the same bytes costs is measured beside it and taken
//! off, since that depends on the processor: what is left is ours, and is held against `expected.txt`, with 3 % to spare.
//! `--write` writes that file anew. See `docs/benchmarks.md`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "no part of the product")]

mod cases;
mod expected;
mod tally;

use std::{fs, path::Path, process::Command, thread};

use cases::{Case, FLOORS, PATHS};
use expected::Expected;

#[global_allocator]
static TALLY: tally::Tally = tally::Tally;

/// What a round costs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Instructions.
    pub instructions: f64,
    /// Allocations, reallocations included.
    pub allocations: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    match words[..] {
        ["case", name, rounds] => be(name, rounds.parse().unwrap()),
        [] => std::process::exit(i32::from(!compare(&measure()))),
        ["--write"] => fs::write(expected::file(), Expected::of(&measure()).to_string()).unwrap(),
        _ => {
            eprintln!("usage: instructions [--write]");
            std::process::exit(2);
        }
    }
}

/// One process under valgrind: the rounds, and how often they allocated.
fn be(name: &str, rounds: u32) {
    let case = FLOORS.iter().chain(PATHS).find(|case| case.name == name).unwrap();
    (case.run)(rounds);
    println!("{}", tally::allocations());
}

/// What each path costs, two at a time.
fn measure() -> Vec<(&'static str, Cost)> {
    let cases: Vec<&Case> = FLOORS.iter().chain(PATHS).collect();
    let mut costs: Vec<(&str, Cost)> = Vec::new();
    for pair in cases.chunks(2) {
        thread::scope(|scope| {
            let runs: Vec<_> = pair.iter().map(|case| scope.spawn(|| (case.name, cost(case)))).collect();
            costs.extend(runs.into_iter().map(|run| run.join().unwrap()));
        });
    }
    let of = |name: &str| costs.iter().find(|(other, _)| *other == name).unwrap().1;
    let ours = |case: &Case| {
        let cost = case.floors.iter().map(|floor| of(floor)).fold(of(case.name), |whole, floor| Cost {
            instructions: whole.instructions - floor.instructions,
            allocations: whole.allocations - floor.allocations,
        });
        (case.name, cost)
    };
    PATHS.iter().map(ours).collect()
}

fn cost(case: &Case) -> Cost {
    let (once, twice) = (counted(case, case.rounds), counted(case, 2 * case.rounds));
    let a_round = |twice: u64, once: u64| twice.saturating_sub(once) as f64 / f64::from(case.rounds);
    Cost { instructions: a_round(twice.0, once.0), allocations: a_round(twice.1, once.1) }
}

/// Instructions and allocations of a whole process.
fn counted(case: &Case, rounds: u32) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let counts = folder.path().join("counts");
    let ran = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", &format!("--callgrind-out-file={}", counts.display())])
        .arg(std::env::current_exe().unwrap())
        .args(["case", case.name, &rounds.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("valgrind: {error}; install it (Debian: apt-get install valgrind)"));
    assert!(ran.status.success(), "{}: {}", case.name, String::from_utf8_lossy(&ran.stderr));
    let allocations = String::from_utf8(ran.stdout).unwrap().trim().parse().unwrap();
    (total(&counts), allocations)
}

/// Callgrind's sum.
fn total(counts: &Path) -> u64 {
    let text = fs::read_to_string(counts).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")));
    line.expect("callgrind says its sum").trim().parse().unwrap()
}

/// Prints the table; whether everything is as expected.
fn compare(costs: &[(&'static str, Cost)]) -> bool {
    let file = expected::file();
    let expected: Expected = fs::read_to_string(&file).unwrap_or_default().parse().unwrap();
    let verdicts: Vec<_> = costs.iter().map(|(name, cost)| (name, cost, expected.judge(name, *cost))).collect();
    println!("{:<14} {:>13} {:>12}  a round", "path", "instructions", "allocations");
    for (name, cost, verdict) in &verdicts {
        let said = verdict.as_ref().err().map_or("", String::as_str);
        println!("{name:<14} {:>13.0} {:>12.2}  {said}", cost.instructions, cost.allocations);
    }
    let failed = verdicts.iter().filter(|(.., verdict)| verdict.is_err()).count();
    println!("{}", expected.tolerance());
    println!("{} passed, {failed} failed", verdicts.len() - failed);
    if failed > 0 {
        println!("If that is meant: `make bench-instructions WRITE=1`, and commit {}.", file.display());
    }
    failed == 0
}
