//! `oomwarden run`: starts the daemon. Everything that can be wrong is found out before anything starts to act.

use std::fs::{self, File, OpenOptions};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::asking::read_policy;
use super::failure::Failure;
use super::logging::{self, LogFormat, LogLevel};
use super::{DONE, FAILED, UNSUPPORTED};
use crate::cgroup::root::Root;
use crate::policy::Loaded;
use crate::policy::model::{Mode, Policy, Psi, Trigger};
use crate::record::counters::Counters;
use crate::record::file::JournalTo;
use crate::record::journal::Context;
use crate::record::pool::Pool as Records;
use crate::record::pulse::Pulse;
use crate::record::recorder::Recorder;
use crate::record::witness::Witness;
use crate::sense::lms;
use crate::serve::{Limits, ListenAddr, Server};
use crate::warden::reload::{self, Mailbox};
use crate::warden::{Setup, Warden};

/// Records that may be open or wait to be written at a time.
const RECORDS: usize = 24;
/// Descriptors of the daemon itself: standard ones, epoll, timers, signals, /proc, inotify, the journal, the kernel's log, the
/// server's own.
const OWN_DESCRIPTORS: usize = 41;
/// Descriptors at the most: the kernel keeps some memory for each file that is held.
const MOST_DESCRIPTORS: u64 = 16_384;
/// How long the end waits for records and log lines to be written.
const FAREWELL: Duration = Duration::from_secs(2);

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
    /// Where cgroup v2 is mounted, or the subtree to watch
    #[arg(long, value_name = "DIR", env = "OOMWARDEN_CGROUP_ROOT", default_value = "/sys/fs/cgroup")]
    cgroup_root: PathBuf,
    /// Address for metrics and health, or `none`
    #[arg(long, value_name = "ADDR", env = "OOMWARDEN_LISTEN", value_delimiter = ',', default_value = "127.0.0.1:19877")]
    listen: Vec<ListenAddr>,
    /// Journal of judgements as JSON lines; `-` is standard output
    #[arg(long, value_name = "FILE", env = "OOMWARDEN_JOURNAL")]
    journal: Option<JournalTo>,
    /// Directory for the lock that keeps a second oomwarden off
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

fn failed(code: u8) -> impl Fn(String) -> Failure {
    move |message| Failure { code, message }
}

/// Runs the daemon until it is told to stop.
#[must_use]
pub fn run(args: RunArgs) -> u8 {
    match start(args) {
        Ok(()) => DONE,
        Err(failure) => failure.report(),
    }
}

fn load(paths: &[PathBuf], observe: bool) -> Result<Policy, Failure> {
    let Loaded { mut policy, .. } = read_policy(paths)?;
    if observe {
        policy.mode = Mode::Observe;
        policy.rules.iter_mut().for_each(|rule| rule.mode = Mode::Observe);
    }
    Ok(policy)
}

fn start(args: RunArgs) -> Result<(), Failure> {
    let signals = block_signals().map_err(|error| failed(FAILED)(format!("signals: {error}")))?;
    let policy = Arc::new(load(&args.policy, args.observe)?);
    let root = match Root::open(&args.cgroup_root) {
        Ok(root) => root,
        Err(error) if args.on_unsupported == OnUnsupported::Idle => {
            eprintln!("oomwarden: {error}\noomwarden: idle until stopped (--on-unsupported=idle)");
            return idle(&signals);
        }
        Err(error) => return Err(failed(UNSUPPORTED)(error.to_string())),
    };
    if !args.observe && !may_act(&root) {
        return Err(failed(UNSUPPORTED)(format!(
            "{}: no right to end processes here: run as root, have the subtree delegated to this user (chown of cgroup.procs), or use --observe",
            args.cgroup_root.display()
        )));
    }
    let _lock = lock_state(&args.state)?;
    let server = Server::bind(&args.listen).map_err(|error| failed(FAILED)(error.to_string()))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = logging::start(args.log_format, args.log_level, colours).map_err(|error| failed(FAILED)(format!("log: {error}")))?;
    let descriptors = descriptors(args.psi_groups.max(1), &policy);
    prepare_self();

    let counters = Arc::new(Counters::new().map_err(|error| failed(FAILED)(format!("metrics: {error}")))?);
    counters.policy_started(SystemTime::now());
    let pulse = Arc::new(Pulse::new().map_err(|error| failed(FAILED)(format!("eventfd: {error}")))?);
    let records = Records::new(RECORDS, 64, counters.journal_dropped());
    let journal = args.journal.clone().unwrap_or(JournalTo::Nowhere);
    let recorder = Recorder::spawn(&records, journal, Context::of_this_process(None), counters.journal_dropped())
        .map_err(|error| failed(FAILED)(error.to_string()))?;
    let witness = match Witness::start(Arc::clone(&root), records.clone(), Arc::clone(&counters), descriptors.notices) {
        Ok(witness) => Some(witness),
        Err(error) => {
            tracing::warn!("what the kernel's own OOM killer does is not recorded: {error}");
            None
        }
    };
    let mailbox = Mailbox::new().map_err(|error| failed(FAILED)(format!("eventfd: {error}")))?;
    let warden = Warden::new(Setup {
        root,
        policy: Arc::clone(&policy),
        psi_groups: descriptors.psi_groups,
        descriptors: descriptors.groups,
        records: records.clone(),
        counters: Arc::clone(&counters),
        pulse: Arc::clone(&pulse),
        mailbox: mailbox.clone(),
        signals,
        low_memory: lms::PATH.into(),
        ready: announce,
    })
    .map_err(|error| failed(FAILED)(format!("{}: {error}", args.cgroup_root.display())))?;
    let paths = args.policy.clone();
    let again = Box::new(move || load(&paths, args.observe).map_err(|failure| failure.message));
    reload::start(mailbox, args.policy, Arc::clone(&policy), Arc::clone(&counters), again)
        .map_err(|error| failed(FAILED)(format!("policy reload: {error}")))?;
    let server = server.spawn(counters, pulse, Limits::default()).map_err(|error| failed(FAILED)(error.to_string()))?;
    for address in server.local_addrs() {
        tracing::info!("metrics and health at http://{address}/");
    }
    tracing::info!(
        "oomwarden {} with policy {} ({} rules){}",
        env!("CARGO_PKG_VERSION"),
        policy.hash,
        policy.rules.len(),
        if args.observe { ", observing only" } else { "" }
    );
    let result = warden.run();
    // Nothing to tell where no service manager listens.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    server.shutdown();
    if let Some(witness) = witness {
        witness.shutdown();
    }
    if !recorder.shutdown(FAREWELL) {
        tracing::warn!("records were still waiting to be written at the end");
    }
    match &result {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => tracing::error!("the warden stopped: {error}"),
    }
    log.flush(FAREWELL);
    result.map_err(|error| failed(FAILED)(format!("epoll: {error}")))
}

