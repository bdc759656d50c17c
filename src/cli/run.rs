//! `oomwarden run`: starts the daemon. Everything that can be wrong is found out before anything starts to act.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::Level;

use super::acting;
use super::beginning::{Beginning, Instead, begin, load};
use super::failure::Failure;
use super::logging::{self, LogFormat, LogLevel};
use super::neighbours;
use super::outside;
use super::{DONE, FAILED, UNSUPPORTED};
use crate::act::listeners;
use crate::cgroup::root::Root;
use crate::control::board::Board;
use crate::control::by::By;
use crate::control::mailbox::Mailbox;
use crate::control::origin::{self, Origin};
use crate::control::pulse::Pulse;
use crate::journal_stream;
use crate::metrics::counters::Counters;
use crate::policy::model::{Policy, Psi, Trigger};
use crate::policy::overlooked::{overlooked, warning};
use crate::policy::parse_bytes;
use crate::record::file::{Destination, JournalTo, Rotation};
use crate::record::journal::Context;
use crate::record::pool::Pool as Records;
use crate::record::recent::Recent;
use crate::record::recorder::Recorder;
use crate::record::witness::Witness;
use crate::sandbox;
use crate::sense::lms;
use crate::serve::{ControlAddr, ControlSocket, Desk, Limits, ListenAddr, Server, socket, supervisor};
use crate::state::{self, StateDir};
use crate::threads;
use crate::units::Bytes;
use crate::warden::reach::Reach;
use crate::warden::reload;
use crate::warden::{Setup, Warden};

/// Records that may be open or wait to be written at a time.
const RECORDS: usize = 24;
/// Descriptors of the daemon itself: standard ones, epoll, timers, signals, /proc, inotify, the journal, the server's own, the
/// pressure socket's, the helper's, the control socket, the service manager's bell, the kernel's log and count.
const OWN_DESCRIPTORS: usize = 50;
/// Descriptors at the most: the kernel keeps some memory for each file that is held.
const MOST_DESCRIPTORS: u64 = 16_384;
/// How long the end waits for records to be written...
const FAREWELL: Duration = Duration::from_secs(2);
/// ...and for other threads. With a kill under way (2 s), memory.oom.group to be taken back (2 s) and the server (1 s) it comes within the 10 s
/// that the unit's TimeoutStopSec gives.
const SHORT_FAREWELL: Duration = Duration::from_secs(1);

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

/// The addresses for metrics and health. Those that were asked for must be had; any user of the machine can take the usual one, which must
/// keep nobody from being protected.
fn server(asked: &[ListenAddr]) -> Result<Server, Failure> {
    match (asked, ListenAddr::DEFAULT) {
        ([], ListenAddr::Socket(usual)) => Ok(Server::bind_or_wait(usual)),
        _ => Server::bind(asked).map_err(|error| failed(FAILED)(error.to_string())),
    }
}

/// The control socket. One that was asked for must be had; without the usual one oomwarden protects all the same.
fn control_socket(asked: Option<&ControlAddr>) -> Result<Option<ControlSocket>, Failure> {
    match asked {
        Some(ControlAddr::None) => Ok(None),
        Some(ControlAddr::Path(path)) => {
            ControlSocket::bind(path).map(Some).map_err(|error| failed(FAILED)(sandbox::explained(path, &error)))
        }
        None => Ok(ControlSocket::bind(Path::new(socket::DEFAULT))
            .map_err(|error| {
                let why = "there is no control socket now, so that `status`, `pause`, `resume` and `reload` don't work";
                journal_stream::say(Level::WARN, &format!("{}: {why}", sandbox::explained(Path::new(socket::DEFAULT), &error)));
            })
            .ok()),
    }
}

/// Names files of policy directories that look like policies and are not read.
fn warn_of_overlooked(paths: &[PathBuf]) {
    overlooked(paths).iter().for_each(|path| tracing::warn!("{}", warning(path)));
}

/// What is left of a pause from before the start.
fn pause_left(state: &StateDir) -> Option<(Duration, Option<By>)> {
    state::pause::left(state, &state::pause::Now::read()).unwrap_or_else(|error| {
        tracing::error!("{}: {error}: deeds are not paused", state.path_of(state::pause::NAME).display());
        None
    })
}

