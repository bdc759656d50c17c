//! Hearing the kernel module, answering it and counting what it says allocates nothing: it happens while the node starves.

#![allow(clippy::expect_used, reason = "helpers of a test may stop at the first surprise")]

mod counting;

use std::time::Duration;

use oomwarden::cgroup::GroupId;
use oomwarden::cgroup::buffer::ReadBuf;
use oomwarden::decide::facts::NodeFacts;
use oomwarden::gather::last_resort::{LastResort, Said};
use oomwarden::metrics::counters::Counters;
use oomwarden::policy::{Source, load};
use oomwarden::sense::lms::{Lms, Table};

const POLICY: &str = "
version: 1
exclude: [/db.slice, {group: \"/app.slice/{a,b}\", comm: postgres}]
importance: [{group: /batch.slice, value: -1}]
rules:
  - {name: one, watch: /, when: [lms: oom], only_if: [usage: {above: 10%, of: node}], victim: {among: /pool/*}, then: [kill: process]}
  - {name: node, watch: /, when: [lms: oom], victim: {among: [\"/{a,b}/*\", /batch.slice/**]}}
";

const TEXT: &str = "level oom\nseq 7\nmem_total_kb 1000000\nmem_available_kb 9000\nswap_total_kb 0\nswap_free_kb 16\npage_size 4096\n\
    warn_percent 20\nkill_percent 10\nhandler_pid 321\nholds 3\nholds_resolved 2\nholds_expired 1\ntable_kills 5\nhold_seq 7\nhold_ms 500\n\
    warn_kb 200000\nkill_kb 100000\nfloor_kb 50000\ntable_kill_ids 4\ntable_spare_ids 9\npasses 8\nholds_passed 0\ncalls 0\ninterface 2\n";

#[test]
fn the_way_of_a_hold_allocates_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    // An ordinary file can't be read from its begin and hold only the last command at once: one stand-in for each.
    let (reads, writes) = (dir.path().join("reads"), dir.path().join("writes"));
    std::fs::write(&reads, TEXT).expect("written");
    std::fs::write(&writes, "").expect("written");
    let open = |path| Lms::open(path).expect("opened").expect("there");
    let (heard, answered) = (open(&reads), open(&writes));
    let counters = Counters::new().expect("sound names");
    let mut buffer = ReadBuf::new();
    let (mut table, mut before) = (Table::new(), Table::new());
    let policy = load(&[Source::new("test", POLICY)]).expect("sound").policy;
    let last_resort = LastResort::of(&policy);
    let node = NodeFacts { total_bytes: 1 << 30, ..NodeFacts::default() };

    let start = counting::so_far();
    drop(std::hint::black_box(vec![1]));
    assert_ne!(counting::so_far(), start, "the counter counts");

    let start = counting::so_far();
    for round in 0..3 {
        let report = heard.read(&mut buffer).expect("read");
        counters.set_lms(Some(&report));
        table.clear(Some(Duration::from_secs(60)));
        let own = [(GroupId(u64::MAX), b"/system.slice/own [1]".as_slice())];
        let said = last_resort.put_together(&mut table, GroupId(1), &node, own.into_iter(), |_| true);
        assert_eq!(said, Said::All);
        if table != before {
            before.copy_from(&table);
            answered.write_table(&table).expect("written");
        }
        answered.ack(report.hold_seq.unwrap_or(round), Some(GroupId(u64::MAX))).expect("written");
        answered.pass(u64::MAX).expect("written");
        answered.tell_swap_total(1 << 40).expect("written");
        answered.register(Duration::from_millis(500)).expect("written");
        answered.release().expect("written");
        counters.set_lms(None);
    }
    assert_eq!(counting::so_far() - start, 0);

    let written = std::fs::read_to_string(&writes).expect("read");
    assert_eq!(written.matches("table keep 60\n").count(), 1, "the same table is not written again");
    assert_eq!(written.matches("ack 7 18446744073709551615\n").count(), 3);
    assert!(counters.encode().expect("a text").contains("\noomwarden_lms_table_kills_total 5\n"));
}
