//! Rules that wait for stall where there is none to read: PSI is off for the whole machine, or for single groups (`cgroup.pressure`, which a
//! group's owner may write).
//!
//! That is said once, with the rules that are dead by it, and shown as `degraded` for as long as it lasts. For the machine it is found out at
//! the start, since only another boot changes it; for a group by the clerk, who finds neither a trigger nor a total there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::senses::Senses;
use crate::cgroup::buffer::ReadBuf;
use crate::cgroup::group::{File, Group};
use crate::cgroup::parse;
use crate::degraded::{Degraded, Reason};
use crate::policy::model::{Policy, RankKey, Rule, Trigger, Victim};
use crate::policy::words;

/// How many rules, or groups, a text names.
const NAMED: usize = 8;

/// What is known of PSI, and what was said of it.
#[derive(Debug)]
pub(super) struct Deaf {
    machine_has_psi: bool,
    groups_told: bool,
}

impl Deaf {
    /// Looks at the root: without PSI it has neither stall nor, from 6.1 on, the switch by which it could have been switched off there alone.
    pub(super) fn look(root: &Group, buffer: &mut ReadBuf) -> Deaf {
        let readable = root.read(File::Pressure, buffer, parse::pressure).is_ok_and(|pressure| pressure.is_some());
        let machine_has_psi = readable || root.read(File::PressureSwitch, buffer, parse::value).is_ok_and(|switch| switch.is_some());
        Deaf { machine_has_psi, groups_told: false }
    }

    /// Whether groups without PSI were told of.
    pub(super) fn tells_of_groups(&self) -> bool {
        self.groups_told
    }
}

impl Senses {
    /// Says which rules are deaf, and shows it; `false` if that could not be shown because somebody is reading.
    #[must_use]
    pub(super) fn tell_deaf(&mut self, policy: &Policy, degraded: &Degraded) -> bool {
        if self.deaf.machine_has_psi { self.tell_deaf_groups(policy, degraded) } else { tell_deaf_machine(policy, degraded) }
    }

    fn tell_deaf_groups(&mut self, policy: &Policy, degraded: &Degraded) -> bool {
        // Whoever is being tried again may be as dead as before: the answer has it told.
        if !self.is_armed() {
            return true;
        }
        let text = self.groups_without_psi(policy);
        if degraded.try_put(Reason::GroupPsi, text.clone()).is_none() {
            return false;
        }
        // A group's owner may switch it as often as he likes: said when it begins and when it ends, not for each further group.
        match (&text, self.deaf.groups_told) {
            (Some(text), false) => tracing::error!("{text}"),
            (None, true) => tracing::info!("rules that wait for stall can read it in every group again"),
            _ => {}
        }
        self.deaf.groups_told = text.is_some();
        true
    }

    /// What is wrong where PSI is off for groups that rules watch.
    fn groups_without_psi(&self, policy: &Policy) -> Option<Arc<str>> {
        let mut dead: Vec<_> = self.pool.dead().map(|(group, _)| group).collect();
        dead.dedup();
        let (mut paths, mut rules) = (BTreeSet::new(), BTreeSet::new());
        for node in dead.into_iter().filter_map(|group| self.tree.get(self.tree.slot_of(group)?)) {
            paths.insert(node.group.path.to_string());
            rules.extend(node.class.subject_of.iter());
        }
        if paths.is_empty() {
            return None;
        }
        let (silent, partly) = deaf_rules(rules.into_iter().filter_map(|rule| policy.rules.get(rule)));
        let (count, groups) = (paths.len(), if paths.len() == 1 { "group has" } else { "groups have" });
        let mut text = format!(
            "{count} watched {groups} no PSI: {}; write 1 to cgroup.pressure there (whoever may write it can switch it off)",
            list(paths.into_iter())
        );
        if !silent.is_empty() {
            text += &format!("; rules that never act there: {}", list(silent.into_iter()));
        }
        if !partly.is_empty() {
            text += &format!("; triggers that never fire there: {}", list(partly.into_iter()));
        }
        Some(text.into())
    }
}

