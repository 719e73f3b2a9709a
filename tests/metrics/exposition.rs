//! A strict reader of the text format of Prometheus: what it takes, any scraper takes.

use std::collections::BTreeMap;

/// The samples of a text, by name and labels as written: `name{a="b"}`.
#[derive(Debug)]
pub struct Samples(pub BTreeMap<String, f64>);

impl Samples {
    #[track_caller]
    pub fn at(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no {name} in {:#?}", self.0))
    }
}

/// Reads a text, and panics where it breaks a rule: every sample below the HELP and TYPE of its family, each family
/// and sample once, legal names, counters that end in `_total`, histograms that are cumulative.
#[track_caller]
pub fn read(text: &str) -> Samples {
    assert!(text.ends_with('\n') && !text.contains('\r'));
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let mut samples = BTreeMap::new();
    let (mut helped, mut family, mut kind) = ("", "", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(is_name(name) && help.ends_with('.') && !help.contains('\\'), "{line}");
            helped = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            (family, kind) = rest.split_once(' ').expect(line);
            assert_eq!(family, helped, "HELP stands before TYPE");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
            assert!(families.insert(family, kind).is_none(), "{family} twice");
        } else {
            let (name, labels, value) = sample(line);
            let belongs = match kind {
                "histogram" => name.strip_prefix(family).is_some_and(|part| PARTS.contains(&part)),
                _ => name == family,
            };
            assert!(belongs, "{line} is not below its family");
            assert!(kind != "counter" || value >= 0.0, "{line}");
            assert!(
                samples.insert(format!("{name}{labels}"), value).is_none(),
                "{line} twice"
            );
        }
    }
    for (family, _) in families.iter().filter(|(_, kind)| **kind == "histogram") {
        histogram(family, text, &samples);
    }
    Samples(samples)
}

const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Bounds and counts grow, and the last bucket holds all.
fn histogram(family: &str, text: &str, samples: &BTreeMap<String, f64>) {
    let start = format!("{family}_bucket{{le=\"");
    let mut last = (f64::NEG_INFINITY, 0.0);
    for line in text.lines().filter_map(|line| line.strip_prefix(&start)) {
        let (bound, count) = line.split_once("\"} ").expect(line);
        let bound: f64 = bound.replace("+Inf", "inf").parse().expect(line);
        let count: f64 = count.parse().expect(line);
        assert!(bound > last.0 && count >= last.1, "{family}: {line} after {last:?}");
        last = (bound, count);
    }
    assert_eq!(last.0, f64::INFINITY, "{family} has no bucket for all");
    assert_eq!(last.1, samples[&format!("{family}_count")]);
    assert!(samples.contains_key(&format!("{family}_sum")));
}

/// `name{labels} value`, checked.
fn sample(line: &str) -> (&str, &str, f64) {
    let (head, value) = line.rsplit_once(' ').expect(line);
    let (name, labels) = head.find('{').map_or((head, ""), |at| head.split_at(at));
    assert!(is_name(name), "{line}");
    if !labels.is_empty() {
        let inner = labels
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .expect(line);
        check_labels(inner, line);
    }
    (name, labels, value.parse().expect(line))
}

fn check_labels(mut rest: &str, line: &str) {
    loop {
        let (name, quoted) = rest.split_once("=\"").expect(line);
        assert!(is_name(name) && !name.contains(':'), "{line}");
        let mut is_escaped = false;
        let end = quoted.find(|c| {
            let ends = c == '"' && !is_escaped;
            assert!(!is_escaped || "\\\"n".contains(c), "{line}");
            is_escaped = c == '\\' && !is_escaped;
            ends
        });
        match &quoted[end.expect(line) + 1..] {
            "" => return,
            more => rest = more.strip_prefix(',').expect(line),
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_word = |c: char| c == '_' || c == ':' || c.is_ascii_alphanumeric();
    name.chars().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty()
}
