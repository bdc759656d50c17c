//! Our kernel module, built out of the tree for the very kernel that is booted, and checked with sparse.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::kernel::Kernel;
use super::{headers, tools};
use crate::outcome::{Doing, Outcome};

/// What `make` makes.
pub const FILE: &str = "oomwarden_lms.ko";

/// The built module. Built once for each content of its sources and each kernel; kbuild's extra warnings (`W=1`) are failures.
pub fn build(kernel: &Kernel) -> Outcome<PathBuf> {
    build_as(kernel, "build", "LMS_TEST=n")
}

/// The same with delays and measurements that only tests need.
pub fn build_for_tests(kernel: &Kernel) -> Outcome<PathBuf> {
    build_as(kernel, "tests", "LMS_TEST=y")
}

fn build_as(kernel: &Kernel, purpose: &str, option: &str) -> Outcome<PathBuf> {
    let copy = Copy::of_sources(kernel, purpose)?;
    let module = copy.directory.join(FILE);
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
pub fn sparse(kernel: &Kernel) -> Outcome {
    tools::find("sparse")?;
    let copy = Copy::of_sources(kernel, "sparse")?;
    let said = copy.make(kernel, &["C=2"])?;
    let checked = said.lines().any(|line| line.trim_start().starts_with("CHECK "));
    ensure!(checked, "sparse was not run:\n{said}");
    // The kernel's own headers are not ours to mend.
    let ours = copy.directory.to_string_lossy();
    let found: Vec<&str> = said.lines().filter(|line| line.starts_with(&*ours)).collect();
    ensure!(found.is_empty(), "sparse says:\n{}", found.join("\n"));
    Ok(())
}

/// A copy of `kmod/` where kbuild may leave what it likes.
struct Copy {
    directory: PathBuf,
}

impl Copy {
    fn of_sources(kernel: &Kernel, purpose: &str) -> Outcome<Copy> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("kmod");
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
        let place = format!("kmod/{}/{purpose}-{:016x}", kernel.version(), hasher.finish());
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
