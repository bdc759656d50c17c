//! What users type: exit codes, and one line that says what is wrong and what to do.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

use std::fs;
use std::path::Path;

use assert_cmd::Command;

/// The program; nothing of the caller's environment is meant for these tests.
fn program() -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oomwarden"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OOMWARDEN_")) {
        command.env_remove(name);
    }
    command
}

fn oomwarden() -> Command {
    let mut command = Command::from_std(program());
    command.timeout(std::time::Duration::from_secs(60));
    command
}

struct Ran {
    code: Option<i32>,
    out: String,
    messages: String,
}

fn run(args: &[&str]) -> Ran {
    let output = oomwarden().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), messages: text(output.stderr) }
}

fn policy(dir: &Path, text: &str) -> String {
    let path = dir.join("policy.yaml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn ready_policies_are_sound_and_say_so_on_standard_output() {
    // A checkout may belong to somebody else than who runs the tests, which `check` would warn of.
    let dir = tempfile::tempdir().unwrap();
    let ours = |name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, fs::read(Path::new("policies").join(name)).unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ran = run(&["check", &ours("default.yaml"), &ours("server.yaml"), &ours("batch.yaml")]);
    assert_eq!((ran.code, ran.messages.as_str()), (Some(0), ""));
    assert_eq!(ran.out.lines().count(), 3);
}

#[test]
fn a_bad_policy_is_refused_with_every_error_and_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = policy(dir.path(), "version: 1\nrules:\n  - name: a\n    wach: /t\n    watch: /t\n    when:\n      - psi: full 100/500ms\n");
    for args in [&["check", &path][..], &["run", "--strict-policy", "--policy", &path, "--listen", "none"]] {
        let ran = run(args);
        assert_eq!(ran.code, Some(2), "{}", ran.messages);
        assert!(ran.messages.contains(&format!("{path}:4:5: error: ")), "{}", ran.messages);
        assert!(ran.messages.contains("watch"), "a hint with the nearest key: {}", ran.messages);
        assert!(ran.messages.contains(&format!("{path}:7:")), "all errors at once: {}", ran.messages);
        assert!(ran.out.is_empty());
    }
}

#[test]
fn keys_of_later_versions_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = policy(dir.path(), "version: 1\ntenants: []\nrules: []\n");
    let ran = run(&["check", &path]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.messages.contains("tenants"), "{}", ran.messages);
}

#[test]
fn a_policy_that_is_not_there_says_which() {
    for args in [&["check", "/nowhere/policy.yaml"][..], &["run", "--strict-policy", "--policy", "/nowhere/policy.yaml"]] {
        let ran = run(args);
        assert_eq!(ran.code, Some(1), "{}", ran.messages);
        assert!(ran.messages.contains("/nowhere/policy.yaml"), "{}", ran.messages);
    }
}

/// A policy that can't be used does not end it: what comes next does here, where there is no cgroup file system.
#[test]
fn only_who_is_strict_ends_for_the_sake_of_the_policy() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, root) = (policy(dir.path(), "version: 1\nrulez: []\n"), dir.path().to_str().unwrap());
    for (path, strict) in [(&bad[..], 2), ("/nowhere/policy.yaml", 1)] {
        let args = ["run", "--listen", "none", "--cgroup-root", root, "--state", root, "--policy", path];
        assert_eq!(run(&args).code, Some(3));
        assert_eq!(run_with(&args, &[("OOMWARDEN_STRICT_POLICY", "off")]).code, Some(3));
        assert_eq!(run(&[&args[..], &["--strict-policy"]].concat()).code, Some(strict));
        assert_eq!(run_with(&args, &[("OOMWARDEN_STRICT_POLICY", "Yes")]).code, Some(strict));
    }
}

