//! After each scenario: nothing runs, no group is left, no swap, no mount, no module of ours, settings as they were. If that can't be had the guest
//! is not used any more.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::callers;
use super::facts;
use super::lms;
use super::places;
use super::system::{self, SCENARIOS_OWN, SETTINGS};
use super::wait;
use crate::outcome::{Doing, Outcome};

/// How the guest was before the first scenario.
pub struct Baseline {
    settings: Vec<(&'static str, String)>,
    available_mib: u64,
}

impl Baseline {
    /// Now.
    pub fn take() -> Outcome<Baseline> {
        let read = |setting: &'static str| Ok((setting, std::fs::read_to_string(setting).doing(format_args!("read {setting}"))?));
        Ok(Baseline {
            settings: SETTINGS.into_iter().map(read).collect::<Outcome<_>>()?,
            available_mib: facts::meminfo_mib("MemAvailable")?,
        })
    }

    /// Puts everything back.
    ///
    /// # Errors
    /// What could not be put back.
    pub fn restore(&self) -> Outcome {
        let root = Path::new(places::CGROUP);
        end_processes(root)?;
        unload()?;
        remove_groups(root)?;
        for controller in SCENARIOS_OWN {
            // Refused where it is not handed down.
            drop(std::fs::write(root.join("cgroup.subtree_control"), format!("-{controller}")));
        }
        unmount()?;
        swap_off()?;
        for (setting, value) in &self.settings {
            std::fs::write(setting, value.trim()).doing(format_args!("put back {setting}"))?;
        }
        if Path::new(places::FILES).exists() {
            std::fs::remove_dir_all(places::FILES).doing(format_args!("remove {}", places::FILES))?;
        }
        std::fs::write("/proc/sys/vm/drop_caches", "3").doing("drop caches")?;
        // Removed groups give their memory back bit by bit.
        wait::until("memory is back", Duration::from_secs(10), || Ok(facts::meminfo_mib("MemAvailable")? + 100 > self.available_mib))
    }
}

/// Every process but the first, this one, and the kernel's threads.
fn strays() -> Vec<(Pid, char)> {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid > 2 && *pid != own)
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().or_else(|| {
                // A name that is not UTF-8.
                Some(String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned())
            })?;
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let state = fields.next()?.chars().next()?;
            // Children of kthreadd are the kernel's.
            (fields.next()? != "2").then_some((Pid::from_raw(pid as i32), state))
        })
        .collect()
}

fn end_processes(root: &Path) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let strays = strays();
        if strays.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "processes that can't be ended: {strays:?}");
        // Frozen ones don't die everywhere; cgroup.kill beats whoever forks faster than we walk.
        for group in groups(root) {
            for (file, value) in [("cgroup.freeze", "0"), ("cgroup.kill", "1")] {
                drop(std::fs::write(group.join(file), value));
            }
        }
        for (pid, state) in strays {
            if state != 'Z' {
                signal::kill(pid, Signal::SIGKILL).ok();
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// All groups below `root`, the deepest first.
fn groups(root: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            found.push(entry.path());
            open.push(entry.path());
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}

fn remove_groups(root: &Path) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let left = groups(root);
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "groups that can't be removed: {left:?}");
        for group in left {
            drop(std::fs::remove_dir(group));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What held it open has ended; its last use may end a moment later.
fn unload() -> Outcome {
    // First: what it holds is given back.
    wait::until("the tests' kernel module can be unloaded", Duration::from_secs(10), || {
        Ok(!callers::is_loaded() || callers::unload().is_ok())
    })?;
    wait::until("our kernel module can be unloaded", Duration::from_secs(10), || Ok(!lms::is_loaded() || lms::unload().is_ok()))
}

fn unmount() -> Outcome {
    let mounts = std::fs::read_to_string("/proc/mounts").doing("read /proc/mounts")?;
    for place in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|place| place.starts_with(places::MOUNT)) {
        system::busybox(&["umount", place])?;
    }
    if mounts.contains("hidepid=") {
        system::show_processes()?;
    }
    Ok(())
}

fn swap_off() -> Outcome {
    let swaps = std::fs::read_to_string("/proc/swaps").doing("read /proc/swaps")?;
    for device in swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
        system::busybox(&["swapoff", device])?;
    }
    let reset = Path::new("/sys/block/zram0/reset");
    if reset.exists() {
        std::fs::write(reset, "1").doing("reset zram0")?;
    }
    Ok(())
}
