//! Levels: what has no notice in the kernel (usage, MemAvailable, SwapFree) and is sampled, the oftener the nearer.

use std::time::Duration;

use super::pending::{Pending, rule_index};
use super::senses::Senses;
use crate::cgroup::GroupId;
use crate::cgroup::group::File;
use crate::cgroup::parse;
use crate::decide::conditions::is_beyond_swap;
use crate::decide::facts::NodeFacts;
use crate::decide::verdict::Notice;
use crate::metrics::rules::RuleCounters;
use crate::policy::model::{Policy, RankKey, Trigger, UsageOf, UsageTest, Victim};
use crate::sense::sample::Sampler;
use crate::sense::tree::{Slot, Tree};

/// How often usage is noted where a rule ranks by growth or pressure.
const TREND: Duration = Duration::from_secs(1);

/// How soon a level of the kernel module's that lasts is looked at again; the module tells when it changes.
const LASTING: Duration = Duration::from_millis(250);

/// One level that is sampled.
#[derive(Debug)]
pub(super) struct Sample {
    rule: u16,
    trigger: usize,
    pub(super) subject: GroupId,
    sampler: Sampler,
    /// A verdict on it was put off.
    again: bool,
    /// `None`: when something else says so.
    pub(super) due: Option<Duration>,
}

impl Sample {
    fn is_due(&self, now: Duration) -> bool {
        self.due.is_some_and(|due| due <= now)
    }
}

impl Senses {
    /// Begins to sample what the policy's rules ask for.
    pub fn start_samplers(&mut self, policy: &Policy, now: Duration) {
        let trend = |rule: &crate::policy::model::Rule| match &rule.victim {
            Victim::Among(among) => among.rank.iter().any(|by| matches!(by.key, RankKey::Growth | RankKey::Pressure)),
            Victim::Subject => false,
        };
        self.trend_due = policy.rules.iter().any(trend).then_some(now);
        self.samples.clear();
        let slots: Vec<Slot> = self.tree.slots().collect();
        for slot in slots {
            self.add_samples(slot, policy, now);
        }
    }

    pub(super) fn add_samples(&mut self, slot: Slot, policy: &Policy, now: Duration) {
        let Some(node) = self.tree.get(slot) else { return };
        let subject = node.group.id;
        for rule in node.class.subject_of.iter() {
            for (trigger, when) in policy.rules.get(rule).map(|rule| &rule.when[..]).unwrap_or_default().iter().enumerate() {
                let level = matches!(when, Trigger::Usage(..) | Trigger::Available(..) | Trigger::SwapFree(..) | Trigger::Lms(_));
                let rule = rule_index(rule);
                let known = |sample: &Sample| sample.rule == rule && sample.trigger == trigger && sample.subject == subject;
                if level && !self.samples.iter().any(known) {
                    self.samples.push(Sample { rule, trigger, subject, sampler: Sampler::default(), again: false, due: Some(now) });
                }
            }
        }
    }

    /// Looks at the levels whose time has come.
    pub fn sample(&mut self, now: Duration, policy: &Policy, rules: &[RuleCounters], pending: &mut Vec<Pending>) {
        if self.trend_due.is_some_and(|due| due <= now) {
            self.trends.note(&self.tree, now, &mut self.buffer);
            self.trend_due = Some(now + TREND);
        }
        if !self.samples.iter().any(|sample| sample.is_due(now)) {
            return;
        }
        let node = self.read_node();
        let mut samples = std::mem::take(&mut self.samples);
        for sample in samples.iter_mut().filter(|sample| sample.is_due(now)) {
            sample.again = false;
            // Whatever comes of this look, the next one is not now.
            sample.due = Some(now + crate::sense::sample::LATEST);
            let Some(when) = policy.rules.get(usize::from(sample.rule)).and_then(|rule| rule.when.get(sample.trigger)) else { continue };
            if matches!(when, Trigger::Lms(_)) {
                // The module tells when it changes.
                sample.due = None;
            }
            let Some((distance, span, lasting)) = self.distance(when, sample.subject, &node) else {
                // Nothing to compare with: no limit, no such group any more, or a failed read. What
                // has to last begins anew.
                sample.sampler = Sampler::default();
                continue;
            };
            let look = sample.sampler.look(now, distance, span, lasting);
            sample.due = Some(if matches!(when, Trigger::Lms(_)) { now + LASTING } else { look.next });
            let Some(held) = look.held_for else { continue };
            let notice = match when {
                Trigger::Usage(test, _) => Notice::Usage(*test, held),
                Trigger::Available(level, _) => Notice::Available(level.bytes(node.total_bytes), held),
                Trigger::SwapFree(level, _) => Notice::SwapFree(level.bytes(node.swap_total_bytes), held),
                Trigger::Lms(level) => Notice::Lms(*level),
                Trigger::Psi(_) | Trigger::Event(_) => continue,
            };
            if let Some(counters) = rules.get(usize::from(sample.rule)) {
                counters.trigger_event(sample.trigger);
            }
            if self.notice(pending, Pending { rule: sample.rule, subject: sample.subject, notice, arrived: now, weight: (0, 0) }) {
                // In the next turn, before all that had room in this one come again.
                sample.due = Some(now);
            }
        }
        self.samples = samples;
    }

