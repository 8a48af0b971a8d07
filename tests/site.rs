//! The pages of docs/ as a site and as GitHub shows them: all are in the summary, and every link leads somewhere.
//! Must not know: what the pages say. Spec: CommonMark; docs/book.toml.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use libtest_mimic::Trial;

use crate::support::{Tier, repository, run, trial};

pub fn trials() -> Vec<Trial> {
    const MDBOOK: &[Tier] = &[Tier::Judge(&["mdbook"])];
    vec![
        trial("site::the_summary_has_every_page", &[], summary),
        trial("site::links_between_pages_lead_somewhere", &[], pages),
        trial("site::links_of_the_built_site_lead_somewhere", MDBOOK, built),
    ]
}

/// All files below a folder with this ending.
pub fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.extension().is_some_and(|e| e == end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The lines of a page that are in no block of code.
fn prose(text: &str) -> Vec<&str> {
    let mut code = false;
    let mut keep = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    };
    text.lines().filter(|line| keep(line)).collect()
}

/// Where a line's links lead. `](` in code is no link.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let outside = line.split('`').enumerate().filter(|(at, _)| at % 2 == 0).map(|(_, part)| part);
    let whole = outside.flat_map(|part| part.split("](").skip(1).filter_map(|rest| rest.split_once(')')));
    // A link whose text is code has its target behind the last backtick.
    let code = line.split("`](").skip(1).filter_map(|rest| rest.split_once(')'));
    whole.chain(code).map(|(target, _)| target)
}

/// The anchors of a page, as GitHub makes them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for line in prose(text) {
        let Some(title) = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))
        else {
            continue;
        };
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect();
        let count = seen.entry(slug.clone()).or_default();
        found.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    found
}

/// A path without `.` and `..`, which need not be there.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = out.pop(),
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

fn is_foreign(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:") || target.starts_with("data:")
}

fn summary() {
    let docs = repository().join("docs");
    let text = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: Vec<&str> = text.lines().flat_map(targets).collect();
    let mut pages = Vec::new();
    for page in files(&docs, "md") {
        let name = page.strip_prefix(&docs).unwrap().to_str().unwrap().to_owned();
        if name != "SUMMARY.md" {
            pages.push(name);
        }
    }
    let line = |page: &&String| {
        let stem = Path::new(page).file_stem().unwrap().to_str().unwrap();
        format!("- [{stem}]({page})")
    };
    let missing: Vec<String> =
        pages.iter().filter(|page| !listed.contains(&page.as_str())).map(|page| line(&page)).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md needs these lines:\n{}", missing.join("\n"));
    let gone: Vec<&&str> = listed.iter().filter(|target| !pages.iter().any(|page| page == *target)).collect();
    assert!(gone.is_empty(), "docs/SUMMARY.md lists pages that are gone: {gone:?}");
    assert_eq!(listed.len(), pages.len(), "docs/SUMMARY.md lists a page twice");
}

fn pages() {
    let docs = repository().join("docs");
    let mut all = files(&docs, "md");
    all.extend(["README.md", "CHANGELOG.md"].map(|name| repository().join(name)));
    let mut wrong = Vec::new();
    let mut links = 0;
    for page in &all {
        let text = fs::read_to_string(page).unwrap();
        for target in prose(&text).into_iter().flat_map(targets).filter(|target| !is_foreign(target)) {
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if file.is_empty() { page.clone() } else { plain(&page.parent().unwrap().join(file)) };
            let anchored = || {
                anchor.is_empty() || fs::read_to_string(&to).is_ok_and(|text| anchors(&text).contains(anchor))
            };
            // The site has docs/ alone.
            let outside = page.starts_with(&docs) && !to.starts_with(&docs);
            if !to.exists() || !anchored() || outside {
                wrong.push(format!("{}: {target}", page.strip_prefix(repository()).unwrap().display()));
            }
        }
    }
    assert!(links > 100, "only {links} links were found");
    assert!(wrong.is_empty(), "these links lead nowhere:\n{}", wrong.join("\n"));
}

/// The values of an attribute in a page of HTML, which mdBook always writes with double quotes.
fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!(" {name}=\"");
    html.split(&start).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0)).collect()
}

fn built() {
    let site = tempfile::tempdir().unwrap();
    let (docs, out) = (repository().join("docs"), site.path().to_str().unwrap());
    run("mdbook", ["build", docs.to_str().unwrap(), "--dest-dir", out]);
    let pages: BTreeMap<PathBuf, String> = files(site.path(), "html")
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    // The first is for any address, the second repeats all pages, the third is a part of each.
    let own = ["404.html", "print.html", "toc.html"].map(|name| site.path().join(name));
    let (mut links, mut wrong) = (0, Vec::new());
    for (page, html) in pages.iter().filter(|(page, _)| !own.contains(page)) {
        let targets = [attributes(html, "href"), attributes(html, "src")].concat();
        for target in targets.into_iter().filter(|target| !is_foreign(target)) {
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if file.is_empty() { page.clone() } else { plain(&page.parent().unwrap().join(file)) };
            let anchored = anchor.is_empty()
                || pages.get(&to).is_some_and(|html| attributes(html, "id").contains(&anchor));
            if !to.exists() || !anchored {
                wrong.push(format!("{}: {target}", page.strip_prefix(site.path()).unwrap().display()));
            }
        }
    }
    assert!(pages.len() > 60 && links > 1000, "{} pages, {links} links", pages.len());
    assert!(wrong.is_empty(), "these links lead nowhere:\n{}", wrong.join("\n"));
}
