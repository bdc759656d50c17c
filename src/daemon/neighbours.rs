//! Who else acts on memory here, said once at the start: looked at by `oomwarden neighbours`, a process of its own.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The subcommand's name.
pub const SUBCOMMAND: &str = "neighbours";
/// Where the groups are, for the child.
const ROOT: &str = "--cgroup-root";

/// Starts the look. To be called before oom_score_adj is raised, which the child would inherit.
///
/// # Errors
/// When it can't be started.
pub fn start(program: &Path, cgroup_root: &Path) -> io::Result<Child> {
    Command::new(program)
        .arg(SUBCOMMAND)
        .arg(ROOT)
        .arg(cgroup_root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
}

/// Logs what the look found, when it is done; on a thread of its own.
pub fn log(looking: io::Result<Child>) {
    let failed = |error: io::Error| tracing::info!("who else acts on memory here is not looked at: {error}; `oomwarden doctor` does it");
    let mut child = match looking {
        Ok(child) => child,
        Err(error) => return failed(error),
    };
    let read = move || {
        let mut text = String::new();
        let read = child.stdout.take().map_or(Ok(0), |mut out| out.read_to_string(&mut text));
        let ended = child.wait();
        text.lines().for_each(|line| tracing::warn!("{line}"));
        match (read, ended) {
            (Err(error), _) | (_, Err(error)) => failed(error),
            (Ok(_), Ok(status)) if !status.success() => failed(io::Error::other(status.to_string())),
            _ => {}
        }
    };
    if let Err(error) = std::thread::Builder::new().name("neighbours".into()).stack_size(64 * 1024).spawn(read) {
        failed(error);
    }
}
