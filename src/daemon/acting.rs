//! The policy and the locks of `run`, which acts: others may not write to what it goes by, and no second one may act in the tree.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::Level;

use crate::cgroup::root::Root;
use crate::command::policy::unreadable;
use crate::command::{FAILED, Failure};
use crate::journal_stream;
use crate::policy::model::Policy;
use crate::policy::{Source, files};
use crate::sandbox;
use crate::serve::{ControlAddr, socket};
use crate::state::lock::{self, About, Lock, LockError, OfTree};
use crate::state::policy::Keeper;

fn failed(error: impl Display) -> Failure {
    Failure::new(FAILED, error.to_string())
}

/// Says something before the log is there.
pub(super) fn at_the_start(message: &str) {
    journal_stream::say(Level::WARN, message);
}

/// Says something in the log.
pub(super) fn in_the_log(message: &str) {
    tracing::warn!("{message}");
}

/// The texts of a policy.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) sources: Vec<Source>,
    /// Nobody but root and our own user could write to them when they were read.
    are_trusted: bool,
}

impl Texts {
    pub(super) fn trusted(sources: Vec<Source>) -> Texts {
        Texts { sources, are_trusted: true }
    }

    /// Keeps them as the last good policy. Those that others could write to are not kept: a later
    /// start without `--observe` would find them in a file of our own, and run their hooks.
    pub(super) fn keep(&self, keeper: &Keeper, hash: &Arc<str>) {
        if self.are_trusted {
            keeper.keep(&self.sources, hash);
        }
    }
}

/// The texts of the policy in these files, or the built-in one if there are none. What others may write to is refused; where
/// nothing is done but observing, that is said with `warn` and taken.
pub(super) fn texts(paths: &[PathBuf], observe: bool, warn: fn(&str)) -> Result<Texts, Failure> {
    if paths.is_empty() {
        return Ok(Texts::trusted(vec![Source::builtin()]));
    }
    match files::read_trusted(paths) {
        Err(error) if error.is_untrusted() && observe => {
            warn(&format!("without --observe this policy would be refused: {error}"));
            Ok(Texts { sources: files::read_settled(paths).map_err(failed)?, are_trusted: false })
        }
        read => read.map(Texts::trusted).map_err(|error| unreadable(&error)),
    }
}

/// Refuses a policy with a hook's program that others may write to. Where nothing is done but observing no hook runs.
pub(super) fn judge_hooks(policy: &Policy, observe: bool) -> Result<(), Failure> {
    if observe { Ok(()) } else { files::judge_hooks(policy).map_err(failed) }
}

/// Keeps a second oomwarden off: off the tree if this one acts, off its files in any case.
pub(super) fn lock(root: &Root, state: &Path, control: Option<&ControlAddr>, observe: bool) -> Result<(Option<Lock>, Lock), Failure> {
    let control = match control {
        None => socket::DEFAULT.into(),
        Some(ControlAddr::None) => "none".into(),
        Some(ControlAddr::Path(path)) => path.to_string_lossy(),
    };
    let unlocked = |path: &Path, error: &LockError| Failure::new(FAILED, sandbox::explained(&path.join(lock::NAME), error));
    let about = About { root: &root.path, state, control: &control };
    let of_tree = match observe {
        true => None,
        false => match lock::of_tree(root, &about).map_err(|error| unlocked(Path::new(lock::DIRECTORY), &error))? {
            OfTree::Held(lock) => Some(lock),
            OfTree::NoPlace(why) => {
                at_the_start(&format!(
                    "a second oomwarden in this tree with another --state would not be noticed: there is no place for its lock ({why}); \
                     set XDG_RUNTIME_DIR to a directory of this user"
                ));
                None
            }
        },
    };
    let of_state = lock::of_state(state, &about).map_err(|error| unlocked(state, &error))?;
    Ok((of_tree, of_state))
}
