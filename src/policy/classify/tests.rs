use super::super::tests::good;
use super::*;

const POLICY: &str = r#"
version: 1
exclude:
  - /system.slice/ssh*.service
  - {group: /db.slice/**, comm: postgres}
  - /a/b
  - /a
importance:
  - {group: /batch.slice, value: -100}
  - {group: /batch.slice/x/y, value: 5}
  - {group: [/t/*, /u], value: 7}
rules:
  - name: tenants
    watch: [/t/*, /u]
    when: [event: oom_kill]
  - name: node
    watch: /
    when: [psi: full 1s/2s]
    only_if: [available: {below: 10%}]
    victim: {among: ["/t/**", "/batch.slice/*"]}
  - name: below
    watch: /t
    when: [event: oom_kill]
    victim: {among: leaves}
kernel: {oom_group: /t/*}
kill_one_in: [/user.slice/user-*.slice/session-*.scope, /t]
"#;

/// The class of a path by way of all its ancestors.
fn class(policy: &Policy, path: &[u8]) -> GroupClass {
    let mut class = policy.classify(b"/", None);
    for (at, byte) in path.iter().enumerate().skip(1) {
        if *byte == b'/' {
            class = policy.classify(&path[..at], Some(&class));
        }
    }
    if path == b"/" { class } else { policy.classify(path, Some(&class)) }
}

fn set(class: &super::super::model::EntrySet) -> Vec<usize> {
    class.iter().collect()
}

#[test]
fn exclusions_and_importance_hold_for_descendants() {
    let policy = good(POLICY).policy;
    let class = |path: &str| class(&policy, path.as_bytes());
    for (path, excluded, comm, importance) in [
        ("/", None, vec![], 0),
        ("/system.slice", None, vec![], 0),
        ("/system.slice/sshd.service", Some(0), vec![], 0),
        ("/system.slice/sshd.service/child/x", Some(0), vec![], 0),
        ("/db.slice", None, vec![], 0),
        ("/db.slice/pg", None, vec![1], 0),
        ("/db.slice/pg/worker", None, vec![1], 0),
        ("/a", Some(3), vec![], 0),
        ("/a/b", Some(2), vec![], 0),
        ("/a/b/c", Some(2), vec![], 0),
        ("/a/c", Some(3), vec![], 0),
        ("/ab", None, vec![], 0),
        ("/batch.slice", None, vec![], -100),
        ("/batch.slice/x", None, vec![], -100),
        // The first line that matches wins, also one that matched an ancestor.
        ("/batch.slice/x/y", None, vec![], -100),
        ("/t", None, vec![], 0),
        ("/t/1", None, vec![], 7),
        ("/t/1/deep/down", None, vec![], 7),
        ("/u", None, vec![], 7),
    ] {
        let class = class(path);
        assert_eq!((class.excluded, set(&class.comm_excludes), class.importance), (excluded, comm, importance), "{path}");
    }
}

#[test]
fn rules_go_by_the_groups_own_path() {
    let policy = good(POLICY).policy;
    for (path, subject_of, among, oom_group) in [
        ("/", vec![1], vec![], false),
        ("/t", vec![2], vec![], false),
        ("/t/1", vec![0], vec![1], true),
        ("/t/1/2", vec![], vec![1], false),
        ("/u", vec![0], vec![], false),
        ("/batch.slice", vec![], vec![], false),
        ("/batch.slice/x", vec![], vec![1], false),
        ("/batch.slice/x/y", vec![], vec![], false),
    ] {
        let class = class(&policy, path.as_bytes());
        assert_eq!((set(&class.subject_of), set(&class.among), class.oom_group), (subject_of, among, oom_group), "{path}");
    }
}

#[test]
fn what_is_killed_one_by_one_is_so_down_to_its_leaves() {
    let policy = good(POLICY).policy;
    for (path, kill_one) in [
        ("/", false),
        ("/user.slice/user-1000.slice", false),
        ("/user.slice/user-1000.slice/session-3.scope", true),
        ("/user.slice/user-1000.slice/session-3.scope/a/b", true),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice", false),
        ("/t", true),
        ("/t/1", true),
        ("/u", false),
    ] {
        assert_eq!(class(&policy, path.as_bytes()).kill_one, kill_one, "{path}");
    }
}

#[test]
fn hostile_names_are_names() {
    let policy = good(POLICY).policy;
    let long = [b"/t/".as_slice(), &[b'n'; 200]].concat();
    for path in [b"/t/a b".as_slice(), b"/t/a\nb", b"/t/a\\x2db", b"/t/\xff\xfe", b"/t/*", b"/t/..", b"/t/{a,b}", b"/t/\x1b[2J", &long] {
        let class = class(&policy, path);
        assert!(class.subject_of.contains(0) && class.among.contains(1), "{}", path.escape_ascii());
        assert_eq!(class.importance, 7, "{}", path.escape_ascii());
    }
    for path in [b"/system.slice/ssh\n.service".as_slice(), b"/system.slice/ssh\xff.service"] {
        assert_eq!(class(&policy, path).excluded, Some(0), "{}", path.escape_ascii());
    }
    for path in [b"/system.slice/ssh.service\n".as_slice(), b"/x/system.slice/ssh.service", b"/system.slice/ssh.servicf", b"/A"] {
        assert_eq!(class(&policy, path).excluded, None, "{}", path.escape_ascii());
    }
}

#[test]
fn the_root_is_matched_by_its_own_name_only() {
    let text = "version: 1\nexclude: [\"/**\", /*]\nrules:\n  - {name: r, watch: [/*, \"/**\"], when: [event: oom_kill]}\n";
    let policy = good(text).policy;
    let root = policy.classify(b"/", None);
    assert_eq!((root.excluded, root.subject_of.is_empty()), (None, true));
    assert_eq!(policy.classify(b"/a", Some(&root)).excluded, Some(0));
}
