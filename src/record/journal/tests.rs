use serde_json::Value;

use super::super::model::{Outcome, RungName, RungOutcome};
use super::super::testing::{MIB, candidate, killed, path, record};
use super::*;
use crate::decide::verdict::{Standing, Strike};
use crate::policy::model::EventKind;

fn context() -> Context {
    Context { node: "node-1".into(), run: "5f-1".into() }
}

fn parsed(record: &JudgementRecord) -> Value {
    let line = line(record, &context()).expect("a line");
    assert!(!line.contains(|c: char| c.is_control()), "one line, nothing that a terminal obeys: {line}");
    serde_json::from_str(&line).expect("sound JSON")
}

#[test]
fn a_kill_as_it_stands_in_the_journal() {
    let expected = concat!(
        r#"{"v":1,"id":"5f-1-42","time":"2023-11-14T22:13:20.123456Z","node":"node-1","policy_hash":"0123abcd","kind":"judgement","#,
        r#""rule":"tenant-thrashing","trigger":"psi: full 100ms/500ms","subject":"/tenants.slice/a","#,
        r#""evidence":{"node_total_bytes":8589934592,"node_available_bytes":4294967296,"swap_total_bytes":0,"swap_free_bytes":null,"#,
        r#""subject_current_bytes":104857600,"subject_charged_bytes":null,"limit_max_bytes":134217728,"limit_high_bytes":null,"#,
        r#""notice":"psi","psi_kind":"full","psi_stall_us":100000,"psi_window_us":500000},"#,
        r#""candidates":[{"group":"/tenants.slice/a","rank":1,"reason":"ranked 1: the subject itself","usage_bytes":94371840,"#,
        r#""importance":0,"keys":{}}],"victim":"/tenants.slice/a","#,
        r#""identity":{"namespace":null,"pod":null,"pod_uid":null,"container":null},"#,
        r#""rungs":[{"name":"kill","outcome":"done","at_us":300,"took_us":150,"processes":5},"#,
        r#"{"name":"verify","outcome":"empty","at_us":450,"took_us":12000}],"outcome":"killed","processes_killed":5,"#,
        r#""processes_ended":0,"freed_bytes":92274688,"latency_us":{"notice":20,"decide":200,"kill":450,"empty":12450},"#,
        r#""facts":{"groups":[]}}"#,
    );
    assert_eq!(line(&killed(), &context()).expect("a line"), expected);
}

#[test]
fn every_candidate_has_its_reason() {
    let mut record = record(1, Notice::Available(429_496_729, std::time::Duration::ZERO), Outcome::Killed);
    let struck = |strike| candidate(b"/s", Standing::Struck(strike), 0, Some(3 * MIB), None);
    record.candidates = vec![
        candidate(b"/v", Standing::Chosen, -100, Some(512 * MIB), Some(5)),
        candidate(b"/near", Standing::Ranked, -100, Some(500 * MIB), Some(6)),
        candidate(b"/less", Standing::Ranked, -100, Some(100 * MIB), None),
        candidate(b"/same", Standing::Ranked, -100, Some(512 * MIB), Some(5)),
        candidate(b"/dear", Standing::Ranked, 0, Some(512 * MIB), Some(5)),
        candidate(b"/dark", Standing::Ranked, -100, None, None),
        struck(Strike::Excluded(0)),
        struck(Strike::ExcludedByComm(1)),
        struck(Strike::ExcludedByComm(9)),
        struck(Strike::ContainsSpared(3)),
        struck(Strike::TooSmall),
        struck(Strike::Failed),
    ];
    let line = parsed(&record);
    let told: Vec<(Option<u64>, &str)> = line["candidates"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|candidate| (candidate["rank"].as_u64(), candidate["reason"].as_str().expect("text")))
        .collect();
    assert_eq!(
        told,
        [
            (Some(1), "ranked 1: usage 512MiB, the next one's 500MiB; age 5ms, the next one's 6ms"),
            (Some(2), "ranked 2: usage 500MiB, the victim's 512MiB; age 6ms, the victim's 5ms"),
            (Some(3), "ranked 3: usage 100MiB, the victim's 512MiB"),
            (Some(4), "ranked 4: usage 512MiB, the victim's 512MiB; age 5ms, the victim's 5ms; equal by that; the lower id dies first"),
            (Some(5), "ranked 5: importance 0, the victim's -100"),
            (Some(6), "ranked 6: usage unknown, the victim's 512MiB"),
            (None, "excluded by /system.slice/sshd.service"),
            (None, "excluded by /db.slice/** holding comm postgres"),
            (None, "excluded by a former exclusion"),
            (None, "contains /a/b, which must live"),
            (None, "too small: 3MiB would be freed, the rule asks for at least 16MiB"),
            (None, "was tried and could not be killed"),
        ]
    );
    assert_eq!(line["candidates"][0]["keys"], serde_json::json!({"usage": 512 * MIB, "age": 5}));
    assert_eq!(line["candidates"][5]["usage_bytes"], Value::Null);
}

