//! A pause that survives a restart.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::StateDir;
use crate::record::board::LONGEST_PAUSE;

/// The file.
pub const NAME: &str = "pause.json";
/// The most that is read of it.
const MOST_BYTES: u64 = 4096;

/// A pause as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    v: u32,
    /// When it ends.
    until: Timestamp,
    /// How long it was asked for: a clock that was set back makes it no longer.
    seconds: u64,
}

impl Pause {
    /// From now on for so long.
    #[must_use]
    pub fn begin(now: SystemTime, time: Duration) -> Pause {
        let until = Timestamp::try_from(now + time).unwrap_or(Timestamp::UNIX_EPOCH);
        Pause { v: 1, until, seconds: time.as_secs() + u64::from(time.subsec_nanos() > 0) }
    }

    /// When it ends.
    #[must_use]
    pub fn until(&self) -> SystemTime {
        SystemTime::from(self.until)
    }

    /// What is left of it; `None` if it is over.
    #[must_use]
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        let left = self.until().duration_since(now).ok()?.min(Duration::from_secs(self.seconds)).min(LONGEST_PAUSE);
        Some(left).filter(|left| !left.is_zero())
    }
}

/// Reads what is left of a pause.
///
/// # Errors
/// A file that can't be read, or was not written by oomwarden.
pub fn left(state: &StateDir, now: SystemTime) -> io::Result<Option<Duration>> {
    let Some(content) = state.read(NAME, MOST_BYTES)? else { return Ok(None) };
    let pause: Pause = serde_json::from_slice(&content)?;
    Ok(pause.left(now))
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
        let wanted = *lock(&self.wanted);
        match wanted {
            Some(pause) => self.state.write(NAME, &serde_json::to_vec(&pause)?),
            None => self.state.remove(NAME),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_left_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::new(dir.path());
        assert_eq!(left(&state, at(1000)).expect("read"), None);
        let keeper = Keeper::new(state.clone());
        keeper.want(Some(Pause::begin(at(1000), Duration::from_secs(600))));
        keeper.write().expect("written");
        for (now, seconds) in [(1000, Some(600)), (1599, Some(1)), (1600, None), (5000, None), (10, Some(600))] {
            assert_eq!(left(&state, at(now)).expect("read"), seconds.map(Duration::from_secs), "at {now}");
        }
        keeper.want(None);
        keeper.write().expect("written");
        assert_eq!(left(&state, at(1000)).expect("read"), None);
    }

    #[test]
    fn what_was_not_written_by_oomwarden_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::new(dir.path());
        for content in ["", "{", "null", "[]", "{\"v\":1}", "{\"v\":1,\"until\":\"soon\",\"seconds\":1}", &"x".repeat(5000)] {
            std::fs::write(state.path_of(NAME), content).expect("written");
            assert!(left(&state, at(1000)).is_err(), "{content:?}");
        }
    }

    #[test]
    fn a_pause_is_never_longer_than_a_day() {
        assert_eq!(Pause::begin(at(0), Duration::from_secs(1_000_000)).left(at(0)), Some(LONGEST_PAUSE));
    }
}
