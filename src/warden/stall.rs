//! Stall: who has PSI triggers, and what it means when one fires.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::pending::{Pending, rule_index};
use super::senses::Senses;
use crate::cgroup::GroupId;
use crate::cgroup::group::File;
use crate::cgroup::parse;
use crate::decide::verdict::Notice;
use crate::gather::below::below;
use crate::metrics::rules::RuleCounters;
use crate::policy::model::{EntrySet, Policy, Psi, Trigger};
use crate::sense::clerk::Errand;
use crate::sense::poller::{Key, Poller};
use crate::sense::psi::{Firing, Refused, stall_total};
use crate::sense::tree::{Node, Sensing, Slot};

/// Whether a group had triggers before, which the clerk may still have to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// It is new to us.
    None,
    /// It had, so that a new one may begin with stall from before.
    Watched,
}

/// The triggers of a group that is a subject of these rules, some perhaps more than once.
fn triggers<'a>(policy: &'a Policy, subject_of: &'a EntrySet) -> impl Iterator<Item = Psi> + 'a {
    let when = |rule: usize| policy.rules.get(rule).map(|rule| &rule.when[..]).unwrap_or_default();
    subject_of.iter().flat_map(when).filter_map(|when| match when {
        Trigger::Psi(psi) => Some(*psi),
        _ => None,
    })
}

impl Senses {
    /// Asks for a group's triggers: while there is room, or, for one in trouble, in the place of the least troubled.
    pub(super) fn arm(&mut self, slot: Slot, now: Duration, policy: &Policy, troubled: bool, past: Past, poller: &Poller) {
        let Some(node) = self.tree.get(slot) else { return };
        let (group, subject_of) = (Arc::clone(&node.group), node.class.subject_of);
        let mut missing = triggers(policy, &subject_of).filter(|psi| !self.pool.knows(group.id, *psi)).peekable();
        if missing.peek().is_none() {
            if troubled {
                self.pool.touch(group.id, now);
            }
            return;
        }
        if !self.pool.has(group.id) && !self.pool.has_room(group.id) {
            match self.pool.least_troubled(now) {
                Some(least) if troubled => self.drop_triggers(poller, |entry| entry == least),
                _ => {
                    self.without_room = true;
                    return;
                }
            }
        }
        for psi in triggers(policy, &subject_of) {
            if !self.pool.knows(group.id, psi) {
                let key = match past {
                    Past::None => self.pool.ask(group.id, psi, now),
                    Past::Watched => self.pool.ask_anew(group.id, psi, now),
                };
                self.clerk.send(Errand::Arm(key, Arc::clone(&group), psi));
            }
        }
    }

    /// Asks for the triggers that a group lacks, if it has processes. Opens nothing: a group whose cgroup.events is not held has not settled yet,
    /// and is asked for then; or nothing would tell of its first process, and it is on the timer.
    pub(super) fn arm_populated(&mut self, slot: Slot, now: Duration, policy: &Policy, poller: &Poller) {
        let Some(node) = self.tree.get(slot).filter(|node| node.group.held(File::GroupEvents).is_some()) else { return };
        let id = node.group.id;
        if triggers(policy, &node.class.subject_of).all(|psi| self.pool.knows(id, psi)) {
            return;
        }
        let populated = node.group.read(File::GroupEvents, &mut self.buffer, parse::populated);
        if populated.is_ok_and(|populated| populated.flatten() == Some(true)) {
            let past = if self.pool.had_triggers(id, now) { Past::Watched } else { Past::None };
            self.arm(slot, now, policy, false, past, poller);
        }
    }

    /// Gives places that have become free to groups that went without.
    pub(super) fn share_room(&mut self, now: Duration, policy: &Policy, poller: &Poller) {
        if self.pool.is_full() || !std::mem::take(&mut self.without_room) {
            return;
        }
        for slot in (0..).take(self.tree.places()) {
            self.arm_populated(slot, now, policy, poller);
        }
    }

    /// The clerk found a group without processes. Where nothing would tell of the first one it stays on the timer.
    pub(super) fn without_processes(&mut self, key: Key, now: Duration, policy: &Policy, poller: &Poller) {
        let Some(slot) = self.pool.find(key).and_then(|entry| self.tree.slot_of(entry.group)) else {
            self.pool.withdraw(key, now);
            return;
        };
        // The kernel tells of a file that is in its cache: one that is held is.
        let told = |node: &Node| node.sensing == Sensing::Notices && node.group.held(File::GroupEvents).is_some();
        if self.tree.get(slot).is_some_and(told) {
            self.pool.withdraw(key, now);
            // Its place may be another's.
            if self.without_room || self.deaf.tells_of_groups() {
                self.changed_at(now);
            }
            // It may have come since, and have been told of already.
            self.arm_populated(slot, now, policy, poller);
        } else {
            self.pool.refused(key, Refused::Readable);
            self.timer_due = Some(Duration::ZERO);
        }
    }

    pub(super) fn drop_triggers(&mut self, poller: &Poller, doomed: impl Fn(GroupId) -> bool) {
        let clerk = &self.clerk;
        let close = |fd: OwnedFd| {
            poller.remove(&fd);
            clerk.send(Errand::Close(fd));
        };
        self.pool.take(|entry| doomed(entry.group), close);
    }

