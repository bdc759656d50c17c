//! Kills that the kernel makes itself by memory.oom.group are not claimed by a rule again.
//!
//! Where a group has memory.oom.group the kernel's OOM killer ends it whole. It raises `oom_kill`
//! for each process, and `oom_group_kill` after the first of them, so a rule on `event: oom_kill`
//! hears of it while the kernel is still at it. The verdict is then left alone for a moment and
//! judged anew. If the group is empty by then, there is nobody to kill. If somebody survived (a
//! process that was forked meanwhile can), the rule has its way.
//!
//! Whether the kernel took the whole group is told by `oom_group_kill` of it or a group above it,
//! where that is counted. Where it isn't, or has not risen yet, memory.oom.group itself says that
//! it may be so: a limit below the group that has it costs one process only.

use std::time::Duration;

use super::Warden;
use super::pending::{Pending, RETRY, breaks_group};
use super::senses::Senses;
use crate::cgroup::GroupId;
use crate::decide::history::Subject;
use crate::gather::court::Court;
use crate::sense::tree::{Slot, Tree};

/// For how long a group that the kernel kills is left to it.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same where `oom_group_kill` is counted and has not risen: the kernel raises it right after
/// the `oom_kill` of the first process.
const DOUBT: Duration = Duration::from_millis(250);
/// Groups and judgements that are remembered.
const REMEMBERED: usize = 64;

/// What the kernel has in hand.
#[derive(Debug)]
pub(super) struct KernelsTurn {
    /// Groups whose `oom_group_kill` rose, and when that was seen.
    killed: Vec<(GroupId, Duration)>,
    /// Judgements that wait for the kernel: rule, subject, and since when.
    waiting: Vec<(u16, GroupId, Duration)>,
}

impl Default for KernelsTurn {
    fn default() -> KernelsTurn {
        KernelsTurn { killed: Vec::with_capacity(REMEMBERED), waiting: Vec::with_capacity(REMEMBERED) }
    }
}

/// What is known of a victim and the groups above it, itself first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OnLine {
    /// Which group.
    pub group: GroupId,
    /// memory.oom.group is 1.
    pub oom_group: bool,
    /// Its counters are read.
    pub counted: bool,
}

impl KernelsTurn {
    /// The kernel has killed this group whole.
    pub(super) fn killed(&mut self, now: Duration, group: GroupId) {
        self.killed.retain(|(other, at)| *other != group && now.saturating_sub(*at) < PATIENCE);
        if self.killed.len() == REMEMBERED {
            self.killed.remove(0);
        }
        self.killed.push((group, now));
    }

    /// Whether a verdict is left to the kernel for now. `breaks`: its notice is of a kill by the
    /// kernel.
    fn has(&mut self, now: Duration, rule: u16, subject: GroupId, breaks: bool, line: impl Iterator<Item = OnLine> + Clone) -> bool {
        let killed = |one: OnLine| self.killed.iter().any(|(group, at)| *group == one.group && now.saturating_sub(*at) < PATIENCE);
        if line.clone().any(killed) {
            self.wait(now, rule, subject, breaks);
            return true;
        }
        let mut flagged = line.filter(|one| one.oom_group).peekable();
        if !breaks || flagged.peek().is_none() {
            return false;
        }
        let patience = if flagged.all(|one| one.counted) { DOUBT } else { PATIENCE };
        let since = self.wait(now, rule, subject, true);
        now.saturating_sub(since) < patience
    }

    /// A judgement waits; since when it has.
    fn wait(&mut self, now: Duration, rule: u16, subject: GroupId, breaks: bool) -> Duration {
        // Longer than any wait ago: that was another time.
        self.waiting.retain(|(_, _, since)| now.saturating_sub(*since) < PATIENCE * 2);
        let known = self.waiting.iter().find(|(other, group, _)| (*other, *group) == (rule, subject));
        match known {
            Some((_, _, since)) => *since,
            None if breaks => {
                if self.waiting.len() == REMEMBERED {
                    self.waiting.remove(0);
                }
                self.waiting.push((rule, subject, now));
                now
            }
            None => now,
        }
    }

    /// The judgement ended. Whether it had waited for the kernel.
    pub(super) fn done(&mut self, rule: u16, subject: GroupId) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(other, group, _)| (*other, *group) != (rule, subject));
        self.waiting.len() < before
    }

    /// Another policy has other rules.
    pub(super) fn policy_replaced(&mut self) {
        self.waiting.clear();
    }
}

