//! First packets, what they may ask for, and SCRAM.

use super::Choices;
use crate::classify::{Catalogue, may_start_with};
use crate::session::settings::parse_search_path;
use crate::session::startup::Startup;
use crate::statement::SearchPath;
use crate::wire::frontend::Opening;
use crate::wire::scram::{self, Channel, Exchange, Keys};

/// What no session may start with: it would be somebody else's, read SQL otherwise, or is no setting.
const NEVER: &[&str] = &[
    "user",
    "database",
    "options",
    "replication",
    "role",
    "session_authorization",
    "session_replication_role",
    "session_preload_libraries",
    "local_preload_libraries",
];

/// Whatever a first packet says, only settings that `SET` may change without being asked get through; and no
/// SCRAM message panics or passes without the password.
pub fn startup(data: &[u8]) {
    let mut choices = Choices::new(data);
    match choices.pick(4) {
        0 => {
            let packet = choices.rest();
            if let Ok(Some(length)) = Opening::length(packet) {
                // The limit is of what lies behind the length.
                assert!(length <= Opening::LIMIT + 4);
            }
            read(packet);
        }
        1 => {
            // A packet with the right length, so that what is in it is reached.
            let body = choices.rest();
            let mut packet = ((body.len() + 8) as u32).to_be_bytes().to_vec();
            packet.extend([0, 3, 0, 0]);
            packet.extend_from_slice(body);
            read(&packet);
        }
        2 => {
            let options = String::from_utf8_lossy(choices.rest()).into_owned();
            options_are_split_as_postgres_does(&options);
            check(&[("user", "bot"), ("options", &options)]);
        }
        _ => scram(choices),
    }
}

fn read(packet: &[u8]) {
    match Opening::read(packet) {
        Ok(Opening::Startup { parameters, .. }) => {
            assert!(parameters.iter().all(|(name, _)| !name.is_empty()));
            check(&parameters);
        }
        Ok(Opening::Cancel { secret, .. }) => assert!((4..=256).contains(&secret.len())),
        Ok(Opening::SslRequest | Opening::GssEncRequest) => assert_eq!(packet.len(), 8),
        Err(_) => {}
    }
}

fn check(parameters: &[(&str, &str)]) {
    let Ok(startup) = Startup::check(parameters) else { return };
    assert!(!startup.user.is_empty());
    assert!(!startup.database.is_empty());
    let catalogue = Catalogue::built_in(15);
    let mut names = std::collections::BTreeSet::new();
    for (name, value) in &startup.settings {
        let lower = name.to_ascii_lowercase();
        assert!(names.insert(lower.clone()), "{name} twice");
        assert!(!value.contains('\0'), "{name} = {value:?}");
        if may_start_with(&catalogue, name, value).is_err() {
            continue;
        }
        assert!(!NEVER.contains(&lower.as_str()) && !lower.starts_with("_pq_."), "{name} got through");
        if lower == "search_path"
            && let SearchPath::Known(schemas) = parse_search_path(value, "role")
        {
            assert!(!schemas.iter().any(|schema| schema.starts_with("pg_")), "{value:?}");
        }
        if lower == "standard_conforming_strings" {
            assert!(matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1"));
        }
    }
}

/// `pg_split_opts` (`postinit.c`), word by word: blanks separate, a backslash takes the next character
/// as it is.
fn split(options: &str) -> Vec<String> {
    let bytes: Vec<char> = options.chars().collect();
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while at < bytes.len() && is_space(bytes[at]) {
            at += 1;
        }
        if at == bytes.len() {
            return words;
        }
        let mut word = String::new();
        let mut escaped = false;
        while at < bytes.len() {
            if is_space(bytes[at]) && !escaped {
                break;
            }
            if !escaped && bytes[at] == '\\' {
                escaped = true;
            } else {
                escaped = false;
                word.push(bytes[at]);
            }
            at += 1;
        }
        words.push(word);
    }
}

/// `isspace` in the C locale.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// What is accepted from `options` is what Postgres itself would read there.
fn options_are_split_as_postgres_does(options: &str) {
    let Ok(startup) = Startup::check(&[("user", "bot"), ("options", options)]) else { return };
    // Postgres reads the words with getopt: `-c name=value`, `-cname=value`, `--name=value`.
    let words = split(options);
    let mut settings = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let setting = if words[at] == "-c" {
            at += 1;
            words.get(at).cloned()
        } else {
            words[at].strip_prefix("-c").or_else(|| words[at].strip_prefix("--")).map(str::to_owned)
        };
        let Some(setting) = setting else {
            panic!("accepted {options:?}, which Postgres reads as {words:?}")
        };
        let (name, value) = setting.split_once('=').expect("accepted without a value");
        let name = name.replace('-', "_");
        settings.retain(|(known, _): &(String, String)| !known.eq_ignore_ascii_case(&name));
        settings.push((name, value.to_owned()));
        at += 1;
    }
    let ours = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("countersign.") || name == "application_name" || name == "client_encoding"
    };
    settings.retain(|(name, _)| !ours(name));
    assert_eq!(startup.settings, settings, "{options:?}");
}

fn scram(mut choices: Choices<'_>) {
    let tls = choices.pick(2) == 1;
    let channel = if tls { Channel::Tls { end_point: b"certificate".to_vec() } } else { Channel::Plain };
    let mechanism = if choices.pick(2) == 1 { scram::MECHANISM_PLUS } else { scram::MECHANISM };
    // No password has this verifier, as far as anybody knows.
    let keys = Keys { iterations: 4096, salt: b"salt".to_vec(), stored_key: [7; 32], server_key: [8; 32] };
    let length = usize::from(choices.byte());
    let first = choices.take(length);
    if let Ok((exchange, server_first)) = Exchange::begin(mechanism, first, keys, &channel, "nonce") {
        assert!(server_first.starts_with("r=") && server_first.contains("nonce,s="));
        assert!(exchange.finish(choices.rest()).is_err(), "logged in without a password");
    }
}
