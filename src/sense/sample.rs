//! When to look again at what has no notice in the kernel: the further from the threshold and the slower the approach,
//! the later.

use std::time::Duration;

/// The soonest next look.
pub const SOONEST: Duration = Duration::from_millis(20);
/// The latest next look.
pub const LATEST: Duration = Duration::from_secs(2);

/// A watched number with its threshold. `distance` in bytes is how far it is from holding, 0 once it holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sampler {
    last: Option<(Duration, u64)>,
    since: Option<Duration>,
}

/// What a look told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The condition has held for its whole time: judge.
    pub held_for: Option<Duration>,
    /// Look again then.
    pub next: Duration,
}

impl Sampler {
    /// The judgement that the condition led to was put off: the time for which it held counts for the next one.
    pub fn held_before(&mut self, held: Duration) {
        self.since = self.since.map(|since| since.saturating_sub(held));
    }

    /// What was seen so far says nothing about now: nobody looked meanwhile.
    pub fn forget(&mut self) {
        *self = Sampler::default();
    }

    /// Takes a reading. `span` is the whole way to the threshold (its value in bytes), `lasting` how long the condition
    /// must hold. Times are since one fixed moment.
    pub fn look(&mut self, now: Duration, distance: u64, span: u64, lasting: Duration) -> Look {
        let before = self.last.replace((now, distance));
        if distance == 0 {
            let since = *self.since.get_or_insert(now);
            let held = now.saturating_sub(since);
            if held >= lasting {
                // The next judgement needs the condition to last anew.
                self.since = Some(now);
                return Look { held_for: Some(held), next: now + lasting.clamp(SOONEST, LATEST) };
            }
            return Look { held_for: None, next: now + (lasting - held).clamp(SOONEST, LATEST) };
        }
        self.since = None;
        Look { held_for: None, next: now + pause(before, now, distance, span) }
    }
}

/// Half the time that the approach seen last would take, at most a share of [`LATEST`] by how near the threshold is.
fn pause(before: Option<(Duration, u64)>, now: Duration, distance: u64, span: u64) -> Duration {
    let share = u128::from(distance.min(span)) * LATEST.as_nanos() / u128::from(span.max(1));
    let by_distance = nanos(share);
    let by_speed = before.and_then(|(then, farther)| {
        let (way, time) = (u128::from(farther.saturating_sub(distance)), now.saturating_sub(then).as_nanos());
        (way > 0 && time > 0).then(|| nanos(u128::from(distance) * time / way / 2))
    });
    by_speed.map_or(by_distance, |by_speed| by_speed.min(by_distance)).clamp(SOONEST, LATEST)
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn far_away_and_still_is_looked_at_rarely_near_or_fast_often() {
        let mut sampler = Sampler::default();
        assert_eq!(sampler.look(at(0), 1000 * MIB, 1000 * MIB, at(0)).next, LATEST);
        // Not moving, half way: half the longest pause.
        assert_eq!(sampler.look(at(2000), 500 * MIB, 1000 * MIB, at(0)).next, at(2000) + at(1000));
        // 400 MiB in 100 ms with 100 MiB to go: 25 ms at this speed, look after half of that, not below the soonest.
        assert_eq!(sampler.look(at(2100), 100 * MIB, 1000 * MIB, at(0)).next, at(2100) + SOONEST);
    }

    #[test]
    fn a_condition_must_last() {
        let mut sampler = Sampler::default();
        assert_eq!(sampler.look(at(0), 0, MIB, at(1000)), Look { held_for: None, next: at(1000) });
        assert_eq!(sampler.look(at(500), MIB, MIB, at(1000)).held_for, None);
        assert_eq!(sampler.look(at(600), 0, MIB, at(1000)).held_for, None);
        assert_eq!(sampler.look(at(1500), 0, MIB, at(1000)).held_for, None, "the dip at 500 ms began the time anew");
        assert_eq!(sampler.look(at(1600), 0, MIB, at(1000)).held_for, Some(at(1000)));
        assert_eq!(sampler.look(at(1700), 0, MIB, at(1000)).held_for, None, "and again after a judgement");
    }

    #[test]
    fn a_level_whose_verdict_was_put_off_need_not_last_anew() {
        let mut sampler = Sampler::default();
        sampler.look(at(0), 0, MIB, at(1000));
        let held = sampler.look(at(1000), 0, MIB, at(1000)).held_for.unwrap();
        sampler.held_before(held);
        assert_eq!(sampler.look(at(1100), 0, MIB, at(1000)).held_for, Some(at(1100)));
        sampler.held_before(at(1100));
        assert_eq!(sampler.look(at(1200), MIB, MIB, at(1000)).held_for, None);
        sampler.held_before(at(1100));
        assert_eq!(sampler.look(at(1300), 0, MIB, at(1000)).held_for, None, "it was over in between");
    }

    /// A level that was seen before and after a gap need not have lasted.
    #[test]
    fn samples_do_not_bridge_a_gap() {
        let mut sampler = Sampler::default();
        assert_eq!(sampler.look(at(0), 0, MIB, at(1000)).held_for, None);
        sampler.forget();
        assert_eq!(sampler.look(at(15_000), 0, MIB, at(1000)).held_for, None);
        assert_eq!(sampler.look(at(16_000), 0, MIB, at(1000)).held_for, Some(at(1000)));
    }

    #[test]
    fn without_a_time_it_holds_at_once() {
        assert_eq!(Sampler::default().look(at(5), 0, MIB, at(0)).held_for, Some(at(0)));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut sampler = Sampler::default();
        for distance in [u64::MAX, 1, u64::MAX - 1, 0] {
            let look = sampler.look(at(1), distance, 0, at(0));
            assert!(look.next <= at(1) + LATEST);
        }
    }
}
