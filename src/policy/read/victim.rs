//! Who may die, and how: `victim` and `then`.

use std::time::Duration;

use super::super::diagnostic::{Bad, Report};
use super::super::draft::{Among, At, Victim};
use super::super::model::{KillWhat, RankBy, RankKey, Rung};
use super::super::tree::{Kind, Node};
use super::super::values;
use super::fields::{Fields, Keys};
use super::rule::single;
use super::{patterns, scalar};
use crate::units::Bytes;

const VICTIM: Keys = Keys { what: "`victim`", known: &["among", "at_least", "or_largest", "rank"], later: &["kubernetes"] };
const AMONG_LATER: Keys = Keys { what: "`among`", known: &[], later: &["kubernetes"] };
const RUNG: Keys = Keys { what: "an entry of `then`", known: &["term", "kill"], later: &["warn", "hook"] };
const TERM: Keys = Keys { what: "`term`", known: &["wait"], later: &[] };

/// All that are for good, for the schema.
pub(super) const KEYS: [&Keys; 3] = [&VICTIM, &RUNG, &TERM];

/// How many rank keys a rule may have: a verdict records as many.
pub(in crate::policy) const MOST_RANK_KEYS: usize = 4;
/// What is not worth killing, where the policy does not say.
const AT_LEAST: Bytes = Bytes(1 << 20);

/// Reads `victim`.
pub(super) fn victim(node: &Node, report: &mut Report) -> Option<Victim> {
    match &node.kind {
        Kind::Text(text) if text == "subject" => Some(Victim::Subject),
        Kind::Map(_) => among(node, report).map(Victim::Among),
        _ => {
            report.error(
                node.at,
                format!("a victim is `subject` or a mapping with `among`, not {}", node.describe()),
                "write `victim: subject` for the group in trouble itself, or `victim: {among: [/batch.slice/**]}`",
            );
            None
        }
    }
}

fn among(node: &Node, report: &mut Report) -> Option<Among> {
    let fields = Fields::open(node, &VICTIM, report)?;
    let named =
        fields.need("among", "add `among: ...`: globs whose leaves are the candidates, or `leaves` for those below the subject", report);
    let groups = named.and_then(|node| match &node.kind {
        Kind::Text(text) if text == "leaves" => Some(None),
        Kind::Map(entries) if entries.iter().any(|(key, _)| AMONG_LATER.later.contains(&key.name.as_str())) => {
            Fields::open(node, &AMONG_LATER, report);
            None
        }
        _ => patterns(node, report).map(Some),
    });
    let at_least = fields.get("at_least").map_or(Some(AT_LEAST), |node| scalar(node, values::bytes, report));
    let or_largest = fields.get("or_largest").map_or(Some(false), |node| match node.kind {
        Kind::Bare { boolean: Some(value), .. } => Some(value),
        _ => {
            report.error(
                node.at,
                format!("`or_largest` is `true` or `false`, not {}", node.describe()),
                "`true` takes the largest even if all are below `at_least`",
            );
            None
        }
    });
    let rank = fields.get("rank").map_or(Some(vec![RankBy { key: RankKey::Usage, within: None }]), |node| rank(node, report));
    Some(Among { groups: groups?, at_least: at_least?, or_largest: or_largest?, rank: rank? })
}

fn rank(node: &Node, report: &mut Report) -> Option<Vec<RankBy>> {
    let Kind::List(items) = &node.kind else { return scalar(node, values::rank, report).map(|key| vec![key]) };
    if items.is_empty() || items.len() > MOST_RANK_KEYS {
        report.error(
            node.at,
            format!("`rank` has {} keys", items.len()),
            format!("name 1 to {MOST_RANK_KEYS}, such as `rank: [usage within 10%, age]`"),
        );
        return None;
    }
    let mut found: Vec<Option<RankBy>> = Vec::with_capacity(items.len());
    for item in items {
        let key = scalar(item, values::rank, report);
        if key.is_some_and(|key| found.iter().flatten().any(|earlier| earlier.key == key.key)) {
            report.error(
                item.at,
                format!("the rank key {} stands here a second time", item.describe()),
                "the first one decides already: take this one out",
            );
        }
        found.push(key);
    }
    found.into_iter().collect()
}

/// Reads `then`.
pub(super) fn ladder(node: &Node, report: &mut Report) -> Option<Vec<Rung>> {
    const FORM: &str = "the ladder goes `- term: {wait: 3s}`, then `- kill: group` or `- kill: process`; only the last one must be there";
    let Kind::List(items) = &node.kind else {
        report.error(node.at, format!("`then` is a list, not {}", node.describe()), FORM);
        return None;
    };
    let before = report.errors();
    let mut rungs: Vec<At<Rung>> = Vec::with_capacity(items.len());
    for item in items {
        let Some(rung) = rung(item, FORM, report) else { continue };
        let is_kill = matches!(rung, Rung::Kill(_));
        let same = rungs.iter().any(|earlier| matches!(earlier.value, Rung::Kill(_)) == is_kill);
        if same {
            report.error(item.at, format!("a second `{}`", if is_kill { "kill" } else { "term" }), FORM);
        } else if rungs.iter().any(|earlier| matches!(earlier.value, Rung::Kill(_))) {
            report.error(item.at, "`term` comes after `kill`, when nobody is left to hear it", FORM);
        }
        rungs.push(At::new(item.at, rung));
    }
    if report.errors() == before && !rungs.iter().any(|rung| matches!(rung.value, Rung::Kill(_))) {
        report.error(node.at, "the ladder has no `kill` at its end", FORM);
    }
    (report.errors() == before).then(|| rungs.into_iter().map(|rung| rung.value).collect())
}

fn rung(node: &Node, form: &str, report: &mut Report) -> Option<Rung> {
    if !matches!(node.kind, Kind::Map(_)) {
        report.error(node.at, format!("an entry of `then` is `term: ...` or `kill: ...`, not {}", node.describe()), form);
        return None;
    }
    let (key, node) = single(node, &RUNG, report)?;
    if key == "kill" {
        let what = |text: &str| match text {
            "group" => Ok(KillWhat::Group),
            "process" => Ok(KillWhat::Process),
            other => Err(values::unknown("thing to kill", other, ["group", "process"].into_iter())),
        };
        return scalar(node, what, report).map(Rung::Kill);
    }
    if !matches!(node.kind, Kind::Map(_)) {
        report.error(node.at, format!("`term` says how long to wait, it is not {}", node.describe()), "write `term: {wait: 3s}`");
        return None;
    }
    let fields = Fields::open(node, &TERM, report)?;
    let wait = fields.need("wait", "write `term: {wait: 3s}`: the time in which the processes may end by themselves", report)?;
    let above_zero = |text: &str| match values::duration(text)? {
        Duration::ZERO => Err(Bad::new("no time to wait", "give the processes some time, such as `wait: 3s`, or leave `term` out")),
        time => Ok(time),
    };
    scalar(wait, above_zero, report).map(|wait| Rung::Term { wait })
}
