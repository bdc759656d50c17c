//! What usage and stall did over the last seconds, for rules that rank by growth or pressure. Kept only where one does.
//!
//! A judgement compares a fresh reading with what was noted before. A group whose creation was seen
//! began with neither usage nor stall, so it can be compared before there is a note of it. Of a
//! group that is not known from its beginning and of which there is no note nothing can be said,
//! unless it never stalled in its life.

use std::collections::HashMap;
use std::time::Duration;

use super::tree::Tree;
use crate::cgroup::GroupId;
use crate::cgroup::group::{File, ReadBuf};
use crate::cgroup::parse;

/// How many notes are kept: growth is over the last ten seconds.
const NOTES: usize = 11;

/// Growth is over as much time.
const GROWTH: Duration = Duration::from_secs(10);

/// A note of stall that is younger than this tells too little; the one before it is asked then.
const SETTLED: Duration = Duration::from_millis(500);

/// Nothing that happened within less than this does not mean that nothing happens.
const LEAST: Duration = Duration::from_millis(100);

/// Rates are by the second, and over less than one by as much as there is: a few milliseconds say
/// little of a second.
const SECOND: Duration = Duration::from_secs(1);

/// A total of memory.pressure, microseconds, and when it was read.
type Stall = (Duration, u64);

/// Notes of one group.
#[derive(Clone, Debug, Default)]
struct Trend {
    usage: [Option<(Duration, u64)>; NOTES],
    next: usize,
    /// The last note of stall, and the one before it.
    stall: [Option<Stall>; 2],
}

impl Trend {
    fn note(&mut self, now: Duration, usage: Option<u64>, stalled_us: Option<u64>) {
        if let Some(usage) = usage {
            self.usage[self.next] = Some((now, usage));
            self.next = (self.next + 1) % NOTES;
        }
        if let Some(total) = stalled_us {
            self.stall = [Some((now, total)), self.stall[0]];
        }
    }

    /// Bytes a second from the oldest note to `usage` now, or from the group's birth if that is
    /// seen and no longer ago.
    fn growth(&self, now: Duration, born: Option<Duration>, usage: u64) -> Option<i64> {
        let birth = born.filter(|born| now.saturating_sub(*born) <= GROWTH).map(|born| (born, 0));
        let noted = || self.usage.iter().flatten().min_by_key(|(then, _)| *then).copied();
        let (then, was) = birth.or_else(noted)?;
        let over = now.saturating_sub(then);
        if birth.is_none() && usage == was && over < LEAST {
            return None;
        }
        let micros = i128::try_from(over.max(SECOND).as_micros()).ok()?;
        i64::try_from((i128::from(usage) - i128::from(was)) * 1_000_000 / micros).ok()
    }

    /// Full stall within the last second: from a note that is old enough to the fresh reading, or
    /// else to the last note.
    fn pressure(&self, now: Duration, born: Option<Duration>, fresh: Option<u64>) -> Option<Duration> {
        let [last, before] = self.stall;
        let (end, total) = fresh.map(|total| (now, total)).or(last)?;
        if total == 0 {
            // Who never stalled did not in the last second.
            return Some(Duration::ZERO);
        }
        let birth = born.map(|born| (born, 0));
        let mut notes = [last, before, birth].into_iter().flatten();
        let oldest = notes.clone().last()?;
        let (then, was) = notes.find(|(then, _)| end.saturating_sub(*then) >= SETTLED).unwrap_or(oldest);
        let (stalled, over) = (total.saturating_sub(was), end.saturating_sub(then));
        if birth.is_none() && stalled == 0 && over < LEAST {
            return None;
        }
        Some(per_second(Duration::from_micros(stalled), over))
    }
}

fn per_second(stall: Duration, over: Duration) -> Duration {
    let share = stall.as_micros() * 1_000_000 / over.max(SECOND).as_micros();
    Duration::from_micros(u64::try_from(share).unwrap_or(u64::MAX))
}

/// Notes of all candidates.
#[derive(Debug, Default)]
pub struct Trends(HashMap<GroupId, Trend>);

