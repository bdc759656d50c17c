//! `oomwarden neighbours`: what the daemon starts to learn who else acts on memory here; of no use to people, who ask `oomwarden doctor`.
//!
//! A process of its own: it looks through all processes and unit files, once, and what that takes would stay in the daemon's memory.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clap::Args;

use super::{DONE, FAILED};
use crate::doctor::{self, System};

/// The subcommand's name.
pub const SUBCOMMAND: &str = "neighbours";
/// Where the groups are, for the child.
const ROOT: &str = "--cgroup-root";

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

/// Starts the look. To be called before oom_score_adj is raised, which the child would inherit.
///
/// # Errors
/// When it can't be started.
pub fn start(program: &Path, cgroup_root: &Path) -> io::Result<Child> {
    Command::new(program)
        .arg(SUBCOMMAND)
        .arg(ROOT)
        .arg(cgroup_root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
}

/// Logs what the look found, when it is done; on a thread of its own.
pub fn log(looking: io::Result<Child>) {
    let failed = |error: io::Error| tracing::info!("who else acts on memory here is not looked at: {error}; `oomwarden doctor` does it");
    let mut child = match looking {
        Ok(child) => child,
        Err(error) => return failed(error),
    };
    let read = move || {
        let mut text = String::new();
        let read = child.stdout.take().map_or(Ok(0), |mut out| out.read_to_string(&mut text));
        let ended = child.wait();
        text.lines().for_each(|line| tracing::warn!("{line}"));
        match (read, ended) {
            (Err(error), _) | (_, Err(error)) => failed(error),
            (Ok(_), Ok(status)) if !status.success() => failed(io::Error::other(status.to_string())),
            _ => {}
        }
    };
    if let Err(error) = std::thread::Builder::new().name("neighbours".into()).stack_size(64 * 1024).spawn(read) {
        failed(error);
    }
}