    /// How far a level is from holding, over which way, and how long it must hold.
    fn distance(&mut self, when: &Trigger, subject: GroupId, node: &NodeFacts) -> Option<(u64, u64, Duration)> {
        let below = |now: Option<u64>, level: u64, total: u64| {
            let now = now?;
            Some((if now < level { 0 } else { now - level + 1 }, total.saturating_sub(level)))
        };
        match when {
            Trigger::Available(level, lasting) => {
                let (distance, span) = below(node.available_bytes, level.bytes(node.total_bytes), node.total_bytes)?;
                Some((distance, span, *lasting))
            }
            Trigger::SwapFree(level, lasting) => {
                let bytes = level.bytes(node.swap_total_bytes);
                if is_beyond_swap(bytes, node) {
                    // As far away as can be. Swap may be switched on later, so it is looked at
                    // again.
                    return Some((u64::MAX, 1, *lasting));
                }
                let (distance, span) = below(node.swap_free_bytes, bytes, node.swap_total_bytes)?;
                Some((distance, span, *lasting))
            }
            Trigger::Usage(test, lasting) => {
                let slot = self.tree.slot_of(subject)?;
                let threshold = self.usage_threshold(slot, test, node)?;
                let usage = self.charged_at_least(slot, threshold, node)?;
                Some((if usage > threshold { 0 } else { threshold - usage + 1 }, threshold, *lasting))
            }
            Trigger::Lms(level) => (node.lms?.level? >= *level).then_some((0, 0, Duration::ZERO)),
            Trigger::Psi(_) | Trigger::Event(_) => None,
        }
    }

    /// The verdict on a level was put off until then: it is looked at again, and need not last all its time anew.
    pub fn ask_again(&mut self, rule: u16, subject: GroupId, notice: &Notice, until: Option<Duration>) {
        let held = match notice {
            Notice::Usage(_, held) | Notice::Available(_, held) | Notice::SwapFree(_, held) => *held,
            Notice::Lms(_) => Duration::ZERO,
            Notice::Psi(_) | Notice::Event(..) => return,
        };
        for sample in self.samples.iter_mut().filter(|sample| sample.rule == rule && sample.subject == subject) {
            sample.sampler.held_before(held);
            (sample.again, sample.due) = (true, until.or(sample.due));
        }
    }

    /// What verdicts were put off for may be over.
    pub fn wake_samples(&mut self, now: Duration) {
        for sample in self.samples.iter_mut().filter(|sample| sample.again) {
            sample.due = Some(now);
        }
    }

    /// Nobody looked for a while: what was seen before says nothing about how long a level has lasted.
    pub(super) fn forget_samples(&mut self) {
        self.samples.iter_mut().for_each(|sample| sample.sampler.forget());
    }

    /// The kernel module's level changed: whatever asks for it is looked at in this turn.
    pub fn signal_changed(&mut self, policy: &Policy, now: Duration) {
        for sample in &mut self.samples {
            let when = policy.rules.get(usize::from(sample.rule)).and_then(|rule| rule.when.get(sample.trigger));
            if matches!(when, Some(Trigger::Lms(_))) {
                sample.due = Some(now);
            }
        }
    }

    fn usage_threshold(&mut self, slot: Slot, test: &UsageTest, node: &NodeFacts) -> Option<u64> {
        let (share, file) = match test {
            UsageTest::Amount(bytes) => return Some(bytes.0),
            UsageTest::Share(share, UsageOf::Node) => return Some(share.of(node.total_bytes)),
            UsageTest::Share(share, UsageOf::Max) => (share, File::Max),
            UsageTest::Share(share, UsageOf::High) => (share, File::High),
        };
        let (mut at, mut smallest) = (Some(slot), None);
        while let Some(node) = at.and_then(|slot| self.tree.get(slot)) {
            let limit = node.group.read(file, &mut self.buffer, parse::limit).ok().flatten().and_then(crate::cgroup::Limit::bytes);
            smallest = [smallest, limit].into_iter().flatten().min();
            at = node.parent;
        }
        smallest.map(|limit| share.of(limit))
    }

    /// What is charged to a group less what can be reclaimed. memory.stat is dear, so it is only
    /// read when memory.current
    /// alone is above the threshold.
    fn charged_at_least(&mut self, slot: Slot, threshold: u64, node: &NodeFacts) -> Option<u64> {
        if slot == Tree::ROOT {
            return Some(node.total_bytes.saturating_sub(node.available_bytes?));
        }
        let group = &self.tree.get(slot)?.group;
        let current = group.read(File::Current, &mut self.buffer, parse::value).ok()??;
        if current <= threshold {
            return Some(current);
        }
        let stat = group.read(File::Stat, &mut self.buffer, parse::stat).ok()??;
        Some(current.saturating_sub(stat.reclaimable()?))
    }
}
