//! What the daemon may do here, and how it keeps itself alive.

use std::fs;

use crate::cgroup::root::Root;

/// Whether we may end processes here at all: as root, with CAP_KILL, or in a subtree that was delegated to us.
pub(super) fn may_act(root: &Root) -> bool {
    use rustix::fs::{Access, AtFlags, accessat};
    accessat(&root.dir, "cgroup.procs", Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Keeps the daemon itself alive and resident when the node starves.
pub(super) fn prepare_self() {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::info!("oom_score_adj stays as it is: {error} (the kernel may choose oomwarden itself; CAP_SYS_RESOURCE prevents it)");
    }
    let locked = crate::sys::lock_stack().and_then(|()| crate::sys::lock_program_on_use());
    if let Err(error) = locked {
        tracing::info!("memory is not locked: {error} (reactions may be slower when the node starves; CAP_IPC_LOCK prevents it)");
    }
}
