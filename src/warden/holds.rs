//! What the kernel module asks of the warden: an answer while it holds the kernel's killer back, and a table for the case that
//! none comes.
//!
//! A hold is answered in the turn in which it is noticed: whoever can't allocate waits for it, all over the node. So it knows
//! no cool-down and no grace time; it is answered by a kill, by saying that one is under way, or by letting the kernel go ahead.

use std::time::Duration;

use super::Warden;
use super::climbs::{self, Means};
use super::closer::Word;
use super::panic_on_oom::LACK;
use crate::cgroup::GroupId;
use crate::decide::history::{Admission, Subject};
use crate::decide::verdict::Notice;
use crate::degraded::Reason;
use crate::gather::below::below;
use crate::gather::court::Ruling;
use crate::gather::last_resort::{Said, answering};
use crate::policy::model::{EntrySet, LmsLevel};
use crate::sense::tree::Tree;

impl Warden {
    /// Becomes the module's handler, or stops being it, as the policy has it.
    pub(super) fn enlist(&mut self) {
        let node = self.senses.read_node();
        if self.senses.signal.device().is_none() {
            let asks = |when: &crate::policy::model::Trigger| matches!(when, crate::policy::model::Trigger::Lms(_));
            if self.announce.is_some() && self.policy.rules.iter().any(|rule| rule.when.iter().any(asks)) {
                tracing::info!(
                    "no kernel module (/proc/oom_notifier): rules with `lms` rest on their other triggers, and when the node runs out at once the kernel may kill before us"
                );
            }
            return;
        }
        let now = self.clock.now();
        // No deeds means none, also by the module.
        let answers = answering(&self.policy).any(|rule| self.switches.may_answer(now, rule));
        self.senses.signal.mind_panic(answers);
        self.senses.signal.look_at_panic(now);
        if answers && !self.senses.signal.kernel_panics() {
            self.senses.signal.enlist(&self.policy, &node, now);
            self.switches.changed();
        } else {
            self.leave_module();
            self.senses.signal.clear_left_over(now);
        }
        let mut warm = EntrySet::EMPTY;
        if self.senses.signal.is_enlisted() {
            answering(&self.policy).for_each(|rule| warm.insert(rule));
        }
        self.senses.tree.set_warm(warm);
        self.senses.heed_shortage();
        self.untold_lack = true;
        self.tell_lack();
    }

    /// Says in the status whether the module has us as its handler, and is one that we can leave a
    /// table with.
    pub(super) fn tell_lack(&mut self) {
        if !self.untold_lack {
            return;
        }
        let signal = &self.senses.signal;
        let panics = signal.kernel_panics() && answering(&self.policy).next().is_some();
        let lacks = || signal.refusal().or_else(|| signal.lacks().filter(|_| signal.is_enlisted()));
        let lack = if panics { Some(LACK.to_owned()) } else { lacks() };
        self.untold_lack = self.counters.degraded().try_put(Reason::Lms, lack.map(Into::into)).is_none();
        if self.untold_lack {
            // Somebody was reading it.
            self.senses.changed_at(self.clock.now());
        }
    }

    /// Hears what the module has to say.
    pub(super) fn heed_signal(&mut self) {
        let now = self.clock.now();
        if std::mem::take(&mut self.relieved_node) && self.senses.signal.hold().is_some() {
            self.senses.read_node();
            self.senses.signal.relieved(now);
        } else if self.senses.signal.relook_due().is_some_and(|due| due <= now) {
            // There is no further notice of the same hold.
            self.senses.read_node();
            self.senses.signal.relook(now);
        }
        let news = self.senses.signal.take_news();
        // Before a hold is answered it is looked at anyway.
        if let Some(due) = self.senses.signal.panic_due()
            && (due <= now || news && self.senses.signal.hold().is_none())
        {
            self.mind_panic(now);
        }
        if news {
            self.counters.set_lms(self.senses.signal.report());
            self.switches.changed();
            self.hurry_up();
            self.senses.heed_shortage();
            self.senses.signal_changed(&self.policy, now);
        }
        self.answer_hold();
        if self.senses.signal.enlist_due().is_some_and(|due| due <= now) {
            self.enlist();
        }
    }

    /// Leaves the module alone while vm.panic_on_oom is set.
    fn mind_panic(&mut self, now: Duration) {
        if self.senses.signal.look_at_panic(now) {
            self.enlist();
        }
    }

    /// Answers the hold under way, if it has no answer yet: the only way to an answer.
    pub(super) fn answer_hold(&mut self) {
        let Some(hold) = self.senses.signal.take_unanswered() else { return };
        // A hold for a kernel that is to panic is passed by this, and is ours no longer.
        self.mind_panic(self.clock.now());
        if self.senses.signal.hold() == Some(hold) {
            self.answer(hold);
        }
    }

    /// Runs before ordinary threads while memory is low, and only then: keeping the tree of a busy machine up to date is
    /// nothing that others should have to wait for.
    fn hurry_up(&mut self) {
        let short = self.senses.signal.report().is_some_and(|report| report.level.is_some());
        if short == self.runs_first {
            return;
        }
        let result = if short { crate::sys::run_before_others() } else { crate::sys::run_like_others() };
        match result {
            Ok(()) => self.runs_first = short,
            Err(error) if !std::mem::replace(&mut self.told_rank, true) => {
                tracing::info!(
                    "scheduled like any other process: {error} (an answer may be slower when the node starves; CAP_SYS_NICE prevents it)"
                );
            }
            Err(_) => {}
        }
    }

