//! What a sound policy probably does not mean: warnings, never refusals.
//!
//! Only what the text alone decides. Whether a group exists, or has a limit, is for the commands that see a machine.

use super::diagnostic::{Place, Report, shown};
use super::draft::{At, Draft, Patterns, Rule, Victim};
use super::model::{Condition, EventKind, KillWhat, LmsLevel, Psi, Rung, Trigger, UsageOf, UsageTest};
use super::over::Over;
use super::pattern;
use super::slices;
use crate::units::Share;

/// Adds warnings to the report.
pub(super) fn lint(draft: &Draft, report: &mut Report) {
    if draft.rule_count == 0 {
        report.warning(
            Place::start_of(0),
            "there are no rules, so nothing will ever be done",
            "add `rules:`, or take a ready policy as a start",
        );
    }
    let all = draft.exclude.iter().map(|entry| &entry.value.group).chain(draft.importance.iter().map(|entry| &entry.value.group));
    for patterns in all.chain(draft.rules.iter().map(|rule| &rule.watch)).chain(&draft.oom_group).chain(&draft.kill_one_in) {
        mounted(patterns, report);
        misplaced(patterns, report);
    }
    for pattern in draft.oom_group.iter().flatten().filter(|pattern| pattern.value == "/") {
        report.warning(
            pattern.at,
            "the root has no memory.oom.group",
            "name the groups below it that should die as a whole, such as `/tenants.slice/*`",
        );
    }
    for pattern in draft.kill_one_in.iter().flatten().filter(|pattern| pattern.value == "/") {
        report.warning(
            pattern.at,
            "`kill_one_in` covers everything below what it names, so with `/` no rule kills a whole group any more",
            "name the groups that are no unit, such as `/user.slice/user-*.slice/session-*.scope`; where a rule shall kill one process everywhere, end its ladder with `kill: process`",
        );
    }
    hold(draft, report);
    limits(draft, report);
    shadowed_importance(draft, report);
    // Exclusions by comm depend on what runs: nothing is known of them here.
    let exclude = draft.exclude.iter().filter(|entry| entry.value.comm.is_none()).flat_map(|entry| &entry.value.group);
    let exclude: Vec<Over<'_>> = exclude.map(|pattern| Over::new(&pattern.value)).collect();
    for pattern in draft.oom_group.iter().flatten().filter(|pattern| covered(&exclude, pattern)) {
        report.warning(
            pattern.at,
            format!("exclusions cover all that {} names, so memory.oom.group is never set there", shown(&pattern.value)),
            "leave it out of `oom_group`, or out of `exclude`",
        );
    }
    let one: Vec<Over<'_>> = draft.kill_one_in.iter().flatten().map(|pattern| Over::new(&pattern.value)).collect();
    for pattern in draft.oom_group.iter().flatten().filter(|pattern| !covered(&exclude, pattern) && covered(&one, pattern)) {
        report.warning(
            pattern.at,
            format!("`kill_one_in` covers all that {} names, so memory.oom.group is never set there", shown(&pattern.value)),
            "leave it out of `oom_group`, or out of `kill_one_in`",
        );
    }
    for rule in &draft.rules {
        let root_only = rule.watch.iter().all(|pattern| pattern.value == "/");
        triggers(rule, root_only, report);
        conditions(rule, root_only, report);
        victims(rule, root_only, &exclude, report);
        vain_warning(rule, report);
        swap_alone(rule, report);
        inner_subjects(rule, report);
        services_by_term(rule, &exclude, report);
    }
}

/// Paths begin at the cgroup root, not at the root of the file system.
fn mounted(patterns: &Patterns, report: &mut Report) {
    const MOUNT: &str = "/sys/fs/cgroup";
    for pattern in patterns {
        if let Some(rest) = pattern.value.strip_prefix(MOUNT).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            let meant = if rest.is_empty() { "/" } else { rest };
            let message = format!("{} can never match: paths are counted from the cgroup root", shown(&pattern.value));
            report.warning(pattern.at, message, format!("write {}", shown(meant)));
        }
    }
}

/// Units are named as if they stood at the top; and spaces that somebody put in quotes.
fn misplaced(patterns: &Patterns, report: &mut Report) {
    for pattern in patterns {
        if let Some(place) = slices::usual_place(&pattern.value) {
            report.warning(
                pattern.at,
                format!(
                    "{} names units at the top, where a machine with systemd has nothing but slices and `init.scope`",
                    shown(&pattern.value)
                ),
                format!("write {}, if that is meant; `systemd-cgls` shows where a unit stands", shown(&place)),
            );
        }
        if pattern.value.ends_with(char::is_whitespace) {
            report.warning(
                pattern.at,
                format!("the glob {} ends with a space, as hardly any group's name does", shown(&pattern.value)),
                "take the space out of the quotes",
            );
        }
    }
}