/// Where the start ends for another reason, or waits idle, that is said once, in a line with its
/// priority.
#[test]
fn a_refused_policy_is_told_where_the_start_ends_for_another_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, root) = (policy(dir.path(), "version: 1\nrulez: []\nrules:\n  - name: 1\n"), dir.path().to_str().unwrap());
    let args = ["run", "--listen", "none", "--cgroup-root", root, "--state", root, "--policy", &bad];
    let ran = run(&args);
    let lines: Vec<&str> = ran.messages.lines().collect();
    assert_eq!((ran.code, lines.len()), (Some(3), 2), "{}", ran.messages);
    assert!(lines[0].starts_with(&format!("oomwarden: the policy is refused: {bad}:2:1: error: ")), "{}", ran.messages);
    assert!(lines[0].contains("oomwarden check"), "{}", ran.messages);
    // To the end of the idle one.
    let path = dir.path().join("stderr");
    let file = fs::File::create(&path).unwrap();
    let stat = file.metadata().unwrap();
    let journal = format!("{}:{}", std::os::unix::fs::MetadataExt::dev(&stat), std::os::unix::fs::MetadataExt::ino(&stat));
    let mut child = program().args(args).arg("--on-unsupported=idle").env("JOURNAL_STREAM", journal).stderr(file).spawn().unwrap();
    let said = || fs::read_to_string(&path).unwrap();
    while !said().contains("idle until stopped") {
        assert!(child.try_wait().unwrap().is_none(), "ended: {}", said());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let said = said();
    assert_eq!(said.matches("the policy is refused").count(), 1, "{said}");
    let priorities: Vec<&str> = said.lines().map(|line| line.get(..3).unwrap()).collect();
    assert_eq!(priorities, ["<3>", "<4>", "<4>"], "{said}");
}

/// Nobody waits for who opens the other end of a FIFO.
#[test]
fn a_policy_that_is_a_fifo_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("a.yaml");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    let (fifo, directory) = (fifo.to_str().unwrap(), dir.path().to_str().unwrap());
    for path in [fifo, directory] {
        for args in [&["check", path][..], &["run", "--strict-policy", "--listen", "none", "--cgroup-root", "/nowhere", "--policy", path]] {
            let ran = run(args);
            assert_eq!(ran.code, Some(1), "{}", ran.messages);
            assert!(ran.messages.contains(&format!("{fifo} is a FIFO")), "{}", ran.messages);
        }
    }
    // What was handed over open is read.
    for handed_over in
        ["cat {} | $0 check /dev/stdin", "$0 check /dev/stdin <{}", "exec 7<{}; $0 check /dev/fd/7", "cat {} | $0 check /proc/self/fd/0"]
    {
        let script = handed_over.replace("{}", "policies/default.yaml");
        let output = std::process::Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_oomwarden")]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

const SOUND: &str = "version: 1\nrules:\n  - name: r\n    watch: /t/*\n    when: [event: oom]\n";

/// Another user: nobody. Without root there is only what a mode may say.
fn give_away(path: &str) -> String {
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        return format!("{path} belongs to user 65534");
    }
    eprintln!("SKIPPED for files of another user, which needs root");
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    format!("{path} (mode 0666")
}

#[test]
fn a_policy_that_others_can_write_is_refused_by_who_acts_and_check_warns_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = policy(dir.path(), SOUND);
    let what = give_away(&path);
    let state = dir.path().join("state");
    let state = state.to_str().unwrap();
    // What comes after it: there is no cgroup file system.
    let run_with = |more: &[&str]| {
        let args = ["run", "--strict-policy", "--listen", "none", "--cgroup-root", "/nowhere", "--state", state, "--policy", &path];
        run(&[&args[..], more].concat())
    };
    let ran = run_with(&[]);
    assert_eq!(ran.code, Some(1), "{}", ran.messages);
    let advice = if nix::unistd::geteuid().is_root() { "give it to root (chown)" } else { "(chmod go-w " };
    assert!(ran.messages.contains(&what) && ran.messages.contains(advice), "{}", ran.messages);
    let ran = run_with(&["--observe"]);
    assert_eq!(ran.code, Some(3), "{}", ran.messages);
    assert!(ran.messages.contains(&what) && ran.messages.contains("--observe"), "{}", ran.messages);
    let ran = run(&["check", &path]);
    assert_eq!(ran.code, Some(0), "{}", ran.messages);
    assert!(ran.messages.contains(&format!("{path}:1:1: warning: ")) && ran.messages.contains(&what), "{}", ran.messages);
    // Those who only look read it.
    assert_eq!(run(&["explain", "--by-name", "--policy", &path, "/t/a"]).messages, "");
}

