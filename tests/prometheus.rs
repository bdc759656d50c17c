//! A real Prometheus scrapes a real warden: its own check of the metrics is clean, and `increase()` sees the first kill.
//!
//! The programs are those on the PATH, else Debian's package, fetched with apt-get and unpacked into the cache; nothing is installed.
//! The groups are ordinary files, the process that dies is real.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of a test may stop at the first surprise")]

mod stand_in;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use stand_in::{Machine, change, group, wait};

const POLICY: &str = "
version: 1
rules:
  - name: finish
    watch: /t/*
    when:
      - event: oom_kill
    then:
      - kill: process
  - name: never
    watch: /t
    when:
      - event: oom
";

/// Where the programs of the package are kept.
fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap_or_else(std::env::temp_dir);
    base.join("oomwarden/prometheus")
}

fn runs(program: &Path) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The directory of the programs, or on the PATH (empty); `None`, with a line why, where they can't be had.
fn programs() -> Option<PathBuf> {
    let both = |place: &Path| ["prometheus", "promtool"].iter().all(|program| runs(&place.join(program)));
    let unpacked = cache().join("usr/bin");
    if let Some(place) = [PathBuf::new(), unpacked.clone()].into_iter().find(|place| both(place)) {
        return Some(place);
    }
    let directory = tempfile::tempdir().unwrap();
    // Old lists of packages name files that the archive no longer has; a fresh container has no lists.
    let fetch = "get() { apt-get download -qq prometheus; }; { get || { apt-get update -qq && get; }; } \
                 && dpkg-deb -x prometheus_*.deb x && mkdir -p \"${1%/*}\" && mv -T x \"$1\"";
    let fetched = Command::new("sh").args(["-c", fetch, "sh"]).arg(cache()).current_dir(&directory).output();
    if both(&unpacked) {
        return Some(unpacked);
    }
    let why = fetched.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stderr).trim().to_owned());
    println!("skipped: no prometheus here, and Debian's package could not be fetched: {why}");
    None
}

/// Ended with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already where this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// The value of the only series that a query gives, at a time or now.
fn ask(prometheus: SocketAddr, query: &str, at: Option<f64>) -> Option<f64> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let time = at.map_or_else(String::new, |at| format!("&time={at:.3}"));
    let answer: Value = serde_json::from_str(&get(prometheus, &format!("/api/v1/query?query={encoded}{time}"))?).ok()?;
    match &answer["data"]["result"].as_array()?[..] {
        [one] => one["value"][1].as_str()?.parse().ok(),
        _ => None,
    }
}

fn start(programs: &Path, directory: &Path, target: SocketAddr) -> (Running, SocketAddr) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: oomwarden\n    static_configs:\n      - targets: ['{target}']\n"
    );
    fs::write(directory.join("prometheus.yml"), config).unwrap();
    let child = Command::new(programs.join("prometheus"))
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"])
        .arg(format!("--web.listen-address={address}"))
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(directory.join("said")).unwrap())
        .spawn()
        .unwrap();
    (Running(child), address)
}

#[test]
fn promtool_has_no_complaint_and_increase_sees_the_first_kill() {
    let Some(programs) = programs() else { return };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("groups");
    let victim = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let mut victim = Running(victim);
    group(&root, "t", 1000);
    group(&root, "t/a", 1_000_000);
    fs::write(root.join("t/a/cgroup.procs"), format!("{}\n", victim.0.id())).unwrap();
    let machine = Machine::start(&root, POLICY, || {});
    let server = machine.serve();
    let (prometheus, address) = start(&programs, dir.path(), server.local_addrs()[0]);

    let kills = "oomwarden_kills_total{rule=\"finish\"}";
    wait("two scrapes before anything happened", || ask(address, &format!("count_over_time({kills}[1m])"), None) >= Some(2.0));
    assert_eq!(ask(address, kills, None), Some(0.0), "the counter is there before it counts");
    change(&root.join("t/a/memory.events.local"), "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n");
    wait("the process's end", || victim.0.try_wait().unwrap().is_some());
    wait("the scrape that shows it", || ask(address, kills, None) == Some(1.0));

    // At the time of the last scrape, since increase() extrapolates beyond it.
    let last = ask(address, &format!("timestamp({kills})"), None).unwrap();
    assert_eq!(ask(address, &format!("increase({kills}[1m])"), Some(last)), Some(1.0));
    assert_eq!(ask(address, "increase(oomwarden_kills_total{rule=\"never\"}[1m])", Some(last)), Some(0.0));
    assert_eq!(ask(address, "increase(oomwarden_killed_processes_total{rule=\"finish\"}[1m])", Some(last)), Some(1.0));
    drop(prometheus);

    let metrics = get(server.local_addrs()[0], "/metrics").unwrap();
    assert!(metrics.contains("oomwarden_kills_total{rule=\"finish\"} 1"), "{metrics}");
    let file = dir.path().join("metrics");
    fs::write(&file, &metrics).unwrap();
    let check = Command::new(programs.join("promtool")).args(["check", "metrics"]).stdin(fs::File::open(&file).unwrap()).output().unwrap();
    let said = [check.stdout, check.stderr].concat();
    assert!(check.status.success() && said.is_empty(), "promtool check metrics: {}", String::from_utf8_lossy(&said));
    server.shutdown();
    machine.stop();
}
