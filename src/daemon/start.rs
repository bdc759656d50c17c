//! Starts the daemon. Everything that can be wrong is found out before anything starts to act.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::Level;

use super::acting;
use super::beginning::{Beginning, Instead, begin, load};
use super::descriptors::descriptors;
use super::logging;
use super::neighbours;
use super::options::Options;
use super::outside;
use super::reload;
use super::rights::{may_act, prepare_self};
use crate::cgroup::root::Root;
use crate::command::{FAILED, Failure, UNSUPPORTED};
use crate::control::board::Board;
use crate::control::by::By;
use crate::control::mailbox::Mailbox;
use crate::control::origin::{self, Origin};
use crate::control::pulse::Pulse;
use crate::journal_stream;
use crate::metrics::counters::Counters;
use crate::policy::overlooked::{overlooked, warning};
use crate::record::file::{Destination, JournalTo};
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
use crate::warden::reach::Reach;
use crate::warden::{Setup, Warden};

/// Records that may be open or wait to be written at a time.
const RECORDS: usize = 24;
/// How long the end waits for records to be written...
const FAREWELL: Duration = Duration::from_secs(2);
/// ...and for other threads. With a kill under way (2 s), memory.oom.group to be taken back (2 s) and the server (1 s) it comes within the 10 s
/// that the unit's TimeoutStopSec gives.
const SHORT_FAREWELL: Duration = Duration::from_secs(1);

fn failed(code: u8) -> impl Fn(String) -> Failure {
    move |message| Failure { code, message }
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

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Why it could not start, or what stopped it.
pub fn start(args: Options) -> Result<(), Failure> {
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
        Err(error) if args.idle_if_unsupported => {
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
    threads::watch(Arc::clone(counters.degraded()), counters.thread_deaths().clone());
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
    let journal = Destination { to, rotation: args.rotation };
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