    /// Makes the triggers in a scope anew, so that only stall that accrues from now on counts.
    pub fn renew_triggers(&mut self, scope: GroupId, now: Duration, poller: &Poller) {
        let mut renewed = std::mem::take(&mut self.renewed);
        renewed.clear();
        let tree = &self.tree;
        let inside = |group: GroupId| below(tree, group, scope);
        renewed.extend(self.pool.all().filter(|(group, _)| inside(*group)));
        // Closing one waits for the kernel's readers, so the new ones are armed first.
        let mut old = Vec::with_capacity(renewed.len());
        let close = |fd: OwnedFd| {
            poller.remove(&fd);
            old.push(fd);
        };
        self.pool.take(|entry| inside(entry.group), close);
        for (id, psi) in &renewed {
            if let Some(node) = self.tree.slot_of(*id).and_then(|slot| self.tree.get(slot)) {
                let key = self.pool.ask_anew(*id, *psi, now);
                self.clerk.send(Errand::Arm(key, Arc::clone(&node.group), *psi));
            }
        }
        self.renewed = renewed;
        for fd in old {
            self.clerk.send(Errand::Close(fd));
        }
    }

    /// A victim in this scope is gone: triggers of the groups above are doubted for as long as its stall is in their windows.
    pub fn doubt_above(&mut self, scope: GroupId, now: Duration) {
        let tree = &self.tree;
        self.pool.doubt(now, |group| group != scope && below(tree, scope, group));
    }

    /// A group's PSI was switched off or on. That a trigger is dead by it the kernel says; here it is tried whether it can be armed again.
    pub(super) fn pressure_switched(&mut self, slot: Slot, now: Duration, policy: &Policy, poller: &Poller) {
        let Some(group) = self.tree.get(slot).map(|node| node.group.id) else { return };
        while let Some(one) = self.pool.switched(group, now) {
            self.try_again(one);
        }
        // A group without processes has none; whether it could have some is found out all the same.
        if !self.pool.has(group) && self.pool.may_look_at_switch(group, now) {
            self.arm(slot, now, policy, false, Past::Watched, poller);
        }
    }

    /// Has the clerk try once more to arm a trigger.
    pub(super) fn try_again(&mut self, (key, group, psi): (Key, GroupId, Psi)) {
        match self.tree.slot_of(group).and_then(|slot| self.tree.get(slot)) {
            Some(node) => self.clerk.send(Errand::Arm(key, Arc::clone(&node.group), psi)),
            None => self.pool.refused(key, Refused::Unreadable),
        }
    }

    /// Gives groups that told of trouble their triggers.
    pub fn arm_troubled(&mut self, now: Duration, policy: &Policy, poller: &Poller) {
        let mut troubled = std::mem::take(&mut self.troubled);
        for subject in troubled.drain(..) {
            if let Some(slot) = self.tree.slot_of(subject) {
                // It may have given its triggers up to others a moment ago.
                self.arm(slot, now, policy, true, Past::Watched, poller);
            }
        }
        self.troubled = troubled;
    }

    /// A trigger fired, or died.
    #[expect(clippy::too_many_arguments, reason = "what a notice concerns; a struct of borrows would only rename them")]
    pub fn fired(
        &mut self,
        key: Key,
        dead: bool,
        now: Duration,
        policy: &Policy,
        rules: &[RuleCounters],
        poller: &Poller,
        pending: &mut Vec<Pending>,
    ) {
        let Some((group, psi)) = self.pool.find(key).map(|entry| (entry.group, entry.psi)) else { return };
        if dead {
            // The group is gone, or its owner switched pressure off: the clerk finds out and says so once.
            self.drop_triggers(poller, |entry| entry == group);
            if let Some(slot) = self.tree.slot_of(group) {
                self.arm(slot, now, policy, false, Past::Watched, poller);
            }
            return;
        }
        self.pool.touch(group, now);
        let buffer = &mut self.buffer;
        match self.pool.fired(key, now, |fd, kind| stall_total(fd, kind, buffer)) {
            Firing::Own => self.stalled(group, psi, now, policy, rules, pending),
            Firing::Older => {}
            Firing::Unsure => self.arm_again(key, group, psi, now, poller),
        }
    }

    fn arm_again(&mut self, key: Key, group: GroupId, psi: Psi, now: Duration, poller: &Poller) {
        let Some(node) = self.tree.slot_of(group).and_then(|slot| self.tree.get(slot)) else { return };
        let remove = |fd: &OwnedFd| poller.remove(fd);
        if let Some((key, old)) = self.pool.again(key, now, remove) {
            self.clerk.send(Errand::Arm(key, Arc::clone(&node.group), psi));
            self.clerk.send(Errand::Close(old));
        }
    }

    pub(super) fn stalled(
        &mut self,
        group: GroupId,
        psi: Psi,
        now: Duration,
        policy: &Policy,
        rules: &[RuleCounters],
        pending: &mut Vec<Pending>,
    ) {
        let Some(subject_of) = self.tree.slot_of(group).and_then(|slot| self.tree.get(slot)).map(|node| node.class.subject_of) else {
            return;
        };
        for rule in subject_of.iter() {
            let Some(the_rule) = policy.rules.get(rule) else { continue };
            for (index, when) in the_rule.when.iter().enumerate() {
                if *when == Trigger::Psi(psi) {
                    if let Some(counters) = rules.get(rule) {
                        counters.trigger_event(index);
                    }
                    self.notice(
                        pending,
                        Pending { rule: rule_index(rule), subject: group, notice: Notice::Psi(psi), arrived: now, weight: (0, 0) },
                    );
                }
            }
        }
    }
}
