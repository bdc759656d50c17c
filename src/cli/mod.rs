//! What users type: arguments to one subcommand a file, with no logic of their own.

pub mod check;
pub mod doctor;
pub mod logging;
pub mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Done.
pub const DONE: u8 = 0;
/// Failed at run time.
pub const FAILED: u8 = 1;
/// Wrong usage or a bad policy.
pub const USAGE: u8 = 2;
/// The machine lacks something that is required.
pub const UNSUPPORTED: u8 = 3;

/// A cgroup v2 aware out-of-memory manager: notices in milliseconds, ends the right group as a whole, and proves it.
#[derive(Debug, Parser)]
#[command(name = "oomwarden", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done; 1 failed at run time; 2 wrong usage or bad policy; 3 the machine lacks something required.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon
    Run(run::RunArgs),
    /// Checks policies: file:line:column, what is wrong, and a hint
    Check {
        /// Policy files or directories of *.yaml
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Tells whether this machine can do it, and what to do where it can't
    Doctor(doctor::DoctorArgs),
}

/// Runs the command that was typed.
#[must_use]
pub fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Check { files } => check::run(&files),
        Command::Doctor(args) => doctor::run(args),
    };
    ExitCode::from(code)
}
