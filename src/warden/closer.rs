//! A closer look before a kill, where the tree may lack something: the scout takes it, and the
//! verdict waits for that.
//!
//! Two things can be missing. The kernel counts other groups than the tree has: below the victim
//! one that came a moment ago may have to live, and where nobody is to be killed one that came a
//! moment ago may be the one who has to go. Or something would have to be opened while the node is
//! out of memory, and the warden, which may be the one who has to end that, must not wait for an
//! open. Either way nobody dies on half a look: what waits is judged anew on what there is then. It
//! is judged on one closer look, not on a second: who makes groups all the time is not out of
//! reach.
//!
//! Nor does whoever makes them keep the rescue waiting. A glance ([`crate::sense::glance`]) is
//! taken at the same time, and if that is done first and finds nobody who must live, the victim
//! dies. A victim that neither has cleared by [`LOOK_LIMIT`] is spared as unknown for ten seconds,
//! unless the scout is done with it before, and the next candidate follows.

use std::time::Duration;

use super::Warden;
use super::climbs::Means;
use super::pending::{Pending, is_event, lasts};
use crate::cgroup::GroupId;
use crate::decide::verdict::Notice;
use crate::gather::court::Ruling;
use crate::metrics::counters::Dropped;
use crate::policy::model::{AmongGroups, Policy, Victim};
use crate::sense::glance::LOOK_LIMIT;
use crate::sense::tree::{Slot, Tree};

/// Stall and levels that were noticed longer ago than this are no fresh evidence: what lasts is
/// noticed again.
const STALE: Duration = Duration::from_millis(500);

/// For how many rules and subjects it is remembered that a look came too late: many subjects come
/// and go.
const TOO_LATE: usize = 64;

/// What comes of looking at a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A ruling.
    Given(Ruling),
    /// It waits for a closer look.
    Postponed,
}

/// A judgement that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The group that is looked at.
    on: GroupId,
    /// What is to be judged: the last notice of it.
    pending: Pending,
    /// When the look was asked for.
    since: Duration,
    /// It is the victim that is looked at: the look has a time limit.
    victim: bool,
}

/// What the last judgement asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    on: GroupId,
    victim: bool,
}

/// What waits for a closer look.
#[derive(Debug, Default)]
pub(super) struct Closer {
    /// Judgements, each with the group that is looked at for it.
    waiting: Vec<Waiting>,
    /// The answer to a hold waits for a look at this group.
    hold: Option<GroupId>,
    asked: Option<Asked>,
    /// Groups that were looked at closely, and subjects whose judgement waited for that, in this
    /// turn.
    looked: Vec<GroupId>,
    /// Subjects whose judgement goes on in this turn with what could be opened until now.
    opened: Vec<GroupId>,
    /// Victims for which the time of the look was over in this turn.
    overdue: Vec<GroupId>,
    /// Rules and subjects whose evidence was no longer fresh when the look was done.
    too_late: Vec<(u16, GroupId)>,
}

impl Closer {
    /// Whether a judgement for this rule and subject waits for the look at its victim already: then
    /// it is made with this notice, its last, when that is done; or with the one that waits, if that will not come again and this one
    /// does. To judge meanwhile would come to
    /// the same, and where thousands of groups have to be read for it, it would take the time and
    /// the processor that the look needs.
    pub(super) fn keeps(&mut self, pending: Pending) -> bool {
        let same = |one: &&mut Waiting| one.victim && (one.pending.rule, one.pending.subject) == (pending.rule, pending.subject);
        self.waiting.iter_mut().find(same).map(|one| one.pending = weightier(pending, one.pending)).is_some()
    }

    /// Keeps a judgement that was postponed.
    pub(super) fn postpone(&mut self, pending: Pending, now: Duration) {
        let Some(Asked { on, victim }) = self.asked.take() else { return };
        let (mut pending, mut since) = (pending, now);
        self.waiting.retain(|other| {
            let same = (other.pending.rule, other.pending.subject) == (pending.rule, pending.subject);
            if same && other.on == on {
                // A later notice: the look goes on.
                since = other.since;
            }
            if same {
                pending = weightier(pending, other.pending);
            }
            !same
        });
        self.waiting.push(Waiting { on, pending, since, victim });
    }

