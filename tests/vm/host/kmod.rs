//! Our kernel module, and one of the tests' own, built out of the tree for the very kernel that is booted, and checked with sparse.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::kernel::Kernel;
use super::{headers, tools};
use crate::outcome::{Doing, Outcome};

/// A module: where its sources are in the repository, and what `make` makes of them.
pub struct Module {
    sources: &'static str,
    file: &'static str,
    /// Names the directory that it is built in.
    purpose: &'static str,
    /// A variable for kbuild.
    option: &'static str,
}

/// oomwarden's.
pub const LMS: Module = Module { sources: "kmod", file: "oomwarden_lms.ko", purpose: "build", option: "LMS_TEST=n" };
/// The same with delays and measurements that only tests need.
pub const LMS_FOR_TESTS: Module = Module { purpose: "tests", option: "LMS_TEST=y", ..LMS };
/// Callers of the OOM killer that no program can be.
pub const CALLERS: Module = Module { sources: "tests/vm/kmod", file: "lms_callers.ko", purpose: "build", option: "LMS_TEST=n" };

/// All of them, as a test.
pub fn build_all(kernel: &Kernel) -> Outcome {
    for module in [&LMS, &LMS_FOR_TESTS, &CALLERS] {
        build(kernel, module)?;
    }
    Ok(())
}

/// Both, as a test.
pub fn sparse_all(kernel: &Kernel) -> Outcome {
    sparse(kernel, &LMS)?;
    sparse(kernel, &CALLERS)
}

/// The built module. Built once for each content of its sources and each kernel; kbuild's extra warnings (`W=1`) are failures.
pub fn build(kernel: &Kernel, module: &Module) -> Outcome<PathBuf> {
    let copy = Copy::of_sources(kernel, module, module.purpose)?;
    let option = module.option;
    let module = copy.directory.join(module.file);
    if !module.is_file() {
        let said = copy.make(kernel, &["W=1", option])?;
        let warnings: Vec<&str> = said.lines().filter(|line| line.to_lowercase().contains("warning:")).collect();
        if !warnings.is_empty() {
            // Else the next run would find a module and be content.
            std::fs::remove_file(&module).doing(format_args!("remove {}", module.display()))?;
            return Err(format!("the module builds with warnings:\n{}", warnings.join("\n")));
        }
    }
    Ok(module)
}

/// What sparse finds in the module's own sources.
fn sparse(kernel: &Kernel, module: &Module) -> Outcome {
    tools::find("sparse")?;
    let copy = Copy::of_sources(kernel, module, "sparse")?;
    let said = copy.make(kernel, &["C=2"])?;
    let checked = said.lines().any(|line| line.trim_start().starts_with("CHECK "));
    ensure!(checked, "sparse was not run:\n{said}");
    // The kernel's own headers are not ours to mend.
    let ours = copy.directory.to_string_lossy();
    let found: Vec<&str> = said.lines().filter(|line| line.starts_with(&*ours)).collect();
    ensure!(found.is_empty(), "sparse says:\n{}", found.join("\n"));
    Ok(())
}

/// A copy of the sources where kbuild may leave what it likes.
struct Copy {
    directory: PathBuf,
}

impl Copy {
    fn of_sources(kernel: &Kernel, module: &Module, purpose: &str) -> Outcome<Copy> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join(module.sources);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&sources).doing(format_args!("list {}", sources.display()))? {
            let path = entry.doing(format_args!("list {}", sources.display()))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name == "Kbuild" || name == "Makefile" || name.ends_with(".c") || name.ends_with(".h") {
                let content = std::fs::read(&path).doing(format_args!("read {}", path.display()))?;
                files.push((name, content));
            }
        }
        files.sort();
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        let place = format!("{}/{}/{purpose}-{:016x}", module.sources, kernel.version(), hasher.finish());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(place);
        std::fs::create_dir_all(&directory).doing(format_args!("create {}", directory.display()))?;
        for (name, content) in files {
            let path = directory.join(name);
            // A file that is written anew is built anew.
            if std::fs::read(&path).ok().as_ref() != Some(&content) {
                std::fs::write(&path, content).doing(format_args!("write {}", path.display()))?;
            }
        }
        Ok(Copy { directory })
    }

    /// Runs kbuild and gives all that it says.
    fn make(&self, kernel: &Kernel, options: &[&str]) -> Outcome<String> {
        let headers = headers::find(kernel)?;
        let mut make = Command::new(tools::find("make")?);
        make.arg("-C").arg(&headers).arg(format!("M={}", self.directory.display())).args(options);
        // The module's type information would need pahole, and nothing here reads it.
        make.arg("CONFIG_DEBUG_INFO_BTF_MODULES=");
        if let Some(compiler) = compiler(&headers)? {
            make.arg(format!("CC={compiler}"));
        }
        // Messages as the tests expect them, and no flags of the make or cargo that runs us.
        let make = make.arg("modules").env("LC_ALL", "C").env_remove("MAKEFLAGS").env_remove("MFLAGS").env_remove("MAKELEVEL");
        let output = make.output().doing("run make")?;
        let said = [&*String::from_utf8_lossy(&output.stdout), &*String::from_utf8_lossy(&output.stderr)].concat();
        ensure!(output.status.success(), "the module does not build for {} ({make:?}):\n{said}", kernel.version());
        Ok(said)
    }
}

/// `None` where the compiler that the kernel was built with is at hand, else any.
fn compiler(headers: &Path) -> Outcome<Option<&'static str>> {
    let variables = headers.join(".kernelvariables");
    let text = std::fs::read_to_string(&variables).doing(format_args!("read {}", variables.display()))?;
    // CC = $(if ...) $(CROSS_COMPILE)gcc-12
    let wanted = text.lines().find(|line| line.starts_with("CC = ")).and_then(|line| line.rsplit_once(')')).map(|(_, name)| name.trim());
    match wanted {
        Some(name) if tools::find(&format!("x86_64-linux-gnu-{name}")).is_ok() => Ok(None),
        _ => tools::find("gcc").map(|_| Some("gcc")),
    }
}
