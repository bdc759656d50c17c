//! Between the server and the warden: orders go one way, how the warden stands goes the other.
//!
//! The warden waits for nobody. It takes an order when it was woken for one, and it writes down how it stands only if nobody is reading that
//! at the moment. Whoever reads copies within the lock and does everything else outside of it. Nothing is allocated on the
//! warden's side.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;

use super::by::By;
use crate::decide::breaker::Open;
use crate::sense::lms::Report;

/// Open breakers that are named; beyond that they are only counted.
pub const MOST_BREAKERS: usize = 64;
/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// What the on-call wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// No deed for so long, at most [`LONGEST_PAUSE`]. Replaces a pause that is under way.
    Pause(Duration),
    /// Deeds again, at once.
    Resume,
}

/// A number to ask after an order by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The kernel module, as the warden deals with it.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// What it said last.
    pub report: Report,
    /// The warden is its handler: it answers holds and leaves a table.
    pub handler: bool,
}

/// How the warden stands.
#[derive(Debug)]
pub struct Standing {
    /// Until when deeds are paused, if they are: by a clock that nobody sets.
    pub paused_until: Option<Instant>,
    /// Who paused them, if that is known.
    pub paused_by: Option<By>,
    /// Open breakers, at most [`MOST_BREAKERS`], with the time from `shown` until each closes in [`Open::until`].
    pub breakers: Vec<Open>,
    /// How many are open.
    pub breakers_open: usize,
    /// When this was shown.
    pub shown: Instant,
    /// The kernel module, where it is loaded and understood.
    pub module: Option<Module>,
    /// Groups in the tree.
    pub groups: usize,
    /// Those that are read on a timer, because there was no watch or no descriptor for them.
    pub timed_groups: usize,
    /// Groups whose PSI triggers are armed.
    pub armed: usize,
    /// Triggers that the kernel refused, and which are read on a timer instead.
    pub timed_triggers: usize,
}

impl Default for Standing {
    fn default() -> Standing {
        Standing {
            paused_until: None,
            paused_by: None,
            breakers: Vec::with_capacity(MOST_BREAKERS),
            breakers_open: 0,
            shown: Instant::now(),
            module: None,
            groups: 0,
            timed_groups: 0,
            armed: 0,
            timed_triggers: 0,
        }
    }
}

/// Shared by the server and the warden.
#[derive(Debug)]
pub struct Board {
    mail: Arc<EventFd>,
    order: Mutex<Option<(Order, Option<By>)>>,
    asked: AtomicU64,
    done: AtomicU64,
    standing: Mutex<Standing>,
    /// Rung when the warden has shown how it stands.
    shown: OnceLock<Arc<EventFd>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every operation, whoever panicked meanwhile.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// An empty one. `mail` wakes the warden.
    #[must_use]
    pub fn new(mail: Arc<EventFd>) -> Board {
        Board {
            mail,
            order: Mutex::new(None),
            asked: AtomicU64::new(0),
            done: AtomicU64::new(0),
            standing: Mutex::default(),
            shown: OnceLock::new(),
        }
    }

    /// `bell` is rung whenever the warden has shown how it stands.
    pub fn on_shown(&self, bell: Arc<EventFd>) {
        // Set once, at the start.
        let _ = self.shown.set(bell);
        if let Some(bell) = self.shown.get() {
            let _ = bell.write(1);
        }
    }

    /// As [`Board::order_by`], by nobody in particular.
    pub fn order(&self, order: Order) -> Ticket {
        self.order_by(order, None)
    }

    /// Leaves an order, with who gave it, and wakes the warden. One that was not taken yet is
    /// replaced: the last word counts.
    pub fn order_by(&self, order: Order, by: Option<By>) -> Ticket {
        let mut place = lock(&self.order);
        *place = Some((order, by));
        let ticket = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        drop(place);
        // The only failure is a counter at its limit: then the warden is being woken already.
        let _ = self.mail.write(1);
        Ticket(ticket)
    }

    /// Whether the warden has done as it was told.
    #[must_use]
    pub fn is_done(&self, ticket: Ticket) -> bool {
        self.done.load(Ordering::SeqCst) >= ticket.0
    }

    /// For the warden: an order, who gave it, and what to say when it is done.
    #[must_use]
    pub fn take_order(&self) -> Option<(Order, Option<By>, Ticket)> {
        if self.asked.load(Ordering::SeqCst) == self.done.load(Ordering::SeqCst) {
            return None;
        }
        let mut place = lock(&self.order);
        let ticket = Ticket(self.asked.load(Ordering::SeqCst));
        place.take().map(|(order, by)| (order, by, ticket))
    }

    /// For the warden: it is done.
    pub fn done(&self, ticket: Ticket) {
        self.done.store(ticket.0, Ordering::SeqCst);
    }

    /// For the warden: writes down how it stands. `false` if somebody is reading: try again a little later.
    pub fn show(&self, write: impl FnOnce(&mut Standing)) -> bool {
        let Ok(mut standing) = self.standing.try_lock() else { return false };
        write(&mut standing);
        drop(standing);
        if let Some(bell) = self.shown.get() {
            // Full means that it rings already.
            let _ = bell.write(1);
        }
        true
    }

    /// How the warden stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        // Made outside of the lock, so that the warden never meets somebody who waits for memory in it.
        let mut copy = Standing::default();
        let standing = lock(&self.standing);
        let Standing { paused_until, paused_by, ref breakers, breakers_open, shown, module, groups, timed_groups, armed, timed_triggers } =
            *standing;
        copy.breakers.extend(breakers.iter().take(MOST_BREAKERS).cloned());
        let breakers = std::mem::take(&mut copy.breakers);
        drop(standing);
        Standing { paused_until, paused_by, breakers, breakers_open, shown, module, groups, timed_groups, armed, timed_triggers }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::EfdFlags;

    use super::*;

    fn board() -> (Board, Arc<EventFd>) {
        let mail = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("a descriptor"));
        (Board::new(Arc::clone(&mail)), mail)
    }

    #[test]
    fn an_order_wakes_the_warden_and_the_last_word_counts() {
        let (board, mail) = board();
        assert_eq!(board.take_order(), None);
        let by = Some(By::new(1, 2, b"x"));
        let first = board.order(Order::Pause(Duration::from_secs(1)));
        let second = board.order_by(Order::Resume, by);
        assert_eq!(mail.read().ok(), Some(2));
        let (order, whose, ticket) = board.take_order().expect("an order");
        assert_eq!((order, whose, board.take_order()), (Order::Resume, by, None));
        assert!(!board.is_done(first) && !board.is_done(second));
        board.done(ticket);
        assert!(board.is_done(first) && board.is_done(second));
        let third = board.order(Order::Resume);
        assert!(!board.is_done(third) && board.take_order().is_some());
    }

    #[test]
    fn the_warden_does_not_wait_for_who_reads() {
        let (board, _) = board();
        let reading = lock(&board.standing);
        assert!(!board.show(|_| {}));
        drop(reading);
        assert!(board.show(|standing| standing.groups = 7));
        assert_eq!(board.standing().groups, 7);
    }
}
