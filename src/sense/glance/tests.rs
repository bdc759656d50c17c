use std::fs;

use super::*;
use crate::policy::{self, Source};

/// A tree of ordinary files below `/t`, and a policy.
struct Place {
    dir: tempfile::TempDir,
    root: Arc<Root>,
    policy: Arc<Policy>,
}

impl Place {
    fn new(exclude: &str) -> Place {
        // In memory, so that many groups cost nothing.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        let text = format!("version: 1\n{exclude}rules:\n  - name: r\n    watch: /t\n    when:\n      - event: oom\n");
        let policy = Arc::new(policy::load(&[Source::new("test", text)]).unwrap().policy);
        let place = Place { root: Arc::new(Root { path: dir.path().into(), dir: fd }), dir, policy };
        place.group("t", "");
        place
    }

    fn group(&self, path: &str, procs: &str) -> GroupId {
        let path = self.dir.path().join(path);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("cgroup.procs"), procs).unwrap();
        GroupId(std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap()))
    }

    fn ask(&self, known: &[GroupId]) -> Ask {
        let group = Group::open(&self.root, None, GroupPath::root().child(b"t")).unwrap();
        let class = self.policy.classify(b"/t", Some(&self.policy.classify(b"/", None)));
        let (policy, known) = (Arc::clone(&self.policy), known.iter().copied().collect());
        Ask { group: Arc::new(group), class, policy, known, spare_unkillable: true, by: Instant::now() + Duration::from_secs(30) }
    }

    fn seen(&self, ask: &Ask) -> Vec<Seen> {
        let mut seen = Vec::new();
        look(&self.root, ask, &mut Processes::open().unwrap(), &mut |one| seen.push(one));
        seen
    }
}

const FREE: [Seen; 2] = [Seen::Names { guarded: false }, Seen::Nobody];

#[test]
fn names_tell_of_excluded_groups_at_any_depth() {
    let place = Place::new("exclude:\n  - /t/*/*/keep\n");
    place.group("t/a/b", "");
    assert_eq!(place.seen(&place.ask(&[])), FREE);
    place.group("t/a/b/keep", "");
    assert_eq!(place.seen(&place.ask(&[])), [Seen::Somebody]);
}

#[test]
fn processes_are_looked_at_only_where_the_tree_has_not_been_told_of_the_group() {
    let own = std::process::id().to_string();
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    let place = Place::new(&format!("exclude:\n  - {{group: /t/**, comm: \"{}\"}}\n", comm.trim_end()));
    let known = place.group("t/known", &own);
    assert_eq!(place.seen(&place.ask(&[known])), FREE, "what is known is judged with the tree");
    assert_eq!(place.seen(&place.ask(&[])), [Seen::Names { guarded: true }, Seen::Somebody]);
    place.group("t/known", "");
    assert_eq!(place.seen(&place.ask(&[])), [Seen::Names { guarded: true }, Seen::Nobody]);
    place.group("t/init", "1\n");
    assert_eq!(place.seen(&place.ask(&[known])).last(), Some(&Seen::Somebody), "process 1");
    place.group("t/init", "0\n");
    assert_eq!(place.seen(&place.ask(&[known])).last(), Some(&Seen::Somebody), "of another pid namespace");
}

#[test]
fn a_look_that_has_no_more_time_tells_what_it_has_seen() {
    let place = Place::new("exclude:\n  - /u/keep\n");
    place.group("t/a", "");
    let late = Ask { by: Instant::now(), ..place.ask(&[]) };
    assert_eq!(place.seen(&late), [], "not even the names");
}

#[test]
fn six_thousand_names_are_gone_over_well_within_the_limit() {
    let place = Place::new("exclude:\n  - /t/*/keep\n");
    let known: Vec<GroupId> = (0..6000)
        .map(|at| {
            let path = place.dir.path().join(format!("t/{at}"));
            fs::create_dir(&path).unwrap();
            GroupId(std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap()))
        })
        .collect();
    let ask = place.ask(&known);
    let began = Instant::now();
    assert_eq!(place.seen(&ask), FREE);
    assert!(began.elapsed() < LOOK_LIMIT, "{:?}", began.elapsed());
}
