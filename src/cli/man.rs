//! `oomwarden man`: manual pages, from the definition that parses arguments too.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, output};
use crate::command::{DONE, FAILED, Failure, USAGE};
use crate::policy::nearest_name;

/// Options of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The page of this command; without one that of oomwarden itself
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Option<String>,
    /// Write all pages into this directory, such as /usr/local/share/man/man1
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints one page, or writes all of them. The exit code.
#[must_use]
pub fn run(args: &ManArgs) -> u8 {
    let pages = pages();
    match (&args.out, &args.command) {
        (Some(directory), _) => write(&pages, directory).map_or_else(|failure| failure.report(), |()| DONE),
        (None, wanted) => {
            page(pages, wanted.as_deref()).map_or_else(|failure| failure.report(), |page| output::print(|out| page.render(out)))
        }
    }
}

/// A page for oomwarden and one for each command.
fn pages() -> Vec<Man> {
    let mut whole = Cli::command().disable_help_subcommand(true);
    whole.build();
    let commands: Vec<Command> = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    std::iter::once(whole).chain(commands).map(|command| Man::new(command).manual("oomwarden")).collect()
}

fn page(pages: Vec<Man>, wanted: Option<&str>) -> Result<Man, Failure> {
    let file = wanted.map_or_else(|| "oomwarden.1".to_owned(), |command| format!("oomwarden-{command}.1"));
    let names: Vec<String> = pages.iter().map(Man::get_filename).collect();
    pages.into_iter().find(|page| page.get_filename() == file).ok_or_else(|| {
        let commands: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("oomwarden-")?.strip_suffix(".1")).collect();
        Failure::new(USAGE, nearest_name("command", wanted.unwrap_or_default(), &commands))
    })
}

fn write(pages: &[Man], directory: &Path) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::new(FAILED, format!("{}: {error}: name a directory that may be written to", directory.display()));
    fs::create_dir_all(directory).map_err(failed)?;
    pages.iter().try_for_each(|page| page.generate_to(directory).map(|_| ())).map_err(failed)
}
