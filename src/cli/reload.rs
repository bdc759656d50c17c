//! `oomwarden reload`: has the running daemon read its policy again, and says what came of it.

use clap::Args;
use hyper::Method;
use serde::Deserialize as _;

use super::output;
use super::status::ControlArgs;
use crate::command::Failure;
use crate::serve::control::Reloaded;

/// Options of `reload`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    control: ControlArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Asks the daemon and waits for its answer.
#[must_use]
pub fn run(args: &ReloadArgs) -> u8 {
    let told = || -> Result<_, Failure> {
        args.control.is_there().map_err(|Failure { code, message }| {
            let message = format!("{message}; a reload goes by SIGHUP too");
            Failure { code, message }
        })?;
        let value = args.control.ask(&Method::POST, "/api/v1/reload")?;
        let reloaded = Reloaded::deserialize(&value).map_err(|error| args.control.foreign(&error))?;
        Ok((value, reloaded))
    };
    match told() {
        Err(failure) => failure.report(),
        Ok((value, _)) if args.json => output::json(&value),
        Ok((_, reloaded)) => {
            let policy = crate::cgroup::path::Escaped(reloaded.policy.as_bytes());
            output::text(&format!("policy {policy} is in force\n"))
        }
    }
}
