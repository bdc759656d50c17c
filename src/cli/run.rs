//! `oomwarden run`: the daemon's options.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::command::DONE;
use crate::daemon::logging::{LogFormat, LogLevel};
use crate::daemon::options::Options;
use crate::daemon::start::start;
use crate::policy::parse_bytes;
use crate::record::file::{JournalTo, Rotation};
use crate::serve::{ControlAddr, ListenAddr};
use crate::units::Bytes;

/// What to do on a machine without cgroup v2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnUnsupported {
    /// Exit with code 3.
    Exit,
    /// Say so and wait for a signal, for machines of many kinds under one deployment.
    Idle,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Policy file, or directory of *.yaml; without one a built-in policy is used
    #[arg(long, value_name = "FILE-or-DIR", env = "OOMWARDEN_POLICY", value_delimiter = ':')]
    policy: Vec<PathBuf>,
    /// Exit if the policy can't be used at the start: with 2 if it is a bad one, with 1 if it can't be read. Else the last good one is used,
    /// or the built-in one, which only observes then
    #[arg(long, env = "OOMWARDEN_STRICT_POLICY")]
    strict_policy: bool,
    /// Where cgroup v2 is mounted, or the subtree to watch
    #[arg(long, value_name = "DIR", env = "OOMWARDEN_CGROUP_ROOT", default_value = "/sys/fs/cgroup")]
    cgroup_root: PathBuf,
    /// Address for metrics and health, or `none` [default: 127.0.0.1:19877, if it is free]
    #[arg(long, value_name = "ADDR", env = "OOMWARDEN_LISTEN", value_delimiter = ',')]
    listen: Vec<ListenAddr>,
    /// Names of groups, status and last deeds at these addresses too, for reading
    #[arg(long, env = "OOMWARDEN_LISTEN_API")]
    listen_api: bool,
    /// Unix socket for `oomwarden status`, `pause`, `resume` and `reload`, or `none` [default: /run/oomwarden/control.sock]
    #[arg(long, value_name = "PATH", env = "OOMWARDEN_CONTROL")]
    control: Option<ControlAddr>,
    /// Journal of judgements as JSON lines; `-` is standard output
    #[arg(long, value_name = "FILE", env = "OOMWARDEN_JOURNAL")]
    journal: Option<JournalTo>,
    /// The journal file is renamed to FILE.1 before it gets larger than this; `none`: it grows as it likes
    #[arg(long, value_name = "SIZE", env = "OOMWARDEN_JOURNAL_MAX_SIZE", default_value = "64MiB", value_parser = journal_size)]
    journal_max_size: JournalSize,
    /// How many former journal files are kept
    #[arg(long, value_name = "N", env = "OOMWARDEN_JOURNAL_KEEP", default_value_t = Rotation::default().keep)]
    journal_keep: u16,
    /// Where processes wait to be told that their group should free memory, or `none`
    #[arg(long, value_name = "PATH|none", env = "OOMWARDEN_PRESSURE_SOCKET")]
    pressure_socket: Option<PathBuf>,
    /// Directory for what outlives the daemon: a pause, the last good policy
    #[arg(long, value_name = "DIR", env = "OOMWARDEN_STATE", default_value = "/run/oomwarden")]
    state: PathBuf,
    /// Judge and record, but do nothing
    #[arg(long, env = "OOMWARDEN_OBSERVE")]
    observe: bool,
    /// On a machine without cgroup v2 or its memory controller
    #[arg(long, env = "OOMWARDEN_ON_UNSUPPORTED", default_value = "exit")]
    on_unsupported: OnUnsupported,
    /// Groups that have PSI triggers at a time; each costs a kernel thread
    #[arg(long, value_name = "N", env = "OOMWARDEN_PSI_GROUPS", default_value_t = 64)]
    psi_groups: usize,
    /// Form of log lines
    #[arg(long, env = "OOMWARDEN_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// What is logged
    #[arg(long, env = "OOMWARDEN_LOG_LEVEL", default_value = "info")]
    log_level: LogLevel,
}

/// `--journal-max-size`.
#[derive(Clone, Copy, Debug)]
struct JournalSize(Option<Bytes>);

fn journal_size(text: &str) -> Result<JournalSize, String> {
    match text {
        "none" => Ok(JournalSize(None)),
        text => parse_bytes(text).map(|bytes| JournalSize(Some(bytes))),
    }
}

impl From<RunArgs> for Options {
    fn from(args: RunArgs) -> Options {
        Options {
            policy: args.policy,
            strict_policy: args.strict_policy,
            cgroup_root: args.cgroup_root,
            listen: args.listen,
            listen_api: args.listen_api,
            control: args.control,
            journal: args.journal,
            rotation: Rotation { at: args.journal_max_size.0, keep: args.journal_keep },
            pressure_socket: args.pressure_socket,
            state: args.state,
            observe: args.observe,
            idle_if_unsupported: args.on_unsupported == OnUnsupported::Idle,
            psi_groups: args.psi_groups,
            log_format: args.log_format,
            log_level: args.log_level,
        }
    }
}

/// Runs the daemon until it is told to stop.
#[must_use]
pub fn run(args: RunArgs) -> u8 {
    match start(args.into()) {
        Ok(()) => DONE,
        Err(failure) => failure.report(),
    }
}