/// Told once the groups are armed.
fn announce() {
    tracing::info!("groups are armed");
    // Nothing to tell where no service manager listens.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// Signals are taken by a descriptor; blocked here, before any thread starts.
fn block_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn idle(signals: &SignalFd) -> Result<(), Failure> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd as _;
    loop {
        match poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(failed(FAILED)(format!("poll: {error}"))),
        }
        while let Ok(Some(info)) = signals.read_signal() {
            if Signal::try_from(info.ssi_signo.cast_signed()) != Ok(Signal::SIGHUP) {
                return Ok(());
            }
        }
    }
}

/// One oomwarden to a tree.
fn lock_state(directory: &Path) -> Result<Flock<File>, Failure> {
    let fail = |what: String| failed(FAILED)(format!("{what}: name a directory that oomwarden may write to with --state"));
    fs::create_dir_all(directory).map_err(|error| fail(format!("{}: {error}", directory.display())))?;
    let path = directory.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| fail(format!("{}: {error}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::Error::EWOULDBLOCK => failed(FAILED)(format!(
            "{}: another oomwarden is running here: stop it, or give this one a --state of its own if it watches another tree",
            path.display()
        )),
        error => fail(format!("{}: {error}", path.display())),
    })
}

/// How descriptors are shared out.
struct Descriptors {
    groups: usize,
    psi_groups: usize,
    /// For the witness, where the kernel's log gives no notice.
    notices: usize,
}

/// Raises RLIMIT_NOFILE to what is allowed and shares it out: what the daemon needs for itself, the server's connections
/// (it takes an eighth at the most), triggers, groups, and a rest for files that are opened for one use.
fn descriptors(psi_groups: usize, policy: &Policy) -> Descriptors {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((256, 256));
    let wanted = hard.min(MOST_DESCRIPTORS).max(soft);
    let limit = if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft };
    let limit = usize::try_from(limit.min(MOST_DESCRIPTORS)).unwrap_or(256);
    let notices = (limit / 32).min(64);
    let spare = limit.saturating_sub(OWN_DESCRIPTORS + notices + limit / 8);
    // A group may have as many triggers as the policy has different ones.
    let mut kinds: Vec<Psi> = Vec::new();
    for when in policy.rules.iter().flat_map(|rule| &rule.when) {
        match when {
            Trigger::Psi(psi) if !kinds.contains(psi) => kinds.push(*psi),
            _ => {}
        }
    }
    let each = kinds.len().max(1);
    let psi_groups = psi_groups.min(spare / 4 / each).max(1);
    let rest = (spare / 4).min(256);
    Descriptors { groups: spare.saturating_sub(psi_groups * each + rest), psi_groups, notices }
}

/// Whether we may end processes here at all: as root, with CAP_KILL, or in a subtree that was delegated to us.
fn may_act(root: &Root) -> bool {
    use rustix::fs::{Access, AtFlags, accessat};
    accessat(&root.dir, "cgroup.procs", Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Keeps the daemon itself alive and resident when the node starves.
fn prepare_self() {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::info!("oom_score_adj stays as it is: {error} (the kernel may choose oomwarden itself; CAP_SYS_RESOURCE prevents it)");
    }
    let locked = crate::sys::lock_stack().and_then(|()| crate::sys::lock_program_on_use());
    if let Err(error) = locked {
        tracing::info!("memory is not locked: {error} (reactions may be slower when the node starves; CAP_IPC_LOCK prevents it)");
    }
}
