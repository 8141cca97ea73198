//! The syntax of Java's property files, and PEM that was squeezed into one line of them.

use std::collections::BTreeMap;

/// Reads `key=value` lines: `=`, `:` or blanks between them, `\` at a line's end, escapes, `#` and `!` comments.
/// A later line wins.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut properties = BTreeMap::new();
    for line in logical_lines(text) {
        let (key, value) = split(&line);
        let key = unescape(key)?;
        properties.insert(key, unescape(value)?);
    }
    Ok(properties)
}

/// Lines with their continuations, without comments and leading blanks.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        let line = line.trim_start_matches([' ', '\t', '\u{c}']);
        if open.is_none() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        let mut whole = open.take().unwrap_or_default();
        let backslashes = line.bytes().rev().take_while(|b| *b == b'\\').count();
        if backslashes % 2 == 1 {
            whole.push_str(&line[..line.len() - 1]);
            open = Some(whole);
        } else {
            whole.push_str(line);
            lines.push(whole);
        }
    }
    lines.extend(open);
    lines
}

/// Key and value, both still escaped.
fn split(line: &str) -> (&str, &str) {
    const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];
    let mut escaped = false;
    let end = line
        .char_indices()
        .find(|(_, c)| {
            let ends = !escaped && ("=:".contains(*c) || BLANKS.contains(c));
            escaped = *c == '\\' && !escaped;
            ends
        })
        .map_or(line.len(), |(at, _)| at);
    let rest = line[end..].trim_start_matches(BLANKS);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], rest.trim_start_matches(BLANKS))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
                let wrong = || format!("\\u{digits} in the properties file is no character");
                out.push(code.and_then(char::from_u32).ok_or_else(wrong)?);
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    Ok(out)
}

/// Gives every PEM block its lines back. What is no block is dropped.
pub(super) fn pem_lines(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((label, body, behind)) = next_block(rest) {
        out.push_str(&format!("-----BEGIN {label}-----\n"));
        let body: Vec<char> = body.chars().filter(|c| !c.is_whitespace()).collect();
        for line in body.chunks(64) {
            out.extend(line);
            out.push('\n');
        }
        out.push_str(&format!("-----END {label}-----\n"));
        rest = behind;
    }
    out
}

fn next_block(text: &str) -> Option<(&str, &str, &str)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, rest) = rest.split_once("-----END ")?;
    let (_, rest) = rest.split_once("-----")?;
    Some((label, body, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(line: &str) -> (String, String) {
        parse(line).expect("readable").into_iter().next().expect("a property")
    }

    #[test]
    fn separators_are_those_of_java() {
        for line in ["k=v", "k = v", "k:v", "k : v", "k v", "  k\t=\tv", "k   v"] {
            assert_eq!(one(line), ("k".to_owned(), "v".to_owned()), "{line:?}");
        }
        assert_eq!(one("k"), ("k".to_owned(), String::new()));
        assert_eq!(one("k==v:w x "), ("k".to_owned(), "=v:w x ".to_owned()));
        assert_eq!(one(r"a\=b\ c=\ d"), ("a=b c".to_owned(), " d".to_owned()));
    }

    #[test]
    fn lines_go_on_behind_an_odd_number_of_backslashes() {
        assert_eq!(one("k=a\\\n   b\\\n\tc"), ("k".to_owned(), "abc".to_owned()));
        let two = parse("k=a\\\\\nl=b").expect("readable");
        assert_eq!((two["k"].as_str(), two["l"].as_str()), ("a\\", "b"));
        assert_eq!(one("k=a\\\n# no comment"), ("k".to_owned(), "a# no comment".to_owned()));
    }

    #[test]
    fn comments_blank_lines_and_escapes() {
        let all = parse("# c\n! c\n\n  # c\nk=\\t\\n\\u00e4\\:\\q\nk2=a#b\r\n").expect("readable");
        assert_eq!(all["k"], "\t\nä:q");
        assert_eq!(all["k2"], "a#b");
        assert!(parse("k=\\u12").is_err());
        assert!(parse("k=\\ud800").is_err());
    }

    #[test]
    fn pem_gets_its_lines_back() {
        let squeezed =
            "-----BEGIN CERTIFICATE----- QUJD REVG -----END CERTIFICATE-----\n-----BEGIN X-----QQ==-----END X-----";
        assert_eq!(
            pem_lines(squeezed),
            "-----BEGIN CERTIFICATE-----\nQUJDREVG\n-----END CERTIFICATE-----\n-----BEGIN X-----\nQQ==\n-----END X-----\n"
        );
        assert_eq!(pem_lines("-----BEGIN CERT"), "");
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = parse(&text);
            pem_lines(&text);
        }
    }
}
