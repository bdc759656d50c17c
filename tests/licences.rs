//! What `cargo deny check licenses bans sources` says, for machines without cargo-deny: the same deny.toml, judged from `cargo metadata`.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

fn deny() -> Deny {
    toml::from_str(include_str!("../deny.toml")).unwrap()
}

/// All packages that a build for this machine's kind takes, without the network: what is built here has been fetched.
fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .features(CargoOpt::AllFeatures)
        .other_options(["--offline", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"].map(String::from))
        .exec()
        .unwrap()
}

/// Why a licence is not allowed; `None` where it is.
fn refused(allowed: &[Licensee], licence: Option<&str>) -> Option<String> {
    let Some(licence) = licence else { return Some("names no licence".to_owned()) };
    // Older crates write a slash for "or".
    match Expression::parse_mode(licence, ParseMode::LAX) {
        Ok(expression) => {
            let fits = expression.evaluate(|wanted| allowed.iter().any(|allowed| allowed.satisfies(wanted)));
            (!fits).then(|| format!("licence {licence}"))
        }
        Err(error) => Some(format!("licence {licence}: {}", error.reason)),
    }
}

fn allowed() -> Vec<Licensee> {
    deny().licenses.allow.iter().map(|licence| Licensee::parse(licence).unwrap()).collect()
}

#[test]
fn crates_are_allowed() {
    let (allowed, banned, metadata) = (allowed(), deny().bans.deny, metadata());
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        if metadata.workspace_members.contains(&package.id) {
            continue;
        }
        let mut says = |why: String| wrong.push(format!("{} {}: {why}", package.name, package.version));
        refused(&allowed, package.license.as_deref()).into_iter().for_each(&mut says);
        if banned.iter().any(|banned| *banned.name == **package.name) {
            says("is banned".to_owned());
        }
        if !package.source.as_ref().is_some_and(cargo_metadata::Source::is_crates_io) {
            says("is not from crates.io".to_owned());
        }
    }
    assert!(metadata.packages.len() > 50, "packages are not found: this proves nothing");
    assert!(wrong.is_empty(), "deny.toml does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn what_is_not_allowed_is_seen() {
    let allowed = allowed();
    let refused = |licence| refused(&allowed, licence).is_some();
    assert!(!refused(Some("MIT OR GPL-3.0-only")));
    assert!(!refused(Some("MIT/Apache-2.0")));
    assert!(!refused(Some("Apache-2.0 WITH LLVM-exception")));
    assert!(refused(Some("MIT AND GPL-3.0-only")));
    assert!(refused(Some("AGPL-3.0-or-later")));
    assert!(refused(Some("no licence at all")));
    assert!(refused(None));
}
