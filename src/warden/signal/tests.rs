//! Being the module's handler, on an ordinary file: what is written, in which order, and what is left when a write is refused.

use std::fs;
use std::path::PathBuf;

use nix::sys::eventfd::{EfdFlags, EventFd};
use rustix::io::Errno;

use super::*;
use crate::policy::{Source, load};
use crate::sense::clerk::{Reply, Tabled};
use crate::sense::lms::{Lines, REPORT};

const ANSWERS: &str = "
version: 1
rules:
  - {name: node-oom, watch: /, when: [lms: oom], victim: {among: \"/t/*\"}}
kernel: {hold: 700ms}
";
const HEARS_ONLY: &str = "
version: 1
rules:
  - {name: early, watch: /, when: [lms: warn], victim: {among: \"/t/*\"}}
";

fn policy(text: &str) -> Policy {
    load(&[Source::new("test", text)]).unwrap().policy
}

/// A file that is read for what the module says; what is written to it stands behind that.
struct Module {
    _dir: tempfile::TempDir,
    path: PathBuf,
    /// How much had been written when it said something last.
    said: u64,
    signal: Signal,
    buffer: ReadBuf,
}

impl Module {
    fn new() -> Module {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("oom_notifier");
        fs::write(&path, "").unwrap();
        let signal = Signal::open(&path);
        Module { _dir: dir, path, said: 0, signal, buffer: ReadBuf::new() }
    }

    /// The module says something, and it is read.
    fn says(&mut self, text: &str) -> Option<LmsFacts> {
        self.said = self.written();
        fs::write(&self.path, text).unwrap();
        self.signal.look(&mut self.buffer)
    }

    /// A hold with this number is under way, and others have asked so many times.
    fn holds(&mut self, seq: u64, calls: u64) {
        let text = REPORT.lines().map(|line| match line.split_once(' ').unwrap_or_default() {
            ("level", _) => "level oom\n".to_owned(),
            ("seq" | "hold_seq", _) => format!("{} {seq}\n", line.split(' ').next().unwrap_or_default()),
            ("calls", _) => format!("calls {calls}\n"),
            _ => format!("{line}\n"),
        });
        let text: String = text.collect();
        assert!(self.says(&text).is_some(), "{text}");
    }

    fn is_quiet(&mut self) {
        let text = REPORT.replace("level kill", "level ok");
        assert!(self.says(&text).is_some());
    }

    fn written(&self) -> u64 {
        let device = self.signal.device().unwrap();
        rustix::fs::seek(device.as_ref(), rustix::fs::SeekFrom::Current(0)).unwrap()
    }

    /// The commands since the module said something. Each stands behind the one before, whatever the file held meanwhile.
    fn commands(&self) -> Vec<String> {
        let (from, to) = (usize::try_from(self.said).unwrap(), usize::try_from(self.written()).unwrap());
        let bytes = fs::read(&self.path).unwrap();
        String::from_utf8_lossy(bytes.get(from..to).unwrap_or_default()).lines().map(str::to_owned).collect()
    }

    /// Makes a table with a candidate and hands it to the clerk, until the module has it or has refused it.
    fn makes_table(&mut self, glob: &str, now: Duration) {
        let rule = one_rule(glob);
        self.makes(&rule, now);
    }

    fn makes(&mut self, lines: &Lines, now: Duration) {
        let mail = std::sync::Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC).unwrap());
        let clerk = Clerk::start(Arc::clone(&mail)).unwrap();
        let mut table = self.signal.begin_table(now).unwrap();
        assert!(table.push(lines));
        self.signal.write_table(table, &clerk);
        if self.signal.spare.is_none() {
            mail.read().unwrap();
            let Some(Reply::Table(table, tabled)) = clerk.reply() else { panic!("no table") };
            self.signal.table_written(table, tabled, now);
        }
    }

    fn refuses(&self, command: &'static str, errno: Errno) {
        self.signal.device().unwrap().refuses.lock().unwrap().push((command, errno));
    }

    fn refuses_nothing(&self) {
        self.signal.device().unwrap().refuses.lock().unwrap().clear();
    }

    fn enlist(&mut self, text: &str) {
        let node = NodeFacts { swap_total_bytes: 4096, ..NodeFacts::default() };
        self.signal.enlist(&policy(text), &node, Duration::ZERO);
    }
}

fn one_rule(glob: &str) -> Lines {
    let mut lines = Lines::default();
    lines.rule(0, false);
    assert!(lines.among(glob));
    lines
}

#[test]
fn handler_says_how_long_and_how_much_swap_and_makes_a_table_at_once() {
    let mut module = Module::new();
    module.enlist(ANSWERS);
    assert_eq!(module.commands(), ["clear", "handler 700", "swap_total 4"]);
    assert!(module.signal.is_enlisted());
    assert_eq!(module.signal.table_due(), Some(Duration::ZERO));
}

#[test]
fn policy_that_answers_no_hold_asks_for_none() {
    let mut module = Module::new();
    module.enlist(HEARS_ONLY);
    assert!(module.commands().is_empty() && !module.signal.is_enlisted());
    module.holds(9, 1);
    assert_eq!(module.signal.take_unanswered(), None, "somebody else's hold");
}

#[test]
fn who_is_refused_hears_levels_and_answers_nothing() {
    for errno in [Errno::BUSY, Errno::PERM, Errno::INVAL] {
        let mut module = Module::new();
        module.refuses("handler", errno);
        module.enlist(ANSWERS);
        assert!(!module.signal.is_enlisted());
        assert_eq!(module.signal.table_due(), None);
        module.holds(9, 1);
        assert!(module.signal.take_news());
        assert_eq!(module.signal.take_unanswered(), None);
    }
}

/// Its handler may have ended after it refused the clear, and have left its table in force.
#[test]
fn table_that_could_not_be_emptied_before_we_are_the_handler_is_emptied_then() {
    let mut module = Module::new();
    assert!(module.says(REPORT).is_some());
    module.refuses("clear", Errno::BUSY);
    module.enlist(ANSWERS);
    assert_eq!(module.commands(), ["handler 700", "swap_total 4"]);
    assert!(module.signal.is_enlisted() && !module.signal.is_settled(), "the module may have any table");
    module.refuses_nothing();
    module.is_quiet();
    module.makes(&Lines::default(), Duration::ZERO);
    assert_eq!(module.commands(), ["clear"], "ours lets nobody die");
    assert!(module.signal.is_settled());
}

#[test]
fn refused_registration_is_tried_again_but_for_lack_of_rights() {
    let half_a_minute = Duration::from_secs(30);
    for (errno, again) in [(Errno::BUSY, true), (Errno::NOMEM, true), (Errno::MFILE, true), (Errno::PERM, false), (Errno::ACCESS, false)] {
        let mut module = Module::new();
        module.refuses("handler", errno);
        module.enlist(ANSWERS);
        assert_eq!(module.signal.enlist_due(), again.then_some(half_a_minute));
        assert_eq!(module.signal.refusal().is_some(), again, "{errno}");
        module.refuses_nothing();
        module.enlist(ANSWERS);
        assert!(module.signal.is_enlisted());
        assert_eq!((module.signal.enlist_due(), module.signal.refusal()), (None, None));
    }
    // Who would not answer asks no more.
    let mut module = Module::new();
    module.refuses("handler", Errno::BUSY);
    module.enlist(ANSWERS);
    assert!(module.signal.refusal().unwrap().contains("another process is its handler"));
    module.signal.retire(Duration::ZERO);
    assert_eq!((module.signal.enlist_due(), module.signal.refusal()), (None, None));
}

#[test]
fn half_a_registration_is_taken_back() {
    let mut module = Module::new();
    module.refuses("swap_total", Errno::INVAL);
    module.enlist(ANSWERS);
    assert_eq!(module.commands(), ["clear", "handler 700", "release"]);
    assert!(!module.signal.is_enlisted());
}

#[test]
fn leaving_empties_the_table_and_releases_whatever_comes_of_either() {
    let steps = ["clear", "release"];
    for refused in [None, Some("clear"), Some("release")] {
        let mut module = Module::new();
        module.enlist(ANSWERS);
        if let Some(command) = refused {
            module.refuses(command, Errno::IO);
        }
        module.signal.retire(Duration::ZERO);
        let expected: Vec<&str> = steps.into_iter().filter(|step| Some(*step) != refused).collect();
        assert_eq!(module.commands().get(3..).unwrap(), expected);
        assert!(!module.signal.is_enlisted());
        module.holds(9, 1);
        assert_eq!(module.signal.take_unanswered(), None);
    }
}

#[test]
fn handler_that_is_refused_later_leaves_no_table() {
    let mut module = Module::new();
    module.enlist(ANSWERS);
    module.refuses("handler", Errno::PERM);
    module.enlist(ANSWERS);
    assert!(!module.signal.is_enlisted());
    assert_eq!(module.commands().get(3..).unwrap(), ["clear", "release"]);
}

/// What a daemon left that died stays in force for minutes: none of our holds is to end by it.
#[test]
fn left_over_is_taken_back_before_we_are_the_handler_and_by_who_is_none() {
    let (left, none) =
        (REPORT.to_owned(), REPORT.replace("table_rules 3", "table_rules 0").replace("table_kill_ids 4", "table_kill_ids 0"));
    for (says, clears) in [(&left, true), (&none, false)] {
        let mut module = Module::new();
        assert!(module.says(says).is_some());
        module.enlist(ANSWERS);
        let expected = ["clear", "handler 700", "swap_total 4"].into_iter().skip(usize::from(!clears));
        assert_eq!(module.commands(), expected.collect::<Vec<_>>());
        // Our own is replaced, and not before it has to be.
        module.enlist(ANSWERS);
        assert_eq!(module.commands().iter().filter(|command| *command == "clear").count(), usize::from(clears));

        let mut module = Module::new();
        assert!(module.says(says).is_some());
        module.signal.clear_left_over(Duration::ZERO);
        assert_eq!(module.commands().len(), usize::from(clears));
    }
    // Without a word of the module there may be one.
    let mut module = Module::new();
    module.signal.clear_left_over(Duration::ZERO);
    assert_eq!(module.commands(), ["clear"]);
    // Somebody's who is alive.
    let mut module = Module::new();
    module.is_quiet();
    module.refuses("clear", Errno::BUSY);
    module.signal.clear_left_over(Duration::ZERO);
    assert_eq!(module.signal.table_due(), None);
}

/// The module may have any table then: the next one is written whatever it says, and until then it is tried again to empty it.
#[test]
fn refused_clear_is_not_taken_for_done() {
    let second = Duration::from_secs(1);
    let mut module = Module::new();
    module.is_quiet();
    module.enlist(ANSWERS);
    module.makes_table("/t/*", Duration::ZERO);
    module.refuses("clear", Errno::NOMEM);
    module.signal.withdraw_table(second);
    assert!(!module.signal.is_settled());
    module.refuses_nothing();
    module.is_quiet();
    // As the policy has it by now nobody may die, which is what we have taken it for.
    module.makes(&Lines::default(), second);
    assert_eq!(module.commands(), ["clear"]);
    assert!(module.signal.is_settled());
    assert_eq!(module.signal.table_due(), None);

    // Without a table to come.
    module.signal.table_outdated(3 * second);
    module.makes_table("/t/*", 3 * second);
    module.refuses("clear", Errno::NOMEM);
    module.signal.retire(4 * second);
    module.is_quiet();
    assert!(!module.signal.is_settled());
    assert_eq!(module.signal.table_due(), Some(5 * second));
    module.signal.empty_again(5 * second);
    assert_eq!((module.commands().len(), module.signal.table_due()), (0, Some(6 * second)));
    module.refuses_nothing();
    module.signal.empty_again(5 * second);
    assert!(module.commands().is_empty(), "it is not time");
    module.signal.empty_again(6 * second);
    assert_eq!(module.commands(), ["clear"]);
    assert!(module.signal.is_settled() && module.signal.table_due().is_none());
}

#[test]
fn clear_that_is_forbidden_is_not_tried_again_and_the_next_table_is_written() {
    let mut module = Module::new();
    module.is_quiet();
    module.enlist(ANSWERS);
    module.makes_table("/t/*", Duration::ZERO);
    module.refuses("clear", Errno::PERM);
    module.signal.retire(Duration::ZERO);
    assert!(module.signal.is_settled());
    assert_eq!(module.signal.table_due(), None);
    module.refuses_nothing();
    module.enlist(ANSWERS);
    module.is_quiet();
    module.makes(&Lines::default(), Duration::ZERO);
    assert!(module.commands().is_empty(), "emptied when we became the handler: {:?}", module.commands());
}

/// The warden changes its mind about a table while the clerk has it: that is in force no more, whichever comes first, and the next one is
/// written though it says the same.
#[test]
fn table_that_was_overtaken_is_not_taken_for_the_modules() {
    for (tabled, sure) in [
        (Tabled::Unwanted, true),
        (Tabled::Written(Ok(())), true),
        (Tabled::Written(Err(Errno::NOMEM)), true),
        (Tabled::TakenBack(Ok(())), true),
        (Tabled::TakenBack(Err(Errno::NOMEM)), false),
    ] {
        let mut module = Module::new();
        module.is_quiet();
        module.enlist(ANSWERS);
        // The clerk does nothing by itself here.
        let mut table = module.signal.begin_table(Duration::ZERO).unwrap();
        assert!(table.push(&one_rule("/t/*")));
        module.signal.sent = module.signal.changes.load(Ordering::SeqCst);
        module.signal.withdraw_table(Duration::ZERO);
        module.signal.table_written(table, tabled, Duration::ZERO);
        assert_eq!(module.signal.is_settled(), sure, "{tabled:?}");
        module.is_quiet();
        module.makes_table("/t/*", Duration::ZERO);
        assert_eq!(module.commands(), ["table keep 600", "rule", "among /t/*"], "{tabled:?}");
        assert!(module.signal.is_settled());
    }
}

/// vm.panic_on_oom is looked at where it makes a difference: where we are the handler, or would be.
#[test]
fn panic_on_oom_wakes_nobody_who_answers_no_hold() {
    let mut module = Module::new();
    let setting = module.path.with_file_name("sys/vm/panic_on_oom");
    fs::create_dir_all(setting.parent().unwrap()).unwrap();
    fs::write(&setting, "1\n").unwrap();
    module.signal = Signal::open(&module.path);
    module.signal.mind_panic(false);
    assert!(!module.signal.look_at_panic(Duration::ZERO) && !module.signal.kernel_panics());
    assert_eq!(module.signal.panic_due(), None, "nobody would answer");
    module.signal.mind_panic(true);
    assert!(module.signal.look_at_panic(Duration::ZERO) && module.signal.kernel_panics());
    assert!(module.signal.panic_due().is_some(), "we would be the handler without it");
    fs::write(&setting, "0\n").unwrap();
    assert!(module.signal.look_at_panic(Duration::ZERO));
    assert_eq!(module.signal.panic_due(), None, "another process is the handler");
    module.enlist(ANSWERS);
    assert!(module.signal.panic_due().is_some());
    module.signal.retire(Duration::ZERO);
    assert_eq!(module.signal.panic_due(), None);
}

/// What the clerk was about to write when we left must not stay in force, also if we are the handler again before it is written.
#[test]
fn table_that_was_under_way_is_taken_back() {
    for again in [false, true] {
        let mut module = Module::new();
        module.is_quiet();
        module.enlist(ANSWERS);
        let mail = std::sync::Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC).unwrap());
        let clerk = Clerk::start(Arc::clone(&mail)).unwrap();
        let mut table = module.signal.begin_table(Duration::ZERO).unwrap();
        assert!(table.push(&one_rule("/t/*")));
        module.signal.write_table(table, &clerk);
        assert!(!module.signal.is_settled());
        module.signal.retire(Duration::ZERO);
        if again {
            module.enlist(ANSWERS);
        }
        mail.read().unwrap();
        let Some(Reply::Table(table, tabled)) = clerk.reply() else { panic!("no table") };
        module.signal.table_written(table, tabled, Duration::ZERO);
        assert!(module.signal.is_settled());
        let commands = module.commands();
        let last = |word: &str| commands.iter().rposition(|command| command.starts_with(word));
        assert!(last("table") < last("clear"), "{commands:?}");
        assert_eq!(module.signal.table_due().is_some(), again);
    }
}

