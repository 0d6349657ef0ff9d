//! Whether two transcripts say the same, and the search for the shortest script with a difference.

use std::fmt::Write as _;

use super::arena::{Bench, Shown};
use super::client::is_about_identifiers;
use super::generate::{DENIED, without_crashes};
use super::script::{Script, Step};

/// What two sides did not agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference(pub String);

/// `None` when nothing differs but what is known to (`docs/protocol.md`, "Differences that remain").
pub fn difference(shown: &Shown) -> Option<Difference> {
    if let Some(stalled) = &shown.direct.stalled {
        return Some(Difference(format!("Postgres itself stalled: {stalled}")));
    }
    let direct = &without_words_before_syntax_errors(&shown.direct.lines);
    let proxied = &without_words_before_syntax_errors(&shown.proxied.lines);
    let common = direct.iter().zip(proxied).take_while(|(direct, proxied)| same(direct, proxied)).count();
    if (common < direct.len() || common < proxied.len())
        && !ends_as_known(&direct[common..], &proxied[common..])
    {
        let line = |lines: &[String]| lines.get(common).map_or("(nothing)".to_owned(), Clone::clone);
        return Some(Difference(format!(
            "message {common}\n  direct:  {}\n  proxied: {}\n  {}",
            line(direct),
            line(proxied),
            shown.proxied.stalled.as_deref().unwrap_or("(none stalled)")
        )));
    }
    if let Some(stalled) = &shown.proxied.stalled
        && !is_fetch_refused(&proxied[common..])
        && !is_query_refused(&proxied[common..])
    {
        return Some(Difference(format!("the proxy stalled: {stalled}")));
    }
    if common < proxied.len()
        && (is_copy_refused(&direct[common..], &proxied[common..])
            || is_fetch_refused(&proxied[common..])
            || is_query_refused(&proxied[common..]))
    {
        // Postgres may have gone on.
        return None;
    }
    (shown.content[0] != shown.content[1]).then(|| {
        Difference(format!("content\n  direct:\n{}\n  proxied:\n{}", shown.content[0], shown.content[1]))
    })
}

fn same(direct: &str, proxied: &str) -> bool {
    direct == proxied
        || (is_failed_by_the_test(direct) && (is_denied(proxied) || is_syntax_error(proxied)))
        || KNOWN.iter().any(|(one, other)| direct.contains(one) && proxied.contains(other))
}

