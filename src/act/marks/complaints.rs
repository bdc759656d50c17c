//! What is said of marks that are not set: of each errno, and of those left out, once a minute. The
//! owner of a group can make its own marks fail in more than one way, which must not keep refusals
//! elsewhere from being said.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::cgroup::path::GroupPath;

/// How often the same is said.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// One thing to be said.
#[derive(Debug, Default)]
struct Tally {
    said: Option<Instant>,
    untold: u64,
}

impl Tally {
    /// So many more; how many are to be told now, if any.
    fn add(&mut self, more: u64, now: Instant) -> Option<u64> {
        self.untold += more;
        let recently = self.said.is_some_and(|said| now.saturating_duration_since(said) < SAID_EVERY);
        if self.untold == 0 || recently {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// Everything that may be said.
#[derive(Debug, Default)]
pub struct Complaints {
    refused: Vec<(Errno, Tally)>,
    left_out: Tally,
}

impl Complaints {
    /// A mark of this group could not be set.
    pub fn refused(&mut self, group: &GroupPath, name: &CStr, errno: Errno, now: Instant) {
        let Some(count) = self.count_refused(errno, now) else { return };
        let more = if count > 1 { format!(" ({count} such refusals since this was last said)") } else { String::new() };
        tracing::info!(
            "{group}: {} is not set: {errno}: systemd does not learn there that a unit was killed for its memory; `systemd: {{oomd_xattrs: \
             false}}` in the policy leaves it alone{more}",
            name.to_string_lossy()
        );
    }

    fn count_refused(&mut self, errno: Errno, now: Instant) -> Option<u64> {
        let at = self.refused.iter().position(|(known, _)| *known == errno).unwrap_or_else(|| {
            self.refused.push((errno, Tally::default()));
            self.refused.len() - 1
        });
        self.refused.get_mut(at)?.1.add(1, now)
    }

    /// So many marks found no room in the queue.
    pub fn left_out(&mut self, marks: u64, now: Instant) {
        if let Some(count) = self.left_out.add(marks, now) {
            tracing::warn!(
                "systemd does not learn of all kills: {count} attributes were left out since this was last said, because setting one took so \
                 long that too many waited (its group's directory was locked)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_rubbish_hushes_up_no_other_refusal() {
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(complaints.count_refused(Errno::BADMSG, at(0)), Some(1));
        assert_eq!(complaints.count_refused(Errno::BADMSG, at(1)), None, "it was just said");
        assert_eq!(complaints.count_refused(Errno::PERM, at(1)), Some(1));
        assert_eq!(complaints.count_refused(Errno::NOSPC, at(2)), Some(1));
        // The tenant's directory is full of its own attributes; a minute later one of the system's is.
        assert_eq!(complaints.count_refused(Errno::NOSPC, at(3)), None);
        assert_eq!(complaints.count_refused(Errno::NOSPC, at(63)), Some(2));
    }

    #[test]
    fn what_was_left_out_is_counted_until_it_is_said() {
        let (mut tally, start) = (Tally::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(tally.add(0, at(0)), None, "nothing was");
        assert_eq!(tally.add(3, at(0)), Some(3));
        assert_eq!((tally.add(2, at(1)), tally.add(0, at(59))), (None, None));
        assert_eq!(tally.add(0, at(60)), Some(2));
        assert_eq!(tally.add(0, at(200)), None);
    }
}
