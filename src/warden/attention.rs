//! Gaps in the warden's own attention: times in which it did not run, so that what it noticed before them says
//! nothing about now.
//!
//! A PSI trigger that fired is latched until it is polled, and a level seen before and after a gap need not have
//! lasted. The kernel does not say when a notice arose, so a gap is told by other signs, which cost no
//! wake-up:
//!
//! - SIGCONT came, which is blocked and read: the process was stopped.
//! - epoll was interrupted. All signals are blocked, so only a stop (SIGSTOP) or a debugger does that (signal(7),
//!   "Interruption of system calls by stop signals").
//! - cgroup.events of our own group changed: as long as we are in it that tells of a freeze and its end only
//!   (cgroup-v2.rst on cgroup.freeze), its own or an ancestor's. A freeze does not interrupt epoll.
//! - The timer, or the turn before, was over long ago.
//! - The thread waited long for a processor (/proc/thread-self/schedstat, Documentation/scheduler/sched-stats.rst).
//! - CLOCK_BOOTTIME went on without CLOCK_MONOTONIC: the machine was suspended.
//! - CLOCK_REALTIME jumped: a virtual machine was stopped and its clock set right.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::time::{ClockId, clock_gettime};

use crate::cgroup::buffer::ReadBuf;
use crate::cgroup::parse;

/// A delay longer than this is a gap. A turn on a starving node was seen to take up to this long.
pub const GAP: Duration = Duration::from_secs(2);

/// After a gap of the weaker kind (the thread ran late) another one such is let go for so long. On a node that starves for
/// long every turn is late, and if each voided what it noticed nobody would ever be judged.
const AGAIN: Duration = Duration::from_secs(30);

/// What showed a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The process was stopped.
    Stopped,
    /// Its group was frozen.
    Frozen,
    /// The turn came so much later than planned, or the one before took so long.
    Late(Duration),
    /// It waited so long for a processor.
    Starved(Duration),
    /// The machine was suspended for so long.
    Suspended(Duration),
    /// The wall clock jumped so far.
    Jumped(Duration),
}

impl std::fmt::Display for Sign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sign::Stopped => write!(f, "it was stopped"),
            Sign::Frozen => write!(f, "its group was frozen"),
            Sign::Late(time) => write!(f, "it was {} ms late", time.as_millis()),
            Sign::Starved(time) => write!(f, "it waited {} ms for a processor", time.as_millis()),
            Sign::Suspended(time) => write!(f, "the machine was suspended for {} s", time.as_secs()),
            Sign::Jumped(time) => write!(f, "the clock jumped by {} s", time.as_secs()),
        }
    }
}

/// The clocks and counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moment {
    /// CLOCK_BOOTTIME less CLOCK_MONOTONIC, nanoseconds.
    suspended: i128,
    /// CLOCK_REALTIME less CLOCK_BOOTTIME, nanoseconds.
    wall: i128,
    /// Time spent waiting for a processor so far; `None` where the kernel does not tell.
    delay: Option<Duration>,
}

impl Moment {
    /// The sign of a gap between this moment and a later one.
    fn sign(&self, later: &Moment) -> Option<Sign> {
        let apart = |from: i128, to: i128| Duration::from_nanos(u64::try_from((to - from).unsigned_abs()).unwrap_or(u64::MAX));
        let suspended = apart(self.suspended, later.suspended);
        let jumped = apart(self.wall, later.wall);
        let starved = later.delay.zip(self.delay).map_or(Duration::ZERO, |(now, then)| now.saturating_sub(then));
        if suspended > GAP {
            Some(Sign::Suspended(suspended))
        } else if jumped > GAP {
            Some(Sign::Jumped(jumped))
        } else if starved > GAP {
            Some(Sign::Starved(starved))
        } else {
            None
        }
    }
}

/// Watches for gaps, once a turn; allocates nothing.
#[derive(Debug)]
pub struct Attention {
    schedstat: Option<OwnedFd>,
    /// cgroup.events of our own group.
    group: Option<OwnedFd>,
    last: Moment,
    /// When the turn before was done.
    turned: Duration,
    /// When a delay counted as a gap last.
    delayed: Option<Duration>,
}

impl Attention {
    /// Begins now, for the calling thread.
    #[must_use]
    pub fn begin(now: Duration, buffer: &mut ReadBuf) -> Attention {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        // Kernels without CONFIG_SCHED_INFO have no such file: then a starved thread is told by its timer only.
        let schedstat = open("/proc/thread-self/schedstat", flags, Mode::empty()).ok();
        let group = own_events(buffer);
        let mut attention = Attention { schedstat, group, last: Moment::default(), turned: now, delayed: None };
        attention.last = attention.moment(buffer);
        attention
    }

    /// What tells of a freeze by EPOLLPRI; `None` where our own group can't be told.
    #[must_use]
    pub fn group_events(&self) -> Option<&OwnedFd> {
        self.group.as_ref()
    }

    /// That has told something: takes its notice back.
    pub fn heard(&self, buffer: &mut ReadBuf) {
        if let Some(file) = &self.group {
            // Whatever is in it by now.
            let _ = buffer.pread(file);
        }
    }

    fn moment(&self, buffer: &mut ReadBuf) -> Moment {
        let nanos = |clock: ClockId| {
            let time = clock_gettime(clock);
            i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
        };
        let (monotonic, boot, wall) = (nanos(ClockId::Monotonic), nanos(ClockId::Boottime), nanos(ClockId::Realtime));
        let text = self.schedstat.as_ref().and_then(|file| buffer.pread(file).ok());
        Moment { suspended: boot - monotonic, wall: wall - boot, delay: text.and_then(run_delay) }
    }

