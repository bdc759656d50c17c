//! Where systemd puts a unit: services and scopes stand in slices, and slices in one another by their names.
//!
//! At the top of a machine with systemd stand slices, `init.scope` and some mounts. A policy that names `/ssh.service`
//! names nothing there, however sound it is. Hints only: on a machine without systemd all of this may be meant.

use super::globs::Globs;

/// Where the groups that a path or glob names stand on a machine with systemd, if it can't be where the pattern says: at
/// the top. `None` where nothing can be said.
#[must_use]
pub fn usual_place(pattern: &str) -> Option<String> {
    let (unit, below) = first_part(pattern)?;
    let place = if all_end(unit, ".service") {
        service(unit)
    } else if all_end(unit, ".scope") {
        scope(unit)?
    } else if let Some(stem) = unit.strip_suffix(".slice") {
        slice(stem)?
    } else {
        return None;
    };
    Some(format!("{place}{below}"))
}

fn service(unit: &str) -> String {
    let Some((name, instance)) = unit.split_once('@') else {
        return if unit.starts_with("app-") { format!("{APPLICATIONS}/{unit}") } else { format!("/system.slice/{unit}") };
    };
    if name == "user" {
        let uid = instance.strip_suffix(".service").filter(|uid| !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_digit()));
        return format!("/user.slice/user-{}.slice/{unit}", uid.unwrap_or("*"));
    }
    if name.contains(is_special) {
        return format!("/system.slice/**/{unit}");
    }
    // Instances of a template share a slice, in whose name a dash of the template's is escaped.
    format!("/system.slice/system-{}.slice/{unit}", name.replace('-', r"\x2d"))
}

/// What the desktop starts.
const APPLICATIONS: &str = "/user.slice/user-*.slice/user@*.service/app.slice";

/// Who makes scopes, by the beginning of their names, and where.
const SCOPES: [(&str, &str); 8] = [
    ("session-", "/user.slice/user-*.slice"),
    ("app-", APPLICATIONS),
    ("docker-", "/system.slice"),
    ("run-", "/system.slice"),
    ("libpod-", "/machine.slice"),
    ("machine-", "/machine.slice"),
    ("cri-containerd-", "/kubepods.slice/**"),
    ("crio-", "/kubepods.slice/**"),
];

fn scope(unit: &str) -> Option<String> {
    // The one scope that stands at the top.
    if Globs::new(&[format!("/{unit}")]).ok()?.matches(b"/init.scope") && unit != "*.scope" {
        return None;
    }
    let known = SCOPES.iter().find(|(start, _)| unit.starts_with(start)).map(|(_, place)| *place);
    Some(format!("{}/{unit}", known.unwrap_or("/user.slice/user-*.slice/**")))
}

/// `a-b.slice` stands in `a.slice`.
fn slice(stem: &str) -> Option<String> {
    let (above, _) = stem.rsplit_once('-')?;
    if above.split('-').any(str::is_empty) || above.contains(is_special) {
        return None;
    }
    let mut place = String::new();
    for end in above.match_indices('-').map(|(at, _)| at).chain([above.len()]) {
        place.push('/');
        place.push_str(above.get(..end)?);
        place.push_str(".slice");
    }
    Some(format!("{place}/{stem}.slice"))
}

/// The first part of a path or glob, and the rest with its slash. `None` where a slash stands in braces or a class.
fn first_part(pattern: &str) -> Option<(&str, &str)> {
    let pattern = pattern.strip_prefix('/')?;
    let end = pattern.find('/').unwrap_or(pattern.len());
    let (first, rest) = pattern.split_at_checked(end)?;
    let count = |c: char| first.matches(c).count();
    (count('{') == count('}') && count('[') == count(']')).then_some((first, rest))
}

/// Whether every name that a part of a glob can match ends so.
fn all_end(part: &str, suffix: &str) -> bool {
    if part.ends_with(suffix) {
        return true;
    }
    let Some((_, alternatives)) = part.strip_suffix('}').and_then(|part| part.rsplit_once('{')) else { return false };
    alternatives.split(',').all(|alternative| alternative.ends_with(suffix))
}

fn is_special(c: char) -> bool {
    matches!(c, '*' | '?' | '[' | ']' | '{' | '}')
}

#[cfg(test)]
mod tests;