/// Errors that differ: what Postgres says, and what is said through the proxy.
const KNOWN: [(&str, &str); 2] = [
    // A `Bind` that fails late leaves its portal in the failed transaction, and so does a failing `Query`.
    // Our map does not have them, and what it does not have is not executed.
    (r#"C="25P02" M="current transaction is aborted"#, r#"C="34000" M="portal "#),
    // The agent's `Terminate` reaches upstream as the end of what it reads.
    (
        r#"C="08P01" M="unexpected message type 0x58 during COPY from stdin""#,
        r#"C="08006" M="unexpected EOF on client connection with an open transaction""#,
    ),
];

/// What Postgres says of a statement that was made to fail ([`generate::denied`]), in a session whose
/// policy denies it.
fn is_failed_by_the_test(line: &str) -> bool {
    line.starts_with("ErrorResponse") && line.contains("denied_by_the_test")
}

/// What does not parse is not denied, and it fails all the same.
fn is_syntax_error(line: &str) -> bool {
    line.starts_with("ErrorResponse") && line.contains("C=\"42601\"")
}

/// The proxy's words for it; where the statement's `Parse` has failed as well, there is none to deny.
fn is_denied(line: &str) -> bool {
    line.contains("C=\"42501\" M=\"statement denied by rule")
        || line.contains(&format!("C=\"26000\" M=\"prepared statement \\\"{DENIED}"))
}

/// In the middle of a pipeline upstream is not asked what is wrong with a text that does not parse, so
/// nobody hears what its scanner has to say of the identifiers before the error.
fn without_words_before_syntax_errors(lines: &[String]) -> Vec<String> {
    let is_error = |line: &String| is_syntax_error(line);
    let keeps = |at: &usize| {
        let behind = lines[*at..].iter().find(|line| !is_about_identifiers(line));
        !(is_about_identifiers(&lines[*at]) && behind.is_some_and(is_error))
    };
    (0..lines.len()).filter(keeps).map(|at| lines[at].clone()).collect()
}

/// Something other than copied data while a copy is under way, as far as the proxy knows: it ends the
/// session, where Postgres goes on if the copy has failed before it reads the message.
fn is_copy_refused(direct: &[String], proxied: &[String]) -> bool {
    let [ended, closed] = proxied else { return false };
    let refused = ended.contains("V=\"FATAL\"") && ended.contains("unexpected message type during COPY");
    let may_fail = |line: &String| line.starts_with("CopyInResponse") || line.starts_with("ErrorResponse");
    refused && closed == "(closed)" && direct.first().is_some_and(may_fail)
}

/// What a portal of the protocol runs only when it is fetched is not fetched by SQL.
fn is_fetch_refused(proxied: &[String]) -> bool {
    proxied.first().is_some_and(|line| line.contains("C=\"0A000\" M=\"a FETCH or MOVE that would run"))
}

/// Since Postgres 18 a `Query` behind an `Execute` without a `Sync` leaves the transaction open behind a
/// status that says otherwise; it is not forwarded.
fn is_query_refused(proxied: &[String]) -> bool {
    proxied.first().is_some_and(|line| line.contains("C=\"0A000\" M=\"a Query or FunctionCall behind"))
}

/// The proxy ends a session that breaks the protocol, and says so. Postgres closes in silence where a
/// length is wrong, tells an error and goes on where only a body is, and inside a copy tells an error
/// before it ends the session.
fn ends_as_known(direct: &[String], proxied: &[String]) -> bool {
    if is_copy_refused(direct, proxied) || is_fetch_refused(proxied) || is_query_refused(proxied) {
        return true;
    }
    let [ended, closed] = proxied else { return false };
    let violation = |line: &String| line.contains("C=\"08P01\"");
    let ended = closed == "(closed)" && ended.contains("V=\"FATAL\"") && violation(ended);
    // The proxy may know before the answer to the copy has passed.
    let begun = direct.iter().take_while(|line| line.starts_with("CopyInResponse")).count();
    match &direct[begun..] {
        [closed] => ended && closed == "(closed)",
        [told, .., closed] => ended && violation(told) && closed == "(closed)",
        [] => false,
    }
}

/// Both transcripts side by side, as far as anybody wants to read.
pub fn both(shown: &Shown) -> String {
    let mut told = String::new();
    let (direct, proxied) = (&shown.direct.lines, &shown.proxied.lines);
    for at in 0..direct.len().max(proxied.len()) {
        let (one, two) = (direct.get(at), proxied.get(at));
        if one == two {
            writeln!(told, "  {}", one.unwrap()).unwrap();
        } else {
            writeln!(told, "- {}", one.map_or("", String::as_str)).unwrap();
            writeln!(told, "+ {}", two.map_or("", String::as_str)).unwrap();
        }
    }
    told
}

/// Drops steps while a difference remains: halves, then quarters, then single ones.
pub async fn shrink(bench: &mut Bench, script: &Script, variant: impl Fn(&Script) -> Script) -> Script {
    let mut smallest = script.clone();
    for chunks in [Vec::new()] {
        let simpler = Script { chunks, pause: 0, ..smallest.clone() };
        if difference(&bench.show(&variant(&simpler), &simpler).await).is_some() {
            smallest = simpler;
        }
    }
    let mut size = smallest.steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < smallest.steps.len() {
            let mut fewer = smallest.clone();
            let dropped: Vec<Step> = fewer.steps.drain(at..(at + size).min(smallest.steps.len())).collect();
            // What comes before bytes that are not the protocol has to be answered, or may be lost.
            let fewer = without_crashes(&fewer);
            if !dropped.contains(&Step::Settle)
                && difference(&bench.show(&variant(&fewer), &fewer).await).is_some()
            {
                smallest = fewer;
            } else {
                at += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    for at in 0..smallest.steps.len() {
        if let Step::Query(sql) = &smallest.steps[at]
            && sql.contains(&b';')
        {
            // Fewer statements in a Query.
            let parts: Vec<Vec<u8>> = sql.split(|&byte| byte == b';').map(<[u8]>::to_vec).collect();
            let mut left = parts.clone();
            for part in &parts {
                let fewer: Vec<Vec<u8>> = left.iter().filter(|kept| *kept != part).cloned().collect();
                let mut simpler = smallest.clone();
                simpler.steps[at] = Step::Query(fewer.join(&b';'));
                if difference(&bench.show(&variant(&simpler), &simpler).await).is_some() {
                    smallest = simpler;
                    left = fewer;
                }
            }
        }
    }
    smallest
}
