//! `oomwarden replay` and `record` as users type them: exit codes, and where what is said goes.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

use std::fs;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;

const POLICY: &str = "version: 1\nrules:\n  - name: full\n    watch: /t/*\n    when: [usage: {above: 50MiB}]\n";

/// A moment in which /t/a uses 60 MiB.
const MOMENT: &str = concat!(
    r#"{"v":1,"kind":"sample","time":"2023-11-14T22:13:20.123456Z","run":"r","at_us":0,"evidence":{"node_total_bytes":1000000000},"#,
    r#""facts":{"groups":[{"group":"/t/a","id":3,"populated":true,"current_bytes":62914560,"easy_file_bytes":0,"anon_bytes":62914560,"#,
    r#""swap_bytes":0,"processes":{"count":1,"comms_complete":true}}]}}"#,
    "\n"
);

fn oomwarden(dir: &Path, args: &[&str]) -> Output {
    Command::cargo_bin("oomwarden").unwrap().current_dir(dir).env_clear().args(args).output().unwrap()
}

/// Writes the policy and a file, and replays it.
fn replay(text: &[u8], options: &[&str]) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("policy.yaml"), POLICY).unwrap();
    fs::write(dir.path().join("file"), text).unwrap();
    let output = oomwarden(dir.path(), &[&["replay", "file", "--policy", "policy.yaml"], options].concat());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_would_have_been_done_is_a_table_for_people_and_an_object_for_programs() {
    let (code, out, said) = replay(MOMENT.as_bytes(), &[]);
    assert_eq!((code, &*said), (Some(0), ""));
    let row = out.lines().find(|line| line.contains("kill /t/a")).unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>(),
        "2023-11-14T22:13:20Z /t/a - (1 moment) kill /t/a outcome".split(' ').collect::<Vec<_>>()
    );
    assert!(out.contains("file:1  2023-11-14T22:13:20Z, usage: above 50MiB at /t/a") && !out.contains('\u{1b}'), "{out}");
    assert_eq!(replay(MOMENT.as_bytes(), &["--exit-code"]).0, Some(1));
    let (code, out, _) = replay(MOMENT.as_bytes(), &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["judgements"][0]["now"]["victim"], &json["differing"]), (Some(0), &"/t/a".into(), &1.into()));
    let small = MOMENT.replace("62914560", "1000");
    assert_eq!(replay(small.as_bytes(), &["--exit-code"]).0, Some(0), "nothing would have been done");
}

#[test]
fn broken_and_foreign_files_are_a_clear_line_and_an_exit_code() {
    for (text, code, told) in [
        (&b"\x7fELF\x02\x01\x01\0\0\0"[..], 2, "file:1: not a line of a journal or a recording"),
        (b"{\"v\":2,\"kind\":\"judgement\"}\n", 2, "file:1: version 2, and this oomwarden reads version 1: use a newer one"),
        (b"root:x:0:0:root:/root:/bin/sh\n", 2, "file:1: not a line of a journal or a recording"),
        (b"", 0, ""),
    ] {
        let (found, out, said) = replay(text, &[]);
        assert_eq!(found, Some(code), "{said}");
        assert!(said.contains(told) && said.lines().count() == usize::from(!told.is_empty()), "{said}");
        assert!(out.contains("0 judgements judged again"), "{out}");
    }
    let foreign = "no journal\n".repeat(1000);
    let (code, _, said) = replay(foreign.as_bytes(), &[]);
    assert_eq!((code, said.lines().count()), (Some(2), 21), "{said}");
    assert!(said.contains("980 more such lines (--all tells of each)"), "{said}");
    assert_eq!(replay(foreign.as_bytes(), &["--all"]).2.lines().count(), 1000);
    let cut = format!("{MOMENT}{}", &MOMENT[..50]);
    let (code, out, said) = replay(cut.as_bytes(), &[]);
    assert_eq!((code, &*said), (Some(1), "oomwarden: file:2: half a line: whoever wrote it was cut off; the lines before it are sound\n"));
    assert!(out.contains("kill /t/a"), "the sound line is judged all the same: {out}");
    let kernel = r#"{"v":1,"kind":"kernel_oom","time":"2023-11-14T22:13:20.123456Z","group":"/t/x"}"#;
    let (code, out, said) = replay(kernel.as_bytes(), &["--exit-code"]);
    assert_eq!((code, &*said), (Some(0), ""));
    assert!(out.contains("kills by the kernel, which no policy decided:\n  2023-11-14T22:13:20Z  /t/x  file:1"), "{out}");
}

#[test]
fn a_missing_file_and_a_bad_policy_have_their_own_codes() {
    let dir = tempfile::tempdir().unwrap();
    let output = oomwarden(dir.path(), &["replay", "nothing-here"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("oomwarden: nothing-here: No such file"), "{output:?}");
    fs::write(dir.path().join("bad.yaml"), "version: 1\nrulez: []\n").unwrap();
    assert_eq!(oomwarden(dir.path(), &["replay", "nothing-here", "--policy", "bad.yaml"]).status.code(), Some(2));
    assert_eq!(oomwarden(dir.path(), &["replay"]).status.code(), Some(2));
}

#[test]
fn recording_needs_cgroup_v2_and_a_time_that_makes_sense() {
    let dir = tempfile::tempdir().unwrap();
    let output = oomwarden(dir.path(), &["record", "--for", "1s", "--output", "out", "--cgroup-root", "."]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(!dir.path().join("out").exists());
    let output = oomwarden(dir.path(), &["record", "--for", "1s", "--interval", "1ms", "--output", "out"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(oomwarden(dir.path(), &["record", "--for", "10", "--output", "out"]).status.code(), Some(2));
}
