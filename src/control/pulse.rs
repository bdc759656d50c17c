//! Whether the warden still turns: a question that wakes it, and its answer.
//!
//! The warden has no wake-ups of its own while nothing happens, so that a heartbeat would have to be one. Instead the
//! server asks when somebody wants to know (at most once a second), by an eventfd in the warden's epoll set.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Shared by the warden, which answers, and the server, which asks.
#[derive(Debug)]
pub struct Pulse {
    wake: EventFd,
    asked: AtomicU64,
    answered: AtomicU64,
    armed: AtomicBool,
}

/// A question, to be compared with the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question(u64);

impl Pulse {
    /// Opens the eventfd.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub fn new() -> io::Result<Pulse> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Pulse { wake, asked: AtomicU64::new(0), answered: AtomicU64::new(0), armed: AtomicBool::new(false) })
    }

    /// Wakes the warden.
    pub fn ask(&self) -> Question {
        let question = self.asked.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        // The only failure of a nonblocking eventfd is a counter at its limit: then the warden is being woken already.
        let _ = self.wake.write(1);
        Question(question)
    }

    /// The warden, when [`Pulse::as_fd`] is readable. Answers every question asked so far; never blocks.
    pub fn answer(&self) {
        // Emptied first: a question that comes after is seen below, or wakes anew.
        let _ = self.wake.read();
        self.answered.store(self.asked.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Whether `question` was answered.
    #[must_use]
    pub fn is_answered(&self, question: Question) -> bool {
        self.answered.load(Ordering::SeqCst) >= question.0
    }

    /// The warden, once the groups are armed (or no longer are).
    pub fn set_armed(&self, armed: bool) {
        self.armed.store(armed, Ordering::SeqCst);
    }

    /// Whether the groups are armed.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst)
    }
}

impl AsFd for Pulse {
    /// Readable when a question waits. For the warden's epoll set (`EPOLLIN`).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_covers_every_question_before_it() {
        let pulse = Pulse::new().expect("a descriptor");
        let (first, second) = (pulse.ask(), pulse.ask());
        assert!(!pulse.is_answered(first));
        pulse.answer();
        assert!(pulse.is_answered(first) && pulse.is_answered(second));
        let third = pulse.ask();
        assert!(!pulse.is_answered(third));
        pulse.answer();
        pulse.answer();
        assert!(pulse.is_answered(third));
    }
}
