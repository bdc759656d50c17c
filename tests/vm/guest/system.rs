//! The guest as a whole: settings that a scenario changes (put back afterwards), mounts, swap.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::places;
use crate::outcome::{Doing, Outcome};

/// Runs an applet of busybox.
pub fn busybox(arguments: &[&str]) -> Outcome {
    let output = Command::new(places::BUSYBOX).args(arguments).output().doing(format_args!("run busybox {arguments:?}"))?;
    ensure!(output.status.success(), "busybox {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Settings that scenarios may change.
pub const SETTINGS: [&str; 9] = [
    "/proc/sys/fs/inotify/max_user_watches",
    "/proc/sys/fs/inotify/max_queued_events",
    "/proc/sys/vm/swappiness",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/kernel/dmesg_restrict",
    "/sys/kernel/mm/ksm/run",
    "/sys/kernel/mm/ksm/pages_to_scan",
    "/proc/sys/vm/percpu_pagelist_high_fraction",
];

/// Sets one of them until the scenario's end.
pub fn set(setting: &str, value: &str) -> Outcome {
    ensure!(SETTINGS.contains(&setting), "{setting} would not be put back: add it to SETTINGS");
    std::fs::write(setting, value).doing(format_args!("set {setting} to {value}"))
}

/// Controllers that are handed down to groups only in scenarios that ask for it.
pub const SCENARIOS_OWN: [&str; 1] = ["cpuset"];

/// Hands one of them down to the groups below the root.
pub fn hand_down(controller: &str) -> Outcome {
    ensure!(SCENARIOS_OWN.contains(&controller), "{controller} would not be taken back: add it to SCENARIOS_OWN");
    let file = Path::new(places::CGROUP).join("cgroup.subtree_control");
    std::fs::write(file, format!("+{controller}")).doing(format_args!("hand down {controller}"))
}

/// Mounts a tmpfs of at most so many MiB and says where.
pub fn tmpfs(name: &str, mib: u64) -> Outcome<PathBuf> {
    let place = Path::new(places::MOUNT).join(name);
    std::fs::create_dir_all(&place).doing(format_args!("create {}", place.display()))?;
    busybox(&["mount", "-t", "tmpfs", "-o", &format!("size={mib}m"), name, &place.to_string_lossy()])?;
    Ok(place)
}

/// Mounts a tmpfs in which everybody may make as many files as they like, and says where.
pub fn tmpfs_of_any_number_of_files(name: &str) -> Outcome<PathBuf> {
    let place = tmpfs(name, 16)?;
    busybox(&["mount", "-o", "remount,nr_inodes=0,mode=1777", &place.to_string_lossy()])?;
    Ok(place)
}

/// From now until the scenario's end /proc shows other users' processes to nobody but those who may look into them.
pub fn hide_processes() -> Outcome {
    busybox(&["mount", "-t", "proc", "-o", "remount,hidepid=2", "proc", "/proc"])
}

/// /proc shows all processes again.
pub fn show_processes() -> Outcome {
    busybox(&["mount", "-t", "proc", "-o", "remount,hidepid=0", "proc", "/proc"])
}

/// Swap in compressed memory, of so many MiB.
pub fn zram_swap(mib: u64) -> Outcome {
    std::fs::write("/sys/block/zram0/disksize", format!("{mib}M")).doing("give zram0 a size")?;
    busybox(&["mkswap", "/dev/zram0"])?;
    busybox(&["swapon", "/dev/zram0"])
}

/// A file system on zram that can be frozen: whoever writes to it then waits in the kernel, where no signal reaches him. It is
/// thawed when this is dropped.
pub struct Freezer {
    /// Where it is mounted.
    pub place: PathBuf,
    directory: File,
    frozen: bool,
}

impl Freezer {
    /// Makes and mounts it.
    pub fn new() -> Outcome<Freezer> {
        std::fs::write("/sys/block/zram0/disksize", "16M").doing("give zram0 a size")?;
        // Blocks may not be smaller than the device's own.
        busybox(&["mke2fs", "-b", "4096", "/dev/zram0"])?;
        let place = Path::new(places::MOUNT).join("frozen");
        std::fs::create_dir_all(&place).doing(format_args!("create {}", place.display()))?;
        busybox(&["mount", "-t", "ext4", "/dev/zram0", &place.to_string_lossy()])?;
        let directory = File::open(&place).doing("open the file system")?;
        Ok(Freezer { place, directory, frozen: false })
    }

    /// Freezes it.
    pub fn freeze(&mut self) -> Outcome {
        self.frozen = true;
        crate::sys::freeze(&self.directory, true).doing("freeze the file system")
    }

    /// Thaws it, if it is frozen. Without a process of its own, which may take long to start in a shortage.
    pub fn thaw(&mut self) -> Outcome {
        if !std::mem::take(&mut self.frozen) {
            return Ok(());
        }
        crate::sys::freeze(&self.directory, false).doing("thaw the file system")
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        if self.frozen {
            // Else nobody could end who writes to it.
            drop(self.thaw());
        }
    }
}
