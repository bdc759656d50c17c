//! Holds the table in ARCHITECTURE.md ("Which room imports which") against the imports in src/, and finds circles.
//!
//! A room is a top-level module: a directory or a file in src/. Tests may import from anywhere, so files named `tests` or
//! `testing` and modules behind `#[cfg(test)]` don't count. Circles between rooms fail; those between files within a room are printed
//! (`cargo test --test structure -- --nocapture`).

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path from the crate's root; empty for lib.rs.
type Module = Vec<String>;
type Graph<T> = BTreeMap<T, BTreeSet<T>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module of a file; `None` for main.rs, which is another crate.
fn module(file: &Path, src: &Path) -> Option<Module> {
    let mut parts: Module =
        file.strip_prefix(src).unwrap().with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    match parts[..] {
        [ref one] if one == "main" => None,
        [ref one] if one == "lib" => Some(Vec::new()),
        _ => Some(parts),
    }
}

fn is_test(module: &[String]) -> bool {
    module.iter().any(|part| part == "tests" || part == "testing")
}

/// The text without line comments, and without a module of tests at its end.
fn code(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let is_tests = |pair: &[&str]| pair[0].trim() == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].trim_end().ends_with('{');
    let end = lines.windows(2).position(is_tests).unwrap_or(lines.len());
    lines[..end].join("\n")
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Where `word` stands by itself.
fn places<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back();
        !before.is_some_and(|c| is_word(c) || c == ':') && !text[at + word.len()..].starts_with(is_word)
    })
}

/// The paths of a tree of imports, `a::{b, c::{self, d}}`.
fn expand(prefix: &[String], tree: &str, paths: &mut Vec<Module>) {
    let segments = |text: &str| -> Module {
        let path = text.split(" as ").next().unwrap_or_default();
        path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let Some(open) = tree.find('{') else { return paths.push([prefix, &segments(tree)].concat()) };
    let prefix = [prefix, &segments(&tree[..open])].concat();
    let body = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let (mut depth, mut from) = (0, 0);
    for (at, c) in body.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &body[from..at], paths);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !body[from..].trim().is_empty() {
        expand(&prefix, &body[from..], paths);
    }
}

/// All paths that a file names: its imports, and what stands in the code as `crate::...`, `super::...` or `child::...`.
fn paths(code: &str, children: &[String]) -> Vec<Module> {
    let mut paths = Vec::new();
    for at in places(code, "use") {
        // The word may stand in a text, too.
        let before = code[..at].rsplit('\n').next().unwrap_or_default().trim_start();
        if !before.is_empty() && !before.starts_with("pub") {
            continue;
        }
        if let Some(end) = code[at..].find(';') {
            expand(&[], &code[at + 3..at + end], &mut paths);
        }
    }
    for start in ["crate", "super", "self"].into_iter().chain(children.iter().map(String::as_str)) {
        for at in places(code, start) {
            let path = code[at..].split(|c: char| !is_word(c) && c != ':').next().unwrap_or_default();
            if path.contains("::") {
                expand(&[], path.trim_end_matches(':'), &mut paths);
            }
        }
    }
    paths
}

/// Which module imports from which.
fn imports() -> Graph<Module> {
    let src = root().join("src");
    let mut found = Vec::new();
    files(&src, &mut found);
    let modules: BTreeMap<Module, PathBuf> = found.into_iter().filter_map(|file| Some((module(&file, &src)?, file))).collect();
    let mut graph = Graph::new();
    for (module, file) in modules.iter().filter(|(module, _)| !is_test(module)) {
        let code = code(&fs::read_to_string(file).unwrap());
        let children: Vec<String> = modules
            .keys()
            .filter(|other| other.len() == module.len() + 1 && other.starts_with(module))
            .map(|other| other.last().unwrap().clone())
            .collect();
        let imported = graph.entry(module.clone()).or_default();
        for path in paths(&code, &children) {
            let mut target = match path.first().map(String::as_str) {
                Some("crate") => path[1..].to_vec(),
                Some("self") => [module, &path[1..]].concat(),
                Some("super") => {
                    let up = path.iter().take_while(|part| *part == "super").count();
                    [&module[..module.len().saturating_sub(up)], &path[up..]].concat()
                }
                Some(first) if children.iter().any(|child| child == first) => [module, &path[..]].concat(),
                _ => continue,
            };
            while !modules.contains_key(&target) {
                target.pop();
            }
            if target != *module && !is_test(&target) {
                imported.insert(target);
            }
        }
    }
    graph
}