    /// The answer to a hold was postponed.
    pub(super) fn postpone_hold(&mut self) {
        self.hold = self.asked.take().map(|asked| asked.on);
    }

    /// When the time of a look is over.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.waiting.iter().filter(|one| one.victim).map(|one| one.since + LOOK_LIMIT).min()
    }

    /// A group for whose look the time is over.
    fn next_overdue(&self, now: Duration) -> Option<GroupId> {
        self.waiting.iter().find(|one| one.victim && one.since + LOOK_LIMIT <= now).map(|one| one.on)
    }

    /// Another policy has other rules.
    pub(super) fn policy_replaced(&mut self) {
        self.too_late.clear();
    }

    /// Lets those go for which `keeps` says no.
    pub(super) fn retain(&mut self, mut keeps: impl FnMut(&mut Pending) -> bool) {
        self.waiting.retain_mut(|one| keeps(&mut one.pending));
    }

    /// Whether the last look for this rule and subject came too late to be used; asked once.
    fn take_too_late(&mut self, rule: u16, subject: GroupId) -> bool {
        let before = self.too_late.len();
        self.too_late.retain(|other| *other != (rule, subject));
        self.too_late.len() < before
    }

    fn awaits(&self, group: GroupId) -> bool {
        self.hold == Some(group) || self.waiting.iter().any(|one| one.on == group)
    }

    /// The look at `group` is done, or its time is over: what waited for it goes to `resumed`,
    /// which says whether it is still fresh. Whether the answer to a hold did.
    fn done(&mut self, group: GroupId, mut resumed: impl FnMut(Pending) -> bool) -> bool {
        let Closer { waiting, looked, opened, overdue, too_late, .. } = self;
        waiting.retain(|Waiting { on, pending, .. }| {
            if *on == group {
                opened.push(pending.subject);
                if !overdue.contains(&group) {
                    looked.push(pending.subject);
                }
                let whose = (pending.rule, pending.subject);
                too_late.retain(|other| *other != whose);
                if !resumed(*pending) {
                    too_late.truncate(TOO_LATE - 1);
                    too_late.push(whose);
                }
            }
            *on != group
        });
        self.hold.take_if(|on| *on == group).is_some()
    }
}

/// Which of two notices for the same rule and subject is judged: the new one, unless the other will not come again.
fn weightier(new: Pending, known: Pending) -> Pending {
    if lasts(&known.notice) > lasts(&new.notice) { known } else { new }
}

impl Warden {
    /// The judgement, on a tree that has all that the kernel has below the victim, or wherever one
    /// might be; [`Word::Postponed`] until that was looked at. `None`: the subject is gone.
    pub(super) fn rule_on(&mut self, rule: u16, slot: Slot, subject: GroupId, notice: &Notice, begun: Duration) -> Option<Word> {
        let Warden { clock, court, senses, climbs, closer, policy, .. } = self;
        loop {
            let ruling =
                court.judge(policy, usize::from(rule), slot, notice, &[], begun, senses, |tree, slot| climbs.is_dying(tree, slot))?;
            let (top, victim) = match ruling {
                Ruling::Kill { victim, .. } => (Some(victim), true),
                Ruling::NoVictim => (stage(policy, rule, slot), false),
                Ruling::NotConfirmed => (None, false),
            };
            let top = match top {
                Some(slot) => Some((slot, senses.tree.get(slot)?.group.id)),
                None => None,
            };
            let surprising =
                top.filter(|(slot, id)| !closer.looked.contains(id) && !senses.knows_all_below(*slot, court.groups_below(*slot)));
            if let Some((_, id)) = surprising.filter(|(_, id)| victim && closer.overdue.contains(id))
                // Each round spares one more, for whom there must be room: the rounds have an end.
                && !senses.glances.doubts(begun, id)
                && senses.glances.doubt(begun, id)
            {
                // It is unknown now: the next candidate follows.
                continue;
            }
            let unheld = !court.unheld.is_empty() && !closer.opened.contains(&subject);
            // Looks that always come too late must not keep it from being said that there is
            // nobody.
            let never = ruling == Ruling::NoVictim && (surprising.is_some() || unheld) && closer.take_too_late(rule, subject);
            if (surprising.is_none() && !unheld) || never {
                return Some(Word::Given(ruling));
            }
            let on = surprising.map_or(subject, |(_, id)| id);
            if !closer.awaits(on) {
                senses.tree.inspect(on, surprising.is_some(), &court.unheld);
            }
            let victim = victim && surprising.is_some();
            // A glance opens nothing that has to be held.
            if let Some((top, _)) = surprising.filter(|_| victim && court.unheld.is_empty()) {
                let spares = policy.rules.get(usize::from(rule)).is_none_or(|rule| rule.spare_unkillable);
                // Its time begins now: the judgement may have taken a part of a second.
                senses.glances.ask(clock.now(), &senses.tree, top, spares);
            }
            closer.asked = Some(Asked { on, victim });
            return Some(Word::Postponed);
        }
    }