#[test]
fn hold_is_answered_once_and_again_only_if_somebody_asks_after_the_victims_end() {
    let ms = Duration::from_millis;
    let mut module = Module::new();
    module.enlist(ANSWERS);
    module.holds(9, 5);
    assert_eq!(module.signal.take_unanswered(), Some(9));
    assert_eq!(module.signal.take_unanswered(), None);
    module.signal.relieved(ms(10));
    let due = module.signal.relook_due().unwrap();
    module.holds(9, 5);
    module.signal.relook(due);
    assert_eq!(module.signal.take_unanswered(), None, "nobody has asked");
    let due = module.signal.relook_due().unwrap();
    module.holds(9, 6);
    module.signal.relook(due);
    assert_eq!(module.signal.take_unanswered(), Some(9));
    assert_eq!(module.signal.relook_due(), None);
    module.signal.relieved(ms(90));
    module.is_quiet();
    module.signal.relook(ms(200));
    assert_eq!(module.signal.relook_due(), None, "the hold is over");
    module.holds(12, 7);
    assert_eq!(module.signal.take_unanswered(), Some(12));
}

#[test]
fn text_that_is_not_understood_is_news_once_and_no_level() {
    let mut module = Module::new();
    module.holds(9, 5);
    assert!(module.signal.take_news());
    assert_eq!(module.says("level furious\n"), None);
    assert!(module.signal.take_news(), "the gauges have to fall");
    assert!(module.signal.report().is_none());
    assert_eq!(module.says("level furious\n"), None);
    assert!(!module.signal.take_news());
    module.holds(9, 5);
    assert!(module.signal.take_news());
}

