//! The table as a policy: rules over paths that a handler leaves, by which the module chooses when the shortage is there.

use nix::sys::signal::Signal;

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, ROUNDS, called, fresh, handler, rounds, short_of_memory, signal};
use crate::guest::group::Group;
use crate::guest::lms::{self, State};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};
use crate::workload::lms::SATISFIED;

const GREEDY: &str = "hog mib=1000 term=ignore";

/// A handler that never answers, with this table.
pub fn handler_with(table: &str) -> Outcome<Work> {
    const PLACE: &str = "/tmp/table";
    std::fs::write(PLACE, table).doing("write a table down")?;
    handler(&format!("answer=never ms=100 adj=-1000 table={PLACE}"))
}

/// The handler is stopped, or gone. Only then a group is made, below a listed one, and a hog starts in it: it dies by the table, though nobody could name
/// it. So does nobody in a group that is spared by its path, not even in one that was removed and made anew.
pub fn stopped_handlers_policy_finds_a_group_that_came_later() -> Outcome {
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (beside, spared) = (fresh("beside", round)?, fresh("spared", round)?);
        let mut small = Work::holding(&beside, 5)?;
        let handler = handler_with("table keep 600\nspare_path /t/spared*\nrule\namong /t/**")?;
        let _stopped = if round % 2 == 0 {
            signal(&handler, Signal::SIGSTOP)?;
            Some(handler)
        } else {
            drop(handler);
            wait::until("the handler is forgotten", SOON, || Ok(State::now()?.number("handler_pid")? == 0))?;
            None
        };
        let id = spared.id()?;
        spared.remove()?;
        let spared = fresh("spared", round)?;
        ensure!(spared.id()? != id, "the group that was made anew has its old id");
        let mut precious = Work::holding(&spared, 25)?;
        let late = fresh("late", round)?.child("below")?;
        let before = Counters::now()?;
        let mut greedy = Work::start(&late, GREEDY)?;
        greedy.must_be_killed()?;
        precious.must_run("its path is spared")?;
        small.must_run("it is smaller")?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing");
        Ok(())
    })
}

/// A small group of a low class dies before a large one; where it holds less than its rule's `at_least`, after it, even if that is a later rule's.
pub fn class_comes_before_size_and_at_least_before_class() -> Outcome {
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (low, high) = (fresh("low", round)?, fresh("high", round)?);
        let rules = match round % 4 {
            1 => "rule at_least=30000\namong /t/*",
            3 => "rule at_least=30000\namong /t/low*\nrule\namong /t/*",
            _ => "rule\namong /t/*",
        };
        // Of the two lines for a group the first counts, and a line for a group above it counts for it.
        let _handler = handler_with(&format!("table\nclass -100 /t/low*\nclass 7 /t/low*\nclass 0 /t\n{rules}"))?;
        let mut cheap = Work::holding(&low, 20)?;
        let before = Counters::now()?;
        let mut greedy = Work::start(&high, if round % 2 == 0 { "lms-want more=5" } else { GREEDY })?;
        if round % 2 == 0 {
            cheap.must_be_killed()?;
            called(&greedy, SATISFIED)?;
            greedy.must_run("the other one has a lower class")?;
        } else {
            greedy.must_be_killed()?;
            cheap.must_run("it holds less than it should")?;
        }
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing, or not one alone");
        Ok(())
    })
}

/// Who is in a group that holds a process of a certain name lives, and what is below; so does who is in a group with somebody whom the
/// kernel's own killer must not touch, where the rule does not say otherwise.
pub fn spared_by_path_or_comm_live() -> Outcome {
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (database, exempt, victim) = (fresh("database", round)?, fresh("exempt", round)?, fresh("victim", round)?);
        let unkillable = if round % 2 == 0 { "" } else { " unkillable" };
        let _handler = handler_with(&format!(
            "table\nspare_comm postgres\\x40x /t/*\nclass -3 /t/database*\nclass -2 /t/exempt*\nrule\namong /nobody/**\nrule{unkillable}\namong /t/**"
        ))?;
        let mut daemon = Work::start(&database, "hog mib=1 then=hold comm=postgres@x")?;
        // Without controllers, or nobody could stay in the group above it.
        let below = database.named("below");
        std::fs::create_dir(below.directory()).doing("make a group")?;
        let mut precious = Work::start(&below, "hog mib=5 then=hold")?;
        let mut protected = Work::start(&exempt, "hog mib=1 then=hold adj=-1000")?;
        let mut neighbour = Work::holding(&exempt, 30)?;
        let before = Counters::now()?;
        let mut greedy = Work::start(&victim, if round % 2 == 0 { GREEDY } else { "lms-want more=5" })?;
        if round % 2 == 0 {
            greedy.must_be_killed()?;
            neighbour.must_run("its group holds somebody who is exempt")?;
        } else {
            neighbour.must_be_killed()?;
            called(&greedy, SATISFIED)?;
            greedy.must_run("the other one has a lower class")?;
        }
        protected.must_run("it is exempt")?;
        daemon.must_run("its name is spared")?;
        precious.must_run("it is below a group that holds a spared name")?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing, or not one alone");
        Ok(())
    })
}

/// Two thousand processes in a thousand groups, fifty globs: how long a choice takes when the groups are not known yet.
pub fn time_to_choose_among_many() -> Outcome {
    lms::load_for_tests(&format!("{EXCITABLE} hold_ms=2000"))?;
    let crowd = Group::new("crowd")?;
    let work = Work::start(&crowd, &format!("spread of=2000 groups=1000 at={}", crowd.directory().display()))?;
    // Many, on a machine that may be busy.
    let comm = format!("/proc/{}/comm", work.pid());
    wait::until("all are there", 3 * SOON, || Ok(std::fs::read_to_string(&comm).doing("ask for its name")?.trim() == "spread"))?;
    // All of them are one candidate, and not the first.
    let mut table = "table\nclass 100 /crowd\n".to_owned();
    for at in 0..20 {
        table += &format!("spare_path /**/s{at}*/*.scope\nclass {at} /*/g*[{at}-9]?x{at}\n");
    }
    table += "rule at_least=1000\n";
    for at in 0..8 {
        table += &format!("among /**/nobody{at}*\n");
    }
    table += "among /**\n";
    let mut times = Vec::new();
    short_of_memory(3, |round| {
        let _handler = handler_with(&table)?;
        let before = Counters::now()?;
        lms::set("test_choose_us", 0)?;
        let mut greedy = Work::start(&fresh("greedy", round)?, GREEDY)?;
        greedy.must_be_killed()?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing");
        times.push(lms::parameter("test_choose_us")?.parse::<u32>().doing("understand a time")?);
        Ok(())
    })?;
    println!("{MEASURED}choice among 2,000 processes in 1,000 groups with 50 globs, groups not known before: {times:?} us");
    Ok(())
}
