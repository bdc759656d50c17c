//! From the tree of values to a draft: what each key means, and which keys there are.
//!
//! A reader that finds a fault reports it and goes on with what else it can read, so that all faults of a policy come
//! to light at once. It returns `None` where a value is unusable; then there is an error in the report.

mod fields;
mod ladder;
mod rule;
mod victim;

use super::diagnostic::{Bad, Place, Report, plain};
use super::draft::{At, Draft, Exclude, Importance, Patterns};
use super::globs;
use super::model::{KillLimit, Mode};
use super::quoting;
use super::tree::{Kind, Node};
use super::values;
use super::words::mode_named;
use fields::Fields;
pub(super) use fields::Keys;
pub(super) use ladder::MOST_WORDS;
pub(super) use victim::MOST_RANK_KEYS;

const TOP: Keys = Keys {
    what: "the policy",
    known: &["version", "mode", "limits", "defaults", "exclude", "kill_one_in", "importance", "rules", "kernel", "systemd"],
    later: &["tenants", "kubernetes"],
};
const LIMITS: Keys = Keys { what: "`limits`", known: &["kills", "node"], later: &[] };
const DEFAULTS: Keys = Keys { what: "`defaults`", known: &["cooldown"], later: &[] };
const EXCLUDE: Keys = Keys { what: "an exclusion", known: &["group", "comm"], later: &["kubernetes"] };
const IMPORTANCE: Keys = Keys { what: "a line of importance", known: &["group", "value"], later: &["kubernetes"] };
const KERNEL: Keys = Keys { what: "`kernel`", known: &["oom_group", "hold"], later: &[] };
const SYSTEMD: Keys = Keys { what: "`systemd`", known: &["oomd_xattrs"], later: &[] };

/// The tables of keys, by what they are the keys of: the schema is made from them.
pub(super) struct Tables {
    pub top: &'static Keys,
    pub limits: &'static Keys,
    pub defaults: &'static Keys,
    pub exclude: &'static Keys,
    pub importance: &'static Keys,
    pub kernel: &'static Keys,
    pub systemd: &'static Keys,
    pub rule: &'static Keys,
    pub when: &'static Keys,
    pub only_if: &'static Keys,
    pub usage: &'static Keys,
    pub level: &'static Keys,
    pub below: &'static Keys,
    pub victim: &'static Keys,
    pub rung: &'static Keys,
    pub warn: &'static Keys,
    pub hook: &'static Keys,
    pub term: &'static Keys,
}

/// The tables that this reader goes by.
pub(super) fn tables() -> Tables {
    let [rule, when, only_if, usage, level, below] = rule::KEYS;
    let [victim] = victim::KEYS;
    let [rung, warn, hook, term] = ladder::KEYS;
    let (top, limits, defaults, exclude, importance) = (&TOP, &LIMITS, &DEFAULTS, &EXCLUDE, &IMPORTANCE);
    let (kernel, systemd) = (&KERNEL, &SYSTEMD);
    Tables {
        top,
        limits,
        defaults,
        exclude,
        importance,
        kernel,
        systemd,
        rule,
        when,
        only_if,
        usage,
        level,
        below,
        victim,
        rung,
        warn,
        hook,
        term,
    }
}

/// Reads one text into the draft.
pub(super) fn read(root: &Node, draft: &mut Draft, report: &mut Report) {
    let Some(fields) = Fields::open(root, &TOP, report) else { return };
    version(&fields, report);
    if let Some((at, value)) = fields.get("mode").and_then(|node| Some((node.at, mode(node, report)?))) {
        settle(&mut draft.mode, At::new(at, value), "mode", report);
    }
    if let Some(node) = fields.get("limits") {
        limits(node, draft, report);
    }
    if let Some(defaults) = fields.get("defaults").and_then(|node| Fields::open(node, &DEFAULTS, report))
        && let Some(node) = defaults.get("cooldown")
        && let Some(value) = scalar(node, values::duration, report)
    {
        settle(&mut draft.cooldown, At::new(node.at, value), "cooldown", report);
    }
    for node in entries(&fields, "exclude", report) {
        draft.exclude.extend(exclude(node, report));
    }
    if let Some(node) = fields.get("kill_one_in") {
        draft.kill_one_in.get_or_insert_default().extend(patterns(node, report).unwrap_or_default());
    }
    for node in entries(&fields, "importance", report) {
        draft.importance.extend(importance(node, report));
    }
    for node in entries(&fields, "rules", report) {
        draft.rule_count += 1;
        let rule = rule::rule(node, &mut draft.names, report);
        draft.rules.extend(rule);
    }
    if let Some(kernel) = fields.get("kernel").and_then(|node| Fields::open(node, &KERNEL, report)) {
        if let Some(node) = kernel.get("oom_group") {
            draft.oom_group.get_or_insert_default().extend(patterns(node, report).unwrap_or_default());
        }
        if let Some((at, value)) = kernel.get("hold").and_then(|node| Some((node.at, scalar(node, values::hold, report)?))) {
            settle(&mut draft.hold, At::new(at, value), "hold", report);
        }
    }
    if let Some(systemd) = fields.get("systemd").and_then(|node| Fields::open(node, &SYSTEMD, report))
        && let Some(node) = systemd.get("oomd_xattrs")
        && let Some(value) = truth(node, "oomd_xattrs", "with `false` systemd does not learn that a unit was killed for its memory", report)
    {
        settle(&mut draft.oomd_xattrs, At::new(node.at, value), "oomd_xattrs", report);
    }
}

