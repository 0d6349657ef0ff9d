//! Searching entries of every kind through the index, newest first, a page at a time.
//!
//! Each table of the index is one arm of a compound query. All arms have the same columns and are
//! ordered by entry, so SQLite merges them and stops at the end of the page, however long the ledger is.

use rusqlite::params_from_iter;

use super::index;
use super::read::{Damage, ReadError, Reader};
use crate::statement::RequestId;

/// What a search looks for. All that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// The kind of entry.
    pub kind: Option<String>,
    /// The agent's name.
    pub agent: Option<String>,
    /// The statement class.
    pub class: Option<String>,
    /// The request, by code or UUID.
    pub request: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// Words within the text.
    pub contains: Option<String>,
    /// Entries before this one only.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// One entry as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Its place.
    pub seq: u64,
    /// When, as [`display_time`](super::display::display_time) writes it.
    pub time: String,
    /// The name of its kind.
    pub kind: String,
    /// The agent it is about.
    pub agent: Option<String>,
    /// The statement class.
    pub class: Option<String>,
    /// The request's UUID.
    pub request: Option<String>,
    /// The statement's text, or what else it says; `None` where the text was redacted.
    pub what: Option<String>,
    /// How it ended, where it is about something that ends.
    pub ended: Option<String>,
    /// What is not as it was recorded; then nothing else is told but the number.
    pub damage: Option<Damage>,
}

/// One table's part of the query.
struct Arm {
    from: &'static str,
    kind: &'static str,
    agent: &'static str,
    class: &'static str,
    request: &'static str,
    session: &'static str,
    what: &'static str,
    ended: &'static str,
}

/// Outcomes are told with their statements, so they have no arm of their own.
const ARMS: [Arm; 7] = [
    Arm {
        from: "statement t LEFT JOIN outcome o ON o.ref = t.seq",
        kind: "t.kind",
        agent: "t.agent",
        class: "t.class",
        request: "t.request",
        session: "t.session",
        what: "t.sql",
        ended: "CASE WHEN t.kind = 'refused' THEN t.refusal \
            WHEN coalesce(o.ending, t.ending) IN ('failed_after_commit', 'unknown') \
            THEN coalesce(o.ending, t.ending) || coalesce(': ' || coalesce(o.sqlstate, t.sqlstate), '') \
                || coalesce(' (' || coalesce(o.tag, t.tag) || ')', '') \
            ELSE coalesce(o.tag, t.tag, o.sqlstate, t.sqlstate, o.ending, t.ending, 'running') END",
    },
    Arm {
        from: "request t",
        kind: "'request_opened'",
        agent: "t.agent",
        class: "t.class",
        request: "t.request",
        session: "t.session",
        what: "t.sql",
        ended: "(SELECT e.state FROM ending e WHERE e.request = t.request ORDER BY e.seq DESC LIMIT 1)",
    },
    Arm {
        from: "review t LEFT JOIN request r ON r.request = t.request",
        kind: "'review'",
        agent: "r.agent",
        class: "r.class",
        request: "t.request",
        session: "r.session",
        what: "t.reviewer || ': ' || t.verdict || ' (' || t.channel || ', ' || t.assurance || ')' \
            || coalesce(': ' || t.reason, '')",
        ended: "CASE WHEN t.counted THEN 'counted' ELSE 'did not count: ' || coalesce(t.why_not, '') END",
    },
    Arm {
        from: "ending t LEFT JOIN request r ON r.request = t.request",
        kind: "'request_closed'",
        agent: "r.agent",
        class: "r.class",
        request: "t.request",
        session: "r.session",
        what: "coalesce(t.what, t.reviewer, '')",
        ended: "t.state",
    },
    Arm {
        from: "session t",
        kind: "'session_opened'",
        agent: "t.agent",
        class: "NULL",
        request: "NULL",
        session: "t.session",
        what: "t.method || ' from ' || t.address || ' to ' || t.upstream || ' / ' || t.database",
        ended: "NULL",
    },
    Arm {
        from: "session_end t LEFT JOIN session r ON r.session = t.session",
        kind: "'session_closed'",
        agent: "r.agent",
        class: "NULL",
        request: "NULL",
        session: "t.session",
        what: "t.what",
        ended: "NULL",
    },
    Arm {
        from: "event t",
        kind: "t.kind",
        agent: "NULL",
        class: "NULL",
        request: "t.request",
        session: "NULL",
        what: "coalesce(t.what, '') || coalesce(' (' || t.by || ')', '')",
        ended: "NULL",
    },
];

