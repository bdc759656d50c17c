//! What the daemon is started with.

use std::path::PathBuf;

use super::logging::{LogFormat, LogLevel};
use crate::record::file::{JournalTo, Rotation};
use crate::serve::{ControlAddr, ListenAddr};

/// Options of the daemon, as `oomwarden run` has them from its arguments.
#[derive(Debug)]
pub struct Options {
    /// Policy files or directories; none for the built-in policy.
    pub policy: Vec<PathBuf>,
    /// A policy that can't be used at the start is the end.
    pub strict_policy: bool,
    /// Where cgroup v2 is mounted, or the subtree to watch.
    pub cgroup_root: PathBuf,
    /// Addresses for metrics and health; none for the usual one.
    pub listen: Vec<ListenAddr>,
    /// Names of groups, status and last deeds at these addresses too.
    pub listen_api: bool,
    /// The control socket, if another than the usual one.
    pub control: Option<ControlAddr>,
    /// Where the journal goes.
    pub journal: Option<JournalTo>,
    /// When the journal's file is renamed, and how many former ones are kept.
    pub rotation: Rotation,
    /// The pressure socket, if another than the usual one, or `none`.
    pub pressure_socket: Option<PathBuf>,
    /// Directory for what outlives the daemon.
    pub state: PathBuf,
    /// Judge and record, but do nothing.
    pub observe: bool,
    /// On a machine without cgroup v2 wait for a signal instead of failing.
    pub idle_if_unsupported: bool,
    /// Groups that have PSI triggers at a time.
    pub psi_groups: usize,
    /// Form of log lines.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: LogLevel,
}
