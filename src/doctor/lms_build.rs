//! The kernel module's build: which one is loaded, and which one the next load takes.

use std::fs;
use std::path::{Path, PathBuf};

use super::machine::read;
use super::{Finding, Machine};

/// What the module is called.
pub(super) const NAME: &str = "oomwarden_lms";

/// Where modprobe looks for modules that did not come with the kernel, where depmod has not said.
const PLACES: [&str; 3] = ["updates/dkms", "updates", "extra"];

/// How a module's file may be compressed.
const ENDINGS: [&str; 4] = ["", ".xz", ".zst", ".gz"];

/// A module's file is not larger than this.
const LARGEST: u64 = 64 << 20;

/// What tells one build from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Build {
    version: String,
    /// A sum over its sources.
    srcversion: String,
}

pub(super) fn lms_build(machine: &Machine) -> Finding {
    let loaded = loaded(machine);
    let file = installed(machine);
    let on_disk = file.as_deref().map(|file| (file, build_of(machine, file)));
    match (loaded, on_disk) {
        (None, None) => Finding::ok("not loaded, and none is installed for the running kernel"),
        (None, Some((file, _))) => Finding::ok(format!("not loaded; {} would be", file.display())),
        (Some(loaded), None) => {
            Finding::ok(format!("{}; none is installed for the running kernel, so it is gone after a reboot", told(machine, &loaded)))
        }
        (Some(loaded), Some((file, None))) => Finding::degraded(
            format!("{}; what the next load takes can't be told: {}", told(machine, &loaded), file.display()),
            format!("look at it by hand: modinfo {}", file.display()),
        ),
        (Some(loaded), Some((file, Some(on_disk)))) if loaded == on_disk => {
            Finding::ok(format!("{}, as in {}", told(machine, &loaded), file.display()))
        }
        (Some(loaded), Some((file, Some(on_disk)))) => Finding::degraded(
            format!(
                "{}; {} module is installed: version {} (srcversion {}) in {}",
                told(machine, &loaded),
                if is_newer(&on_disk.version, &loaded.version) { "a newer" } else { "another" },
                on_disk.version,
                on_disk.srcversion,
                file.display()
            ),
            "it is used from the next load: reboot, or stop the daemon and `rmmod oomwarden_lms && modprobe oomwarden_lms` when nobody has /proc/oom_notifier open (lms-users)",
        ),
    }
}

/// The module that is loaded.
fn loaded(machine: &Machine) -> Option<Build> {
    let directory = machine.system.root.join("sys/module").join(NAME);
    Some(Build { version: read(&directory.join("version"))?, srcversion: read(&directory.join("srcversion")).unwrap_or_default() })
}

fn told(machine: &Machine, build: &Build) -> String {
    let text = machine.proc("oom_notifier").unwrap_or_default();
    let interface = text.lines().find_map(|line| line.strip_prefix("interface ")).unwrap_or("1");
    format!("version {} (srcversion {}) is loaded, with interface {interface}", build.version, build.srcversion)
}

/// The file that modprobe would load for the running kernel: where depmod says, else the usual places.
fn installed(machine: &Machine) -> Option<PathBuf> {
    let release = machine.proc("sys/kernel/osrelease")?;
    let modules = machine.system.root.join("lib/modules").join(release);
    let is_it = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default().replace('-', "_");
        ENDINGS.iter().any(|ending| name == format!("{NAME}.ko{ending}"))
    };
    let listed = read(&modules.join("modules.dep")).unwrap_or_default();
    let listed = listed.lines().filter_map(|line| line.split_once(':')).map(|(path, _)| path).find(|path| is_it(path));
    let usual = PLACES.iter().flat_map(|place| ENDINGS.map(|ending| format!("{place}/{NAME}.ko{ending}")));
    listed.map(str::to_owned).into_iter().chain(usual).map(|path| modules.join(path)).find(|path| path.is_file())
}

