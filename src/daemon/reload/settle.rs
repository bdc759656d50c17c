//! When a policy of several files is whole again: when nothing has happened to any of them for a while. Pure.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::{Duration, Instant};

/// Nothing happens for so long when somebody has finished: longer than it takes to write the next file.
pub const QUIET: Duration = Duration::from_secs(2);
/// After so long the files are taken as they stand, and that is said.
pub const LONGEST: Duration = Duration::from_secs(30);

/// What happens to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Somebody has it open and writes.
    Writing(OsString),
    /// Whoever wrote it has closed it; or it came or went as a whole.
    Done(OsString),
    /// Something else.
    Unknown,
}

/// Files in the middle of a change.
#[derive(Debug)]
pub struct Settling {
    since: Instant,
    last: Instant,
    writing: BTreeSet<OsString>,
}

impl Settling {
    /// It begins.
    #[must_use]
    pub fn new(now: Instant) -> Settling {
        Settling { since: now, last: now, writing: BTreeSet::new() }
    }

    /// Something happened.
    pub fn note(&mut self, now: Instant, part: Part) {
        self.last = now;
        match part {
            Part::Writing(name) => drop(self.writing.insert(name)),
            Part::Done(name) => drop(self.writing.remove(&name)),
            Part::Unknown => {}
        }
    }

    /// When the files are to be read, if nothing happens until then.
    #[must_use]
    pub fn due(&self) -> Instant {
        let longest = self.since + LONGEST;
        if self.writing.is_empty() { longest.min(self.last + QUIET) } else { longest }
    }

    /// Whether they never came to rest.
    #[must_use]
    pub fn is_overdue(&self, now: Instant) -> bool {
        now >= self.since + LONGEST
    }

    /// A file that somebody is still writing.
    #[must_use]
    pub fn writing(&self) -> Option<&OsString> {
        self.writing.first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_change_begins_the_quiet_time_anew() {
        let begin = Instant::now();
        let mut settling = Settling::new(begin);
        assert_eq!(settling.due(), begin + QUIET);
        settling.note(begin + SECOND, Part::Done("a".into()));
        assert_eq!(settling.due(), begin + SECOND + QUIET);
        assert!(!settling.is_overdue(settling.due()));
    }

    #[test]
    fn a_file_that_is_open_is_waited_for_but_not_for_ever() {
        let begin = Instant::now();
        let mut settling = Settling::new(begin);
        settling.note(begin, Part::Writing("a".into()));
        settling.note(begin + SECOND, Part::Done("b".into()));
        assert_eq!((settling.due(), settling.writing()), (begin + LONGEST, Some(&"a".into())));
        assert!(settling.is_overdue(settling.due()));
        settling.note(begin + 2 * SECOND, Part::Done("a".into()));
        assert_eq!(settling.due(), begin + 2 * SECOND + QUIET);
        for second in 3..60 {
            settling.note(begin + second * SECOND, Part::Unknown);
        }
        assert_eq!(settling.due(), begin + LONGEST);
    }
}
