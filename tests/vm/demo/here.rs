//! The demo right on this machine, in a group of its own, where that is possible.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::story;
use crate::guest::group::Group;
use crate::guest::{places, wait};
use crate::outcome::{Doing, Outcome};

/// Nothing, or why it must be a virtual machine.
pub fn able() -> Outcome {
    let root = Path::new(places::CGROUP);
    let kind = statfs(root).map_err(|error| format!("{} can't be looked at: {error}", root.display()))?.filesystem_type();
    ensure!(kind == CGROUP2_SUPER_MAGIC, "{} is not cgroup v2", root.display());
    let controllers = std::fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
    ensure!(controllers.split_whitespace().any(|name| name == "memory"), "the memory controller is not handed down here");
    ensure!(Path::new("/proc/pressure/memory").exists(), "this kernel has no PSI");
    let probe = root.join(format!("oomwarden-probe-{}", std::process::id()));
    std::fs::create_dir(&probe).map_err(|error| format!("no group can be made here: {error}"))?;
    let complete = ["memory.current", "memory.pressure", "cgroup.kill"].iter().all(|file| probe.join(file).exists());
    std::fs::remove_dir(&probe).doing(format_args!("remove {}", probe.display()))?;
    ensure!(complete, "a group here lacks memory.current, memory.pressure or cgroup.kill");
    Ok(())
}

/// Runs it and leaves nothing behind.
pub fn run() -> Outcome {
    let name = format!("oomwarden-demo-{}", std::process::id());
    let files = tempfile::Builder::new().prefix("oomwarden-demo-").tempdir().doing("make a temporary directory")?;
    let told = story::tell(&name, files.path(), "on this machine");
    let swept = sweep(&Path::new(places::CGROUP).join(&name));
    told.and(swept)
}

fn sweep(top: &Path) -> Outcome {
    if !top.exists() {
        return Ok(());
    }
    let group = Group::at(top);
    group.kill()?;
    group.wait_empty()?;
    wait::until("the demo's groups are removed", Duration::from_secs(10), || {
        for directory in below(top) {
            // Busy ones are tried again.
            std::fs::remove_dir(directory).ok();
        }
        Ok(std::fs::remove_dir(top).is_ok())
    })
}

/// Two levels are all that the demo makes; the deeper first.
fn below(top: &Path) -> Vec<PathBuf> {
    let children = |directory: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let first = children(top);
    first.iter().flat_map(|directory| children(directory)).chain(first.iter().cloned()).collect()
}