fn tell_deaf_machine(policy: &Policy, degraded: &Degraded) -> bool {
    let text = without_psi(policy);
    let Some(is_new) = degraded.try_put(Reason::Psi, text.clone()) else { return false };
    match text {
        Some(text) if is_new => tracing::error!("{text}"),
        None if is_new => tracing::info!("the policy needs no PSI any more, which the kernel does not give"),
        _ => {}
    }
    true
}

/// What is wrong with a policy on a machine without PSI.
fn without_psi(policy: &Policy) -> Option<Arc<str>> {
    let (silent, partly) = deaf_rules(policy.rules.iter());
    let by_pressure = |rule: &&Rule| match &rule.victim {
        Victim::Among(among) => among.rank.iter().any(|by| by.key == RankKey::Pressure),
        Victim::Subject => false,
    };
    let ranked: Vec<String> = policy.rules.iter().filter(by_pressure).map(|rule| rule.name.to_string()).collect();
    if silent.is_empty() && partly.is_empty() && ranked.is_empty() {
        return None;
    }
    let mut text =
        "the kernel gives groups no PSI (psi=0 or cgroup_disable=pressure on its command line, or built so): boot with psi=1".to_owned();
    if !silent.is_empty() {
        text += &format!("; rules that never act: {}", list(silent.into_iter()));
    }
    if !partly.is_empty() {
        text += &format!("; triggers that never fire: {}", list(partly.into_iter()));
    }
    if !ranked.is_empty() {
        text += &format!("; rules whose rank by pressure tells nothing: {}", list(ranked.into_iter()));
    }
    Some(text.into())
}

/// Rules that wait for nothing but stall, and, of those that wait for something else too, the triggers that do.
fn deaf_rules<'a>(rules: impl Iterator<Item = &'a Rule>) -> (Vec<String>, Vec<String>) {
    let (mut silent, mut partly) = (Vec::new(), Vec::new());
    for rule in rules {
        let by_psi: Vec<&Trigger> = rule.when.iter().filter(|when| matches!(when, Trigger::Psi(_))).collect();
        if by_psi.len() == rule.when.len() {
            silent.push(rule.name.to_string());
        } else {
            partly.extend(by_psi.into_iter().map(|when| format!("`{}` of {}", words::Trigger(when), rule.name)));
        }
    }
    (silent, partly)
}

/// The first few, and how many more there are.
fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let shown: Vec<String> = names.take(NAMED).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Source, load};

    fn text(policy: &str) -> Option<String> {
        let policy = load(&[Source::new("test", policy)]).expect("sound").policy;
        without_psi(&policy).map(|text| text.to_string())
    }

    #[test]
    fn dead_rules_dead_triggers_and_blind_ranks_are_named() {
        let told = text(
            "
version: 1
rules:
  - {name: stall, watch: /t, when: [psi: full 100ms/500ms, psi: some 200ms/1s]}
  - {name: both, watch: /t, when: [psi: full 100ms/500ms, event: oom_kill]}
  - {name: event, watch: /t, when: [event: oom_kill]}
  - {name: rank, watch: /, when: [event: oom_kill], victim: {among: /t/*, rank: [pressure, usage]}}
",
        )
        .expect("something is dead");
        for part in [
            "boot with psi=1",
            "; rules that never act: stall;",
            "; triggers that never fire: `psi: full 100ms/500ms` of both;",
            "; rules whose rank by pressure tells nothing: rank",
        ] {
            assert!(told.contains(part), "{part:?} is not in {told}");
        }
        assert!(!told.contains("event") && !told.contains('\n'), "{told}");
    }

    #[test]
    fn a_policy_that_needs_no_psi_lacks_nothing() {
        assert_eq!(text("version: 1\nrules:\n  - {name: event, watch: /t, when: [event: oom_kill]}\n"), None);
        assert_eq!(text("version: 1\nrules: []\n"), None);
    }

    #[test]
    fn long_lists_are_cut() {
        let names = |count: usize| list((0..count).map(|name| name.to_string()));
        assert_eq!(names(8), "0, 1, 2, 3, 4, 5, 6, 7");
        assert_eq!(names(10), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
    }
}
