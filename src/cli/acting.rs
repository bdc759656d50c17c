//! The policy of `run`, which acts: others may not write to what it goes by.

use std::fmt::Display;
use std::path::PathBuf;

use super::FAILED;
use super::failure::Failure;
use crate::policy::model::Policy;
use crate::policy::{Source, files};

fn failed(error: impl Display) -> Failure {
    Failure::new(FAILED, error.to_string())
}

/// Says something before the log is there.
pub(super) fn at_the_start(message: &str) {
    eprintln!("oomwarden: {message}");
}

/// Says something in the log.
pub(super) fn in_the_log(message: &str) {
    tracing::warn!("{message}");
}

/// The texts of the policy in these files, or the built-in one if there are none. What others may write to is refused; where
/// nothing is done but observing, that is said with `warn` and taken.
pub(super) fn sources(paths: &[PathBuf], observe: bool, warn: fn(&str)) -> Result<Vec<Source>, Failure> {
    if paths.is_empty() {
        return Ok(vec![Source::builtin()]);
    }
    match files::read_trusted(paths) {
        Err(error) if error.is_untrusted() && observe => {
            warn(&format!("without --observe this would end the start: {error}"));
            files::read_settled(paths).map_err(failed)
        }
        read => read.map_err(failed),
    }
}

/// Refuses a policy with a hook's program that others may write to. Where nothing is done but observing no hook runs.
pub(super) fn judge_hooks(policy: &Policy, observe: bool) -> Result<(), Failure> {
    if observe { Ok(()) } else { files::judge_hooks(policy).map_err(failed) }
}