    /// Answers a hold.
    fn answer(&mut self, hold: u64) {
        let arrived = self.clock.now();
        let policy = std::sync::Arc::clone(&self.policy);
        let Some(root) = self.senses.tree.get(Tree::ROOT).map(|node| node.group.id) else { return };
        if self.stopping.is_some() || self.hurry(root, None, hold) {
            if self.stopping.is_some() {
                self.senses.signal.pass(hold);
            }
            return;
        }
        for rule in answering(&policy) {
            if !self.switches.may_answer(arrived, rule) {
                continue;
            }
            let index = super::pending::rule_index(rule);
            if self.answer_by(index, root, hold, arrived) {
                return;
            }
        }
        self.senses.signal.pass(hold);
    }

    /// Whether the rule has an answer.
    fn answer_by(&mut self, rule: u16, root: GroupId, hold: u64, arrived: Duration) -> bool {
        let notice = Notice::Lms(LmsLevel::Oom);
        let begun = self.clock.now();
        let Some(slot) = self.senses.tree.slot_of(root) else { return false };
        let Some(cooldown) = self.policy.rules.get(usize::from(rule)).map(|rule| rule.cooldown) else { return false };
        // Nothing changes about a rule that found nobody a moment ago; it need not say so for each hold.
        let Some(path) = self.senses.tree.get(slot).map(|node| node.group.path.clone()) else { return false };
        let whose = Subject { id: root, path: &path };
        let resting = self.history.admit(begun, rule, &whose, &notice) != Admission::Judge;
        let ruling = match self.rule_on(rule, slot, root, &notice, begun) {
            None => return false,
            // Answered when the scout has looked. Nobody else is turned to meanwhile: if that takes too long the table decides,
            // which was made when everything could be looked at.
            Some(Word::Postponed) => {
                self.closer.postpone_hold();
                return true;
            }
            Some(Word::Given(ruling)) => ruling,
        };
        let decided = self.clock.now();
        match ruling {
            Ruling::Kill { victim, scope } => {
                let Some(id) = self.senses.tree.get(victim).map(|node| node.group.id) else { return false };
                if self.hurry(scope, Some(id), hold) {
                    return true;
                }
                let record = self.write_down(notice, arrived, begun, decided);
                self.history.deed_began(decided, rule, &whose);
                let policy = std::sync::Arc::clone(&self.policy);
                let start =
                    climbs::Start { policy: &policy, rule, subject: root, victim, scope, notice, arrived, record, hold: Some(hold) };
                let Warden { clock, court, senses, history, records, poller, climbs, switches, .. } = self;
                climbs.begin(start, &mut Means { clock, court, senses, history, records, poller, switches });
                true
            }
            Ruling::NoVictim | Ruling::NotConfirmed => {
                if !resting {
                    if let Some(record) = self.write_down(notice, arrived, begun, decided) {
                        self.records.submit(record);
                    }
                    if ruling == Ruling::NoVictim {
                        self.rest(decided, rule, &whose, cooldown, true);
                    }
                }
                false
            }
        }
    }

    fn hurry(&mut self, scope: GroupId, victim: Option<GroupId>, hold: u64) -> bool {
        let Warden { clock, court, senses, history, records, poller, climbs, switches, .. } = self;
        climbs.hurry(scope, victim, hold, &mut Means { clock, court, senses, history, records, poller, switches })
    }

    /// A scope's trouble has been dealt with: if it was the node's, a hold may still be open.
    pub(super) fn note_relief(&mut self, scope: GroupId) {
        let root = self.senses.tree.get(Tree::ROOT).map(|node| node.group.id);
        self.relieved_node |= root.is_some_and(|root| below(&self.senses.tree, root, scope));
    }

    /// Brings the module's table up to date, if it is time: what must live, and whom the rules may kill, by paths.
    pub(super) fn keep_table(&mut self) {
        let now = self.clock.now();
        let Warden { senses, court, switches, last_resort, .. } = self;
        senses.signal.empty_again(now);
        let Some(root) = senses.tree.get(Tree::ROOT).map(|node| node.group.id) else { return };
        let mut said = None;
        senses.renew_table(now, |table, senses| {
            let node = senses.read_node();
            let Some(kept) = court.kept(&mut senses.sight()) else {
                // Nothing would be safe to kill. It is looked for again.
                senses.signal.table_outdated(now);
                return;
            };
            let tree = &senses.tree;
            let kept = kept.into_iter().flatten().filter_map(|slot| tree.get(slot));
            let kept = kept.map(|node| (node.group.id, node.group.path.as_bytes()));
            let has_said = last_resort.put_together(table, root, &node, kept, |rule| switches.may_answer(now, rule));
            if has_said == Said::Nothing {
                table.clear(None);
            }
            said = Some(has_said);
        });
        if let Some(said) = said
            && self.told_table.replace(said) != Some(said)
        {
            self.tell_table(said);
        }
    }

    /// Says what of the policy is not in the table.
    fn tell_table(&self, said: Said) {
        let name = |rule: usize| self.policy.rules.get(rule).map_or("?", |rule| &*rule.name);
        match said {
            Said::All => {}
            Said::Before(rule) => tracing::info!(
                "the kernel module's table ends before rule {}, which kills single processes: where oomwarden can't answer, the rules from there on are not asked",
                name(rule)
            ),
            Said::NoRoomFor(rule) => tracing::warn!(
                "the kernel module's table has no room for rule {} (globs with many braces, or very many globs): where oomwarden can't answer, the rules from there on are not asked",
                name(rule)
            ),
            Said::Nothing => tracing::warn!(
                "the kernel module's table has no room for all that must live and for `importance` (globs with many braces, or very many globs): it stays empty, and where oomwarden can't answer, the kernel's killer acts"
            ),
        }
    }
}
