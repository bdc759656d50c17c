//! The control socket over real sockets: who is answered, what is answered, and whoever one would rather not have there.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

mod stand_in;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use assert_cmd::Command;
use oomwarden::control::board::Board;
use oomwarden::control::origin::{self, Origin};
use oomwarden::control::pulse::Pulse;
use oomwarden::control::reloads::Reloads;
use oomwarden::degraded::Reason;
use oomwarden::metrics::counters::Counters;
use oomwarden::policy::model::Policy;
use oomwarden::policy::{Source, load};
use oomwarden::record::recent::Recent;
use oomwarden::serve::{ControlSocket, Desk, Limits, Server, ServerHandle, supervisor};
use oomwarden::state::StateDir;
use oomwarden::state::pause::{self, Keeper, Now};
use serde_json::Value;
use stand_in::{Machine, change, group, wait};

const POLICY: &str = "
version: 1
limits: {kills: 1 per 1h}
rules:
  - name: finish
    watch: /t/*
    when:
      - event: oom_kill
";

/// A warden at work on /t/a and /t/<b>, and a server that it answers.
struct Fixture {
    machine: Machine,
    server: ServerHandle,
    socket: PathBuf,
    state: StateDir,
    _dirs: [tempfile::TempDir; 2],
}

fn desk_of(machine: &Machine, pauses: Option<Arc<Keeper>>) -> Desk {
    let (board, recent) = (Some(Arc::clone(&machine.board)), Some(Arc::clone(&machine.recent)));
    Desk { board, recent, pauses, reloads: Some(machine.mailbox.reloads()), ..Desk::default() }
}

fn start(limits: Limits, api: bool) -> Fixture {
    let (tree, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    group(tree.path(), "t", 1000);
    group(tree.path(), "t/a", 1_000_000);
    group(tree.path(), "t/<b>", 2_000_000);
    let machine = Machine::start(tree.path(), POLICY, || {});
    let socket = run.path().join("control.sock");
    let state = StateDir::new(run.path());
    let pauses = Some(Arc::new(Keeper::new(state.clone())));
    let desk = desk_of(&machine, pauses);
    let server = Server::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let server = server.with_control(Some(ControlSocket::bind(&socket).unwrap())).with_desk(desk).with_api(api);
    let server = server.spawn(Arc::clone(&machine.counters), Arc::clone(&machine.pulse), limits).unwrap();
    wait("the groups are published", || !machine.counters.published().groups().is_empty());
    Fixture { machine, server, socket, state, _dirs: [tree, run] }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn converse(mut stream: impl Read + Write, bytes: &[u8]) -> Option<Answer> {
    // The server may have had enough before all is sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n{body}").into_bytes()
}

impl Fixture {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        converse(self.connect(), &request(method, path, body)).expect("an answer")
    }

    fn ask_address(&self, method: &str, path: &str) -> Answer {
        let stream = TcpStream::connect(self.server.local_addrs()[0]).unwrap();
        converse(stream, &request(method, path, "")).expect("an answer")
    }

    fn status(&self) -> Value {
        self.ask("GET", "/api/v1/status", "").json()
    }

    fn oom_kill(&self, group: &str, count: u32) {
        let file = self.machine.root.join(group).join("memory.events.local");
        change(&file, &format!("low 0\nhigh 0\nmax 0\noom 0\noom_kill {count}\n"));
    }

    /// Has /t/a killed and verified.
    fn kill_a(&self) {
        self.oom_kill("t/a", 1);
        wait("the kill", || self.machine.killed("t/a"));
        change(&self.machine.root.join("t/a/cgroup.events"), "populated 0\n");
        wait("the journal's line", || !self.machine.recent.last(1).is_empty());
    }

    fn end(self) {
        self.server.shutdown();
        assert!(!self.socket.exists(), "the socket's file is taken away");
        self.machine.stop();
    }
}

#[test]
fn everything_is_answered_at_the_control_socket() {
    let fixture = start(Limits::default(), false);
    for (path, part) in [
        ("/metrics", "oomwarden_paused 0"),
        ("/-/healthy", "healthy"),
        ("/-/ready", "ready"),
        ("/api/v1/status", "\"ready\":true"),
        ("/api/v1/kills", "[]"),
        ("/", "Watched groups"),
    ] {
        let answer = fixture.ask("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(answer.body.contains(part), "{path}: {}", answer.body);
        let head = fixture.ask("HEAD", path, "");
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
    for (method, path, status, part) in [
        ("GET", "/nowhere", 404, "no such page"),
        ("GET", "/api/v1/pause", 405, "done by POST"),
        ("POST", "/api/v1/status", 405, "GET and HEAD"),
        ("POST", "/", 405, "/api/v1/pause"),
        ("DELETE", "/api/v1/pause", 405, "GET and HEAD"),
        ("GET", "/api/v1/kills?limit=0", 400, "1 to 256"),
        ("GET", "/api/v1/kills?limit=257", 400, "1 to 256"),
        ("GET", "/api/v1/kills?limit=x", 400, "1 to 256"),
        ("GET", "/api/v1/kills?limt=5", 400, "`limit`"),
        ("POST", "/api/v1/resume?now=1", 400, "neither"),
        ("POST", "/api/v1/pause?for=10", 400, "no unit"),
        ("POST", "/api/v1/pause?for=25h", 400, "24h"),
        ("POST", "/api/v1/pause?for=0s", 400, "1s to 24h"),
        ("POST", "/api/v1/pause?four=1m", 400, "`for`"),
        ("POST", "/api/v1/pause?for=1m&for=2m", 400, "given once"),
        ("POST", "/api/v1/pause?for=%31m", 400, "not an amount"),
    ] {
        let answer = fixture.ask(method, path, "");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        assert!(answer.body.contains(part), "{method} {path}: {}", answer.body);
        assert_eq!(answer.body.lines().count(), 1, "one line why: {}", answer.body);
    }
    assert!(fixture.status()["paused"].is_null());
    fixture.end();
}

#[test]
fn at_an_address_there_are_no_names_and_no_switch() {
    let fixture = start(Limits::default(), false);
    fixture.kill_a();
    for path in ["/api/v1/status", "/api/v1/kills"] {
        let answer = fixture.ask_address("GET", path);
        assert_eq!(answer.status, 404, "{}", answer.body);
        assert!(answer.body.contains("--listen-api") && !answer.body.contains("/t/a"), "{}", answer.body);
    }
    let page = fixture.ask_address("GET", "/");
    assert!(page.status == 200 && !page.body.contains("/t/") && !page.body.contains("finish"), "{}", page.body);
    for path in ["/api/v1/pause", "/api/v1/resume"] {
        assert_eq!(fixture.ask_address("POST", path).status, 405);
        assert_eq!(fixture.ask_address("GET", path).status, 404);
    }
    assert!(fixture.status()["paused"].is_null());
    fixture.end();
}

#[test]
fn with_listen_api_names_are_told_and_nothing_can_be_switched() {
    let fixture = start(Limits::default(), true);
    fixture.kill_a();
    for path in ["/api/v1/status", "/api/v1/kills", "/"] {
        let answer = fixture.ask_address("GET", path);
        assert!(answer.status == 200 && answer.body.contains("/t/a"), "{path}: {}", answer.body);
    }
    let log = log();
    assert_eq!(fixture.ask_address("POST", "/api/v1/pause").status, 405);
    wait("the log says who tried", || log.says("refused: an order to pause deeds by 127.0.0.1:"));
    assert!(fixture.status()["paused"].is_null());
    fixture.end();
    // One complaint a minute, and a server: each order by its own name.
    for (path, what) in [("/api/v1/resume", "an order to resume them"), ("/api/v1/reload", "a reload")] {
        let fixture = start(Limits::default(), true);
        assert_eq!(fixture.ask_address("POST", path).status, 405);
        wait("the log says who tried", || log.says(&format!("refused: {what} by 127.0.0.1:")));
        fixture.end();
    }
}

#[test]
fn pause_and_resume_are_obeyed_before_they_are_answered_and_written_down() {
    let fixture = start(Limits::default(), false);
    let left = || pause::left(&fixture.state, &Now::read()).unwrap().map(|(left, _)| left);
    for (query, body, least) in [("", "", 590), ("?for=1h", "", 3590), ("", "{\"for\": \"2m\"}", 110), ("?for=90s", " \n", 80)] {
        let answer = fixture.ask("POST", &format!("/api/v1/pause{query}"), body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let done = answer.json();
        assert!(done["paused_until"].is_string() && done["note"].is_null(), "{done}");
        assert!(fixture.machine.metrics().contains("oomwarden_paused 1"), "before the answer");
        let remaining = fixture.status()["paused"]["remaining_seconds"].as_u64().unwrap();
        assert!((least..least + 11).contains(&remaining), "{remaining}");
        assert!(left().is_some_and(|left| (least..least + 11).contains(&left.as_secs())), "{:?}", left());
    }
    for (query, body) in [("?for=1m", "{\"for\": \"1m\"}"), ("", "{\"four\": \"1m\"}"), ("", "1m"), ("", "{\"for\": 5}")] {
        let answer = fixture.ask("POST", &format!("/api/v1/pause{query}"), body);
        assert_eq!((answer.status, answer.body.lines().count()), (400, 1), "{}", answer.body);
    }
    let answer = fixture.ask("POST", "/api/v1/pause", &"x".repeat(5000));
    assert_eq!(answer.status, 413, "{}", answer.body);
    assert!(fixture.machine.metrics().contains("oomwarden_paused 1"), "nothing of that resumed it");
    let done = fixture.ask("POST", "/api/v1/resume", "").json();
    assert!(done["paused_until"].is_null() && done["note"].is_null(), "{done}");
    assert!(fixture.machine.metrics().contains("oomwarden_paused 0"));
    assert!(fixture.status()["paused"].is_null() && left().is_none());
    fixture.end();
}

/// What all daemons of this file's tests say.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn says(&self, what: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock().unwrap()).contains(what)
    }
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
        log
    })
}

/// By the kernel's word at the control socket: in the log, in the status, over a restart, and when
/// it was refused.
#[test]
fn who_gave_an_order_is_told() {
    let (log, fixture) = (log(), start(Limits::default(), false));
    let control = fixture.socket.to_str().unwrap();
    let ask = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oomwarden"));
        let mut child = command.args(args).args(["--control", control]).stdout(std::process::Stdio::null()).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        (rustix::process::getuid().as_raw(), child.id())
    };
    let (uid, pid) = ask(&["pause", "15m"]);
    let by = fixture.status()["paused"]["by"].clone();
    assert_eq!(by, serde_json::json!({"uid": uid, "pid": pid, "comm": "oomwarden"}));
    assert!(log.says(&format!("deeds are paused for 900 s by uid {uid}, pid {pid} (oomwarden): ")));
    let kept = pause::left(&fixture.state, &Now::read()).unwrap().and_then(|(_, by)| by).expect("kept for a restart");
    assert_eq!((kept.uid, kept.pid.cast_unsigned()), (uid, pid));
    let (_, out, _) = oomwarden(&["status", "--control", control]);
    assert!(out.contains(&format!(" left, by uid {uid}, pid {pid} (oomwarden))")), "{out}");
    assert!(fixture.ask("GET", "/", "").body.contains(&format!("by uid {uid}, pid {pid} (oomwarden)")));
    let (uid, pid) = ask(&["resume"]);
    assert!(log.says(&format!("resumed by uid {uid}, pid {pid} (oomwarden): ")));
    assert!(fixture.status()["paused"].is_null());
    assert_eq!(fixture.ask("POST", "/api/v1/pause?for=5", "").status, 400);
    let own = format!("not done: an order to pause deeds by uid {uid}, pid {} (", std::process::id());
    assert!(log.says(&own) && log.says("(400 Bad Request)"));
    assert_eq!(fixture.ask("POST", "/api/v1/reload?now=1", "").status, 400);
    assert!(log.says(&format!("not done: a reload by uid {uid}, pid {} (", std::process::id())));
    fs::write(&fixture.machine.policy, POLICY).unwrap();
    let (uid, pid) = ask(&["reload"]);
    let hash = fixture.status()["policy"]["hash"].as_str().unwrap().to_owned();
    assert!(log.says(&format!("reloaded by uid {uid}, pid {pid} (oomwarden): policy {hash} is in force")));
    fixture.end();
}

/// The warden says that deeds are paused until it says that they are not: what is left by the clock
/// of whoever asks is another matter.
#[test]
fn a_pause_is_on_until_the_warden_ends_it() {
    let board = Board::new(Arc::new(nix::sys::eventfd::EventFd::new().unwrap()));
    let desk = |board: &Arc<Board>| Desk { board: Some(Arc::clone(board)), ..Desk::default() };
    let board = Arc::new(board);
    let past = std::time::Instant::now();
    board.show(|standing| standing.paused_until = Some(past));
    let counters = Counters::new().unwrap();
    let paused = || oomwarden::serve::status::Status::of(&desk(&board), &counters, true, Duration::ZERO).paused;
    assert_eq!(paused().expect("still paused").remaining_seconds, 0);
    board.show(|standing| standing.paused_until = Some(std::time::Instant::now() + Duration::from_secs(60)));
    assert!((58..=60).contains(&paused().expect("paused").remaining_seconds));
    board.show(|standing| standing.paused_until = None);
    assert!(paused().is_none());
}

#[test]
fn a_pause_that_can_not_be_written_down_is_obeyed_and_says_so() {
    let fixture = start(Limits::default(), false);
    // A directory in the file's place: nothing can be renamed over it, whoever asks.
    fs::create_dir(fixture.state.path_of(pause::NAME)).unwrap();
    let done = fixture.ask("POST", "/api/v1/pause", "").json();
    let note = done["note"].as_str().unwrap();
    assert!(note.contains("would not survive a restart") && note.contains(pause::NAME), "{note}");
    assert!(fixture.machine.metrics().contains("oomwarden_paused 1"));
    fixture.end();
}

#[test]
fn status_and_kills_tell_what_was_done() {
    let fixture = start(Limits::default(), false);
    fixture.kill_a();
    wait("the breaker is told", || fixture.status()["breakers"].as_array().is_some_and(|open| open.len() == 1));
    let status = fixture.status();
    assert_eq!(status["breakers"][0]["subject"], "/t/a");
    assert_eq!(status["rules"][0]["kills"], 1);
    assert_eq!((&status["last"][0]["outcome"], &status["last"][0]["victim"]), (&"killed".into(), &"/t/a".into()));
    let groups: Vec<&str> = status["subjects"].as_array().unwrap().iter().map(|group| group["group"].as_str().unwrap()).collect();
    assert!(groups.contains(&"/t/a") && groups.contains(&"/t/<b>"), "{groups:?}");
    assert_eq!((&status["groups"]["total"], &status["module"]), (&4.into(), &Value::Null));
    fixture.oom_kill("t/<b>", 1);
    wait("the other's kill", || fixture.machine.killed("t/<b>"));
    change(&fixture.machine.root.join("t/<b>/cgroup.events"), "populated 0\n");
    wait("the second line", || fixture.machine.recent.last(9).len() == 2);
    let kills = fixture.ask("GET", "/api/v1/kills", "").json();
    let victims: Vec<&str> = kills.as_array().unwrap().iter().map(|line| line["victim"].as_str().unwrap()).collect();
    assert_eq!(victims, ["/t/<b>", "/t/a"], "the newest first");
    assert!(kills[0]["candidates"].is_array(), "whole lines of the journal");
    assert_eq!(fixture.ask("GET", "/api/v1/kills?limit=1", "").json().as_array().unwrap().len(), 1);
    let page = fixture.ask("GET", "/", "");
    assert!(page.body.contains("<td>/t/&lt;b&gt;</td>") && !page.body.contains("<b>"), "{}", page.body);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    fixture.end();
}

/// At the control socket with all that is wrong, at an address without names.
#[test]
fn what_is_degraded_is_told_in_full_at_the_control_socket() {
    let fixture = start(Limits { fresh: Duration::from_millis(10), ..Limits::default() }, false);
    let degraded = fixture.machine.counters.degraded();
    assert_eq!(fixture.status()["degraded"], Value::Array(vec![]));
    degraded.set(Reason::GroupPsi, "no PSI in /t/<b>");
    wait("it is told", || fixture.status()["degraded"] == serde_json::json!([{"reason": "group_psi", "text": "no PSI in /t/<b>"}]));
    let ready = fixture.ask("GET", "/-/ready", "");
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready, degraded: group_psi\ngroup_psi: no PSI in /t/<b>\n"));
    let page = fixture.ask("GET", "/", "").body;
    assert!(page.contains("Degraded (group_psi): no PSI in /t/&lt;b&gt;"), "{page}");
    assert_eq!(fixture.ask_address("GET", "/-/ready").body, "ready, degraded: group_psi\n");
    let (_, out, _) = oomwarden(&["status", "--control", fixture.socket.to_str().unwrap()]);
    assert!(out.contains("DEGRADED (group_psi): no PSI in /t/<b>\n"), "{out}");
    fixture.end();
}

/// Garbage, half requests, and more clients than there are places: each is cut off, and who asks properly is answered.
#[test]
fn garbage_floods_and_half_requests_keep_nobody_from_pausing() {
    let limits = Limits {
        header: Duration::from_millis(300),
        connection: Duration::from_millis(600),
        crowded: Duration::from_millis(200),
        connections: 4,
        ..Limits::default()
    };
    let fixture = start(limits, false);
    // Half of an order takes nobody's turn: this one waits for its body as long as it may.
    let mut slow = fixture.connect();
    slow.write_all(b"POST /api/v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").unwrap();
    for garbage in [
        &b"\x00\xff\x80garbage\r\n\r\n"[..],
        b"POST /api/v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/v1/pause HTTP/9.9\r\n\r\n",
        b"POST /api/v1/pause HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        &[b'A'; 100_000],
    ] {
        let answer = converse(fixture.connect(), garbage);
        assert!(answer.is_none_or(|answer| (400..500).contains(&answer.status)));
    }
    // Half a header, and half a body: kept open, with nothing more to come.
    let mut half: Vec<UnixStream> = Vec::new();
    for start in [&b"POST /api/v1/pause HT"[..], b"POST /api/v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"for\""] {
        for _ in 0..10 {
            let mut stream = fixture.connect();
            let _ = stream.write_all(start);
            half.push(stream);
        }
    }
    // Where all places are taken an honest one may be cut off too, on a slow machine, and asks again.
    let pause = request("POST", "/api/v1/pause?for=5m", "");
    wait("an answer", || converse(fixture.connect(), &pause).is_some_and(|answer| answer.status == 200));
    let is_cut = |stream: &mut UnixStream| {
        let mut rest = Vec::new();
        !matches!(stream.read_to_end(&mut rest), Err(error) if error.kind() == ErrorKind::WouldBlock)
    };
    assert!(half.iter_mut().all(is_cut), "half requests are cut off");
    assert!(fixture.status()["paused"]["remaining_seconds"].as_u64().is_some_and(|left| left > 250));
    fixture.end();
}

/// Whoever takes all places at an address keeps nobody from the control socket.
#[test]
fn a_crowd_at_an_address_is_not_in_the_way_of_the_control_socket() {
    let limits = Limits { connections: 2, crowded: Duration::from_secs(3600), ..Limits::default() };
    let fixture = start(limits, false);
    let crowd: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(fixture.server.local_addrs()[0]).unwrap()).collect();
    assert_eq!(fixture.ask("POST", "/api/v1/pause", "").status, 200);
    drop(crowd);
    fixture.end();
}

#[test]
fn a_warden_that_does_not_answer_is_told_of_and_nothing_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let mail = Arc::new(nix::sys::eventfd::EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_NONBLOCK).unwrap());
    let board = Arc::new(Board::new(mail));
    let state = StateDir::new(dir.path());
    let pauses = Some(Arc::new(Keeper::new(state.clone())));
    // Nobody reads policies either.
    let reloads = Some(Arc::new(Reloads::new().unwrap()));
    let desk = Desk { board: Some(board), recent: Some(Arc::new(Recent::default())), pauses, reloads, ..Desk::default() };
    let socket = dir.path().join("control.sock");
    let server = Server::bind(&[]).unwrap().with_control(Some(ControlSocket::bind(&socket).unwrap())).with_desk(desk);
    let (counters, pulse) = (Arc::new(Counters::new().unwrap()), Arc::new(Pulse::new().unwrap()));
    let server = server.spawn(counters, pulse, Limits::default()).unwrap();
    let answer = converse(UnixStream::connect(&socket).unwrap(), &request("POST", "/api/v1/pause", "")).expect("an answer");
    assert!(answer.status == 504 && answer.body.contains("has not obeyed yet"), "{}", answer.body);
    let answer = converse(UnixStream::connect(&socket).unwrap(), &request("POST", "/api/v1/reload", "")).expect("an answer");
    assert!(answer.status == 504 && answer.body.contains("not read yet"), "{}", answer.body);
    assert!(pause::left(&state, &Now::read()).unwrap().is_some(), "kept all the same: a restart is the likely next step");
    server.shutdown();
}

fn oomwarden(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomwarden"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OOMWARDEN_")) {
        command.env_remove(name);
    }
    let output = command.args(args).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").timeout(Duration::from_secs(60)).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_commands_say_what_the_daemon_does() {
    let fixture = start(Limits::default(), false);
    fixture.kill_a();
    let control = fixture.socket.to_str().unwrap();
    let (code, out, messages) = oomwarden(&["pause", "15m", "--control", control]);
    assert_eq!((code, messages.as_str()), (Some(0), ""));
    assert!(out.starts_with("deeds are paused until ") && out.ends_with("(15m 0s); `oomwarden resume` ends that\n"), "{out}");
    let (code, out, _) = oomwarden(&["status", "--control", control]);
    assert_eq!(code, Some(0));
    for part in ["deeds are PAUSED until", "finish", "/t/<b>", "killed", "kernel module: not loaded"] {
        assert!(out.contains(part), "{part} is not in\n{out}");
    }
    assert!(!out.contains('\u{1b}'), "a pipe is no terminal");
    let (_, out, _) = oomwarden(&["status", "--json", "--control", control]);
    let status: Value = serde_json::from_str(&out).unwrap();
    assert!(status["paused"]["remaining_seconds"].as_u64().is_some_and(|left| left > 800));
    assert_eq!(oomwarden(&["resume", "--control", control]), (Some(0), "verdicts are carried out again\n".to_owned(), String::new()));
    let (_, out, _) = oomwarden(&["pause", "--json", "--control", control]);
    assert!(serde_json::from_str::<Value>(&out).unwrap()["paused_until"].is_string());
    for (time, why) in [("10", "no unit"), ("25h", "24h"), ("2d", "a pause is 1s to 24h"), ("soon", "not an amount")] {
        let (code, out, messages) = oomwarden(&["pause", time, "--control", control]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{messages}");
        assert!(messages.contains(why), "{messages}");
    }
    fixture.end();
}

/// The daemon was started with files that can't be used, and observes by the built-in policy.
#[test]
fn plan_and_explain_say_that_the_built_in_policy_stands_in() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    let name = file.to_str().unwrap();
    let mut policy = Policy::builtin().unwrap().policy;
    policy.only_observe();
    let policy = Arc::new(policy);
    let kept = StateDir::new(dir.path()).path_of(oomwarden::state::policy::NAME);
    let origin = Origin::new(std::slice::from_ref(&file), kept, false, origin::Source::BuiltIn);
    let (server, socket) = telling(dir.path(), &policy, Some(origin));
    let about = format!(
        "oomwarden: this is about the built-in policy, which only observes in place of {name}, which can't be used: \
         the policy of the oomwarden that is running (process {}); the built-in policy {} is in force, and the files ",
        std::process::id(),
        policy.hash
    );
    for (text, files) in [("rulez: []\n", "can't be used: "), (POLICY, "hold ")] {
        fs::write(&file, text).unwrap();
        let (code, out, messages) = oomwarden(&["explain", "/system.slice/a.service", "--by-name", "--json", "--control", &socket]);
        assert_eq!((code, messages.starts_with(&format!("{about}{files}"))), (Some(0), true), "{messages}");
        let explained: Value = serde_json::from_str(&out).unwrap();
        let rules = explained["rules"].as_array().unwrap();
        assert!(!rules.is_empty() && rules.iter().all(|rule| rule["mode"] == "observe"), "{out}");
    }
    let tree = tempfile::tempdir().unwrap();
    let (code, _, messages) = oomwarden(&["plan", "--control", &socket, "--cgroup-root", tree.path().to_str().unwrap()]);
    assert!(code == Some(3) && messages.starts_with(&about), "no plan of what is no cgroup file system: {messages}");
    server.shutdown();
}

/// A server that tells of a policy in force, without a warden.
fn telling(dir: &Path, policy: &Arc<Policy>, origin: Option<Origin>) -> (ServerHandle, String) {
    let mail = Arc::new(nix::sys::eventfd::EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_NONBLOCK).unwrap());
    let board = Arc::new(Board::new(mail));
    let desk = Desk { board: Some(board), origin: origin.map(Arc::new), ..Desk::default() };
    let socket = dir.join("control.sock");
    let server = Server::bind(&[]).unwrap().with_control(Some(ControlSocket::bind(&socket).unwrap())).with_desk(desk);
    let counters = Arc::new(Counters::new().unwrap());
    counters.in_force().set(policy);
    counters.policy_started(SystemTime::now());
    let server = server.spawn(counters, Arc::new(Pulse::new().unwrap()), Limits::default()).unwrap();
    (server, socket.to_str().unwrap().to_owned())
}

#[test]
fn commands_without_a_policy_ask_about_the_one_that_the_daemon_has() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    let name = file.to_str().unwrap();
    fs::write(&file, POLICY).unwrap();
    let sources = [Source::new(name, POLICY)];
    let policy = Arc::new(load(&sources).unwrap().policy);
    let state = StateDir::new(dir.path());
    let kept = state.path_of(oomwarden::state::policy::NAME);
    let (server, socket) = telling(dir.path(), &policy, Some(Origin::new(std::slice::from_ref(&file), kept, true, origin::Source::Files)));
    let explain = || oomwarden(&["explain", "/t/a", "--by-name", "--control", &socket]);
    let check = || oomwarden(&["check", "--control", &socket]);
    let about = format!("oomwarden: this is about {name}, the policy of the oomwarden that is running (process {})", std::process::id());

    let (code, out, messages) = explain();
    assert!(code == Some(0) && out.contains("finish"), "{out}{messages}");
    assert_eq!(messages, format!("{about}, which only observes (--observe)\n"));
    assert!(out.contains("observe") && !out.contains("enforce"), "as the daemon does: {out}");
    let (code, out, messages) = check();
    assert_eq!((code, messages), (Some(0), format!("{about}, which only observes (--observe)\n")));
    assert!(out.starts_with(&format!("{name}: sound: 1 rule")), "{out}");
    // Whoever names one is answered about that one.
    assert_eq!(oomwarden(&["explain", "/t/a", "--by-name", "--control", &socket, "--policy", name]).2, "");

    // The files are not what is in force, and nothing else is to be had.
    fs::write(&file, POLICY.replace("finish", "another")).unwrap();
    let (code, out, messages) = explain();
    assert!(code == Some(0) && out.contains("another"), "{out}{messages}");
    assert!(messages.contains("as it stands in the files; policy ") && messages.contains("SIGHUP has them read"), "{messages}");
    fs::write(&file, "version: 1\nrulez: []\n").unwrap();
    let (code, out, messages) = explain();
    assert_eq!((code, out.as_str()), (Some(2), ""), "{messages}");
    assert!(messages.contains(&about) && messages.contains(&format!("{name}:2:1: error: unknown key")), "{messages}");

    // The daemon keeps the texts of what is in force.
    oomwarden::state::policy::Keeper::new(state).keep(&sources, &policy.hash);
    let (code, out, messages) = explain();
    assert!(code == Some(0) && out.contains("finish"), "{out}{messages}");
    assert!(messages.contains("as it is in force; policy ") && messages.contains("the files can't be used"), "{messages}");
    let (code, out, messages) = check();
    assert_eq!((code, out.as_str()), (Some(2), ""), "check is about what would be read: {messages}");
    assert!(messages.contains(&format!("{name}:2:1: error: unknown key")) && messages.contains("stays in force"), "{messages}");
    server.shutdown();
}

#[test]
fn where_no_daemon_tells_its_policy_the_built_in_one_is_asked_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = dir.path().join("nobody.sock");
    let (code, out, messages) = oomwarden(&["explain", "/t/a", "--by-name", "--control", nobody.to_str().unwrap()]);
    assert!(code == Some(0) && out.contains("/t/a"), "{messages}");
    let said = "oomwarden: this is about the built-in policy, because none is named with --policy and no oomwarden answers at ";
    assert!(messages.starts_with(said) && messages.lines().count() == 1, "{messages}");
    let (code, out, messages) = oomwarden(&["check", "--control", nobody.to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(messages.starts_with("oomwarden: name a policy to check: no oomwarden answers at "), "{messages}");

    // The daemon has the built-in one itself; and one of a version that does not tell.
    let builtin = Arc::new(Policy::builtin().unwrap().policy);
    let origin = Origin::new(&[], dir.path().join("kept"), false, origin::Source::BuiltIn);
    let (server, socket) = telling(dir.path(), &builtin, Some(origin));
    let (_, _, messages) = oomwarden(&["explain", "/t/a", "--by-name", "--control", &socket]);
    let pid = std::process::id();
    assert_eq!(
        messages,
        format!("oomwarden: this is about the built-in policy, the policy of the oomwarden that is running (process {pid})\n")
    );
    assert_eq!(oomwarden(&["check", "--control", &socket]).0, Some(0));
    server.shutdown();
    let (server, socket) = telling(dir.path(), &builtin, None);
    let (code, _, messages) = oomwarden(&["explain", "/t/a", "--by-name", "--control", &socket]);
    assert!(code == Some(0) && messages.contains("does not tell its policy"), "{messages}");
    server.shutdown();
}

#[test]
fn a_reload_is_answered_when_the_policy_is_in_force_or_refused() {
    let fixture = start(Limits::default(), true);
    let control = fixture.socket.to_str().unwrap();
    let rules = || fixture.status()["rules"].as_array().unwrap().iter().map(|rule| rule["name"].clone()).collect::<Vec<_>>();
    fs::write(&fixture.machine.policy, POLICY.replace("name: finish", "name: other")).unwrap();
    let answer = fixture.ask("POST", "/api/v1/reload", "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        (rules(), &answer.json()["policy"]),
        (vec!["other".into()], &fixture.status()["policy"]["hash"]),
        "in force before the answer"
    );
    fs::write(&fixture.machine.policy, "version: 1\nrulez: []\n").unwrap();
    let answer = fixture.ask("POST", "/api/v1/reload", "");
    assert!(answer.status == 422 && answer.body.contains("bad policy") && answer.body.contains("stays in force"), "{}", answer.body);
    let (code, out, messages) = oomwarden(&["reload", "--control", control]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{messages}");
    assert!(messages.contains("bad policy"), "{messages}");
    assert_eq!((rules(), fixture.status()["policy"]["is_last"].as_bool()), (vec!["other".into()], Some(false)));
    fs::write(&fixture.machine.policy, POLICY).unwrap();
    let (code, out, messages) = oomwarden(&["reload", "--control", control]);
    assert_eq!((code, messages.as_str()), (Some(0), ""));
    assert!(out.starts_with("policy ") && out.ends_with(" is in force\n") && rules() == ["finish"], "{out}");
    // The same again is no error, and nobody else may ask.
    let (code, out, _) = oomwarden(&["reload", "--json", "--control", control]);
    assert!(code == Some(0) && serde_json::from_str::<Value>(&out).unwrap()["policy"].is_string(), "{out}");
    for (method, path, body, status) in
        [("GET", "/api/v1/reload", "", 405), ("POST", "/api/v1/reload?x=1", "", 400), ("POST", "/api/v1/reload", "{}", 400)]
    {
        assert_eq!(fixture.ask(method, path, body).status, status, "{method} {path} {body}");
    }
    assert_eq!(fixture.ask_address("POST", "/api/v1/reload").status, 405);
    fixture.end();
}

/// The thread that reads dies of what it reads, and is begun anew: nobody has to restart anything.
#[test]
fn a_reload_whose_reading_breaks_off_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let reloads = Arc::new(Reloads::new().unwrap());
    let desk = Desk { reloads: Some(Arc::clone(&reloads)), ..Desk::default() };
    let socket = dir.path().join("control.sock");
    let server = Server::bind(&[]).unwrap().with_control(Some(ControlSocket::bind(&socket).unwrap())).with_desk(desk);
    let (counters, pulse) = (Arc::new(Counters::new().unwrap()), Arc::new(Pulse::new().unwrap()));
    let server = server.spawn(counters, pulse, Limits::default()).unwrap();
    let reader = std::thread::spawn(move || wait("somebody asks", || reloads.take().0));
    let answer = converse(UnixStream::connect(&socket).unwrap(), &request("POST", "/api/v1/reload", "")).expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (503, "the reading broke off: ask again, the log says why\n"));
    reader.join().unwrap();
    server.shutdown();
}

#[test]
fn the_service_manager_is_told_what_changes_and_nothing_while_nothing_does() {
    let fixture = start(Limits::default(), false);
    fixture.machine.counters.policy_started(SystemTime::now());
    let (sender, told) = std::sync::mpsc::channel();
    let tell = move |text: &str| drop(sender.send(text.to_owned()));
    let desk = desk_of(&fixture.machine, None);
    supervisor::start_telling(desk, Arc::clone(&fixture.machine.counters), Duration::from_millis(20), tell).unwrap();
    let until = |part: &str| {
        let mut last = String::new();
        while !last.contains(part) {
            last = told.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("{part} was not told after {last}"));
        }
        last
    };
    let first = until("enforcing, policy ");
    assert!(first.contains("(1 rule)") && !first.contains("last") && !first.contains(" 0 groups"), "{first}");
    fixture.machine.turn();
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err(), "nothing has changed");
    // Found by others than the warden, who shows nothing meanwhile.
    let degraded = fixture.machine.counters.degraded();
    degraded.set(Reason::Listen, "taken");
    until("degraded: listen; ");
    degraded.set(Reason::Threads, "dead");
    until("degraded: listen, threads; ");
    degraded.clear(Reason::Listen);
    degraded.clear(Reason::Threads);
    while until("enforcing, policy ").contains("degraded") {}
    fixture.ask("POST", "/api/v1/pause", "");
    until("PAUSED until ");
    fixture.ask("POST", "/api/v1/resume", "");
    fixture.kill_a();
    let deed = until("; last killed /t/a by rule finish at ");
    assert!(!deed.contains("PAUSED"), "{deed}");
    fs::write(&fixture.machine.policy, "nonsense").unwrap();
    fixture.ask("POST", "/api/v1/reload", "");
    until("the last policy is REFUSED");
    fixture.end();
}

#[test]
fn without_a_daemon_the_commands_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = dir.path().join("nobody.sock");
    let dead = dir.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let foreign = dir.path().join("foreign.sock");
    let listener = std::os::unix::net::UnixListener::bind(&foreign).unwrap();
    let rude = std::thread::spawn(move || {
        for _ in 0..4 {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(b"220 mail.example.org ESMTP\r\n");
        }
    });
    let said = |path: &Path, part: &str| {
        for args in [&["status"][..], &["pause"], &["resume"], &["reload"]] {
            let (code, out, messages) = oomwarden(&[args, &["--control", path.to_str().unwrap()]].concat());
            assert_eq!((code, out.as_str()), (Some(1), ""), "{messages}");
            assert!(messages.contains(part) && messages.contains(path.to_str().unwrap()), "{messages}");
            assert_eq!(messages.lines().count(), 1, "{messages}");
        }
    };
    let (code, _, messages) = oomwarden(&["reload", "--control", "none"]);
    assert!(code == Some(1) && messages.contains("no control socket") && messages.contains("SIGHUP"), "{messages}");
    for args in [&["status"][..], &["pause"], &["resume"], &["explain", "/a", "--by-name"], &["check"]] {
        let (_, _, messages) = oomwarden(&[args, &["--control", "none"]].concat());
        assert!(messages.contains("no control socket") && !messages.contains("SIGHUP"), "{messages}");
    }
    said(&nobody, "is it running");
    said(&dead, "is it running");
    said(&file, "is it running");
    said(&foreign, "control socket?");
    rude.join().unwrap();
}
