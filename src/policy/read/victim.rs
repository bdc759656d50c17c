//! Who may die: `victim`.

use super::super::diagnostic::Report;
use super::super::draft::{Among, Victim};
use super::super::model::{RankBy, RankKey};
use super::super::tree::{Kind, Node};
use super::super::values;
use super::fields::{Fields, Keys};
use super::{patterns, scalar, truth};
use crate::units::Bytes;

const VICTIM: Keys = Keys { what: "`victim`", known: &["among", "at_least", "or_largest", "rank"], later: &["kubernetes"] };
const AMONG_LATER: Keys = Keys { what: "`among`", known: &[], later: &["kubernetes"] };

/// The one that is for good, for the schema.
pub(super) const KEYS: [&Keys; 1] = [&VICTIM];

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
    let or_largest = fields
        .get("or_largest")
        .map_or(Some(false), |node| truth(node, "or_largest", "`true` takes the largest even if all are below `at_least`", report));
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
