//! The documentation: lines fit, links lead somewhere, decisions are numbered and listed.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test has no callers, and what is wrong should stop it"
)]
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Columns of a line of prose.
const WIDTH: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page: those of the repository's root, and those of `docs`.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "docs/decisions"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    assert!(pages.len() > 30, "{pages:?}");
    pages
}

fn name(page: &Path) -> String {
    page.strip_prefix(root()).unwrap().display().to_string()
}

/// The lines outside of code blocks, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut in_code = false;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            lines.push((number, line));
        }
    }
    lines
}

#[test]
fn prose_is_wrapped_at_100_columns() {
    let mut wrong = Vec::new();
    for page in pages() {
        for (number, line) in prose(&fs::read_to_string(&page).unwrap()) {
            let content = line.trim_start();
            // A row of a table, and a link or path that cannot be broken.
            let cannot_break =
                content.starts_with('|') || content.starts_with("![") || !content.contains(' ');
            if !cannot_break && line.chars().count() > WIDTH {
                wrong.push(format!("{}:{number}: {} columns", name(&page), line.chars().count()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The targets of the links `[text](target)` of a page that are not addresses on the web.
fn links(text: &str) -> Vec<String> {
    let joined: String = prose(text).iter().map(|(_, line)| format!("{}\n", line.trim())).collect();
    joined
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.replace('\n', ""))
        .filter(|target| !target.starts_with("http") && !target.contains(' '))
        .collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .iter()
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut wrong = Vec::new();
    for page in pages() {
        for link in links(&fs::read_to_string(&page).unwrap()) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let is_page = target.extension().is_some_and(|extension| extension == "md");
            if !target.exists() {
                wrong.push(format!("{}: {link} does not exist", name(&page)));
            } else if !anchor.is_empty()
                && is_page
                && !anchors(&fs::read_to_string(&target).unwrap()).contains(anchor)
            {
                wrong.push(format!("{}: {link} has no such heading", name(&page)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The paths in backticks that begin with one of the repository's folders.
fn paths(text: &str) -> Vec<String> {
    let folders = ["src/", "tests/", "docs/", "fixtures/", "fuzz/", "benches/", "policies/"];
    let lines = prose(text);
    let spans = lines.iter().flat_map(|(_, line)| line.split('`').skip(1).step_by(2));
    spans
        .filter(|span| folders.iter().any(|folder| span.starts_with(folder)))
        // Names to be filled in are in capitals.
        .filter(|span| !span.contains([' ', '*', '{']) && !span.contains("NAME") && !span.contains("CLASS"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn files_that_are_named_exist() {
    let mut wrong = Vec::new();
    for page in pages() {
        for path in paths(&fs::read_to_string(&page).unwrap()) {
            if !root().join(&path).exists() {
                wrong.push(format!("{}: {path}", name(&page)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Each `countersign classify "SQL"` of a page, with the lines that follow it in its block.
fn classifications(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut in_output = false;
    for line in text.lines() {
        if let Some(sql) = line.strip_prefix("$ countersign classify \"") {
            found.push((sql.trim_end_matches('"').to_owned(), Vec::new()));
            in_output = true;
        } else if line.starts_with("```") || line.starts_with("$ ") {
            in_output = false;
        } else if in_output {
            found.last_mut().unwrap().1.push(line.to_owned());
        }
    }
    found
}

/// A page may leave out the end of the output.
#[test]
fn quoted_output_of_classify_is_what_it_prints() {
    let mut quoted = 0;
    for page in pages() {
        for (sql, lines) in classifications(&fs::read_to_string(&page).unwrap()) {
            let ran =
                Command::new(env!("CARGO_BIN_EXE_countersign")).args(["classify", &sql]).output().unwrap();
            let printed = String::from_utf8(ran.stdout).unwrap();
            assert!(printed.starts_with(&lines.join("\n")), "{}: {sql} prints\n{printed}", name(&page));
            quoted += 1;
        }
    }
    assert!(quoted >= 2, "{quoted}");
}

#[test]
fn decisions_are_numbered_without_a_gap_and_listed() {
    let folder = root().join("docs/decisions");
    let index = fs::read_to_string(folder.join("README.md")).unwrap();
    let mut files: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|file| file != "README.md")
        .collect();
    files.sort();

    for (number, file) in (1..).zip(&files) {
        assert!(file.starts_with(&format!("{number:04}-")), "{file} should be number {number}");
        assert!(index.contains(&format!("]({file})")), "{file} is not in the index");
        let text = fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.starts_with(&format!("# {number:04} ")), "{file} has another number in its heading");
        for part in ["**Context.**", "**Choice.**", "**Alternatives.**", "**Consequences.**"] {
            assert!(text.contains(part), "{file} lacks {part}");
        }
    }
}
