//! A PSI trigger and a held events file of the scenario's own, to know when things happen without asking oomwarden.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::group::Group;
use crate::outcome::{Doing, Outcome};

/// An armed trigger.
pub struct Trigger(File);

impl Trigger {
    /// Arms `words`, as in `full 90000 500000` (microseconds), on the group's memory pressure.
    pub fn arm(group: &Group, words: &str) -> Outcome<Trigger> {
        let path = group.directory().join("memory.pressure");
        let mut file = OpenOptions::new().read(true).write(true).open(path).doing(format_args!("open memory.pressure of {group}"))?;
        file.write_all(format!("{words}\0").as_bytes()).doing(format_args!("arm {words:?} on {group}"))?;
        Ok(Trigger(file))
    }

    /// Waits until it fires.
    pub fn fires(&self, within: Duration) -> Outcome {
        ensure!(urgent(&self.0, within)?, "the trigger did not fire within {} s", within.as_secs());
        Ok(())
    }
}

/// A held `key value` file of a group that the kernel notifies of: memory.events or cgroup.events.
pub struct Events(File);

impl Events {
    /// Opens it.
    pub fn open(group: &Group, name: &str) -> Outcome<Events> {
        Ok(Events(File::open(group.directory().join(name)).doing(format_args!("open {name} of {group}"))?))
    }

    /// Sleeps until the value of `key` satisfies `wanted`, and says when that was.
    pub fn when(&self, key: &str, within: Duration, wanted: impl Fn(u64) -> bool) -> Outcome<Instant> {
        let deadline = Instant::now() + within;
        loop {
            if wanted(self.value(key)?) {
                return Ok(Instant::now());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "{key} did not get where it should within {} s", within.as_secs());
            // Notices are limited in rate and may be merged, so look now and then in any case.
            urgent(&self.0, left.min(Duration::from_millis(5)))?;
        }
    }

    fn value(&self, key: &str) -> Outcome<u64> {
        let mut buffer = [0; 512];
        let length = self.0.read_at(&mut buffer, 0).doing("read a held events file")?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok()).ok_or_else(|| format!("no {key} in {text:?}"))
    }
}

fn urgent(file: &File, within: Duration) -> Outcome<bool> {
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
    nix::poll::poll(&mut fds, timeout).doing("poll")?;
    Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLPRI)))
}
