//! Writes `grammar.rs` from libpg_query's own description of its parse tree, and checks that the
//! one that is checked in still says the same.
//!
//! The description is `pg_query.proto` of the `pg_query` crate that this build links, found through
//! `cargo metadata`. To write the table anew after an upgrade of that crate:
//!
//! ```text
//! COUNTERSIGN_REGENERATE=1 cargo nextest run -E 'test(the_grammar_table_is_what)'
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Messages that never stand in a tree.
const SKIPPED: [&str; 6] = ["ScanResult", "ScanToken", "SummaryResult", "Table", "Function", "FilterColumn"];

struct Message {
    name: String,
    /// (JSON name, type, repeated)
    fields: Vec<(String, String, bool)>,
}

fn camel(name: &str) -> String {
    let mut out = String::new();
    let mut upper = true;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            out.extend(c.to_uppercase());
            upper = false;
        } else {
            out.push(c);
        }
    }
    out
}

fn parse(proto: &str) -> (Vec<Message>, BTreeMap<String, Vec<String>>) {
    let mut messages = Vec::new();
    let mut enums = BTreeMap::new();
    let mut message: Option<Message> = None;
    let mut values: Option<(String, Vec<String>)> = None;
    for line in proto.lines() {
        let line = line.split("//").next().unwrap_or("").trim();
        let words: Vec<&str> = line.split([' ', '\t', ';']).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            ["message", name, ..] => message = Some(Message { name: (*name).into(), fields: Vec::new() }),
            ["enum", name, ..] => values = Some(((*name).into(), Vec::new())),
            ["oneof", ..] => {}
            // The brace that ends `Node`'s only `oneof` comes before its own, which then ends nothing.
            ["}"] => {
                if let Some((name, list)) = values.take() {
                    enums.insert(name, list);
                }
                messages.extend(message.take());
            }
            [value, "=", ..] if values.is_some() => values.as_mut().unwrap().1.push((*value).into()),
            words if message.is_some() && words.contains(&"=") => {
                field(message.as_mut().unwrap(), line, words)
            }
            _ => {}
        }
    }
    (messages, enums)
}

