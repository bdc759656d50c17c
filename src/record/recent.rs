//! The journal's last lines, in memory: for whoever asks the running daemon what it did, also where no journal is written.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::sys::eventfd::EventFd;

/// How many lines are kept.
pub const LINES: usize = 256;
/// How much they may hold together: a line names every candidate, and there can be thousands.
const BYTES: usize = 4 << 20;

/// The lines. The recorder adds, the server reads; the warden never comes here.
#[derive(Debug, Default)]
pub struct Recent {
    kept: Mutex<Kept>,
    deed: Mutex<Option<Arc<str>>>,
    bell: OnceLock<Arc<EventFd>>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Arc<str>>,
    bytes: usize,
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line of the journal (one JSON object, without the newline). The oldest gives way: beyond [`LINES`], and beyond 4 MiB in all.
    pub fn push(&self, line: &str) {
        let line: Arc<str> = line.into();
        let mut kept = self.lock();
        kept.bytes += line.len();
        kept.lines.push_back(line);
        while kept.lines.len() > LINES || (kept.bytes > BYTES && kept.lines.len() > 1) {
            let oldest = kept.lines.pop_front().map_or(0, |line| line.len());
            kept.bytes -= oldest;
        }
    }

    /// Remembers the last deed, in words.
    pub fn note_deed(&self, words: &str) {
        *self.deed.lock().unwrap_or_else(PoisonError::into_inner) = Some(words.into());
        if let Some(bell) = self.bell.get() {
            // Full means that it rings already.
            let _ = bell.write(1);
        }
    }

    /// The last deed, in words, if there was one.
    #[must_use]
    pub fn deed(&self) -> Option<Arc<str>> {
        self.deed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `bell` is rung at each deed.
    pub fn on_deed(&self, bell: Arc<EventFd>) {
        // Set once, at the start.
        let _ = self.bell.set(bell);
    }

    /// The last lines, at most `most`, the newest first.
    #[must_use]
    pub fn last(&self, most: usize) -> Vec<Arc<str>> {
        self.lock().lines.iter().rev().take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_come_first_and_the_oldest_give_way() {
        let recent = Recent::default();
        assert!(recent.last(10).is_empty());
        for line in 0..LINES + 10 {
            recent.push(&line.to_string());
        }
        let all = recent.last(usize::MAX);
        assert_eq!((all.len(), &*all[0], &*all[LINES - 1]), (LINES, "265", "10"));
        assert_eq!(recent.last(2).iter().map(|line| &**line).collect::<Vec<_>>(), ["265", "264"]);
    }

    #[test]
    fn long_lines_are_fewer_and_one_is_always_kept() {
        let recent = Recent::default();
        for _ in 0..10 {
            recent.push(&"x".repeat(1 << 20));
        }
        assert_eq!(recent.last(usize::MAX).len(), 4);
        recent.push(&"y".repeat(5 << 20));
        assert_eq!(recent.last(usize::MAX).len(), 1);
        recent.push("z");
        assert_eq!(recent.last(usize::MAX).len(), 1, "too much with the one before");
        recent.push("z");
        assert_eq!(recent.last(usize::MAX).len(), 2);
    }
}