#[test]
fn a_config_map_is_taken_where_it_is_mounted_read_only_and_its_files_are_judged() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED a_config_map_is_taken: it mounts, which needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = policy(dir.path(), SOUND);
    let at = dir.path().join("mounted");
    fs::create_dir(&at).unwrap();
    let script = format!(
        "mount -t tmpfs none {at} && mkdir {at}/..1 && cp {file} {at}/..1/a.yaml && ln -s ..1 {at}/..data && ln -s ..data/a.yaml {at}/a.yaml || exit 9
        run() {{ {program} run --strict-policy --listen none --cgroup-root /nowhere --policy {at}; echo $?; }}
        chmod 777 {at}; run
        mount -o remount,ro {at}; run
        mount -o remount,rw {at}; chmod 666 {at}/..1/a.yaml; mount -o remount,ro {at}; run",
        at = at.display(),
        program = env!("CARGO_BIN_EXE_oomwarden")
    );
    let output = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let (out, messages) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(9) || messages.contains("unshare failed") {
        eprintln!("SKIPPED a_config_map_is_taken: nothing can be mounted here: {messages}");
        return;
    }
    // Refused, taken (what comes next is the missing cgroup file system), refused for the file's sake.
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["1", "3", "1"], "{messages}");
    assert!(messages.contains("mode 0777") && messages.contains("mode 0666"), "{messages}");
}

#[test]
fn a_hook_that_others_can_write_is_refused_by_who_acts_and_check_warns_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let hook = dir.path().join("hook");
    let hook = hook.to_str().unwrap();
    fs::write(hook, "#!/bin/sh\n").unwrap();
    let path = policy(dir.path(), &format!("{SOUND}    then:\n      - hook: {{exec: [{hook}], timeout: 1s}}\n      - kill: group\n"));
    let ran = run(&["check", &path]);
    assert_eq!((ran.code, ran.messages.as_str()), (Some(0), ""));
    let what = give_away(hook);
    let ran = run(&["run", "--strict-policy", "--listen", "none", "--cgroup-root", "/nowhere", "--policy", &path]);
    assert_eq!(ran.code, Some(1), "{}", ran.messages);
    assert!(ran.messages.contains(&what) && ran.messages.contains("rule r"), "{}", ran.messages);
    let ran = run(&["check", &path]);
    assert_eq!(ran.code, Some(0), "{}", ran.messages);
    assert!(ran.messages.contains(&format!("{path}:3:1: warning: ")), "{}", ran.messages);
}

#[test]
fn a_root_that_is_not_cgroup2_is_said_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    for root in [dir.path().to_str().unwrap(), "/nowhere"] {
        let ran = run(&["run", "--cgroup-root", root, "--listen", "none"]);
        assert_eq!(ran.code, Some(3), "{}", ran.messages);
        assert_eq!(ran.messages.lines().count(), 1, "{}", ran.messages);
        assert!(ran.messages.contains(root) && ran.messages.contains("--cgroup-root"), "{}", ran.messages);
    }
}

