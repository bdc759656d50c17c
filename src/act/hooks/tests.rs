use std::time::Instant;

use rustix::event::{PollFd, Timespec, poll};

use super::protocol::{Ended, Reply, Request};
use super::running::{KEPT, Running};
use super::*;

/// Runs a shell script as a hook.
fn hook(script: &str, timeout: Duration, input: &[u8]) -> Reply {
    let request = Request {
        id: 1,
        exec: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        timeout_us: u64::try_from(timeout.as_micros()).unwrap(),
    };
    let mut running = Running::start(&request, input.to_vec()).unwrap();
    let began = Instant::now();
    loop {
        if let Some(reply) = running.advance() {
            return reply;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "the hook never ended");
        let mut fds: Vec<PollFd<'_>> = running.awaited().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)).collect();
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
    }
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_hook_reads_the_verdict_and_its_words_are_kept() {
    let reply = hook("read -r line; echo \"got $line\"; echo more >&2", LONG, b"{\"v\":1}\n");
    assert_eq!(reply.ended, Ended::Exit(0));
    assert!(reply.output.contains("got {\"v\":1}") && reply.output.contains("more") && !reply.cut, "{reply:?}");
}

#[test]
fn how_a_hook_ended_is_told() {
    assert_eq!(hook("exit 3", LONG, b"").ended, Ended::Exit(3));
    assert_eq!(hook("kill -SEGV $$", LONG, b"").ended, Ended::Signal(libc::SIGSEGV));
    let request = Request { id: 1, exec: vec!["/nowhere/hook".to_owned()], timeout_us: 1 };
    assert_eq!(Running::start(&request, Vec::new()).unwrap_err().ended, Ended::NotStarted(libc::ENOENT));
}

#[test]
fn a_hook_that_hangs_is_killed_with_its_children_at_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let reply = hook(&format!("sleep 1000 & echo $! >{}; wait", pid.display()), Duration::from_millis(400), b"");
    assert_eq!(reply.ended, Ended::Deadline);
    let child = std::fs::read_to_string(&pid).unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
    let began = Instant::now();
    while state().is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(began.elapsed() < LONG, "the child lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_hook_that_does_not_read_and_floods_its_output_is_held_to_its_time() {
    let verdict = vec![b'x'; 1 << 20];
    let reply = hook("yes", Duration::from_millis(400), &verdict);
    assert_eq!((reply.ended, reply.output.len(), reply.cut), (Ended::Deadline, KEPT, true));
}

#[test]
fn a_verdict_longer_than_a_pipe_arrives_whole() {
    let verdict = vec![b'x'; 1 << 20];
    let reply = hook("wc -c", LONG, &verdict);
    assert_eq!((reply.ended, reply.output.trim()), (Ended::Exit(0), "1048576"));
}

#[test]
fn what_a_hook_leaves_behind_does_not_keep_its_end_from_being_told() {
    let began = Instant::now();
    let reply = hook("sleep 1000 & exit 0", LONG, b"");
    assert_eq!(reply.ended, Ended::Exit(0));
    assert!(began.elapsed() < LONG);
}
