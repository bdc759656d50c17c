//! A scrape that does not come to its end, because a file of a group does not answer: nobody else waits for it.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

mod stand_in;

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oomwarden::cgroup::path::GroupPath;
use oomwarden::metrics::groups::GroupReader;
use stand_in::{CHOOSE, Machine, group, out_of_memory, wait};

/// A group whose memory.current does not answer until the other end says so.
struct Hanging {
    path: GroupPath,
    begun: Mutex<Sender<()>>,
    released: Mutex<Receiver<()>>,
}

impl GroupReader for Hanging {
    fn path(&self) -> &GroupPath {
        &self.path
    }

    fn memory_current(&self) -> Option<u64> {
        self.begun.lock().unwrap().send(()).ok()?;
        self.released.lock().unwrap().recv().ok()?;
        None
    }

    fn limit(&self) -> Option<u64> {
        None
    }

    fn psi_totals_us(&self) -> Option<(u64, u64)> {
        None
    }
}

/// Shows a group that hangs to whoever scrapes; tells when it does, and lets it go on.
fn hang(machine: &Machine) -> (Receiver<()>, Sender<()>) {
    let ((begun, is_hanging), (release, released)) = (channel(), channel());
    let hanging = Hanging { path: GroupPath::root().child(b"t"), begun: Mutex::new(begun), released: Mutex::new(released) };
    machine.counters.published().publish(Arc::new([Arc::new(hanging) as Arc<dyn GroupReader>]));
    (is_hanging, release)
}

#[test]
fn a_scrape_that_hangs_keeps_neither_a_reload_nor_a_kill_waiting() {
    let dir = tempfile::tempdir().unwrap();
    for (path, anon) in [("t", 0), ("t/a", 64 << 20), ("t/b", 32 << 20)] {
        group(dir.path(), path, anon);
    }
    let machine = Machine::start(dir.path(), CHOOSE, || {});
    machine.turn();
    let (is_hanging, release) = hang(&machine);
    let scraped = std::thread::spawn({
        let counters = Arc::clone(&machine.counters);
        move || counters.encode().unwrap()
    });
    is_hanging.recv().unwrap();

    let before = machine.counters.in_force().get().unwrap().hash.clone();
    machine.offer(&CHOOSE.replace("name: choose", "name: another"));
    wait("the new policy is in force", || machine.counters.in_force().get().unwrap().hash != before);
    out_of_memory(dir.path());
    wait("the kill", || machine.killed("t/a"));
    assert!(!scraped.is_finished(), "the scrape hangs all the time");

    drop(release);
    scraped.join().unwrap();
    // What the hanging one had read of the rules before is of no account.
    let text = machine.counters.encode().unwrap();
    for line in ["oomwarden_kills_total{rule=\"choose\"} 0", "oomwarden_kills_total{rule=\"another\"}"] {
        assert!(text.contains(line), "{line} is missing: the counters of a policy are there before it is in force:\n{text}");
    }
    machine.stop();
}

#[test]
fn a_scrape_that_hangs_does_not_hang_the_end_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    group(dir.path(), "t", 0);
    let machine = Machine::start(dir.path(), CHOOSE, || {});
    machine.turn();
    let (is_hanging, release) = hang(&machine);
    let server = machine.serve();
    let mut client = TcpStream::connect(server.local_addrs()[0]).unwrap();
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    is_hanging.recv().unwrap();
    let (ended, end) = channel();
    let began = Instant::now();
    std::thread::spawn(move || {
        server.shutdown();
        ended.send(()).unwrap();
    });
    let ends = end.recv_timeout(Duration::from_secs(5));
    drop(release);
    assert!(ends.is_ok(), "the server was waited for for {:?}", began.elapsed());
    machine.stop();
}
