//! The server over real sockets: every endpoint, and every kind of client that one would rather not have.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, reason = "helpers of a test may stop at the first surprise")]

mod exposition;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use oomwarden::cgroup::path::GroupPath;
use oomwarden::control::pulse::Pulse;
use oomwarden::degraded::Reason;
use oomwarden::metrics::counters::{Counters, Sensing};
use oomwarden::metrics::groups::GroupReader;
use oomwarden::policy::globs::Globs;
use oomwarden::policy::model::{KillWhat, Mode, Policy, Psi, PsiKind, Rule, Rung, Trigger, Victim};
use oomwarden::serve::{Limits, ListenAddr, ServeError, Server, ServerHandle};

/// For what happens at once on a quiet machine, and later on a loaded one.
const LONG: Duration = Duration::from_secs(60);

struct Group {
    path: GroupPath,
    reads: Arc<AtomicU64>,
}

impl GroupReader for Group {
    fn path(&self) -> &GroupPath {
        &self.path
    }

    fn memory_current(&self) -> Option<u64> {
        Some(4096)
    }

    fn limit(&self) -> Option<u64> {
        Some(8192)
    }

    fn psi_totals_us(&self) -> Option<(u64, u64)> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        Some((2_000_000, 500_000))
    }
}

/// A server with a warden that answers for as long as it is told to.
struct Fixture {
    server: ServerHandle,
    counters: Arc<Counters>,
    pulse: Arc<Pulse>,
    reads: Arc<AtomicU64>,
    answering: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    warden: Option<JoinHandle<()>>,
}

struct Response {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Response {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

fn policy() -> Policy {
    let psi = Psi { kind: PsiKind::Full, stall: Duration::from_millis(100), window: Duration::from_millis(500) };
    let rule = Rule {
        name: "a \"rule\"\\".into(),
        mode: Mode::Enforce,
        cooldown: Duration::ZERO,
        watch: Globs::new(&["/*"]).expect("a sound glob"),
        when: vec![Trigger::Psi(psi)],
        only_if: Vec::new(),
        victim: Victim::Subject,
        ladder: vec![Rung::Kill(KillWhat::Group)],
        spare_unkillable: true,
    };
    let (exclude, importance) = (Vec::new(), Vec::new());
    Policy {
        hash: "<hash>".into(),
        mode: Mode::Enforce,
        exclude,
        importance,
        rules: vec![rule],
        oom_group: None,
        hold: None,
        limit: None,
        node_limit: None,
        kill_one_in: None,
        oomd_xattrs: true,
    }
}

fn start(limits: Limits) -> Fixture {
    let counters = Arc::new(Counters::new().expect("sound names"));
    let policy = Arc::new(policy());
    let _rules = counters.for_policy(&policy);
    counters.in_force().set(&policy);
    counters.policy_started(SystemTime::now());
    counters.set_groups(Sensing::Trigger, 3);
    let reads = Arc::new(AtomicU64::new(0));
    let pulse = Arc::new(Pulse::new().expect("a descriptor"));
    let server = Server::bind(&["127.0.0.1:0".parse().expect("an address")]).expect("bound");
    let server = server.spawn(Arc::clone(&counters), Arc::clone(&pulse), limits).expect("started");
    let (answering, ended) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let warden = {
        let (pulse, answering, ended) = (Arc::clone(&pulse), Arc::clone(&answering), Arc::clone(&ended));
        std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                if answering.load(Ordering::SeqCst) {
                    pulse.answer();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    };
    Fixture { server, counters, pulse, reads, answering, ended, warden: Some(warden) }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(warden) = self.warden.take() {
            let _ = warden.join();
        }
    }
}

impl Fixture {
    fn address(&self) -> SocketAddr {
        self.server.local_addrs()[0]
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("connected");
        stream.set_read_timeout(Some(LONG)).expect("set");
        stream
    }

