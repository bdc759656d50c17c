//! Whose end goes ahead of others', as a realtime task: victims of the handler and of the table, and nobody else who ends meanwhile.

use nix::sys::signal::Signal;

use super::lms_common::{Counters, called, fresh, handler, rounds, signal};
use super::lms_victims::status;
use crate::guest::group::{Group, MIB};
use crate::guest::lms::Notifier;
use crate::guest::system::Freezer;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};
use crate::workload::lms::SATISFIED;

/// Whether a process is a realtime task.
fn is_realtime(work: &Work) -> Outcome<bool> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", work.pid())).doing("read stat")?;
    // The 41st field, counted from behind the name.
    let policy = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(38)).unwrap_or_default();
    Ok(policy == "1")
}

/// Somebody in another group was sent SIGKILL by its owner, and can't end yet: it stays an ordinary process while a victim of the handler, or, by turns, the table's, is a
/// realtime task.
pub fn only_victims_go_ahead() -> Outcome {
    let mut freezer = Freezer::new()?;
    rounds("hold_ms=2000", 4, |round| {
        let (victim, tenant) = (fresh("victim", round)?, fresh("tenant", round)?);
        let start = |group: &Group, mib: u64, name: &str| -> Outcome<Work> {
            let work = Work::start(group, &format!("write mib={mib} file={}/{name}{round}", freezer.place.display()))?;
            group.wait_usage(mib * MIB)?;
            Ok(work)
        };
        let (mut dying, mut own) = (start(&victim, 20, "victim")?, start(&tenant, 3, "tenant")?);
        freezer.freeze()?;
        let judged = (|| {
            for work in [&dying, &own] {
                wait::until("the writer waits in the kernel", SOON, || Ok(status(work, "State: D (disk sleep)")))?;
            }
            signal(&own, Signal::SIGKILL)?;
            let _handler = match round % 2 {
                0 => handler(&format!("answer=never ms=100 adj=-1000 kill={}", victim.id()?))?,
                _ => handler(&format!("answer=kill adj=-1000 victim={}", victim.directory().display()))?,
            };
            let before = Counters::now()?;
            let greedy = Work::start(&fresh("greedy", round)?, "lms-want adj=-1000 more=5")?;
            wait::until("the victim's end is hastened", SOON, || is_realtime(&dying))?;
            ensure!(!is_realtime(&own)?, "somebody who was nobody's victim became a realtime task");
            freezer.thaw()?;
            called(&greedy, SATISFIED)?;
            ensure!(before.kernel_kills()? == 0, "the kernel killed: {}", before.story());
            Ok(())
        })();
        freezer.thaw()?;
        judged?;
        dying.must_be_killed()?;
        own.must_be_killed()
    })
}

/// An ack that names nobody hastens nobody, and one that names a group only those in it that were sent SIGKILL.
pub fn ack_hastens_whom_it_names() -> Outcome {
    let mut freezer = Freezer::new()?;
    rounds("hold_ms=2000", 2, |round| {
        let (above, beside) = (fresh("above", round)?, fresh("beside", round)?);
        let below = above.child("below")?;
        let start = |group: &Group, name: &str| -> Outcome<Work> {
            let work = Work::start(group, &format!("write mib=3 file={}/{name}{round}", freezer.place.display()))?;
            group.wait_usage(3 * MIB)?;
            Ok(work)
        };
        let mut three = [start(&below, "killed")?, start(&below, "alive")?, start(&beside, "beside")?];
        freezer.freeze()?;
        let judged = (|| {
            for work in &three {
                wait::until("the writer waits in the kernel", SOON, || Ok(status(work, "State: D (disk sleep)")))?;
            }
            signal(&three[0], Signal::SIGKILL)?;
            signal(&three[2], Signal::SIGKILL)?;
            let notifier = Notifier::open()?;
            notifier.command("handler 2000")?;
            let before = Counters::now()?;
            let _greedy = Work::start(&fresh("greedy", round)?, "hog mib=1000 term=ignore")?;
            let hold = wait::find("a hold begins", SOON, || Ok(Some(notifier.state()?.number("hold_seq")?).filter(|hold| *hold > 0)))?;
            let realtime = || three.iter().map(is_realtime).collect::<Outcome<Vec<_>>>();
            notifier.command(&format!("ack {hold}"))?;
            ensure!(realtime()? == [false; 3], "an ack without a group hastened somebody");
            notifier.command(&format!("ack {hold} {}", above.id()?))?;
            ensure!(realtime()? == [true, false, false], "not the one alone that the ack was about: {:?}", realtime()?);
            ensure!(before.of("holds")? == 1, "another hold: {}", before.story());
            Ok(())
        })();
        freezer.thaw()?;
        judged?;
        three[0].must_be_killed()?;
        three[2].must_be_killed()?;
        three[1].must_run("nobody killed it")
    })
}
