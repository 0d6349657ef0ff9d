//! Who may import whom, and what pure code may not name. The table is the one of
//! `docs/architecture.md`; arrows never point back.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test has no callers, and what is wrong should stop it"
)]
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module with the modules it may import. `cli` and `main` may import everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("secrets", &[]),
    ("actor", &["secrets"]),
    ("statement", &["actor"]),
    ("wire", &["refusal"]),
    ("toml_reader", &[]),
    ("refusal", &["statement"]),
    ("classify", &["statement", "secrets"]),
    ("policy", &["actor", "statement", "classify", "toml_reader"]),
    ("approval", &["actor", "statement", "classify", "policy"]),
    ("ledger", &["actor", "statement", "classify", "policy", "approval", "refusal"]),
    ("session", &["actor", "statement", "wire", "refusal", "ledger"]),
    ("identity", &["actor"]),
    ("desk", &["actor", "statement", "classify", "policy", "approval", "identity", "ledger", "refusal"]),
    ("channel", &["actor", "statement", "policy", "approval", "identity", "desk"]),
    (
        "config",
        &[
            "actor",
            "statement",
            "classify",
            "policy",
            "approval",
            "ledger",
            "identity",
            "desk",
            "channel",
            "toml_reader",
        ],
    ),
    (
        "proxy",
        &[
            "actor",
            "statement",
            "wire",
            "refusal",
            "session",
            "classify",
            "policy",
            "approval",
            "desk",
            "ledger",
            "identity",
        ],
    ),
    ("fuzzing", &["statement", "refusal", "wire", "classify", "ledger", "session"]),
    (
        "web",
        &["actor", "statement", "refusal", "classify", "policy", "approval", "desk", "ledger", "identity"],
    ),
];

/// Modules without sockets, clocks or async. Within the ledger, the files that are the shell.
const PURE: &[&str] =
    &["secrets", "actor", "statement", "wire", "refusal", "classify", "policy", "approval", "session"];

/// What pure code does not name.
const IMPURE: &[&str] = &[
    "tokio",
    "std::net",
    "rusqlite",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "std::thread::spawn",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file with the top-level module that it belongs to.
fn files() -> Vec<(String, PathBuf)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&source(), &mut found);
    found
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(source()).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
            (first.trim_end_matches(".rs").to_owned(), path)
        })
        .collect()
}

