//! A request, as the API tells it, laid out for a terminal.

use std::fmt::Write as _;

use serde_json::Value;

use super::client::text;
use super::terminal::{line, plain};

/// The whole request. Every line of the agent's text stands behind a bar, so that none of it can pose
/// as a line of ours.
pub(super) fn request(request: &Value) -> String {
    let document = request.get("document").unwrap_or(&Value::Null);
    let title = match text(document, "title") {
        "" => format!("{} asks to run {}", text(request, "agent"), text(request, "class")),
        title => title.to_owned(),
    };
    let mut out = format!("{}  {}  ({})\n", line(text(request, "id")), line(&title), words(request));
    let sections = document.get("sections").and_then(Value::as_array);
    match sections {
        Some(sections) => sections.iter().for_each(|section| write_section(&mut out, section)),
        // An agent is told its statement and how it stands, and nothing else.
        None => write_sql(&mut out, text(request, "sql")),
    }
    write_standing(&mut out, request);
    out
}

fn write_section(out: &mut String, section: &Value) {
    let _ = write!(out, "\n{}\n", line(text(section, "title")));
    let Some(body) = section.get("body").and_then(Value::as_object) else { return };
    for (kind, content) in body {
        let items = content.as_array().map(Vec::as_slice).unwrap_or_default();
        match kind.as_str() {
            "sql" => write_sql(out, content.as_str().unwrap_or_default()),
            "facts" => {
                let widest = items.iter().map(|fact| text(fact, "label").len()).max().unwrap_or(0);
                for fact in items {
                    let (label, value) = (line(text(fact, "label")), line(text(fact, "value")));
                    let _ = writeln!(out, "  {label:widest$}  {value}");
                }
            }
            "parameters" => {
                for parameter in items {
                    let value = match parameter.get("value").and_then(Value::as_str) {
                        Some(value) if parameter.get("hex").and_then(Value::as_bool) == Some(true) => {
                            let length = parameter.get("length").and_then(Value::as_u64).unwrap_or_default();
                            format!("{length} bytes, hexadecimal: {}", line(value))
                        }
                        Some(value) => line(value),
                        None => "NULL".to_owned(),
                    };
                    let number = parameter.get("number").and_then(Value::as_u64).unwrap_or_default();
                    let _ = writeln!(out, "  ${number} ({}) = {value}", line(text(parameter, "type")));
                }
            }
            _ => {
                for item in items {
                    let _ = writeln!(out, "  {}", line(item.as_str().unwrap_or_default()));
                }
            }
        }
    }
}

fn write_sql(out: &mut String, sql: &str) {
    for line in plain(sql).split('\n') {
        let _ = writeln!(out, "  | {line}");
    }
}

fn write_standing(out: &mut String, request: &Value) {
    let _ = write!(out, "\nHow it stands\n  {}", line(text(request, "state")));
    match missing(request).as_str() {
        "" => {}
        missing => {
            let _ = write!(out, ", needs {missing}");
        }
    }
    let _ = writeln!(out);
    if let Some(message) = request.get("message").and_then(Value::as_str) {
        let _ = writeln!(out, "  {}", line(message));
    }
    for review in request.get("reviews").and_then(Value::as_array).into_iter().flatten() {
        let [who, verdict, channel, at] =
            ["reviewer", "verdict", "channel", "at"].map(|name| line(text(review, name)));
        let reason = match text(review, "reason") {
            "" => String::new(),
            reason => format!(": {}", line(reason)),
        };
        let _ = writeln!(out, "  {at}  {who} {verdict} by {channel}{reason}");
    }
    if let Some(receipt) = request.get("receipt") {
        let rows = receipt.get("rows").and_then(Value::as_u64).unwrap_or_default();
        let took = receipt.get("duration_ms").and_then(Value::as_u64).unwrap_or_default();
        let _ = writeln!(out, "  ran: {}, {rows} rows, {took} ms", line(text(receipt, "result")));
    }
}

/// `1 of dba and 1 of security`; empty when nobody is missing.
fn missing(value: &Value) -> String {
    let missing = value.get("missing").and_then(Value::as_array);
    let asked = missing.into_iter().flatten().map(|asked| {
        let count = asked.get("count").and_then(Value::as_u64).unwrap_or_default();
        format!("{count} of {}", line(text(asked, "group")))
    });
    asked.collect::<Vec<_>>().join(" and ")
}

/// The four words of the digest.
pub(super) fn words(request: &Value) -> String {
    let words = request.get("words").and_then(Value::as_array);
    let words: Vec<&str> = words.into_iter().flatten().filter_map(Value::as_str).collect();
    line(&words.join(" "))
}

/// Whether the rule wants a reason, as the document says it.
pub(super) fn needs_reason(request: &Value) -> bool {
    let sections = request.pointer("/document/sections").and_then(Value::as_array);
    let facts = sections.into_iter().flatten().filter(|section| text(section, "id") == "answer");
    let mut facts = facts.filter_map(|section| section.pointer("/body/facts")?.as_array()).flatten();
    facts.any(|fact| text(fact, "label") == "reason" && text(fact, "value") == "required")
}

/// What came of an answer that counted, in one line.
pub(super) fn counted(verdict: &str, request: &Value, counted: &Value) -> String {
    let id = line(text(request, "id"));
    match (verdict, text(counted, "state"), missing(counted).as_str()) {
        ("approve", "waiting", missing) => format!("{id}: your approval counts; still missing: {missing}"),
        ("approve", _, _) => format!("{id}: approved"),
        ("deny", _, _) => format!("{id}: denied"),
        (_, _, missing) => format!("{id}: escalated; missing: {missing}"),
    }
}
