//! Every link of the documentation leads somewhere: to a file of this repository, and to a heading that the file has.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// What is looked at: links, and the headings that links may name.
#[derive(Default)]
struct Page {
    links: Vec<String>,
    anchors: BTreeSet<String>,
}

/// The name of a heading in a link, as GitHub makes it: lower case, a hyphen for each blank, other punctuation left out.
fn slug(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn read(text: &str) -> Page {
    let mut page = Page::default();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let name = slug(&heading.take().unwrap_or_default());
                // The second heading of the same name gets a number.
                let mut unique = name.clone();
                for number in 1.. {
                    if page.anchors.insert(unique) {
                        break;
                    }
                    unique = format!("{name}-{number}");
                }
            }
            Event::Text(part) | Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&part);
                }
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => page.links.push(dest_url.to_string()),
            _ => {}
        }
    }
    page
}

/// All Markdown files below a directory, relative to it.
fn pages(root: &Path) -> BTreeMap<PathBuf, Page> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && !name.starts_with('.') {
                    directories.push(path);
                }
            } else if name.ends_with(".md") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(root).unwrap().to_path_buf(), read(&text));
            }
        }
    }
    found
}

/// `docs/../kmod/README.md` as `kmod/README.md`; `None` where it leaves the repository.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => plain.pop().then_some(())?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

/// What is wrong with a link of a page; `None` where it leads somewhere, or out of the repository by a URL.
fn wrong(root: &Path, pages: &BTreeMap<PathBuf, Page>, page: &Path, link: &str) -> Option<&'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = match file {
        "" => page.to_path_buf(),
        file => match plain(&page.parent().unwrap().join(file)) {
            Some(target) => target,
            None => return Some("leads out of the repository"),
        },
    };
    if !pages.contains_key(&target) && !root.join(&target).exists() {
        return Some("no such file");
    }
    match (anchor, pages.get(&target)) {
        (None, _) => None,
        (Some(_), None) => Some("an anchor in a file that is not Markdown"),
        (Some(anchor), Some(known)) => (!known.anchors.contains(anchor)).then_some("no such heading in that file"),
    }
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = pages(root);
    let broken: Vec<String> = pages
        .iter()
        .flat_map(|(path, page)| page.links.iter().map(move |link| (path, link)))
        .filter_map(|(path, link)| wrong(root, &pages, path, link).map(|why| format!("{}: ({link}): {why}", path.display())))
        .collect();
    assert!(pages.values().map(|page| page.links.len()).sum::<usize>() > 20, "links are not found: this proves nothing");
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn what_is_broken_is_seen() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = PathBuf::from("docs/page.md");
    let mut pages = pages(root);
    pages.insert(page.clone(), read("# One `two`\n\n## Who's this?\n\n## Same\n\n## Same\n"));
    let wrong = |link: &str| wrong(root, &pages, &page, link);
    assert_eq!(wrong("#one-two"), None);
    assert_eq!(wrong("#whos-this"), None);
    assert_eq!(wrong("#same-1"), None);
    assert_eq!(wrong("#same-2"), Some("no such heading in that file"));
    assert_eq!(wrong("running.md"), None);
    assert_eq!(wrong("../README.md"), None);
    assert_eq!(wrong("gone.md"), Some("no such file"));
    assert_eq!(wrong("running.md#gone"), Some("no such heading in that file"));
    assert_eq!(wrong("../../elsewhere.md"), Some("leads out of the repository"));
    assert_eq!(wrong("https://systemd.io/MEMORY_PRESSURE/"), None);
}
