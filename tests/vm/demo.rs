//! The main job from end to end, to look at.

use std::process::ExitCode;
use std::time::Duration;

use crate::host;
use crate::outcome::Outcome;
use crate::scenarios::Scenario;

/// The demo as the virtual machine runs it.
pub const SCENARIO: Scenario = Scenario { name: "demo", limit: Duration::from_secs(120), run: show };

/// Here if this machine can, else in a virtual machine.
pub fn run() -> ExitCode {
    match host::show(host::Series::NEWEST, SCENARIO) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("demo: {why}");
            ExitCode::FAILURE
        }
    }
}

fn show() -> Outcome {
    Ok(())
}
