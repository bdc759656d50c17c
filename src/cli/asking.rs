//! Options of the commands that ask what a policy would do, and what can go wrong before they have an answer.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::failure::Failure;
use super::{FAILED, UNSUPPORTED, USAGE};
use crate::cgroup::root::Root;
use crate::policy::model::Policy;
use crate::policy::{Loaded, Source, files, load};
use crate::preview::daemon;
use crate::preview::onlooker::Onlooker;

/// Which policy is asked.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Policy file, or directory of *.yaml; without one the built-in policy is asked
    #[arg(long, value_name = "FILE-or-DIR", env = "OOMWARDEN_POLICY", value_delimiter = ':')]
    policy: Vec<PathBuf>,
}

impl PolicyArgs {
    /// Says so where the built-in policy is asked about although an oomwarden is running, perhaps by another.
    pub(super) fn warn_of(&self, daemon: Option<i32>) {
        if let Some(pid) = daemon.filter(|_| self.policy.is_empty()) {
            let command = daemon::command_line(pid).map_or_else(String::new, |command| format!(" as `{command}`"));
            let _ = writeln!(
                io::stderr(),
                "oomwarden: this is about the built-in policy; process {pid} was started{command}: name its policy with --policy"
            );
        }
    }

    /// Reads it.
    pub(super) fn load(&self) -> Result<Loaded, Failure> {
        read_policy(&self.policy)
    }
}

/// Reads the policy in these files, or the built-in one if there are none.
pub(super) fn read_policy(paths: &[PathBuf]) -> Result<Loaded, Failure> {
    compile(&sources_of(paths)?)
}

/// The texts of the policy in these files, or the built-in one if there are none.
fn sources_of(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    if paths.is_empty() {
        return Ok(vec![Source::builtin()]);
    }
    files::read_sources(paths).map_err(|error| Failure::new(FAILED, error.to_string()))
}

/// Compiles them.
pub(super) fn compile(sources: &[Source]) -> Result<Loaded, Failure> {
    load(sources).map_err(|diagnostics| {
        let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        Failure::new(USAGE, format!("bad policy\n{}", lines.join("\n")))
    })
}

/// Which groups it is asked about.
#[derive(Debug, Args)]
pub struct TreeArgs {
    /// Where cgroup v2 is mounted, or the subtree to look at
    #[arg(long, value_name = "DIR", env = "OOMWARDEN_CGROUP_ROOT", default_value = "/sys/fs/cgroup")]
    pub(super) cgroup_root: PathBuf,
    /// State directory of the oomwarden that runs here; its own group is spared
    #[arg(long, value_name = "DIR", env = "OOMWARDEN_STATE", default_value = "/run/oomwarden")]
    state: PathBuf,
}

impl TreeArgs {
    /// Looks at them.
    pub(super) fn look(&self, policy: &Policy) -> Result<Onlooker, Failure> {
        let root = Root::open(&self.cgroup_root).map_err(|error| Failure::new(UNSUPPORTED, error.to_string()))?;
        Onlooker::look(Arc::clone(&root), policy, daemon::running(&root, &self.state))
            .map_err(|error| Failure::new(FAILED, format!("{}: {error}", self.cgroup_root.display())))
    }
}
