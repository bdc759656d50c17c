//! As much of an HTTP client as a scrape needs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::outcome::{Doing, Outcome};

/// Status and body.
pub struct Answer {
    /// As in `200`.
    pub status: u16,
    /// The text after the header.
    pub body: String,
}

/// GET without keep-alive.
pub fn get(address: SocketAddr, path: &str) -> Outcome<Answer> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, patience).doing(format_args!("connect to {address}"))?;
    stream.set_read_timeout(Some(patience)).doing("set a timeout")?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
        .doing(format_args!("ask for {path}"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).doing(format_args!("read the answer to {path}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{path} got no HTTP answer: {answer:?}"))?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| format!("{path} got no status: {head:?}"))?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Ok(Answer { status, body })
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = after.get(..size).filter(|_| size > 0) else { break };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    body
}
