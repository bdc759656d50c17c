//! The daemon's threads, and what becomes of it when one of them panics.
//!
//! No panic is known to be reachable; this is for those that nobody knows of. A daemon that has lost a part of itself must not look
//! healthy, so there are two kinds of threads:
//!
//! - **Vital** ([`vital`]): the warden, and whoever acts or arms for it. Without one of them nobody is protected, and what it was in the
//!   middle of is not known. The process says on standard error which thread it was and why, and aborts: its
//!   supervisor starts it anew.
//! - **Watched** ([`watched`]): everybody else. The death is logged and counted, the daemon is degraded
//!   ([`crate::degraded`]) until the thread works again, and its work is begun anew after a pause that grows; after [`MOST_DEATHS`]
//!   in a row it is left dead, and the daemon stays degraded.
//!
//! That rests on panics that unwind, which is the default of every profile. Locks that a panic leaves poisoned are used all the same: whatever they
//! guard is whole after each step.

mod last_words;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;

use crate::degraded::{Degraded, Reason};

/// Deaths in a row after which a thread is not started anew.
pub const MOST_DEATHS: u32 = 10;
/// Who has worked for so long since the last death begins a new row.
const CALM: Duration = Duration::from_secs(600);
/// The pause after the first death; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// All threads that are watched, by name: the label of `oomwarden_thread_deaths_total`.
pub const WATCHED: [&str; 11] =
    ["glance", "hooks", "listeners", "log", "marks", "oom-group", "recorder", "reloader", "server", "supervisor", "witness"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// None of ours, such as those of a test or of a library.
    Other,
    Vital,
    Watched,
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Other) };
    static NAME: RefCell<String> = const { RefCell::new(String::new()) };
}

fn enter(role: Role, name: &str) {
    ROLE.set(role);
    NAME.with_borrow_mut(|own| name.clone_into(own));
}

/// Starts a thread whose panic is the end of the process.
///
/// # Errors
/// When it can't be started.
pub fn vital(name: &str, stack: usize, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let own = name.to_owned();
    let work = move || as_vital(&own, work);
    Builder::new().name(name.to_owned()).stack_size(stack).spawn(work).map(drop)
}

/// Does something on this thread whose panic is the end of the process.
pub fn as_vital<T>(name: &str, work: impl FnOnce() -> T) -> T {
    enter(Role::Vital, name);
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => {
            enter(Role::Other, name);
            done
        }
        // Where the hook is set it has aborted before anything was unwound.
        Err(panic) => last_words::abort(name, &message(&*panic), ""),
    }
}

/// A thread that was started by [`watched`].
#[derive(Debug)]
pub struct Running(Arc<Ended>);

#[derive(Debug, Default)]
struct Ended {
    is: Mutex<bool>,
    changed: Condvar,
}