    /// Epoll has returned at `now`: was there a gap? `told`: what the return itself tells; `planned` is what the timer was set to.
    pub fn gap(&mut self, now: Duration, told: Option<Sign>, planned: Option<Duration>, buffer: &mut ReadBuf) -> Option<Sign> {
        let moment = self.moment(buffer);
        let by_clocks = std::mem::replace(&mut self.last, moment).sign(&moment);
        let late = planned.map_or(Duration::ZERO, |planned| now.saturating_sub(planned.max(self.turned)));
        if told.is_some() {
            told
        } else if late > GAP && !matches!(by_clocks, Some(Sign::Suspended(_) | Sign::Jumped(_))) {
            self.delay(Sign::Late(late), now)
        } else {
            match by_clocks {
                Some(sign @ Sign::Starved(_)) => self.delay(sign, now),
                other => other,
            }
        }
    }

    /// A delay at `now`: whether it counts.
    fn delay(&mut self, sign: Sign, now: Duration) -> Option<Sign> {
        if self.delayed.is_some_and(|last| now.saturating_sub(last) < AGAIN) {
            return None;
        }
        self.delayed = Some(now);
        Some(sign)
    }

    /// A turn that began at `began` is done: what it noticed at its begin may have grown old meanwhile.
    pub fn turned(&mut self, began: Duration, now: Duration) -> Option<Sign> {
        self.turned = now;
        let took = now.saturating_sub(began);
        if took > GAP { self.delay(Sign::Late(took), now) } else { None }
    }
}

/// Opens cgroup.events of the group that we are in, and reads it once, so that only what happens from now on is told.
fn own_events(buffer: &mut ReadBuf) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let named = open("/proc/self/cgroup", flags, Mode::empty()).ok()?;
    let path = parse::own_group(buffer.pread(&named).ok()?)?;
    let relative = path.strip_prefix(b"/").filter(|rest| !rest.is_empty()).unwrap_or(b".").to_vec();
    let mount = open("/sys/fs/cgroup", flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    let directory = openat(&mount, &*relative, flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    let events = openat(&directory, "cgroup.events", flags, Mode::empty()).ok()?;
    // Another mount than the one that /proc speaks of could lead anywhere.
    let processes = openat(&directory, "cgroup.procs", flags, Mode::empty()).ok()?;
    let (own, mut found) = (rustix::process::getpid().as_raw_nonzero().get(), false);
    buffer
        .each_line(&processes, |line| {
            found |= parse::process(line) == Ok(parse::Process::Pid(own));
            !found
        })
        .ok()?;
    // The root has no such file, and is never frozen.
    buffer.pread(&events).ok().filter(|_| found)?;
    Some(events)
}

/// The second number of a schedstat file: nanoseconds on a run queue.
fn run_delay(text: &[u8]) -> Option<Duration> {
    let word = text.trim_ascii().split(|byte| *byte == b' ').nth(1)?;
    parse::number(word).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    #[test]
    fn clocks_and_counters_tell_of_gaps_and_small_delays_are_none() {
        let then = Moment { suspended: 5 * SECOND, wall: 7 * SECOND, delay: Some(GAP) };
        assert_eq!(then.sign(&then), None);
        let after = |change: fn(&mut Moment)| {
            let mut later = then;
            change(&mut later);
            then.sign(&later)
        };
        assert_eq!(after(|later| later.suspended += 60 * SECOND), Some(Sign::Suspended(Duration::from_secs(60))));
        assert_eq!(after(|later| later.wall += 3600 * SECOND), Some(Sign::Jumped(Duration::from_secs(3600))));
        assert_eq!(after(|later| later.wall -= 3600 * SECOND), Some(Sign::Jumped(Duration::from_secs(3600))));
        assert_eq!(after(|later| later.delay = Some(GAP * 3)), Some(Sign::Starved(GAP * 2)));
        // Slewing, and an ordinary wait for a processor.
        assert_eq!(after(|later| later.wall += SECOND), None);
        assert_eq!(after(|later| later.delay = Some(GAP + GAP)), None);
        // A kernel that tells of no delays.
        assert_eq!(after(|later| later.delay = None), None);
    }

    #[test]
    fn a_late_turn_a_long_one_and_an_interrupted_wait_are_gaps() {
        let mut buffer = ReadBuf::new();
        let at = Duration::from_secs;
        let mut attention = Attention::begin(at(10), &mut buffer);
        assert_eq!(attention.gap(at(11), None, Some(at(11)), &mut buffer), None);
        assert_eq!(attention.turned(at(11), at(12)), None);
        // Nothing was planned: an idle daemon sleeps as long as it may.
        assert_eq!(attention.gap(at(5000), None, None, &mut buffer), None);
        assert_eq!(attention.turned(at(5000), at(5003)), Some(Sign::Late(at(3))));
        // The timer was due while the last turn went on.
        assert_eq!(attention.gap(at(5004), None, Some(at(5001)), &mut buffer), None);
        assert_eq!(attention.gap(at(5015), None, Some(at(5001)), &mut buffer), None, "one delay after the other is a node that starves");
        assert_eq!(attention.gap(at(5034), None, Some(at(5024)), &mut buffer), Some(Sign::Late(at(10))));
        assert_eq!(
            attention.gap(at(5035), Some(Sign::Stopped), None, &mut buffer),
            Some(Sign::Stopped),
            "whoever was stopped did not starve"
        );
    }

    #[test]
    fn the_delay_is_the_second_number() {
        assert_eq!(run_delay(b"131713442 2000000000 27\n"), Some(GAP));
        assert_eq!(run_delay(b"131713442\n"), None);
        assert_eq!(run_delay(b""), None);
    }
}
