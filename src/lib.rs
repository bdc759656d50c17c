//! oomwarden: a cgroup v2 aware out-of-memory manager.
//!
//! Data flows one way: kernel -> [`sense`] -> [`gather`] -> [`decide`] -> [`act`] -> [`record`] -> [`serve`], which shows [`metrics`]. [`policy`] is what the
//! administrator wants, [`cgroup`] what a group is, [`state`] what outlives the daemon; [`warden`] is the thread that turns the wheel, [`daemon`] puts it all together, [`cli`] is what users type.
//! ARCHITECTURE.md has the whole picture.

pub mod act;
pub mod cgroup;
pub mod cli;
pub mod command;
pub mod control;
pub mod daemon;
pub mod decide;
pub mod degraded;
pub mod doctor;
pub mod gather;
pub mod journal_stream;
pub mod kernel_kills;
pub mod metrics;
pub mod owners;
pub mod policy;
pub mod preview;
pub mod record;
pub mod replay;
pub mod sandbox;
pub mod sense;
pub mod serve;
pub mod state;
pub mod sys;
pub mod terminal;
pub mod threads;
pub mod unit_files;
pub mod units;
pub mod warden;

/// How many random cases a property is tried with: the usual number, times OOMWARDEN_TEST_CASES in a long run.
#[cfg(test)]
pub(crate) fn cases(usual: u32) -> u32 {
    let times = std::env::var("OOMWARDEN_TEST_CASES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    usual.saturating_mul(times)
}