/// It says nothing of what groups hold: while nobody tells of a change there is no time at which to look at it.
#[test]
fn table_is_made_once_and_again_only_when_something_tells_of_a_change() {
    let second = Duration::from_secs(1);
    let mut module = Module::new();
    module.is_quiet();
    module.enlist(ANSWERS);
    module.makes_table("/t/*", Duration::ZERO);
    let table = ["table keep 600", "rule", "among /t/*"];
    assert_eq!(module.commands(), [["clear", "handler 700", "swap_total 4"].as_slice(), &table].concat());
    assert_eq!(module.signal.table_due(), None);
    module.holds(9, 5);
    assert_eq!(module.signal.table_due(), None, "a shortage changes no policy");
    module.is_quiet();
    // Groups come and go in a storm.
    for ms in [100, 200, 900] {
        module.signal.table_outdated(Duration::from_millis(ms));
        assert_eq!(module.signal.table_due(), Some(second));
    }
    assert!(module.signal.begin_table(second / 2).is_none());
    module.makes_table("/t/*", second);
    assert!(module.commands().is_empty(), "the same table is not written again: {:?}", module.commands());
    assert_eq!(module.signal.table_due(), None);
    module.signal.table_outdated(5 * second);
    module.makes_table("/u/*", 5 * second);
    assert_eq!(module.commands(), ["table keep 600", "rule", "among /u/*"]);
}