/// Time that the kernel's killer would wait for nobody.
fn hold(draft: &Draft, report: &mut Report) {
    let uses_it = |rule: &Rule| {
        let answers = |trigger: &At<Trigger>| matches!(trigger.value, Trigger::Lms(LmsLevel::Kill | LmsLevel::Oom));
        matches!(rule.victim.value, Victim::Among(_)) && rule.when.iter().any(answers)
    };
    if let Some(hold) = &draft.hold
        && !draft.rules.iter().any(uses_it)
    {
        report.warning(
            hold.at,
            "nobody uses the time of this `hold`: no rule names a victim when the kernel module tells of an OOM",
            "add a rule with `watch: /`, `when: [lms: oom]` and `victim: {among: ...}`, or leave `hold` out",
        );
    }
}

/// Limits of kills that never count.
fn limits(draft: &Draft, report: &mut Report) {
    let Some(node) = &draft.node_limit else { return };
    let about_node = |rule: &Rule| rule.watch.iter().all(|pattern| pattern.value == "/");
    if draft.rule_count > 0 && draft.rules.iter().all(about_node) {
        report.warning(
            node.at,
            "the limit `node` never counts: it leaves out the rules that watch `/`, and there are no others",
            "limit these rules by `kills`, which counts for each rule and subject",
        );
    } else if let Some(limit) = &draft.limit
        && node.value.kills <= limit.value.kills
        && node.value.per >= limit.value.per
        && !draft.rules.iter().any(watches_root)
    {
        report.warning(
            limit.at,
            "the limit `kills` never counts: `node` allows no more than that to all rules together, in no shorter time",
            "allow fewer kills to each rule and subject than to all together, as in `limits: {kills: 5 per 10m, node: 20 per 10m}`",
        );
    }
}

fn shadowed_importance(draft: &Draft, report: &mut Report) {
    let mut earlier: Vec<Over<'_>> = Vec::new();
    for entry in &draft.importance {
        if entry.value.group.iter().all(|pattern| covered(&earlier, pattern)) {
            report.warning(
                entry.at,
                "this line of importance never counts: an earlier one covers the same groups",
                "the first line that matches wins, and it covers everything below its groups: put the narrower one first",
            );
        }
        earlier.extend(entry.value.group.iter().map(|pattern| Over::new(&pattern.value)));
    }
}

fn covered(over: &[Over<'_>], pattern: &At<String>) -> bool {
    over.iter().any(|over| over.covers(&pattern.value))
}

fn triggers(rule: &Rule, root_only: bool, report: &mut Report) {
    let conditioned = |wanted: fn(&Condition) -> bool| rule.only_if.iter().any(|condition| wanted(&condition.value));
    let on_available = conditioned(|condition| matches!(condition, Condition::Available(_)));
    let on_swap = conditioned(|condition| matches!(condition, Condition::SwapFree(_)));
    let on_usage = conditioned(|condition| matches!(condition, Condition::Usage(_)));
    for trigger in &rule.when {
        let at = trigger.at;
        match trigger.value {
            Trigger::Event(kind) if root_only => {
                report.warning(at, format!("{} can never happen: the root has no memory.events", event(kind)), "watch the groups below the root, such as `/**`");
            }
            Trigger::Event(kind @ (EventKind::Low | EventKind::High | EventKind::Max)) if !on_usage && !on_available => report.warning(
                at,
                format!("{} alone leads to a kill, and healthy page cache raises that counter too", event(kind)),
                "add what must hold besides, such as `only_if: [usage: {above: 95%, of: max}]`: usage counts without easily reclaimed cache",
            ),
            Trigger::Psi(Psi { .. }) if !on_available && watches_root(rule) => report.warning(
                at,
                "pressure on the node alone is no proof that memory is short",
                "add `only_if: [available: {below: 10%}]`; without it oomwarden asks for that by itself",
            ),
            Trigger::Available(..) if !on_swap => report.warning(
                at,
                "`available` without `swap_free`: where there is swap, little available memory is no shortage yet",
                "add `swap_free: {below: 10%}` to `only_if`; without swap that always holds",
            ),
            Trigger::SwapFree(..) if !on_available => report.warning(
                at,
                "`swap_free` without `available`: full swap is no shortage while memory is available",
                "add `available: {below: 10%}` to `only_if`",
            ),
            Trigger::Lms(LmsLevel::Warn) if !on_available => report.warning(
                at,
                "`lms: warn` is an early word, no proof that memory is short",
                "add `only_if: [available: {below: 10%}]`, without it oomwarden asks for that by itself; or write `lms: kill`",
            ),
            Trigger::Usage(test, _) => usage(&At::new(at, test), root_only, "starts a judgement", report),
            Trigger::Event(_) | Trigger::Psi(_) | Trigger::Available(..) | Trigger::SwapFree(..) | Trigger::Lms(_) => {}
        }
    }
}

fn event(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Low => "`event: low`",
        EventKind::High => "`event: high`",
        EventKind::Max => "`event: max`",
        EventKind::Oom => "`event: oom`",
        EventKind::OomKill => "`event: oom_kill`",
        EventKind::OomGroupKill => "`event: oom_group_kill`",
    }
}

