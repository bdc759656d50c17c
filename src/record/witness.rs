//! The witness: a thread that watches what the kernel itself kills, and gives it to recorder and metrics.
//!
//! It sleeps until the kernel's log has news. Where the log can't be read it sleeps until memory.events of a top-level group rises,
//! or somebody scrapes; either way there are no wake-ups of its own while nothing happens. It takes no part in what the warden does.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use inotify::{Inotify, WatchMask};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::pool::Pool;
use crate::cgroup::group::{File, Group};
use crate::cgroup::root::Root;
use crate::kernel_kills::book::{Book, Names, Seen};
use crate::kernel_kills::census::Census;
use crate::kernel_kills::log::KernelLog;
use crate::kernel_kills::log::parse::Killed;
use crate::metrics::counters::Counters;
use crate::threads::{self, Running};

/// What a descriptor in its epoll set stands for.
const WAKE: u64 = 0;
const LOG: u64 = 1;
const TOPS: u64 = 2;
const ARRIVALS: u64 = 3;

/// Notices of counters come with every group that is throttled: they are heeded this often at most.
const NOTICED_EVERY: Duration = Duration::from_millis(100);
/// The thread's stack: what is large is on the heap.
const STACK_BYTES: usize = 256 * 1024;
/// Inode numbers of the first namespaces (include/linux/proc_ns.h): only there /proc and the kernel's log speak of the same.
const FIRST_NAMESPACES: [(&str, u64); 2] = [("/proc/self/ns/pid", 0xEFFF_FFFC), ("/proc/self/ns/cgroup", 0xEFFF_FFFB)];

/// The running witness.
#[derive(Debug)]
pub struct Witness {
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
    thread: Running,
}

impl Witness {
    /// Takes counters as they are, opens the log at its end and starts the thread. `notices` is how many groups' files it may hold
    /// open where there is no log.
    ///
    /// # Errors
    /// No descriptors, no thread, or no counter of kills (kernels before 4.13).
    pub fn start(root: Arc<Root>, pool: Pool, counters: Arc<Counters>, notices: usize) -> io::Result<Witness> {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (its_stop, its_wake) = (Arc::clone(&stop), Arc::clone(&wake));
        let open = move || Look::open(&root, &pool, &counters, notices, &its_stop, &its_wake);
        let mut first = Some(open()?);
        let work = move |_| {
            // What was in the hands of one that died is not gone on with.
            let look = first.take().map_or_else(&open, Ok);
            look.map_err(|error| error.to_string())?.run().map_err(|errno| format!("epoll: {errno}"))
        };
        let thread = threads::watched("witness", STACK_BYTES, work)?;
        Ok(Witness { stop, wake, thread })
    }

    /// Records what is known and ends the thread; waits for that at most so long. Whether it was done.
    #[must_use]
    pub fn shutdown(self, limit: Duration) -> bool {
        self.stop.store(true, Ordering::SeqCst);
        // Fails only at its limit: then it is awake already.
        let _ = self.wake.write(1);
        self.thread.wait(limit)
    }
}

/// How the log's names of groups become ours: a path's prefix where our root is not that of the whole hierarchy. `None` if that
/// can't be told.
fn names(root: &Root, is_top: bool) -> Option<Names> {
    if is_top {
        return Some(Names::default());
    }
    let path = std::fs::canonicalize(&root.path).ok()?;
    let mounts = procfs::process::Process::myself().and_then(|me| me.mountinfo()).ok()?;
    let is_whole = |point: &std::path::Path| std::fs::metadata(point).is_ok_and(|point| point.ino() == 1);
    let points = mounts.0.iter().filter(|mount| mount.fs_type == "cgroup2" && is_whole(&mount.mount_point));
    let below = points.filter_map(|mount| path.strip_prefix(&mount.mount_point).ok()).min_by_key(|below| below.as_os_str().len())?;
    Some(Names { prefix: Some([b"/", below.as_os_str().as_encoded_bytes()].concat()) })
}

/// Top-level groups whose counters give notice, where the log doesn't.
#[derive(Debug)]
struct Tops {
    most: usize,
    held: Vec<Group>,
    arrivals: Option<Inotify>,
}