#[test]
fn refused_table_is_tried_again_but_for_one_that_is_not_understood() {
    let second = Duration::from_secs(1);
    for (errno, again) in [(Errno::NOMEM, Some(second)), (Errno::INVAL, None)] {
        let mut module = Module::new();
        module.is_quiet();
        module.enlist(ANSWERS);
        module.refuses("table", errno);
        module.makes_table("/t/*", Duration::ZERO);
        assert_eq!(module.signal.table_due(), again);
        let cleared = module.commands().iter().skip(1).any(|command| command == "clear");
        assert_eq!(cleared, errno == Errno::INVAL, "an older table could let somebody die who must live by now");
    }
}

/// What the daemon would write means something else to it, or nothing.
#[test]
fn module_of_another_interface_has_a_handler_and_no_table() {
    for interface in ["interface 3\n", "interface 1\n", ""] {
        let mut module = Module::new();
        assert!(module.says(&REPORT.replace("interface 2\n", interface)).is_some());
        module.enlist(ANSWERS);
        assert_eq!(module.commands(), ["clear", "handler 700", "swap_total 4", "clear"], "what an older oomwarden left is taken back");
        assert!(module.signal.is_enlisted() && module.signal.lacks().is_some());
        assert_eq!(module.signal.table_due(), None);
        module.signal.table_outdated(Duration::from_secs(2));
        assert!(module.signal.begin_table(Duration::from_secs(2)).is_none());
        assert_eq!(module.signal.table_due(), None, "no wake-ups for it");
        assert!(module.signal.hold().is_some() || module.signal.report().is_some_and(|report| report.hold_seq.is_none()));
    }
}

#[test]
fn table_waits_until_it_is_understood_what_the_module_says() {
    let mut module = Module::new();
    module.enlist(ANSWERS);
    assert!(module.signal.begin_table(Duration::ZERO).is_none());
    assert_eq!(module.signal.table_due(), None);
    module.is_quiet();
    assert_eq!(module.signal.table_due(), Some(Duration::ZERO));
    assert!(module.signal.begin_table(Duration::ZERO).is_some());
}
