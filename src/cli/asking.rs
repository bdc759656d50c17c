//! Options of the commands that ask what a policy would do, and what can go wrong before they have an answer.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tracing::Level;

use super::found::policy_of_the_daemon;
use super::status::ControlArgs;
use crate::cgroup::root::Root;
use crate::command::Failure;
use crate::command::policy::read_policy;
use crate::command::{FAILED, UNSUPPORTED};
use crate::journal_stream;
use crate::policy::overlooked::{overlooked, warning};
use crate::policy::{Loaded, model};
use crate::preview::daemon;
use crate::preview::onlooker::Onlooker;

/// Which policy is asked.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Policy file, or directory of *.yaml; without one that of the oomwarden that is running here,
    /// or else the built-in one
    #[arg(long, value_name = "FILE-or-DIR", env = "OOMWARDEN_POLICY", value_delimiter = ':')]
    policy: Vec<PathBuf>,
    #[command(flatten)]
    control: ControlArgs,
}

/// The policy that is asked.
#[derive(Debug)]
pub(super) struct Policy {
    /// Read and compiled.
    pub loaded: Loaded,
    /// It is the built-in one, because none was named and no daemon told its own.
    is_guess: bool,
}

impl Policy {
    /// Says so where the built-in policy is asked about although an oomwarden is running, perhaps by another.
    pub(super) fn warn_of(is_guess: bool, daemon: Option<i32>) {
        if let Some(pid) = daemon.filter(|_| is_guess) {
            let command = daemon::command_line(pid).map_or_else(String::new, |command| format!(" as `{command}`"));
            say(&format!("process {pid} was started{command}: name its policy with --policy, or its control socket with --control"));
        }
    }

    /// The policy, and whether it is only a guess.
    pub(super) fn into_parts(self) -> (Loaded, bool) {
        (self.loaded, self.is_guess)
    }
}

/// One line on standard error.
pub(super) fn say(text: &str) {
    journal_stream::say(Level::WARN, text);
}

/// Names files of policy directories that look like policies and are not read.
pub(super) fn name_overlooked(paths: &[PathBuf]) {
    overlooked(paths).iter().for_each(|path| say(&format!("warning: {}", warning(path))));
}

impl PolicyArgs {
    /// Reads it; says which it is where none was named.
    pub(super) fn load(&self) -> Result<Policy, Failure> {
        if !self.policy.is_empty() {
            name_overlooked(&self.policy);
            return Ok(Policy { loaded: read_policy(&self.policy)?, is_guess: false });
        }
        let (loaded, about, found) = policy_of_the_daemon(&self.control)?;
        say(&about);
        Ok(Policy { loaded, is_guess: !found })
    }
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
    pub(super) fn look(&self, policy: &model::Policy) -> Result<Onlooker, Failure> {
        let root = Root::open(&self.cgroup_root).map_err(|error| Failure::new(UNSUPPORTED, error.to_string()))?;
        Onlooker::look(Arc::clone(&root), policy, daemon::running(&root, &self.state))
            .map_err(|error| Failure::new(FAILED, format!("{}: {error}", self.cgroup_root.display())))
    }
}
