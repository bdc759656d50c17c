//! `oomwarden pause` and `oomwarden resume`: the on-call's switch.

use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde::Deserialize as _;
use tracing::Level;

use super::output;
use super::status::ControlArgs;
use crate::command::Failure;
use crate::journal_stream;
use crate::serve::control::{DEFAULT_PAUSE, Done, pause_time};
use crate::serve::status::time;

/// Options of `pause`.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// How long, 1s to 24h; 10m if nothing is said
    #[arg(value_name = "TIME", value_parser = pause_time)]
    time: Option<Duration>,
    #[command(flatten)]
    control: ControlArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Options of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    control: ControlArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Pauses the daemon's deeds.
#[must_use]
pub fn pause(args: &PauseArgs) -> u8 {
    let pause = args.time.unwrap_or(DEFAULT_PAUSE);
    let path = format!("/api/v1/pause?for={}ms", pause.as_millis());
    tell(&args.control, &path, args.json, |done| {
        let until = done.paused_until.as_deref().unwrap_or("a time that it did not say");
        format!("deeds are paused until {until} ({}); `oomwarden resume` ends that\n", time(pause.as_secs()))
    })
}

/// Ends a pause.
#[must_use]
pub fn resume(args: &ResumeArgs) -> u8 {
    tell(&args.control, "/api/v1/resume", args.json, |_| "verdicts are carried out again\n".to_owned())
}

fn tell(control: &ControlArgs, path: &str, json: bool, text: impl FnOnce(&Done) -> String) -> u8 {
    let told = || -> Result<_, Failure> {
        let value = control.ask(&Method::POST, path)?;
        let done = Done::deserialize(&value).map_err(|error| control.foreign(&error))?;
        Ok((value, done))
    };
    match told() {
        Err(failure) => failure.report(),
        Ok((value, _)) if json => output::json(&value),
        Ok((_, done)) => {
            if let Some(note) = &done.note {
                journal_stream::say(Level::WARN, note);
            }
            output::text(&text(&done))
        }
    }
}
