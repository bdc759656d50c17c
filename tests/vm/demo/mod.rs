//! The main job from end to end, to look at: `make demo`.

mod here;
mod story;

use std::process::ExitCode;
use std::time::Duration;

use crate::guest::places;
use crate::host::{self, Machine};
use crate::outcome::{Doing, Outcome};
use crate::scenarios::Scenario;

/// The demo as the virtual machine runs it.
pub const SCENARIO: Scenario =
    Scenario { name: "demo", limit: Duration::from_secs(120), machine: Machine::PLAIN, run: story::in_the_virtual_machine };

/// Here if this machine can, else in a virtual machine. `--vm` after `--demo` takes the virtual machine in any case.
pub fn run(virtual_machine: bool) -> ExitCode {
    let place = if virtual_machine { Err("asked for".to_owned()) } else { here::able() };
    let done = match place {
        Ok(()) => here::run(),
        Err(why) => {
            println!("demo: in a virtual machine ({why})");
            host::show(host::Series::NEWEST, SCENARIO)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("demo: {why}");
            ExitCode::FAILURE
        }
    }
}

/// As a scenario: on a machine that can, the demo runs on the machine itself and takes everything away again.
pub fn runs_right_here_and_leaves_nothing() -> Outcome {
    here::able()?;
    here::run()?;
    let left = std::fs::read_dir(places::CGROUP).doing("list the groups")?.filter_map(Result::ok);
    let left: Vec<_> = left.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name()).collect();
    ensure!(left.is_empty(), "groups are left: {left:?}");
    Ok(())
}
