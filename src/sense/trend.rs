//! What usage and stall did over the last seconds, for rules that rank by growth or pressure. Kept only where one does.

use std::collections::HashMap;
use std::time::Duration;

use super::tree::Tree;
use crate::cgroup::GroupId;
use crate::cgroup::group::{File, ReadBuf};
use crate::cgroup::parse;

/// How many notes are kept: growth is over the last ten seconds.
const NOTES: usize = 11;

/// Notes of one group.
#[derive(Clone, Debug, Default)]
struct Trend {
    usage: [Option<(Duration, u64)>; NOTES],
    next: usize,
    stall: Option<(Duration, u64)>,
    pressure: Option<Duration>,
}

impl Trend {
    fn note(&mut self, now: Duration, usage: Option<u64>, stalled_us: Option<u64>) {
        if let Some(usage) = usage {
            self.usage[self.next] = Some((now, usage));
            self.next = (self.next + 1) % NOTES;
        }
        if let Some(total) = stalled_us {
            let before = self.stall.replace((now, total));
            self.pressure =
                before.map(|(then, was)| per_second(Duration::from_micros(total.saturating_sub(was)), now.saturating_sub(then)));
        }
    }

    /// Bytes a second from the oldest note to `usage` now.
    fn growth(&self, now: Duration, usage: u64) -> Option<i64> {
        let (then, was) = self.usage.iter().flatten().min_by_key(|(then, _)| *then)?;
        let micros = i128::try_from(now.saturating_sub(*then).as_micros()).ok().filter(|micros| *micros > 0)?;
        i64::try_from((i128::from(usage) - i128::from(*was)) * 1_000_000 / micros).ok()
    }
}

fn per_second(stall: Duration, over: Duration) -> Duration {
    let share = stall.as_micros() * 1_000_000 / over.as_micros().max(1);
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

    /// Nobody looked for a while: stall since the last note says nothing about the last second.
    pub fn forget_stall(&mut self) {
        for trend in self.0.values_mut() {
            (trend.stall, trend.pressure) = (None, None);
        }
    }

    /// Forgets a group.
    pub fn forget(&mut self, group: GroupId) {
        self.0.remove(&group);
    }

    /// Bytes a second over the last ten seconds, if the group was noted.
    #[must_use]
    pub fn growth(&self, group: GroupId, now: Duration, usage: Option<u64>) -> Option<i64> {
        self.0.get(&group)?.growth(now, usage?)
    }

    /// Full stall within the last second that was noted.
    #[must_use]
    pub fn pressure(&self, group: GroupId) -> Option<Duration> {
        self.0.get(&group)?.pressure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_per_second_over_the_oldest_note_that_is_kept() {
        let mut trend = Trend::default();
        assert_eq!(trend.growth(Duration::from_secs(1), 5), None);
        for second in 0..20u64 {
            trend.note(Duration::from_secs(second), Some(second * 1000), Some(second * 250_000));
        }
        assert_eq!(trend.growth(Duration::from_secs(20), 20_000), Some(1000));
        assert_eq!(trend.growth(Duration::from_secs(20), 0), Some(-818), "a group that let go shrinks");
        assert_eq!(trend.pressure, Some(Duration::from_millis(250)));
    }
}
