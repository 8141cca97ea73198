//! Reading our sources as text: comments and literals are blanked (so line numbers stay), and paths that
//! start at a root (`crate::`, or `super::` past the top) are taken apart, nested groups included.

use std::fs;
use std::path::Path;

/// One source file with comments and literals blanked.
pub struct Source {
    /// From the package's root, with `/`.
    pub path: String,
    /// What is left when comments, strings and characters are blanked.
    pub code: String,
}

/// A path that leads from a file to a module at the top of the crate.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrow {
    /// The module at the top.
    pub to: String,
    /// Counted from 1.
    pub line: usize,
}

/// Every `.rs` file below a folder of the package, in order; none if the folder does not exist.
pub fn sources(root: &str) -> Vec<Source> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![package.join(root)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(package).unwrap().to_str().unwrap().replace('\\', "/");
                found.push(Source { path: relative, code: blank(&fs::read_to_string(&path).unwrap()) });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

impl Source {
    /// The module at the top of the crate that this file belongs to; none for `lib.rs` and `main.rs`.
    pub fn top(&self) -> Option<String> {
        let inside = self.path.strip_prefix("src/")?;
        match inside {
            "lib.rs" | "main.rs" => None,
            _ => inside.split('/').next().map(|top| top.trim_end_matches(".rs").to_owned()),
        }
    }

    /// Whether the file lies in a folder of `src`.
    pub fn in_folder(&self) -> bool {
        self.path.matches('/').count() > 1
    }

    /// Whether the file is the module `start`, lies below it, or is one of its siblings `start_*`.
    pub fn is_below(&self, start: &str) -> bool {
        self.path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.', '_']))
    }

    /// The lines of code, counted from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, text)| (index + 1, text))
    }

    /// How many `super::` lead from this file's module to the crate's root.
    fn depth(&self) -> usize {
        let folders = self.path.matches('/').count();
        if self.path.ends_with("/mod.rs") { folders - 1 } else { folders }
    }

    /// All paths from this file to the top of the crate.
    pub fn arrows(&self) -> Vec<Arrow> {
        let mut arrows = self.roots("crate");
        arrows.extend(self.roots(&vec!["super"; self.depth()].join("::")));
        arrows
    }

    /// What follows `root::` in this file.
    pub fn roots(&self, root: &str) -> Vec<Arrow> {
        let mut arrows = Vec::new();
        for at in places(&self.code, root) {
            // `foo::super::x` does not exist, but `super::super::x` contains `super::x`.
            if self.code[..at].trim_end().ends_with("::") {
                continue;
            }
            let Some(rest) = self.code[at + root.len()..].trim_start().strip_prefix("::") else {
                continue;
            };
            let line = self.code[..at].matches('\n').count() + 1;
            arrows.extend(first_segments(rest).into_iter().map(|to| Arrow { to, line }));
        }
        arrows
    }
}

/// Whether `text` contains the path `word` as whole identifiers.
pub fn names(text: &str, word: &str) -> bool {
    places(text, word).next().is_some()
}

fn places<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| !text[..*at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

/// The first segment of a path, or those of each member when it is a group: `{a::b, c::{d, e}}` gives a, c.
fn first_segments(path: &str) -> Vec<String> {
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else {
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
        // `crate::{self}` and `crate::*` name nothing; `crate::super` can't be.
        return Some(&path[..end])
            .filter(|name| !["", "self", "super"].contains(name))
            .into_iter()
            .map(str::to_owned)
            .collect();
    };
    let mut segments = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                segments.extend(first_segments(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    segments
}

/// Replaces comments, strings and characters by blanks; newlines stay.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word_before = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = (!word_before).then(|| raw_string(rest)).flatten() {
            length
        } else if first == '"' {
            quoted(rest, '"')
        } else if let Some(length) = (first == '\'').then(|| character(rest)).flatten() {
            length
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[length..];
    }
    code
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a raw string such as `r#"…"#` or `br"…"` at the start of `text`.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('b').or_else(|| text.strip_prefix('c')).unwrap_or(text).strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(body.len(), |at| at + close.len());
    Some(text.len() - body.len() + end)
}

/// The length of a literal between `quote`s, with escapes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character literal; none if this is a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.chars().skip(1);
    match chars.next()? {
        '\\' => Some(quoted(text, '\'')),
        c if chars.next() == Some('\'') => Some(c.len_utf8() + 2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrows(path: &str, text: &str) -> Vec<String> {
        let source = Source { path: path.to_owned(), code: blank(text) };
        source.arrows().into_iter().map(|arrow| format!("{}:{}", arrow.line, arrow.to)).collect()
    }

    #[test]
    fn a_nested_group_gives_each_of_its_first_segments() {
        let text = "use crate::{\n    kafka::{self, topics::{A, B}},\n    link::*,\n};\nuse crate::id;";
        assert_eq!(arrows("src/cli/exec.rs", text), ["1:kafka", "1:link", "5:id"]);
    }

    #[test]
    fn a_path_inside_an_expression_is_an_arrow() {
        assert_eq!(arrows("src/link/lane.rs", "fn f() { crate :: journal::open() }"), ["1:journal"]);
        assert_eq!(arrows("src/link/lane.rs", "pub(crate) fn f(my_crate: u8) {}"), Vec::<String>::new());
    }

    #[test]
    fn super_past_the_top_is_an_arrow() {
        assert_eq!(arrows("src/link/mod.rs", "use super::kafka;"), ["1:kafka"]);
        assert_eq!(arrows("src/link/lane.rs", "use super::kafka;"), Vec::<String>::new());
        assert_eq!(arrows("src/link/lane.rs", "use super::super::kafka::Log;"), ["1:kafka"]);
    }

    #[test]
    fn comments_and_literals_are_no_arrows() {
        let text = r##"
            // crate::a
            /* crate::b /* crate::c */ crate::d */
            const S: &str = "crate::e \" crate::f";
            const R: &str = r#"crate::g " crate::h"#;
            const Q: char = '"'; fn f<'a>(x: &'a str) { crate::seen::g('\'') }
        "##;
        assert_eq!(arrows("src/link/lane.rs", text), ["6:seen"]);
    }

    #[test]
    fn words_are_found_whole() {
        assert!(names("let t = tokio::time::sleep", "tokio"));
        assert!(!names("let tokio_like = 1", "tokio"));
        assert!(names("std::env::var(x)", "env::var"));
        assert!(!names("std::env::vars()", "env::var"));
    }
}
