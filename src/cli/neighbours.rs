//! `oomwarden neighbours`: what the daemon starts to learn who else acts on memory here; of no use to people, who ask `oomwarden doctor`.
//!
//! A process of its own: it looks through all processes and unit files, once, and what that takes would stay in the daemon's memory.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;

use crate::command::{DONE, FAILED};
use crate::doctor::{self, System};

/// Options of `neighbours`.
#[derive(Debug, Args)]
pub struct NeighboursArgs {
    /// Where cgroup v2 is mounted, or the subtree that is watched
    #[arg(long, value_name = "DIR")]
    cgroup_root: PathBuf,
}

/// Writes a line for each.
#[must_use]
pub fn run(args: &NeighboursArgs) -> u8 {
    let mut out = io::stdout().lock();
    let lines = doctor::neighbours(&System::here(args.cgroup_root.clone()));
    if lines.iter().try_for_each(|line| writeln!(out, "{line}")).is_ok() { DONE } else { FAILED }
}
