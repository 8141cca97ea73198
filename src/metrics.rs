//! A page of numbers for Prometheus and its like: the text format, version 0.0.4.

use std::fmt::{Display, Write};

/// The page's content type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// What is shown. Each name once, with all its values.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// A number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help, [(&[][..], value)]);
    }

    /// A number that only grows, from the process's start.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help, [(&[][..], value)]);
    }

    /// Numbers that go up and down, one for each value of `label`.
    pub fn gauges<V: Display>(&mut self, name: &str, help: &str, label: &str, values: &[(&str, V)]) {
        self.labelled(name, "gauge", help, label, values);
    }

    /// Numbers that only grow, one for each value of `label`.
    pub fn counters<V: Display>(&mut self, name: &str, help: &str, label: &str, values: &[(&str, V)]) {
        self.labelled(name, "counter", help, label, values);
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }

    fn labelled<V: Display>(&mut self, name: &str, kind: &str, help: &str, label: &str, values: &[(&str, V)]) {
        let pairs: Vec<[(&str, &str); 1]> = values.iter().map(|(of, _)| [(label, *of)]).collect();
        self.family(name, kind, help, pairs.iter().zip(values).map(|(pair, (_, value))| (&pair[..], value)));
    }

    fn family<'a, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], V)>,
    ) {
        let text = &mut self.0;
        // A string takes all that is written.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            text.push_str(name);
            for (number, (key, of)) in labels.iter().enumerate() {
                let of = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(text, "{}{key}=\"{of}\"", if number == 0 { '{' } else { ',' });
            }
            text.push_str(if labels.is_empty() { "" } else { "}" });
            let _ = writeln!(text, " {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_scrapers_read() {
        let mut page = Page::default();
        page.gauge("rk_up", "Whether it runs.", 1);
        page.counters("rk_dropped_total", "Packets.", "reason", &[("old", 3), ("a\"b\\\n", 4)]);
        let expected = "# HELP rk_up Whether it runs.\n# TYPE rk_up gauge\nrk_up 1\n\
                        # HELP rk_dropped_total Packets.\n# TYPE rk_dropped_total counter\n\
                        rk_dropped_total{reason=\"old\"} 3\nrk_dropped_total{reason=\"a\\\"b\\\\\\n\"} 4\n";
        assert_eq!(page.into_text(), expected);
    }
}