fn start(args: RunArgs) -> Result<(), Failure> {
    let state = StateDir::new(&args.state);
    let given = if args.policy.is_empty() { origin::Source::BuiltIn } else { origin::Source::Files };
    // Before they are read, so that no change of the policy's files is missed.
    let watcher = reload::Watcher::new(args.policy.clone()).map_err(|error| failed(FAILED)(format!("policy reload: {error}")))?;
    let Beginning { policy, texts, mut instead } = begin(&args.policy, args.observe, args.strict_policy, &state)?;
    let policy = Arc::new(policy);
    // Before anything is blocked, locked or raised: hooks are ordinary processes.
    let (starter, helper) = outside::start_helper(&policy, args.observe, &args.cgroup_root)
        .map_err(|error| failed(FAILED)(format!("the helper for hooks: {error}")))?;
    let looking = neighbours::start(&outside::own_program(), &args.cgroup_root);
    let signals = block_signals().map_err(|error| failed(FAILED)(format!("signals: {error}")))?;
    let root = match Root::open(&args.cgroup_root) {
        Ok(root) => root,
        Err(error) if args.on_unsupported == OnUnsupported::Idle => {
            instead.iter_mut().for_each(Instead::say);
            journal_stream::say(Level::WARN, &error.to_string());
            journal_stream::say(Level::WARN, "idle until stopped (--on-unsupported=idle)");
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
    let _locks = acting::lock(&root, &args.state, args.control.as_ref(), args.observe)?;
    let server = server(&args.listen)?;
    let control = control_socket(args.control.as_ref())?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = logging::start(args.log_format, args.log_level, colours).map_err(|error| failed(FAILED)(format!("log: {error}")))?;
    let door = outside::open_door(args.pressure_socket.as_deref(), &args.cgroup_root)?;
    let descriptors = descriptors(args.psi_groups.max(1), &policy, door.is_some());
    prepare_self();
    outside::warn_of_hazards(&args.cgroup_root, &policy);

    let counters = Arc::new(Counters::new().map_err(|error| failed(FAILED)(format!("metrics: {error}")))?);
    threads::watch(&counters);
    let policies = Arc::new(state::policy::Keeper::new(state.clone()));
    let in_force = instead.as_ref().map_or(given, |instead| instead.source);
    let origin = Arc::new(Origin::new(&args.policy, state.path_of(state::policy::NAME), args.observe, in_force));
    match instead {
        None => {
            counters.policy_started(SystemTime::now());
            texts.keep(&policies, &policy.hash);
        }
        Some(instead) => instead.tell(&counters),
    }
    warn_of_overlooked(&args.policy);
    let pulse = Arc::new(Pulse::new().map_err(|error| failed(FAILED)(format!("eventfd: {error}")))?);
    let records = Records::new(RECORDS, 64, counters.journal_dropped());
    let to = args.journal.clone().unwrap_or(JournalTo::Nowhere);
    let journal = Destination { to, rotation: Rotation { at: args.journal_max_size.0, keep: args.journal_keep } };
    let recent = Arc::new(Recent::default());
    let context = Context::of_this_process(None);
    let recorder =
        Recorder::spawn(&records, journal, context.clone(), counters.journal_dropped(), Arc::clone(&recent)).map_err(|error| {
            let file = match &args.journal {
                Some(JournalTo::File(file)) => file.as_path(),
                _ => Path::new(""),
            };
            failed(FAILED)(sandbox::explained(file, &error))
        })?;
    let witness = match Witness::start(Arc::clone(&root), records.clone(), Arc::clone(&counters), descriptors.notices) {
        Ok(witness) => Some(witness),
        Err(error) => {
            tracing::warn!("what the kernel's own OOM killer does is not recorded: {error}");
            None
        }
    };
    let mailbox = Mailbox::new().map_err(|error| failed(FAILED)(format!("eventfd: {error}")))?;
    let board = Arc::new(Board::new(mailbox.mail()));
    let reloads = mailbox.reloads();
    let listeners = outside::serve(door, descriptors.listeners, &counters).map_err(|error| failed(FAILED)(error.to_string()))?;
    let hooks = match args.observe {
        true => None,
        false => Some(
            outside::hooks(starter, helper, records.clone(), context, mailbox.mail()).map_err(|error| failed(FAILED)(error.to_string()))?,
        ),
    };
    let warden = Warden::new(Setup {
        root,
        policy: Arc::clone(&policy),
        psi_groups: descriptors.psi_groups,
        descriptors: descriptors.groups,
        records: records.clone(),
        counters: Arc::clone(&counters),
        pulse: Arc::clone(&pulse),
        mailbox: mailbox.clone(),
        board: Arc::clone(&board),
        state: state.clone(),
        paused: pause_left(&state),
        signals,
        low_memory: lms::PATH.into(),
        reach: Reach { listeners: listeners.clone(), hooks: hooks.clone() },
        ready: announce,
    })
    .map_err(|error| failed(FAILED)(format!("{}: {error}", args.cgroup_root.display())))?;
    let paths = args.policy;
    let loaded = Arc::clone(&origin);
    let hooks_at_end = hooks.clone();
    let again = Box::new(move || {
        warn_of_overlooked(&paths);
        let texts = acting::texts(&paths, args.observe, acting::in_the_log).map_err(|failure| failure.message)?;
        let policy = load(&texts.sources, args.observe).map_err(|failure| failure.message)?;
        texts.keep(&policies, &policy.hash);
        if let Some(hooks) = &hooks {
            hooks.prepare(&policy);
        }
        loaded.set(given);
        Ok(policy)
    });
    reload::start(mailbox, watcher, Arc::clone(&policy), Arc::clone(&counters), again)
        .map_err(|error| failed(FAILED)(format!("policy reload: {error}")))?;
    let pauses = Arc::new(state::pause::Keeper::new(state));
    let desk = Desk { board: Some(board), recent: Some(recent), pauses: Some(pauses), origin: Some(origin), reloads: Some(reloads) };
    supervisor::start(desk.clone(), Arc::clone(&counters)).map_err(|error| failed(FAILED)(format!("the service manager: {error}")))?;
    if let Some(control) = &control {
        tracing::info!("control socket at {}", control.path().display());
    }
    let server = server
        .with_control(control)
        .with_desk(desk)
        .with_api(args.listen_api)
        .spawn(counters, pulse, Limits::default())
        .map_err(|error| failed(FAILED)(error.to_string()))?;
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
    neighbours::log(looking);
    let result = threads::as_vital("warden", || warden.run());
    // Nothing to tell where no service manager listens.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    server.shutdown();
    if witness.is_some_and(|witness| !witness.shutdown(SHORT_FAREWELL)) {
        tracing::warn!("the kernel's last OOM kills may not have been recorded: a file did not answer");
    }
    if let Some(listeners) = listeners {
        listeners.close();
    }
    if let Some(hooks) = hooks_at_end {
        hooks.end(FAREWELL);
    }
    if !recorder.shutdown(FAREWELL) {
        tracing::warn!("records were still waiting to be written at the end");
    }
    match &result {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => tracing::error!("the warden stopped: {error}"),
    }
    drop(log);
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
    // SIGCONT tells that the process was stopped.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCONT] {
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
            if !matches!(Signal::try_from(info.ssi_signo.cast_signed()), Ok(Signal::SIGHUP | Signal::SIGCONT)) {
                return Ok(());
            }
        }
    }
}

/// How descriptors are shared out.
struct Descriptors {
    groups: usize,
    psi_groups: usize,
    /// For the witness, where the kernel's log gives no notice.
    notices: usize,
    listeners: usize,
}

/// Raises RLIMIT_NOFILE to what is allowed and shares it out: what the daemon needs for itself, the server's connections
/// (it takes an eighth at the most), listeners (another eighth, where there are many), triggers, groups, and a rest for files that
/// are opened for one use.
fn descriptors(psi_groups: usize, policy: &Policy, with_listeners: bool) -> Descriptors {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((256, 256));
    let wanted = hard.min(MOST_DESCRIPTORS).max(soft);
    let limit = if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft };
    let limit = usize::try_from(limit.min(MOST_DESCRIPTORS)).unwrap_or(256);
    let notices = (limit / 128).min(64);
    let listeners = match with_listeners {
        true => (if limit >= 1024 { limit / 8 } else { limit / 16 }).clamp(1, listeners::MOST),
        false => 0,
    };
    let spare = limit.saturating_sub(OWN_DESCRIPTORS + limit / 8 + listeners + notices);
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
    Descriptors { groups: spare.saturating_sub(psi_groups * each + rest), psi_groups, notices, listeners }
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
