//! Holds answers of the API against its own document: the route, the status and the shape of the body
//! must be what `openapi.json` says they are.

#![allow(unreachable_pub, reason = "a module of a test binary")]

use serde_json::Value;

/// The document as the program serves it.
pub fn document() -> Value {
    serde_json::from_str(countersign::web::api::DOCUMENT).unwrap()
}

/// Panics unless the document describes this answer.
pub fn check(method: &str, path: &str, status: u16, content_type: &str, body: &str) {
    let document = document();
    let (template, operation) = operation(&document, method, path);
    // Unknown routes have the same error in the whole API.
    let Some(operation) = operation else {
        assert!(status == 404 || status == 405, "{method} {path} is in no document and answered {status}");
        return;
    };
    let answer = &operation["responses"][status.to_string()];
    assert!(
        !answer.is_null(),
        "{method} {template} answered {status}, which the document does not describe: {body}"
    );
    let answer = resolve(&document, answer);
    let essence = content_type.split(';').next().unwrap_or_default();
    let media = &answer["content"][essence];
    assert!(!media.is_null(), "{method} {template} {status}: the document knows no {content_type}");
    if essence == "application/json" {
        let body: Value = serde_json::from_str(body).unwrap();
        if let Err(what) = fits(&document, &media["schema"], &body, "body") {
            panic!("{method} {template} {status}: {what}\n{body:#}");
        }
    }
}

/// The path and the operation in the document.
fn operation<'a>(document: &'a Value, method: &str, path: &str) -> (String, Option<&'a Value>) {
    let path = path.split('?').next().unwrap();
    let path = path.strip_prefix("/api/v1").unwrap_or_else(|| panic!("{path} is not of the API"));
    let fits = |template: &str| {
        let (mut theirs, mut ours) = (template.split('/'), path.split('/'));
        loop {
            match (theirs.next(), ours.next()) {
                (None, None) => return true,
                (Some(one), Some(other)) if one == other || one.starts_with('{') => {}
                _ => return false,
            }
        }
    };
    let paths = document["paths"].as_object().unwrap();
    // An exact path goes before one with a parameter.
    let found = paths.get_key_value(path).or_else(|| paths.iter().find(|(template, _)| fits(template)));
    match found {
        Some((template, methods)) => (template.clone(), methods.get(method.to_lowercase())),
        None => (path.to_owned(), None),
    }
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(place) => {
            let pointer = place.strip_prefix('#').unwrap();
            resolve(document, document.pointer(pointer).unwrap_or_else(|| panic!("{place} is nowhere")))
        }
        None => value,
    }
}

/// The part of JSON Schema that the document uses.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolve(document, schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices.iter().filter(|choice| fits(document, choice, value, at).is_ok()).count();
        return if fitting == 1 { Ok(()) } else { Err(format!("{at} fits {fitting} of its schemas")) };
    }
    let is_it = match schema["type"].as_str() {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some(other) => panic!("the document uses type {other}"),
    };
    if !is_it {
        return Err(format!("{at} is no {}: {value}", schema["type"]));
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        return Err(format!("{at} is none of {choices:?}: {value}"));
    }
    if schema["pattern"] == "^[0-9a-f]{64}$" {
        let text = value.as_str().unwrap_or_default();
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(format!("{at} is no digest: {text}"));
        }
    }
    if schema["format"] == "date-time"
        && value.as_str().unwrap_or_default().parse::<jiff::Timestamp>().is_err()
    {
        return Err(format!("{at} is no time: {value}"));
    }
    for (place, element) in value.as_array().into_iter().flatten().enumerate() {
        fits(document, &schema["items"], element, &format!("{at}[{place}]"))?;
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().unwrap()) {
            return Err(format!("{at} has no {name}"));
        }
    }
    for (name, inner) in object {
        match schema["properties"].get(name) {
            Some(known) => fits(document, known, inner, &format!("{at}.{name}"))?,
            None if schema["additionalProperties"] == false => {
                return Err(format!("{at} has {name}, which is not described"));
            }
            None => {}
        }
    }
    Ok(())
}
