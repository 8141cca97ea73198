//! Patterns of paths, as artifacts are named by them.
//!
//! ```text
//! out/*.xml   out/**   **/report-[0-9].txt   result?.json   out        a directory means all that is in it
//! ```
//!
//! `*` and `?` match no `/`, `**` is any number of directories. A path is walked part by part, so that a directory in which
//! nothing can match need not be looked at; the time that takes grows with the length of the pattern times that of the path,
//! whatever both are.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest pattern, in bytes.
const LONGEST: usize = 1024;
/// The most parts of one.
const PARTS: usize = 64;

/// A pattern of paths below a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Any number of directories.
    Any,
    /// One name.
    Name(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Many,
    /// Whether it is one of these, or none of them.
    Set(bool, Vec<(char, char)>),
}

/// The text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no pattern of files: {problem}; use one like out/*.xml or out/**, seen from the job's work directory"
)]
pub struct InvalidGlob {
    text: String,
    problem: &'static str,
}

/// How far a path has matched: where in the pattern it may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course(Vec<usize>);

impl Glob {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches this path, or a directory above it.
    pub fn matches(&self, path: &str) -> bool {
        let mut course = self.start();
        path.split('/').any(|name| {
            course = self.enter(&course, name);
            self.is_match(&course)
        })
    }

    /// At the top, in front of the first name of a path.
    pub fn start(&self) -> Course {
        self.closed([0])
    }

    /// Behind one more name.
    pub fn enter(&self, course: &Course, name: &str) -> Course {
        let next = course.0.iter().filter_map(|at| match self.parts.get(*at)? {
            Part::Any => Some(*at),
            Part::Name(tokens) => fits(tokens, name).then_some(at + 1),
        });
        self.closed(next)
    }

    /// The path so far is one of the pattern's: a file that is taken, or a directory of which all is.
    pub fn is_match(&self, course: &Course) -> bool {
        course.0.contains(&self.parts.len())
    }

    /// Nothing that begins so can match.
    pub fn is_dead(&self, course: &Course) -> bool {
        course.0.is_empty()
    }

    /// With what is reached by skipping parts that may be nothing. One `**` at the end is something: a name has to stand there.
    fn closed(&self, at: impl IntoIterator<Item = usize>) -> Course {
        let mut all = Vec::new();
        for mut at in at {
            while !all.contains(&at) {
                all.push(at);
                if self.parts.get(at) == Some(&Part::Any) {
                    at += 1;
                }
            }
        }
        Course(all)
    }
}

impl FromStr for Glob {
    type Err = InvalidGlob;

    fn from_str(text: &str) -> Result<Self, InvalidGlob> {
        let refuse = |problem| InvalidGlob { text: text.chars().take(80).collect(), problem };
        if text.len() > LONGEST {
            return Err(refuse("it is too long"));
        }
        if text.starts_with('/') {
            return Err(refuse("it begins at the root"));
        }
        if text.chars().any(char::is_control) {
            return Err(refuse("it has control characters"));
        }
        let mut parts = Vec::new();
        let trimmed = text.strip_prefix("./").unwrap_or(text);
        for part in trimmed.trim_end_matches('/').split('/') {
            match part {
                "" => return Err(refuse("a part of it is empty")),
                "." | ".." => return Err(refuse("it has . or .. in it")),
                "**" if parts.last() == Some(&Part::Any) => {}
                "**" => parts.push(Part::Any),
                name => parts.push(Part::Name(tokens(name).map_err(refuse)?)),
            }
        }
        if parts.len() > PARTS {
            return Err(refuse("it has too many parts"));
        }
        // All below a directory, and not the directory's own name: `**` alone means every file.
        if parts.last() == Some(&Part::Any) {
            parts.push(Part::Name(vec![Token::Many]));
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

impl TryFrom<String> for Glob {
    type Error = InvalidGlob;

    fn try_from(text: String) -> Result<Self, InvalidGlob> {
        text.parse()
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> String {
        glob.text
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn tokens(name: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if tokens.last() == Some(&Token::Many) => continue,
            '*' => Token::Many,
            '?' => Token::One,
            '[' => {
                let without = chars.next_if(|c| matches!(c, '!' | '^')).is_some();
                let mut ranges = Vec::new();
                loop {
                    let from = chars.next().ok_or("a [ has no ]")?;
                    if from == ']' && !ranges.is_empty() {
                        break;
                    }
                    let mut to = from;
                    if chars.peek() == Some(&'-') {
                        chars.next();
                        match chars.next().ok_or("a [ has no ]")? {
                            // A dash at the end is itself.
                            ']' => {
                                ranges.extend([(from, from), ('-', '-')]);
                                break;
                            }
                            end => to = end,
                        }
                    }
                    ranges.push((from, to));
                }
                Token::Set(without, ranges)
            }
            '\\' => Token::Char(chars.next().ok_or("it ends with a backslash")?),
            c => Token::Char(c),
        });
    }
    Ok(tokens)
}

/// Whether a name fits: what a star took is only ever given back from the last one.
fn fits(tokens: &[Token], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < name.len() {
        let fits = tokens.get(at).is_some_and(|token| match token {
            Token::Char(c) => *c == name[seen],
            Token::One => true,
            Token::Many => false,
            Token::Set(without, ranges) => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&name[seen])) != *without
            }
        });
        if fits {
            (at, seen) = (at + 1, seen + 1);
        } else if tokens.get(at) == Some(&Token::Many) {
            star = Some((at, seen));
            at += 1;
        } else if let Some((before, from)) = star {
            star = Some((before, from + 1));
            (at, seen) = (before + 1, from + 1);
        } else {
            return false;
        }
    }
    tokens[at..].iter().all(|token| *token == Token::Many)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> Glob {
        text.parse().expect(text)
    }

