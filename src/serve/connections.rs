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
use std::net::TcpListener as StdListener;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Limits;
use super::pages::Site;

/// After a connection could not be taken (no descriptor left), and between complaints about that.
const AFTER_ERROR: Duration = Duration::from_millis(100);
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// The open connections, and where new ones come from.
pub struct Acceptor {
    listeners: Vec<TcpListener>,
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

impl Acceptor {
    /// To be called inside the runtime. The listeners are nonblocking.
    ///
    /// # Errors
    /// A listener that the event loop does not take.
    pub fn new(listeners: Vec<StdListener>, limits: Limits) -> io::Result<Acceptor> {
        let listeners = listeners.into_iter().map(TcpListener::from_std).collect::<io::Result<_>>()?;
        Ok(Acceptor { listeners, limits, open: JoinSet::new(), by_age: VecDeque::new(), turn: 0, complaint: None })
    }

    /// Takes connections and serves them, for ever.
    pub async fn serve(mut self, site: Arc<Site>) -> Infallible {
        loop {
            self.wait_for_a_place().await;
            match self.accept().await {
                Ok(stream) => {
                    let task = self.open.spawn(converse(stream, Arc::clone(&site)));
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
    async fn accept(&mut self) -> io::Result<TcpStream> {
        let (listeners, turn) = (&self.listeners, &mut self.turn);
        poll_fn(|context| {
            for step in 0..listeners.len() {
                let index = (*turn + step) % listeners.len();
                if let Some(listener) = listeners.get(index)
                    && let Poll::Ready(taken) = listener.poll_accept(context)
                {
                    *turn = index + 1;
                    return Poll::Ready(taken.map(|(stream, _)| stream));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// One connection from begin to end. How it ends is the client's business: errors (resets, nonsense, too slow) are
/// not worth a log line, which anybody could write then.
async fn converse(stream: TcpStream, site: Arc<Site>) {
    let limits = site.limits;
    let service = service_fn(move |request| Arc::clone(&site).answer(request));
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
