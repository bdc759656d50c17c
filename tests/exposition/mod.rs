//! A strict reader of Prometheus' text format 0.0.4, and of the rules of good names that `promtool check metrics` knows.
//! Stricter than scrapers: HELP, TYPE and samples of a family stand together, in this order, each exactly once.

use std::collections::{BTreeMap, BTreeSet};

/// One sample: its full name, its labels (unescaped), its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Families by name: the type and the samples.
pub type Families = BTreeMap<String, (String, Vec<Sample>)>;

/// Reads `text`, or says what is wrong with it.
pub fn read(text: &str) -> Result<Families, String> {
    if !text.ends_with('\n') {
        return Err("the last line has no newline".into());
    }
    let mut families = Families::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = meta(line, "HELP")?;
        check_name(name, ":")?;
        if help.is_empty() {
            return Err(format!("{name} has no help"));
        }
        let (again, kind) = meta(lines.next().unwrap_or_default(), "TYPE")?;
        if again != name {
            return Err(format!("TYPE of {again} after HELP of {name}"));
        }
        let mut samples = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            samples.push(sample(line)?);
        }
        check_family(name, kind, &samples)?;
        if families.insert(name.to_owned(), (kind.to_owned(), samples)).is_some() {
            return Err(format!("{name} comes twice"));
        }
    }
    Ok(families)
}

fn meta<'a>(line: &'a str, key: &str) -> Result<(&'a str, &'a str), String> {
    let rest = line.strip_prefix("# ").and_then(|rest| rest.strip_prefix(key)).and_then(|rest| rest.strip_prefix(' '));
    rest.and_then(|rest| rest.split_once(' ')).ok_or_else(|| format!("{key} expected: {line:?}"))
}

fn check_name(name: &str, besides: &str) -> Result<(), String> {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let sound = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || besides.contains(c));
    if begins && sound { Ok(()) } else { Err(format!("bad name {name:?}")) }
}

fn sample(line: &str) -> Result<Sample, String> {
    let bad = |why: &str| format!("{why}: {line:?}");
    let end = line.find(['{', ' ']).ok_or_else(|| bad("no value"))?;
    let (name, mut rest) = line.split_at(end);
    check_name(name, ":")?;
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or_else(|| bad("no label"))?;
            check_name(label, "")?;
            let (value, after) = label_value(after).ok_or_else(|| bad("bad label value"))?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err(bad("a label twice"));
            }
            if let Some(after) = after.strip_prefix('}') {
                rest = after;
                break;
            }
            rest = after.strip_prefix(',').ok_or_else(|| bad("no comma"))?;
        }
    }
    let value = rest.strip_prefix(' ').ok_or_else(|| bad("no space before the value"))?;
    let value = value.parse().map_err(|_| bad("no number"))?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// The value up to the closing quote, unescaped, and what follows the quote.
fn label_value(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                c @ ('\\' | '"') => value.push(c),
                _ => return None,
            },
            c if c.is_control() => return None,
            c => value.push(c),
        }
    }
    None
}

fn check_family(name: &str, kind: &str, samples: &[Sample]) -> Result<(), String> {
    let expect = |holds: bool, why: &str| if holds { Ok(()) } else { Err(format!("{name}: {why}")) };
    expect(!samples.is_empty(), "no samples")?;
    expect((kind == "counter") == name.ends_with("_total"), "counters end in _total, and nothing else does")?;
    for unit in ["milliseconds", "microseconds", "kilobytes", "minutes", "_ms", "_kb", "percent"] {
        expect(!name.contains(unit), "not a base unit")?;
    }
    let mut seen = BTreeSet::new();
    for sample in samples {
        let suffix = sample.name.strip_prefix(name).ok_or_else(|| format!("{} among the samples of {name}", sample.name))?;
        let allowed: &[&str] = match kind {
            "counter" | "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => return Err(format!("{name}: type {kind}")),
        };
        expect(allowed.contains(&suffix), "a sample with a foreign name")?;
        expect((suffix == "_bucket") == sample.labels.contains_key("le"), "le belongs to buckets")?;
        expect(seen.insert((sample.name.clone(), format!("{:?}", sample.labels))), "a series twice")?;
        expect(kind == "gauge" || (sample.value.is_finite() && sample.value >= 0.0), "a sum below zero, or none")?;
    }
    if kind == "histogram" { check_histogram(name, samples) } else { Ok(()) }
}

fn check_histogram(name: &str, samples: &[Sample]) -> Result<(), String> {
    let mut buckets: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    let mut whole = BTreeSet::new();
    for sample in samples {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le");
        let (last_bound, last) = buckets.entry(format!("{labels:?}")).or_insert((f64::NEG_INFINITY, 0.0));
        if let Some(bound) = bound {
            let bound: f64 = bound.parse().map_err(|_| format!("{name}: le {bound}"))?;
            if bound <= *last_bound || sample.value < *last {
                return Err(format!("{name}: buckets out of order at le {bound}"));
            }
            (*last_bound, *last) = (bound, sample.value);
        } else if sample.name.ends_with("_count") {
            if *last_bound != f64::INFINITY || *last != sample.value {
                return Err(format!("{name}: the count is not that of le +Inf"));
            }
            whole.insert(format!("{labels:?}"));
        }
    }
    if whole.len() == buckets.len() { Ok(()) } else { Err(format!("{name}: a histogram without its count")) }
}
