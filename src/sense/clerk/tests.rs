//! In which order errands are done, and what becomes of a table about which the warden changes its mind.

use std::fs::{self, File as Ordinary};
use std::time::Duration;

use super::*;
use crate::cgroup::path::GroupPath;
use crate::cgroup::root::Root;
use crate::policy::model::PsiKind;
use crate::sense::lms::Lines;

struct Module {
    dir: tempfile::TempDir,
    device: Arc<Lms>,
    changes: Arc<AtomicU64>,
}

impl Module {
    fn new() -> Module {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("oom_notifier");
        fs::write(&path, "").unwrap();
        let device = Arc::new(Lms::open(&path).unwrap().unwrap());
        Module { dir, device, changes: Arc::default() }
    }

    fn written(&self) -> String {
        fs::read_to_string(self.dir.path().join("oom_notifier")).unwrap()
    }
}

fn table() -> Box<Table> {
    let (mut table, mut lines) = (Box::<Table>::default(), Lines::default());
    lines.rule(0, false);
    assert!(lines.among("/t/*") && table.push(&lines));
    table
}

#[test]
fn a_table_goes_before_all_triggers_and_these_before_what_is_closed() {
    let module = Module::new();
    let dir = module.dir.path();
    let root = Arc::new(Root { path: dir.into(), dir: Ordinary::open(dir).unwrap().into() });
    let group = Arc::new(Group::open(&root, None, GroupPath::root()).unwrap());
    let psi = Psi { kind: PsiKind::Full, stall: Duration::from_millis(100), window: Duration::from_secs(1) };
    let (errands, inbox) = channel();
    let arm = |generation| Errand::Arm(Key { slot: 1, generation }, Arc::clone(&group), psi);
    errands.send(arm(1)).unwrap();
    errands.send(Errand::Close(Ordinary::open(dir).unwrap().into())).unwrap();
    errands.send(arm(2)).unwrap();
    let mut waiting = Waiting::default();
    let mut next = || match waiting.next(&inbox).unwrap() {
        Errand::Arm(key, ..) => format!("arm {}", key.generation),
        Errand::Close(_) => "close".to_owned(),
        Errand::Table(..) => "table".to_owned(),
    };
    assert_eq!(next(), "arm 1");
    // More is asked for while that is done.
    errands.send(arm(3)).unwrap();
    errands.send(Errand::Table(Arc::clone(&module.device), table(), Wanted::now(&module.changes))).unwrap();
    errands.send(arm(4)).unwrap();
    assert_eq!([next(), next(), next(), next(), next()], ["table", "arm 2", "arm 3", "arm 4", "close"]);
}

#[test]
fn a_table_that_is_wanted_no_longer_is_not_written() {
    let module = Module::new();
    let wanted = Wanted::now(&module.changes);
    module.changes.fetch_add(1, Ordering::SeqCst);
    assert_eq!(write_table(&module.device, &table(), &wanted), Tabled::Unwanted);
    assert_eq!(module.written(), "");
    assert_eq!(write_table(&module.device, &table(), &Wanted::now(&module.changes)), Tabled::Written(Ok(())));
    assert_eq!(module.written(), "table\nrule\namong /t/*\n");
}

#[test]
fn a_table_about_which_the_warden_changes_its_mind_in_mid_write_is_taken_back_by_the_clerk() {
    for (refused, result) in [(None, Ok(())), (Some(Errno::NOMEM), Err(Errno::NOMEM))] {
        let module = Module::new();
        *module.device.overtakes.lock().unwrap() = Some(Arc::clone(&module.changes));
        module.device.refuses.lock().unwrap().extend(refused.map(|errno| ("clear", errno)));
        assert_eq!(write_table(&module.device, &table(), &Wanted::now(&module.changes)), Tabled::TakenBack(result));
        let taken_back = if refused.is_none() { "clear\n" } else { "" };
        assert_eq!(module.written(), format!("table\nrule\namong /t/*\n{taken_back}"));
    }
}