/// Everything that the thread works with.
#[derive(Debug)]
struct Look {
    root: Arc<Root>,
    pool: Pool,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
    epoll: Epoll,
    census: Census,
    total: u64,
    log: Option<KernelLog>,
    book: Book,
    tops: Tops,
    sees_processes: bool,
    begun: Instant,
    looked: Option<Instant>,
}

impl Look {
    /// Takes counters as they are, and opens the log at its end.
    fn open(
        root: &Arc<Root>,
        pool: &Pool,
        counters: &Arc<Counters>,
        notices: usize,
        stop: &Arc<AtomicBool>,
        wake: &Arc<EventFd>,
    ) -> io::Result<Look> {
        let mut census = Census::open(Arc::clone(root))?;
        let missing = || io::Error::new(io::ErrorKind::Unsupported, "this kernel doesn't count its OOM kills");
        // The count before the log: a kill in between is counted and has a line.
        let total = census.total().ok_or_else(missing)?;
        let names = names(root, census.is_top());
        let log = match &names {
            Some(_) => KernelLog::open(),
            None => Err(io::Error::other("its names of groups can't be told apart from within this mount of cgroup2")),
        };
        let log = match log {
            Ok(log) => {
                tracing::debug!("the kernel's OOM kills are read from {}", log.way());
                Some(log)
            }
            Err(error) => {
                tracing::warn!(
                    "the kernel's log can't be read: {error}: its OOM kills are counted, and recorded without the process (CAP_SYSLOG gives the right)"
                );
                None
            }
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&**wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        if let Some(fd) = log.as_ref().and_then(KernelLog::notice) {
            epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, LOG))?;
        }
        let book = Book::new(names.unwrap_or_default(), log.is_some());
        counters.on_scrape(Arc::clone(wake));
        Ok(Look {
            root: Arc::clone(root),
            pool: pool.clone(),
            counters: Arc::clone(counters),
            stop: Arc::clone(stop),
            wake: Arc::clone(wake),
            epoll,
            census,
            total,
            log,
            book,
            tops: Tops { most: notices, held: Vec::new(), arrivals: None },
            sees_processes: FIRST_NAMESPACES.iter().all(|(path, inode)| std::fs::metadata(path).is_ok_and(|ns| ns.ino() == *inode)),
            begun: Instant::now(),
            looked: None,
        })
    }

    fn run(&mut self) -> nix::Result<()> {
        self.census.begin(self.now());
        self.hold_tops();
        while !self.stop.load(Ordering::SeqCst) {
            self.wait()?;
            if self.book.due().is_some_and(|due| due <= self.now()) {
                // What came until now belongs to it.
                self.count();
                self.settle(false);
            }
        }
        self.count();
        self.settle(true);
        Ok(())
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Waits for news, or until something has to be recorded, and takes what came.
    fn wait(&mut self) -> nix::Result<()> {
        let timeout = match self.book.due() {
            None => EpollTimeout::NONE,
            // Rounded up: a turn too early would only be another turn.
            Some(due) => u16::try_from(due.saturating_sub(self.now()).as_millis() + 1).unwrap_or(u16::MAX).into(),
        };
        let mut events = [EpollEvent::empty(); 8];
        let ready = match self.epoll.wait(&mut events, timeout) {
            Ok(ready) => ready,
            Err(nix::Error::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        let came = |what: u64| events.iter().take(ready).any(|event| event.data() == what);
        if came(WAKE) {
            // EAGAIN can't be: it was readable, and nobody else reads.
            let _ = self.wake.read();
        }
        if came(ARRIVALS) {
            self.hold_tops();
        }
        if came(WAKE) || came(TOPS) || came(ARRIVALS) {
            let rest = self.looked.map_or(Duration::ZERO, |looked| NOTICED_EVERY.saturating_sub(looked.elapsed()));
            if !self.stop.load(Ordering::SeqCst) {
                std::thread::sleep(rest);
            }
            self.looked = Some(Instant::now());
            self.count();
        } else if came(LOG) && self.read_log() {
            self.take_total();
        }
        Ok(())
    }

    /// Reads the log, then the counter: a line never comes before its count.
    fn count(&mut self) {
        let gives_notice = self.log.as_ref().is_some_and(|log| log.notice().is_some());
        // The whole ring is only read when there is something to find in it.
        if gives_notice || (self.take_total() && self.log.is_some()) {
            self.read_log();
            self.take_total();
        }
    }

    /// Whether the counter rose.
    fn take_total(&mut self) -> bool {
        let Some(total) = self.census.total() else { return false };
        let rose = total.saturating_sub(std::mem::replace(&mut self.total, total));
        self.book.counted(rose, self.now());
        rose > 0
    }

    /// Whether the log had something that concerns us, or lost something that might have.
    fn read_log(&mut self) -> bool {
        let (now, time) = (self.now(), SystemTime::now());
        let Look { log, book, sees_processes, .. } = self;
        let Some(open) = log else { return false };
        let read = open.read(|line| book.line(line, now, time, |killed| if *sees_processes { seen(killed) } else { Seen::default() }));
        match read {
            Ok(reading) => reading.lines > 0 || reading.lost,
            Err(error) => {
                tracing::warn!("the kernel's log can't be read any more: {error}: its OOM kills are recorded without the process");
                self.log = None;
                self.book.without_log();
                self.hold_tops();
                true
            }
        }
    }

    fn settle(&mut self, all: bool) {
        let rises = self.census.rises(self.now());
        let (pool, counters) = (&self.pool, &self.counters);
        self.book.settle(self.begun.elapsed(), SystemTime::now(), all, rises, |kill| {
            counters.kernel_killed(kill.scope, kill.counted);
            pool.submit_kernel_kill(kill);
        });
    }

    /// Where no log gives notice: registers memory.events of the top-level groups, and the root for those that come.
    fn hold_tops(&mut self) {
        if self.log.as_ref().is_some_and(|log| log.notice().is_some()) {
            return;
        }
        if self.census.is_top() && self.tops.arrivals.is_none() {
            self.tops.arrivals = self.watch_root().ok();
        }
        if let Some(arrivals) = &mut self.tops.arrivals {
            let mut buffer = [0; 4096];
            // Only that something came or went matters; EAGAIN when all was read.
            while arrivals.read_events(&mut buffer).is_ok_and(|events| events.count() > 0) {}
        }
        self.tops.held.retain(|group| !group.is_removed());
        for mut top in self.census.tops() {
            if self.tops.held.len() >= self.tops.most {
                break;
            }
            if self.tops.held.iter().any(|held| held.id == top.id) || top.hold(File::Events, None).is_err() {
                continue;
            }
            let notice = EpollEvent::new(EpollFlags::EPOLLPRI | EpollFlags::EPOLLET, TOPS);
            if top.held(File::Events).is_some_and(|file: &OwnedFd| self.epoll.add(file, notice).is_ok()) {
                top.release_dir();
                self.tops.held.push(top);
            }
        }
    }

    fn watch_root(&self) -> io::Result<Inotify> {
        let inotify = Inotify::init()?;
        // A write to the root's cgroup.subtree_control gives groups that are there their memory.events.
        let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MODIFY | WatchMask::ONLYDIR;
        inotify.watches().add(&self.root.path, mask)?;
        self.epoll.add(inotify.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, ARRIVALS))?;
        Ok(inotify)
    }
}

/// Who was just killed and is still dying, if it is still the one that the line names.
fn seen(killed: &Killed) -> Seen {
    let read = |file: &str| std::fs::read(format!("/proc/{}/{file}", killed.pid)).ok();
    let is_it = || Some(read("comm")?.strip_suffix(b"\n")? == killed.comm);
    if is_it() != Some(true) {
        return Seen::default();
    }
    let line =
        |file: &str, prefix: &[u8]| read(file)?.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(prefix)).map(<[u8]>::to_vec);
    let group = line("cgroup", b"0::").map(|path| path.strip_suffix(b" (deleted)").map_or_else(|| path.clone(), <[u8]>::to_vec));
    let process = line("status", b"Tgid:\t").and_then(|tgid| std::str::from_utf8(&tgid).ok()?.parse().ok());
    Seen { group: group.filter(|path| path.starts_with(b"/")), process }
}
