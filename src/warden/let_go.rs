//! Notices that are let go because there is no room or no time for them. What lasts is noticed
//! again; an event is not. Either way it is counted, and said now and then.

use std::time::Duration;

use prometheus::IntCounter;

use crate::metrics::counters::Dropped;

/// How often it is said.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Counts them. Allocates nothing.
#[derive(Debug)]
pub struct LetGo {
    counters: [IntCounter; Dropped::ALL.len()],
    untold: [u64; Dropped::ALL.len()],
    said: Option<Duration>,
}

impl LetGo {
    /// Into these counters, in the order of [`Dropped::ALL`].
    #[must_use]
    pub fn new(counters: [IntCounter; Dropped::ALL.len()]) -> LetGo {
        LetGo { counters, untold: [0; Dropped::ALL.len()], said: None }
    }

    /// So many were.
    pub fn count(&mut self, why: Dropped, notices: u64) {
        self.counters[why as usize].inc_by(notices);
        self.untold[why as usize] += notices;
    }

    /// Says what was let go since it was last said, if that is long enough ago.
    pub fn tell(&mut self, now: Duration) {
        let all: u64 = self.untold.iter().sum();
        if all == 0 || self.said.is_some_and(|said| now.saturating_sub(said) < SAID_EVERY) {
            return;
        }
        self.said = Some(now);
        for (why, untold) in Dropped::ALL.into_iter().zip(std::mem::take(&mut self.untold)) {
            if untold > 0 {
                tracing::warn!("notices were let go: {untold} since this was last said, because {}", because(why));
            }
        }
    }
}

/// Why, for people, and what follows from it.
fn because(why: Dropped) -> &'static str {
    match why {
        Dropped::QueueFull => "more came at once than can wait to be judged: what lasts is noticed again, an event is not",
        Dropped::TroubledFull => {
            "more groups were in trouble at once than can be given PSI triggers in one turn: who still is tells it again"
        }
        Dropped::NoPlace => "every place for a ladder is taken: what lasts is noticed again",
        Dropped::TooLate => "they were too old when the closer look at their groups was done: what lasts is noticed again",
        Dropped::TableFull => "cool-downs and kept events of more rules and subjects than are remembered came together",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::counters::Counters;

    #[test]
    fn what_is_let_go_is_counted_at_once_and_said_once_a_minute() {
        let counters = Counters::new().expect("counters");
        let mut let_go = LetGo::new(counters.notices_dropped());
        let at = Duration::from_secs;
        let_go.tell(at(1));
        assert_eq!(let_go.said, None, "nothing was");
        let_go.count(Dropped::QueueFull, 3);
        let_go.tell(at(1));
        assert_eq!((let_go.said, let_go.untold), (Some(at(1)), [0; 5]));
        let_go.count(Dropped::TooLate, 2);
        let_go.tell(at(60));
        assert_eq!(let_go.untold.iter().sum::<u64>(), 2, "not again so soon");
        let_go.tell(at(61));
        assert_eq!((let_go.said, let_go.untold), (Some(at(61)), [0; 5]));
        let text = counters.encode().expect("text");
        for (reason, count) in [("queue_full", 3), ("troubled_full", 0), ("no_place", 0), ("too_late", 2), ("table_full", 0)] {
            assert!(text.contains(&format!("oomwarden_notices_dropped_total{{reason=\"{reason}\"}} {count}\n")), "{text}");
        }
    }
}
