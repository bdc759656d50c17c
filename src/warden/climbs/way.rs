//! Ladders and new verdicts: what is in the way of one, and what it brings forward.

use super::*;

/// Another rule would kill a ladder's victim too, and sooner.
#[derive(Clone, Debug)]
pub(super) struct Hurried {
    /// Its policy.
    policy: Arc<Policy>,
    /// Index of the rule there.
    rule: u16,
    /// Its subject.
    subject: GroupId,
    /// Whose shortage it is.
    scope: GroupId,
    /// What was noticed.
    notice: Notice,
    /// The facts at its verdict.
    before: Option<ScopeFacts>,
    /// When its own ladder would come to the kill, on the warden's clock.
    pub(super) by: Duration,
    /// It would have waited until then, so that its trouble may be over by then.
    asks: bool,
}

/// What is in the way of a verdict to kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing.
    Free,
    /// A ladder waits for the same victim, or one inside it: its kill is to come no later than this verdict's would.
    Hurry,
    /// SIGKILL was sent along the line and memory is on its way back, or the same shortage is being
    /// dealt with.
    PutOff,
    /// There is no place for one more ladder.
    NoPlace,
}

/// A verdict to kill, as far as other ladders are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The policy in force.
    pub policy: &'a Arc<Policy>,
    /// Index of the rule.
    pub rule: u16,
    /// The subject.
    pub subject: GroupId,
    /// Whose shortage it is.
    pub scope: GroupId,
    /// The victim.
    pub victim: GroupId,
    /// What was noticed.
    pub notice: Notice,
}

impl Wanted<'_> {
    /// How long its own ladder would wait before the kill.
    fn grace(&self) -> Duration {
        self.policy.rules.get(usize::from(self.rule)).map_or(Duration::ZERO, |rule| grace(&rule.ladder))
    }
}

/// How long a ladder waits before its kill, if every rung takes its time.
pub(super) fn grace(rungs: &[Rung]) -> Duration {
    let wait = |rung: &Rung| match rung {
        Rung::Warn { wait, .. } | Rung::Term { wait } => *wait,
        Rung::Hook(hook) => hook.timeout,
        Rung::Kill(_) => Duration::ZERO,
    };
    rungs.iter().map(wait).sum()
}

impl Climbs {
    /// What is in the way of a verdict.
    ///
    /// A ladder that has sent SIGKILL somewhere on the line keeps the verdict waiting: what it frees may be enough. One that
    /// waits in its grace time does not, or whoever has a long one would keep everything above it still. If the
    /// verdict names its victim, or what contains it, its kill is brought forward. If the verdict names somebody else, both go on
    /// side by side, unless it is about the very shortage that the ladder deals with: a sibling's stall is the echo of that.
    #[must_use]
    pub fn way(&self, tree: &Tree, wanted: &Wanted<'_>, now: Duration) -> Way {
        let on_line = |a: GroupId, b: GroupId| below(tree, a, b) || below(tree, b, a);
        let mut way = Way::Free;
        for climb in self.climbs() {
            if !on_line(climb.scope, wanted.scope) && !on_line(climb.victim.id, wanted.victim) {
                continue;
            }
            if climb.is_killing() {
                // The node can't wait long for a victim that dies slowly in a trouble of its own.
                let slow = climb.ladder.killed_at.is_some_and(|at| now.saturating_sub(climb.arrived + at) > SLOW_DEATH);
                if slow && climb.scope != wanted.scope && is_root(tree, wanted.subject) {
                    continue;
                }
                return Way::PutOff;
            }
            if below(tree, climb.victim.id, wanted.victim) {
                way = Way::Hurry;
            } else if climb.scope == wanted.scope && !is_above(tree, wanted.subject, climb.subject) {
                let left = (climb.arrived + climb.ladder.deadline()).saturating_sub(now);
                // Another rule about the same subject, which names somebody else: whichever kills first goes first.
                if climb.subject != wanted.subject || left <= wanted.grace() {
                    return Way::PutOff;
                }
            }
        }
        if way == Way::Free && self.place(tree, wanted.subject).is_none() {
            return Way::NoPlace;
        }
        way
    }

    /// A free place for a ladder about this subject.
    pub(super) fn place(&self, tree: &Tree, subject: GroupId) -> Option<usize> {
        let places = if is_root(tree, subject) { CLIMBS } else { GROUP_CLIMBS };
        let taken = self.places.iter().flatten().count();
        // Ladders about the node may stand in any place, so the others are counted, too.
        self.places.iter().position(Option::is_none).filter(|_| taken < places)
    }

    /// Brings the kills of ladders forward that wait for the victim of this verdict, or for one inside it: they come no later
    /// than its own ladder would.
    pub fn bring_forward(&mut self, wanted: &Wanted<'_>, with: &mut Means<'_>) {
        let (now, grace) = (with.clock.now(), wanted.grace());
        let index = |group: GroupId| with.senses.tree.slot_of(group).and_then(|slot| with.court.index_of(slot));
        let facts = index(wanted.subject).zip(index(wanted.scope));
        let before = facts.and_then(|(subject, scope)| ScopeFacts::of(&with.court.facts, &with.court.node, subject, scope));
        for climb in self.places.iter_mut().flatten() {
            if climb.is_killing() || !below(&with.senses.tree, climb.victim.id, wanted.victim) {
                continue;
            }
            let by = now.saturating_add(grace);
            if climb.hurried.as_ref().is_none_or(|known| by < known.by) {
                climb.hurried = Some(Hurried {
                    policy: Arc::clone(wanted.policy),
                    rule: wanted.rule,
                    subject: wanted.subject,
                    scope: wanted.scope,
                    notice: wanted.notice,
                    before,
                    by,
                    asks: !grace.is_zero(),
                });
            }
        }
    }

    /// Whether the trouble of a verdict that waited for its own grace time is over.
    pub(super) fn is_relieved(&self, hurried: &Hurried, now: Duration, with: &mut Means<'_>) -> bool {
        let rule = hurried.policy.rules.get(usize::from(hurried.rule));
        let (true, Some(rule), Some(before)) = (hurried.asks, rule, hurried.before) else { return false };
        let facts = self.scope_facts(&hurried.policy, hurried.rule, hurried.subject, hurried.scope, now, with);
        facts.is_some_and(|facts| recovered(&hurried.notice, rule, &before, &facts))
    }
}
