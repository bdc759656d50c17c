//! Steps 3 and 4: who might die, and who must not.
//!
//! [`Survey::look`] goes over the tree twice, once down and once up, and notes for each group what is inherited from above
//! and what stands next at or behind it in pre-order. Since a subtree is a range of indices, "is there such a group below?"
//! is then one comparison.
//!
//! What must live comes in two kinds. Some is known at once: exclusions by path, oomwarden's own group, a group that could not
//! be read. The rest rests on facts about processes: process 1, oom_score_adj -1000, an excluded comm. The latter counts only
//! once the whole subtree of the candidate in question has been seen. A half-seen subtree would make the
//! verdict depend on the order in which siblings happen to be listed. The same holds for a shielded
//! process, which spares nobody but puts a group behind others.

use super::facts::{GroupFacts, GroupId};
use super::gives_way_to_children;
use super::rank;
use super::tree::Tree;
use super::verdict::{Candidate, Standing, Strike};
use crate::policy::model::{AmongGroups, Rule, Victim};

/// What is noted of one group.
#[derive(Clone, Copy, Debug, Default)]
struct Note {
    /// The exclusion that covers it, an ancestor's included.
    excluded: Option<u16>,
    /// The exclusion that covers it because it, or an ancestor, holds a process with the comm.
    by_comm: Option<u16>,
    /// A deed on it or on an ancestor is under way.
    dying: bool,
    /// The rule names it.
    named: bool,
    /// Its own importance.
    importance: i64,
    /// The largest importance of the populated groups below it.
    importance_below: Option<i64>,
    /// The next index, this one included, of a group that must live whatever its processes are.
    next_kept: u32,
    /// The next of one that must live for the sake of its processes.
    next_kept_for_processes: u32,
    /// The next of one that holds a shielded process.
    next_shielded: u32,
    /// The next of one whose processes have not been seen.
    next_unseen: u32,
    /// The next of a populated memory group that the rule names.
    next_named: u32,
}

/// Notes on the whole tree.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// One for each group, and one past the end.
    notes: Vec<Note>,
}

impl Survey {
    pub(super) fn reserve(&mut self, groups: usize) {
        self.notes.reserve((groups + 1).saturating_sub(self.notes.len()));
    }

    /// Takes its notes for a judgement. To be called before anything else is asked of it.
    pub(super) fn look(&mut self, tree: Tree<'_>, index: usize, subject: u32, rule: &Rule) {
        self.notes.clear();
        for at in 0..tree.len() {
            let group = tree.group(at);
            let above = tree.parent(at).and_then(|parent| self.notes.get(parent as usize)).copied().unwrap_or_default();
            self.notes.push(Note {
                excluded: group.class.excluded.or(above.excluded),
                by_comm: excluded_by_comm(group).or(above.by_comm),
                dying: group.dying || above.dying,
                named: is_named(tree, at, index, subject, &rule.victim),
                importance: group.class.importance,
                ..Note::default()
            });
        }
        let end = tree.len();
        self.notes.push(Note {
            next_kept: end,
            next_kept_for_processes: end,
            next_shielded: end,
            next_unseen: end,
            next_named: end,
            ..Note::default()
        });

        for at in (0..tree.len()).rev() {
            let group = tree.group(at);
            let behind = self.notes[at as usize + 1];
            let note = &mut self.notes[at as usize];
            let here = |yes: bool, next: u32| if yes { at } else { next };
            note.next_kept = here(note.excluded.is_some() || group.own || group.populated.is_none(), behind.next_kept);
            note.next_kept_for_processes = here(
                note.by_comm.is_some() || strike_for_processes(rule.spare_unkillable, group).is_some(),
                behind.next_kept_for_processes,
            );
            note.next_shielded = here(group.processes.is_some_and(|processes| processes.has_shielded), behind.next_shielded);
            note.next_unseen = here(is_unseen(group), behind.next_unseen);
            note.next_named = here(note.named && group.is_memcg() && group.may_be_populated(), behind.next_named);

            // an empty group with a populated one below it: they were read one after the other
            let importance = note.importance_below.max(group.may_be_populated().then_some(note.importance));
            if let Some(parent) = tree.parent(at) {
                let parent = &mut self.notes[parent as usize];
                parent.importance_below = parent.importance_below.max(importance);
            }
        }
    }

