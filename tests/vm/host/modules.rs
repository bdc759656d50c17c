//! Kernel modules out of an unpacked kernel package, with what they depend on, in the order in which they load.
//!
//! A package brings no `modules.dep`; each module's `.modinfo` names its dependencies.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools;
use crate::outcome::{Doing, Outcome};

/// One module, uncompressed.
pub struct Module {
    /// File name for the guest.
    pub name: String,
    /// The ELF file.
    pub content: Vec<u8>,
}

/// Those of `wanted` that the package has (the others are built in) and their dependencies, dependencies first.
pub fn collect(package: &Path, wanted: &[&str]) -> Outcome<Vec<Module>> {
    let mut files = HashMap::new();
    index(&package.join("lib/modules"), &mut files)?;
    let mut modules = Vec::new();
    for name in wanted {
        add(name, &files, &mut modules)?;
    }
    Ok(modules)
}

fn add(name: &str, files: &HashMap<String, PathBuf>, modules: &mut Vec<Module>) -> Outcome {
    let Some(path) = files.get(name).filter(|_| modules.iter().all(|module| module.name != name)) else {
        return Ok(());
    };
    let content = read(path)?;
    for dependency in dependencies(&content) {
        add(&dependency, files, modules)?;
    }
    modules.push(Module { name: name.to_owned(), content });
    Ok(())
}

fn index(directory: &Path, files: &mut HashMap<String, PathBuf>) -> Outcome {
    for entry in std::fs::read_dir(directory).doing(format_args!("list {}", directory.display()))? {
        let entry = entry.doing(format_args!("list {}", directory.display()))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            index(&path, files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        // busybox is needed for the guest anyway, and has it.
        return tools::output(Command::new(tools::find("busybox")?).args(["unxz", "-c"]).arg(path));
    }
    std::fs::read(path).doing(format_args!("read {}", path.display()))
}

fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let names = module[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(names).split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}