/// The code of a file: without comments, and without what is compiled for tests only.
fn code(path: &Path) -> String {
    if path
        .components()
        .any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs" | "testing.rs")))
    {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The top-level modules that a piece of code names by `crate::`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let end = list.find("};").unwrap_or(list.len());
            let mut depth = 0;
            let mut name = String::new();
            for character in list[..end].chars().chain([',']) {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        let first = name.split("::").next().unwrap_or_default().trim().to_owned();
                        found.push(first);
                        name.clear();
                    }
                    other if depth == 0 => name.push(other),
                    _ => {}
                }
            }
        } else {
            found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (module, path) in files() {
        if matches!(module.as_str(), "cli" | "main" | "lib") {
            continue;
        }
        let Some(allowed) = arrows.get(module.as_str()) else {
            wrong.push(format!("{}: module `{module}` is not in the table", path.display()));
            continue;
        };
        for import in imports(&code(&path)) {
            if import != module && !allowed.contains(&import.as_str()) && arrows.contains_key(import.as_str())
            {
                wrong.push(format!("{}: {module} imports {import}", path.display()));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn pure_modules_never_import_each_other() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for (module, allowed) in ARROWS {
        for import in *allowed {
            let back = arrows[import].contains(module);
            assert!(!back || !PURE.contains(module), "{module} and {import} import each other");
        }
    }
}

#[test]
fn pure_code_names_no_sockets_and_no_clocks() {
    let mut wrong = Vec::new();
    for (module, path) in files() {
        if PURE.contains(&module.as_str()) {
            let code = code(&path);
            wrong.extend(
                IMPURE
                    .iter()
                    .filter(|name| code.contains(*name))
                    .map(|name| format!("{}: names {name}", path.display())),
            );
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_one_file_is_unsafe() {
    let found: Vec<String> = files()
        .into_iter()
        .filter(|(_, path)| code(path).contains("unsafe_code"))
        .map(|(_, path)| path.strip_prefix(source()).unwrap().display().to_string())
        .collect();

    assert_eq!(found, ["classify/parser.rs"]);
}

/// What an agent sent must not move the cursor of whoever reads: one file makes it visible, and everything
/// that the commands print goes through it.
#[test]
fn only_one_file_of_the_commands_writes_on_the_terminal() {
    let ways = ["println!", "print!", "stdout()", "stderr()", "dbg!"];
    let mut wrong = Vec::new();
    for (module, path) in files() {
        if module != "cli" || path.ends_with("cli/terminal.rs") {
            continue;
        }
        let code = code(&path).replace("with_writer(std::io::stderr)", "");
        wrong.extend(
            ways.iter().filter(|way| code.contains(**way)).map(|way| format!("{}: {way}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_receipt_and_a_grant_are_made_in_one_place_each() {
    let makes = |what: &str| -> Vec<String> {
        let mut found: Vec<String> = files()
            .into_iter()
            .filter(|(_, path)| code(path).contains(what))
            .map(|(_, path)| path.strip_prefix(source()).unwrap().display().to_string())
            .collect();
        found.sort();
        found
    };

    assert_eq!(makes("Receipt { intent"), ["ledger/mod.rs"]);
    assert_eq!(makes("(Grant {"), ["approval/hold/mod.rs"]);
    assert_eq!(makes("AuthenticatedReviewer {"), ["identity/mod.rs"]);
}

/// Receipts out of thin air exist in tests and fuzzers only: the program refuses to be built with the
/// switch, and nothing but cargo-fuzz sets it.
#[test]
fn receipts_without_a_ledger_exist_in_tests_only() {
    let read = |path: &str| fs::read_to_string(source().join("..").join(path)).unwrap();

    let ledger = read("src/ledger/mod.rs");
    let before = ledger.split("pub(crate) fn for_test").next().unwrap();
    assert!(before.trim_end().ends_with("#[cfg(any(test, fuzzing))]"));
    assert_eq!(ledger.matches("fn for_test").count(), 1);
    assert!(read("src/main.rs").contains("#[cfg(fuzzing)]\ncompile_error!("));
    assert!(read("src/lib.rs").contains("#[cfg(any(test, fuzzing))]\npub mod fuzzing;"));
    for file in ["Makefile", ".ci/run", ".ci/install", "Cargo.toml"] {
        let text = read(file).replace("check-cfg = [\"cfg(fuzzing)\"]", "");
        assert!(!text.contains("cfg(fuzzing)") && !text.contains("--cfg fuzzing"), "{file}");
    }
}

/// `make quick` runs the test binaries that include neither `support` nor `browser`.
#[test]
fn test_binaries_without_support_start_no_server_and_no_driver() {
    let tests = source().join("../tests");
    let mut quick = Vec::new();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&tests).unwrap() {
        let path = entry.unwrap().path();
        let main = if path.is_dir() { path.join("main.rs") } else { path.clone() };
        let Ok(text) = fs::read_to_string(&main) else { continue };
        if text.contains("\nmod support;")
            || text.contains("\nmod browser;")
            || path.ends_with("architecture.rs")
        {
            continue;
        }
        quick.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        let others = if path.is_dir() { fs::read_dir(&path).unwrap().collect() } else { Vec::new() };
        let others = others.into_iter().map(|other| fs::read_to_string(other.unwrap().path()).unwrap());
        for text in others.chain([text]) {
            for word in ["Cluster", "psql", "python", "\"node\"", "chromium"] {
                if text.contains(word) {
                    wrong.push(format!("{}: {word}", path.display()));
                }
            }
        }
    }
    assert!(quick.len() >= 5, "{quick:?}");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