fn version(fields: &Fields<'_>, report: &mut Report) {
    let Some(node) = fields.need("version", "begin every policy file with `version: 1`", report) else { return };
    match &node.kind {
        Kind::Bare { integer: Some(1), .. } => {}
        Kind::Bare { integer: Some(other), .. } => {
            report.error(node.at, format!("version {other} of the policy is not known here"), "this program reads `version: 1`");
        }
        _ => report.error(node.at, format!("the version is a number, not {}", node.describe()), "write `version: 1`"),
    }
}

/// The circuit breaker's limits: one of them or both.
fn limits(node: &Node, draft: &mut Draft, report: &mut Report) {
    let before = report.errors();
    let Some(fields) = Fields::open(node, &LIMITS, report) else { return };
    if fields.is_empty() && report.errors() == before {
        report.error(
            node.at,
            "`limits` sets no limit",
            "write for instance `limits: {kills: 5 per 10m, node: 20 per 10m}`; either may be left out",
        );
    }
    let mut limit = |key: &str, kept: &mut Option<At<KillLimit>>, what: &str| {
        let Some(node) = fields.get(key) else { return };
        if let Some(value) = scalar(node, values::kill_limit, report) {
            settle(kept, At::new(node.at, value), what, report);
        }
    };
    limit("kills", &mut draft.limit, "the limit of kills");
    limit("node", &mut draft.node_limit, "the limit of kills on the node");
}

/// Keeps a value that counts for the whole policy; two files may say the same, but nothing different.
fn settle<T: PartialEq>(kept: &mut Option<At<T>>, new: At<T>, what: &str, report: &mut Report) {
    match kept {
        Some(first) if first.value != new.value => {
            let elsewhere = format!("{}:{}", report.name(first.at.source), first.at.line);
            report.error(new.at, format!("{what} is set differently in {elsewhere}"), "it counts for all files together: set it once");
        }
        Some(_) => {}
        None => *kept = Some(new),
    }
}

/// The entries of a list that may be empty or missing.
fn entries<'n>(fields: &Fields<'n>, key: &str, report: &mut Report) -> &'n [Node] {
    match fields.get(key) {
        None | Some(Node { kind: Kind::Null, .. }) => &[],
        Some(Node { kind: Kind::List(items), .. }) => items,
        Some(node) => {
            report.error(node.at, format!("`{key}` is a list, not {}", node.describe()), "begin each entry on a line of its own with `- `");
            &[]
        }
    }
}

fn exclude(node: &Node, report: &mut Report) -> Option<At<Exclude>> {
    let Kind::Map(_) = node.kind else {
        return Some(At::new(node.at, Exclude { group: vec![pattern(node, report)?], comm: None }));
    };
    let before = report.errors();
    let fields = Fields::open(node, &EXCLUDE, report)?;
    if fields.is_empty() && report.errors() > before {
        return None;
    }
    let comm = fields.get("comm");
    let hint = match comm {
        Some(_) => "any process can take any name, so a comm counts only within a group: add `group: ...`",
        None => "add `group: ...`, the path or glob of what must live",
    };
    let group = fields.need("group", hint, report).and_then(|node| patterns(node, report));
    let comm = match comm {
        Some(node) => Some(comm_of(node, report)?),
        None => None,
    };
    Some(At::new(node.at, Exclude { group: group?, comm }))
}

fn comm_of(node: &Node, report: &mut Report) -> Option<(String, Box<[u8]>)> {
    let text = text(node, "a process's name", report)?;
    if let Some((at, bad)) = node.written.refusal("comm", text, node.at) {
        report.bad(at, bad);
        return None;
    }
    Some((text.to_owned(), good(node.at, values::comm(text), report)?))
}

