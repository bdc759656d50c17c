//! The server: what scrapers, probes and people may ask over HTTP.
//!
//! | endpoint | answers |
//! |---|---|
//! | `GET /metrics` | every metric in Prometheus' text format 0.0.4, gzip where asked; docs/metrics.md |
//! | `GET /-/healthy` | 200 while the warden thread makes progress, 503 when it has not answered for 2 s |
//! | `GET /-/ready` | 200 once the groups are armed, 503 before; the text says what is degraded |
//! | `GET /` | a page that names version, policy fingerprint and these endpoints |
//! | `GET /api/v1/status` | how the daemon stands, as JSON: [`status`] |
//! | `GET /api/v1/kills?limit=N` | the journal's last lines, the newest first, as a JSON array |
//! | `POST /api/v1/pause?for=10m`, `POST /api/v1/resume` | the on-call's switch: [`control`] |
//! | `POST /api/v1/reload` | reads the policy again; 422 if it is refused |
//!
//! HEAD works wherever GET does; every other method gets 405, every other path 404, each with a line why. The last four, and the page with
//! groups and deeds, are for the control socket ([`socket`]): names of other people's groups are not for the network. At an address
//! there is no name of a group but as a label of the metrics, unless it was asked for ([`Server::with_api`]), and never a switch.
//!
//! It runs on a thread of its own, takes no part in any decision, and reads only shared atomics and published snapshots:
//! a scrape, or a hundred hostile clients, change nothing for the warden. Connections are few ([`Limits`]) and short; when
//! all places are taken the oldest that had its second is cut off for the next.

pub mod address;
pub mod client;
mod connections;
pub mod control;
mod gzip;
mod health;
mod late;
mod pages;
pub mod socket;
pub mod status;
pub mod supervisor;
mod web;
mod who;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

pub use address::ListenAddr;
use connections::{Acceptor, both, until};
use late::Late;
use pages::Site;
pub use socket::{ControlAddr, ControlSocket};

use crate::control::board::Board;
use crate::control::origin::Origin;
use crate::control::pulse::Pulse;
use crate::control::reloads::Reloads;
use crate::degraded::{Degraded, Reason};
use crate::metrics::counters::Counters;
use crate::record::recent::Recent;
use crate::state::pause;
use crate::threads::{self, Running};

/// The thread's stack. tokio and hyper need little of it, but the compressor builds its tables (a few hundred KiB) there
/// before they move to the heap. What is never touched costs address space only.
const STACK_BYTES: usize = 1024 * 1024;

/// How long a request that is being answered may keep the end waiting: it may be reading a file that does not answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// Places for connections at the control socket, at most.
const CONTROL_PLACES: usize = 4;