    /// Sends these bytes and reads until the server closes.
    fn send(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The server may have had enough before all is sent.
        let _ = stream.write_all(bytes);
        read_to_end(&mut stream)
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> Response {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        parse(&self.send(request.as_bytes()))
    }

    fn get(&self, path: &str) -> Response {
        self.ask("GET", path, "")
    }

    fn publish(&self, names: impl Iterator<Item = Vec<u8>>) {
        let reader = |name: Vec<u8>| Group { path: GroupPath::root().child(&name), reads: Arc::clone(&self.reads) };
        self.counters.published().publish(names.map(|name| Arc::new(reader(name)) as Arc<dyn GroupReader>).collect());
    }
}

/// A group at which whoever reads it comes to grief.
struct Trap(GroupPath);

impl GroupReader for Trap {
    fn path(&self) -> &GroupPath {
        &self.0
    }

    fn memory_current(&self) -> Option<u64> {
        panic!("a trap")
    }

    fn limit(&self) -> Option<u64> {
        None
    }

    fn psi_totals_us(&self) -> Option<(u64, u64)> {
        None
    }
}

#[test]
fn a_panic_in_a_scrape_ends_that_connection_and_nothing_else() {
    let fixture = start(Limits { fresh: Duration::from_millis(10), ..Limits::default() });
    for _ in 0..3 {
        // Whatever was scraped before is not served any more.
        std::thread::sleep(Duration::from_millis(20));
        fixture.counters.published().publish(Arc::new([Arc::new(Trap(GroupPath::root())) as Arc<dyn GroupReader>]));
        assert!(fixture.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").is_empty(), "cut off");
        std::thread::sleep(Duration::from_millis(20));
        fixture.publish(std::iter::once(b"a".to_vec()));
        let answer = fixture.get("/metrics");
        assert!(answer.status == 200 && answer.text().contains("oomwarden_group_memory_bytes{cgroup=\"/a\"} 4096"), "{}", answer.text());
    }
    assert!(fixture.get("/metrics").text().contains("oomwarden_thread_deaths_total{thread=\"server\"} 0"));
}

/// Everything until the connection ends, also by a reset (which is how a server ends one whose words it did not read).
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return all,
            Ok(read) => all.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("the server neither answers nor closes: {error}"),
        }
    }
}

fn parse(bytes: &[u8]) -> Response {
    let end =
        bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
    let head = std::str::from_utf8(&bytes[..end]).expect("a header in ASCII");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok()).expect("a status");
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Response { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() }
}

/// Other values than in use, so that a test need not wait for seconds.
fn short() -> Limits {
    Limits {
        header: Duration::from_millis(300),
        connection: Duration::from_millis(700),
        farewell: Duration::from_millis(200),
        fresh: Duration::from_millis(10),
        pulse: Duration::from_millis(200),
        ask_every: Duration::from_millis(50),
        ..Limits::default()
    }
}

#[test]
fn metrics_are_valid_and_complete() {
    let fixture = start(Limits::default());
    let hostile = [&b"plain"[..], b"new\nline", b"quote\"back\\slash", b"\xff\xfe", b"curly}{,=", "gr\u{f6}\u{df}e\u{202e}".as_bytes()];
    fixture.publish(hostile.iter().map(|name| name.to_vec()));
    let answer = fixture.get("/metrics");
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!((answer.header("vary"), answer.header("content-encoding")), ("accept-encoding", ""));
    let families = exposition::read(answer.text()).expect("valid");
    let cgroups: Vec<&str> = families["oomwarden_group_memory_bytes"].1.iter().map(|sample| sample.labels["cgroup"].as_str()).collect();
    for name in ["/plain", "/new\\x0aline", "/quote\"back\\slash", "/\\xff\\xfe", "/curly}{,=", "/größe\\xe2\\x80\\xae"] {
        assert!(cgroups.contains(&name), "{name} in {cgroups:?}");
    }
    assert_eq!(families["oomwarden_kills_total"].1[0].labels["rule"], "a \"rule\"\\");
    assert_eq!(families["oomwarden_group_memory_pressure_stalled_seconds_total"].1[0].value, 0.5);
    assert!(families["process_resident_memory_bytes"].1[0].value > 1e5);
    assert!(families["process_start_time_seconds"].1[0].value > 1e9);
}