    /// Lists every candidate, struck or not, in the order of the tree. Those that are not struck stand as
    /// [`Standing::Ranked`].
    pub(super) fn candidates(&self, tree: Tree<'_>, rule: &Rule, subject: u32, failed: &[GroupId], list: &mut Vec<Candidate>) {
        let mut add = |at: u32| self.add_or_children(tree, rule, at, failed, list);
        let group = tree.group(subject);
        // a group without memory of its own is never a subject, whoever would be the victim
        let is_subject = group.is_root() || group.is_memcg();
        let among = match &rule.victim {
            Victim::Among(among) if is_subject => among,
            Victim::Among(_) | Victim::Subject => return add(subject),
        };
        let (mut at, end) = match among.groups {
            AmongGroups::Leaves => (subject, tree.end(subject)),
            AmongGroups::Globs(_) => (0, tree.len()),
        };
        while at < end {
            let group_end = tree.end(at);
            let has_named_below = self.notes[at as usize + 1].next_named < group_end;
            let named = self.notes[at as usize].named;
            // A unit dies whole or, if it contains what must live, not at all: then what is named
            // below it counts.
            let is_unit = || tree.group(at).is_unit() && !self.strike(tree, rule, false, at).is_some_and(gives_way_to_children);
            if named && (!has_named_below || is_unit()) {
                add(at);
                at = group_end;
            } else {
                at += 1;
            }
        }
    }

    /// A group below `at`, or `at` itself, whose processes have not been seen although it may hold some; or one above it of
    /// which a process may have a name that spares everything below.
    pub(super) fn unseen(&self, tree: Tree<'_>, at: u32) -> Option<u32> {
        let next = self.notes[at as usize].next_unseen;
        let names_matter = |above: &u32| !tree.group(*above).class.comm_excludes.is_empty() && is_unseen(tree.group(*above));
        if next < tree.end(at) { Some(next) } else { tree.line(at).skip(1).find(names_matter) }
    }

    /// The largest importance of the group and all that would die with it.
    fn importance(&self, at: u32) -> i64 {
        let note = &self.notes[at as usize];
        note.importance_below.map_or(note.importance, |below| below.max(note.importance))
    }

    /// Whether the group, or one below it, is known to hold a shielded process. As with what must
    /// live, that counts once all of them have been seen.
    fn is_shielded(&self, tree: Tree<'_>, at: u32) -> bool {
        self.notes[at as usize].next_shielded < tree.end(at) && self.unseen(tree, at).is_none()
    }

    /// Lists `at`, or, if it must not die because of what it contains, it as struck and its children in its place.
    fn add_or_children(&self, tree: Tree<'_>, rule: &Rule, at: u32, failed: &[GroupId], list: &mut Vec<Candidate>) {
        let end = tree.end(at);
        let mut next = at;
        while next < end {
            let group = tree.group(next);
            let strike = self.strike(tree, rule, rule.kills_one(&group.class), next).or_else(|| strike_by_rule(group, rule, failed));
            list.push(Candidate {
                group: next,
                id: group.id,
                standing: strike.map_or(Standing::Ranked, Standing::Struck),
                importance: self.importance(next),
                shielded: self.is_shielded(tree, next),
                usage_bytes: group.memory.usage(),
                keys: rank::keys(tree, rule, next),
            });
            next = if strike.is_some_and(gives_way_to_children) { next + 1 } else { tree.end(next) };
        }
    }

