use proptest::prelude::*;

use super::*;
use crate::policy::model::{PsiKind, RankKey};

fn refused<T: std::fmt::Debug>(result: Result<T, Bad>) -> String {
    let bad = result.unwrap_err();
    format!("{} | {}", bad.message, bad.hint)
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text:?} should say {part:?}");
    }
}

#[test]
fn amounts() {
    for (text, expected) in [
        ("0B", 0),
        ("512B", 512),
        ("4KiB", 4096),
        ("256MiB", 256 << 20),
        ("1.5GiB", 3 << 29),
        ("2TiB", 2 << 40),
        ("1KB", 1000),
        ("1kB", 1000),
        ("1MB", 1_000_000),
        ("1GB", 1_000_000_000),
        ("0.5TB", 500_000_000_000),
        ("0.0001KiB", 0),
    ] {
        assert_eq!(bytes(text), Ok(Bytes(expected)), "{text}");
    }
    says(&refused(bytes("256")), &["`256` has no unit", "write 256MiB, 256GiB"]);
    says(&refused(bytes("256M")), &["`M` is no unit", "MiB", "`256MiB`"]);
    says(&refused(bytes("256 MiB")), &["` MiB` is no unit", "right behind the number"]);
    says(&refused(bytes("256mib")), &["`mib` is no unit"]);
    says(&refused(bytes("-1MiB")), &["is not an amount of memory"]);
    says(&refused(bytes("MiB")), &["is not an amount of memory"]);
    says(&refused(bytes("1.MiB")), &["is not an amount of memory"]);
    says(&refused(bytes("1.2.3MiB")), &["is not an amount of memory"]);
    says(&refused(bytes("99999999999TiB")), &["too much"]);
    says(&refused(bytes("9999999999999999999999MiB")), &["is not an amount"]);
    says(&refused(bytes("50%")), &["`%` is no unit of memory"]);
}

#[test]
fn shares() {
    for (text, expected) in [("95%", 9500), ("2.5%", 250), ("0.01%", 1), ("100%", 10_000), ("12.05%", 1205), ("100.00%", 10_000)] {
        assert_eq!(share(text).map(Share::hundredths), Ok(expected), "{text}");
    }
    says(&refused(share("95")), &["`95` has no unit", "write 95%"]);
    for text in ["0%", "0.00%", "100.01%", "101%", "99999999999999999%"] {
        says(&refused(share(text)), &["out of range", "at most 100%"]);
    }
    says(&refused(share("0.001%")), &["two digits"]);
    for text in ["-5%", "x%", "%", "5%%", "5 %", "1GiB"] {
        says(&refused(share(text)), &["is no share"]);
    }
}

#[test]
fn times() {
    for (text, ms) in [
        ("150ms", 150),
        ("2s", 2000),
        ("1.5s", 1500),
        ("10m", 600_000),
        ("1h", 3_600_000),
        ("0s", 0),
        ("24h", 86_400_000),
        ("1d", 86_400_000),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
    }
    says(&refused(duration("100")), &["`100` has no unit", "write 100ms or 100s"]);
    says(&refused(duration("5us")), &["`us` is no unit of time", "ms, s, m, h, d, w"]);
    for text in ["25h", "2d", "1w"] {
        says(&refused(duration(text)), &["too long", "24h"]);
    }
    says(&refused(duration("soon")), &["`soon` is not an amount of time"]);
    says(&refused(duration("999999999999999999h")), &["too much"]);
}

#[test]
fn shares_or_amounts() {
    assert_eq!(quantum("5%").map(Level::from), Ok(Level { share: Some(Share::percent(5)), at_most: None }));
    assert_eq!(quantum("512MiB").map(Level::from), Ok(Level { share: None, at_most: Some(Bytes(512 << 20)) }));
    let refused = |text| refused(quantum(text).map(|_| ()));
    says(&refused("5"), &["`5` has no unit", "write 5% or 5MiB"]);
    says(&refused("0B"), &["is nothing"]);
    says(&refused("little"), &["neither a share nor an amount"]);
    says(&refused("5K"), &["`K` is no unit"]);
    says(&refused("0%"), &["out of range"]);
}

