//! `oomwarden doctor`: can this machine do it, and what to do where it can't?

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use crate::command::{FAILED, Failure};
use crate::doctor::{Report, Status, System, Unit};

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Where cgroup v2 is mounted, or the subtree to watch
    #[arg(long, value_name = "DIR", env = "OOMWARDEN_CGROUP_ROOT", default_value = "/sys/fs/cgroup")]
    cgroup_root: PathBuf,
    /// Judge the rights of this service of systemd instead of your own, running or not
    #[arg(long, value_name = "NAME")]
    unit: Option<String>,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
    /// Exit with 1 if anything is degraded
    #[arg(long)]
    strict: bool,
}

/// Checks the machine and prints what was found. The exit code: 3 if something is missing, with `--strict` 1 if something
/// is degraded, else 0; 1 if the unit can't be judged or the result could not be printed.
#[must_use]
pub fn run(args: DoctorArgs) -> u8 {
    let unit = match args.unit.as_deref().map(Unit::ask).transpose() {
        Ok(unit) => unit,
        Err(error) => return Failure::new(FAILED, error.to_string()).report(),
    };
    let report = crate::doctor::examine(&System::here(args.cgroup_root).with_unit(unit));
    match print(&report, args.json) {
        // who reads no further has seen enough
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Failure::new(FAILED, format!("cannot print the result: {error}")).report()
        }
        _ => code(report.status(), args.strict),
    }
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()
}

fn code(status: Status, strict: bool) -> u8 {
    match status {
        Status::Missing => 3,
        Status::Degraded if strict => 1,
        Status::Degraded | Status::Ok => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        for (status, strict, expected) in [
            (Status::Ok, true, 0),
            (Status::Degraded, false, 0),
            (Status::Degraded, true, 1),
            (Status::Missing, false, 3),
            (Status::Missing, true, 3),
        ] {
            assert_eq!(code(status, strict), expected);
        }
    }
}