impl Trends {
    /// Notes usage and stall of every group that a rule's candidates may be among.
    pub fn note(&mut self, tree: &Tree, now: Duration, buffer: &mut ReadBuf) {
        for node in tree.slots().filter_map(|slot| tree.get(slot)).filter(|node| node.judged && node.has_memory) {
            let anon = node.group.read(File::Stat, buffer, parse::stat).ok().flatten().and_then(|stat| stat.anon);
            let swap = node.group.read(File::SwapCurrent, buffer, parse::value).ok().map(|swap| swap.unwrap_or(0));
            let usage = anon.zip(swap).map(|(anon, swap)| anon.saturating_add(swap));
            let stalled = node.group.read(File::Pressure, buffer, parse::pressure).ok().flatten().and_then(|pressure| pressure.full_us);
            self.0.entry(node.group.id).or_default().note(now, usage, stalled);
        }
    }

    /// Forgets a group.
    pub fn forget(&mut self, group: GroupId) {
        self.0.remove(&group);
    }

    /// Whether anything is noted: no rule asks for it otherwise.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        !self.0.is_empty()
    }

    /// Bytes a second over the last ten seconds, if the group was noted or its birth was seen.
    #[must_use]
    pub fn growth(&self, group: GroupId, now: Duration, born: Option<Duration>, usage: Option<u64>) -> Option<i64> {
        let usage = usage?;
        self.0.get(&group).map_or_else(|| Trend::default().growth(now, born, usage), |trend| trend.growth(now, born, usage))
    }

    /// Full stall within the last second; `fresh_us` is the total that was read a moment ago.
    #[must_use]
    pub fn pressure(&self, group: GroupId, now: Duration, born: Option<Duration>, fresh_us: Option<u64>) -> Option<Duration> {
        self.0.get(&group).map_or_else(|| Trend::default().pressure(now, born, fresh_us), |trend| trend.pressure(now, born, fresh_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn growth_is_per_second_over_the_oldest_note_that_is_kept() {
        let mut trend = Trend::default();
        assert_eq!(trend.growth(seconds(1), None, 5), None);
        for second in 0..20u64 {
            trend.note(seconds(second), Some(second * 1000), Some(second * 250_000));
        }
        assert_eq!(trend.growth(seconds(20), None, 20_000), Some(1000));
        assert_eq!(trend.growth(seconds(20), Some(seconds(0)), 20_000), Some(1000), "born longer ago than growth is looked at");
        assert_eq!(trend.growth(seconds(20), None, 0), Some(-818), "a group that let go shrinks");
    }

    #[test]
    fn a_young_group_whose_birth_was_seen_grew_from_nothing() {
        let trends = Trends::default();
        assert_eq!(trends.growth(GroupId(1), seconds(12), Some(seconds(10)), Some(5000)), Some(2500));
        assert_eq!(trends.growth(GroupId(1), millis(10_010), Some(seconds(10)), Some(5000)), Some(5000), "10 ms are no second");
        assert_eq!(trends.growth(GroupId(1), seconds(12), None, Some(5000)), None, "nothing is known of it");
        // A note from when it had filled already hides nothing of its growth.
        let mut trend = Trend::default();
        trend.note(seconds(11), Some(5000), None);
        assert_eq!(trend.growth(seconds(12), Some(seconds(10)), 5000), Some(2500));
    }

    #[test]
    fn a_fresh_reading_of_stall_beats_a_note() {
        let mut trend = Trend::default();
        trend.note(seconds(1), None, Some(1000));
        trend.note(seconds(2), None, Some(1000));
        assert_eq!(trend.pressure(millis(2900), None, None), Some(Duration::ZERO), "as of the last note");
        assert_eq!(trend.pressure(millis(2900), None, Some(801_000)), Some(millis(800)));
        // The last note is too young: over the time since the one before it.
        assert_eq!(trend.pressure(millis(2250), None, Some(251_000)), Some(millis(200)));
    }

    #[test]
    fn a_young_group_is_compared_from_its_birth_and_of_the_unknown_nothing_is_said() {
        let trends = Trends::default();
        let pressure = |born, total| trends.pressure(GroupId(1), seconds(12), born, total);
        assert_eq!(pressure(Some(seconds(10)), Some(1_000_000)), Some(millis(500)));
        assert_eq!(pressure(Some(millis(11_900)), Some(90_000)), Some(millis(90)));
        assert_eq!(pressure(Some(seconds(12)), Some(0)), Some(Duration::ZERO));
        assert_eq!(pressure(None, Some(90_000)), None, "when that was is not known");
        assert_eq!(pressure(None, Some(0)), Some(Duration::ZERO), "it never stalled");
        assert_eq!(pressure(Some(seconds(10)), None), None, "its total could not be read");
    }
}
