//! Programs that get groups into trouble. Each first moves itself where it belongs (see [`start`]), then does one thing for good.

mod bystanders;
mod files;
pub mod fork;
mod hog;
mod listen;
pub mod lms;
mod lms_crowd;
pub mod merged;
pub mod open_files;
mod page_cache;
mod start;
pub mod storm;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::outcome::Outcome;
use start::Words;

/// Runs `NAME key=value...`.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    match work(arguments) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("workload: {why}");
            ExitCode::FAILURE
        }
    }
}

fn work(arguments: Vec<OsString>) -> Outcome<ExitCode> {
    let (name, words) = Words::new(arguments);
    start::prepare(&words)?;
    match name.as_str() {
        "enter" => start::enter(&words),
        "hog" => hog::run(&words),
        "tmpfs" => hog::fill_tmpfs(&words),
        "grow-one-of" => hog::grow_one_of(&words),
        "herd" => hog::herd(&words),
        "victims" => hog::victims(&words),
        "bound" => hog::bound(&words),
        "files" => files::run(&words),
        "merged" => merged::hold(&words),
        "unmerge" => merged::undo(&words),
        "page-cache" => page_cache::run(&words),
        "mapped-file" => page_cache::run_mapped(&words),
        "relay" => fork::relay(&words),
        "zombies" => fork::zombies(&words),
        "headless" => fork::headless(&words),
        "restart" => fork::restart(&words),
        "spread" => fork::spread(&words),
        "share" => fork::share(&words),
        "sleep" => Ok(bystanders::sleep()),
        "churn" => bystanders::churn(&words),
        "spin" => Ok(bystanders::spin()),
        "read-pressure" => bystanders::read_pressure(&words),
        "open-files" => open_files::open(&words),
        "watch" => open_files::watch(&words),
        "thread-in" => bystanders::thread_in(&words),
        "listen" => listen::listen(&words),
        "write" => listen::write_for_ever(&words),
        "storm" => storm::run(&words),
        "lms-reader" => lms::reader(&words),
        "lms-handler" => lms::handler(&words),
        "lms-crowd" => lms_crowd::crowd(&words),
        "lms-hoarder" => lms_crowd::hoarder(&words),
        "lms-writer" => lms::writer(&words),
        "lms-want" => lms::want(&words),
        "lms-without-rights" => lms::without_rights(),
        unknown => Err(format!("there is no workload {unknown:?}")),
    }
}
