//! One scenario, in a process of its own, so that a lost one takes nothing along.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::places;
use crate::scenarios;

/// Before the sentence that says why a scenario failed.
pub const FAILED: &str = "failed: ";

/// Runs the scenario called `name`.
pub fn run(name: Option<OsString>) -> ExitCode {
    let name = name.unwrap_or_default();
    let Some(scenario) = scenarios::find(&name.to_string_lossy()) else {
        println!("{FAILED}there is no scenario {name:?}");
        return ExitCode::FAILURE;
    };
    if let Err(error) = std::fs::create_dir_all(places::FILES) {
        println!("{FAILED}could not create {}: {error}", places::FILES);
        return ExitCode::FAILURE;
    }
    match (scenario.run)() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            show_files();
            println!("{FAILED}{}", why.replace('\n', " | "));
            ExitCode::FAILURE
        }
    }
}

/// The last lines of all that the scenario's programs wrote.
fn show_files() {
    let Ok(entries) = std::fs::read_dir(Path::new(places::FILES)) else { return };
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    for path in paths {
        let text = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        println!("--- {} ({} lines)", path.display(), lines.len());
        for line in &lines[lines.len().saturating_sub(25)..] {
            println!("{}", line.chars().take(1500).collect::<String>());
        }
    }
}