    #[test]
    fn a_pattern_matches_what_it_means_and_nothing_else() {
        for (pattern, yes, no) in [
            ("out", &["out", "out/a", "out/a/b"][..], &["outer", "x/out", "ou"][..]),
            ("out/", &["out/a"], &["x"]),
            ("./out/a", &["out/a"], &["out/b"]),
            ("out/**", &["out/a", "out/a/b.c"], &["out", "x/out/a"]),
            ("**", &["a", "a/b/c"], &[]),
            ("*", &["a", ".hidden", "a/b"], &[]),
            ("*.xml", &["a.xml", ".xml", "d.xml/a"], &["a/b.xml", "a.xmlx"]),
            ("**/*.xml", &["a.xml", "a/b.xml", "a/b/c.xml"], &["a.xm", "a/b.txt"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z", "a/z/z/q"], &["b/z", "a/zz", "a"]),
            ("a/**/b/**/c", &["a/b/c", "a/x/b/y/b/c"], &["a/c", "a/b/x"]),
            ("r-[0-9a-f].txt", &["r-3.txt", "r-c.txt"], &["r-g.txt", "r-.txt", "r-33.txt"]),
            ("[!a]x", &["bx"], &["ax", "x"]),
            ("[]x-]", &["]", "x", "-"], &["y"]),
            ("a?c", &["abc", "aäc"], &["ac", "abbc"]),
            ("a*b*c", &["abc", "a1b2b3c"], &["ab", "acb"]),
            ("\\*", &["*"], &["a"]),
            ("ä*", &["äö"], &["a"]),
        ] {
            for path in yes {
                assert!(glob(pattern).matches(path), "{pattern} {path}");
            }
            for path in no {
                assert!(!glob(pattern).matches(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn a_directory_in_which_nothing_can_match_is_told() {
        let deep = glob("out/*/x");
        let at = |path: &[&str]| path.iter().fold(deep.start(), |course, name| deep.enter(&course, name));
        assert!(!deep.is_dead(&at(&["out"])) && !deep.is_dead(&at(&["out", "a"])));
        assert!(deep.is_dead(&at(&["src"])) && deep.is_dead(&at(&["out", "a", "b"])));
        assert!(deep.is_match(&at(&["out", "a", "x"])));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        for bad in ["", "/", "/etc/*", "a//b", "../x", "a/../b", ".", "a/[b", "a\\", "a\nb", &"a/".repeat(65)] {
            let refused = bad.parse::<Glob>().expect_err(bad).to_string();
            assert!(refused.contains("out/*.xml"), "{refused}");
        }
        assert!("x".repeat(2000).parse::<Glob>().is_err());
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        // Tried one after the other, the ways to share the name among the stars would be more than there are atoms.
        let (pattern, path) = ("*a".repeat(300), "a".repeat(4000));
        assert!(glob(&pattern).matches(&path) && !glob(&format!("{pattern}b")).matches(&path));
        let (pattern, path) = ("**/a/".repeat(30) + "z", "a/".repeat(1000) + "y");
        assert!(!glob(&pattern).matches(&path));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_reading_or_matching_panic(text in ".{0,40}", path in "[a-c*/.-]{0,40}") {
            if let Ok(glob) = text.parse::<Glob>() {
                glob.matches(&path);
            }
            if let Ok(glob) = path.parse::<Glob>() {
                assert!(glob.as_str() == path);
                glob.matches(&text);
            }
        }
    }
}
