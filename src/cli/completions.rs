//! `oomwarden completions SHELL`: a completion script, from the definition that parses arguments too.

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::{Cli, output};

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that is to complete
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script. The exit code.
#[must_use]
pub fn run(args: &CompletionsArgs) -> u8 {
    // In memory first: the generator panics where it can't write.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "oomwarden", &mut script);
    output::print(|out| out.write_all(&script))
}