/// Bounds on what a client may take. The defaults are for use, other values for tests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time for a request's header to arrive; also how long a connection may be idle between requests.
    pub header: Duration,
    /// Time for a whole connection, then it is closed after the answer that is under way.
    pub connection: Duration,
    /// Time for that last answer to be taken.
    pub farewell: Duration,
    /// Connections at a time.
    pub connections: usize,
    /// While all places are taken: the time that each connection has for itself before it must give way.
    pub crowded: Duration,
    /// Bytes of a request's header.
    pub header_bytes: usize,
    /// Metrics are made anew after this time, at most. Not less than 10 ms: reading memory.pressure too often falsifies it.
    pub fresh: Duration,
    /// How long the warden has for answering.
    pub pulse: Duration,
    /// How soon a default address that is taken is tried again.
    pub retry: Duration,
    /// The warden is woken for the sake of its pulse at most once in this time.
    pub ask_every: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            header: Duration::from_secs(5),
            connection: Duration::from_secs(30),
            farewell: Duration::from_secs(5),
            connections: 64,
            crowded: Duration::from_secs(1),
            header_bytes: 8192,
            fresh: Duration::from_millis(100),
            pulse: Duration::from_secs(2),
            retry: Duration::from_secs(10),
            ask_every: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// Values that can't work, or hurt others, are put right. Fewer connections where there are few descriptors: the warden
    /// needs them more.
    #[must_use]
    fn sound(mut self) -> Limits {
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(256, |(soft, _)| soft);
        self.connections = self.connections.min(usize::try_from(descriptors / 8).unwrap_or(usize::MAX)).max(2);
        self.header_bytes = self.header_bytes.max(8192);
        self.fresh = self.fresh.max(Duration::from_millis(10));
        self
    }
}

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else listens there.
    #[error("--listen {0}: the address is in use; stop what listens there (`ss -ltnp` shows it), or choose another port, or `none`")]
    InUse(SocketAddr),
    /// No right to listen there.
    #[error("--listen {0}: permission denied; ports below 1024 need CAP_NET_BIND_SERVICE, choose a higher one")]
    Denied(SocketAddr),
    /// Anything else.
    #[error("--listen {0}: {1}; the address must be one of this machine's, or choose 127.0.0.1:PORT, or `none`")]
    Bind(SocketAddr, #[source] io::Error),
    /// The thread or its event loop can't be made.
    #[error("server thread: {0}; are the limits of processes or open files reached?")]
    Start(#[source] io::Error),
}

impl ServeError {
    fn bind(address: SocketAddr, error: io::Error) -> ServeError {
        match error.kind() {
            io::ErrorKind::AddrInUse => ServeError::InUse(address),
            io::ErrorKind::PermissionDenied => ServeError::Denied(address),
            _ => ServeError::Bind(address, error),
        }
    }
}

/// What the server answers from besides counters; what is missing it does not know.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    /// Orders to the warden, and how it stands.
    pub board: Option<Arc<Board>>,
    /// The journal's last lines.
    pub recent: Option<Arc<Recent>>,
    /// Where pauses are written down.
    pub pauses: Option<Arc<pause::Keeper>>,
    /// Where the policy in force was read.
    pub origin: Option<Arc<Origin>>,
    /// Where a reload is asked for.
    pub reloads: Option<Arc<Reloads>>,
}

/// Bound, not yet serving: connections queue up in the kernel.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    late: Option<Late>,
    /// The address is one that nobody asked for.
    usual: Option<SocketAddr>,
    control: Option<ControlSocket>,
    desk: Desk,
    api: bool,
}

/// The running server; dropping it stops it.
#[derive(Debug)]
pub struct ServerHandle {
    addresses: Vec<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<Running>,
}

impl Server {
    /// Listens at `addresses`; with none, or only [`ListenAddr::None`], there will be no server.
    ///
    /// # Errors
    /// The first address that can't be listened at.
    pub fn bind(addresses: &[ListenAddr]) -> Result<Server, ServeError> {
        let mut server = Server::nowhere();
        for address in addresses.iter().filter_map(ListenAddr::socket) {
            let failed = |error| ServeError::bind(address, error);
            let listener = late::listen(address).map_err(failed)?;
            server.addresses.push(listener.local_addr().map_err(failed)?);
            server.listeners.push(listener);
        }
        Ok(server)
    }

    /// Listens at an address that nobody asked for. Where it can't be had all else goes on: it is told as `degraded`, tried again now and
    /// then, and served as soon as it is free.
    #[must_use]
    pub fn bind_or_wait(address: SocketAddr) -> Server {
        let server = Server::bind(&[ListenAddr::Socket(address)])
            .unwrap_or_else(|error| Server { late: Some(Late::new(address, &error)), ..Server::nowhere() });
        Server { usual: Some(server.addresses.first().copied().unwrap_or(address)), ..server }
    }

    fn nowhere() -> Server {
        let (listeners, addresses) = (Vec::new(), Vec::new());
        Server { listeners, addresses, late: None, usual: None, control: None, desk: Desk::default(), api: false }
    }

    /// Where it listens, with the ports that the kernel chose.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves at a control socket as well.
    #[must_use]
    pub fn with_control(mut self, control: Option<ControlSocket>) -> Server {
        self.control = control;
        self
    }

    /// What the API answers from.
    #[must_use]
    pub fn with_desk(mut self, desk: Desk) -> Server {
        self.desk = desk;
        self
    }

    /// Whether the API and the page with groups and deeds are served at addresses too: to be read only.
    #[must_use]
    pub fn with_api(mut self, api: bool) -> Server {
        self.api = api;
        self
    }

