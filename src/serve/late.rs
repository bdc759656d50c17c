//! An address that could not be had at the start and is tried again: the default one, which anybody on the machine can take.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use procfs::net::TcpState;

use super::ServeError;
use super::connections::Acceptor;
use crate::degraded::{Degraded, Reason};
use crate::serve::Limits;

/// The address, and why nobody is served there yet.
#[derive(Debug)]
pub(super) struct Late {
    address: SocketAddr,
    why: String,
}

impl Late {
    /// After it could not be had for that reason.
    pub(super) fn new(address: SocketAddr, error: &ServeError) -> Late {
        let why = match error {
            ServeError::InUse(_) => {
                let who = listening_uid(address).map_or_else(String::new, |uid| format!(" by a process of uid {uid}"));
                format!("it is in use{who}; stop what listens there (`ss -ltnp` shows it), or choose another one with --listen, or `none`")
            }
            ServeError::Denied(_) => "permission denied; choose another one with --listen, or `none`".to_owned(),
            ServeError::Bind(_, error) | ServeError::Start(error) => format!("{error}; choose another one with --listen, or `none`"),
        };
        Late { address, why }
    }

    /// Tells that it is missed.
    pub(super) fn tell(&self, degraded: &Degraded, every: Duration) {
        let Late { address, why } = self;
        let text = format!("the default address {address} serves no metrics and health: {why}; it is tried again every {every:?}");
        tracing::warn!("{text}");
        degraded.set(Reason::Listen, text);
    }

    /// Comes back when it is listened at.
    pub(super) async fn acceptor(self, limits: Limits, degraded: &Degraded) -> Acceptor {
        loop {
            tokio::time::sleep(limits.retry).await;
            if let Ok(acceptor) = listen(self.address).and_then(|listener| Acceptor::at_addresses(vec![listener], limits)) {
                tracing::info!("metrics and health at http://{}/: the address is free now", self.address);
                degraded.clear(Reason::Listen);
                return acceptor;
            }
        }
    }
}

/// Listens there, for an event loop.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The user of whoever listens there, or at all addresses on that port, as the kernel's table says.
fn listening_uid(address: SocketAddr) -> Option<u32> {
    let tables = [procfs::net::tcp(), procfs::net::tcp6()];
    let all = tables.into_iter().filter_map(Result::ok).flatten().filter(|entry| entry.state == TcpState::Listen);
    let in_the_way = |local: SocketAddr| local.port() == address.port() && (local.ip() == address.ip() || local.ip().is_unspecified());
    all.into_iter().find(|entry| in_the_way(entry.local_address)).map(|entry| entry.uid)
}