#[test]
fn the_trigger_is_the_policys_where_there_is_one_like_the_notice() {
    let second = std::time::Duration::from_secs(1);
    for (notice, text) in
        [(Notice::Event(EventKind::OomKill, 1, 2), "event: oom_kill"), (Notice::Event(EventKind::Max, 1, 2), "event: max")]
    {
        assert_eq!(parsed(&record(0, notice, Outcome::NoVictim))["trigger"], text);
    }
    let five_percent = 8192 * MIB * 5 / 100;
    for (notice, text) in [
        (Notice::Available(five_percent, second / 2), "available: below 5%, at most 1GiB"),
        (Notice::Available(five_percent, second * 2), "available: below 5%, at most 1GiB for 1s"),
        (Notice::Available(77 * MIB, second), "available: below 77MiB for 1s"),
    ] {
        let line = parsed(&record(1, notice, Outcome::NoVictim));
        assert_eq!(line["trigger"], text);
        assert!(line["evidence"]["level_bytes"].is_u64() && line["evidence"]["held_us"].is_u64());
    }
    let line = parsed(&record(0, Notice::Event(EventKind::OomKill, 3, 5), Outcome::NoVictim));
    assert_eq!((&line["evidence"]["count_before"], &line["evidence"]["count_after"]), (&3.into(), &5.into()));
}

#[test]
fn the_kernel_modules_word_is_evidence_where_it_is_loaded() {
    use crate::decide::facts::LmsFacts;
    use crate::policy::model::LmsLevel;
    let mut oom = record(1, Notice::Lms(LmsLevel::Oom), Outcome::NoVictim);
    let line = parsed(&oom);
    assert_eq!(line["trigger"], "lms: oom");
    assert!(!line["evidence"].as_object().expect("a map").keys().any(|key| key.starts_with("lms_")));
    for (level, word) in [(None, "ok"), (Some(LmsLevel::Warn), "warn"), (Some(LmsLevel::Kill), "kill"), (Some(LmsLevel::Oom), "oom")] {
        oom.evidence.node.lms = Some(LmsFacts { level, warn_bytes: 2 * MIB, kill_bytes: MIB });
        let evidence = &parsed(&oom)["evidence"];
        assert_eq!(
            (&evidence["lms_level"], &evidence["lms_warn_bytes"], &evidence["lms_kill_bytes"]),
            (&word.into(), &(2 * MIB).into(), &MIB.into())
        );
    }
}

#[test]
fn hostile_names_stay_inside_their_line() {
    for name in
        [&b"/a\nb\",\"victim\":\"/"[..], b"/\xff\xfe\x00x", b"/\x1b[2Jx", b"/a\\x2db", "/\u{2028}\u{202e}x".as_bytes(), &[b'/'; 5000]]
    {
        let mut record = killed();
        record.subject = path(name);
        record.victim = Some(path(name));
        record.candidates[0].group = path(name);
        let line = parsed(&record);
        assert_eq!(line["subject"], path(name).to_string());
        assert_eq!(line["victim"], line["candidates"][0]["group"]);
    }
    let mut newline = killed();
    newline.subject = path(b"/a\nb");
    assert_eq!(parsed(&newline)["subject"], "/a\\x0ab");
}

proptest::proptest! {
    #[test]
    fn any_name_makes_one_sound_line(name: Vec<u8>, importance: i64, usage: Option<u64>) {
        let mut record = record(1, Notice::Available(1, Duration::ZERO), Outcome::Killed);
        record.subject = path(&name);
        record.candidates = vec![candidate(&name, Standing::Chosen, importance, usage, Some(i64::MIN))];
        record.candidates.push(candidate(&name, Standing::Ranked, importance, usage, Some(i64::MAX)));
        parsed(&record);
        proptest::prop_assert!(!words::log_line(&record).contains('\n'));
    }
}

#[test]
fn errnos_are_named_and_odd_records_still_make_a_line() {
    let mut record = killed();
    record.rungs[0].outcome = RungOutcome::Errno(libc::EPERM);
    record.rungs[1].outcome = RungOutcome::Errno(99_999);
    record.rungs[1].name = RungName::Term;
    record.rule = 77;
    record.left_out = 3;
    record.victim = None;
    record.time = SystemTime::UNIX_EPOCH - Duration::from_micros(1);
    let line = parsed(&record);
    assert_eq!((&line["rungs"][0]["outcome"], &line["rungs"][1]["outcome"]), (&"EPERM".into(), &"errno 99999".into()));
    assert_eq!((&line["candidates_left_out"], &line["victim"]), (&3.into(), &Value::Null));
    assert_eq!(line["time"], "1969-12-31T23:59:59.999999Z");
}

#[test]
fn whole_seconds_have_their_six_digits_too() {
    assert_eq!(time_text(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000000Z");
}

#[test]
fn two_runs_have_different_ids() {
    let first = Context::of_this_process(None);
    std::thread::sleep(Duration::from_millis(1));
    assert_ne!(first.run, Context::of_this_process(None).run);
    assert_eq!(Context::of_this_process(Some("n".into())).node, "n");
}
