//! The pages as one whole: every link leads somewhere, every page is in the reading order, and every decision has
//! its number, its place in the list and its three parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::anchors;

/// Every page of the repository by its path, with its text.
fn pages() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths =
        vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md"), PathBuf::from("CONTRIBUTING.md")];
    for folder in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root.join(folder)).expect("the folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        paths.extend(names.map(|name| Path::new(folder).join(name)));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root.join(&path)).expect("the page");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// The links of a page that stay inside the repository: the file, and the anchor if there is one.
fn links(path: &Path, text: &str) -> Vec<(PathBuf, Option<String>)> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let inside = targets.filter(|target| !target.contains("://"));
    inside
        .map(|target| {
            let (file, anchor) = match target.split_once('#') {
                Some((file, anchor)) => (file, Some(anchor.to_owned())),
                None => (target, None),
            };
            let folder = path.parent().unwrap_or(Path::new(""));
            let file = if file.is_empty() { path.to_owned() } else { plain(&folder.join(file)) };
            (file, anchor)
        })
        .collect()
}

/// The path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => assert!(plain.pop(), "{} leaves the repository", path.display()),
            other => plain.push(other),
        }
    }
    plain
}

/// What is wrong with the links of one page.
fn broken(path: &Path, text: &str, pages: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_broken = |(file, anchor): &(PathBuf, Option<String>)| {
        let known = |anchor: &String| pages.get(file).is_some_and(|page| anchors(page).contains(anchor));
        !root.join(file).exists() || anchor.as_ref().is_some_and(|anchor| !known(anchor))
    };
    let told = |(file, anchor): (PathBuf, Option<String>)| {
        format!("{}: {} {anchor:?}", path.display(), file.display())
    };
    links(path, text).into_iter().filter(is_broken).map(told).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let all: usize = pages.iter().map(|(path, text)| links(path, text).len()).sum();
    assert!(all > 50, "only {all} links were found");
    let broken_links: Vec<_> = pages.iter().flat_map(|(path, text)| broken(path, text, &pages)).collect();
    assert!(broken_links.is_empty(), "{broken_links:#?}");
    for planted in ["[a](nothing.md)", "[a](#nothing)", "[a](admin.md#nothing)", "[a](../docs/nothing)"] {
        assert_eq!(broken(Path::new("docs/metrics.md"), planted, &pages).len(), 1, "{planted}");
    }
}

#[test]
fn every_page_is_in_the_reading_order() {
    let pages = pages();
    let order = Path::new("docs/README.md");
    let listed: BTreeSet<_> = links(order, &pages[order]).into_iter().map(|(file, _)| file).collect();
    let missing: Vec<_> = pages.keys().filter(|page| *page != order && !listed.contains(*page)).collect();
    assert!(missing.is_empty(), "docs/README.md does not list {missing:?}");
}

#[test]
fn every_decision_has_its_number_and_its_parts() {
    let pages = pages();
    let order = &pages[Path::new("docs/README.md")];
    let decisions: Vec<_> = pages.iter().filter(|(path, _)| path.starts_with("docs/decisions")).collect();
    assert!(decisions.len() >= 18);
    let mut last = String::new();
    for (path, text) in decisions {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        // Numbers grow and are never given twice; there may be holes.
        let number =
            name.split('-').next().filter(|number| number.parse::<u16>().is_ok() && number.len() == 4);
        let number = number.unwrap_or_else(|| panic!("{name} should begin with its number")).to_owned();
        assert!(number > last, "{name} has the number of another one");
        last.clone_from(&number);
        let heading = text.lines().next().and_then(|line| line.strip_prefix("# ")).expect("a heading");
        let title = heading.strip_prefix(&number).expect("the number first").trim();
        assert!(
            order.contains(&format!("| [{number}](decisions/{name}) | {title} |")),
            "no row for {heading}"
        );
        let parts: Vec<_> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(parts, ["## Context", "## Choice", "## Rejected"], "{name}");
    }
}
