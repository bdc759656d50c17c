//! The helper that runs hooks, as the daemon starts it: whose processes end when, and that nobody waits for it.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

use std::path::Path;
use std::time::{Duration, Instant};

use oomwarden::act::hooks::Helper;
use oomwarden::act::hooks::protocol::{Ended, Inbox, Reply, Request, write_request};

fn start() -> Helper {
    Helper::start(Path::new(env!("CARGO_BIN_EXE_oomwarden")), None).unwrap()
}

fn ask(helper: &Helper, id: u64, script: &str, timeout: Duration) {
    let exec = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let request = Request { id, exec, timeout_us: u64::try_from(timeout.as_micros()).unwrap() };
    write_request(&mut &helper.socket, &request, b"{}\n").unwrap();
}

fn reply(helper: &Helper, inbox: &mut Inbox) -> Reply {
    helper.socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    loop {
        if let Some(frame) = inbox.take_frame().unwrap() {
            return serde_json::from_slice(&frame).unwrap();
        }
        assert!(inbox.fill(&mut &helper.socket).unwrap(), "the helper is gone");
    }
}

fn wait(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The pid that a hook left in a file.
fn pid_in(file: &Path) -> String {
    wait("a pid", || std::fs::read_to_string(file).is_ok_and(|text| text.ends_with('\n')));
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

fn is_gone(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

const LONG: Duration = Duration::from_secs(1000);

#[test]
fn a_signal_that_stops_the_daemon_is_none_to_its_helper_and_hooks_can_be_stopped() {
    let (helper, mut inbox) = (start(), Inbox::default());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(helper.pid()).unwrap());
    ask(&helper, 1, "exit 0", LONG);
    assert_eq!(reply(&helper, &mut inbox).ended, Ended::Exit(0), "it is at work");
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT] {
        nix::sys::signal::kill(pid, signal).unwrap();
    }
    ask(&helper, 2, "kill -TERM $$; sleep 1000", LONG);
    let stopped = reply(&helper, &mut inbox);
    assert_eq!((stopped.id, stopped.ended), (2, Ended::Signal(15)));
}

#[test]
fn hooks_run_side_by_side_and_each_has_its_own_end() {
    let (helper, mut inbox) = (start(), Inbox::default());
    ask(&helper, 1, "sleep 1000", Duration::from_millis(700));
    ask(&helper, 2, "exit 7", LONG);
    let first = reply(&helper, &mut inbox);
    assert_eq!((first.id, first.ended), (2, Ended::Exit(7)));
    let second = reply(&helper, &mut inbox);
    assert_eq!((second.id, second.ended), (1, Ended::Deadline));
}

#[test]
fn hooks_are_ordinary_processes() {
    let (helper, mut inbox) = (start(), Inbox::default());
    ask(&helper, 1, "cat /proc/self/oom_score_adj; sed -n 's/^SigBlk:\\t//p; s/^SigIgn:\\t//p' /proc/self/status; pwd", LONG);
    let reply = reply(&helper, &mut inbox);
    let lines: Vec<&str> = reply.output.lines().collect();
    assert!(!lines[0].starts_with('-'), "{lines:?}");
    assert_eq!(u64::from_str_radix(lines[1], 16), Ok(0), "a signal is blocked: {lines:?}");
    // What else is ignored this test's own parent may have passed on.
    let ignored = u64::from_str_radix(lines[2], 16).unwrap();
    assert_eq!(ignored & (1 << (libc::SIGPIPE - 1)), 0, "{lines:?}");
    assert_eq!(lines[3], "/");
}

#[test]
fn who_leaves_the_hooks_session_is_ended_when_no_hook_runs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let (helper, mut inbox) = (start(), Inbox::default());
    ask(
        &helper,
        1,
        &format!("setsid sh -c 'echo $$ >{}; exec sleep 1000' & while ! [ -s {0} ]; do sleep 0.01; done", file.display()),
        LONG,
    );
    assert_eq!(reply(&helper, &mut inbox).ended, Ended::Exit(0));
    let pid = pid_in(&file);
    wait("the end of who was left behind", || is_gone(&pid));
    // And the helper is of use as before.
    ask(&helper, 2, "true", LONG);
    assert_eq!(reply(&helper, &mut inbox).ended, Ended::Exit(0));
}

#[test]
fn hooks_and_helper_end_with_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let helper = start();
    let own = helper.pid().to_string();
    ask(&helper, 1, &format!("echo $$ >{}; sleep 1000", file.display()), LONG);
    let hook = pid_in(&file);
    // As the kernel does at the end of a process.
    drop(helper);
    wait("the end of hook and helper", || is_gone(&hook) && is_gone(&own));
}

#[test]
fn hooks_end_with_a_helper_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let helper = start();
    ask(&helper, 1, &format!("echo $$ >{}; exec sleep 1000", file.display()), LONG);
    let hook = pid_in(&file);
    helper.kill();
    wait("the hook's end", || is_gone(&hook));
}

#[test]
fn a_program_that_others_may_write_to_is_not_started() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (program, proof) = (dir.path().join("hook"), dir.path().join("proof"));
    std::fs::write(&program, format!("#!/bin/sh\necho ran >{}\n", proof.display())).unwrap();
    let (helper, mut inbox) = (start(), Inbox::default());
    let mut run = |id, mode| {
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
        let request = Request { id, exec: vec![program.to_str().unwrap().to_owned()], timeout_us: 30_000_000 };
        write_request(&mut &helper.socket, &request, b"{}\n").unwrap();
        reply(&helper, &mut inbox)
    };
    let refused = run(1, 0o777);
    assert_eq!(refused.ended, Ended::NotStarted(libc::EPERM));
    assert!(refused.output.contains("mode 0777") && refused.output.contains(program.to_str().unwrap()), "{refused:?}");
    assert!(!proof.exists());
    assert_eq!(run(2, 0o755).ended, Ended::Exit(0));
    assert!(proof.exists());
}

#[test]
fn by_hand_it_says_what_it_is_for() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_oomwarden")).arg("hook-helper").stdin(std::process::Stdio::null()).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("oomwarden run"), "{output:?}");
}
