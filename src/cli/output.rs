//! What commands print: data on stdout in the format that was asked for, talk on stderr.

use std::{
    fmt::Write as _,
    io::{self, Write},
    str::FromStr,
};

use serde::Serialize;

/// How wide a table may be.
const WIDTH: usize = 80;

/// The formats of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON document for each item, a line each.
    Jsonl,
    /// Names only, a line each.
    Name,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "jsonl" => Ok(Self::Jsonl),
            "name" => Ok(Self::Name),
            _ => Err(format!("{s:?} is no format; use table, json, jsonl or name")),
        }
    }
}

/// Prints `text` on stdout.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints one JSON document, indented, with a line end.
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Prints one JSON document as a line.
pub fn print_jsonl(value: &impl Serialize) -> io::Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}

/// Says something on stderr. That nobody can hear it is no reason to fail.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A table under its headings. The last column is cut so that lines fit 80 columns; the others are never cut.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let before_last: usize = widths[..N - 1].iter().map(|width| width + 2).sum();
    let room = WIDTH.saturating_sub(before_last).max(headings[N - 1].len());
    let mut text = String::new();
    let headings = headings.map(str::to_owned);
    for row in [&headings].into_iter().chain(rows) {
        let mut line = String::new();
        for (cell, width) in row[..N - 1].iter().zip(widths) {
            write!(line, "{cell:width$}  ").expect("a string takes it");
        }
        line.push_str(&shortened(&row[N - 1], room));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `text` in at most `room` columns.
pub fn shortened(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// A duration in the two units that matter: `3d 4h`, `5m 7s`, `12.3 s`, `450 ms`.
pub fn duration(d: std::time::Duration) -> String {
    let s = d.as_secs();
    match s {
        86_400.. => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
        3600.. => format!("{}h {}m", s / 3600, s % 3600 / 60),
        60.. => format!("{}m {}s", s / 60, s % 60),
        1.. => format!("{:.1} s", d.as_secs_f64()),
        0 => format!("{:.1} ms", d.as_secs_f64() * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_table_fits_eighty_columns() {
        let rows = [["a".to_owned(), "x=y,".repeat(40)], ["longer-name".to_owned(), "short".to_owned()]];
        let text = table(["NAME", "LABELS"], &rows);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(text.lines().next(), Some("NAME         LABELS"));
        assert_eq!(text.lines().nth(2), Some("longer-name  short"));
    }

    #[test]
    fn durations_are_short() {
        for (ms, text) in
            [(3, "3.0 ms"), (1500, "1.5 s"), (61_000, "1m 1s"), (7_260_000, "2h 1m"), (90_000_000, "1d 1h")]
        {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }
}
