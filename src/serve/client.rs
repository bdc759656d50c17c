//! A question to the running daemon, by its control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Time for all of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer that is read.
const MOST_ANSWER: usize = 32 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error(
        "no oomwarden answers at {0}: is it running (`systemctl status oomwarden`), and with this --control? the default is {default}",
        default = super::socket::DEFAULT
    )]
    Nobody(PathBuf),
    /// No right to connect.
    #[error("{0}: permission denied: run this as root, or as a member of the socket's group")]
    Denied(PathBuf),
    /// It does not answer in time.
    #[error("{0}: the oomwarden there does not answer")]
    Silent(PathBuf),
    /// It refused, and said why.
    #[error("{0}: {2}")]
    Refused(PathBuf, StatusCode, String),
    /// Anything else.
    #[error("{0}: {1}; is it oomwarden's control socket?")]
    Failed(PathBuf, String),
}

/// Asks, and returns the answer's text.
///
/// # Errors
/// See [`AskError`]; an answer other than 200 is one.
pub fn ask(socket: &Path, method: &Method, path: &str) -> Result<String, AskError> {
    ask_within(socket, method, path, PATIENCE)
}

/// As [`ask`], with so much time for all of it.
///
/// # Errors
/// As there.
pub fn ask_within(socket: &Path, method: &Method, path: &str, patience: Duration) -> Result<String, AskError> {
    let at = || socket.to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| AskError::Failed(at(), error.to_string()))?;
    let answer = async { tokio::time::timeout(patience, converse(socket, method, path)).await };
    let (status, text) = runtime.block_on(answer).map_err(|_| AskError::Silent(at()))??;
    if status == StatusCode::OK {
        return Ok(text);
    }
    // One line is one line, whatever is in it.
    let lines: Vec<String> = text.trim().lines().map(|line| crate::cgroup::path::Escaped(line.as_bytes()).to_string()).collect();
    Err(AskError::Refused(at(), status, lines.join("\n")))
}

async fn converse(socket: &Path, method: &Method, path: &str) -> Result<(StatusCode, String), AskError> {
    let at = || socket.to_owned();
    let failed = |error: &dyn std::fmt::Display| AskError::Failed(at(), error.to_string());
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::Nobody(at()),
        io::ErrorKind::PermissionDenied => AskError::Denied(at()),
        _ => failed(&error),
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    // Ends with the runtime; what goes wrong there the sender hears too.
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header(hyper::header::HOST, "oomwarden");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST_ANSWER).collect().await.map_err(|error| failed(&error))?;
    let text = String::from_utf8(body.to_bytes().to_vec()).map_err(|error| failed(&error))?;
    Ok((status, text))
}
