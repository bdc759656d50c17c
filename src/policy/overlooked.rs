//! Files of a policy directory that look like policies and are not read, because their names do not
//! end in `.yaml`.
//!
//! They are named, not read: a file may have been given such a name to take it out of the policy.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::shown_path;

/// The files beside the policies of these directories whose names end in `.yml`, or in `.yaml` in
/// other letters, in order of name. What is no directory, or can't be read, has none.
#[must_use]
pub fn overlooked<P: AsRef<Path>>(paths: &[P]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in paths.iter().filter_map(|path| fs::read_dir(path.as_ref()).ok()).flatten().flatten() {
        let name = entry.file_name();
        if looks_like_one(name.as_encoded_bytes()) {
            found.push(entry.path());
        }
    }
    found.sort();
    found.dedup();
    found
}

fn looks_like_one(name: &[u8]) -> bool {
    let Some(dot) = name.iter().rposition(|byte| *byte == b'.') else { return false };
    let (stem, ending) = name.split_at(dot);
    let ending = ending.get(1..).unwrap_or_default();
    !stem.is_empty()
        && !name.starts_with(b".")
        && ending != b"yaml"
        && (ending.eq_ignore_ascii_case(b"yml") || ending.eq_ignore_ascii_case(b"yaml"))
}

/// What to say of one.
#[must_use]
pub fn warning(path: &Path) -> String {
    format!(
        "{} is not read: a policy directory is its files whose names end in .yaml; rename it to {}, or move it elsewhere",
        shown_path(path),
        shown_path(Path::new(path.with_extension("yaml").file_name().unwrap_or_default()))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_policy_and_is_none_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["10-a.yaml", "20-b.yml", "C.YAML", "d.Yml", ".hidden.yml", "notes.txt", "yml", ".yml", "e.yaml.bak"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let file = directory.path().join("20-b.yml");
        let found = overlooked(&[directory.path(), &file, Path::new("/nowhere"), directory.path()]);
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["20-b.yml", "C.YAML", "d.Yml"]);
        let said = warning(&file);
        assert!(said.starts_with(&format!("{} is not read", file.display())) && said.contains("rename it to 20-b.yaml,"), "{said}");
        assert!(warning(Path::new("/etc/a\nb.yml")).lines().count() == 1);
    }
}