/// The names in the first column of docs/metrics.md.
fn documented() -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).expect("docs/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next());
    let mut names: Vec<String> = rows.map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let fixture = start(Limits::default());
    fixture.publish([b"a".to_vec()].into_iter());
    let families = exposition::read(fixture.get("/metrics").text()).expect("valid");
    let served: Vec<String> = families.into_keys().collect();
    assert_eq!(documented(), served);
}

#[test]
fn gzip_is_served_where_it_is_asked_for() {
    let fixture = start(Limits { fresh: LONG, ..Limits::default() });
    let plain = fixture.get("/metrics");
    let zipped = fixture.ask("GET", "/metrics", "Accept-Encoding: deflate, gzip;q=0.5\r\n");
    assert_eq!((zipped.status, zipped.header("content-encoding")), (200, "gzip"));
    assert_eq!(zipped.header("content-length"), zipped.body.len().to_string());
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&zipped.body[..]).read_to_end(&mut text).expect("gzip");
    assert_eq!(text, plain.body);
    let refused = fixture.ask("GET", "/metrics", "Accept-Encoding: gzip;q=0\r\n");
    assert_eq!((refused.header("content-encoding"), &refused.body), ("", &plain.body));
    let head = fixture.ask("HEAD", "/metrics", "Accept-Encoding: gzip\r\n");
    assert_eq!((head.status, head.header("content-encoding"), head.body.len()), (200, "gzip", 0));
    assert_eq!(head.header("content-length"), zipped.header("content-length"));
}

#[test]
fn head_is_get_without_a_body() {
    let fixture = start(Limits::default());
    for path in ["/", "/metrics", "/-/healthy", "/-/ready", "/nothing"] {
        let (get, head) = (fixture.get(path), fixture.ask("HEAD", path, ""));
        assert_eq!((head.status, head.header("content-type")), (get.status, get.header("content-type")), "{path}");
        assert!(head.body.is_empty() && head.headers.contains_key("content-length"), "{path}");
    }
}

#[test]
fn health_follows_the_warden() {
    let fixture = start(short());
    assert_eq!(fixture.get("/-/healthy").status, 200);
    fixture.answering.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + LONG;
    let sick = loop {
        let answer = fixture.get("/-/healthy");
        if answer.status != 200 {
            break answer;
        }
        assert!(Instant::now() < deadline, "a silent warden is still called healthy");
    };
    assert_eq!(sick.status, 503);
    assert!(sick.text().starts_with("unhealthy: the warden has not answered for "), "{}", sick.text());
    fixture.answering.store(true, Ordering::SeqCst);
    while fixture.get("/-/healthy").status != 200 {
        assert!(Instant::now() < deadline, "a warden that answers again is not called healthy");
    }
}

#[test]
fn the_warden_is_not_woken_for_every_probe() {
    let fixture = start(Limits { ask_every: LONG, ..Limits::default() });
    for _ in 0..20 {
        assert_eq!(fixture.get("/-/healthy").status, 200);
    }
    // The next question is the second.
    let second = fixture.pulse.ask();
    assert_eq!(format!("{second:?}"), "Question(2)");
}

#[test]
fn readiness_follows_the_arming() {
    let fixture = start(Limits::default());
    let early = fixture.get("/-/ready");
    assert_eq!((early.status, early.text()), (503, "not ready: the groups are not armed yet\n"));
    fixture.pulse.set_armed(true);
    let ready = fixture.get("/-/ready");
    assert_eq!((ready.status, ready.text()), (200, "ready: the groups are armed\n"));
}