    /// Starts serving on a thread of its own.
    ///
    /// # Errors
    /// The thread or its event loop can't be made.
    pub fn spawn(self, counters: Arc<Counters>, pulse: Arc<Pulse>, limits: Limits) -> Result<ServerHandle, ServeError> {
        let mut handle = ServerHandle { addresses: self.addresses, stop: None, thread: None };
        if self.listeners.is_empty() && self.control.is_none() && self.late.is_none() {
            return Ok(handle);
        }
        let limits = limits.sound();
        let degraded = Arc::clone(counters.degraded());
        if let Some(late) = &self.late {
            late.tell(&degraded, limits.retry);
        }
        let site = Arc::new(Site::new(counters, pulse, limits, Instant::now(), self.desk, self.api));
        let (stop, mut stopped) = oneshot::channel();
        let places = Places {
            addresses: handle.addresses.clone(),
            usual: self.usual,
            control: self.control.as_ref().map(|control| control.path().to_owned()),
        };
        // What can't be had is found out now.
        let ways = Ways { listeners: self.listeners, late: self.late, control: self.control };
        let mut first = Some(Serving::start(ways, limits).map_err(ServeError::Start)?);
        let work = move |_| {
            let again = || Serving::again(&places, limits, &degraded);
            let serving = first.take().map_or_else(again, Ok)?;
            serving.run(&site, &degraded, &mut stopped);
            Ok(())
        };
        let thread = threads::watched("server", STACK_BYTES, work).map_err(ServeError::Start)?;
        (handle.stop, handle.thread) = (Some(stop), Some(thread));
        Ok(handle)
    }
}

/// Where is served.
struct Places {
    addresses: Vec<SocketAddr>,
    /// The address that nobody asked for, if that is it: it need not be had.
    usual: Option<SocketAddr>,
    control: Option<PathBuf>,
}

/// What is open for that.
struct Ways {
    listeners: Vec<TcpListener>,
    late: Option<Late>,
    control: Option<ControlSocket>,
}

/// An event loop with its ways in.
struct Serving {
    addresses: Acceptor,
    /// Taken over from `addresses`, which then has nobody to accept.
    late: Option<Late>,
    late_limits: Limits,
    at_control: Option<Acceptor>,
    /// Its file goes when this does.
    _control: Option<ControlSocket>,
    runtime: EventLoop,
}

impl Serving {
    fn start(ways: Ways, limits: Limits) -> io::Result<Serving> {
        let Ways { listeners, late, mut control } = ways;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        // Out of the same share of descriptors.
        let places = if control.is_some() { (limits.connections / 2).min(CONTROL_PLACES) } else { 0 };
        let elsewhere = Limits { connections: limits.connections - places, ..limits };
        let (addresses, at_control) = {
            let _inside = runtime.enter();
            let limits = Limits { connections: places, ..limits };
            let at_control = match control.as_mut().and_then(ControlSocket::listener) {
                Some(listener) => Some(Acceptor::at_control(listener, limits)?),
                None => None,
            };
            (Acceptor::at_addresses(listeners, elsewhere)?, at_control)
        };
        let runtime = EventLoop(Some(runtime));
        Ok(Serving { addresses, late, late_limits: elsewhere, at_control, _control: control, runtime })
    }

    /// After a panic, which closed everything: at the same places as before. Whoever has taken the
    /// address that nobody asked for meanwhile keeps the control socket from nobody.
    fn again(places: &Places, limits: Limits, degraded: &Degraded) -> Result<Serving, String> {
        let listen: Vec<ListenAddr> = places.addresses.iter().copied().map(ListenAddr::Socket).collect();
        let server = match places.usual {
            Some(usual) => Server::bind_or_wait(usual),
            None => Server::bind(&listen).map_err(|error| error.to_string())?,
        };
        let control = places.control.as_deref().map(ControlSocket::bind).transpose().map_err(|error| error.to_string())?;
        match &server.late {
            Some(late) => late.tell(degraded, limits.retry),
            // It may have been awaited when the panic came.
            None => {
                degraded.clear(Reason::Listen);
            }
        }
        let ways = Ways { listeners: server.listeners, late: server.late, control };
        Serving::start(ways, limits).map_err(|error| error.to_string())
    }

