//! One rule: its name, what starts a judgement, and what must hold besides.

use std::time::Duration;

use super::super::diagnostic::{Report, shown};
use super::super::draft::{At, Patterns, Rule, Victim};
use super::super::model::{Condition, KillWhat, Level, Rung, Trigger, UsageOf, UsageTest};
use super::super::tree::{Kind, Node};
use super::super::values::{self, Quantum};
use super::super::words::{USAGE_OF, usage_of_named};
use super::fields::{Fields, Keys, single};
use super::{good, mode, patterns, scalar, text, truth};
use super::{ladder, victim};

const RULE: Keys = Keys {
    what: "a rule",
    known: &["name", "mode", "cooldown", "watch", "when", "only_if", "victim", "spare_unkillable", "then"],
    later: &["limits"],
};
const WHEN: Keys = Keys { what: "an entry of `when`", known: &["psi", "event", "usage", "available", "swap_free", "lms"], later: &[] };
const ONLY_IF: Keys = Keys { what: "an entry of `only_if`", known: &["usage", "available", "swap_free"], later: &[] };
const USAGE: Keys = Keys { what: "`usage`", known: &["above", "of", "for"], later: &[] };
const LEVEL: Keys = Keys { what: "`available` or `swap_free`", known: &["below", "for"], later: &[] };
const BELOW: Keys = Keys { what: "`below`", known: &["share", "at_most"], later: &[] };

/// All of them, for the schema.
pub(super) const KEYS: [&Keys; 6] = [&RULE, &WHEN, &ONLY_IF, &USAGE, &LEVEL, &BELOW];

/// Reads a rule; its name goes to `names` even if the rest is of no use.
pub(super) fn rule(node: &Node, names: &mut Vec<At<String>>, report: &mut Report) -> Option<Rule> {
    let fields = Fields::open(node, &RULE, report)?;
    let name = fields.need("name", "add `name: ...`; metrics and the journal speak of the rule by it", report);
    let name = name.and_then(|node| Some(At::new(node.at, rule_name(node, names, report)?)));
    let watch = fields.need("watch", "add `watch: ...`, the path or glob of the groups that the rule is about; `/` is the node", report);
    let watch = watch.and_then(|node| patterns(node, report));
    let when = fields.need("when", "add what starts a judgement, such as `when: [psi: full 100ms/500ms]`", report);
    let when = when.and_then(|node| each(node, "when", report, trigger));
    if let (Some(watch), Some(when)) = (&watch, &when) {
        about_the_node(watch, when, report);
    }
    let only_if = match fields.get("only_if") {
        Some(node) => each(node, "only_if", report, condition),
        None => Some(Vec::new()),
    };
    // An absent key is fine, a faulty one is not: the outer `Option` says whether all went well.
    let mode = fields.get("mode").map_or(Some(None), |node| mode(node, report).map(Some));
    let cooldown = fields.get("cooldown").map_or(Some(None), |node| scalar(node, values::duration, report).map(Some));
    let victim = match fields.get("victim") {
        Some(node) => victim::victim(node, report).map(|victim| At::new(node.at, victim)),
        None => Some(At::new(node.at, Victim::Subject)),
    };
    let spare_unkillable = fields.get("spare_unkillable").map_or(Some(true), |node| {
        truth(node, "spare_unkillable", "`false` lets a group die that holds a process with oom_score_adj -1000", report)
    });
    let ladder = match fields.get("then") {
        Some(node) => ladder::ladder(node, report),
        None => Some(vec![Rung::Kill(KillWhat::Group)]),
    };
    Some(Rule {
        name: name?,
        mode: mode?,
        cooldown: cooldown?,
        watch: watch?,
        when: when?,
        only_if: only_if?,
        victim: victim?,
        ladder: ladder?,
        spare_unkillable: spare_unkillable?,
    })
}

/// The kernel module's signal is about the node, which only the root stands for.
fn about_the_node(watch: &Patterns, when: &[At<Trigger>], report: &mut Report) {
    if watch.iter().all(|pattern| pattern.value == "/") {
        return;
    }
    for trigger in when.iter().filter(|trigger| matches!(trigger.value, Trigger::Lms(_))) {
        report.error(
            trigger.at,
            "`lms` tells of the whole node, and this rule watches other groups",
            "write `watch: /` in a rule of its own, and say who may die, as in `victim: {among: [/batch.slice/**]}`",
        );
    }
}

fn rule_name(node: &Node, names: &mut Vec<At<String>>, report: &mut Report) -> Option<String> {
    let name = text(node, "a name", report)?;
    good(node.at, values::name(name), report)?;
    if let Some(first) = names.iter().find(|first| first.value == name) {
        let elsewhere = format!("{}:{}", report.name(first.at.source), first.at.line);
        report.error(node.at, format!("there is a rule {} already, in {elsewhere}", shown(name)), "give this one a name of its own");
        return None;
    }
    names.push(At::new(node.at, name.to_owned()));
    Some(name.to_owned())
}

/// The entries of `when` or `only_if`.
fn each<T>(node: &Node, key: &str, report: &mut Report, read: impl Fn(&Node, &mut Report) -> Option<T>) -> Option<Vec<At<T>>> {
    let Kind::List(items) = &node.kind else {
        report.error(node.at, format!("`{key}` is a list, not {}", node.describe()), "begin each entry on a line of its own with `- `");
        return None;
    };
    if items.is_empty() {
        let hint = if key == "when" {
            "name at least one thing that starts a judgement, such as `- psi: full 100ms/500ms`"
        } else {
            "leave `only_if` out if nothing else need hold"
        };
        report.error(node.at, format!("`{key}` is empty"), hint);
        return None;
    }
    let found: Vec<Option<At<T>>> = items.iter().map(|item| read(item, report).map(|value| At::new(item.at, value))).collect();
    found.into_iter().collect()
}