#[test]
fn who_is_degraded_is_ready_and_says_so_without_names() {
    let fixture = start(Limits { fresh: Duration::ZERO, ..Limits::default() });
    let degraded = fixture.counters.degraded();
    degraded.set(Reason::GroupPsi, "no PSI in /secret-tenant");
    degraded.set(Reason::Policy, "/etc/secret-policy is refused");
    assert_eq!(fixture.get("/-/ready").status, 503);
    fixture.pulse.set_armed(true);
    let ready = fixture.get("/-/ready");
    assert_eq!((ready.status, ready.text()), (200, "ready, degraded: policy, group_psi\n"));
    let metrics = fixture.get("/metrics");
    for line in
        ["oomwarden_degraded{reason=\"policy\"} 1", "oomwarden_degraded{reason=\"group_psi\"} 1", "oomwarden_degraded{reason=\"psi\"} 0"]
    {
        assert!(metrics.text().lines().any(|found| found == line), "{line}");
    }
    assert!(!metrics.text().contains("secret") && !fixture.get("/").text().contains("secret"));
    degraded.clear(Reason::Policy);
    degraded.clear(Reason::GroupPsi);
    assert_eq!(fixture.get("/-/ready").text(), "ready: the groups are armed\n");
}

#[test]
fn the_page_names_no_groups_and_loads_nothing() {
    let fixture = start(Limits::default());
    fixture.publish([b"secret-tenant".to_vec()].into_iter());
    let page = fixture.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.text().contains(env!("CARGO_PKG_VERSION")) && page.text().contains("&lt;hash&gt;"), "{}", page.text());
    for word in ["secret-tenant", "<script", "src=", "http:", "https:", "<hash>"] {
        assert!(!page.text().contains(word), "{word}");
    }
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    for path in ["/", "/metrics", "/-/healthy", "/-/ready", "/nothing"] {
        assert_eq!(fixture.get(path).header("x-content-type-options"), "nosniff", "{path}");
    }
}

#[test]
fn other_methods_and_paths_are_told_so() {
    let fixture = start(Limits::default());
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let answer = fixture.ask(method, "/metrics", "");
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{method}");
        assert!(answer.text().contains("only GET and HEAD"), "{method}");
    }
    assert_eq!(fixture.ask("POST", "/metrics", "Content-Length: 5\r\n").status, 405);
    for path in ["/nothing", "/metrics/", "//", "/-/", "/..", "/%2e%2e/etc/passwd", "/api/v1/status", "/METRICS"] {
        let answer = fixture.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.text().contains("/-/healthy"), "{path}");
    }
    assert_eq!(fixture.get("/metrics?name[]=x").status, 200);
    assert_eq!(fixture.get("http://elsewhere/-/ready").status, 503);
}

