use std::time::Duration;

use super::super::counters::Counters;
use super::*;

fn report(level: Option<LmsLevel>, seq: u64, [resolved, expired, passed, table_kills]: [u64; 4]) -> Report {
    Report {
        level,
        seq,
        mem_total_bytes: 1 << 30,
        mem_available_bytes: 1 << 20,
        swap_total_bytes: 0,
        swap_free_bytes: 0,
        page_size: 4096,
        warn_percent: 20,
        kill_percent: 10,
        handler_pid: None,
        holds: resolved + expired + passed,
        holds_resolved: resolved,
        holds_expired: expired,
        holds_passed: passed,
        calls: 0,
        table_kills,
        hold_seq: None,
        hold: Duration::from_millis(500),
        warn_bytes: 200 << 20,
        kill_bytes: 100 << 20,
        floor_bytes: 50 << 20,
        table_kill_ids: 0,
        table_spare_ids: 0,
        table_rules: 0,
        table_spares: 0,
        interface: 2,
        passes: 0,
    }
}

/// The module's lines of a scrape, without their prefix.
fn scrape(counters: &Counters) -> Vec<String> {
    let text = counters.encode().expect("a text");
    text.lines().filter_map(|line| line.strip_prefix("oomwarden_lms_")).map(str::to_owned).collect()
}

#[test]
fn everything_is_there_at_zero_before_and_without_the_module() {
    let counters = Counters::new().expect("sound names");
    let nothing = [
        "holds_total{outcome=\"expired\"} 0",
        "holds_total{outcome=\"passed\"} 0",
        "holds_total{outcome=\"resolved\"} 0",
        "loaded 0",
        "state{level=\"kill\"} 0",
        "state{level=\"ok\"} 0",
        "state{level=\"oom\"} 0",
        "state{level=\"warn\"} 0",
        "table_kills_total 0",
    ];
    assert_eq!(scrape(&counters), nothing);
    counters.set_lms(None);
    assert_eq!(scrape(&counters), nothing);
}

#[test]
fn one_level_is_set_at_a_time() {
    let counters = Counters::new().expect("sound names");
    for (level, word) in LEVELS.into_iter().zip(["ok", "warn", "kill", "oom"]) {
        counters.set_lms(Some(&report(level, 1, [0; 4])));
        let lines = scrape(&counters);
        let set: Vec<&String> = lines.iter().filter(|line| line.starts_with("state") && line.ends_with(" 1")).collect();
        assert_eq!(set, [&format!("state{{level=\"{word}\"}} 1")]);
        assert!(lines.contains(&"loaded 1".to_owned()));
    }
    counters.set_lms(None);
    assert!(scrape(&counters).iter().all(|line| line.ends_with(" 0")));
}

#[test]
fn a_module_that_is_loaded_anew_makes_no_counter_fall() {
    let counters = Counters::new().expect("sound names");
    for (seq, counts, sums) in [
        // what it counted before we came
        (9, [3, 1, 0, 2], [3, 1, 0, 2]),
        (9, [3, 1, 0, 2], [3, 1, 0, 2]),
        (12, [4, 1, 1, 7], [4, 1, 1, 7]),
        // loaded anew
        (0, [0, 0, 0, 0], [4, 1, 1, 7]),
        (3, [1, 1, 1, 0], [5, 2, 2, 7]),
        // loaded anew, and as busy as before when it was looked at: its sequence tells
        (2, [1, 1, 1, 0], [6, 3, 3, 7]),
        // one count tells as well
        (5, [2, 0, 1, 0], [8, 3, 4, 7]),
    ] {
        counters.set_lms(Some(&report(None, seq, counts)));
        let lines = scrape(&counters);
        let holds = |outcome| format!("holds_total{{outcome=\"{outcome}\"}}");
        let names = [holds("resolved"), holds("expired"), holds("passed"), "table_kills_total".to_owned()];
        for (name, sum) in names.iter().zip(sums) {
            assert!(lines.contains(&format!("{name} {sum}")), "{seq} {counts:?}: {lines:?}");
        }
        // a look that failed in between changes nothing
        counters.set_lms(None);
    }
}
