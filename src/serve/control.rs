//! Pause, resume and reload, as the control socket takes them.
//!
//! The warden acts first, then the pause is written down for a restart: a slow disk must not keep deeds going.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::Desk;
use crate::control::board::{Board, LONGEST_PAUSE, Order, Ticket};
use crate::control::by::By;
use crate::metrics::counters::Counters;
use crate::policy::model::Mode;
use crate::policy::parse_any_time;
use crate::state::pause::{Keeper, Now, Pause};
use crate::state::time_text;

/// How long a pause lasts if nothing is said.
pub const DEFAULT_PAUSE: Duration = Duration::from_secs(10 * 60);
/// How long the warden has for doing as it is told.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the disk has.
const DISK_PATIENCE: Duration = Duration::from_secs(2);
/// How long a policy may take to be read and checked.
const READ_PATIENCE: Duration = Duration::from_secs(6);
/// How often it is looked whether the warden has.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The largest body of a request, and the time for it to arrive.
const MOST_BODY: usize = 4096;
const BODY_TIME: Duration = Duration::from_secs(5);

/// The answer to an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Until when deeds are paused; `None` after a resume. RFC 3339.
    pub paused_until: Option<String>,
    /// What the caller should know besides: that it won't survive a restart, and why.
    pub note: Option<String>,
}

/// The answer to a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The fingerprint of the policy that is in force now.
    pub policy: String,
}

/// Why it was not done: a status and a line.
pub type Refusal = (StatusCode, String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseBody {
    #[serde(rename = "for")]
    time: Option<String>,
}

fn bad(why: impl Into<String>) -> Refusal {
    (StatusCode::BAD_REQUEST, format!("{}\n", why.into()))
}

/// The value of the only parameter that a query may have.
pub(super) fn parameter<'q>(query: Option<&'q str>, name: &str) -> Result<Option<&'q str>, String> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    match query.split_once('=') {
        Some((key, value)) if key == name && !value.contains(['&', '=']) => Ok(Some(value)),
        _ => Err(format!("the only parameter here is `{name}`, as in `?{name}=...`, given once")),
    }
}

/// How long a pause is asked for: 1 s to [`LONGEST_PAUSE`].
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn pause_time(text: &str) -> Result<Duration, String> {
    let time = parse_any_time(text)?;
    if time < Duration::from_secs(1) || time > LONGEST_PAUSE {
        return Err("a pause is 1s to 24h, such as `10m`, and ends by itself: for longer, set `mode: observe` in the policy".to_owned());
    }
    Ok(time)
}

/// One order at a time, so that the last one given is the last one kept. Taken when a request has come in whole: whoever sends half of one
/// is in nobody's way.
pub(super) type Turn = tokio::sync::Mutex<()>;

/// Reads the body of a pause, and pauses.
pub(super) async fn pause(desk: &Desk, turn: &Turn, by: Option<By>, request: Request<Incoming>) -> Result<Done, Refusal> {
    let by_query = parameter(request.uri().query(), "for").map_err(bad)?.map(pause_time).transpose().map_err(bad)?;
    let body = body(request).await?;
    let by_body = if body.trim_ascii().is_empty() {
        None
    } else {
        let body: PauseBody = serde_json::from_slice(&body).map_err(|error| {
            bad(format!("the body is not understood ({error}): send none, or JSON such as {{\"for\": \"10m\"}}").replace('\n', " "))
        })?;
        body.time.as_deref().map(pause_time).transpose().map_err(bad)?
    };
    let time = match (by_query, by_body) {
        (Some(_), Some(_)) => return Err(bad("the time is given twice: by the query and by the body")),
        (query, body) => query.or(body).unwrap_or(DEFAULT_PAUSE),
    };
    let _turn = turn.lock().await;
    let pause = Pause::begin(&Now::read(), time, by);
    let until = time_text(pause.until());
    let note = carry_out(desk, Order::Pause(time), by, Some(pause)).await?;
    Ok(Done { paused_until: Some(until), note })
}

/// Ends a pause.
pub(super) async fn resume(desk: &Desk, turn: &Turn, by: Option<By>, request: Request<Incoming>) -> Result<Done, Refusal> {
    if request.uri().query().is_some_and(|query| !query.is_empty()) || !body(request).await?.trim_ascii().is_empty() {
        return Err(bad("resume takes neither parameters nor a body"));
    }
    let _turn = turn.lock().await;
    let note = carry_out(desk, Order::Resume, by, None).await?;
    Ok(Done { paused_until: None, note })
}

