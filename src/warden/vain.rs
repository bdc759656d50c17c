//! Levels that no kill could lift. They are judged again after each cool-down, since a group that
//! grows can change the answer, and told less and less often while nothing changes. Stall and
//! events of the same rule and subject don't wait for that.

use std::time::Duration;

use crate::cgroup::GroupId;

/// Pairs of rule and subject that are remembered; beyond them the one told longest ago is told
/// again.
const REMEMBERED: usize = 64;
/// The shortest time from one judgement to the next: what holds the memory is looked up each time.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest: a group that grows can change the answer.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// The longest time from one record to the next.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
struct Entry {
    rule: u16,
    subject: GroupId,
    judge_at: Duration,
    tell_at: Duration,
    pause: Duration,
}

/// What was found to be in vain.
#[derive(Debug)]
pub(super) struct Vain(Vec<Entry>);

impl Default for Vain {
    fn default() -> Vain {
        Vain(Vec::with_capacity(REMEMBERED))
    }
}

impl Vain {
    /// Whether a level was judged a moment ago.
    pub(super) fn is_resting(&self, now: Duration, rule: u16, subject: GroupId) -> bool {
        self.0.iter().any(|entry| entry.rule == rule && entry.subject == subject && now < entry.judge_at)
    }

    /// A kill would be in vain; whether that is to be told.
    pub(super) fn note(&mut self, now: Duration, rule: u16, subject: GroupId, cooldown: Duration) -> bool {
        let cooldown = cooldown.clamp(SHORTEST, LONGEST_LOOK);
        let known = self.0.iter_mut().find(|entry| entry.rule == rule && entry.subject == subject);
        if let Some(entry) = known {
            entry.judge_at = now + cooldown;
            if now < entry.tell_at {
                return false;
            }
            let is_old = now.saturating_sub(entry.tell_at) >= LONGEST;
            entry.pause = if is_old { cooldown } else { entry.pause.saturating_mul(2).min(LONGEST) };
            entry.tell_at = now + entry.pause;
            return true;
        }
        let entry = Entry { rule, subject, judge_at: now + cooldown, tell_at: now + cooldown, pause: cooldown };
        if self.0.len() < REMEMBERED {
            self.0.push(entry);
        } else if let Some(oldest) = self.0.iter_mut().min_by_key(|entry| entry.tell_at) {
            *oldest = entry;
        }
        true
    }

    /// Somebody died, so the next time is another one.
    pub(super) fn forget(&mut self, rule: u16, subject: GroupId) {
        self.0.retain(|entry| entry.rule != rule || entry.subject != subject);
    }

    /// Another policy has other rules.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(2);

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_in_vain_is_judged_after_each_cooldown_and_told_ever_less_often() {
        let (mut vain, group) = (Vain::default(), GroupId(7));
        let mut told = Vec::new();
        for now in (0..200).step_by(2) {
            assert!(!vain.is_resting(at(now), 0, group), "{now}");
            if vain.note(at(now), 0, group, COOLDOWN) {
                told.push(now);
            }
            assert!(vain.is_resting(at(now + 1), 0, group) && !vain.is_resting(at(now + 1), 1, group));
        }
        assert_eq!(told, [0, 2, 6, 14, 30, 62, 122, 182]);
        // After a long silence it is news again, and after a kill.
        assert!(vain.note(at(1000), 0, group, COOLDOWN));
        assert!(vain.note(at(1002), 0, group, COOLDOWN) && !vain.note(at(1004), 0, group, COOLDOWN));
        vain.forget(0, group);
        assert!(vain.note(at(1005), 0, group, COOLDOWN));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut vain = Vain::default();
        let capacity = vain.0.capacity();
        for id in 0..1000 {
            assert!(vain.note(at(id), 0, GroupId(id), COOLDOWN));
        }
        assert_eq!((vain.0.len(), vain.0.capacity()), (REMEMBERED, capacity));
        assert!(vain.is_resting(at(1000), 0, GroupId(999)));
        vain.clear();
        assert!(!vain.is_resting(at(1000), 0, GroupId(999)));
    }
}
