//! What is answered: one function from a request to a response.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::health::Health;
use super::status::Status;
use super::who::Peer;
use super::{Desk, Limits, control, gzip, web};
use crate::control::by::By;
use crate::control::pulse::Pulse;
use crate::metrics::counters::Counters;
use crate::record::recent::LINES;

const TEXT: &str = "text/plain; charset=utf-8";
/// The switch.
const PAUSE: &str = "/api/v1/pause";
const RESUME: &str = "/api/v1/resume";
/// The policy, read again.
const RELOAD: &str = "/api/v1/reload";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// On every answer: nothing here is to be guessed at, framed, kept or told on.
const SECURITY: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The way by which a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A listen address: whoever can reach it.
    Address,
    /// The control socket: who may use it is whom the daemon's owner trusts.
    Control,
}

/// Everything that requests are answered from.
#[derive(Debug)]
pub struct Site {
    counters: Arc<Counters>,
    health: Health,
    pub(super) limits: Limits,
    started: Instant,
    desk: Desk,
    /// Names of groups are told at addresses too.
    api: bool,
    turn: control::Turn,
    /// When an order at an address was last complained about.
    complaint: Mutex<Option<Instant>>,
    /// The last status, kept for a moment: it costs reading the watched groups' files.
    status: Mutex<Option<(Instant, Arc<Status>)>>,
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

/// Between two complaints about orders at an address.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

fn order_word(path: &str) -> &'static str {
    match path {
        PAUSE => "an order to pause deeds",
        RESUME => "an order to resume them",
        _ => "a reload",
    }
}

/// What was done as JSON.
fn json<T: Serialize>(done: Result<T, control::Refusal>) -> Result<serde_json::Result<Vec<u8>>, control::Refusal> {
    done.map(|done| serde_json::to_vec(&done))
}

/// Who gave an order: by the name that it had then, which may be gone by now.
struct Named(Option<By>, Peer);

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(by) => write!(f, "{by}"),
            None => write!(f, "{}", self.1),
        }
    }
}

impl Site {
    pub(super) fn new(counters: Arc<Counters>, pulse: Arc<Pulse>, limits: Limits, started: Instant, desk: Desk, api: bool) -> Site {
        let health = Health::new(pulse, limits.pulse, limits.ask_every);
        let turn = control::Turn::new(());
        Site {
            counters,
            health,
            limits,
            started,
            desk,
            api,
            turn,
            complaint: Mutex::new(None),
            status: Mutex::new(None),
            scrape: Mutex::new(None),
        }
    }

