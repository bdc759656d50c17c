//! From notice to verified end the warden allocates nothing: the whole program's kill path, on a tree of ordinary files.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

mod counting;
mod stand_in;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oomwarden::act::marks::Marks;
use oomwarden::cgroup::group::Group;
use oomwarden::cgroup::path::GroupPath;
use oomwarden::cgroup::root::Root;
use stand_in::{Machine, change, group, out_of_memory, wait};

/// Two subjects with rules on both, one with a descendant; the fatter dies.
const POLICY: &str = "
version: 1
limits: {kills: 5 per 10m}
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
    then:
      - warn: {signal: SIGUSR1, wait: 20ms}
      - hook: {exec: [/bin/sh, -c, 'read -r verdict && exit 3'], timeout: 10s}
      - term: {wait: 20ms}
      - kill: group
";

/// Waits until gauges are published, which is done once after the start and may allocate: ordinary
/// life.
fn is_at_rest(machine: &Machine) {
    wait("gauges are published", || !machine.metrics().contains("oomwarden_groups{sensing=\"trigger\"} 0\n"));
    machine.turn();
}

/// How often the warden's thread had allocated when it was last asked.
static SEEN: AtomicU64 = AtomicU64::new(0);

#[test]
fn from_notice_to_verified_end_nothing_is_allocated() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    group(root, "t", 3000);
    group(root, "t/fat", 2_000_000_000);
    group(root, "t/fat/below", 1_000_000_000);
    group(root, "t/thin", 1_000_000);
    group(root, "t/spared", 4_000_000_000);
    let machine = Machine::start(root, POLICY, || SEEN.store(counting::so_far(), Ordering::SeqCst));
    is_at_rest(&machine);
    let before = SEEN.load(Ordering::SeqCst);

    out_of_memory(root);
    wait("the fat one's kill", || machine.killed("t/fat"));
    assert!(!machine.killed("t/thin") && !machine.killed("t/spared"));
    change(&root.join("t/fat/cgroup.events"), "populated 0\n");
    wait("the journal's line", || machine.lines().len() == 1);

    change(&root.join("t/thin/memory.events.local"), "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n");
    wait("the thin one's kill", || machine.killed("t/thin"));
    change(&root.join("t/thin/cgroup.events"), "populated 0\n");
    wait("the journal's second line", || machine.lines().len() == 2);
    machine.turn();
    let after = SEEN.load(Ordering::SeqCst);
    let lines = machine.lines();
    machine.stop();

    assert!(lines.iter().all(|line| line.contains(r#""outcome":"killed""#)), "{lines:?}");
    for rung in
        [r#"{"name":"warn","outcome":"nobody""#, r#"{"name":"hook","outcome":"failed: exit 3""#, r#"{"name":"kill","outcome":"done""#]
    {
        assert!(lines[0].contains(rung), "{rung}: {}", lines[0]);
    }
    assert!(before > 0, "the counter counts");
    assert_eq!(after - before, 0, "allocations of the warden between notice and verified end");
}

/// What the kernel module says, with room before it for what is written to it, as in
/// tests/warden.rs. Always of the same length, so that one write puts it in the place of what it
/// said before.
fn module_says(level: &str, hold: u64) -> String {
    let room = "x ".repeat(300) + &"x".repeat(4 - level.len());
    format!(
        "room {room}\nlevel {level}\nseq {}\nmem_total_kb 1000000\nmem_available_kb 9000\nswap_total_kb 0\nswap_free_kb 0\npage_size 4096\n\
         warn_percent 20\nkill_percent 10\nhandler_pid 0\nholds 0\nholds_resolved 0\nholds_expired 0\nholds_passed 0\ntable_kills 0\n\
         hold_seq {hold}\nhold_ms 500\nwarn_kb 200000\nkill_kb 100000\nfloor_kb 50000\ntable_kill_ids 0\ntable_spare_ids 0\npasses 0\n\
         calls 0\ninterface 2\ntable_rules 0\ntable_spares 0\n",
        hold.max(7)
    )
}

/// How often the warden's thread had allocated in the test below.
static SEEN_IN_HOLD: AtomicU64 = AtomicU64::new(0);

/// Neither does the answer to a hold, for which vm.panic_on_oom is read from a descriptor that is
/// held: who opened the file now would find another one. (The kernel allocates a small buffer for
/// that read; nothing here can show it.)
#[test]
fn the_answer_to_a_hold_allocates_and_opens_nothing() {
    const HOLDS: &str = "
version: 1
defaults: {cooldown: 100ms}
rules:
  - {name: look, watch: /t/thin, when: [event: oom_kill], mode: observe}
  - {name: node, watch: /, when: [lms: oom], victim: {among: /t/*, at_least: 2MiB}}
";
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    group(root, "t", 3000);
    group(root, "t/fat", 2_000_000_000);
    group(root, "t/thin", 10_000_000);
    let (module, settings) = (root.join("oom_notifier"), root.join("sys/vm"));
    std::fs::write(&module, module_says("ok", 0)).unwrap();
    std::fs::create_dir_all(&settings).unwrap();
    std::fs::write(settings.join("panic_on_oom"), "0\n").unwrap();
    let machine = Machine::start(root, HOLDS, || SEEN_IN_HOLD.store(counting::so_far(), Ordering::SeqCst));
    let said = || String::from_utf8_lossy(&std::fs::read(&module).unwrap()).into_owned();
    wait("the table", || said().contains("\namong /t/*/**\n"));
    is_at_rest(&machine);
    std::fs::write(settings.join("other"), "1\n").unwrap();
    std::fs::rename(settings.join("other"), settings.join("panic_on_oom")).unwrap();
    let before = SEEN_IN_HOLD.load(Ordering::SeqCst);

    // An event has the module's file read.
    machine.stall(|| {
        change(&module, &module_says("oom", 9));
        change(&root.join("t/thin/memory.events.local"), "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n");
    });
    wait("the fat one's kill", || machine.killed("t/fat"));
    let fat = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(root.join("t/fat")).unwrap());
    wait("the answer", || said().contains(&format!("ack 9 {fat}\n")));
    change(&root.join("t/fat/cgroup.events"), "populated 0\n");
    wait("the journal's lines", || machine.lines().len() == 2);
    machine.turn();
    let after = SEEN_IN_HOLD.load(Ordering::SeqCst);
    let lines = machine.lines();
    machine.stop();

    assert!(lines.iter().any(|line| line.contains(r#""outcome":"killed""#)), "{lines:?}");
    assert!(before > 0, "the counter counts");
    assert_eq!(after - before, 0, "allocations of the warden between a hold and the victim's verified end");
}

#[test]
fn an_actor_allocates_nothing_for_what_systemd_reads_of_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    group(dir.path(), "g", 1000);
    let fd = rustix::fs::open(dir.path(), rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    let root = Arc::new(Root { path: dir.path().into(), dir: fd });
    let victim = Arc::new(Group::open(&root, None, GroupPath::from_bytes(b"/g")).unwrap());
    let marks = Marks::start().unwrap();
    let before = counting::so_far();
    // More than there is room for.
    for _ in 0..200 {
        marks.attempt(&victim, Duration::from_millis(1));
        marks.killed(&victim, 3);
        marks.attempt(&victim, Duration::ZERO);
    }
    assert_eq!(counting::so_far(), before);
}