fn line<'a>(tree: &'a Tree, court: &'a Court, victim: Slot) -> impl Iterator<Item = OnLine> + Clone + 'a {
    let slots = std::iter::successors(Some(victim), |slot| tree.get(*slot).and_then(|node| node.parent));
    slots.filter_map(|slot| {
        let node = tree.get(slot)?;
        let oom_group = slot != Tree::ROOT && court.facts_of(slot).is_some_and(|facts| facts.oom_group);
        Some(OnLine { group: node.group.id, oom_group, counted: node.counted })
    })
}

impl Warden {
    /// Whether the victim of a judgement is left to the kernel, which is killing it already. Then
    /// the notice is kept for a moment, if it won't come again.
    pub(super) fn is_the_kernels(&mut self, pending: &Pending, whose: &Subject<'_>, victim: Slot, now: Duration) -> bool {
        let Pending { rule, subject, notice, .. } = *pending;
        let breaks = breaks_group(&notice);
        let Senses { kernels_turn, tree, .. } = &mut self.senses;
        if !kernels_turn.has(now, rule, subject, breaks, line(tree, &self.court, victim)) {
            return false;
        }
        if breaks {
            self.history.put_off(now, rule, whose, &notice, RETRY);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: u16 = 3;
    const GROUP: GroupId = GroupId(7);

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn on(group: u64, oom_group: bool, counted: bool) -> OnLine {
        OnLine { group: GroupId(group), oom_group, counted }
    }

    #[test]
    fn a_kill_that_the_kernel_made_by_oom_group_is_left_to_it_for_a_while() {
        let mut turn = KernelsTurn::default();
        // oom_group_kill has not risen yet: the first of its processes was just killed.
        let line = || [on(7, true, true), on(1, false, true)].into_iter();
        assert!(turn.has(at(0), RULE, GROUP, true, line()));
        turn.killed(at(10), GROUP);
        for now in [100, 500, 2009] {
            assert!(turn.has(at(now), RULE, GROUP, true, line()), "{now}");
        }
        assert!(!turn.has(at(2010), RULE, GROUP, true, line()), "somebody survived");
        assert!(turn.done(RULE, GROUP) && !turn.done(RULE, GROUP));
    }

    #[test]
    fn a_kill_of_one_process_below_an_oom_group_is_no_kill_of_the_group() {
        let mut turn = KernelsTurn::default();
        let line = || [on(7, false, true), on(6, true, true), on(1, false, true)].into_iter();
        assert!(turn.has(at(0), RULE, GROUP, true, line()), "it may be about to");
        assert!(!turn.has(at(250), RULE, GROUP, true, line()), "it would have said so by now");
        // Nobody counts the group above: it can't be told.
        let line = || [on(7, false, true), on(6, true, false)].into_iter();
        turn.done(RULE, GROUP);
        assert!(turn.has(at(300), RULE, GROUP, true, line()));
        assert!(turn.has(at(2299), RULE, GROUP, true, line()));
        assert!(!turn.has(at(2300), RULE, GROUP, true, line()));
    }

    #[test]
    fn a_group_that_the_kernel_killed_from_above_is_dead_for_rules_on_stall_too() {
        let mut turn = KernelsTurn::default();
        let line = || [on(7, false, true), on(6, true, true)].into_iter();
        assert!(!turn.has(at(0), RULE, GROUP, false, line()), "stall is no kill by the kernel");
        turn.killed(at(10), GroupId(6));
        assert!(turn.has(at(20), RULE, GROUP, false, line()));
        assert!(!turn.done(RULE, GROUP), "it comes again by itself");
        assert!(!turn.has(at(20), RULE, GROUP, true, [on(8, false, true)].into_iter()), "what is beside it lives");
    }

    #[test]
    fn a_crowd_of_groups_takes_no_more_room() {
        let mut turn = KernelsTurn::default();
        let room = (turn.killed.capacity(), turn.waiting.capacity());
        for group in 0..1000 {
            turn.killed(at(0), GroupId(group));
            assert!(turn.has(at(0), RULE, GroupId(group), true, [on(group, true, true)].into_iter()));
        }
        assert_eq!((turn.killed.capacity(), turn.waiting.capacity()), room);
    }
}
