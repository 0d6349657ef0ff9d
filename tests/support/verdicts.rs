//! Two opinions of a text: our parser's, and that of a server which reads it and does not look any further.

use countersign::classify::{Classification, StatementClass};

use super::support::wire::{self, Wire};

/// How many statements a text has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// None, or one that ends the transaction.
    NoneOrExit,
    One,
    Several,
}

/// How a reader judges a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Reads(Count),
    Rejects(String),
    /// We do not say: held, whatever it is.
    Held,
}

pub fn our_verdict(found: &Classification) -> Verdict {
    if let Some(error) = &found.syntax_error {
        return Verdict::Rejects(error.message.to_string());
    }
    match found.parts.as_slice() {
        _ if found.class == StatementClass::Invalid => Verdict::Rejects("is no text".into()),
        // An empty text is `session`; without parts, others were not read.
        [] if found.class.is_privileged() => Verdict::Held,
        [] => Verdict::Reads(Count::NoneOrExit),
        [_] => Verdict::Reads(Count::One),
        _ => Verdict::Reads(Count::Several),
    }
}

fn server_verdict(answer: &[wire::Reply]) -> Verdict {
    for (kind, body) in answer {
        match kind {
            '1' => return Verdict::Reads(Count::NoneOrExit),
            'E' => {
                let fields = String::from_utf8_lossy(body);
                let message = fields.split('\0').find_map(|field| field.strip_prefix('M')).unwrap_or("");
                return match wire::code(body).as_str() {
                    "25P02" => Verdict::Reads(Count::One),
                    "42601" if message.starts_with("cannot insert multiple commands") => {
                        Verdict::Reads(Count::Several)
                    }
                    _ => Verdict::Rejects(message.to_owned()),
                };
            }
            _ => {}
        }
    }
    panic!("no answer: {answer:?}")
}

/// Sends each text as a `Parse` of its own.
pub fn ask(server: &mut Wire, texts: &[Vec<u8>]) -> Vec<Verdict> {
    let mut bytes = Vec::new();
    for text in texts {
        bytes.extend(wire::frame('P', &[b"\0", text.as_slice(), b"\0\0\0"].concat()));
        bytes.extend(wire::sync());
    }
    server.send(&bytes);
    let answers = texts.iter().map(|_| {
        let mut answer = Vec::new();
        loop {
            let (kind, body) = server.read().expect("the server is there");
            if kind == 'Z' {
                assert_eq!(body, b"E", "nothing ends the failed transaction");
                return server_verdict(&answer);
            }
            answer.push((kind, body));
        }
    });
    answers.collect()
}

/// Why an older server may read what the newest grammar rejects. The proxy asks upstream about what we
/// reject, and holds what it reads nevertheless (`Classification::of_unreadable`).
fn is_known(version: u32, text: &str, message: &str) -> bool {
    /// Reserved, or no longer names of functions or types, in 16 to 18.
    const NEW_WORDS: &[&str] = &[
        "system_user",
        "json_",
        "json",
        "merge_action",
        "xmltable",
        "absent",
        "keys",
        "scalar",
        "old",
        "new",
    ];
    // `1AS x`, `0x` and `1_000` are two words to 14.
    (version < 15
        && (message.starts_with("trailing junk after numeric literal")
            || message.contains(" integer at or near")
            || text.as_bytes().windows(2).any(|pair| pair[0].is_ascii_digit() && pair[1] == b'_')))
        // Looked at by the grammar since 16; before, only when the table is made.
        || (version < 16 && message.starts_with("unrecognized partitioning strategy"))
        || version < 18
            && (message.starts_with("trailing junk after parameter")
                || message.starts_with("parameter number too large")
                || NEW_WORDS.iter().any(|word| text.to_ascii_lowercase().contains(word)))
}

/// Whether there is a `$1`. libpg_query takes one where the grammar has a literal (`date $1`), and does not
/// mind letters behind it (`$1a`, as servers up to 15): it is made for statements whose literals were
/// replaced. Otherwise its grammar is Postgres 18's.
fn has_parameter(text: &str) -> bool {
    text.as_bytes().windows(2).any(|pair| pair[0] == b'$' && pair[1].is_ascii_digit())
}

/// What two verdicts are together, and whether they are a bug: what the server reads otherwise than we do could
/// pass for something that it is not.
pub fn judge(version: u32, text: &str, found: &Classification, theirs: &Verdict) -> (&'static str, bool) {
    match (theirs, &our_verdict(found)) {
        (_, Verdict::Held) => ("held unread", false),
        (Verdict::Reads(a), Verdict::Reads(b)) => {
            let exit = found.parts.len() == 1 && &*found.parts[0].kind == "TransactionStmt";
            let is_bug = a != b && !(*a == Count::NoneOrExit && exit);
            match b {
                Count::Several => ("read by both, several statements", is_bug),
                _ => ("read by both", is_bug),
            }
        }
        (Verdict::Rejects(a), Verdict::Rejects(b)) if a == b => {
            ("rejected by both, with the same message", false)
        }
        (Verdict::Rejects(_), Verdict::Rejects(_)) => ("rejected by both, with another message", false),
        (Verdict::Rejects(_), Verdict::Reads(_)) => {
            ("rejected by the server only", version == 18 && !has_parameter(text))
        }
        (Verdict::Reads(_), Verdict::Rejects(message)) => {
            let is_held = found.of_unreadable().class == StatementClass::Admin;
            ("rejected by us only", !is_held || !is_known(version, text, message))
        }
        (Verdict::Held, _) => unreachable!("a server says what it thinks"),
    }
}
