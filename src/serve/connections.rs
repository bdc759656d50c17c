//! Connections: taking them, bounding them, cutting them off.
//!
//! All run on one thread. There is a fixed number of places. While there is a free one, a connection has its full time;
//! when there is none, the next client waits in the kernel's queue until a place is free, or until the oldest connection
//! has had `Limits::crowded`, and is cut off. So idle or hostile clients can't keep a scraper out for long, and an honest
//! one is served long before its turn to give way.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Limits;
use super::pages::{Door, Site};
use super::who::Peer;

/// After a connection could not be taken (no descriptor left), and between complaints about that.
const AFTER_ERROR: Duration = Duration::from_millis(100);
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// Where connections come from.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection that was taken.
enum Stream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match self {
            Listener::Tcp(listener) => listener.poll_accept(context).map_ok(|(stream, peer)| Stream::Tcp(stream, peer)),
            Listener::Unix(listener) => listener.poll_accept(context).map_ok(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

/// The open connections, and where new ones come from.
pub struct Acceptor {
    listeners: Vec<Listener>,
    door: Door,
    limits: Limits,
    open: JoinSet<()>,
    /// Those of `open` that still run, or did when last looked at, the oldest first.
    by_age: VecDeque<(Instant, AbortHandle)>,
    /// The listener whose turn it is.
    turn: usize,
    complaint: Option<Instant>,
}

/// Runs `work`, which never ends, until `stopped` does.
pub async fn until(stopped: impl Future, work: impl Future<Output = Infallible>) {
    let (mut stopped, mut work) = (pin!(stopped), pin!(work));
    poll_fn(|context| match stopped.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => work.as_mut().poll(context).map(|never| match never {}),
    })
    .await;
}

/// Runs two things that never end, side by side on this task.
pub async fn both(one: impl Future<Output = Infallible>, other: Option<impl Future<Output = Infallible>>) -> Infallible {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|context| {
        if let Some(other) = other.as_mut().as_pin_mut()
            && let Poll::Ready(never) = other.poll(context)
        {
            match never {}
        }
        one.as_mut().poll(context)
    })
    .await
}

impl Acceptor {
    /// To be called inside the runtime. The listeners are nonblocking.
    ///
    /// # Errors
    /// A listener that the event loop does not take.
    pub fn at_addresses(listeners: Vec<StdTcpListener>, limits: Limits) -> io::Result<Acceptor> {
        let listener = |listener| TcpListener::from_std(listener).map(Listener::Tcp);
        let listeners = listeners.into_iter().map(listener).collect::<io::Result<_>>()?;
        Ok(Acceptor::new(listeners, Door::Address, limits))
    }

    /// The same for the control socket. It has places of its own: whoever crowds the addresses keeps nobody from it.
    ///
    /// # Errors
    /// As above.
    pub fn at_control(listener: StdUnixListener, limits: Limits) -> io::Result<Acceptor> {
        Ok(Acceptor::new(vec![Listener::Unix(UnixListener::from_std(listener)?)], Door::Control, limits))
    }

    fn new(listeners: Vec<Listener>, door: Door, limits: Limits) -> Acceptor {
        Acceptor { listeners, door, limits, open: JoinSet::new(), by_age: VecDeque::new(), turn: 0, complaint: None }
    }

    /// Takes connections and serves them, for ever.
    pub async fn serve(mut self, site: Arc<Site>) -> Infallible {
        loop {
            self.wait_for_a_place().await;
            match self.accept().await {
                Ok(stream) => {
                    let (site, door) = (Arc::clone(&site), self.door);
                    let task = match stream {
                        Stream::Tcp(stream, peer) => self.open.spawn(converse(stream, door, Peer::Address(peer), site)),
                        Stream::Unix(stream) => {
                            let peer = Peer::at(stream.as_fd());
                            self.open.spawn(converse(stream, door, peer, site))
                        }
                    };
                    self.by_age.push_back((Instant::now(), task));
                }
                Err(error) => {
                    if self.complaint.is_none_or(|last| last.elapsed() >= COMPLAINT_EVERY) {
                        tracing::warn!("a connection could not be taken: {error}");
                        self.complaint = Some(Instant::now());
                    }
                    sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    async fn wait_for_a_place(&mut self) {
        loop {
            while self.open.try_join_next().is_some() {}
            self.by_age.retain(|(_, task)| !task.is_finished());
            if self.by_age.len() < self.limits.connections {
                return;
            }
            let Some((since, oldest)) = self.by_age.front() else { return };
            if timeout_at(*since + self.limits.crowded, self.open.join_next()).await.is_err() {
                oldest.abort();
                self.by_age.pop_front();
            }
        }
    }

    /// The next connection at any of the listeners, in turn.
    async fn accept(&mut self) -> io::Result<Stream> {
        let (listeners, turn) = (&self.listeners, &mut self.turn);
        poll_fn(|context| {
            for step in 0..listeners.len() {
                let index = (*turn + step) % listeners.len();
                if let Some(listener) = listeners.get(index)
                    && let Poll::Ready(taken) = listener.poll_accept(context)
                {
                    *turn = index + 1;
                    return Poll::Ready(taken);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// One connection from begin to end. How it ends is the client's business: errors (resets, nonsense, too slow) are
/// not worth a log line, which anybody could write then.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, door: Door, peer: Peer, site: Arc<Site>) {
    let limits = site.limits;
    let service = service_fn(move |request| Arc::clone(&site).answer(door, peer, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(limits.header_bytes)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if timeout(limits.connection, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(limits.farewell, connection).await;
    }
}
