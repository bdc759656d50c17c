//! On ordinary directories that stand in for groups; each errand is done at once, without the
//! thread.

use std::fs;
use std::path::Path;

use rustix::fs::{Mode, open};

use super::*;

struct Machine {
    dir: tempfile::TempDir,
    work: Work,
}

fn open_root(dir: &Path) -> Arc<Root> {
    let fd = open(dir.join("cgroup"), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    Arc::new(Root { path: dir.join("cgroup"), dir: fd })
}

impl Machine {
    fn new() -> Machine {
        let dir = tempfile::tempdir().unwrap();
        for name in ["cgroup", "state", "files"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let work = Machine::work(dir.path());
        Machine { dir, work }
    }

    fn work(dir: &Path) -> Work {
        let resets = IntCounter::new("resets", "resets").unwrap();
        let ledger = Ledger::open(StateDir::new(&dir.join("state")));
        let work = Work::new(open_root(dir), ledger, resets, Arc::new(AtomicBool::new(true)));
        Work { files: dir.join("files"), ..work }
    }

    /// The daemon died without a word, and another one was started.
    fn restart(self) -> Machine {
        let work = Machine::work(self.dir.path());
        Machine { work, ..self }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("cgroup").join(name).join("memory.oom.group")
    }

    /// Makes a group.
    fn group(&self, name: &str, value: &str) -> Arc<Group> {
        fs::create_dir_all(self.file(name).parent().unwrap()).unwrap();
        self.write(name, value);
        self.open(name)
    }

    fn open(&self, name: &str) -> Arc<Group> {
        Arc::new(Group::open(&open_root(self.dir.path()), None, GroupPath::from_bytes(name.as_bytes())).unwrap())
    }

    fn write(&self, name: &str, value: &str) {
        fs::write(self.file(name), format!("{value}\n")).unwrap();
    }

    fn value(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap().trim().to_owned()
    }

    fn values(&self, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| self.value(name)).collect()
    }

    fn take(&mut self, errands: Vec<Errand>) {
        assert!(self.work.take(errands).is_none());
    }

    fn end(&mut self) {
        let (done, _word) = sync_channel(1);
        assert!(self.work.take(vec![Errand::End(done)]).is_some());
    }

    fn is_remembered(&self) -> bool {
        self.dir.path().join("state").join(crate::state::oom_group::NAME).exists()
    }
}

#[test]
fn what_was_1_before_us_stays_1_and_what_we_set_is_taken_back_at_the_end() {
    let mut machine = Machine::new();
    let (ours, foreign) = (machine.group("ours", "0"), machine.group("foreign", "1"));
    machine.take(vec![Errand::Set(ours), Errand::Set(foreign)]);
    assert_eq!(machine.values(&["ours", "foreign"]), ["1", "1"]);
    assert!(machine.is_remembered());
    machine.end();
    assert_eq!(machine.values(&["ours", "foreign"]), ["0", "1"]);
    assert!(!machine.is_remembered(), "there is nothing left to remember");
}

#[test]
fn after_a_crash_it_knows_its_own_and_takes_back_what_the_policy_no_longer_names() {
    let mut machine = Machine::new();
    let errands = ["kept", "dropped", "foreign"].map(|name| machine.group(name, "0")).map(Errand::Set);
    machine.write("foreign", "1");
    machine.take(errands.into());
    assert_eq!(machine.values(&["kept", "dropped", "foreign"]), ["1", "1", "1"]);
    let mut machine = machine.restart();
    machine.take(vec![Errand::All(vec![machine.open("kept"), machine.open("foreign")])]);
    assert_eq!(machine.values(&["kept", "dropped", "foreign"]), ["1", "0", "1"]);
    let mut machine = machine.restart();
    machine.take(vec![Errand::All(vec![])]);
    assert_eq!(machine.values(&["kept", "dropped", "foreign"]), ["0", "0", "1"]);
    assert!(!machine.is_remembered());
}

#[test]
fn a_new_group_under_the_name_of_one_that_an_earlier_oomwarden_set_is_somebody_elses() {
    let mut machine = Machine::new();
    let group = machine.group("a", "0");
    machine.take(vec![Errand::Set(group)]);
    let mut machine = machine.restart();
    // Kept, so that its inode is not given away again at once, as the kernel's never are.
    fs::rename(machine.file("a").parent().unwrap(), machine.dir.path().join("aside")).unwrap();
    machine.group("a", "1");
    machine.take(vec![Errand::All(vec![])]);
    assert_eq!(machine.value("a"), "1");
    assert!(!machine.is_remembered());
}

#[test]
fn what_somebody_resets_is_set_again_and_counted_until_it_is_too_often() {
    let mut machine = Machine::new();
    let group = machine.group("a", "0");
    let id = group.id;
    machine.take(vec![Errand::Set(group)]);
    // Our own write is noticed too.
    machine.take(vec![Errand::Look(id)]);
    assert_eq!(machine.work.resets.get(), 0);
    for times in 1..MOST_RESETS {
        machine.write("a", "0");
        machine.take(vec![Errand::Look(id)]);
        assert_eq!((machine.value("a"), machine.work.resets.get()), ("1".to_owned(), times as u64));
    }
    machine.write("a", "0");
    machine.take(vec![Errand::Look(id)]);
    machine.take(vec![Errand::Look(id), Errand::All(vec![machine.open("a")])]);
    assert_eq!(machine.value("a"), "0", "left to whoever resets it");
    // What comes to be there later is not ours.
    machine.write("a", "1");
    machine.end();
    assert_eq!(machine.value("a"), "1");
}

#[test]
fn while_deeds_are_paused_nothing_is_set_and_everything_can_be_taken_back() {
    let mut machine = Machine::new();
    let (before, meanwhile) = (machine.group("before", "0"), machine.group("meanwhile", "0"));
    let id = before.id;
    machine.take(vec![Errand::Set(before)]);
    machine.work.may_set.store(false, Ordering::SeqCst);
    machine.write("before", "0");
    machine.take(vec![Errand::Set(meanwhile), Errand::Look(id)]);
    assert_eq!(machine.values(&["before", "meanwhile"]), ["0", "0"]);
    machine.work.may_set.store(true, Ordering::SeqCst);
    machine.take(vec![Errand::All(vec![machine.open("before"), machine.open("meanwhile")])]);
    assert_eq!(machine.values(&["before", "meanwhile"]), ["1", "1"]);
    machine.work.may_set.store(false, Ordering::SeqCst);
    machine.take(vec![Errand::All(vec![])]);
    assert_eq!(machine.values(&["before", "meanwhile"]), ["0", "0"]);
}

#[test]
fn a_group_that_must_no_longer_have_it_is_released_and_may_get_it_again() {
    let mut machine = Machine::new();
    let group = machine.group("a", "0");
    machine.take(vec![Errand::Set(Arc::clone(&group))]);
    machine.take(vec![Errand::Release(Arc::clone(&group))]);
    assert_eq!(machine.value("a"), "0");
    machine.take(vec![Errand::Release(Arc::clone(&group)), Errand::Set(Arc::clone(&group))]);
    assert_eq!(machine.value("a"), "1");
    machine.take(vec![Errand::Set(Arc::clone(&group)), Errand::Release(group)]);
    assert_eq!(machine.value("a"), "0");
}

#[test]
fn what_cannot_be_remembered_is_not_set_until_it_can() {
    let mut machine = Machine::new();
    let group = machine.group("a", "0");
    fs::rename(machine.dir.path().join("state"), machine.dir.path().join("aside")).unwrap();
    machine.take(vec![Errand::Set(group)]);
    assert_eq!(machine.value("a"), "0");
    assert!(machine.work.failed, "it is tried again");
    fs::rename(machine.dir.path().join("aside"), machine.dir.path().join("state")).unwrap();
    machine.take(vec![]);
    assert_eq!(machine.value("a"), "1");
    assert!(!machine.work.failed);
}

#[test]
fn a_unit_with_oompolicy_continue_is_left_alone() {
    let mut machine = Machine::new();
    let unit = machine.dir.path().join("files/etc/systemd/system");
    fs::create_dir_all(&unit).unwrap();
    fs::write(unit.join("many.service"), "[Service]\nOOMPolicy=continue\n").unwrap();
    let errands = ["many.service", "one.service"].map(|name| machine.group(name, "0")).map(Errand::Set);
    machine.take(errands.into());
    assert_eq!(machine.values(&["many.service", "one.service"]), ["0", "1"]);
}

#[test]
fn a_group_that_is_gone_is_forgotten() {
    let mut machine = Machine::new();
    let (gone, there) = (machine.group("gone", "0"), machine.group("there", "0"));
    let (gone_id, there_id) = (gone.id, there.id);
    machine.take(vec![Errand::Set(gone), Errand::Set(there)]);
    fs::remove_dir_all(machine.file("gone").parent().unwrap()).unwrap();
    machine.take(vec![Errand::Gone(gone_id), Errand::Gone(there_id)]);
    assert!(!machine.work.ledger.holds(gone_id));
    // It merely left the tree, say because its parent could not be read for a moment.
    assert!(machine.work.ledger.holds(there_id));
    machine.end();
    assert_eq!(machine.value("there"), "0");
}
