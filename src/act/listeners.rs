//! The pressure socket: processes wait here to be told that their group should free memory.
//!
//! The protocol is that of systemd's "Memory Pressure Handling" (MEMORY_PRESSURE_WATCH naming a Unix stream socket): who
//! connects is mapped to its group, what it writes is read and ignored, and when that group or one above it is warned, bytes
//! arrive. docs/applications.md is the page for its users.
//!
//! Everybody may connect, so everything is bounded: listeners in all and of one group, what a listener may write, what waits
//! to be read by it. Telling is one write that never waits, made by whoever gives the warning; a thread of this module does
//! what is slow: finding out who connected, and forgetting who left.

pub mod peer;

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::cgroup::GroupId;
use crate::owners;
use peer::Peers;

/// What arrives.
const NEWS: &[u8] = b"warn\n";
/// Listeners of one group; those of groups below it are not counted.
pub const MOST_OF_A_GROUP: usize = 64;
/// Listeners in all, where descriptors allow.
pub const MOST: usize = 4096;
/// What a listener may write before it is cut off. The protocol writes a few bytes, once.
const MOST_READ: usize = 64 * 1024;
/// What waits for a listener that does not read; the kernel rounds it up to its least.
const WAITING_BYTES: usize = 2048;
/// Connections that are taken before those who are there are looked at.
const ACCEPTED_AT_A_TIME: usize = 64;
/// After a failure that is ours, such as too many open files.
const PAUSE: Duration = Duration::from_millis(200);
/// Refusals are told so often.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);
/// The listening socket's own token; the others are places.
const DOOR: u64 = u64::MAX;

#[derive(Debug)]
struct Listener {
    socket: UnixStream,
    /// Its group, and all above.
    groups: Box<[GroupId]>,
    read: usize,
}

/// Everybody who listens.
#[derive(Debug)]
pub struct Listeners {
    places: Mutex<Vec<Option<Listener>>>,
    path: PathBuf,
}

/// Why nobody can listen.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}: {source}", path.display())]
pub struct ListenError {
    path: PathBuf,
    what: &'static str,
    source: io::Error,
}

/// The socket, before anybody may connect.
#[derive(Debug)]
pub struct Door {
    socket: UnixListener,
    peers: Peers,
    epoll: Epoll,
    path: PathBuf,
}