    /// Serves until `stopped`. Both ways in on this task, so that a panic in one does not end it in silence.
    fn run(self, site: &Arc<Site>, degraded: &Degraded, stopped: &mut oneshot::Receiver<()>) {
        let control = self.at_control.map(|acceptor| acceptor.serve(Arc::clone(site)));
        let (addresses, late, limits) = (self.addresses, self.late, self.late_limits);
        let elsewhere = async {
            match late {
                None => addresses.serve(Arc::clone(site)).await,
                Some(late) => late.acceptor(limits, degraded).await.serve(Arc::clone(site)).await,
            }
        };
        let work = both(elsewhere, control);
        if let Some(runtime) = &self.runtime.0 {
            runtime.block_on(until(stopped, work));
        }
    }
}

/// tokio's, which ends without waiting for who writes to a disk that stalls, also in a panic.
struct EventLoop(Option<Runtime>);

impl Drop for EventLoop {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl ServerHandle {
    /// Where it listens, with the ports that the kernel chose.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops at once: open connections are cut, and a request that reads a file which does not answer is left to itself after a second.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && !thread.wait(FAREWELL)
        {
            tracing::warn!("a request was still being answered at the end: a file of a group did not answer");
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn after_a_panic_it_serves_at_the_same_places() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let server = Server::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let address = server.addresses[0];
        let limits = Limits::default().sound();
        let ways = Ways { listeners: server.listeners, late: None, control: Some(ControlSocket::bind(&path).unwrap()) };
        let first = Serving::start(ways, limits).unwrap();
        // As a panic does: all that it held is dropped.
        drop(first);
        assert!(TcpStream::connect(address).is_err() && !path.exists());
        let (counters, pulse) = (Arc::new(Counters::new().unwrap()), Arc::new(Pulse::new().unwrap()));
        let degraded = Arc::clone(counters.degraded());
        let places = Places { addresses: vec![address], usual: None, control: Some(path.clone()) };
        let again = Serving::again(&places, limits, &degraded).unwrap();
        let site = Arc::new(Site::new(counters, pulse, limits, Instant::now(), Desk::default(), false));
        let (stop, mut stopped) = oneshot::channel();
        let serving = std::thread::spawn(move || again.run(&site, &degraded, &mut stopped));
        let ask = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut answers = [String::new(), String::new()];
        let mut tcp = TcpStream::connect(address).unwrap();
        tcp.write_all(ask).unwrap();
        tcp.read_to_string(&mut answers[0]).unwrap();
        let mut unix = UnixStream::connect(&path).unwrap();
        unix.write_all(ask).unwrap();
        unix.read_to_string(&mut answers[1]).unwrap();
        assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200 ")), "{answers:?}");
        stop.send(()).unwrap();
        serving.join().unwrap();
        assert!(!path.exists());
    }

    /// The address that nobody asked for was had at the start, and somebody took it in the pause
    /// after a panic.
    #[test]
    fn after_a_panic_whoever_has_taken_the_usual_address_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let limits = Limits { retry: Duration::from_millis(20), ..Limits::default() }.sound();
        let counters = Arc::new(Counters::new().unwrap());
        let degraded = Arc::clone(counters.degraded());
        let server = Server::bind_or_wait("127.0.0.1:0".parse().unwrap());
        let address = server.addresses[0];
        let places = Places { addresses: server.addresses.clone(), usual: server.usual, control: Some(path.clone()) };
        drop(server);
        let taker = TcpListener::bind(address).unwrap();
        let again = Serving::again(&places, limits, &degraded).unwrap();
        assert_eq!(degraded.list().iter().map(|(reason, _)| *reason).collect::<Vec<_>>(), [Reason::Listen]);
        let site = Site::new(counters, Arc::new(Pulse::new().unwrap()), limits, Instant::now(), Desk::default(), false);
        let (site, its_degraded) = (Arc::new(site), Arc::clone(&degraded));
        let (stop, mut stopped) = oneshot::channel();
        let serving = std::thread::spawn(move || again.run(&site, &its_degraded, &mut stopped));
        let mut answer = String::new();
        let mut unix = UnixStream::connect(&path).unwrap();
        unix.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        unix.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        drop(taker);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !degraded.list().is_empty() {
            assert!(Instant::now() < deadline, "the address is not served");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(TcpStream::connect(address).is_ok());
        stop.send(()).unwrap();
        serving.join().unwrap();
        // Free again at the next panic, while it was still awaited.
        degraded.set(Reason::Listen, "taken");
        drop(Serving::again(&places, limits, &degraded).unwrap());
        assert!(degraded.list().is_empty());
    }
}
