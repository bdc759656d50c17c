use super::super::globs::Globs;
use super::super::over::Over;
use super::*;

#[test]
fn globs_whose_matches_contain_one_another() {
    for pattern in ["/**", "/a/**", "/a/**/*", "/{a/**,b}", "/{b,a/**}", "/{**,a}", "/a/{x,{b/**,c},d}", "/a/**/b/**", "/a/{b,c/**}/*"] {
        assert!(nests(pattern), "{pattern}");
    }
    for pattern in ["/", "/a", "/a/*", "/*/*", "/a/**/b", "/a/**/*.scope", "/{a/**,b}/c", "/a/{**,b}/c*", "/a/[*][*]", "/a?"] {
        assert!(!nests(pattern), "{pattern}");
    }
}

#[test]
fn shapes() {
    for (pattern, expected) in [
        ("/", Shape::Literal),
        ("/a/b", Shape::Literal),
        ("/a\\x2db", Shape::Literal),
        ("/*", Shape::Children("")),
        ("/a/*", Shape::Children("/a")),
        ("/**", Shape::Below("")),
        ("/a/**", Shape::Below("/a")),
        ("/a*/**", Shape::Other),
        ("/a/**/b", Shape::Other),
        ("/a/x*", Shape::Other),
        ("/{a,b}", Shape::Other),
    ] {
        assert_eq!(shape(pattern), expected, "{pattern}");
    }
}

#[test]
fn what_is_no_glob_says_why() {
    for (pattern, message, hint) in [
        ("", "the glob is empty", "the root is `/`"),
        ("a/b", "does not begin with `/`", "write `/a/b`"),
        ("*", "does not begin with `/`", "write `/*`"),
        ("/a/", "empty part", "write `/a`"),
        ("//a///b", "empty part", "write `/a/b`"),
        ("/a**", "`**` in the glob `/a**` is only a part", "within a name write `*`"),
        ("/**a", "only a part", "`/a/**/b`"),
        ("/***", "only a part", "`/a/**`"),
        ("/{**,a}", "only a part", "between slashes"),
        ("/a[b", "opens `[`", "`[[]`"),
        ("/a[]", "opens `[`", "`[[]`"),
        ("/a{b", "opens `{`", "`[{]`"),
        ("/a}b", "never opened", "`[}]`"),
        ("/{{{{{{{{{a}}}}}}}}}", "nest deeper than 8", "list"),
        ("/a\u{0}", "control character", "`?`"),
    ] {
        let bad = check(pattern).unwrap_err();
        assert!(bad.message.contains(message) && bad.hint.contains(hint), "{pattern}: {bad:?}");
    }
    assert!(check(&format!("/{}", "a".repeat(1024))).unwrap_err().message.contains("longer than 1024 bytes"));
    for good in ["/", "/a", "/**", "/a/**/b", "/{a/**,b}", "/[!]]x", "/[^a]", "/[]]", "/[{]", "/[}]", "/a\\x2db.slice/*", "/a b/[*][*]"] {
        assert_eq!(check(good), Ok(()), "{good}");
        assert!(Globs::new(&[good]).is_ok(), "{good}");
    }
}

#[test]
fn bases() {
    for (pattern, expected) in [("/", ""), ("/a", "/a"), ("/a/b/**", "/a/b"), ("/a/b*", "/a"), ("/*", ""), ("/a/{b,c}/d", "/a")] {
        assert_eq!(base(pattern), expected, "{pattern}");
    }
}

#[test]
fn covering() {
    for (over, pattern, expected) in [
        ("/a", "/a", true),
        ("/a", "/a/b", true),
        ("/a", "/a/**", true),
        ("/a", "/a/b*/c", true),
        ("/a", "/ab", false),
        ("/a", "/ab/**", false),
        ("/a", "/a*", false),
        ("/a/**", "/a", false),
        ("/a/**", "/a/b/c", true),
        ("/a/**", "/a/*", true),
        ("/a/*", "/a/b/c", true),
        ("/a/*", "/a", false),
        ("/**", "/a", true),
        ("/**", "/", false),
        ("/", "/", true),
        ("/", "/a/**", true),
        ("/a*", "/ab/c", true),
        ("/a*", "/ab/*", true),
        ("/a*", "/b", false),
        ("/a*", "/a*", true),
        ("/{a,b}", "/b/x/**", true),
        ("/{a,b}", "/*", false),
    ] {
        assert_eq!(Over::new(over).covers(pattern), expected, "{over} over {pattern}");
    }
}

#[test]
fn containing() {
    for (upper, lower, expected) in [
        ("/a", "/a/**", true),
        ("/a", "/a/b", true),
        ("/a", "/b", false),
        ("/a", "/ab", false),
        ("/a/**", "/a", false),
        ("/a/*", "/a/*/b", true),
        ("/a/*", "/a/x/b", true),
        ("/a/*", "/a/x", false),
        ("/a/*", "/a/**", true),
        ("/a/**", "/a/*", false),
        ("/a/x", "/a/**", true),
        ("/a", "/a", true),
        ("/*.slice", "/b.slice/**", true),
        ("/*.slice", "/b.slice", false),
    ] {
        assert_eq!(Over::new(upper).contains(lower), expected, "{upper} and {lower}");
    }
}
