//! How far a copy is, on a terminal.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use tokio::time::Instant;

/// How often it is shown.
const EVERY: Duration = Duration::from_millis(150);

/// How wide the line may be.
const WIDTH: usize = 78;

/// A line on stderr that is drawn over.
pub struct Progress {
    shown: bool,
    drawn: bool,
    name: String,
    size: Option<u64>,
    done: u64,
    sent: u64,
    begun: Instant,
    last: Instant,
}

impl Progress {
    /// Shown on a terminal, unless `quiet`.
    pub fn new(quiet: bool) -> Self {
        let now = Instant::now();
        let shown = !quiet && io::stderr().is_terminal();
        Self { shown, drawn: false, name: String::new(), size: None, done: 0, sent: 0, begun: now, last: now }
    }

    /// The next file.
    pub fn begin(&mut self, name: &str, size: Option<u64>) {
        name.clone_into(&mut self.name);
        (self.size, self.done, self.sent, self.begun) = (size, 0, 0, Instant::now());
    }

    /// So much of it is there already.
    pub fn skip(&mut self, bytes: u64) {
        self.done += bytes;
    }

    /// So much more of it was copied.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        self.sent += bytes;
        if self.shown && self.last.elapsed() >= EVERY {
            self.last = Instant::now();
            let text = line(&self.name, self.done, self.size, self.sent, self.begun.elapsed());
            let _ = write!(io::stderr(), "\r{text:<WIDTH$}");
            self.drawn = true;
        }
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(io::stderr(), "\r{:WIDTH$}\r", "");
        }
    }
}

fn line(name: &str, done: u64, size: Option<u64>, sent: u64, took: Duration) -> String {
    const MIB: f64 = 1_048_576.0;
    let rate = sent as f64 / took.as_secs_f64().max(0.001) / MIB;
    let share = size.filter(|size| *size > 0).map(|size| format!("{:3}%", done.min(size) * 100 / size));
    let figures = format!("{} {:.1} MiB  {rate:.1} MiB/s", share.unwrap_or_default(), done as f64 / MIB);
    let room = WIDTH.saturating_sub(figures.chars().count() + 2);
    // The end of a path tells more than its beginning.
    let printable: Vec<char> = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let name: String = printable[printable.len().saturating_sub(room)..].iter().collect();
    format!("{name}  {}", figures.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_and_shows_the_end_of_a_long_name() {
        let text = line("a.bin", 3 << 20, Some(4 << 20), 1 << 20, Duration::from_secs(2));
        assert_eq!(text, "a.bin  75% 3.0 MiB  0.5 MiB/s");
        let long = line(&format!("{}/end\n", "x".repeat(100)), 1, None, 1, Duration::ZERO);
        assert!(long.chars().count() <= WIDTH && long.contains("/end?  0.0 MiB"), "{long}");
    }
}