/// Has the policy read again, and answers when it is in force, or refused (422, with all that is wrong).
pub(super) async fn reload(desk: &Desk, counters: &Counters, request: Request<Incoming>) -> Result<Reloaded, Refusal> {
    if request.uri().query().is_some_and(|query| !query.is_empty()) || !body(request).await?.trim_ascii().is_empty() {
        return Err(bad("reload takes neither parameters nor a body"));
    }
    let Some(reloads) = &desk.reloads else {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "nobody here reads policies\n".to_owned()));
    };
    let late = |what: &str| (StatusCode::GATEWAY_TIMEOUT, format!("{what}: the log says what comes of it\n"));
    let Some(hearer) = reloads.ask_and_hear() else {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "too many wait for a reload already\n".to_owned()));
    };
    let policy = match timeout(READ_PATIENCE, hearer).await {
        Ok(Ok(Ok(policy))) => policy,
        Ok(Ok(Err(why))) => {
            let observes = counters.in_force().get().is_some_and(|policy| policy.mode == Mode::Observe);
            let observes = if observes { " and only observes" } else { "" };
            return Err((
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("the new policy is refused, the old one stays in force{observes}: {why}\n"),
            ));
        }
        // The thread that reads died meanwhile.
        Ok(Err(_)) => return Err((StatusCode::SERVICE_UNAVAILABLE, "the reading broke off: ask again, the log says why\n".to_owned())),
        Err(_) => return Err(late("the policy is not read yet")),
    };
    let since = Instant::now();
    while counters.in_force().get().is_none_or(|current| current.hash != policy) {
        if since.elapsed() >= PATIENCE {
            return Err(late("the new policy is sound, but the warden has not taken it over yet"));
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(Reloaded { policy: policy.to_string() })
}

async fn body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    match timeout(BODY_TIME, Limited::new(request.into_body(), MOST_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the body is broken, or longer than {MOST_BODY} bytes\n"))),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n".to_owned())),
    }
}

/// Has the warden obey, then writes the pause down, or takes it away. What the caller should know of the second.
async fn carry_out(desk: &Desk, order: Order, by: Option<By>, pause: Option<Pause>) -> Result<Option<String>, Refusal> {
    let (Some(board), Some(keeper)) = (&desk.board, &desk.pauses) else {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "there is no warden to be told\n".to_owned()));
    };
    // The last order given is the last one kept: both are set without a pause in between.
    let ticket = board.order_by(order, by);
    let paused = pause.is_some();
    keeper.want(pause);
    let obeyed = obeyed(board, ticket).await;
    let note = written(keeper, paused).await;
    if !obeyed {
        let why = "the warden has not obeyed yet: it is told, and will when it turns again; /-/healthy says how it is\n";
        return Err((StatusCode::GATEWAY_TIMEOUT, why.to_owned()));
    }
    Ok(note)
}

async fn obeyed(board: &Board, ticket: Ticket) -> bool {
    let since = Instant::now();
    while !board.is_done(ticket) {
        if since.elapsed() >= PATIENCE {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}

async fn written(keeper: &Arc<Keeper>, paused: bool) -> Option<String> {
    let what = if paused { "the pause would not survive a restart of the daemon" } else { "a restart of the daemon would pause again" };
    let path = keeper.path().display().to_string();
    let keeper = Arc::clone(keeper);
    let why = match timeout(DISK_PATIENCE, tokio::task::spawn_blocking(move || keeper.write())).await {
        Ok(Ok(Ok(()))) => return None,
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the disk does not answer".to_owned(),
    };
    tracing::warn!("{path}: {why}: {what}");
    Some(format!("{path}: {why}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_one_parameter_or_none() {
        assert_eq!([parameter(None, "for"), parameter(Some(""), "for")], [Ok(None), Ok(None)]);
        assert_eq!(parameter(Some("for=10m"), "for"), Ok(Some("10m")));
        for wrong in ["for", "four=1m", "for=1m&for=2m", "limit=5", "&", "=", "for=1m&", "for=a=b"] {
            assert!(parameter(Some(wrong), "for").is_err_and(|why| why.contains("?for=")), "{wrong}");
        }
    }

    #[test]
    fn a_pause_has_a_unit_and_an_end() {
        assert_eq!(pause_time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!([pause_time("24h"), pause_time("1d")], [Ok(LONGEST_PAUSE), Ok(LONGEST_PAUSE)]);
        for (wrong, why) in [
            ("10", "write 10ms or 10s"),
            ("0s", "1s to 24h"),
            ("25h", "24h"),
            ("2d", "1s to 24h"),
            ("1w", "mode: observe"),
            ("1ms", "1s to 24h"),
            ("", "150ms"),
            ("-1s", "2s"),
        ] {
            assert!(pause_time(wrong).is_err_and(|said| said.contains(why)), "{wrong}: {:?}", pause_time(wrong));
        }
    }
}