#[test]
fn nonsense_is_refused_and_forgotten() {
    let fixture = start(short());
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20_000));
    let long_header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(20_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(500));
    let noise: Vec<u8> = (0..50_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let nonsense = [
        &b"GET"[..],
        b"\r\n\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        long_line.as_bytes(),
        long_header.as_bytes(),
        many_headers.as_bytes(),
        &noise,
    ];
    for bytes in nonsense {
        let answer = fixture.send(bytes);
        // What is not even a request may be dropped without a word; what is answered gets 4xx.
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
        assert!(answer.is_empty() || (400..500).contains(&parse(&answer).status), "{shown:?}: {:?}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(fixture.get("/metrics").status, 200);
}

#[test]
fn slow_clients_are_cut_off() {
    let fixture = start(short());
    // Never says a word; says half of one; says it letter by letter.
    let (silent, mut half, mut dripping) = (fixture.connect(), fixture.connect(), fixture.connect());
    half.write_all(b"GET / HT").expect("sent");
    let begun = Instant::now();
    let mut cut = false;
    for byte in b"GET /metrics HTTP/1.1\r\n".iter().cycle() {
        // The cut shows as a failed write some letters later.
        if dripping.write_all(&[*byte]).is_err() {
            cut = true;
            break;
        }
        if begun.elapsed() > LONG {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(cut, "a dripping client goes on for ever");
    for mut stream in [silent, half] {
        let answer = read_to_end(&mut stream);
        assert!(answer.is_empty() || parse(&answer).status == 408, "{:?}", String::from_utf8_lossy(&answer));
    }
}

#[test]
fn a_connection_serves_more_than_one_request_but_not_for_ever() {
    let fixture = start(short());
    let mut stream = fixture.connect();
    let (mut served, begun) = (0, Instant::now());
    let mut buffer = [0; 4096];
    while begun.elapsed() < LONG {
        if stream.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n").is_err() {
            break;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(_) => served += 1,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(served > 1, "{served}");
    assert!(begun.elapsed() < LONG, "never closed");
}

#[test]
fn two_hundred_clients_at_once_are_all_served() {
    let fixture = start(Limits::default());
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let asking = (0..200).map(|_| {
            let ask = || {
                let mut stream = fixture.connect();
                let sent = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").is_ok();
                sent && read_to_end(&mut stream).starts_with(b"HTTP/1.1 200 ")
            };
            std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, ask).expect("a thread")
        });
        let asking: Vec<_> = asking.collect();
        asking.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    // On a machine so loaded that a client takes a second between connecting and asking, some may have to give way.
    let served = outcomes.iter().filter(|served| **served).count();
    assert!(served >= 150, "{served} of 200");
    assert_eq!(fixture.get("/metrics").status, 200);
}

#[test]
fn idle_clients_give_way_when_all_places_are_taken() {
    let limits = Limits { connections: 8, crowded: Duration::from_millis(100), header: LONG, connection: LONG, ..Limits::default() };
    let fixture = start(limits);
    let idle: Vec<TcpStream> = (0..40).map(|_| fixture.connect()).collect();
    let begun = Instant::now();
    assert_eq!(fixture.get("/metrics").status, 200);
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    drop(idle);
}

#[test]
fn clients_that_never_read_are_cut_off() {
    let fixture = start(short());
    // Large enough that the kernel's buffers do not swallow all the answers.
    fixture.publish((0..1000).map(|index| format!("{index:0200}").into_bytes()));
    let mut greedy: Vec<TcpStream> = (0..4).map(|_| fixture.connect()).collect();
    for stream in &mut greedy {
        for _ in 0..40 {
            if stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").is_err() {
                break;
            }
        }
    }
    let answer = fixture.get("/metrics");
    assert!(exposition::read(answer.text()).is_ok());
    // Cut: after what the buffers held comes the end, long before all forty answers.
    for mut stream in greedy {
        std::thread::sleep(short().connection + short().farewell);
        assert!(read_to_end(&mut stream).len() < 40 * answer.body.len());
    }
}

#[test]
fn a_crowd_of_scrapers_reads_each_group_once() {
    let fixture = start(Limits { fresh: LONG, ..Limits::default() });
    fixture.publish([b"a".to_vec()].into_iter());
    for _ in 0..10 {
        assert_eq!(fixture.get("/metrics").status, 200);
    }
    assert_eq!(fixture.reads.load(Ordering::SeqCst), 1);
}

#[test]
fn a_taken_port_is_told_in_one_line() {
    let fixture = start(Limits::default());
    let error = Server::bind(&[ListenAddr::Socket(fixture.address())]).expect_err("taken");
    assert!(matches!(error, ServeError::InUse(_)));
    let text = error.to_string();
    assert!(text.contains(&fixture.address().to_string()) && text.contains("choose another port") && !text.contains('\n'), "{text}");
    // An address of nobody's (RFC 5737).
    let elsewhere = Server::bind(&["192.0.2.1:0".parse().expect("an address")]).expect_err("not ours");
    assert!(matches!(elsewhere, ServeError::Bind(..)), "{elsewhere}");
}

/// Any user can take the default address: it is said, and served as soon as it is free.
#[test]
fn a_default_address_that_is_taken_is_served_when_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let server = Server::bind_or_wait(address);
    assert!(server.local_addrs().is_empty());
    let counters = Arc::new(Counters::new().expect("sound names"));
    let pulse = Arc::new(Pulse::new().expect("a descriptor"));
    let limits = Limits { retry: Duration::from_millis(20), ..Limits::default() };
    let server = server.spawn(Arc::clone(&counters), pulse, limits).expect("started");
    let degraded = counters.degraded().list();
    let (reason, text) = degraded.first().expect("degraded");
    assert_eq!((*reason, degraded.len()), (Reason::Listen, 1));
    let uid = nix::unistd::getuid();
    for part in [&address.to_string()[..], &format!("uid {uid}"), "ss -ltnp", "--listen"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    // Whoever took it is tried against more than once.
    std::thread::sleep(5 * limits.retry);
    assert_eq!(counters.degraded().list(), degraded);
    drop(taken);
    let until = Instant::now() + LONG;
    let answer = loop {
        if let Ok(mut stream) = TcpStream::connect(address) {
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("sent");
            break parse(&read_to_end(&mut stream));
        }
        assert!(Instant::now() < until, "never served");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("oomwarden_degraded{reason=\"listen\"} 0\n"), "{}", answer.text());
    assert!(counters.degraded().list().is_empty());
    server.shutdown();
    assert!(TcpStream::connect(address).is_err(), "still listening after the shutdown");
}

/// The end is not held up by an address that is never free.
#[test]
fn a_server_that_waits_for_its_address_can_be_stopped() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = Server::bind_or_wait(taken.local_addr().expect("an address"));
    let (counters, pulse) = (Arc::new(Counters::new().expect("sound names")), Arc::new(Pulse::new().expect("a descriptor")));
    let server = server.spawn(counters, pulse, Limits::default()).expect("started");
    let began = Instant::now();
    server.shutdown();
    assert!(began.elapsed() < Limits::default().retry);
}

#[test]
fn several_addresses_or_none() {
    let counters = Arc::new(Counters::new().expect("sound names"));
    let pulse = Arc::new(Pulse::new().expect("a descriptor"));
    let none = Server::bind(&[ListenAddr::None]).expect("nothing to bind");
    let none = none.spawn(Arc::clone(&counters), Arc::clone(&pulse), Limits::default()).expect("nothing to start");
    assert!(none.local_addrs().is_empty());
    none.shutdown();

    let two = Server::bind(&["127.0.0.1:0".parse().expect("one"), "localhost:0".parse().expect("two")]).expect("bound");
    let two = two.spawn(counters, pulse, Limits::default()).expect("started");
    let addresses = two.local_addrs().to_vec();
    for address in &addresses {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
        assert_eq!(parse(&read_to_end(&mut stream)).status, 200);
    }
    two.shutdown();
    assert!(addresses.iter().all(|address| TcpStream::connect(address).is_err()), "still listening after the shutdown");
}

#[test]
fn the_reader_of_metrics_is_strict() {
    let good = "# HELP a_total Help.\n# TYPE a_total counter\na_total{b=\"\\\"c\\\\\\n\"} 1\n";
    assert_eq!(exposition::read(good).expect("valid")["a_total"].1[0].labels["b"], "\"c\\\n");
    for bad in [
        "a_total 1\n",
        "# HELP a_total Help.\n# TYPE a_total counter\n",
        "# HELP a_total Help.\n# TYPE a_total counter\na_total 1",
        "# HELP a Help.\n# TYPE a counter\na 1\n",
        "# HELP a_total Help.\n# TYPE a_total gauge\na_total 1\n",
        "# HELP a Help.\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a Help.\n# TYPE a gauge\nb 1\n",
        "# HELP a Help.\n# TYPE a gauge\na{b=\"\\x\"} 1\n",
        "# HELP a Help.\n# TYPE a gauge\na{b=\"c\"d=\"e\"} 1\n",
        "# HELP a Help.\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
        "# HELP a Help.\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n",
    ] {
        assert!(exposition::read(bad).is_err(), "{bad}");
    }
}
