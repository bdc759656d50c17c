//! When the first SIGKILL of a ladder went out, told by the actor at that moment.
//!
//! A deed's own report comes when all of it is done: memory is released, cgroup.kill is written,
//! which may have waited behind a mkdir. The victim may be gone by then, and the warden has to know
//! whether that was the kill's doing.
//!
//! One word holds the number of the victim and the time, so that a late actor says nothing about
//! the victim that came after its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bits for the time: microseconds for nine years.
const TIME_BITS: u32 = 48;
const TIME: u64 = (1 << TIME_BITS) - 1;

#[derive(Debug)]
struct Shared {
    since: Instant,
    word: AtomicU64,
}

/// The ladder's end. Makes and drops tickets without allocating.
#[derive(Debug)]
pub struct FirstKill(Arc<Shared>);

/// An actor's end: for one victim.
#[derive(Clone, Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    victim: u64,
}

impl Default for FirstKill {
    fn default() -> FirstKill {
        FirstKill(Arc::new(Shared { since: Instant::now(), word: AtomicU64::new(0) }))
    }
}

impl FirstKill {
    /// Another victim: nothing was sent to it yet.
    pub fn turn_to_next(&self) {
        let victim = self.0.word.load(Ordering::SeqCst) >> TIME_BITS;
        self.0.word.store(victim.wrapping_add(1) << TIME_BITS, Ordering::SeqCst);
    }

    /// For an actor that is to kill the present victim.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket { shared: Arc::clone(&self.0), victim: self.0.word.load(Ordering::SeqCst) >> TIME_BITS << TIME_BITS }
    }

    /// When the present victim was sent its first SIGKILL, if it was.
    #[must_use]
    pub fn sent(&self) -> Option<Instant> {
        let micros = self.0.word.load(Ordering::SeqCst) & TIME;
        (micros > 0).then(|| self.0.since + Duration::from_micros(micros - 1))
    }
}

impl Ticket {
    /// SIGKILL is on its way to somebody. Only the first one is kept.
    pub fn sent(&self) {
        let micros = u64::try_from(self.shared.since.elapsed().as_micros()).unwrap_or(TIME) + 1;
        // Fails where one was sent before, or the ladder has turned to another victim.
        let _ = self.shared.word.compare_exchange(self.victim, self.victim | (micros & TIME), Ordering::SeqCst, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_is_kept_and_a_late_actor_says_nothing_of_the_next_victim() {
        let kill = FirstKill::default();
        kill.turn_to_next();
        let (one, other) = (kill.ticket(), kill.ticket());
        assert_eq!(kill.sent(), None);
        one.sent();
        let first = kill.sent().expect("sent");
        std::thread::sleep(Duration::from_millis(2));
        other.sent();
        assert_eq!(kill.sent(), Some(first));
        kill.turn_to_next();
        assert_eq!(kill.sent(), None);
        other.sent();
        assert_eq!(kill.sent(), None, "that was the former victim's");
        kill.ticket().sent();
        assert!(kill.sent().is_some_and(|sent| sent >= first));
    }

    #[test]
    fn victims_are_told_apart_for_ever() {
        let kill = FirstKill::default();
        for _ in 0..=1 << 16 {
            kill.turn_to_next();
        }
        assert_eq!(kill.sent(), None);
        kill.ticket().sent();
        assert!(kill.sent().is_some());
    }
}