fn field(message: &mut Message, line: &str, words: &[&str]) {
    let repeated = words[0] == "repeated";
    let words = if repeated { &words[1..] } else { words };
    let name = line
        .split_once("json_name=\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or(words[1], |(name, _)| name);
    message.fields.push((name.into(), words[0].into(), repeated));
}

/// The text of `grammar.rs`.
fn generate(proto: &str) -> String {
    // A_Const's `oneof` ends before its last two fields; lift the brace so that one message is one block.
    let proto = proto.replace("    BitString bsval = 5;\n  }\n", "    BitString bsval = 5;\n");
    let (messages, enums) = parse(&proto);
    let node = messages.iter().find(|m| m.name == "Node").expect("message Node");
    let nodes: BTreeSet<&str> = node.fields.iter().map(|(name, ..)| name.as_str()).collect();
    let kinds: Vec<&Message> =
        messages.iter().filter(|m| m.name != "Node" && !SKIPPED.contains(&m.name.as_str())).collect();
    let used: BTreeSet<&str> = kinds
        .iter()
        .flat_map(|m| m.fields.iter().map(|(_, kind, _)| kind.as_str()))
        .filter(|kind| enums.contains_key(*kind))
        .collect();
    let mut fields: BTreeMap<&str, String> = BTreeMap::new();
    for (name, ..) in kinds.iter().flat_map(|m| &m.fields) {
        fields.entry(name).or_insert_with(|| camel(name));
    }
    // `typeName` of one node and `type_name` of another are one word here; within a node they must differ.
    for message in &kinds {
        let words: BTreeSet<&str> =
            message.fields.iter().map(|(name, ..)| fields[name.as_str()].as_str()).collect();
        assert_eq!(words.len(), message.fields.len(), "{}", message.name);
    }
    let words: BTreeSet<&str> = fields.values().map(String::as_str).collect();

    let mut out = String::from(
        "//! Every node, field and enum of libpg_query's parse tree. Generated from `pg_query.proto` by\n\
         //! `generate.rs`; do not edit.\n\n\
         use super::spec::{FieldSpec, KindSpec, Shape};\n\n\
         /// A kind of node.\n#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]\n#[repr(u16)]\n\
         pub(in crate::classify) enum Kind {\n",
    );
    for message in &kinds {
        writeln!(out, "    {},", camel(&message.name)).unwrap();
    }
    out += "    /// A list.\n    Items,\n    /// A string, number, flag or enum value.\n    Scalar,\n    \
            /// `{}`: a NULL in a list.\n    Empty,\n}\n\n\
            /// A field's name.\n#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]\n#[repr(u16)]\n\
            pub(in crate::classify) enum Field {\n    /// Not a field: an item of a list, or the root.\n    None,\n";
    for field in words {
        writeln!(out, "    {field},").unwrap();
    }
    out += "}\n\n";
    writeln!(
        out,
        "/// What each kind looks like, by `Kind as usize`.\npub(super) static KINDS: [KindSpec; {}] = [",
        kinds.len()
    )
    .unwrap();
    for message in &kinds {
        writeln!(
            out,
            "    KindSpec::new({:?}, Kind::{}, {}, &[",
            message.name,
            camel(&message.name),
            nodes.contains(message.name.as_str())
        )
        .unwrap();
        for (name, kind, repeated) in &message.fields {
            let shape = match (kind.as_str(), repeated) {
                ("Node", false) => "Shape::Node".into(),
                ("Node", true) => "Shape::Nodes".into(),
                ("string", false) => "Shape::Text".into(),
                ("bool", false) => "Shape::Flag".into(),
                ("int32" | "int64" | "uint32" | "uint64" | "double", false) => "Shape::Number".into(),
                ("uint64", true) => "Shape::Numbers".into(),
                (kind, false) if enums.contains_key(kind) => format!("Shape::Enum({})", constant(kind)),
                (kind, false) => format!("Shape::Message(Kind::{})", camel(kind)),
                (kind, true) => format!("Shape::Messages(Kind::{})", camel(kind)),
            };
            writeln!(out, "        FieldSpec::new({name:?}, Field::{}, {shape}),", fields[name.as_str()])
                .unwrap();
        }
        out += "    ]),\n";
    }
    out += "];\n";
    for name in used {
        // The first value is protobuf's own `.._UNDEFINED`, which the grammar never makes.
        let values = &enums[name][1..];
        writeln!(out, "\nstatic {}: &[&str] = &[", constant(name)).unwrap();
        for value in values {
            writeln!(out, "    {value:?},").unwrap();
        }
        out += "];\n";
    }
    rustfmt(&out)
}

fn constant(name: &str) -> String {
    let mut out = String::new();
    let mut previous = '_';
    for c in name.chars() {
        if c.is_uppercase() && previous.is_lowercase() {
            out.push('_');
        }
        out.extend(c.to_uppercase());
        previous = c;
    }
    out
}

fn rustfmt(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grammar.rs");
    std::fs::write(&file, text).unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("rustfmt.toml");
    let done =
        Command::new("rustfmt").args(["--edition", "2024", "--config-path"]).arg(config).arg(&file).status();
    assert!(done.is_ok_and(|status| status.success()), "rustfmt is needed to compare the table");
    std::fs::read_to_string(file).unwrap()
}

fn proto() -> PathBuf {
    let version = Command::new("rustc").arg("-vV").output().expect("rustc").stdout;
    let version = String::from_utf8(version).expect("UTF-8");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let out = Command::new(env!("CARGO"))
        // Only this platform's packages are sure to be on this machine.
        .args(["metadata", "--offline", "--format-version", "1", "--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata");
    let metadata: serde_json::Value =
        serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON");
    let package = metadata["packages"]
        .as_array()
        .and_then(|all| all.iter().find(|package| package["name"] == "pg_query"))
        .expect("pg_query is a dependency");
    let manifest = PathBuf::from(package["manifest_path"].as_str().expect("a path"));
    manifest.with_file_name("libpg_query").join("protobuf/pg_query.proto")
}

#[test]
fn the_grammar_table_is_what_pg_query_proto_says() {
    let proto = std::fs::read_to_string(proto()).expect("pg_query.proto");
    let generated = generate(&proto);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/classify/tree/grammar.rs");

    if std::env::var_os("COUNTERSIGN_REGENERATE").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }

    let checked_in = std::fs::read_to_string(&path).unwrap();
    assert!(
        checked_in == generated,
        "src/classify/tree/grammar.rs differs; see src/classify/tree/generate.rs"
    );
}
