//! Who is at the other end of a connection, for the log: orders and their refusals are told with
//! it.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use crate::control::by::By;
use crate::sys::peer_credentials;

/// The other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine: its user and pid, as they were when it connected.
    Process(u32, i32),
    /// An address.
    Address(SocketAddr),
    /// The kernel does not say.
    Unknown,
}

impl Peer {
    /// Of a Unix socket.
    #[must_use]
    pub fn at(socket: BorrowedFd<'_>) -> Peer {
        peer_credentials(socket).map_or(Peer::Unknown, |(pid, uid)| Peer::Process(uid, pid))
    }

    /// With the name that the process has now, if it still is there: it is told for people, nothing
    /// rests on it.
    #[must_use]
    pub fn by(self) -> Option<By> {
        let Peer::Process(uid, pid) = self else { return None };
        let comm = (pid > 0).then(|| std::fs::read(format!("/proc/{pid}/comm")).ok()).flatten().unwrap_or_default();
        Some(By::new(uid, pid, comm.strip_suffix(b"\n").unwrap_or(&comm)))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Process(..) => self.by().map_or(Ok(()), |by| write!(f, "{by}")),
            Peer::Address(address) => write!(f, "{address}"),
            Peer::Unknown => f.write_str("somebody of whom the kernel says nothing"),
        }
    }
}
