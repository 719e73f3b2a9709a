//! Owns the text format of Prometheus, version 0.0.4: families, samples, escaping. It never knows what is measured.
//!
//! Invariant: the samples of a family follow its HELP and TYPE lines, and a name and a label value never break a line.
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::{Display, Write};

/// The content type of what [`Exposition::finish`] gives.
pub const EXPOSITION_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a figure does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows, until the process starts again.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts of observations up to a bound, for several bounds.
    Histogram,
}

/// A text of metrics in the making.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family of samples; `help` is one sentence.
    pub fn family(&mut self, name: &str, kind: MetricKind, help: &str) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample of the family that was begun last; `name` is the family's, for a histogram with `_bucket`, `_sum`
    /// or `_count` behind it.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (at, (label, content)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let content = content.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{open}{label}=\"{content}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    /// All of it.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Protects the format from names that users choose: a share may be called anything.
    #[test]
    fn a_label_cannot_break_out_of_its_quotes_or_its_line() {
        let mut text = Exposition::default();
        text.family("a_total", MetricKind::Counter, "Two\nlines \\ and a stroke.");
        text.sample("a_total", &[("share", "x\"} 1\na_total\\"), ("way", "in")], 7);
        text.sample("a_total", &[], 0.5);
        assert_eq!(
            text.finish(),
            "# HELP a_total Two\\nlines \\\\ and a stroke.\n# TYPE a_total counter\n\
             a_total{share=\"x\\\"} 1\\na_total\\\\\",way=\"in\"} 7\na_total 0.5\n"
        );
    }
}
