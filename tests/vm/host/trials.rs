//! Each scenario as a test of libtest-mimic. One virtual machine at a time, booted when its first scenario is due.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};

use super::every;
use super::kernel::{Kernel, Series};
use super::kmod;
use super::machine::Machine;
use super::vm::{Ended, Vm};
use crate::outcome::Outcome;
use crate::scenarios::{self, Scenario};

/// A test that needs a kernel's package and no machine.
type HostTest = fn(&Kernel) -> Outcome;

const HOST_TESTS: [(&str, HostTest); 2] =
    [("module::builds_without_a_warning", kmod::build_all), ("module::sparse_is_clean", kmod::sparse_all)];

/// The tests.
pub fn run() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // There is one machine at a time, and numbers measured beside another test would mean little.
    arguments.test_threads = Some(1);
    let skip = std::env::var_os("OOMWARDEN_VM").is_some_and(|value| value == "skip");
    if skip && !arguments.list {
        println!("vm: every scenario is ignored because OOMWARDEN_VM=skip is set");
    }
    let long = std::env::var_os("OOMWARDEN_VM_LONG").is_some();
    let stage = Arc::new(Mutex::new(Stage::default()));
    let failures = Failures::default();
    let mut trials = Vec::new();
    for series in Series::ALL {
        for (name, test) in HOST_TESTS {
            let run = move || Kernel::find(series).and_then(|kernel| test(&kernel));
            trials.push(failures.noting(format!("{series}::{name}"), run).with_ignored_flag(skip));
        }
        for scenario in by_machine() {
            trials.push(in_a_machine(series, scenario, &stage, &failures).with_ignored_flag(skip));
        }
    }
    if long && !skip {
        trials.extend(on_real_time(&stage, &failures));
        // What there is has to be asked for, which takes its time.
        if arguments.filter.as_ref().is_none_or(|filter| filter.contains("every")) {
            trials.extend(for_every_kernel(&failures));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    failures.print();
    // Ends the last machine before the process does.
    stage.lock().unwrap_or_else(PoisonError::into_inner).machine = None;
    conclusion.exit_code()
}

/// All scenarios, those of each kind of machine together.
fn by_machine() -> impl Iterator<Item = Scenario> {
    Machine::ALL.iter().flat_map(|machine| scenarios::all().filter(move |scenario| scenario.machine == *machine))
}

/// Whether a scenario is about the kernel module by itself.
fn is_the_modules(scenario: &Scenario) -> bool {
    scenario.name.starts_with("lms_") && !scenario.name.starts_with("lms_daemon")
}

/// A scenario as a test.
fn in_a_machine(series: Series, scenario: Scenario, stage: &Arc<Mutex<Stage>>, failures: &Failures) -> Trial {
    let stage = Arc::clone(stage);
    let run = move || {
        let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
        stage.run(series, scenario)
    };
    failures.noting(format!("{series}::{}", scenario.name), run)
}

/// Our module on kernels with PREEMPT_RT.
fn on_real_time(stage: &Arc<Mutex<Stage>>, failures: &Failures) -> Vec<Trial> {
    let mut trials = Vec::new();
    for series in Series::REAL_TIME {
        for (name, test) in HOST_TESTS {
            let run = move || Kernel::find(series).and_then(|kernel| test(&kernel));
            trials.push(failures.noting(format!("{series}::{name}"), run));
        }
        for scenario in by_machine().filter(is_the_modules) {
            trials.push(in_a_machine(series, scenario, stage, failures));
        }
    }
    trials
}

/// Our module built for every kernel that Debian has.
fn for_every_kernel(failures: &Failures) -> Vec<Trial> {
    let every = match every::every() {
        Ok(every) => every,
        Err(why) => return vec![failures.noting("every::kernel_of_debian_is_to_be_had".to_owned(), move || Err(why))],
    };
    let trial = |headers: every::Headers| {
        let name = format!("every::{}::module_builds_without_a_warning", headers.name);
        failures.noting(name, move || headers.check())
    };
    every.into_iter().map(trial).collect()
}

/// Names of failed tests, each with its message's first line. The runner's closing list has names alone, far below what they failed of; where only
/// the end of what a run says is kept, the message would be lost.
#[derive(Clone, Default)]
struct Failures(Arc<Mutex<Vec<(String, String)>>>);

impl Failures {
    /// A test whose failure is noted.
    fn noting(&self, name: String, run: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
        let (failures, failed) = (self.clone(), name.clone());
        Trial::test(name, move || {
            run().map_err(|why| {
                let line = why.lines().next().unwrap_or_default().to_owned();
                failures.0.lock().unwrap_or_else(PoisonError::into_inner).push((failed, line));
                Failed::from(why)
            })
        })
    }

    fn print(&self) {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !failures.is_empty() {
            println!("failures:");
        }
        for (name, line) in failures.iter() {
            println!("    {name}: {line}");
        }
    }
}

/// Boots `series` and runs one scenario with all that it prints, for the demo.
pub fn show(series: Series, scenario: Scenario) -> Outcome {
    let kernel = Kernel::find(series)?;
    let mut vm = Vm::boot(&kernel, scenario.machine)?;
    match vm.run(&scenario, &mut |line| println!("{line}")) {
        Ended::Well => Ok(()),
        Ended::Badly(message) | Ended::Unusable(message) => Err(message),
    }
}

/// The machine that is up, if any, and what could not be had.
#[derive(Default)]
struct Stage {
    machine: Option<(Series, Machine, Vm)>,
    /// A kernel that could not be found or booted is not tried again for every scenario.
    unavailable: Vec<(Series, Machine, String)>,
}

/// Whether the guest's kernel crashed without a foreign module in it. 6.1 was seen to do so in a storm of groups
/// (memcg_reparent_list_lrus), which is a fault of its own and shows nothing about a scenario.
fn died_by_itself(why: &str) -> bool {
    let crashed = ["Oops", "detected stalls on CPUs", "exited with preempt_count", "Kernel panic"].iter().any(|sign| why.contains(sign));
    // The taints G (none of these), W (it warned) and D (it died); O would be our module.
    crashed && why.contains("Tainted: G      D") && !why.contains("oomwarden_lms")
}

impl Stage {
    fn run(&mut self, series: Series, scenario: Scenario) -> Outcome {
        let ended = self.attempt(series, scenario);
        if let Err(why) = &ended
            && died_by_itself(why)
        {
            println!("[{series} {}] the kernel crashed with nothing of ours loaded; once more on a fresh machine:\n{why}", scenario.name);
            return self.attempt(series, scenario);
        }
        ended
    }

    fn attempt(&mut self, series: Series, scenario: Scenario) -> Outcome {
        let mut said = Vec::new();
        let ended = {
            let vm = self.machine(series, scenario.machine)?;
            vm.run(&scenario, &mut |line| {
                if let Some(numbers) = line.strip_prefix(scenarios::MEASURED) {
                    println!("[{series} {}] {numbers}", scenario.name);
                }
                said.push(line.to_owned());
            })
        };
        let (message, console) = match ended {
            Ended::Well => return Ok(()),
            Ended::Badly(message) => (message, None),
            Ended::Unusable(message) => (message, self.machine.take().map(|(.., vm)| vm.console_tail())),
        };
        let mut text = message;
        if !said.is_empty() {
            text.push_str("\n--- what the scenario printed:\n");
            text.push_str(&said.join("\n"));
        }
        if let Some(console) = console {
            text.push_str("\n--- last lines of the kernel's console:\n");
            text.push_str(&console);
        }
        // At once: the runner's own list comes at its end, which a run that is cut off never reaches.
        println!("[{series} {}] failed: {}", scenario.name, text.lines().next().unwrap_or_default());
        Err(text)
    }

    fn machine(&mut self, series: Series, machine: Machine) -> Outcome<&mut Vm> {
        if let Some((.., why)) = self.unavailable.iter().find(|(kernel, kind, _)| (*kernel, *kind) == (series, machine)) {
            return Err(why.clone());
        }
        if self.machine.as_ref().is_none_or(|(kernel, kind, _)| (*kernel, *kind) != (series, machine)) {
            self.machine = None;
            match Kernel::find(series).and_then(|kernel| Vm::boot(&kernel, machine)) {
                Ok(vm) => self.machine = Some((series, machine, vm)),
                Err(why) => {
                    self.unavailable.push((series, machine, why.clone()));
                    return Err(why);
                }
            }
        }
        match &mut self.machine {
            Some((.., vm)) => Ok(vm),
            None => Err("no virtual machine".to_owned()),
        }
    }
}
