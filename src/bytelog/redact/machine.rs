//! Finds all forms at once, one step a byte (Aho and Corasick), and knows how much of what was read may be the beginning of
//! one.

use std::collections::BTreeMap;

use aho_corasick::{
    Anchored, BuildError, MatchKind, StartKind,
    automaton::{Automaton, StateID},
    dfa::DFA,
    nfa::contiguous::NFA,
};

/// Forms of so many bytes in all get the fast table, which takes up to 1 KiB a byte; more get the small one.
const FAST: usize = 4 << 10;

/// Finds forms.
pub(super) struct Machine {
    automaton: Either,
    start: StateID,
    /// For each state in which what was read last may be the beginning of a form. Sorted.
    holds: Vec<(StateID, Hold)>,
    /// The shortest form.
    pub(super) shortest: usize,
}

enum Either {
    Fast(DFA),
    Small(NFA),
}

/// How much of the last bytes may be the beginning of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hold {
    /// So many bytes.
    pub(super) bytes: usize,
    /// The length of the shortest form that begins with them; 0 if there are none.
    pub(super) form: usize,
}

impl Machine {
    pub(super) fn new(forms: &[Vec<u8>]) -> Result<Self, BuildError> {
        let automaton = if forms.iter().map(Vec::len).sum::<usize>() <= FAST {
            let mut builder = DFA::builder();
            Either::Fast(
                builder
                    .match_kind(MatchKind::Standard)
                    .start_kind(StartKind::Unanchored)
                    .prefilter(false)
                    .build(forms)?,
            )
        } else {
            Either::Small(NFA::builder().match_kind(MatchKind::Standard).prefilter(false).build(forms)?)
        };
        let (start, holds) = match &automaton {
            Either::Fast(dfa) => (start(dfa), holds(dfa, forms)),
            Either::Small(nfa) => (start(nfa), holds(nfa, forms)),
        };
        let shortest = forms.iter().map(Vec::len).min().unwrap_or(0);
        Ok(Self { automaton, start, holds, shortest })
    }

    pub(super) fn start(&self) -> StateID {
        self.start
    }

    /// Goes on from `state` over `bytes`, and tells where the longest form ends that ends there, and its length: once for
    /// each place where one ends.
    pub(super) fn run(&self, state: StateID, bytes: &[u8], found: impl FnMut(usize, usize)) -> StateID {
        match &self.automaton {
            Either::Fast(dfa) => run(dfa, state, bytes, found),
            Either::Small(nfa) => run(nfa, state, bytes, found),
        }
    }

    pub(super) fn hold(&self, state: StateID) -> Hold {
        self.holds.binary_search_by_key(&state, |(state, _)| *state).map_or(Hold::default(), |at| self.holds[at].1)
    }
}

fn start(automaton: &impl Automaton) -> StateID {
    automaton.start_state(Anchored::No).expect("it was built for unanchored searches")
}

fn run(automaton: &impl Automaton, mut state: StateID, bytes: &[u8], mut found: impl FnMut(usize, usize)) -> StateID {
    for (at, byte) in bytes.iter().enumerate() {
        state = automaton.next_state(Anchored::No, state, *byte);
        if automaton.is_special(state) && automaton.is_match(state) {
            let forms = (0..automaton.match_len(state)).map(|index| automaton.match_pattern(state, index));
            if let Some(length) = forms.map(|form| automaton.pattern_len(form)).max() {
                found(at + 1, length);
            }
        }
    }
    state
}

/// The states of all proper beginnings of forms; and those of forms that begin no other one, whose endings may still begin
/// one.
fn holds(automaton: &impl Automaton, forms: &[Vec<u8>]) -> Vec<(StateID, Hold)> {
    let mut holds: BTreeMap<StateID, Hold> = BTreeMap::new();
    for form in forms {
        let mut state = start(automaton);
        for at in 0..form.len() - 1 {
            state = automaton.next_state(Anchored::No, state, form[at]);
            let hold = holds.entry(state).or_insert(Hold { bytes: at + 1, form: form.len() });
            hold.form = hold.form.min(form.len());
        }
    }
    let mut shorter: Vec<&Vec<u8>> = forms.iter().collect();
    shorter.sort_by_key(|form| form.len());
    for form in shorter {
        let whole = run(automaton, start(automaton), form, |_, _| {});
        let rest = run(automaton, start(automaton), &form[1..], |_, _| {});
        if !holds.contains_key(&whole)
            && let Some(hold) = holds.get(&rest).copied()
        {
            holds.insert(whole, hold);
        }
    }
    holds.into_iter().collect()
}