fn trigger(node: &Node, report: &mut Report) -> Option<Trigger> {
    let (key, node) = single(node, &WHEN, report)?;
    match key {
        "psi" => scalar(node, values::psi, report).map(Trigger::Psi),
        "event" => scalar(node, values::event, report).map(Trigger::Event),
        "lms" => scalar(node, values::lms, report).map(Trigger::Lms),
        "usage" => usage(node, report).map(|(test, time)| Trigger::Usage(test, time.map_or(Duration::ZERO, |time| time.value))),
        other => {
            let (level, time) = level(node, other, report)?;
            let time = time.map_or(Duration::ZERO, |time| time.value);
            Some(if other == "available" { Trigger::Available(level, time) } else { Trigger::SwapFree(level, time) })
        }
    }
}

fn condition(node: &Node, report: &mut Report) -> Option<Condition> {
    if let Kind::Map(entries) = &node.kind
        && let Some((key, _)) = entries.iter().find(|(key, _)| matches!(key.name.as_str(), "psi" | "event" | "lms"))
    {
        let message = format!("{} starts a judgement, it is no condition", shown(&key.name));
        report.error(key.at, message, "put it under `when`; conditions are `usage`, `available` and `swap_free`");
        return None;
    }
    let (key, node) = single(node, &ONLY_IF, report)?;
    let (condition, time) = match key {
        "usage" => usage(node, report).map(|(test, time)| (Condition::Usage(test), time))?,
        "available" => level(node, key, report).map(|(level, time)| (Condition::Available(level), time))?,
        _ => level(node, key, report).map(|(level, time)| (Condition::SwapFree(level), time))?,
    };
    if let Some(time) = time {
        report.error(
            time.at,
            "`for` has no meaning in `only_if`",
            "conditions are looked at once, when something of `when` has happened: leave it out",
        );
        return None;
    }
    Some(condition)
}

type Lasting = Option<At<Duration>>;

/// The optional `for`. The outer `Option` says whether it could be read.
fn lasting(fields: &Fields<'_>, report: &mut Report) -> Option<Lasting> {
    let Some(node) = fields.get("for") else { return Some(None) };
    scalar(node, values::duration, report).map(|time| Some(At::new(node.at, time)))
}

fn usage(node: &Node, report: &mut Report) -> Option<(UsageTest, Lasting)> {
    if matches!(node.kind, Kind::Text(_) | Kind::Bare { .. }) {
        report.error(
            node.at,
            format!("`usage` has keys, it is not just {}", node.describe()),
            "write `usage: {above: 95%, of: max}` or `usage: {above: 512MiB}`",
        );
        return None;
    }
    let fields = Fields::open(node, &USAGE, report)?;
    let above = fields.need("above", "write `usage: {above: 95%, of: max}` or `usage: {above: 512MiB}`", report);
    let above = above.and_then(|node| scalar(node, values::quantum, report));
    let time = lasting(&fields, report);
    let of = match fields.get("of") {
        Some(node) => Some((node, of(node, report)?)),
        None => None,
    };
    let test = match (above?, of) {
        (Quantum::Share(share), of) => UsageTest::Share(share, of.map_or(UsageOf::Max, |(_, of)| of)),
        (Quantum::Amount(bytes), None) => UsageTest::Amount(bytes),
        (Quantum::Amount(_), Some((node, _))) => {
            report.error(node.at, "`of` goes with a share, and `above` is an amount", "write `above: 95%`, or leave `of` out");
            return None;
        }
    };
    Some((test, time?))
}

fn of(node: &Node, report: &mut Report) -> Option<UsageOf> {
    let read = |text: &str| usage_of_named(text).ok_or_else(|| values::unknown("whole", text, USAGE_OF.iter().map(|(name, _)| *name)));
    scalar(node, read, report)
}

fn level(node: &Node, key: &str, report: &mut Report) -> Option<(Level, Lasting)> {
    let form = format!("write `{key}: {{below: 5%}}`, `{key}: {{below: 512MiB}}` or `{key}: {{below: {{share: 5%, at_most: 1GiB}}}}`");
    if matches!(node.kind, Kind::Text(_) | Kind::Bare { .. }) {
        report.error(node.at, format!("`{key}` has keys, it is not just {}", node.describe()), form);
        return None;
    }
    let fields = Fields::open(node, &LEVEL, report)?;
    let below = fields.need("below", &form, report).and_then(|node| below(node, &form, report));
    let time = lasting(&fields, report);
    Some((below?, time?))
}

fn below(node: &Node, form: &str, report: &mut Report) -> Option<Level> {
    let Kind::Map(_) = node.kind else { return scalar(node, values::quantum, report).map(Level::from) };
    let fields = Fields::open(node, &BELOW, report)?;
    let share = fields.need("share", form, report).and_then(|node| scalar(node, values::share, report));
    let at_most = fields.need("at_most", form, report).and_then(|node| {
        let amount = |text: &str| match values::quantum(text)? {
            Quantum::Amount(bytes) => Ok(bytes),
            Quantum::Share(_) => values::bytes(text),
        };
        scalar(node, amount, report)
    });
    Some(Level { share: Some(share?), at_most: Some(at_most?) })
}
