//! Judging what is pending, and what follows from a verdict.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Warden;
use super::climbs;
use super::climbs::{Means, Wanted, Way};
use super::closer::Word;
use super::order;
use super::pending::{Pending, RETRY, breaks_group, is_event};
use crate::act::outcome::Outcome;
use crate::cgroup::GroupId;
use crate::decide::history::{Admission, DeedEnd, Subject};
use crate::decide::verdict::Notice;
use crate::gather::below::is_above;
use crate::gather::court::Ruling;
use crate::metrics::counters::Dropped;
use crate::policy::model::{EventKind, Mode, Trigger};
use crate::record::model::JudgementRecord;
use crate::sense::tree::Tree;

/// Whether a notice may come of a trigger.
fn is_of(notice: &Notice, when: &Trigger) -> bool {
    match (notice, when) {
        (Notice::Psi(psi), Trigger::Psi(asked)) => psi == asked,
        (Notice::Event(kind, ..), Trigger::Event(asked)) => kind == asked,
        (Notice::Usage(test, _), Trigger::Usage(asked, _)) => test == asked,
        (Notice::Available(..), Trigger::Available(..)) | (Notice::SwapFree(..), Trigger::SwapFree(..)) => true,
        (Notice::Lms(level), Trigger::Lms(asked)) => level == asked,
        _ => false,
    }
}

impl Warden {
    /// Judges what is pending, in the order that [`order`] gives.
    pub(super) fn judge_pending(&mut self) {
        let now = self.clock.now();
        self.climbs.forget_lingering(now, &mut self.senses);
        while let Some((rule, subject, notice)) = self.history.take_due(now) {
            self.senses.notice(&mut self.pending, Pending { rule, subject, notice, arrived: now, weight: (0, 0) });
        }
        if self.stopping.is_some() {
            self.pending.clear();
        }
        std::mem::swap(&mut self.pending, &mut self.batch);
        if self.batch.len() > 1 {
            self.senses.weigh(&mut self.batch);
            self.order.arrange(&self.senses.tree, &mut self.batch);
        }
        self.explained.clear();
        for at in 0..self.batch.len() {
            let pending = self.batch[at];
            self.judge(pending);
        }
        self.batch.clear();
        let lost = self.history.lost();
        self.senses.let_go.count(Dropped::TableFull, lost - std::mem::replace(&mut self.forgotten, lost));
        self.senses.let_go.tell(now);
    }

