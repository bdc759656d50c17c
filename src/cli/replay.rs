//! `oomwarden replay`: what another policy would have done.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::asking::name_overlooked;
use super::output;
use crate::cgroup::path::Escaped;
use crate::command::policy::read_policy;
use crate::command::{DONE, FAILED, Failure, USAGE};
use crate::replay::report::{BadLine, Report};

/// Of how many lines that could not be used is told.
const TOLD: usize = 20;

/// Options of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Journals of `run --journal`, or recordings of `oomwarden record`; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Policy file, or directory of *.yaml; without one the built-in policy judges
    #[arg(long, value_name = "FILE-or-DIR", env = "OOMWARDEN_POLICY", value_delimiter = ':')]
    policy: Vec<PathBuf>,
    /// Exit with 1 if any judgement differs
    #[arg(long)]
    exit_code: bool,
    /// Every judgement, the reasons of all that differ, and every line that could not be used
    #[arg(long)]
    all: bool,
    /// One JSON object instead of text; holds everything
    #[arg(long)]
    json: bool,
}

/// Judges again and prints. The exit code: 2 for a bad policy or a file that is no journal, 1 for lines that could not be used,
/// and with `--exit-code` for differences.
#[must_use]
pub fn run(args: &ReplayArgs) -> u8 {
    match replayed(args) {
        Err(failure) => failure.report(),
        Ok((report, code)) => {
            let printed = if args.json { output::json(&report) } else { output::text(&report.text(args.all)) };
            complain(&report.problems, if args.all { usize::MAX } else { TOLD });
            let differs = args.exit_code && report.differing > 0;
            [printed, code, if differs { FAILED } else { DONE }].into_iter().max().unwrap_or(DONE)
        }
    }
}

/// Tells of the first lines that could not be used: a foreign file may have millions.
fn complain(problems: &[BadLine], told: usize) {
    let mut errors = io::stderr().lock();
    // Where standard error is gone nobody listens.
    for problem in problems.iter().take(told) {
        let _ = writeln!(errors, "oomwarden: {}: {}", problem.place, problem.message);
    }
    if problems.len() > told {
        let _ = writeln!(errors, "oomwarden: {} more such lines (--all tells of each)", problems.len() - told);
    }
}

fn replayed(args: &ReplayArgs) -> Result<(Report, u8), Failure> {
    name_overlooked(&args.policy);
    let mut report = Report::new(read_policy(&args.policy)?);
    let mut code = DONE;
    for path in &args.files {
        let name = Escaped(path.as_os_str().as_encoded_bytes()).to_string();
        let unreadable = |error: io::Error| Failure::new(FAILED, format!("{name}: {error}"));
        let before = (report.problems.len(), used(&report));
        if path == Path::new("-") {
            report.read("-", io::stdin().lock()).map_err(unreadable)?;
        } else {
            let file = File::open(path).map_err(unreadable)?;
            report.read(&name, BufReader::new(file)).map_err(unreadable)?;
        }
        if report.problems.len() > before.0 {
            // A file of which nothing could be used was the wrong one to name.
            code = code.max(if used(&report) == before.1 { USAGE } else { FAILED });
        }
    }
    Ok((report, code))
}

fn used(report: &Report) -> usize {
    report.judgements.len() + report.moments + report.kernel_oom.len() + report.passed_over
}
