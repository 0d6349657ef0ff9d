//! What Slack takes, after its documentation (docs.slack.dev, "Block Kit" and the methods' pages), and
//! for what it does not document (`msg_blocks_too_long`), after what people have measured.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::texts;

/// A code and what is wrong, like Slack's `error` and `response_metadata.messages`.
pub type Refused = (&'static str, String);

/// The blocks of a message.
pub fn message(body: &Value) -> Result<(), Refused> {
    let text = body["text"].as_str().unwrap_or_default();
    if text.chars().count() > 40_000 {
        return Err(("msg_too_long", "text".to_owned()));
    }
    let Some(blocks) = body.get("blocks") else {
        return if text.is_empty() { Err(("no_text", "text".to_owned())) } else { Ok(()) };
    };
    blocks_of(blocks, 50, false)?;
    let length: usize = texts(blocks).iter().map(|(_, text)| text.chars().count()).sum();
    if length > 12_000 || blocks.to_string().chars().count() > 13_200 {
        return Err(("msg_blocks_too_long", format!("{length} characters")));
    }
    Ok(())
}

/// A dialog.
pub fn view(view: &Value) -> Result<(), Refused> {
    let object = object(view, "view")?;
    only(
        object,
        "view",
        &[
            "type",
            "title",
            "blocks",
            "close",
            "submit",
            "private_metadata",
            "callback_id",
            "clear_on_close",
            "notify_on_close",
            "external_id",
        ],
    )?;
    if view["type"] != "modal" {
        return wrong("view/type");
    }
    for (name, required) in [("title", true), ("submit", false), ("close", false)] {
        match object.get(name) {
            Some(text) => plain_text(text, 24, &format!("view/{name}"))?,
            None if required => return wrong(&format!("view/{name} is missing")),
            None => {}
        }
    }
    at_most(view["callback_id"].as_str(), 255, "view/callback_id")?;
    at_most(view["private_metadata"].as_str(), 3_000, "view/private_metadata")?;
    blocks_of(&view["blocks"], 100, true)?;
    let has_input =
        view["blocks"].as_array().is_some_and(|blocks| blocks.iter().any(|block| block["type"] == "input"));
    if has_input && !object.contains_key("submit") {
        return wrong("view/submit is required with inputs");
    }
    Ok(())
}

fn blocks_of(blocks: &Value, most: usize, in_view: bool) -> Result<(), Refused> {
    let Some(blocks) = blocks.as_array() else { return Err(("invalid_blocks_format", "blocks".to_owned())) };
    if blocks.is_empty() || blocks.len() > most {
        return wrong(&format!("{} blocks", blocks.len()));
    }
    let mut ids = BTreeSet::new();
    for (place, value) in blocks.iter().enumerate() {
        let at = format!("blocks/{place}");
        let object = object(value, &at)?;
        at_most(value["block_id"].as_str(), 255, &at)?;
        if let Some(id) = value["block_id"].as_str()
            && !ids.insert(id.to_owned())
        {
            return wrong(&format!("{at}/block_id is not unique"));
        }
        block(value, object, &at, in_view)?;
    }
    Ok(())
}

fn block(value: &Value, object: &Map<String, Value>, at: &str, in_view: bool) -> Result<(), Refused> {
    match value["type"].as_str() {
        Some("section") => {
            only(object, at, &["type", "block_id", "text", "fields", "accessory", "expand"])?;
            if !object.contains_key("text") && !object.contains_key("fields") {
                return wrong(&format!("{at} has neither text nor fields"));
            }
            if let Some(text) = object.get("text") {
                any_text(text, 3_000, &format!("{at}/text"))?;
            }
            let fields = value["fields"].as_array().cloned().unwrap_or_default();
            if fields.len() > 10 {
                return wrong(&format!("{at}/fields"));
            }
            fields.iter().try_for_each(|field| any_text(field, 2_000, &format!("{at}/fields")))?;
            if object.get("expand").is_some_and(|expand| !expand.is_boolean()) {
                return wrong(&format!("{at}/expand"));
            }
            object.get("accessory").map_or(Ok(()), |element| button(element, &format!("{at}/accessory")))
        }
        Some("header") => {
            only(object, at, &["type", "block_id", "text"])?;
            plain_text(&value["text"], 150, &format!("{at}/text"))
        }
        Some("divider") => only(object, at, &["type", "block_id"]),
        Some("context") => {
            only(object, at, &["type", "block_id", "elements"])?;
            let elements = value["elements"].as_array().cloned().unwrap_or_default();
            if elements.is_empty() || elements.len() > 10 {
                return wrong(&format!("{at}/elements"));
            }
            elements.iter().try_for_each(|element| any_text(element, 3_000, &format!("{at}/elements")))
        }
        Some("actions") => {
            only(object, at, &["type", "block_id", "elements"])?;
            let elements = value["elements"].as_array().cloned().unwrap_or_default();
            if elements.is_empty() || elements.len() > 25 {
                return wrong(&format!("{at}/elements"));
            }
            let ids: BTreeSet<_> = elements.iter().map(|element| element["action_id"].to_string()).collect();
            if ids.len() != elements.len() {
                return wrong(&format!("{at}: action ids are not unique"));
            }
            elements.iter().try_for_each(|element| button(element, &format!("{at}/elements")))
        }
        Some("input") if in_view => {
            only(
                object,
                at,
                &["type", "block_id", "label", "element", "hint", "optional", "dispatch_action"],
            )?;
            plain_text(&value["label"], 2_000, &format!("{at}/label"))?;
            text_input(&value["element"], &format!("{at}/element"))
        }
        other => wrong(&format!("{at}: {other:?} is not a block that is known here")),
    }
}

fn button(value: &Value, at: &str) -> Result<(), Refused> {
    let object = object(value, at)?;
    only(
        object,
        at,
        &["type", "text", "action_id", "url", "value", "style", "confirm", "accessibility_label"],
    )?;
    if value["type"] != "button" {
        return wrong(&format!("{at}/type"));
    }
    plain_text(&value["text"], 75, &format!("{at}/text"))?;
    at_most(value["action_id"].as_str(), 255, at)?;
    at_most(value["value"].as_str(), 2_000, at)?;
    at_most(value["url"].as_str(), 3_000, at)?;
    at_most(value["accessibility_label"].as_str(), 75, at)?;
    if let Some(url) = value["url"].as_str()
        && url::Url::parse(url).is_err()
    {
        return wrong(&format!("{at}/url"));
    }
    match object.get("style").map(|style| style.as_str().unwrap_or_default()) {
        None | Some("primary" | "danger") => Ok(()),
        Some(_) => wrong(&format!("{at}/style")),
    }
}

fn text_input(value: &Value, at: &str) -> Result<(), Refused> {
    let object = object(value, at)?;
    only(
        object,
        at,
        &[
            "type",
            "action_id",
            "initial_value",
            "multiline",
            "min_length",
            "max_length",
            "dispatch_action_config",
            "focus_on_load",
            "placeholder",
        ],
    )?;
    if value["type"] != "plain_text_input" {
        return wrong(&format!("{at}/type"));
    }
    at_most(value["action_id"].as_str(), 255, at)?;
    match value["max_length"].as_u64() {
        Some(1..=3_000) => Ok(()),
        None if !object.contains_key("max_length") => Ok(()),
        _ => wrong(&format!("{at}/max_length")),
    }
}

fn any_text(value: &Value, most: usize, at: &str) -> Result<(), Refused> {
    let object = object(value, at)?;
    match value["type"].as_str() {
        Some("plain_text") => plain_text(value, most, at),
        Some("mrkdwn") => {
            only(object, at, &["type", "text", "verbatim"])?;
            length(value, most, at)
        }
        _ => wrong(&format!("{at}/type")),
    }
}

fn plain_text(value: &Value, most: usize, at: &str) -> Result<(), Refused> {
    let object = object(value, at)?;
    only(object, at, &["type", "text", "emoji"])?;
    if value["type"] != "plain_text" || object.get("emoji").is_some_and(|emoji| !emoji.is_boolean()) {
        return wrong(at);
    }
    length(value, most, at)
}

fn length(value: &Value, most: usize, at: &str) -> Result<(), Refused> {
    // Counted the hardest way: as Slack stores it, in UTF-16.
    match value["text"].as_str() {
        Some(text) if !text.is_empty() => {
            let stored = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            at_most(Some(&stored), most, at)
        }
        _ => wrong(&format!("{at} is empty")),
    }
}

fn at_most(text: Option<&str>, most: usize, at: &str) -> Result<(), Refused> {
    let length = text.map_or(0, |text| text.encode_utf16().count());
    if length <= most { Ok(()) } else { wrong(&format!("{at}: {length} characters, more than {most}")) }
}

fn object<'a>(value: &'a Value, at: &str) -> Result<&'a Map<String, Value>, Refused> {
    value.as_object().ok_or_else(|| ("invalid_blocks", format!("{at} is not an object")))
}

fn only(object: &Map<String, Value>, at: &str, known: &[&str]) -> Result<(), Refused> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => wrong(&format!("{at} has a field {key}")),
        None => Ok(()),
    }
}

fn wrong(what: &str) -> Result<(), Refused> {
    Err(("invalid_blocks", what.to_owned()))
}
