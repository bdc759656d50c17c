//! One scenario, in a process of its own, so that a lost one takes nothing along.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::kernel_log::KernelLog;
use super::places;
use crate::outcome::Outcome;
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
    let log = KernelLog::from_now();
    match (scenario.run)() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            show_files();
            show_kernel_log(log);
            println!("{FAILED}{}", why.replace('\n', " | "));
            ExitCode::FAILURE
        }
    }
}

/// The last lines that the kernel wrote meanwhile.
fn show_kernel_log(log: Outcome<KernelLog>) {
    let lines = log.and_then(|mut log| log.lines()).unwrap_or_else(|why| vec![why]);
    println!("--- kernel ({} lines)", lines.len());
    for line in &lines[lines.len().saturating_sub(100)..] {
        println!("{line}");
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
