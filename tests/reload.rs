//! Which changes of a policy's files are noticed, on a real file system.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oomwarden::policy::{self, files};
use oomwarden::record::counters::Counters;
use oomwarden::warden::reload::{self, Mailbox, Watcher};

const SOON: Duration = Duration::from_secs(20);

fn rule(name: &str) -> String {
    format!("version: 1\nrules:\n  - name: {name}\n    watch: /t/*\n    when:\n      - event: oom\n")
}

struct Watched {
    mailbox: Mailbox,
    counters: Arc<Counters>,
}

impl Watched {
    fn start(paths: &[PathBuf]) -> Watched {
        let sources: Vec<PathBuf> = paths.to_vec();
        let load = move || {
            let sources = files::read_trusted(&sources).map_err(|error| error.to_string())?;
            policy::load(&sources).map(|loaded| loaded.policy).map_err(|errors| format!("{errors:?}"))
        };
        let mailbox = Mailbox::new().unwrap();
        let watcher = Watcher::new(paths.to_vec()).unwrap();
        let current = Arc::new(load().unwrap());
        let counters = Arc::new(Counters::new().unwrap());
        counters.policy_started(std::time::SystemTime::now());
        reload::start(mailbox.clone(), watcher, current, Arc::clone(&counters), Box::new(load)).unwrap();
        Watched { mailbox, counters }
    }

    fn rules(&self) -> Option<Vec<String>> {
        let policy = self.mailbox.take()?;
        Some(policy.rules.iter().map(|rule| rule.name.to_string()).collect())
    }

    fn becomes(&self, names: &[&str]) {
        let began = Instant::now();
        while began.elapsed() < SOON {
            match self.rules() {
                Some(rules) if rules == names => return,
                Some(rules) => panic!("{rules:?} instead of {names:?}"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        panic!("no new policy: {names:?} was expected");
    }
}

fn swap(link: &Path, to: &str) {
    let aside = link.with_file_name("..aside");
    symlink(to, &aside).unwrap();
    fs::rename(aside, link).unwrap();
}

#[test]
fn a_file_that_leaves_a_directory_takes_its_rules_along() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("10.yaml"), rule("first")).unwrap();
    fs::write(at("20.yaml"), rule("second")).unwrap();
    fs::write(at("30.yaml"), rule("third")).unwrap();
    let watched = Watched::start(&[dir.path().to_path_buf()]);
    fs::remove_file(at("20.yaml")).unwrap();
    watched.becomes(&["first", "third"]);
    fs::rename(at("30.yaml"), at("30.off")).unwrap();
    watched.becomes(&["first"]);
    fs::rename(at("30.off"), at("30.yaml")).unwrap();
    watched.becomes(&["first", "third"]);
}

#[test]
fn an_editor_that_moves_the_file_away_first_takes_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("10.yaml"), rule("first")).unwrap();
    fs::write(at("20.yaml"), rule("second")).unwrap();
    let watched = Watched::start(&[dir.path().to_path_buf()]);
    fs::rename(at("20.yaml"), at("20.yaml~")).unwrap();
    fs::write(at("20.yaml"), rule("better")).unwrap();
    // Never without the second rule in between: `becomes` panics at any other policy.
    watched.becomes(&["first", "better"]);
}

#[test]
fn a_swapped_link_is_noticed_wherever_it_stands_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    for (version, name) in [("v1", "first"), ("v2", "second"), ("v3", "third")] {
        fs::create_dir_all(dir.path().join(version).join("etc")).unwrap();
        fs::write(dir.path().join(version).join("etc/policy.yaml"), rule(name)).unwrap();
    }
    let current = dir.path().join("current");
    symlink("v1", &current).unwrap();
    let as_file = Watched::start(&[current.join("etc/policy.yaml")]);
    let as_directory = Watched::start(&[current.join("etc")]);
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    symlink(&current, &link).unwrap();
    let through_two = Watched::start(&[link.join("etc/policy.yaml")]);
    for (to, name) in [("v2", "second"), ("v3", "third")] {
        swap(&current, to);
        for watched in [&as_file, &as_directory, &through_two] {
            watched.becomes(&[name]);
        }
    }
}

