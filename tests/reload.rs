//! Which changes of a policy's files are noticed, on a real file system.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use oomwarden::control::mailbox::Mailbox;
use oomwarden::daemon::reload::{self, Watcher};
use oomwarden::metrics::counters::Counters;
use oomwarden::policy::model::{Mode, Policy};
use oomwarden::policy::{self, Source, files};

const SOON: Duration = Duration::from_secs(20);
/// For so long nothing may happen to a policy of several files before it is read.
const QUIET: Duration = Duration::from_secs(2);

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
        let watcher = Watcher::new(paths.to_vec()).unwrap();
        let current = load().unwrap();
        Watched::with(watcher, current, Box::new(load))
    }

    /// In place of a policy that can't be used, the built-in one only observes.
    fn without_policy(path: &Path) -> Watched {
        Watched::without_policy_by(Watcher::new(vec![path.to_path_buf()]).unwrap(), path)
    }

    fn without_policy_by(watcher: Watcher, path: &Path) -> Watched {
        let path = path.to_path_buf();
        let load = move || {
            let sources = files::read_trusted(&[&path]).map_err(|error| error.to_string())?;
            policy::load(&sources).map(|loaded| loaded.policy).map_err(|errors| format!("bad policy\n{}", errors[0]))
        };
        let mut current = Policy::builtin().unwrap().policy;
        current.mode = Mode::Observe;
        Watched::with(watcher, current, Box::new(load))
    }

    fn with(watcher: Watcher, current: Policy, load: reload::Load) -> Watched {
        let (mailbox, counters) = (Mailbox::new().unwrap(), Arc::new(Counters::new().unwrap()));
        match current.mode {
            Mode::Observe => counters.policy_fell_back(SystemTime::now(), "it is not there".to_owned()),
            Mode::Enforce => counters.policy_started(SystemTime::now()),
        }
        reload::start(mailbox.clone(), watcher, Arc::new(current), Arc::clone(&counters), load).unwrap();
        Watched { mailbox, counters }
    }

    fn degraded(&self) -> Option<String> {
        self.counters.degraded().list().first().map(|(_, text)| text.to_string())
    }

    fn rules(&self) -> Option<Vec<String>> {
        let prepared = self.mailbox.take()?;
        assert_eq!(prepared.rules.len(), prepared.policy.rules.len(), "each has its counters");
        Some(prepared.policy.rules.iter().map(|rule| rule.name.to_string()).collect())
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

/// What was not there at the start comes in every way that there is, and is taken over.
#[test]
fn a_policy_that_was_not_there_is_taken_over_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let aside = dir.path().join("aside");
    let make = |name: &str| {
        let way = dir.path().join(name).join("etc/oomwarden");
        (Watched::without_policy(&way.join("policy.yaml")), way)
    };
    // Written where every directory is still to be made.
    let (written, way) = make("written");
    fs::create_dir_all(&way).unwrap();
    fs::write(way.join("policy.yaml"), rule("written")).unwrap();
    written.becomes(&["written"]);
    assert_eq!(written.degraded(), None);
    // A directory a while after the other.
    let (slow, way) = make("slow");
    for place in [dir.path().join("slow"), dir.path().join("slow/etc"), way.clone()] {
        fs::create_dir(place).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    fs::write(way.join("policy.yaml"), rule("slow")).unwrap();
    slow.becomes(&["slow"]);
    // Moved to its place with all that is in it.
    let (moved, _) = make("moved");
    fs::create_dir_all(aside.join("etc/oomwarden")).unwrap();
    fs::write(aside.join("etc/oomwarden/policy.yaml"), rule("moved")).unwrap();
    fs::rename(&aside, dir.path().join("moved")).unwrap();
    moved.becomes(&["moved"]);
    // By a link at its place.
    let (linked, way) = make("linked");
    fs::create_dir_all(way.parent().unwrap()).unwrap();
    symlink(dir.path().join("moved/etc/oomwarden"), &way).unwrap();
    linked.becomes(&["moved"]);
}

/// The file is a link to what is made later.
#[test]
fn what_a_dangling_link_points_at_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (link, way) = (dir.path().join("policy.yaml"), dir.path().join("run/secrets"));
    symlink(way.join("target"), &link).unwrap();
    let watched = Watched::without_policy(&link);
    fs::create_dir_all(&way).unwrap();
    fs::write(way.join("target"), rule("target")).unwrap();
    watched.becomes(&["target"]);
}

/// A directory that is not there, one without a file, and one that is taken away and made anew.
#[test]
fn a_directory_of_policies_is_waited_for_and_may_be_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let policies = dir.path().join("policies");
    let watched = Watched::without_policy(&policies);
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("10.yaml"), rule("first")).unwrap();
    watched.becomes(&["first"]);
    fs::remove_dir_all(&policies).unwrap();
    wait("its end is told", || watched.degraded().is_some_and(|text| text.contains("policies") && !text.contains("observes")));
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("10.yaml"), rule("second")).unwrap();
    watched.becomes(&["second"]);
    assert_eq!(watched.degraded(), None);
}