#[test]
fn psi_terms() {
    let ms = Duration::from_millis;
    assert_eq!(psi("full 100ms/500ms"), Ok(Psi { kind: PsiKind::Full, stall: ms(100), window: ms(500) }));
    assert_eq!(psi("some 1s / 2s"), Ok(Psi { kind: PsiKind::Some, stall: ms(1000), window: ms(2000) }));
    assert_eq!(psi("full 1ms/1ms"), Ok(Psi { kind: PsiKind::Full, stall: ms(1), window: ms(1) }));
    assert_eq!(psi("full 10s/10s"), Ok(Psi { kind: PsiKind::Full, stall: ms(10_000), window: ms(10_000) }));
    says(&refused(psi("full")), &["no PSI term", "`full 100ms/500ms`"]);
    says(&refused(psi("full 100ms")), &["no PSI term"]);
    says(&refused(psi("most 1s/2s")), &["`most` is no kind"]);
    says(&refused(psi("full 100/500ms")), &["`100` has no unit", "100ms"]);
    for text in ["full 0ms/1s", "full 2s/1s", "full 0.0001ms/1ms"] {
        says(&refused(psi(text)), &["does not fit its window"]);
    }
    for text in ["full 1s/11s", "full 0.5ms/0.9ms"] {
        says(&refused(psi(text)), &["window", "1ms to 10s"]);
    }
}

#[test]
fn words() {
    for (name, kind) in EVENTS {
        assert_eq!(event(name), Ok(kind));
    }
    says(&refused(event("oomkill")), &["unknown event `oomkill`", "did you mean `oom_kill`?"]);
    says(&refused(event("wombat")), &["one of `low`, `high`"]);
    for (name, key) in RANK_KEYS {
        assert_eq!(rank(name), Ok(RankBy { key, within: None }));
    }
    assert_eq!(rank("usage within 10%"), Ok(RankBy { key: RankKey::Usage, within: Some(Share::percent(10)) }));
    says(&refused(rank("usage within 10")), &["has no unit", "10%"]);
    says(&refused(rank("usage about 10%")), &["no rank key", "`usage within 10%`"]);
    says(&refused(rank("usage within")), &["no rank key"]);
    says(&refused(rank("usage within 10% x")), &["no rank key"]);
    says(&refused(rank("useage")), &["unknown rank key `useage`", "did you mean `usage`?"]);
    says(&refused(rank("")), &["one of `usage`"]);
    for text in LATER_RANK_KEYS {
        says(&refused(rank(text)), &["not supported by this version"]);
    }
    assert_eq!(name("a.B_c-9"), Ok(()));
    for text in ["", "a b", "ä", "a/b", &"x".repeat(64)] {
        says(&refused(name(text)), &["can't be a rule's name", "1 to 63"]);
    }
    assert_eq!(comm("postgres"), Ok(b"postgres".as_slice().into()));
    assert!(comm("123456789012345").is_ok());
    says(&refused(comm("1234567890123456")), &["longer than 15 bytes"]);
    says(&refused(comm("äöüäöüäö")), &["longer than 15 bytes"]);
    says(&refused(comm("")), &["empty"]);
}

#[test]
fn wild_guesses_are_not_made() {
    assert_eq!(nearest("mod", &["mode"]), Some("mode"));
    assert_eq!(nearest("only-if", &["only_if"]), Some("only_if"));
    assert_eq!(nearest("Exclude", &["exclude"]), Some("exclude"));
    assert_eq!(nearest("zzz", &["mode", "name"]), None);
    assert_eq!(nearest(&"x".repeat(100_000), &["mode"]), None);
}

proptest! {
    #[test]
    fn no_text_panics(text in "[0-9.%a-zA-Z/ -]{0,30}|\\PC{0,20}") {
        let _ = (bytes(&text), share(&text), duration(&text), quantum(&text).is_ok(), psi(&text), event(&text));
        let _ = (rank(&text), name(&text), comm(&text));
    }

    #[test]
    fn what_units_print_reads_back(bytes_in in 0_u64..1 << 50, hundredths in 1_u16..=10_000) {
        let printed = Bytes(bytes_in).to_string();
        let back = bytes(&printed).unwrap().0;
        prop_assert!(back <= bytes_in && bytes_in - back <= bytes_in / 10);
        let exact = Share::from_hundredths(hundredths).unwrap();
        prop_assert_eq!(share(&exact.to_string()), Ok(exact));
    }
}