impl Reader {
    /// Finds entries, newest first.
    ///
    /// # Errors
    ///
    /// When the index cannot be read or made.
    pub fn search(&self, search: &Search) -> Result<Vec<Hit>, ReadError> {
        let mut values: Vec<String> = Vec::new();
        let mut value = |text: &str| {
            values.push(text.to_owned());
            format!("?{}", values.len())
        };
        let equal = [&search.kind, &search.agent, &search.class, &search.session]
            .map(|wanted| wanted.as_deref().map(&mut value));
        let requests: Option<Vec<String>> =
            search.request.as_deref().map(|typed| tails(typed).iter().map(|tail| value(tail)).collect());
        let contains = search.contains.as_deref().map(&mut value);
        let arm = |arm: &Arm| {
            let mut conditions: Vec<String> = Vec::new();
            for (column, place) in [arm.kind, arm.agent, arm.class, arm.session].iter().zip(&equal) {
                conditions.extend(place.as_ref().map(|place| format!("{column} = {place}")));
            }
            if let Some(places) = &requests {
                let tail = |place: &String| format!("substr({}, -length({place})) = {place}", arm.request);
                let any: Vec<String> = places.iter().map(tail).collect();
                conditions.push(if any.is_empty() {
                    "0".to_owned()
                } else {
                    format!("({})", any.join(" OR "))
                });
            }
            conditions.extend(
                contains.as_ref().map(|place| format!("instr(lower({}), lower({place})) > 0", arm.what)),
            );
            conditions.extend(search.before.map(|before| format!("t.seq < {before}")));
            let when = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
            let Arm { from, kind, agent, class, request, what, ended, .. } = arm;
            format!(
                "SELECT t.seq AS seq, t.time, {kind}, {agent}, {class}, {request}, {what}, {ended} \
                 FROM {from} WHERE {when}"
            )
        };
        let arms: Vec<String> = ARMS.iter().map(arm).collect();
        let sql = format!("{} ORDER BY seq DESC LIMIT {}", arms.join(" UNION ALL "), search.limit);
        let index = index::for_searching(self.path())?;
        let mut statement = index.prepare(&sql)?;
        let hits = statement.query_map(params_from_iter(values), |row| {
            Ok(Hit {
                seq: row.get(0)?,
                time: row.get(1)?,
                kind: row.get(2)?,
                agent: row.get(3)?,
                class: row.get(4)?,
                request: row.get(5)?,
                what: row.get(6)?,
                ended: row.get(7)?,
                damage: None,
            })
        })?;
        let mut checked = Vec::new();
        for hit in hits {
            let hit: Hit = hit?;
            checked.push(match index::check_row(&index, self, hit.seq, &hit.kind)? {
                index::Checked::Agrees => hit,
                index::Checked::TextGone => Hit { what: None, ..hit },
                index::Checked::Damaged(damage) => Hit {
                    time: String::new(),
                    kind: "damaged".to_owned(),
                    agent: None,
                    class: None,
                    request: None,
                    what: Some(damage.to_string()),
                    ended: None,
                    damage: Some(damage),
                    ..hit
                },
            });
        }
        Ok(checked)
    }
}

/// How the UUIDs of the requests end that somebody may mean: a UUID is itself; a code stands for the
/// lowest 30 bits, so for four endings of eight hexadecimal digits. None when it can be neither.
fn tails(typed: &str) -> Vec<String> {
    if let Ok(uuid) = uuid::Uuid::try_parse(typed.trim()) {
        return vec![uuid.to_string()];
    }
    let Some(bits) = RequestId::bits_of_code(typed) else { return Vec::new() };
    (0..4_u32).map(|high| format!("{:08x}", high << 30 | bits)).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_code_finds_the_request_it_is_the_code_of() {
        for number in [0, 1, 0x1234_5678, 0x0123_4567_89ab, u128::from(u32::MAX)] {
            let id = RequestId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + number));
            let uuid = id.0.to_string();

            assert_eq!(tails(&id.code()).iter().filter(|tail| uuid.ends_with(tail.as_str())).count(), 1);
            assert_eq!(tails(&uuid), [uuid]);
        }
        assert!(tails("nonsense").is_empty());
    }
}
