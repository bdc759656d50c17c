//! What users type: arguments to one subcommand a file, with no logic of their own.

pub mod asking;
pub mod check;
pub mod completions;
pub mod doctor;
pub mod environment;
pub mod explain;
mod found;
pub mod hook_helper;
pub mod man;
pub mod neighbours;
pub mod output;
pub mod pause;
pub mod plan;
pub mod record;
pub mod reload;
pub mod replay;
pub mod run;
pub mod schema;
pub mod status;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing::Level;

use crate::command::USAGE;
use crate::journal_stream;

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
    Check(check::CheckArgs),
    /// Tells whom each rule would kill right now, and why; kills nothing
    ///
    /// For every group that a rule watches: what of its triggers and conditions is so now, who would die if a trigger fired, who
    /// would be next, and who must live, each with the reason. It needs no running daemon and looks with the daemon's own code.
    Plan(plan::PlanArgs),
    /// Tells which rules and exclusions apply to a group, and why
    ///
    /// By the line of the policy that says so: the rules that watch it, those whose victim it may be, exclusions, importance,
    /// memory.oom.group. Of a group that exists also its numbers, the smallest limit that holds for it, the processes for whose sake
    /// it must live, and where it stands among the candidates right now.
    Explain(explain::ExplainArgs),
    /// Judges recorded moments again, by another policy, and tells what differs
    ///
    /// Reads a journal (every judgement of which holds the facts that it turned on) or a recording, and judges line by line with the
    /// daemon's own code: whom this policy would have killed, and why not the one that was.
    Replay(replay::ReplayArgs),
    /// Records the facts of all groups for a chosen time, for `replay`
    ///
    /// It needs no running daemon. Any policy can be asked about the recording later.
    Record(record::RecordArgs),
    /// Tells how the running daemon stands: groups, triggers, rules, pause, breakers, kernel module, last deeds
    Status(status::StatusArgs),
    /// Pauses the running daemon's deeds: sensing, judging and recording go on, nobody is killed
    ///
    /// For whoever is on call. It ends by itself, survives a restart of the daemon, and shows in metrics, status and journal. A ladder under
    /// way begins no further rung; the kernel module is left alone too.
    Pause(pause::PauseArgs),
    /// Ends a pause before its time
    Resume(pause::ResumeArgs),
    /// Has the running daemon read its policy again, and tells what came of it
    ///
    /// Exits with 0 when the policy is in force, with 2 and all that is wrong when it is refused: the old one stays.
    Reload(reload::ReloadArgs),
    /// Tells whether this machine can do it, and what to do where it can't
    Doctor(doctor::DoctorArgs),
    /// Prints the JSON Schema of the policy, for editors
    Schema,
    /// Prints a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Prints a manual page, or writes all of them
    Man(man::ManArgs),
    /// Runs hooks for the daemon, which starts this itself
    #[command(name = crate::act::hooks::SUBCOMMAND, hide = true)]
    HookHelper(hook_helper::HookHelperArgs),
    /// Names who else acts on memory, for the daemon, which starts this itself
    #[command(name = crate::daemon::neighbours::SUBCOMMAND, hide = true)]
    Neighbours(neighbours::NeighboursArgs),
}

/// What was typed, and what stands in the environment.
fn parse() -> Result<Cli, ExitCode> {
    let command = environment::prepare(Cli::command());
    let args: Vec<OsString> = std::env::args_os().collect();
    let parsed = command.clone().try_get_matches_from(&args).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = parsed.map_err(|error| {
        let error = environment::name_variable(error, &command, &args);
        match error.use_stderr() && journal_stream::is_stderr() {
            true => journal_stream::say(Level::ERROR, error.to_string().trim_end()),
            // Help goes to standard output; where that is gone nobody reads.
            false => drop(error.print()),
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
    })?;
    // The daemon looked at its helpers' environment when it started.
    if !matches!(cli.command, Command::HookHelper(_) | Command::Neighbours(_)) {
        environment::check(&Cli::command(), std::env::vars_os()).map_err(|failure| ExitCode::from(failure.report()))?;
    }
    Ok(cli)
}

/// Runs the command that was typed.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let code = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Pause(args) => pause::pause(&args),
        Command::Resume(args) => pause::resume(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Doctor(args) => doctor::run(args),
        Command::Schema => schema::run(),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::HookHelper(args) => hook_helper::run(&args),
        Command::Neighbours(args) => neighbours::run(&args),
    };
    ExitCode::from(code)
}
