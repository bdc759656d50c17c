//! `oomwarden hook-helper`: what the daemon starts to run hooks; of no use to people.

use std::path::PathBuf;

use clap::Args;

use crate::act::hooks::helper;
use crate::command::{DONE, FAILED, Failure, USAGE};

/// Options of `hook-helper`.
#[derive(Debug, Args)]
pub struct HookHelperArgs {
    /// The directory of the group to run hooks in
    #[arg(long, value_name = "DIR")]
    group: Option<PathBuf>,
}

/// Serves the daemon at the other end of standard input.
#[must_use]
pub fn run(args: &HookHelperArgs) -> u8 {
    match helper::run(args.group.as_deref()) {
        Ok(()) => DONE,
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {
            Failure { code: USAGE, message: "hook-helper is started by `oomwarden run`, not by hand".to_owned() }.report()
        }
        Err(error) => Failure { code: FAILED, message: format!("hook helper: {error}") }.report(),
    }
}