fn importance(node: &Node, report: &mut Report) -> Option<At<Importance>> {
    let fields = Fields::open(node, &IMPORTANCE, report)?;
    let group = fields.need("group", "add `group: ...`, the path or glob that the value is for", report);
    let value = fields.need("value", "add `value: ...`, a whole number; the lowest dies first, 0 is what all others have", report);
    let group = group.and_then(|node| patterns(node, report));
    let value = value.and_then(|node| match node.kind {
        Kind::Bare { integer: Some(value), .. } => Some(value),
        _ => {
            report.error(
                node.at,
                format!("a value of importance is a whole number, not {}", node.describe()),
                "write for instance `value: -100`; the lowest dies first",
            );
            None
        }
    });
    Some(At::new(node.at, Importance { group: group?, value: value? }))
}

/// `enforce` or `observe`.
fn mode(node: &Node, report: &mut Report) -> Option<Mode> {
    match node.raw().and_then(mode_named) {
        Some(mode) => Some(mode),
        None => {
            report.error(
                node.at,
                format!("the mode is `enforce` or `observe`, not {}", node.describe()),
                "`enforce` carries verdicts out; `observe` records them and does nothing",
            );
            None
        }
    }
}

/// One glob, or a list of them.
fn patterns(node: &Node, report: &mut Report) -> Option<Patterns> {
    let Kind::List(items) = &node.kind else { return Some(vec![pattern(node, report)?]) };
    if items.is_empty() {
        report.error(node.at, "the list of globs is empty", "name at least one group, or leave the key out");
        return None;
    }
    let found: Vec<Option<At<String>>> = items.iter().map(|item| pattern(item, report)).collect();
    found.into_iter().collect()
}

fn pattern(node: &Node, report: &mut Report) -> Option<At<String>> {
    let hint = match node.kind {
        Kind::Map(_) | Kind::List(_) => quoting::BRACES,
        _ => "a glob begins with `/`, as in `/system.slice/*`",
    };
    let Kind::Text(text) = &node.kind else {
        report.error(node.at, format!("a glob is expected here, not {}", node.describe()), hint);
        return None;
    };
    if let Some((at, bad)) = node.written.refusal("glob", text, node.at) {
        report.bad(at, bad);
        return None;
    }
    match globs::parse(text) {
        Ok(_) => Some(At::new(node.at, text.clone())),
        Err(bad) => {
            report.bad(node.at, bad);
            None
        }
    }
}

/// `true` or `false`. Other YAML readers know more words for them, so these get a hint of their
/// own.
fn truth(node: &Node, key: &str, meaning: &str, report: &mut Report) -> Option<bool> {
    if let Kind::Bare { boolean: Some(value), .. } = node.kind {
        return Some(value);
    }
    let meant = match node.raw().map(str::to_ascii_lowercase).as_deref() {
        Some("yes" | "y" | "on" | "true" | "1") => Some(true),
        Some("no" | "n" | "off" | "false" | "0") => Some(false),
        _ => None,
    };
    let hint = meant.map_or_else(|| meaning.to_owned(), |meant| format!("write `{key}: {meant}`, without quotes: {meaning}"));
    report.error(node.at, format!("`{key}` is `true` or `false`, not {}", node.describe()), hint);
    None
}

/// A scalar that `read` understands.
fn scalar<T>(node: &Node, read: impl FnOnce(&str) -> Result<T, Bad>, report: &mut Report) -> Option<T> {
    let Some(raw) = node.raw() else {
        // What the value should have been is said by its own reader, asked with nothing.
        let hint = read("").err().map_or_else(|| "write a single value".to_owned(), |bad| bad.hint);
        report.error(node.at, format!("a single value is expected here, not {}", node.describe()), hint);
        return None;
    };
    good(node.at, read(raw), report)
}

/// A scalar that YAML takes for a text.
fn text<'n>(node: &'n Node, what: &str, report: &mut Report) -> Option<&'n str> {
    match &node.kind {
        Kind::Text(text) => Some(text),
        Kind::Bare { raw, .. } => {
            report.error(
                node.at,
                format!("{what} is expected here, not {}", node.describe()),
                format!("put it in quotes: \"{}\"", plain(raw)),
            );
            None
        }
        _ => {
            report.error(node.at, format!("{what} is expected here, not {}", node.describe()), "write a single word or a text in quotes");
            None
        }
    }
}

fn good<T>(at: Place, result: Result<T, Bad>, report: &mut Report) -> Option<T> {
    result.map_err(|bad| report.bad(at, bad)).ok()
}

#[cfg(test)]
mod tests;