fn build_of(machine: &Machine, file: &Path) -> Option<Build> {
    if file.extension().is_some_and(|ending| ending == "ko") {
        if fs::metadata(file).ok()?.len() > LARGEST {
            return None;
        }
        let bytes = fs::read(file).ok()?;
        let fields = section(&bytes, b".modinfo")?;
        let field = |name: &str| {
            let prefix = format!("{name}=");
            let value = fields.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(prefix.as_bytes()))?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        return Some(Build { version: field("version")?, srcversion: field("srcversion").unwrap_or_default() });
    }
    let field = |name: &str| (machine.system.probes.modinfo)(file, name).ok().filter(|value| !value.is_empty());
    Some(Build { version: field("version")?, srcversion: field("srcversion").unwrap_or_default() })
}

/// A section of a 64 bit little-endian ELF file.
fn section<'a>(file: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let number = |at: usize, length: usize| {
        let bytes = file.get(at..at.checked_add(length)?)?;
        usize::try_from(bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))).ok()
    };
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count, names) = (number(40, 8)?, number(58, 2)?, number(60, 2)?, number(62, 2)?);
    let header = |index: usize| table.checked_add(index.checked_mul(size)?);
    let content = |at: usize| {
        let (offset, length) = (number(at.checked_add(24)?, 8)?, number(at.checked_add(32)?, 8)?);
        file.get(offset..offset.checked_add(length)?)
    };
    let names = content(header(names)?)?;
    (0..count).filter_map(header).find_map(|at| {
        let own = names.get(number(at, 4)?..)?;
        (own.split(|byte| *byte == 0).next()? == name).then(|| content(at)).flatten()
    })
}

/// Whether the first of two versions, numbers between dots, is the later one.
fn is_newer(one: &str, other: &str) -> bool {
    let numbers = |text: &str| text.split('.').map(|number| number.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>();
    numbers(one) > numbers(other)
}

#[cfg(test)]
pub(super) use tests::elf;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with sections of these contents.
    pub(crate) fn elf(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut names = vec![0];
        let mut content = vec![0; 64];
        let mut headers = vec![[0; 64]];
        let mut add = |name: &str, bytes: Option<&[u8]>, names: &mut Vec<u8>| {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&u32::try_from(names.len()).unwrap().to_le_bytes());
            names.extend(name.bytes().chain([0]));
            let bytes = bytes.unwrap_or(names).to_vec();
            header[24..32].copy_from_slice(&(content.len() as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            content.extend(bytes);
            headers.push(header);
        };
        for (name, bytes) in sections {
            add(name, Some(bytes), &mut names);
        }
        add(".shstrtab", None, &mut names);
        content[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let table = content.len() as u64;
        content[40..48].copy_from_slice(&table.to_le_bytes());
        content[58..60].copy_from_slice(&64_u16.to_le_bytes());
        content[60..62].copy_from_slice(&u16::try_from(headers.len()).unwrap().to_le_bytes());
        content[62..64].copy_from_slice(&u16::try_from(headers.len() - 1).unwrap().to_le_bytes());
        content.extend(headers.concat());
        content
    }

    #[test]
    fn sections_are_found_by_name() {
        let file = elf(&[(".text", b"code"), (".modinfo", b"version=1\0"), (".data", b"")]);
        assert_eq!(section(&file, b".modinfo"), Some(&b"version=1\0"[..]));
        assert_eq!(section(&file, b".data"), Some(&b""[..]));
        assert_eq!(section(&file, b".mod"), None);
        assert_eq!(section(b"", b".text"), None);
        assert_eq!(section(b"\x7fELF\x02\x01", b".text"), None);
    }

    #[test]
    fn versions_are_compared_by_numbers() {
        for (one, other, newer) in
            [("0.1.0", "0.1.0", false), ("0.10.0", "0.9.9", true), ("1", "0.9", true), ("0.1", "0.1.1", false), ("x", "0.1", false)]
        {
            assert_eq!(is_newer(one, other), newer, "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn damaged_files_panic_nobody(at in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 1..24), cut in any::<prop::sample::Index>()) {
            let mut file = elf(&[(".text", b"code"), (".modinfo", b"version=1\0")]);
            let at = at.index(file.len());
            let end = (at + noise.len()).min(file.len());
            file[at..end].copy_from_slice(&noise[..end - at]);
            file.truncate(cut.index(file.len() + 1));
            let found = section(&file, b".modinfo");
            prop_assert!(found.is_none_or(|found| found.len() <= file.len()));
        }
    }
}