    /// Answers one request. A body is read only of an order.
    pub(super) async fn answer(self: Arc<Site>, door: Door, peer: Peer, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let is_order = matches!(request.uri().path(), PAUSE | RESUME | RELOAD);
        let mut answer = match *request.method() {
            Method::POST if is_order && door == Door::Control => self.order(peer, request).await,
            Method::GET | Method::HEAD if is_order && door == Door::Control => refuse_method("POST", "this is done by POST\n"),
            Method::GET | Method::HEAD => self.page_at(door, &request).await,
            _ if door == Door::Control => refuse_method(
                "GET, HEAD",
                "only GET and HEAD are answered here, and POST to /api/v1/pause, /api/v1/resume and /api/v1/reload\n",
            ),
            _ => {
                if is_order {
                    self.complain_of(peer, request.uri().path());
                }
                refuse_method("GET, HEAD", "only GET and HEAD are answered here\n")
            }
        };
        for (name, value) in SECURITY {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok(answer)
    }

    async fn page_at(self: &Arc<Site>, door: Door, request: &Request<Incoming>) -> Answer {
        let names = door == Door::Control || self.api;
        match request.uri().path() {
            "/" => page(self.landing(names)),
            "/metrics" => self.metrics(request.headers()),
            "/-/healthy" => self.healthy().await,
            "/-/ready" if self.health.is_armed() => text(StatusCode::OK, self.ready(names)),
            "/-/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: the groups are not armed yet\n"),
            "/api/v1/status" | "/api/v1/kills" if !names => {
                let why = "no such page at this address, where names of groups are not told: ask at the control socket, or start with --listen-api; there are /, /metrics, /-/healthy and /-/ready\n";
                text(StatusCode::NOT_FOUND, why)
            }
            "/api/v1/status" => match serde_json::to_vec(&*self.status()) {
                Ok(json) => reply(StatusCode::OK, JSON, json.into()),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("the status could not be encoded: {error}\n")),
            },
            "/api/v1/kills" => self.kills(request.uri().query()),
            _ if names => {
                let known = "no such page; there are /, /metrics, /-/healthy, /-/ready, /api/v1/status and /api/v1/kills\n";
                text(StatusCode::NOT_FOUND, known)
            }
            _ => text(StatusCode::NOT_FOUND, "no such page; there are /, /metrics, /-/healthy and /-/ready\n"),
        }
    }

    /// Somebody at an address wants deeds to stop, or to go on, or a reload. Said once a minute:
    /// anybody may try.
    fn complain_of(&self, peer: Peer, path: &str) {
        let mut last = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= COMPLAINT_EVERY) {
            *last = Some(Instant::now());
            tracing::warn!("refused: {} by {peer} at a listen address; only the control socket takes orders", order_word(path));
        }
    }

    async fn order(&self, peer: Peer, request: Request<Incoming>) -> Answer {
        let (by, what) = (peer.by(), order_word(request.uri().path()));
        let done = match request.uri().path() {
            PAUSE => json(control::pause(&self.desk, &self.turn, by, request).await),
            RESUME => json(control::resume(&self.desk, &self.turn, by, request).await),
            _ => {
                let done = control::reload(&self.desk, &self.counters, request).await;
                if let Ok(done) = &done {
                    tracing::info!("reloaded by {}: policy {} is in force", Named(by, peer), done.policy);
                }
                json(done)
            }
        };
        if let Err((status, why)) = &done {
            // Whoever may connect is trusted with the switch, so this is no flood.
            tracing::warn!("not done: {what} by {}: {} ({status})", Named(by, peer), why.trim_end());
        }
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match done {
            Ok(Ok(json)) => reply(StatusCode::OK, JSON, json.into()),
            Ok(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer could not be encoded: {error}\n")),
            Err((status, why)) => {
                let mut answer = text(status, why);
                // The rest of a body may follow that nobody will read.
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                answer
            }
        }
    }

    /// The answer once the groups are armed. What is wrong in words may name groups and files: not for the network.
    fn ready(&self, names: bool) -> String {
        let degraded = self.counters.degraded().list();
        if degraded.is_empty() {
            return "ready: the groups are armed\n".to_owned();
        }
        let words: Vec<&str> = degraded.iter().map(|(reason, _)| reason.word()).collect();
        let mut answer = format!("ready, degraded: {}\n", words.join(", "));
        for (reason, text) in degraded.iter().filter(|_| names) {
            let _ = writeln!(answer, "{}: {text}", reason.word());
        }
        answer
    }

    /// How the daemon stands, at most `limits.fresh` ago.
    fn status(&self) -> Arc<Status> {
        let mut kept = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, status)) = &*kept
            && at.elapsed() < self.limits.fresh
        {
            return Arc::clone(status);
        }
        let status = Arc::new(Status::of(&self.desk, &self.counters, self.health.is_armed(), self.started.elapsed()));
        *kept = Some((Instant::now(), Arc::clone(&status)));
        status
    }

    /// The journal's last lines as an array; each line is an object already.
    fn kills(&self, query: Option<&str>) -> Answer {
        let limit = control::parameter(query, "limit").and_then(|limit| match limit.map(str::parse) {
            None => Ok(LINES),
            Some(Ok(limit @ 1..=LINES)) => Ok(limit),
            Some(_) => Err(format!("`limit` is 1 to {LINES}: so many lines of the journal are kept")),
        });
        match limit {
            Ok(limit) => {
                let lines = self.desk.recent.as_ref().map(|recent| recent.last(limit)).unwrap_or_default();
                reply(StatusCode::OK, JSON, format!("[{}]\n", lines.join(",\n")).into())
            }
            Err(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        }
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

    fn landing(&self, names: bool) -> String {
        let (hash, rules) = match self.counters.in_force().get() {
            Some(policy) => (policy.hash.to_string(), policy.rules.len().to_string()),
            None => ("none".to_owned(), "0".to_owned()),
        };
        let details = if names { web::house::details(&self.status()) } else { String::new() };
        web::landing(&web::Landing { hash, rules, ready: self.health.is_armed(), up: self.started.elapsed(), details })
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

fn refuse_method(allowed: &'static str, why: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, why);
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    // A body may follow that nobody will read.
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
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
