//! A look at the victim before each rung but the first: who must live may have come into it since, and a trouble from before a
//! gap in the warden's attention may be over.

use super::*;

/// What a look at a victim before the next rung came to.
pub(super) enum Look {
    /// It may die.
    MayDie,
    /// Something in it must live, or can't be told from what must.
    MustLive,
    /// The scout looks closer first.
    Wait,
    /// The trouble was not noticed again after a gap in the warden's attention.
    Over,
}

impl Climbs {
    /// A closer look at this group is done: ladders whose next rung waited for it go on.
    pub fn inspected(&mut self, group: GroupId, with: &mut Means<'_>) {
        for place in 0..CLIMBS {
            if self.places[place].as_ref().is_some_and(|climb| climb.looking.is_some() && climb.victim.id == group)
                && let Some(mut climb) = self.places[place].take()
            {
                let next = climb.looked_at(with.clock.now());
                self.carry_on(place, climb, next, with);
            }
        }
    }

    /// Looks at a victim again before the next rung: who must live may have come into it since the last one, or a reload may
    /// protect it.
    pub(super) fn look_again(&mut self, climb: &mut Climb, now: Duration, with: &mut Means<'_>) -> Look {
        if climb.stale && !self.stands_again(climb, now, with) {
            return Look::Over;
        }
        let (looked, overdue) = (std::mem::take(&mut climb.looked), std::mem::take(&mut climb.overdue));
        let Some(slot) = with.senses.tree.slot_of(climb.victim.id) else { return Look::MayDie };
        let Some(rule) = climb.policy.rules.get(usize::from(climb.rule)) else { return Look::MustLive };
        let strike = with.court.examine(rule, climb.one, slot, now, &mut with.senses.sight(), |tree, slot| self.is_dying(tree, slot));
        climb.present = with.court.processes_below(slot);
        let surprising = !with.senses.knows_all_below(slot, with.court.groups_below(slot));
        let overdue = overdue && surprising;
        if overdue && with.senses.glances.doubt(now, climb.victim.id) {
            return Look::MustLive;
        }
        if (!looked || overdue) && (surprising || !with.court.unheld.is_empty()) {
            let Senses { tree, glances, .. } = &mut *with.senses;
            tree.inspect(climb.victim.id, surprising, &with.court.unheld);
            // A glance opens nothing that has to be held.
            if with.court.unheld.is_empty() {
                glances.ask(now, tree, slot, rule.spare_unkillable);
            }
            return Look::Wait;
        }
        // A process that was shielded from every kill meanwhile is not taken.
        let shielded = climb.ladder.one().is_some_and(|pid| with.court.is_unkillable(slot, pid, &mut with.senses.sight()));
        if strike.is_some() || shielded { Look::MustLive } else { Look::MayDie }
    }

    /// Whether a trouble that was noticed before a gap in the warden's attention is known to go on: the level, or the
    /// conditions, are looked at; stall and events have to be noticed again.
    pub(super) fn stands_again(&mut self, climb: &Climb, now: Duration, with: &mut Means<'_>) -> bool {
        let level = matches!(climb.notice, Notice::Usage(..) | Notice::Available(..) | Notice::SwapFree(..) | Notice::Lms(_));
        level && !self.is_over(climb, now, with)
    }
}
