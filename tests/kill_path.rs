//! From notice to verified end the warden allocates nothing: the whole program's kill path, on a tree of ordinary files
//! that stands in for a cgroup file system. inotify brings the notices, as it does there.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

mod counting;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use oomwarden::cgroup::root::Root;
use oomwarden::policy::{self, Source};
use oomwarden::record::counters::Counters;
use oomwarden::record::file::JournalTo;
use oomwarden::record::journal::Context;
use oomwarden::record::pool::Pool;
use oomwarden::record::pulse::Pulse;
use oomwarden::record::recorder::Recorder;
use oomwarden::warden::reload::Mailbox;
use oomwarden::warden::{Setup, Warden};

/// Two subjects with rules on both, one with a descendant; the fatter dies.
const POLICY: &str = "
version: 1
defaults: {cooldown: 100ms}
exclude:
  - /t/spared
rules:
  - name: finish
    watch: /t/*
    when:
      - event: oom_kill
  - name: choose
    watch: /t
    when:
      - event: oom
    victim:
      among: /t/*
      rank: [usage within 10%, age]
";

/// How often the warden's thread had allocated when it was last asked.
static SEEN: AtomicU64 = AtomicU64::new(0);

fn group(root: &Path, path: &str, anon: u64) {
    let dir = root.join(path);
    fs::create_dir_all(&dir).unwrap();
    for (file, text) in [
        ("cgroup.type", "domain\n"),
        ("cgroup.events", "populated 1\nfrozen 0\n"),
        ("cgroup.procs", ""),
        ("cgroup.kill", ""),
        ("memory.events.local", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
        ("memory.current", &format!("{anon}\n")),
        ("memory.stat", &format!("anon {anon}\nfile 0\nshmem 0\ninactive_file 0\n")),
        ("memory.swap.current", "0\n"),
        ("memory.max", "max\n"),
        ("memory.high", "max\n"),
        ("memory.oom.group", "0\n"),
    ] {
        fs::write(dir.join(file), text).unwrap();
    }
}

/// In place and in one write, as the kernel's files change.
fn change(path: &Path, text: &str) {
    use std::os::unix::fs::FileExt as _;
    File::options().write(true).open(path).unwrap().write_all_at(text.as_bytes(), 0).unwrap();
}

fn wait(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn from_notice_to_verified_end_nothing_is_allocated() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    group(root, "t", 3000);
    group(root, "t/fat", 2_000_000_000);
    group(root, "t/fat/below", 1_000_000_000);
    group(root, "t/thin", 1_000_000);
    group(root, "t/spared", 4_000_000_000);
    let fd = rustix::fs::open(root, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    let policy = Arc::new(policy::load(&[Source::new("test", POLICY)]).unwrap().policy);
    let counters = Arc::new(Counters::new().unwrap());
    let records = Pool::new(16, 64, counters.journal_dropped());
    let journal = root.join("journal");
    let recorder =
        Recorder::spawn(&records, JournalTo::File(journal.clone()), Context::of_this_process(None), counters.journal_dropped()).unwrap();
    let pulse = Arc::new(Pulse::new().unwrap());
    let mailbox = Mailbox::new().unwrap();
    let (thread, asked) = (std::sync::mpsc::channel(), Arc::clone(&pulse));
    let sender = thread.0;
    let root_fd = Arc::new(Root { path: root.into(), dir: fd });
    let worker = std::thread::spawn(move || {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.thread_block().unwrap();
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).unwrap();
        let warden = Warden::new(Setup {
            root: root_fd,
            policy,
            psi_groups: 4,
            descriptors: 1000,
            records,
            counters,
            pulse,
            mailbox,
            signals,
            ready: || {},
        })
        .unwrap();
        sender.send(nix::sys::pthread::pthread_self()).unwrap();
        let mut asked_at = 0;
        warden
            .run_watched(|| {
                // Told after every turn of the loop.
                asked_at = counting::so_far();
                SEEN.store(asked_at, Ordering::SeqCst);
            })
            .unwrap();
    });
    let warden_thread = thread.1.recv().unwrap();
    wait("armed", || asked.is_armed());
    let turn = |what: &str| {
        let question = asked.ask();
        wait(what, || asked.is_answered(question));
        // The answer comes in mid-turn; one more turn and the first is over.
        let question = asked.ask();
        wait(what, || asked.is_answered(question));
    };
    let written = |group: &str| fs::read_to_string(root.join(group).join("cgroup.kill")).unwrap() == "1";
    // Young groups settle, gauges are published: ordinary life, which may allocate.
    std::thread::sleep(Duration::from_millis(600));
    turn("a turn");
    let before = SEEN.load(Ordering::SeqCst);

    change(&root.join("t/memory.events.local"), "low 0\nhigh 0\nmax 0\noom 1\n");
    wait("the fat one's kill", || written("t/fat"));
    assert!(!written("t/thin") && !written("t/spared"));
    change(&root.join("t/fat/cgroup.events"), "populated 0\n");
    wait("the journal's line", || fs::read_to_string(&journal).is_ok_and(|lines| lines.lines().count() == 1));

    change(&root.join("t/thin/memory.events.local"), "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n");
    wait("the thin one's kill", || written("t/thin"));
    change(&root.join("t/thin/cgroup.events"), "populated 0\n");
    wait("the journal's second line", || fs::read_to_string(&journal).is_ok_and(|lines| lines.lines().count() == 2));
    turn("the last turn");
    let after = SEEN.load(Ordering::SeqCst);
    nix::sys::pthread::pthread_kill(warden_thread, Signal::SIGTERM).unwrap();
    worker.join().unwrap();
    assert!(recorder.shutdown(Duration::from_secs(10)));

    let lines = fs::read_to_string(&journal).unwrap();
    assert!(lines.lines().all(|line| line.contains(r#""outcome":"killed""#)), "{lines}");
    assert!(before > 0, "the counter counts");
    assert_eq!(after - before, 0, "allocations of the warden between notice and verified end");
}
