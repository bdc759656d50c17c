//! `oomwarden record`: facts for a chosen time, for `oomwarden replay`.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tracing::Level;

use super::asking::TreeArgs;
use crate::command::{DONE, FAILED, Failure, USAGE};
use crate::journal_stream;
use crate::policy::{Loaded, parse_time};
use crate::replay::taking::{Span, Taken, everything, take};
use crate::units::Bytes;

/// A shorter interval would only measure the recording itself.
const SHORTEST: Duration = Duration::from_millis(10);

/// The file's mode: groups' names and memory are not everybody's business.
const MODE: u32 = 0o640;

/// Options of `record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// How long; breaking it off earlier loses nothing
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = parse_time)]
    lasting: Duration,
    /// The file, which must not exist yet; `-` is standard output
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// From one moment to the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    interval: Duration,
    #[command(flatten)]
    tree: TreeArgs,
}

/// Records. The exit code: 1 if the file can't be made or written, 3 without cgroup v2.
#[must_use]
pub fn run(args: &RecordArgs) -> u8 {
    match recorded(args) {
        Err(failure) => failure.report(),
        Ok(Taken { moments, groups, bytes }) => {
            let said = format!("recorded moments: {moments}, of up to {groups} groups, {}", Bytes(bytes));
            journal_stream::say(Level::INFO, &said);
            DONE
        }
    }
}

fn recorded(args: &RecordArgs) -> Result<Taken, Failure> {
    if args.interval < SHORTEST {
        return Err(Failure::new(USAGE, "--interval: at least 10ms"));
    }
    let everything: Loaded = everything().map_err(|error| Failure::new(FAILED, error))?;
    let mut onlooker = args.tree.look(&everything.policy)?;
    let span = Span { lasting: args.lasting, interval: args.interval };
    let name = args.output.display();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(FAILED, format!("{name}: is there already: name another with --output")),
        _ => Failure::new(FAILED, format!("{name}: {error}")),
    };
    if args.output == Path::new("-") {
        return take(&mut onlooker, &everything, span, &mut io::stdout().lock()).map_err(failed);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&args.output).map_err(failed)?;
    take(&mut onlooker, &everything, span, &mut file).map_err(failed)
}