fn watches_root(rule: &Rule) -> bool {
    rule.watch.iter().any(|pattern| pattern.value == "/")
}

fn conditions(rule: &Rule, root_only: bool, report: &mut Report) {
    for condition in &rule.only_if {
        if let Condition::Usage(test) = condition.value {
            usage(&At::new(condition.at, test), root_only, "holds, so the rule never acts", report);
        }
    }
}

fn usage(test: &At<UsageTest>, root_only: bool, consequence: &str, report: &mut Report) {
    let UsageTest::Share(share, of) = test.value else { return };
    let name = match of {
        UsageOf::Max => "memory.max",
        UsageOf::High => "memory.high",
        UsageOf::Node => "the node's memory",
    };
    if root_only && of != UsageOf::Node {
        report.warning(
            test.at,
            format!("this never {consequence}: the root has no {name}, and a share of a limit that nothing sets is never reached"),
            "for the node write `of: node`, or use `available`",
        );
    } else if share == Share::WHOLE && of != UsageOf::High {
        report.warning(
            test.at,
            format!("this never {consequence}: usage can't rise above {share} of {name}"),
            "write a smaller share, such as `above: 95%`",
        );
    }
}

fn victims(rule: &Rule, root_only: bool, exclude: &[Over<'_>], report: &mut Report) {
    let excluded = |pattern: &At<String>| covered(exclude, pattern);
    let among = match &rule.victim.value {
        Victim::Among(among) => among,
        Victim::Subject if root_only => {
            report.warning(
                rule.victim.at,
                format!("the rule {} never kills: its victim would be the root", shown(&rule.name.value)),
                "name candidates, as in `victim: {among: [/batch.slice/**]}` or `victim: {among: leaves}`",
            );
            return;
        }
        Victim::Subject => {
            if rule.watch.iter().all(excluded) {
                report.warning(
                    rule.name.at,
                    format!("the rule {} never kills: exclusions cover all that it watches", shown(&rule.name.value)),
                    "watch other groups, or exclude less",
                );
            }
            return;
        }
    };
    let Some(patterns) = &among.groups else {
        let all_excluded = rule.watch.iter().all(|watch| {
            let below = At::new(watch.at, if watch.value == "/" { "/**".to_owned() } else { watch.value.clone() });
            excluded(&below)
        });
        if all_excluded {
            report.warning(
                rule.victim.at,
                format!("exclusions leave the rule {} no candidate", shown(&rule.name.value)),
                "watch other groups, or exclude less",
            );
        }
        return;
    };
    mounted(patterns, report);
    misplaced(patterns, report);
    if patterns.iter().all(excluded) {
        report.warning(
            rule.victim.at,
            format!("exclusions leave the rule {} no candidate", shown(&rule.name.value)),
            "name other groups under `among`, or exclude less",
        );
    }
    overlapping(patterns, report);
}

/// A warning that nobody can redeem himself by.
fn vain_warning(rule: &Rule, report: &mut Report) {
    let broken = |trigger: &At<Trigger>| matches!(trigger.value, Trigger::Event(EventKind::OomKill | EventKind::OomGroupKill));
    if rule.ladder.iter().any(|rung| matches!(rung, Rung::Warn { .. })) && rule.when.iter().all(broken) {
        report.warning(
            rule.name.at,
            format!(
                "the rule {} warns in vain: a group that lost a process is not whole again when memory is freed",
                shown(&rule.name.value)
            ),
            "warn where a shortage begins, as with `psi` or `usage`, and leave `warn` out here",
        );
    }
}

/// On a machine without swap `swap_free` starts no judgement.
fn swap_alone(rule: &Rule, report: &mut Report) {
    if rule.when.iter().all(|trigger| matches!(trigger.value, Trigger::SwapFree(..))) {
        report.warning(
            rule.name.at,
            format!("the rule {} never acts on a machine without swap: `swap_free` starts no judgement there", shown(&rule.name.value)),
            "put `swap_free` under `only_if`, where it holds without swap, and say in `when` what else tells of the shortage, such as `available: {below: 5%}`",
        );
    }
}

/// Subjects that contain other subjects and die as a whole.
fn inner_subjects(rule: &Rule, report: &mut Report) {
    let whole = matches!(rule.victim.value, Victim::Subject) && rule.ladder.last() == Some(&Rung::Kill(KillWhat::Group));
    if !whole {
        return;
    }
    let contains_another = |pattern: &At<String>| {
        let upper = Over::new(&pattern.value);
        pattern.value != "/" && rule.watch.iter().any(|other| other.value != pattern.value && upper.contains(&other.value))
    };
    let found = rule.watch.iter().find(|pattern| pattern::nests(&pattern.value) || contains_another(pattern));
    if let Some(pattern) = found {
        report.warning(
            pattern.at,
            format!(
                "the rule {} kills its subject whole, and {} can be a group with other subjects in it: if it is in trouble, everything below it dies at once",
                shown(&rule.name.value),
                shown(&pattern.value)
            ),
            "write `victim: {among: leaves}`, which takes one of the groups at the bottom; or watch only groups that are one thing, such as `/system.slice/*.service`",
        );
    }
}

/// Where applications stand that a systemd of the user's started, and services of the machine's.
const SERVICES: [&str; 2] = ["/system.slice/a.service", "/user.slice/user-1000.slice/user@1000.service/app.slice/a.service"];

/// For systemd a service that ended by SIGTERM ended well.
fn services_by_term(rule: &Rule, exclude: &[Over<'_>], report: &mut Report) {
    if !rule.ladder.iter().any(|rung| matches!(rung, Rung::Term { .. })) {
        return;
    }
    let (patterns, below) = match &rule.victim.value {
        Victim::Subject => (&rule.watch, false),
        Victim::Among(among) => among.groups.as_ref().map_or((&rule.watch, true), |groups| (groups, false)),
    };
    let can_be_service = |pattern: &&At<String>| {
        let text = pattern.value.as_str();
        let last = text.rsplit('/').next().unwrap_or_default();
        let in_system_slice = text.starts_with("/system.slice/") && last.ends_with('*');
        let leaves = format!("{}/**", text.trim_end_matches('/'));
        let probed = |glob: &str| {
            SERVICES.iter().any(|service| Over::new(glob).matches(service) && !exclude.iter().any(|over| over.covers(service)))
        };
        let services = last.ends_with(".service") || last.ends_with(".service}") || in_system_slice;
        !covered(exclude, pattern) && (services || probed(text) || (below && probed(&leaves)))
    };
    if let Some(pattern) = patterns.iter().find(can_be_service) {
        report.warning(
            rule.name.at,
            format!(
                "the rule {} ends services by SIGTERM ({}), which systemd takes for success: `Restart=on-failure` does not start them again, and `systemctl --failed` does not show them",
                shown(&rule.name.value),
                shown(&pattern.value)
            ),
            "leave `term` out for services, or set `RestartForceExitStatus=SIGTERM` or `Restart=always` in the units",
        );
    }
}

/// Candidates that contain one another, as far as the text shows it.
fn overlapping(patterns: &Patterns, report: &mut Report) {
    for (index, pattern) in patterns.iter().enumerate() {
        let upper = Over::new(&pattern.value);
        for (other_index, other) in patterns.iter().enumerate() {
            if pattern.value == other.value && index < other_index {
                report.warning(other.at, format!("{} stands in this list twice", shown(&other.value)), "take one of the two out");
            } else if pattern.value != other.value && upper.contains(&other.value) {
                report.warning(
                    pattern.at,
                    format!("what {} names contains what {} names", shown(&pattern.value), shown(&other.value)),
                    "only leaves are candidates, so the upper one counts only where it has nothing below: name the one that you mean",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
