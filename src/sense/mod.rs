//! The kernel's notices, made into events: which group, what happened, fresh since when.
//!
//! - [`tree`]: the tree of groups, kept true by inotify; [`watch`]: its inotify side.
//! - [`glance`]: a quick look below a group that is about to die.
//! - [`counters`]: memory.events.local, compared with what was seen before.
//! - [`psi`]: triggers within a budget, with fall-backs; [`clerk`]: the thread that arms them, since that can block.
//! - [`sample`]: what has no notice in the kernel (usage, MemAvailable, SwapFree), sampled adaptively.
//! - [`trend`]: what usage did over the last seconds.
//! - [`node`], [`process`]: /proc/meminfo and /proc/PID, read through held or short-lived descriptors.
//! - [`lms`]: the kernel module's low memory signal, where it is loaded.
//! - [`poller`]: the one epoll set.
//!
//! Nothing here knows what a rule will do about a notice.

pub mod clerk;
pub mod counters;
pub mod glance;
pub mod lms;
pub mod look;
pub mod node;
pub mod poller;
pub mod process;
pub mod psi;
pub mod sample;
pub mod scout;
pub mod tree;
pub mod trend;
pub mod watch;
