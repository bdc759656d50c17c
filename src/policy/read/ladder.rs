//! How the victim dies: `then`.

use std::sync::Arc;
use std::time::Duration;

use super::super::diagnostic::{Bad, Report, shown};
use super::super::draft::At;
use super::super::model::{Hook, KillWhat, Rung, WarnSignal};
use super::super::tree::{Kind, Node};
use super::super::values;
use super::fields::{Fields, Keys, single};
use super::{good, scalar, text};

/// In the order in which they are climbed; only the last must be there.
const RUNG: Keys = Keys { what: "an entry of `then`", known: &["warn", "hook", "term", "kill"], later: &[] };
const WARN: Keys = Keys { what: "`warn`", known: &["signal", "wait"], later: &[] };
const HOOK: Keys = Keys { what: "`hook`", known: &["exec", "timeout"], later: &[] };
const TERM: Keys = Keys { what: "`term`", known: &["wait"], later: &[] };

/// All of them, for the schema.
pub(super) const KEYS: [&Keys; 4] = [&RUNG, &WARN, &HOOK, &TERM];

/// How many words the command of a hook may have.
pub(in crate::policy) const MOST_WORDS: usize = 64;
/// How many bytes each of them may have.
const LONGEST_WORD: usize = 4096;

const FORM: &str = "the ladder goes `- warn: {signal: SIGUSR1, wait: 1s}`, `- hook: {exec: [/usr/local/bin/save-state], timeout: 500ms}`, `- term: {wait: 3s}`, then `- kill: group` or `- kill: process`; only the last one must be there";

/// Reads `then`.
pub(super) fn ladder(node: &Node, report: &mut Report) -> Option<Vec<Rung>> {
    let Kind::List(items) = &node.kind else {
        report.error(node.at, format!("`then` is a list, not {}", node.describe()), FORM);
        return None;
    };
    let before = report.errors();
    let mut rungs: Vec<At<Rung>> = Vec::with_capacity(items.len());
    for item in items {
        let Some(rung) = rung(item, report) else { continue };
        let place = place(&rung);
        let highest = rungs.iter().map(|earlier| self::place(&earlier.value)).max();
        if rungs.iter().any(|earlier| self::place(&earlier.value) == place) {
            report.error(item.at, format!("a second `{}`", name(place)), FORM);
        } else if let Some(highest) = highest.filter(|highest| *highest > place) {
            let why = if highest == RUNG.known.len() - 1 { "when nobody is left to hear it" } else { "which is the harsher one" };
            report.error(item.at, format!("`{}` comes after `{}`, {why}", name(place), name(highest)), FORM);
        }
        rungs.push(At::new(item.at, rung));
    }
    if report.errors() == before && !rungs.iter().any(|rung| matches!(rung.value, Rung::Kill(_))) {
        report.error(node.at, "the ladder has no `kill` at its end", FORM);
    }
    (report.errors() == before).then(|| rungs.into_iter().map(|rung| rung.value).collect())
}

/// Where a rung stands in the order.
fn place(rung: &Rung) -> usize {
    match rung {
        Rung::Warn { .. } => 0,
        Rung::Hook(_) => 1,
        Rung::Term { .. } => 2,
        Rung::Kill(_) => 3,
    }
}

fn name(place: usize) -> &'static str {
    RUNG.known.get(place).copied().unwrap_or_default()
}

fn rung(node: &Node, report: &mut Report) -> Option<Rung> {
    if !matches!(node.kind, Kind::Map(_)) {
        report.error(node.at, format!("an entry of `then` is `term: ...` or `kill: ...`, not {}", node.describe()), FORM);
        return None;
    }
    let (key, node) = single(node, &RUNG, report)?;
    match key {
        "kill" => {
            let what = |text: &str| match text {
                "group" => Ok(KillWhat::Group),
                "process" => Ok(KillWhat::Process),
                other => Err(values::unknown("thing to kill", other, ["group", "process"].into_iter())),
            };
            scalar(node, what, report).map(Rung::Kill)
        }
        "warn" => warn(node, report),
        "hook" => hook(node, report),
        _ => {
            must_be_a_mapping(node, "`term` says how long to wait", "write `term: {wait: 3s}`", report)?;
            let fields = Fields::open(node, &TERM, report)?;
            let wait = fields.need("wait", "write `term: {wait: 3s}`: the time in which the processes may end by themselves", report)?;
            time(wait, "give the processes some time, such as `wait: 3s`, or leave `term` out", report).map(|wait| Rung::Term { wait })
        }
    }
}