    /// Why this group must not die, whatever the rule says; `one`: why no single process of it.
    pub(super) fn strike(&self, tree: Tree<'_>, rule: &Rule, one: bool, at: u32) -> Option<Strike> {
        let (group, note, below) = (tree.group(at), self.notes[at as usize], self.notes[at as usize + 1]);
        let end = tree.end(at);
        if group.is_root() {
            return Some(Strike::Root);
        }
        if group.own {
            return Some(Strike::Own);
        }
        if let Some(entry) = note.excluded {
            return Some(Strike::Excluded(entry));
        }
        if !group.is_memcg() {
            return Some(Strike::NotMemcg);
        }
        if note.dying {
            return Some(Strike::Dying);
        }
        match group.populated {
            Some(true) => {}
            Some(false) => return Some(Strike::Empty),
            None => return Some(Strike::Unknown),
        }
        if below.next_kept < end {
            return Some(Strike::ContainsSpared(below.next_kept));
        }
        if self.unseen(tree, at).is_none() {
            if one {
                // Only one process dies, and never one at -1000.
                return self.strike_for_one(tree, at).or_else(|| group.memory.usage().is_none().then_some(Strike::Unknown));
            }
            if let Some(strike) = note.by_comm.map(Strike::ExcludedByComm).or_else(|| strike_for_processes(rule.spare_unkillable, group)) {
                return Some(strike);
            }
            if below.next_kept_for_processes < end {
                return Some(Strike::ContainsSpared(below.next_kept_for_processes));
            }
        }
        group.memory.usage().is_none().then_some(Strike::Unknown)
    }

    /// Why no process of a group, all of whose processes have been seen, may be taken.
    fn strike_for_one(&self, tree: Tree<'_>, at: u32) -> Option<Strike> {
        if let Some(entry) = self.notes[at as usize].by_comm {
            return Some(Strike::ExcludedByComm(entry));
        }
        for below in at..tree.end(at) {
            let group = tree.group(below);
            let strike = excluded_by_comm(group).map(Strike::ExcludedByComm);
            let strike = strike.or_else(|| strike_for_processes(false, group));
            if let Some(strike) = strike {
                return Some(if below == at { strike } else { Strike::ContainsSpared(below) });
            }
        }
        None
    }
}

/// Whether the rule names the group at `at`, whatever else it is.
fn is_named(tree: Tree<'_>, at: u32, rule: usize, subject: u32, victim: &Victim) -> bool {
    match victim {
        Victim::Subject => at == subject,
        Victim::Among(among) => match among.groups {
            AmongGroups::Leaves => (subject..tree.end(subject)).contains(&at),
            AmongGroups::Globs(_) => tree.group(at).class.among.contains(rule),
        },
    }
}

/// What this rule, and this ladder so far, have against a group that may die.
fn strike_by_rule(group: &GroupFacts, rule: &Rule, failed: &[GroupId]) -> Option<Strike> {
    if failed.contains(&group.id) {
        return Some(Strike::Failed);
    }
    let Victim::Among(among) = &rule.victim else { return None };
    (group.memory.usage()? < among.at_least.0).then_some(Strike::TooSmall)
}

/// Whether the group's processes have to be seen before it may die.
fn is_unseen(group: &GroupFacts) -> bool {
    group.populated == Some(true) && group.processes.is_none()
}

/// Why the group must live for the sake of its own processes, comms aside. `spare_unkillable`: also for one at -1000.
fn strike_for_processes(spare_unkillable: bool, group: &GroupFacts) -> Option<Strike> {
    let processes = group.processes.as_ref()?;
    if processes.has_init {
        Some(Strike::Init)
    } else if processes.has_unkillable && spare_unkillable {
        Some(Strike::Unkillable)
    } else if processes.has_unknown {
        Some(Strike::Unknown)
    } else {
        None
    }
}

/// The first exclusion with a comm that applies to the group and of which it holds such a process.
fn excluded_by_comm(group: &GroupFacts) -> Option<u16> {
    let hits = &group.processes.as_ref()?.comm_hits;
    let entry = group.class.comm_excludes.iter().find(|entry| hits.contains(*entry))?;
    Some(u16::try_from(entry).unwrap_or(u16::MAX))
}
