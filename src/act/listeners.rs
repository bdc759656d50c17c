//! The pressure socket: processes wait here to be told that their group should free memory.
//!
//! The protocol is that of systemd's "Memory Pressure Handling" (MEMORY_PRESSURE_WATCH naming a Unix stream socket): who
//! connects is mapped to its group, what it writes is read and ignored, and when that group or one above it is warned, bytes
//! arrive. docs/applications.md is the page for its users.
//!
//! Everybody may connect, so everything is bounded: listeners in all, of one group and of one user (`crowd`), what a listener may
//! write, what waits to be read by it. Telling is one write that never waits, made by whoever gives the warning (`table`); a
//! thread of this module does what is slow: finding out who connected ([`peer`]), and forgetting who left.

mod crowd;
pub mod peer;
mod table;

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::cgroup::GroupId;
use crate::owners;
use crate::threads;
pub use crowd::MOST_OF_A_GROUP;
use crowd::{Admitted, Crowd, Guest};
use peer::{Peer, Peers};
use table::{Listener, Table};

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
/// The listening socket's own token; the others are [`token`]s.
const DOOR: u64 = u64::MAX;

/// Everybody who listens.
#[derive(Debug)]
pub struct Listeners {
    table: Table,
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

/// An epoll set with nobody in it but the socket itself.
fn epoll_at(socket: &UnixListener) -> nix::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, DOOR))?;
    Ok(epoll)
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
            match owners::somebody_listens(path).map_err(failed("whether somebody listens there"))? {
                true => return Err(failed("in use by another oomwarden")(io::ErrorKind::AddrInUse.into())),
                false => std::fs::remove_file(path).map_err(failed("a socket that nobody listens at"))?,
            }
        }
        let socket = owners::listen(path, 0o666).map_err(failed("bind"))?;
        let epoll = epoll_at(&socket).map_err(io::Error::from).map_err(failed("epoll"))?;
        Ok(Door { socket, peers, epoll, path: path.to_owned() })
    }

    /// Lets up to `most` listeners in, on a thread that lives as long as the process. `counted` hears how many there are.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn serve(self, most: usize, counted: impl Fn(usize) + Send + 'static) -> io::Result<Arc<Listeners>> {
        let listeners = Arc::new(Listeners { table: Table::new(most), path: self.path.clone() });
        let members = std::iter::repeat_with(|| None).take(most).collect();
        let mut porter =
            Porter { door: self, listeners: Arc::clone(&listeners), crowd: Crowd::new(most), members, counted, complaint: None };
        threads::watched("listeners", 128 * 1024, move |before| {
            if before > 0 {
                porter.begin_anew()?;
            }
            porter.work()
        })?;
        Ok(listeners)
    }
}

impl Listeners {
    /// Tells everybody who listens for `group` or for one below it; how many they are. Waits for nobody, allocates nothing.
    pub fn tell(&self, group: GroupId) -> u32 {
        self.table.tell(group)
    }

    /// Takes the socket's name away, at the end of the daemon.
    pub fn close(&self) {
        // Gone already, or not ours to remove any more: nobody is there to be told.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What the epoll set calls whoever has a place: an event that was meant for who had it before finds nobody.
fn token(Admitted { place, arrival, .. }: Admitted) -> u64 {
    (arrival << 32) | (place as u64 & u64::from(u32::MAX))
}

/// A listener as the thread knows it.
struct Member {
    listener: Arc<Listener>,
    token: u64,
    /// Bytes that it has written.
    read: usize,
}

/// The thread's own.
struct Porter<F> {
    door: Door,
    listeners: Arc<Listeners>,
    crowd: Crowd,
    /// By place, as in the table.
    members: Box<[Option<Member>]>,
    counted: F,
    complaint: Option<Instant>,
}

impl<F: Fn(usize)> Porter<F> {
    /// Whatever became of those who were inside: the door is shut behind them, and they may connect anew.
    fn begin_anew(&mut self) -> Result<(), String> {
        for place in 0..self.members.len() {
            self.see_out(place);
        }
        self.crowd = Crowd::new(self.members.len());
        (self.counted)(0);
        self.door.epoll = epoll_at(&self.door.socket).map_err(|error| format!("epoll: {error}"))?;
        Ok(())
    }

    fn work(&mut self) -> Result<(), String> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let ready = match self.door.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(format!("epoll: {error}")),
            };
            let mut changed = false;
            for event in events.iter().take(ready) {
                changed |= match event.data() {
                    DOOR => self.let_in(),
                    token => self.hear(token, event.events()),
                };
            }
            if changed {
                (self.counted)(self.crowd.len());
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

    fn enrol(&mut self, socket: UnixStream) -> Result<(), String> {
        let failed = |error: io::Error| error.to_string();
        let Peer { uid, groups } = self.door.peers.peer(&socket).map_err(|error| error.to_string())?;
        socket.set_nonblocking(true).map_err(failed)?;
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, WAITING_BYTES).map_err(|errno| failed(errno.into()))?;
        let guest = Guest { uid, group: groups.first().copied().ok_or("its group is not known")? };
        let admitted = self.crowd.admit(guest).map_err(|refusal| refusal.to_string())?;
        if admitted.taken {
            self.see_out(admitted.place);
        }
        let interest = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, token(admitted));
        if let Err(errno) = self.door.epoll.add(&socket, interest) {
            self.crowd.leave(admitted.place);
            return Err(failed(errno.into()));
        }
        let listener = Arc::new(Listener { socket, groups });
        if let Some(member) = self.members.get_mut(admitted.place) {
            *member = Some(Member { listener: Arc::clone(&listener), token: token(admitted), read: 0 });
        }
        drop(self.listeners.table.put(admitted.place, Some(listener)));
        Ok(())
    }

    /// Something came from a listener; whether it is one no more.
    fn hear(&mut self, token: u64, events: EpollFlags) -> bool {
        let Ok(place) = usize::try_from(token & u64::from(u32::MAX)) else { return false };
        let Some(member) = self.members.get_mut(place).and_then(Option::as_mut).filter(|member| member.token == token) else {
            return false;
        };
        let mut left = events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let mut buffer = [0; 4096];
        if !left {
            match (&member.listener.socket).read(&mut buffer) {
                // It will write no more, and may still listen.
                Ok(0) => {
                    let mut interest = EpollEvent::new(EpollFlags::empty(), token);
                    left = self.door.epoll.modify(member.listener.socket.as_fd(), &mut interest).is_err();
                }
                Ok(read) => {
                    member.read += read;
                    left = member.read > MOST_READ;
                }
                Err(error) => left = !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
            }
        }
        if left {
            self.crowd.leave(place);
            self.see_out(place);
        }
        left
    }

    /// Closes the connection at a place, which takes it out of the epoll set. Actors that are just telling it are waited for.
    fn see_out(&mut self, place: usize) {
        drop(self.listeners.table.put(place, None));
        if let Some(member) = self.members.get_mut(place) {
            *member = None;
        }
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
