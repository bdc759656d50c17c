//! The global low memory signal's kernel module, and its file.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::places;
use crate::outcome::{Doing, Outcome};
use crate::sys;

/// The module's file.
pub const FILE: &str = "/proc/oom_notifier";
/// The module's directory in sysfs, there while it is loaded.
const LOADED: &str = "/sys/module/oomwarden_lms";

/// Loads the module; `parameters` as in `hold_ms=100 interval_ms=50`.
///
/// # Errors
/// The kernel's.
pub fn try_load(parameters: &str) -> Outcome<Result<(), Errno>> {
    insert(places::MODULE, parameters)
}

fn insert(module: &str, parameters: &str) -> Outcome<Result<(), Errno>> {
    let file = File::open(module).doing(format_args!("open {module} (does the test module:: pass?)"))?;
    let parameters = CString::new(parameters).doing("pass parameters")?;
    Ok(sys::load_module(&file, &parameters))
}

/// Loads the module, which must go well.
pub fn load(parameters: &str) -> Outcome {
    try_load(parameters)?.doing(format_args!("load the module with {parameters:?}"))
}

/// Loads the module as it is built for tests, with the parameters that only they have.
pub fn load_for_tests(parameters: &str) -> Outcome {
    insert(places::MODULE_FOR_TESTS, parameters)?.doing(format_args!("load the module for tests with {parameters:?}"))
}

/// Whether it is loaded.
pub fn is_loaded() -> bool {
    Path::new(LOADED).exists()
}

/// Unloads it. In use, it answers EAGAIN (rmmod's "in use").
pub fn unload() -> Result<(), Errno> {
    sys::unload_module(c"oomwarden_lms")
}

/// Sets a parameter at run time.
pub fn try_set(parameter: &str, value: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(Path::new(LOADED).join("parameters").join(parameter))?;
    file.write_all(value.as_bytes())
}

/// Sets a parameter, which must go well.
pub fn set(parameter: &str, value: impl std::fmt::Display) -> Outcome {
    try_set(parameter, &value.to_string()).doing(format_args!("set the module's {parameter} to {value}"))
}

/// Reads a parameter.
pub fn parameter(name: &str) -> Outcome<String> {
    let path = Path::new(LOADED).join("parameters").join(name);
    Ok(std::fs::read_to_string(&path).doing(format_args!("read {}", path.display()))?.trim().to_owned())
}

/// A parameter that is read again and again, also in a shortage: what a read needs of memory it has from the first one on.
pub struct Parameter(File);

impl Parameter {
    /// Opens it, and reads it once.
    pub fn open(name: &str) -> Outcome<Parameter> {
        let path = Path::new(LOADED).join("parameters").join(name);
        let parameter = Parameter(File::open(&path).doing(format_args!("open {}", path.display()))?);
        parameter.number()?;
        Ok(parameter)
    }

    /// What it is now.
    pub fn number(&self) -> Outcome<u64> {
        let mut buffer = [0; 32];
        let length = self.0.read_at(&mut buffer, 0).doing("read a parameter")?;
        String::from_utf8_lossy(&buffer[..length]).trim().parse().doing("understand a parameter")
    }
}

/// The file, open.
pub struct Notifier(pub File);

impl Notifier {
    /// For reading and writing.
    pub fn open() -> Outcome<Notifier> {
        OpenOptions::new().read(true).write(true).open(FILE).doing(format_args!("open {FILE}")).map(Notifier)
    }

    /// One write.
    pub fn write(&self, command: impl AsRef<[u8]>) -> Result<(), Errno> {
        nix::unistd::write(&self.0, command.as_ref()).map(drop)
    }

    /// A command that must be taken.
    pub fn command(&self, command: &str) -> Outcome {
        self.write(command).doing(format_args!("write {command:?} to {FILE}"))
    }

    /// A command that must be refused for this reason.
    pub fn refuses(&self, command: impl AsRef<[u8]>, why: Errno) -> Outcome {
        let command = command.as_ref();
        let answer = self.write(command);
        let shown = String::from_utf8_lossy(&command[..command.len().min(60)]);
        ensure!(answer == Err(why), "{shown:?} should be refused with {why:?}, not {answer:?}");
        Ok(())
    }

    /// What it says now; takes a notice back.
    pub fn state(&self) -> Outcome<State> {
        let mut buffer = [0; 4096];
        let length = self.0.read_at(&mut buffer, 0).doing(format_args!("read {FILE}"))?;
        ensure!(length > 0 && length <= 2048, "{FILE} is {length} bytes long");
        State::parse(&String::from_utf8_lossy(&buffer[..length]))
    }

    /// Whether it has a notice, waiting for one for a time.
    pub fn notice(&self, within: Duration) -> Outcome<bool> {
        let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)];
        nix::poll::poll(&mut fds, timeout).doing(format_args!("poll {FILE}"))?;
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        ensure!(!events.contains(PollFlags::POLLERR), "POLLERR: {events:?}");
        Ok(events.contains(PollFlags::POLLPRI))
    }
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State(HashMap<String, String>);

impl State {
    /// Now, by way of a file of its own.
    pub fn now() -> Outcome<State> {
        State::parse(&std::fs::read_to_string(FILE).doing(format_args!("read {FILE}"))?)
    }

    fn parse(text: &str) -> Outcome<State> {
        let pair = |line: &str| line.split_once(' ').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let pairs: Option<HashMap<_, _>> = text.lines().map(pair).collect();
        ensure!(text.ends_with('\n'), "{FILE} ends within a line: {text:?}");
        Ok(State(pairs.ok_or_else(|| format!("not `key value` lines: {text:?}"))?))
    }

    /// `ok`, `warn`, `kill` or `oom`.
    pub fn level(&self) -> &str {
        self.0.get("level").map_or("", String::as_str)
    }

    /// A number.
    pub fn number(&self, key: &str) -> Outcome<u64> {
        let value = self.0.get(key).ok_or_else(|| format!("{FILE} has no {key}: {self}"))?;
        value.parse().doing(format_args!("understand {key} of {FILE}: {value:?}"))
    }

    /// By how much a counter rose since.
    pub fn since(&self, before: &State, counter: &str) -> Outcome<u64> {
        let (now, then) = (self.number(counter)?, before.number(counter)?);
        now.checked_sub(then).ok_or_else(|| format!("{counter} fell from {then} to {now}"))
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut pairs: Vec<_> = self.0.iter().map(|(key, value)| format!("{key} {value}")).collect();
        pairs.sort();
        f.write_str(&pairs.join(", "))
    }
}
