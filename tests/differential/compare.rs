//! Whether two transcripts say the same, and the search for the shortest script with a difference.

use std::fmt::Write as _;

use super::arena::{Bench, Shown};
use super::generate::DENIED;
use super::script::{Script, Step};

/// What two sides did not agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference(pub String);

/// `None` when nothing differs but what is known to (`docs/protocol.md`, "Differences that remain").
pub fn difference(shown: &Shown) -> Option<Difference> {
    if let Some(stalled) = shown.direct.stalled {
        return Some(Difference(format!("Postgres itself stalled: {stalled}")));
    }
    let (direct, proxied) = (&shown.direct.lines, &shown.proxied.lines);
    let common = direct.iter().zip(proxied).take_while(|(direct, proxied)| same(direct, proxied)).count();
    if (common < direct.len() || common < proxied.len())
        && !ends_as_known(&direct[common..], &proxied[common..])
    {
        let line = |lines: &[String]| lines.get(common).map_or("(nothing)".to_owned(), Clone::clone);
        return Some(Difference(format!(
            "message {common}\n  direct:  {}\n  proxied: {}",
            line(direct),
            line(proxied)
        )));
    }
    if let Some(stalled) = shown.proxied.stalled {
        return Some(Difference(format!("the proxy stalled: {stalled}")));
    }
    (shown.content[0] != shown.content[1]).then(|| {
        Difference(format!("content\n  direct:\n{}\n  proxied:\n{}", shown.content[0], shown.content[1]))
    })
}

fn same(direct: &str, proxied: &str) -> bool {
    direct == proxied
        || (is_failed_by_the_test(direct) && is_denied(proxied))
        || (is_about_a_failed_portal(direct) && is_about_the_unnamed_portal(proxied))
}

/// A `Query` that fails inside a transaction leaves a failed unnamed portal behind. An `Execute` of it is
/// never forwarded; Postgres would say that the transaction is aborted.
fn is_about_a_failed_portal(line: &str) -> bool {
    line.starts_with("ErrorResponse") && line.contains("C=\"25P02\"")
}

fn is_about_the_unnamed_portal(line: &str) -> bool {
    line == r#"ErrorResponse S="ERROR" V="ERROR" C="34000" M="portal \"\" does not exist""#
}

/// What Postgres says of a statement that was made to fail ([`generate::denied`]), in a session whose
/// policy denies it.
fn is_failed_by_the_test(line: &str) -> bool {
    line.starts_with("ErrorResponse") && line.contains("denied_by_the_test")
}

/// The proxy's words for it; where the statement's `Parse` has failed as well, there is none to deny.
fn is_denied(line: &str) -> bool {
    line.contains("C=\"42501\" M=\"statement denied by rule")
        || line.contains(&format!("C=\"26000\" M=\"prepared statement \\\"{DENIED}"))
}

/// The proxy ends a session that breaks the protocol, and says so. Postgres closes in silence where a
/// length is wrong, tells an error and goes on where only a body is, and inside a copy tells an error
/// before it ends the session.
fn ends_as_known(direct: &[String], proxied: &[String]) -> bool {
    let [ended, closed] = proxied else { return false };
    let violation = |line: &String| line.contains("C=\"08P01\"");
    let ended = closed == "(closed)" && ended.contains("V=\"FATAL\"") && violation(ended);
    match direct {
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