/// Every policy that came until the one with these rules did.
fn policies_in_force(watched: &Watched, last: &[&str]) -> Vec<Vec<String>> {
    let mut seen = Vec::new();
    let began = Instant::now();
    while began.elapsed() < SOON {
        seen.extend(watched.rules());
        if seen.last().is_some_and(|rules| rules == last) {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{last:?} never came: {seen:?}");
}

#[test]
fn a_directory_that_is_rewritten_file_by_file_is_never_in_force_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["10.yaml", "20.yaml", "30.yaml"];
    let at = |name: &str| dir.path().join(name);
    for name in names {
        fs::write(at(name), rule(&format!("old-{}", &name[..2]))).unwrap();
    }
    let watched = Watched::start(&[dir.path().to_path_buf()]);
    let mut early = Vec::new();
    let mut pause = || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(600) {
            early.extend(watched.rules());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    for name in names {
        // One in place, one by rename, one anew, with time between them.
        let text = rule(&format!("new-{}", &name[..2]));
        match name {
            "20.yaml" => {
                fs::write(at("20.tmp"), text).unwrap();
                fs::rename(at("20.tmp"), at(name)).unwrap();
            }
            "30.yaml" => {
                fs::remove_file(at(name)).unwrap();
                pause();
                fs::write(at(name), text).unwrap();
            }
            _ => fs::write(at(name), text).unwrap(),
        }
        pause();
    }
    let last = ["new-10", "new-20", "new-30"];
    if early.last().is_none_or(|rules| *rules != last) {
        early.extend(policies_in_force(&watched, &last));
    }
    assert_eq!(early.len(), 1, "something else was in force: {early:?}");
}

#[test]
fn several_files_are_one_policy_and_one_that_is_still_written_is_waited_for() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let names = ["10.yaml", "20.yaml"];
    for name in names {
        fs::write(at(name), rule(&format!("old-{}", &name[..2]))).unwrap();
    }
    let as_directory = Watched::start(&[dir.path().to_path_buf()]);
    let as_files = Watched::start(&names.map(at));
    let mut open = fs::File::create(at("20.yaml")).unwrap();
    open.write_all(rule("half").as_bytes()).unwrap();
    fs::write(at("10.yaml"), rule("new-10")).unwrap();
    // Longer than it has to be quiet.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((as_directory.rules(), as_files.rules()), (None, None), "read while a file was being written");
    open.set_len(0).unwrap();
    std::io::Seek::rewind(&mut open).unwrap();
    open.write_all(rule("new-20").as_bytes()).unwrap();
    drop(open);
    for watched in [&as_directory, &as_files] {
        assert_eq!(policies_in_force(watched, &["new-10", "new-20"]).len(), 1);
    }
}

#[test]
fn a_config_map_is_taken_at_once_and_only_whole() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let version = |version: &str, names: &[&str]| {
        fs::create_dir(at(version)).unwrap();
        for name in names {
            fs::write(at(version).join(name), rule(&format!("{}-{}", &version[2..], &name[..1]))).unwrap();
        }
    };
    version("..1", &["a.yaml", "b.yaml"]);
    symlink("..1", at("..data")).unwrap();
    for name in ["a.yaml", "b.yaml"] {
        symlink(Path::new("..data").join(name), at(name)).unwrap();
    }
    let watched = Watched::start(&[dir.path().to_path_buf()]);
    version("..2", &["a.yaml", "b.yaml"]);
    let began = Instant::now();
    swap(&at("..data"), "..2");
    watched.becomes(&["2-a", "2-b"]);
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    // As the kubelet does it: the link is swapped, then new files get their links and old ones lose them.
    version("..3", &["a.yaml", "c.yaml"]);
    swap(&at("..data"), "..3");
    std::thread::sleep(Duration::from_millis(300));
    symlink("..data/c.yaml", at("c.yaml")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(watched.counters.is_last_policy_in_force(), "the half of it was read, and refused");
    fs::remove_file(at("b.yaml")).unwrap();
    watched.becomes(&["3-a", "3-c"]);
}

#[test]
fn another_directory_in_the_place_of_the_first_is_a_new_policy() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (directory, name) in [("etc", "first"), ("new", "second")] {
        fs::create_dir(at(directory)).unwrap();
        fs::write(at(directory).join("10.yaml"), rule(name)).unwrap();
    }
    let watched = Watched::start(&[at("etc")]);
    fs::rename(at("etc"), at("old")).unwrap();
    fs::rename(at("new"), at("etc")).unwrap();
    watched.becomes(&["second"]);
    // And that one is watched from now on.
    fs::write(at("etc/10.yaml"), rule("third")).unwrap();
    watched.becomes(&["third"]);
    fs::remove_dir_all(at("etc")).unwrap();
    fs::create_dir(at("etc")).unwrap();
    fs::write(at("etc/10.yaml"), rule("fourth")).unwrap();
    watched.becomes(&["fourth"]);
}

#[test]
fn what_others_may_write_to_is_refused_at_a_reload_and_the_old_one_stays() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("policy.yaml"), rule("first")).unwrap();
    let watched = Watched::start(&[at("policy.yaml")]);
    fs::write(at("open.yaml"), rule("planted")).unwrap();
    fs::set_permissions(at("open.yaml"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::rename(at("open.yaml"), at("policy.yaml")).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(watched.rules(), None);
    fs::write(at("sound.yaml"), rule("second")).unwrap();
    fs::rename(at("sound.yaml"), at("policy.yaml")).unwrap();
    watched.becomes(&["second"]);
}