fn must_be_a_mapping(node: &Node, what: &str, form: &str, report: &mut Report) -> Option<()> {
    if !matches!(node.kind, Kind::Map(_)) {
        report.error(node.at, format!("{what}, it is not {}", node.describe()), form);
        return None;
    }
    Some(())
}

/// A time above zero.
fn time(node: &Node, hint: &str, report: &mut Report) -> Option<Duration> {
    let above_zero = |text: &str| match values::duration(text)? {
        Duration::ZERO => Err(Bad::new("no time to wait", hint)),
        time => Ok(time),
    };
    scalar(node, above_zero, report)
}

fn warn(node: &Node, report: &mut Report) -> Option<Rung> {
    must_be_a_mapping(node, "`warn` says how, and how long to wait", "write `warn: {signal: SIGUSR1, wait: 1s}`", report)?;
    let fields = Fields::open(node, &WARN, report)?;
    let wait = fields.need("wait", "write `warn: {signal: SIGUSR1, wait: 1s}`: the time in which the processes may free memory", report);
    let wait = wait.and_then(|node| time(node, "give the processes some time, such as `wait: 1s`, or leave `warn` out", report));
    let signal: Option<Option<WarnSignal>> =
        fields.get("signal").map_or(Some(None), |node| scalar(node, values::warn_signal, report).map(Some));
    Some(Rung::Warn { signal: signal?, wait: wait? })
}

fn hook(node: &Node, report: &mut Report) -> Option<Rung> {
    const HOOK_FORM: &str = "write `hook: {exec: [/usr/local/bin/save-state], timeout: 500ms}`";
    must_be_a_mapping(node, "`hook` says what to start, and for how long", HOOK_FORM, report)?;
    let fields = Fields::open(node, &HOOK, report)?;
    let exec = fields.need("exec", HOOK_FORM, report).and_then(|node| exec(node, report));
    let timeout = fields.need("timeout", "write how long the hook may take, such as `timeout: 500ms`; it is killed afterwards", report);
    let timeout = timeout.and_then(|node| time(node, "give the hook some time, such as `timeout: 500ms`, or leave `hook` out", report));
    Some(Rung::Hook(Arc::new(Hook { exec: exec?, timeout: timeout? })))
}

fn exec(node: &Node, report: &mut Report) -> Option<Vec<String>> {
    const LIST: &str =
        "name the program and its arguments one by one, as in `exec: [/usr/local/bin/save-state, --quick]`; no shell reads them";
    let Kind::List(items) = &node.kind else {
        report.error(node.at, format!("`exec` is a list, not {}", node.describe()), LIST);
        return None;
    };
    if items.is_empty() || items.len() > MOST_WORDS {
        report.error(
            node.at,
            format!("`exec` has {} words", items.len()),
            format!("name 1 to {MOST_WORDS}: the program, then its arguments"),
        );
        return None;
    }
    let words: Vec<Option<String>> = items
        .iter()
        .enumerate()
        .map(|(at, item)| {
            let word = text(item, "a word of the command", report)?;
            good(item.at, self::word(word, at == 0), report)?;
            Some(word.to_owned())
        })
        .collect();
    words.into_iter().collect()
}

/// Whether a text can be a word of a command.
fn word(text: &str, is_program: bool) -> Result<(), Bad> {
    if text.contains('\0') || text.len() > LONGEST_WORD {
        return Err(Bad::new(
            format!("{} can't be a word of a command", shown(text)),
            format!("a word has up to {LONGEST_WORD} bytes, and no NUL"),
        ));
    }
    if is_program && (!text.starts_with('/') || text.ends_with('/')) {
        return Err(Bad::new(
            format!("the program {} has no absolute path", shown(text)),
            "name it whole, such as `/usr/local/bin/save-state`: no search path is gone through when memory is short",
        ));
    }
    Ok(())
}