    /// Takes up again what waited for a closer look that is done by now, or whose time is over; to
    /// be judged in this turn. Whether there was anything.
    pub(super) fn take_up(&mut self) -> bool {
        let now = self.clock.now();
        let mut any = false;
        while let Some(group) = self.senses.tree.take_inspected() {
            self.senses.glances.trust(group);
            self.looked_at(group, now, STALE);
            any = true;
        }
        while let Some(group) = self.senses.glances.take(now) {
            self.looked_at(group, now, STALE);
            any = true;
        }
        while let Some(group) = self.closer.next_overdue(now) {
            self.closer.overdue.push(group);
            self.take_up_after(group, now, LOOK_LIMIT + STALE);
            any = true;
        }
        any
    }

    /// A look is done.
    fn looked_at(&mut self, group: GroupId, now: Duration, stale: Duration) {
        self.closer.looked.push(group);
        self.take_up_after(group, now, stale);
        let Warden { clock, court, senses, history, records, poller, climbs, switches, .. } = self;
        climbs.inspected(group, &mut Means { clock, court, senses, history, records, poller, switches });
    }

    /// What waited for a look at this group is judged in this turn, unless it is about what was
    /// noticed too long ago.
    fn take_up_after(&mut self, group: GroupId, now: Duration, stale: Duration) {
        let Warden { pending, senses, closer, .. } = self;
        let resumed = |one: Pending| {
            let fresh = is_event(&one.notice) || now.saturating_sub(one.arrived) < stale;
            if fresh {
                senses.notice(pending, one);
            } else {
                senses.let_go.count(Dropped::TooLate, 1);
            }
            fresh
        };
        if closer.done(group, resumed) {
            self.senses.signal.answer_again();
            if let Some(root) = self.senses.tree.get(Tree::ROOT) {
                self.closer.looked.push(root.group.id);
                self.closer.opened.push(root.group.id);
            }
        }
    }

    /// A look is good for the turn in which it is done.
    pub(super) fn forget_looks(&mut self) {
        self.closer.looked.clear();
        self.closer.opened.clear();
        self.closer.overdue.clear();
    }
}