/// What a failing start says on a standard error that is a file, with these variables.
fn said_to_a_file(policy: &str, variables: impl Fn(&fs::Metadata) -> Vec<(&'static str, String)>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stderr");
    let file = fs::File::create(&path).unwrap();
    let variables = variables(&file.metadata().unwrap());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oomwarden"));
    command
        .args(["run", "--strict-policy", "--listen", "none", "--policy", policy])
        .env_remove("JOURNAL_STREAM")
        .env_remove("INVOCATION_ID")
        .envs(variables);
    let state = dir.path().join("state");
    assert!(!command.arg("--state").arg(state).stderr(file).status().unwrap().success());
    fs::read_to_string(path).unwrap()
}

#[test]
fn lines_for_the_journal_have_a_priority_and_others_none() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let bad = policy(dir.path(), "version: 1\nrulez: []\nrules:\n  - name: 1\n");
    let to_journal = said_to_a_file(&bad, |file| vec![("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino()))]);
    assert!(to_journal.lines().count() > 1 && to_journal.lines().all(|line| line.starts_with("<3>")), "{to_journal}");
    // What users type wrong, and what is said before there is a log.
    let path = dir.path().join("usage");
    let file = fs::File::create(&path).unwrap();
    let journal = file.metadata().map(|file| format!("{}:{}", file.dev(), file.ino())).unwrap();
    assert_eq!(program().args(["run", "--bogus"]).env("JOURNAL_STREAM", journal).stderr(file).status().unwrap().code(), Some(2));
    let said = fs::read_to_string(&path).unwrap();
    assert!(said.contains("--bogus") && said.lines().all(|line| line.starts_with("<3>")), "{said}");
    // The variable is inherited whatever standard error is by now.
    for elsewhere in [|_: &fs::Metadata| vec![("JOURNAL_STREAM", "8:1".to_owned())], |_: &fs::Metadata| Vec::new()] {
        let said = said_to_a_file(&bad, elsewhere);
        assert!(said.starts_with("oomwarden: ") && !said.contains("<3>"), "{said}");
    }
}

#[test]
fn a_service_is_told_by_which_setting_a_path_fails() {
    let policy = "/home/oomwarden-was-never-here/policy.yaml";
    let said = said_to_a_file(policy, |_| vec![("INVOCATION_ID", "1".to_owned())]);
    assert!(said.contains(policy) && said.contains("ProtectHome="), "{said}");
    let said = said_to_a_file(policy, |_| Vec::new());
    assert!(said.contains(policy) && !said.contains("ProtectHome="), "{said}");
}

#[test]
fn idle_waits_for_a_signal_where_cgroup2_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = program()
        .args(["run", "--on-unsupported=idle", "--listen", "none", "--cgroup-root"])
        .arg(dir.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut messages = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("idle until stopped") {
        assert!(std::io::BufRead::read_line(&mut messages, &mut line).unwrap() > 0, "ended: {line}");
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    for args in [&[][..], &["--bogus"], &["run", "--listen", "nonsense"], &["run", "--psi-groups", "x"], &["check"]] {
        let ran = run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.messages);
        assert!(!ran.messages.is_empty() && !ran.messages.contains("panicked"), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["run", "--help"], &["doctor", "--help"]] {
        assert_eq!(run(args).code, Some(0), "{args:?}");
    }
}

#[test]
fn doctor_tells_people_and_programs_the_same() {
    let people = run(&["doctor"]);
    let programs = run(&["doctor", "--json"]);
    assert_eq!(people.code, programs.code);
    let parsed: serde_json::Value = serde_json::from_str(&programs.out).unwrap();
    assert!(parsed.to_string().contains("cgroup"), "{parsed}");
    assert!(people.out.lines().count() > 5, "{}", people.out);
    assert!(!people.messages.contains("panicked"));
}

fn run_with(args: &[&str], environment: &[(&str, &str)]) -> Ran {
    let output = oomwarden().args(args).envs(environment.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), messages: text(output.stderr) }
}

/// A misspelt switch would let it kill where it was to look on.
#[test]
fn variables_that_nobody_knows_are_errors_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    for args in [
        &["run", "--listen", "none", "--cgroup-root", root][..],
        &["check", "policies/default.yaml"],
        &["doctor", "--cgroup-root", root],
        &["explain", "/t", "--by-name"],
        &["pause", "--control", root],
        &["schema"],
        &["man"],
    ] {
        let ran = run_with(args, &[("OOMWARDEN_OBSERVER", "true")]);
        let expected = "oomwarden: unknown environment variable OOMWARDEN_OBSERVER: did you mean OOMWARDEN_OBSERVE?\n";
        assert_eq!((ran.code, ran.messages.as_str(), ran.out.as_str()), (Some(2), expected, ""), "{args:?}");
        // One file of variables serves every command.
        let known =
            [("OOMWARDEN_OBSERVE", "yes"), ("OOMWARDEN_STATE", root), ("OOMWARDEN_JOURNAL_KEEP", "2"), ("OOMWARDEN_LISTEN", "none")];
        assert_eq!(run_with(args, &known).code, run(args).code, "{args:?}");
    }
    assert_eq!(run_with(&["run", "--help"], &[("OOMWARDEN_OBSERVER", "true")]).code, Some(0));
}

#[test]
fn variables_take_truth_as_people_write_it_and_are_named_when_they_are_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    let args = ["run", "--listen", "none", "--cgroup-root", root];
    for name in ["OOMWARDEN_OBSERVE", "OOMWARDEN_LISTEN_API", "OOMWARDEN_STRICT_POLICY"] {
        for value in ["1", "0", "true", "FALSE", "yes", "No", "on", "off", ""] {
            let ran = run_with(&args, &[(name, value)]);
            assert_eq!(ran.code, Some(3), "{name}={value}: {}", ran.messages);
        }
        let ran = run_with(&args, &[(name, "perhaps")]);
        assert_eq!(ran.code, Some(2), "{}", ran.messages);
        assert!(ran.messages.contains(name) && ran.messages.contains("perhaps") && ran.messages.contains("yes and no"), "{}", ran.messages);
    }
    for (name, value) in [
        ("OOMWARDEN_PSI_GROUPS", "x"),
        ("OOMWARDEN_LISTEN", "nonsense"),
        ("OOMWARDEN_LISTEN", "127.0.0.1:1,nonsense"),
        ("OOMWARDEN_LOG_LEVEL", "loud"),
        ("OOMWARDEN_ON_UNSUPPORTED", "hope"),
        ("OOMWARDEN_JOURNAL_MAX_SIZE", "64"),
    ] {
        let ran = run_with(&["run", "--cgroup-root", root], &[(name, value)]);
        assert_eq!(ran.code, Some(2), "{name}: {}", ran.messages);
        assert!(ran.messages.contains(name), "{name}: {}", ran.messages);
    }
    // What stands on the command line is not blamed on the environment.
    let ran = run_with(&["run", "--psi-groups", "x"], &[("OOMWARDEN_PSI_GROUPS", "7")]);
    assert!(ran.code == Some(2) && !ran.messages.contains("OOMWARDEN_PSI_GROUPS ("), "{}", ran.messages);
    // Nothing is asked for by an empty value.
    let empty = [
        ("OOMWARDEN_PSI_GROUPS", ""),
        ("OOMWARDEN_POLICY", ""),
        ("OOMWARDEN_LISTEN", ""),
        ("OOMWARDEN_LOG_LEVEL", ""),
        ("OOMWARDEN_STATE", ""),
    ];
    let ran = run_with(&args, &empty);
    assert_eq!(ran.code, Some(3), "{}", ran.messages);
}

#[test]
fn the_service_is_started_again_however_often_it_ends() {
    let unit = fs::read_to_string("deploy/systemd/oomwarden.service").unwrap();
    let section = |name: &str| unit.split("\n[").find_map(|part| part.trim_start_matches('[').strip_prefix(&format!("{name}]\n"))).unwrap();
    assert!(section("Unit").lines().any(|line| line == "StartLimitIntervalSec=0"), "{}", section("Unit"));
    assert!(section("Service").lines().any(|line| line == "Restart=always"), "{}", section("Service"));
}