    pub(super) fn judge(&mut self, pending: Pending) {
        let begun = self.clock.now();
        let Pending { rule, subject, notice, arrived, .. } = pending;
        // Removed meanwhile; who stands under its name by now is somebody else.
        let Some(slot) = self.senses.tree.slot_of(subject) else { return };
        let Some(node) = self.senses.tree.get(slot) else { return };
        let (policy, path) = (Arc::clone(&self.policy), node.group.path.clone());
        let whose = Subject { id: subject, path: &path };
        let Some(the_rule) = policy.rules.get(usize::from(rule)) else { return };
        // A notice from before a reload, for a group or of a kind that the rule no longer names.
        if !node.class.subject_of.contains(usize::from(rule)) || !the_rule.when.iter().any(|when| is_of(&notice, when)) {
            return;
        }
        // A ladder for it may wait for that word.
        self.climbs.noticed(rule, subject);
        // During a deed, and in the rest after it, only a kill by the kernel is kept: all else is that trouble's echo.
        let rests = self.history.resting_until(begun, rule, &whose).is_some();
        if rests && !breaks_group(&notice) && !self.history.is_put_off(rule, &whose) {
            return;
        }
        if notice.is_level() && self.vain.is_resting(begun, rule, subject) {
            return;
        }
        if self.history.admit(begun, rule, &whose, &notice) != Admission::Judge {
            return;
        }
        let tree = &self.senses.tree;
        if !order::is_about_the_node(tree, &pending) && self.explained.iter().any(|deeper| is_above(tree, subject, *deeper)) {
            // What was noticed here may all be the trouble of a group below, which is being dealt with.
            self.history.put_off(begun, rule, &whose, &notice, RETRY);
            self.senses.ask_again(rule, subject, &notice, self.history.resting_until(begun, rule, &whose));
            // There is no verdict to write down.
            if let Some(counters) = self.rules.get(usize::from(rule)) {
                counters.judgement(Outcome::PutOff);
            }
            return;
        }
        if self.closer.keeps(pending) {
            return;
        }
        let ruling = match self.rule_on(rule, slot, subject, &notice, begun) {
            None => return,
            Some(Word::Postponed) => return self.closer.postpone(pending, self.clock.now()),
            Some(Word::Given(ruling)) => ruling,
        };
        if let Ruling::Kill { victim, .. } = ruling
            && self.is_the_kernels(&pending, &whose, victim, begun)
        {
            return;
        }
        let was_the_kernels = self.senses.kernels_turn.done(rule, subject);
        let decided = self.clock.now();
        let forbidden = match the_rule.mode {
            Mode::Observe => Some(Outcome::Observed),
            Mode::Enforce => {
                let root = self.senses.tree.get(Tree::ROOT).map_or(subject, |root| root.group.id);
                self.switches.forbids(decided, rule, &path, self.climbs.under_way_below(root))
            }
        };
        if let (Ruling::Kill { victim, scope }, None) = (ruling, forbidden) {
            let Some(victim_id) = self.senses.tree.get(victim).map(|node| node.group.id) else { return };
            let wanted = Wanted { policy: &policy, rule, subject, scope, victim: victim_id, notice };
            let way = self.climbs.way(&self.senses.tree, &wanted, decided);
            if way != Way::Free {
                if way == Way::NoPlace && !is_event(&notice) {
                    self.senses.let_go.count(Dropped::NoPlace, 1);
                }
                if way == Way::Hurry {
                    let Warden { clock, court, senses, history, records, poller, climbs, switches, .. } = self;
                    climbs.bring_forward(&wanted, &mut Means { clock, court, senses, history, records, poller, switches });
                    self.explain(subject);
                }
                self.history.put_off(decided, rule, &whose, &notice, RETRY);
                self.senses.ask_again(rule, subject, &notice, self.history.resting_until(decided, rule, &whose));
                if self.history.is_to_be_said(decided, rule, &whose)
                    && let Some(mut record) = self.write_down(notice, arrived, begun, decided)
                {
                    record.outcome = if way == Way::Hurry { Outcome::Hurried } else { Outcome::PutOff };
                    self.records.submit(record);
                }
                return;
            }
        }
        let cooldown = the_rule.cooldown;
        let in_vain = ruling == Ruling::NoVictim && self.court.verdict.is_in_vain();
        if in_vain && !self.vain.note(decided, rule, subject, cooldown) {
            return;
        }
        let record = self.write_down(notice, arrived, begun, decided);
        match ruling {
            Ruling::Kill { victim, scope } if forbidden.is_none() => {
                self.vain.forget(rule, subject);
                self.history.deed_began(decided, rule, &whose);
                self.explain(subject);
                let start = climbs::Start { policy: &policy, rule, subject, victim, scope, notice, arrived, record, hold: None };
                let Warden { clock, court, senses, history, records, poller, climbs, switches, .. } = self;
                climbs.begin(start, &mut Means { clock, court, senses, history, records, poller, switches });
            }
            Ruling::Kill { .. } => {
                if let Some(mut record) = record {
                    record.outcome = forbidden.unwrap_or(Outcome::Observed);
                    self.records.submit(record);
                }
                self.rest(decided, rule, &whose, cooldown, false);
            }
            Ruling::NoVictim => {
                if let Some(record) = record {
                    self.records.submit(record);
                }
                // Said once, then less and less often while nothing changes. Where the kernel
                // killed everybody itself, something did.
                if !in_vain {
                    self.rest(decided, rule, &whose, cooldown, !was_the_kernels);
                }
            }
            Ruling::NotConfirmed => {
                if let Some(record) = record {
                    self.records.submit(record);
                }
            }
        }
    }

    /// The trouble of this subject is being dealt with.
    fn explain(&mut self, subject: GroupId) {
        if self.explained.len() < self.explained.capacity() {
            self.explained.push(subject);
        }
    }

    /// The record of the last judgement, up to the verdict; `None` where all records are in use.
    pub(super) fn write_down(&self, notice: Notice, arrived: Duration, begun: Duration, decided: Duration) -> Option<Box<JudgementRecord>> {
        let mut record = self.records.take()?;
        let time = SystemTime::now().checked_sub(decided.saturating_sub(arrived)).unwrap_or(SystemTime::UNIX_EPOCH);
        record.fill(time, &self.policy, &self.rules, notice, &self.court.verdict, &self.court.facts);
        record.latency.notice = Some(begun.saturating_sub(arrived));
        record.latency.decide = Some(decided.saturating_sub(arrived));
        Some(record)
    }

    pub(super) fn rest(&mut self, now: Duration, rule: u16, subject: &Subject<'_>, cooldown: Duration, backing_off: bool) {
        self.history.deed_began(now, rule, subject);
        let end = DeedEnd::Gone { freed_little: backing_off };
        self.history.deed_ended(now, rule, subject, cooldown, end);
    }

    /// Goes through a judgement of each rule's first subject without consequences, so that code and buffers have been used.
    pub(super) fn rehearse(&mut self) {
        let now = self.clock.now();
        for rule in 0..self.policy.rules.len() {
            let subject =
                self.senses.tree.slots().find(|slot| self.senses.tree.get(*slot).is_some_and(|node| node.class.subject_of.contains(rule)));
            let Some(subject) = subject else { continue };
            let notice = Notice::Event(EventKind::OomKill, 0, 1);
            let _ = self
                .court
                .judge(&self.policy, rule, subject, &notice, &[], now, &mut self.senses, |tree, slot| self.climbs.is_dying(tree, slot));
        }
    }
}