/// The group below which all candidates of a rule stand, where they are others than its subject.
fn stage(policy: &Policy, rule: u16, subject: Slot) -> Option<Slot> {
    match &policy.rules.get(usize::from(rule))?.victim {
        Victim::Subject => None,
        Victim::Among(among) => match among.groups {
            AmongGroups::Globs(_) => Some(Tree::ROOT),
            AmongGroups::Leaves => Some(subject),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::model::{EventKind, Psi, PsiKind};

    fn pending(subject: u64, to: u64) -> Pending {
        let notice = Notice::Event(EventKind::OomKill, 0, to);
        Pending { rule: 0, subject: GroupId(subject), notice, arrived: Duration::ZERO, weight: (0, 0) }
    }

    fn asked(on: u64) -> Option<Asked> {
        Some(Asked { on: GroupId(on), victim: true })
    }

    #[test]
    fn a_judgement_waits_once_for_its_look_and_with_its_last_notice() {
        let mut closer = Closer::default();
        for to in 1..=3 {
            closer.asked = asked(9);
            closer.postpone(pending(1, to), Duration::from_millis(to));
        }
        closer.asked = asked(8);
        closer.postpone(pending(2, 1), Duration::from_millis(4));
        assert_eq!(closer.next_due(), Some(Duration::from_millis(1) + LOOK_LIMIT), "from when it was asked for first");
        assert_eq!(closer.next_overdue(Duration::from_millis(1000)), None);
        assert_eq!(closer.next_overdue(Duration::from_millis(1001)), Some(GroupId(9)));
        let mut resumed = Vec::new();
        assert!(
            !closer.done(GroupId(9), |one| {
                resumed.push((one.subject, one.notice));
                true
            }),
            "no hold waited"
        );
        assert_eq!(resumed, [(GroupId(1), Notice::Event(EventKind::OomKill, 0, 3))]);
        assert_eq!(closer.looked, [GroupId(1)], "the subject");
        assert!(closer.awaits(GroupId(8)) && !closer.awaits(GroupId(9)));
    }

    #[test]
    fn a_notice_of_what_waits_for_its_victim_is_kept_and_none_of_anything_else() {
        let mut closer = Closer::default();
        assert!(!closer.keeps(pending(1, 1)), "nothing waits");
        closer.asked = asked(9);
        closer.postpone(pending(1, 1), Duration::ZERO);
        closer.asked = Some(Asked { on: GroupId(8), victim: false });
        closer.postpone(pending(2, 1), Duration::ZERO);
        assert!(closer.keeps(pending(1, 2)));
        assert!(!closer.keeps(pending(2, 2)), "such a look has no limit, and a victim may come meanwhile");
        assert!(!closer.keeps(pending(3, 1)) && !closer.keeps(Pending { rule: 1, ..pending(1, 3) }));
        let mut resumed = Vec::new();
        closer.done(GroupId(9), |one| {
            resumed.push(one.notice);
            true
        });
        assert_eq!(resumed, [Notice::Event(EventKind::OomKill, 0, 2)]);
        assert!(!closer.keeps(pending(1, 3)), "the look is done");
    }

    /// What comes again is judged by its last notice; what does not must not be replaced by it, and a kill by the kernel by nothing else.
    #[test]
    fn a_notice_that_comes_again_takes_the_place_of_no_event() {
        let psi = Notice::Psi(Psi { kind: PsiKind::Full, stall: Duration::from_millis(100), window: Duration::from_secs(1) });
        let event = |kind| Notice::Event(kind, 0, 1);
        let (max, kill) = (event(EventKind::Max), event(EventKind::OomKill));
        for (known, new, judged) in
            [(kill, psi, kill), (max, psi, max), (psi, max, max), (psi, psi, psi), (kill, max, kill), (max, kill, kill), (max, max, max)]
        {
            let with = |notice: Notice| Pending { notice, ..pending(1, 1) };
            for keeps in [true, false] {
                let mut closer = Closer { asked: Some(Asked { on: GroupId(9), victim: keeps }), ..Closer::default() };
                closer.postpone(with(known), Duration::ZERO);
                assert_eq!(closer.keeps(with(new)), keeps);
                if !keeps {
                    closer.asked = Some(Asked { on: GroupId(9), victim: false });
                    closer.postpone(with(new), Duration::ZERO);
                }
                let mut resumed = Vec::new();
                closer.done(GroupId(9), |one| {
                    resumed.push(one.notice);
                    true
                });
                assert_eq!(resumed, [judged], "{new:?} after {known:?}");
            }
        }
    }

    #[test]
    fn a_look_that_came_too_late_is_remembered_until_it_is_asked_for_or_another_came_in_time() {
        let mut closer = Closer::default();
        let mut look = |fresh: bool| {
            closer.asked = asked(9);
            closer.postpone(pending(1, 1), Duration::ZERO);
            closer.done(GroupId(9), |_| fresh);
            closer.take_too_late(0, GroupId(1))
        };
        assert!(look(false) && !look(true));
        for fresh in [false, false, true] {
            closer.asked = asked(9);
            closer.postpone(pending(1, 1), Duration::ZERO);
            closer.done(GroupId(9), |_| fresh);
        }
        assert!(!closer.take_too_late(0, GroupId(1)), "the last one was in time");
    }

    #[test]
    fn only_the_look_that_it_waits_for_brings_a_hold_back() {
        let mut closer = Closer { asked: asked(9), ..Closer::default() };
        closer.postpone_hold();
        assert!(!closer.done(GroupId(8), |_| true));
        assert!(closer.awaits(GroupId(9)));
        assert!(closer.done(GroupId(9), |_| true) && !closer.done(GroupId(9), |_| true));
    }
}