impl Door {
    /// Opens the socket at `path`, for everybody. `root` is a directory of the cgroup file system.
    ///
    /// # Errors
    /// What could not be done, and where.
    pub fn open(path: &Path, root: &Path) -> Result<Door, ListenError> {
        let failed = |what| move |source| ListenError { path: path.to_owned(), what, source };
        let peers = Peers::below(root).map_err(failed("the cgroup file system"))?;
        if let Some(directory) = path.parent() {
            owners::make_directory(directory).map_err(failed("its directory"))?;
            owners::place(directory).map_err(io::Error::other).map_err(failed("others could replace the socket"))?;
        }
        // Left behind by a daemon that was killed; a living one would answer.
        if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            match UnixStream::connect(path) {
                Ok(_) => return Err(failed("in use by another oomwarden")(io::ErrorKind::AddrInUse.into())),
                Err(_) => std::fs::remove_file(path).map_err(failed("a socket that nobody listens at"))?,
            }
        }
        let socket = owners::listen(path, 0o666).map_err(failed("bind"))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from).map_err(failed("epoll"))?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, DOOR)).map_err(io::Error::from).map_err(failed("epoll"))?;
        Ok(Door { socket, peers, epoll, path: path.to_owned() })
    }

    /// Lets up to `most` listeners in, on a thread that lives as long as the process. `counted` hears how many there are.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn serve(self, most: usize, counted: impl Fn(usize) + Send + 'static) -> io::Result<Arc<Listeners>> {
        let listeners = Arc::new(Listeners { places: Mutex::new(Vec::new()), path: self.path.clone() });
        let porter = Porter { door: self, listeners: Arc::clone(&listeners), most, counted, complaint: None };
        std::thread::Builder::new().name("listeners".into()).stack_size(128 * 1024).spawn(move || porter.work())?;
        Ok(listeners)
    }
}

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, Vec<Option<Listener>>> {
        // A table of listeners is whole after every operation, whoever panicked meanwhile.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who listens for `group` or for one below it; how many they are. Waits for nobody, allocates nothing.
    pub fn tell(&self, group: GroupId) -> u32 {
        let mut told = 0;
        for listener in self.lock().iter().flatten().filter(|listener| listener.groups.contains(&group)) {
            match (&listener.socket).write(NEWS) {
                Ok(_) => told += 1,
                // It has not read what it was told before: it knows.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => told += 1,
                // It left; the thread will notice.
                Err(_) => {}
            }
        }
        told
    }

    /// Takes the socket's name away, at the end of the daemon.
    pub fn close(&self) {
        // Gone already, or not ours to remove any more: nobody is there to be told.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The thread's own.
struct Porter<F> {
    door: Door,
    listeners: Arc<Listeners>,
    most: usize,
    counted: F,
    complaint: Option<Instant>,
}

impl<F: Fn(usize)> Porter<F> {
    fn work(mut self) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let ready = match self.door.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!("pressure socket: {error}: no more listeners are let in");
                    return;
                }
            };
            let mut changed = false;
            for event in events.iter().take(ready) {
                changed |= match event.data() {
                    DOOR => self.let_in(),
                    place => usize::try_from(place).is_ok_and(|place| self.hear(place, event.events())),
                };
            }
            if changed {
                (self.counted)(self.listeners.lock().iter().flatten().count());
            }
        }
    }

    /// Takes new connections; whether somebody stays.
    fn let_in(&mut self) -> bool {
        let mut stays = false;
        for _ in 0..ACCEPTED_AT_A_TIME {
            match self.door.socket.accept() {
                Ok((socket, _)) => match self.enrol(socket) {
                    Ok(()) => stays = true,
                    Err(why) => self.complain(&why),
                },
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => break,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.complain(&format!("nobody can be let in: {error}"));
                        std::thread::sleep(PAUSE);
                        break;
                    }
                },
            }
        }
        stays
    }

    fn enrol(&self, socket: UnixStream) -> Result<(), String> {
        let failed = |error: io::Error| error.to_string();
        let groups = self.door.peers.groups(&socket).map_err(|error| error.to_string())?;
        socket.set_nonblocking(true).map_err(failed)?;
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, WAITING_BYTES).map_err(|errno| failed(errno.into()))?;
        let mut places = self.listeners.lock();
        let (mut all, mut of_group) = (0, 0);
        for listener in places.iter().flatten() {
            all += 1;
            of_group += usize::from(listener.groups.first() == groups.first());
        }
        if all >= self.most {
            return Err(format!("there are {all} listeners already, as many as may be"));
        }
        if of_group >= MOST_OF_A_GROUP {
            return Err(format!("a group has {of_group} listeners already, as many as one may have"));
        }
        let place = places.iter().position(Option::is_none).unwrap_or_else(|| {
            places.push(None);
            places.len() - 1
        });
        let interest = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, place as u64);
        self.door.epoll.add(&socket, interest).map_err(|errno| failed(errno.into()))?;
        if let Some(place) = places.get_mut(place) {
            *place = Some(Listener { socket, groups, read: 0 });
        }
        Ok(())
    }

    /// Something came from a listener; whether it is one no more.
    fn hear(&self, place: usize, events: EpollFlags) -> bool {
        let mut places = self.listeners.lock();
        let Some(holder) = places.get_mut(place) else { return false };
        let Some(listener) = holder else { return false };
        let mut left = events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let mut buffer = [0; 4096];
        if !left {
            match listener.socket.read(&mut buffer) {
                // It will write no more, and may still listen.
                Ok(0) => {
                    let mut interest = EpollEvent::new(EpollFlags::empty(), place as u64);
                    left = self.door.epoll.modify(listener.socket.as_fd(), &mut interest).is_err();
                }
                Ok(read) => {
                    listener.read += read;
                    left = listener.read > MOST_READ;
                }
                Err(error) => left = !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
            }
        }
        if left {
            // Closing takes it out of the epoll set.
            *holder = None;
        }
        left
    }

    fn complain(&mut self, why: &str) {
        if self.complaint.is_none_or(|last| last.elapsed() >= COMPLAINT_EVERY) {
            self.complaint = Some(Instant::now());
            tracing::info!("pressure socket: a connection was refused: {why}");
        }
    }
}

#[cfg(test)]
mod tests;
