//! How many descriptors there are, and for what.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::act::listeners;
use crate::policy::model::{Policy, Psi, Trigger};

/// Descriptors of the daemon itself: standard ones, epoll, timers, signals, /proc, inotify, the journal, the server's own, the
/// pressure socket's, the helper's, the control socket, the service manager's bell, the kernel's log and count.
const OWN_DESCRIPTORS: usize = 50;
/// Descriptors at the most: the kernel keeps some memory for each file that is held.
const MOST_DESCRIPTORS: u64 = 16_384;
/// How descriptors are shared out.
pub(super) struct Descriptors {
    pub(super) groups: usize,
    pub(super) psi_groups: usize,
    /// For the witness, where the kernel's log gives no notice.
    pub(super) notices: usize,
    pub(super) listeners: usize,
}

/// Raises RLIMIT_NOFILE to what is allowed and shares it out: what the daemon needs for itself, the server's connections
/// (it takes an eighth at the most), listeners (another eighth, where there are many), triggers, groups, and a rest for files that
/// are opened for one use.
pub(super) fn descriptors(psi_groups: usize, policy: &Policy, with_listeners: bool) -> Descriptors {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((256, 256));
    let wanted = hard.min(MOST_DESCRIPTORS).max(soft);
    let limit = if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft };
    let limit = usize::try_from(limit.min(MOST_DESCRIPTORS)).unwrap_or(256);
    let notices = (limit / 128).min(64);
    let listeners = match with_listeners {
        true => (if limit >= 1024 { limit / 8 } else { limit / 16 }).clamp(1, listeners::MOST),
        false => 0,
    };
    let spare = limit.saturating_sub(OWN_DESCRIPTORS + limit / 8 + listeners + notices);
    // A group may have as many triggers as the policy has different ones.
    let mut kinds: Vec<Psi> = Vec::new();
    for when in policy.rules.iter().flat_map(|rule| &rule.when) {
        match when {
            Trigger::Psi(psi) if !kinds.contains(psi) => kinds.push(*psi),
            _ => {}
        }
    }
    let each = kinds.len().max(1);
    let psi_groups = psi_groups.min(spare / 4 / each).max(1);
    let rest = (spare / 4).min(256);
    Descriptors { groups: spare.saturating_sub(psi_groups * each + rest), psi_groups, notices, listeners }
}