/// Which room imports from which, and by which file.
fn rooms(imports: &Graph<Module>) -> BTreeMap<(String, String), Vec<String>> {
    let mut rooms: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (module, imported) in imports {
        for other in imported {
            if let (Some(from), Some(to)) = (module.first(), other.first())
                && from != to
            {
                rooms.entry((from.clone(), to.clone())).or_default().push(module.join("/"));
            }
        }
    }
    rooms
}

/// Groups of nodes each of which leads to each other of its group.
fn circles<T: Ord + Clone>(graph: &Graph<T>) -> Vec<Vec<T>> {
    let reach = |from: &T| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(node) = todo.pop() {
            for next in graph.get(&node).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    todo.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: Graph<T> = graph.keys().map(|node| (node.clone(), reach(node))).collect();
    let mut circles: BTreeSet<Vec<T>> = BTreeSet::new();
    for (node, nodes) in &reached {
        let circle: Vec<T> = nodes.iter().filter(|other| reached.get(*other).is_some_and(|back| back.contains(node))).cloned().collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

/// The table of ARCHITECTURE.md: each room with what it may import from.
fn table() -> Graph<String> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("Which room imports which")).expect("the section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let mut cells = line.trim_matches('|').split('|');
        let names =
            |cell: Option<&str>| -> Vec<String> { cell.unwrap_or_default().split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let from = names(cells.next());
        let to: BTreeSet<String> = names(cells.next()).into_iter().collect();
        (from.into_iter().next().expect("a room"), to)
    };
    rows.map(row).collect()
}

#[test]
fn rooms_import_what_the_table_says() {
    let (table, rooms) = (table(), rooms(&imports()));
    let mut wrong: Vec<String> = Vec::new();
    for ((from, to), by) in &rooms {
        match table.get(from) {
            None => wrong.push(format!("the room `{from}` has no line in the table of ARCHITECTURE.md, \"Which room imports which\"")),
            Some(may) if !may.contains(to) => {
                wrong.push(format!(
                    "`{from}` must not import from `{to}`, by the table of ARCHITECTURE.md; src/{} does",
                    by.join(".rs, src/") + ".rs"
                ));
            }
            Some(_) => {}
        }
    }
    for (from, may) in &table {
        for to in may.iter().filter(|to| !rooms.contains_key(&(from.clone(), (*to).clone()))) {
            wrong.push(format!("the table of ARCHITECTURE.md lets `{from}` import from `{to}`, which it does not: take it out"));
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn no_circle_between_rooms() {
    let mut graph: Graph<String> = Graph::new();
    for (from, to) in rooms(&imports()).into_keys() {
        graph.entry(from).or_default().insert(to);
    }
    let circles = circles(&graph);
    assert!(circles.is_empty(), "rooms that import from each other, directly or by way of others: {circles:?}");
}

#[test]
fn circles_between_files_are_printed() {
    let imports = imports();
    let circles = circles(&imports);
    println!("{} circles between files", circles.len());
    for circle in circles {
        println!("- {}", circle.iter().map(|module| module.join("/")).collect::<Vec<_>>().join(", "));
    }
}

#[test]
fn imports_are_read_in_all_their_forms() {
    let mut found = Vec::new();
    expand(&[], " crate::a::{b::{self, C}, d as e, \n f::G}", &mut found);
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["crate::a::b::self", "crate::a::b::C", "crate::a::d", "crate::a::f::G"]);
    let text = code(
        "use crate::a; // crate::no\nfn f() { x(crate::b::Y, child::Z, other::child::W) }\n#[cfg(test)]\nmod tests {\nuse crate::c;\n}",
    );
    let found: BTreeSet<String> = paths(&text, &["child".to_owned()]).iter().map(|path| path.join("::")).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["child::Z", "crate::a", "crate::b::Y"]);
    let graph = Graph::from([("a", BTreeSet::from(["b"])), ("b", BTreeSet::from(["c"])), ("c", BTreeSet::from(["b"]))]);
    assert_eq!(circles(&graph), [["b", "c"]]);
}