/// A file that may not be read is looked at again when its rights change. Root may read every file, so a test that may be root has to use
/// another fault: what is read says which.
#[test]
fn rights_that_change_are_a_reason_to_look_again() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.yaml");
    fs::write(&path, rule("secret")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = path.clone();
    let load = move || {
        if fs::metadata(&file).unwrap().permissions().mode() & 0o004 == 0 {
            return Err("can't read the policy".to_owned());
        }
        policy::load(&[Source::new("test", fs::read(&file).unwrap())]).map(|loaded| loaded.policy).map_err(|_| "bad policy".to_owned())
    };
    let mut current = Policy::builtin().unwrap().policy;
    current.mode = Mode::Observe;
    let watched = Watched::with(Watcher::new(vec![path.clone()]).unwrap(), current, Box::new(load));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    wait("it is tried", || watched.degraded().is_some_and(|text| text.starts_with("can't read")));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    watched.becomes(&["secret"]);
}

/// A directory to which others could add files is refused, until they can't any more.
#[test]
fn rights_of_a_directory_that_change_are_one_too() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let policies = dir.path().join("policies");
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("10.yaml"), rule("guarded")).unwrap();
    fs::set_permissions(&policies, fs::Permissions::from_mode(0o777)).unwrap();
    let watched = Watched::without_policy(&policies);
    fs::set_permissions(&policies, fs::Permissions::from_mode(0o755)).unwrap();
    watched.becomes(&["guarded"]);
}

/// The built-in policy observes in place of a broken one; mended to the very text of the built-in one it acts.
#[test]
fn the_text_of_the_built_in_policy_ends_the_observing_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.yaml");
    fs::write(&path, "version: 1\nrulez: []\n").unwrap();
    let watched = Watched::without_policy(&path);
    fs::write(&path, "version: 1\nrule: []\n").unwrap();
    wait("the other fault is told", || watched.degraded().is_some_and(|text| text.contains("`rule`") && text.contains("only observes")));
    assert!(watched.mailbox.take().is_none());
    fs::write(&path, Source::builtin().text()).unwrap();
    let mut taken = None;
    wait("it is taken over", || {
        taken = watched.mailbox.take();
        taken.is_some()
    });
    assert_eq!((taken.unwrap().policy.mode, watched.degraded()), (Mode::Enforce, None));
}

/// The files are watched before they are read the first time.
#[test]
fn files_that_became_good_before_the_thread_began_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.yaml");
    let watcher = Watcher::new(vec![path.clone()]).unwrap();
    fs::write(&path, rule("early")).unwrap();
    Watched::without_policy_by(watcher, &path).becomes(&["early"]);
}

fn wait(what: &str, mut ready: impl FnMut() -> bool) {
    let began = Instant::now();
    while !ready() {
        assert!(began.elapsed() < SOON, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
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

/// Rewrites a directory file by file, with pauses that are shorter than the quiet time; what was in
/// force. `None`: the machine stalled, so that a pause was longer.
fn rewritten_file_by_file() -> Option<Vec<Vec<String>>> {
    let dir = tempfile::tempdir().unwrap();
    let names = ["10.yaml", "20.yaml", "30.yaml"];
    let at = |name: &str| dir.path().join(name);
    for name in names {
        fs::write(at(name), rule(&format!("old-{}", &name[..2]))).unwrap();
    }
    let watched = Watched::start(&[dir.path().to_path_buf()]);
    let (mut last_change, mut longest) = (Instant::now(), Duration::ZERO);
    let mut changed = || {
        longest = longest.max(last_change.elapsed());
        last_change = Instant::now();
        std::thread::sleep(Duration::from_millis(600));
        longest
    };
    fs::write(at("10.yaml"), rule("new-10")).unwrap();
    changed();
    // By rename.
    fs::write(at("20.tmp"), rule("new-20")).unwrap();
    fs::rename(at("20.tmp"), at("20.yaml")).unwrap();
    changed();
    // Anew.
    fs::remove_file(at("30.yaml")).unwrap();
    changed();
    fs::write(at("30.yaml"), rule("new-30")).unwrap();
    let longest = changed();
    let seen = policies_in_force(&watched, &["new-10", "new-20", "new-30"]);
    (longest < QUIET).then_some(seen)
}

#[test]
fn a_directory_that_is_rewritten_file_by_file_is_never_in_force_half_written() {
    let seen = (0..10).find_map(|_| rewritten_file_by_file()).expect("a machine that does not stall each time");
    assert_eq!(seen.len(), 1, "something else was in force: {seen:?}");
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
    // Whoever waited for quiet would be slower each time; a machine that stalls is so once.
    let is_quick = (10..30).any(|number| {
        let directory = format!("..{number}");
        version(&directory, &["a.yaml", "b.yaml"]);
        let began = Instant::now();
        swap(&at("..data"), &directory);
        watched.becomes(&[&format!("{number}-a"), &format!("{number}-b")]);
        began.elapsed() < QUIET
    });
    assert!(is_quick, "it is not taken at once");
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
    wait("it is refused", || !watched.counters.is_last_policy_in_force());
    assert_eq!(watched.rules(), None);
    fs::write(at("sound.yaml"), rule("second")).unwrap();
    fs::rename(at("sound.yaml"), at("policy.yaml")).unwrap();
    watched.becomes(&["second"]);
}
