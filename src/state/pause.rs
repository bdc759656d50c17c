//! A pause that survives a restart.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{StateDir, boot_id};
use crate::control::board::LONGEST_PAUSE;
use crate::control::by::By;

/// The file.
pub const NAME: &str = "pause.json";
/// The most that is read of it.
const MOST_BYTES: u64 = 4096;

/// What the clocks show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, which anybody may set and a time server corrects.
    pub wall: SystemTime,
    /// Since the machine's start, sleep included (CLOCK_BOOTTIME).
    pub up: Duration,
    /// Which start that was; empty where the kernel does not say.
    pub boot: String,
}

impl Now {
    /// Reads them.
    #[must_use]
    pub fn read() -> Now {
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let up = Duration::new(u64::try_from(up.tv_sec).unwrap_or(0), u32::try_from(up.tv_nsec).unwrap_or(0));
        Now { wall: SystemTime::now(), up, boot: boot_id() }
    }
}

/// A pause as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    v: u32,
    /// When it ends.
    until: Timestamp,
    /// How long it was asked for: a clock that was set back makes it no longer.
    seconds: u64,
    /// Which start of the machine it began in, and when it ends since that, in milliseconds. While
    /// that lasts the wall clock is not asked.
    #[serde(default)]
    boot: String,
    #[serde(default)]
    until_up_ms: u64,
    /// Who asked for it.
    #[serde(default)]
    by: Option<By>,
}

impl Pause {
    /// From now on for so long.
    #[must_use]
    pub fn begin(now: &Now, time: Duration, by: Option<By>) -> Pause {
        let until = Timestamp::try_from(now.wall + time).unwrap_or(Timestamp::UNIX_EPOCH);
        let until_up_ms = u64::try_from((now.up + time).as_millis()).unwrap_or(u64::MAX);
        Pause { v: 1, until, seconds: time.as_secs() + u64::from(time.subsec_nanos() > 0), boot: now.boot.clone(), until_up_ms, by }
    }

    /// When it ends.
    #[must_use]
    pub fn until(&self) -> SystemTime {
        SystemTime::from(self.until)
    }

    /// What is left of it; `None` if it is over.
    #[must_use]
    pub fn left(&self, now: &Now) -> Option<Duration> {
        let same_boot = !self.boot.is_empty() && self.boot == now.boot;
        let left = if same_boot {
            Duration::from_millis(self.until_up_ms).checked_sub(now.up)?
        } else {
            self.until().duration_since(now.wall).ok()?
        };
        Some(left.min(Duration::from_secs(self.seconds)).min(LONGEST_PAUSE)).filter(|left| !left.is_zero())
    }
}

/// Reads what is left of a pause, and who asked for it.
///
/// # Errors
/// A file that can't be read, or was not written by oomwarden.
pub fn left(state: &StateDir, now: &Now) -> io::Result<Option<(Duration, Option<By>)>> {
    let Some(content) = state.read(NAME, MOST_BYTES)? else { return Ok(None) };
    let pause: Pause = serde_json::from_slice(&content)?;
    Ok(pause.left(now).map(|left| (left, pause.by)))
}

/// Writes pauses down. A write may take its time: what is written in the end is what was wanted last.
#[derive(Debug)]
pub struct Keeper {
    state: StateDir,
    wanted: Mutex<Option<Pause>>,
    writing: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Into this directory.
    #[must_use]
    pub fn new(state: StateDir) -> Keeper {
        Keeper { state, wanted: Mutex::new(None), writing: Mutex::new(()) }
    }

    /// Where.
    #[must_use]
    pub fn path(&self) -> std::path::PathBuf {
        self.state.path_of(NAME)
    }

    /// What is to be there, or nothing. Does not wait.
    pub fn want(&self, pause: Option<Pause>) {
        *lock(&self.wanted) = pause;
    }

    /// Writes it. May block as long as the disk does.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self) -> io::Result<()> {
        let _one_at_a_time = lock(&self.writing);
        let wanted = lock(&self.wanted).clone();
        match wanted {
            Some(pause) => self.state.write(NAME, &serde_json::to_vec(&pause)?),
            None => self.state.remove(NAME),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a machine that was started anew at each look, so that only the wall clock is left.
    fn at(seconds: u64) -> Now {
        Now { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), up: Duration::ZERO, boot: String::new() }
    }

    #[test]
    fn a_clock_that_jumps_ends_no_pause_and_makes_none_longer() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::new(dir.path());
        let now = |wall: u64, up: u64, boot: &str| Now { up: Duration::from_secs(up), boot: boot.to_owned(), ..at(wall) };
        let by = Some(By::new(1000, 42, b"oomwarden"));
        let keeper = Keeper::new(state.clone());
        keeper.want(Some(Pause::begin(&now(1000, 50, "one"), Duration::from_secs(600), by)));
        keeper.write().expect("written");
        for (wall, up, boot, seconds) in [
            (1000, 50, "one", Some(600)),
            (9_000_000, 100, "one", Some(550)),
            (10, 649, "one", Some(1)),
            (10, 650, "one", None),
            (1100, 3, "two", Some(500)),
            (9_000_000, 3, "two", None),
        ] {
            let wanted = seconds.map(|seconds| (Duration::from_secs(seconds), by));
            assert_eq!(left(&state, &now(wall, up, boot)).expect("read"), wanted, "at {wall}, up {up}, boot {boot}");
        }
        let read = Now::read();
        assert!(!read.boot.is_empty() && !read.up.is_zero());
    }

    /// As versions before wrote it.
    #[test]
    fn an_older_file_is_understood() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::new(dir.path());
        std::fs::write(state.path_of(NAME), r#"{"v":1,"until":"1970-01-01T00:20:00Z","seconds":600}"#).expect("written");
        assert_eq!(left(&state, &at(1000)).expect("read"), Some((Duration::from_secs(200), None)));
    }

    #[test]
    fn what_is_left_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::new(dir.path());
        assert_eq!(left(&state, &at(1000)).expect("read"), None);
        let keeper = Keeper::new(state.clone());
        keeper.want(Some(Pause::begin(&at(1000), Duration::from_secs(600), None)));
        keeper.write().expect("written");
        for (now, seconds) in [(1000, Some(600)), (1599, Some(1)), (1600, None), (5000, None), (10, Some(600))] {
            assert_eq!(left(&state, &at(now)).expect("read").map(|(left, _)| left), seconds.map(Duration::from_secs), "at {now}");
        }
        keeper.want(None);
        keeper.write().expect("written");
        assert_eq!(left(&state, &at(1000)).expect("read"), None);
    }

    #[test]
    fn what_was_not_written_by_oomwarden_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::new(dir.path());
        for content in ["", "{", "null", "[]", "{\"v\":1}", "{\"v\":1,\"until\":\"soon\",\"seconds\":1}", &"x".repeat(5000)] {
            std::fs::write(state.path_of(NAME), content).expect("written");
            assert!(left(&state, &at(1000)).is_err(), "{content:?}");
        }
    }

    #[test]
    fn a_pause_is_never_longer_than_a_day() {
        assert_eq!(Pause::begin(&at(0), Duration::from_secs(1_000_000), None).left(&at(0)), Some(LONGEST_PAUSE));
    }
}
