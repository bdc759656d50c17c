//! What is answered: one function from a request to a response.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::health::Health;
use super::{Limits, gzip};
use crate::record::counters::Counters;
use crate::record::pulse::Pulse;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// On every answer: nothing here is to be guessed at, framed, kept or told on.
const SECURITY: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Everything that requests are answered from.
#[derive(Debug)]
pub struct Site {
    counters: Arc<Counters>,
    health: Health,
    pub(super) limits: Limits,
    started: Instant,
    /// The last scrape, kept for a moment: a crowd of scrapers costs one.
    scrape: Mutex<Option<Scrape>>,
}

#[derive(Debug)]
struct Scrape {
    at: Instant,
    plain: Bytes,
    gzip: Option<Bytes>,
}

type Answer = Response<Full<Bytes>>;

impl Site {
    pub(super) fn new(counters: Arc<Counters>, pulse: Arc<Pulse>, limits: Limits, started: Instant) -> Site {
        let health = Health::new(pulse, limits.pulse, limits.ask_every);
        Site { counters, health, limits, started, scrape: Mutex::new(None) }
    }

    /// Answers one request. Its body, if it has one, is not read.
    pub(super) async fn answer(self: Arc<Site>, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let mut answer = if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            // A body may follow that nobody will read.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        } else {
            match request.uri().path() {
                "/" => page(self.landing()),
                "/metrics" => self.metrics(request.headers()),
                "/-/healthy" => self.healthy().await,
                "/-/ready" if self.health.is_armed() => text(StatusCode::OK, "ready: the groups are armed\n"),
                "/-/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: the groups are not armed yet\n"),
                _ => text(StatusCode::NOT_FOUND, "no such page; there are /, /metrics, /-/healthy and /-/ready\n"),
            }
        };
        for (name, value) in SECURITY {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok(answer)
    }

    async fn healthy(&self) -> Answer {
        match self.health.check().await {
            Ok(()) => text(StatusCode::OK, "healthy: the warden answers\n"),
            Err(silence) => {
                let why = format!("unhealthy: the warden has not answered for {:.1} s\n", silence.as_secs_f64());
                text(StatusCode::SERVICE_UNAVAILABLE, why)
            }
        }
    }

    fn metrics(self: &Arc<Site>, headers: &HeaderMap) -> Answer {
        let compressed = gzip::is_asked(headers);
        let Some(body) = self.scrape(compressed) else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be encoded; the log says why\n");
        };
        let mut answer = reply(StatusCode::OK, METRICS, body);
        answer.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if compressed {
            answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    }

    /// The metrics, at most `limits.fresh` old.
    fn scrape(self: &Arc<Site>, compressed: bool) -> Option<Bytes> {
        let mut kept = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_none_or(|scrape| scrape.at.elapsed() >= self.limits.fresh) {
            // Freed before the next one is made, so that there are not two of them.
            *kept = None;
            let plain = self.counters.encode().map_err(|error| tracing::error!("metrics: {error}")).ok()?;
            *kept = Some(Scrape { at: Instant::now(), plain: plain.into(), gzip: None });
            tokio::spawn(forget(Arc::clone(self)));
        }
        let scrape = kept.as_mut()?;
        if !compressed {
            return Some(scrape.plain.clone());
        }
        if scrape.gzip.is_none() {
            scrape.gzip = Some(gzip::compress(&scrape.plain).map_err(|error| tracing::error!("gzip: {error}")).ok()?.into());
        }
        scrape.gzip.clone()
    }

    fn landing(&self) -> String {
        let (hash, rules) = match self.counters.policy() {
            Some(policy) => (escape(&policy.hash), policy.rules.to_string()),
            None => ("none".to_owned(), "0".to_owned()),
        };
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>oomwarden</title></head>\n<body>\n\
             <h1>oomwarden {version}</h1>\n<p>A cgroup v2 aware out-of-memory manager.</p>\n\
             <ul>\n<li><a href=\"/metrics\">/metrics</a>: metrics for Prometheus</li>\n\
             <li><a href=\"/-/healthy\">/-/healthy</a>: whether it makes progress</li>\n\
             <li><a href=\"/-/ready\">/-/ready</a>: whether its groups are armed (now: {ready})</li>\n</ul>\n\
             <dl>\n<dt>Policy</dt><dd><code>{hash}</code></dd>\n<dt>Rules</dt><dd>{rules}</dd>\n\
             <dt>Up for</dt><dd>{uptime}</dd>\n</dl>\n</body>\n</html>\n",
            version = env!("CARGO_PKG_VERSION"),
            ready = if self.health.is_armed() { "yes" } else { "no" },
            uptime = uptime(self.started.elapsed()),
        )
    }
}

/// Frees the kept scrape when it is too old to be served: it can be large, and the next one may be minutes away.
async fn forget(site: Arc<Site>) {
    tokio::time::sleep(site.limits.fresh).await;
    let mut kept = site.scrape.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.as_ref().is_some_and(|scrape| scrape.at.elapsed() >= site.limits.fresh) {
        *kept = None;
    }
}

fn page(html: String) -> Answer {
    reply(StatusCode::OK, HTML, html.into())
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    reply(status, TEXT, body.into())
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `2d 3h 4m 5s`, without leading zeros.
fn uptime(up: Duration) -> String {
    let seconds = up.as_secs();
    let mut text = String::new();
    for (value, unit) in [(seconds / 86_400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm')] {
        if value > 0 || !text.is_empty() {
            let _ = write!(text, "{value}{unit} ");
        }
    }
    let _ = write!(text, "{}s", seconds % 60);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_for_people() {
        for (seconds, text) in [(0, "0s"), (61, "1m 1s"), (3600, "1h 0m 0s"), (86_400 + 59, "1d 0h 0m 59s")] {
            assert_eq!(uptime(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn text_is_escaped_for_html() {
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}