/// Tells that the thread ended, however it did.
struct EndGuard(Arc<Ended>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        *self.0.is.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

impl Running {
    /// Waits for the end of the thread, at most so long: one that is stuck in a file that does not answer must not keep the daemon from ending.
    /// Whether it has ended.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> bool {
        let is = self.0.is.lock().unwrap_or_else(PoisonError::into_inner);
        *self.0.changed.wait_timeout_while(is, limit, |ended| !*ended).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Starts a thread whose work is begun anew when it panics, or fails with a reason. `work` is told how often it was begun before; it has to put
/// right what a panic left behind, and ends with `Ok` when it is no longer needed.
///
/// # Errors
/// When it can't be started.
pub fn watched(name: &'static str, stack: usize, mut work: impl FnMut(u32) -> Result<(), String> + Send + 'static) -> io::Result<Running> {
    debug_assert!(WATCHED.contains(&name), "{name} is counted");
    let ended = Arc::new(Ended::default());
    let guard = EndGuard(Arc::clone(&ended));
    let work = move || {
        let _guard = guard;
        enter(Role::Watched, name);
        supervise(name, WATCH.get(), std::thread::sleep, &mut work);
    };
    Builder::new().name(name.to_owned()).stack_size(stack).spawn(work)?;
    Ok(Running(ended))
}

/// Where deaths are told.
#[derive(Debug)]
struct Watch {
    degraded: Arc<Degraded>,
    deaths: IntCounterVec,
    /// Threads that are dead now, with what they died of.
    dead: Mutex<Vec<(&'static str, String)>>,
}

/// There is one process, and so one hook for panics and one place where deaths are told.
static WATCH: OnceLock<Watch> = OnceLock::new();

impl Watch {
    fn dead(&self) -> MutexGuard<'_, Vec<(&'static str, String)>> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn died(&self, name: &'static str, of: &str, what_now: &str) {
        self.deaths.with_label_values(&[name]).inc();
        let mut dead = self.dead();
        dead.retain(|(other, _)| *other != name);
        dead.push((name, format!("thread {name} has died ({of}): {what_now}")));
        self.tell(&dead);
    }

    fn works(&self, name: &'static str) {
        let mut dead = self.dead();
        dead.retain(|(other, _)| *other != name);
        self.tell(&dead);
    }

    /// With the lock held, so that the last word is the true one.
    fn tell(&self, dead: &[(&'static str, String)]) {
        if dead.is_empty() {
            self.degraded.clear(Reason::Threads);
        } else {
            let texts: Vec<&str> = dead.iter().map(|(_, text)| &**text).collect();
            self.degraded.set(Reason::Threads, texts.join("; "));
        }
    }
}

/// From now on deaths are counted by `deaths`, by thread, and told, and a panic of a vital thread ends the process before anything is unwound. Before
/// that, and where it is never called, deaths are logged only.
pub fn watch(degraded: Arc<Degraded>, deaths: IntCounterVec) {
    last_words::prepare();
    if WATCH.set(Watch { degraded, deaths, dead: Mutex::default() }).is_ok() {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| hook(info, &before)));
    }
}

type Hook = dyn Fn(&PanicHookInfo<'_>) + Sync + Send;

fn hook(info: &PanicHookInfo<'_>, before: &Hook) {
    let said = message(info.payload());
    let at = info.location().map_or_else(String::new, ToString::to_string);
    NAME.with_borrow(|name| match ROLE.get() {
        Role::Vital => last_words::abort(name, &said, &at),
        Role::Watched => tracing::error!("thread {name} panicked at {at}: {said}"),
        Role::Other => before(info),
    });
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}

/// Begins `work` anew until it ends as it should, or has died too often.
fn supervise(name: &'static str, watch: Option<&Watch>, mut rest: impl FnMut(Duration), work: &mut dyn FnMut(u32) -> Result<(), String>) {
    let (mut begun, mut in_a_row) = (0, 0);
    loop {
        let since = Instant::now();
        let of = match catch_unwind(AssertUnwindSafe(|| work(begun))) {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(panic) => message(&*panic),
        };
        begun = begun.saturating_add(1);
        in_a_row = if since.elapsed() >= CALM { 1 } else { in_a_row + 1 };
        let next = if in_a_row < MOST_DEATHS { Next::Again(pause(in_a_row)) } else { Next::Never };
        tracing::error!("thread {name} has died ({of}): {next}");
        if let Some(watch) = watch {
            watch.died(name, &of, &next.to_string());
        }
        let Next::Again(pause) = next else { return };
        rest(pause);
        if let Some(watch) = watch {
            watch.works(name);
        }
    }
}

fn pause(deaths: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << deaths.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

/// What is done about a death.
enum Next {
    Again(Duration),
    Never,
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Next::Again(pause) => write!(f, "it is started anew in {} s", pause.as_secs()),
            Next::Never => write!(f, "it died {MOST_DEATHS} times in a row and is not started any more: restart oomwarden"),
        }
    }
}

#[cfg(test)]
mod tests;
