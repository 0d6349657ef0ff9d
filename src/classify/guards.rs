//! Operators' guards: settings by which a role, a database or the server limits its sessions.
//!
//! Anybody may change these settings, so an agent could switch them off. Where an operator has set one
//! (`ALTER ROLE .. SET`, `ALTER DATABASE .. SET`, the server's configuration), to loosen it is held; to
//! tighten it, or to go back to it, is not. Where none is set there is nothing to loosen.

use std::collections::BTreeMap;
use std::time::Duration;

use super::catalogue::Row;
use super::settings::Value;
use crate::statement::setting_duration;

/// What is asked of an upstream: each guard with the value that a session gets at login when it asks for
/// none itself. The more specific of the defaults counts, as in Postgres (`process_settings`).
pub const QUERY: &str = "SELECT s.name, coalesce((SELECT pg_catalog.substr(c.entry, pg_catalog.strpos(c.entry, '=') OPERATOR(pg_catalog.+) 1)
 FROM pg_catalog.pg_db_role_setting r CROSS JOIN LATERAL pg_catalog.unnest(r.setconfig) c(entry)
 WHERE pg_catalog.lower(pg_catalog.split_part(c.entry, '=', 1)) OPERATOR(pg_catalog.=) s.name
 AND (r.setrole OPERATOR(pg_catalog.=) 0::pg_catalog.oid OR r.setrole OPERATOR(pg_catalog.=) (SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname OPERATOR(pg_catalog.=) session_user))
 AND (r.setdatabase OPERATOR(pg_catalog.=) 0::pg_catalog.oid OR r.setdatabase OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
 ORDER BY r.setrole OPERATOR(pg_catalog.=) 0::pg_catalog.oid, r.setdatabase OPERATOR(pg_catalog.=) 0::pg_catalog.oid LIMIT 1), s.reset_val)
FROM pg_catalog.pg_settings s WHERE s.name OPERATOR(pg_catalog.=) ANY ('{statement_timeout,lock_timeout,idle_in_transaction_session_timeout,idle_session_timeout,transaction_timeout,default_transaction_read_only,restrict_nonsystem_relation_kind}'::pg_catalog.text[])";

/// How the values of a guard compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Milliseconds; zero is no limit.
    Timeout,
    /// `on` limits.
    Switch,
    /// A list, each word of which limits.
    Words,
}

const KINDS: [(&str, Kind); 7] = [
    ("statement_timeout", Kind::Timeout),
    ("lock_timeout", Kind::Timeout),
    ("idle_in_transaction_session_timeout", Kind::Timeout),
    ("idle_session_timeout", Kind::Timeout),
    ("transaction_timeout", Kind::Timeout),
    (READ_ONLY, Kind::Switch),
    ("restrict_nonsystem_relation_kind", Kind::Words),
];

const READ_ONLY: &str = "default_transaction_read_only";

/// The guards that are set, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guards(BTreeMap<&'static str, Box<str>>);

impl Guards {
    /// From the answer to [`QUERY`]. What limits nothing is no guard.
    #[must_use]
    pub fn from_rows(rows: &[Row]) -> Self {
        let mut guards = BTreeMap::new();
        for row in rows {
            let [Some(name), Some(value)] = &**row else { continue };
            let known = KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            let Some(&(name, kind)) = known else { continue };
            let limits = match kind {
                Kind::Timeout => setting_duration(value) != Some(Duration::ZERO),
                Kind::Switch => is_on(value),
                Kind::Words => words(value).next().is_some(),
            };
            if limits {
                guards.insert(name, value.as_str().into());
            }
        }
        Self(guards)
    }

    /// Each guard with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, &**value))
    }

    /// A timeout, if it limits.
    #[must_use]
    pub fn timeout(&self, name: &str) -> Option<Duration> {
        setting_duration(self.0.get(name)?).filter(|limit| !limit.is_zero())
    }

    /// What to say when setting `name` (in lower case) to `value` loosens a guard.
    pub(super) fn loosened_by(&self, name: &str, value: Value<'_>) -> Option<String> {
        if name == "transaction_read_only" {
            // The default of the transaction's own is `off`, whatever the session's is.
            let stays = matches!(value, Value::Given([value]) if is_on(value));
            return self.0.get(READ_ONLY).filter(|_| !stays).map(|_| loosens(READ_ONLY, "on"));
        }
        // Back to what the session started with.
        if value == Value::Default {
            return None;
        }
        let (&guard, limit) = self.0.get_key_value(name)?;
        let kind = KINDS.iter().find(|(known, _)| *known == guard).map(|(_, kind)| *kind)?;
        let keeps = match (kind, value) {
            (_, Value::Computed | Value::Default) => false,
            (Kind::Timeout, Value::Given([value])) => {
                matches!((setting_duration(value), setting_duration(limit)), (Some(new), Some(old)) if !new.is_zero() && new <= old)
            }
            (Kind::Switch, Value::Given([value])) => is_on(value),
            (Kind::Words, Value::Given(values)) => {
                let given: Vec<&str> = values.iter().flat_map(|value| words(value)).collect();
                words(limit).all(|word| given.iter().any(|given| given.eq_ignore_ascii_case(word)))
            }
            (Kind::Timeout | Kind::Switch, Value::Given(_)) => false,
        };
        (!keeps).then(|| loosens(guard, limit))
    }
}

fn loosens(guard: &str, limit: &str) -> String {
    format!("loosens {guard} = {limit}, which is set for this role, database or server")
}

/// Whether Postgres surely reads it as true (`parse_bool`).
fn is_on(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    value == "on"
        || value == "1"
        || (!value.is_empty() && ("true".starts_with(&value) || "yes".starts_with(&value)))
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(|word| word.trim_matches([' ', '"'])).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guards(set: &[(&str, &str)]) -> Guards {
        let rows: Vec<Row> =
            set.iter().map(|(name, value)| vec![Some((*name).into()), Some((*value).into())]).collect();
        Guards::from_rows(&rows)
    }

    fn loosens(guards: &Guards, name: &str, value: &str) -> bool {
        guards.loosened_by(name, Value::Given(&[value])).is_some()
    }

    #[test]
    fn timeouts_are_read_as_postgres_reads_them() {
        for (text, milliseconds) in [
            ("0", 0),
            ("5000", 5_000),
            (" 5 s ", 5_000),
            ("1.5min", 90_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("100us", 0),
            ("0.5", 0),
            ("0.51", 1),
            ("1.5", 2),
            ("2.5", 2),
            ("0.0083h", 0),
            ("0.0084h", 60_000),
            ("0.0001d", 0),
            ("0.0001min", 0),
            ("0.0005s", 0),
            ("0.4ms", 0),
            ("500us", 0),
        ] {
            assert_eq!(setting_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "-1", "0x10", "1e3", "5 weeks", "5S", "99999999999"] {
            assert_eq!(setting_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_guard_may_be_tightened_and_gone_back_to_and_not_loosened() {
        let guards = guards(&[
            ("statement_timeout", "5s"),
            ("default_transaction_read_only", "on"),
            ("restrict_nonsystem_relation_kind", "view"),
        ]);

        for value in ["5000", "5s", "100ms", "1"] {
            assert!(!loosens(&guards, "statement_timeout", value), "{value}");
        }
        for value in ["0", "0.5", "0.0083h", "0.0001d", "500us", "6s", "5001", "1min", "0x10", "nonsense"] {
            assert!(loosens(&guards, "statement_timeout", value), "{value}");
        }
        for name in ["default_transaction_read_only", "transaction_read_only"] {
            for value in ["on", "TRUE", "t", "yes", "1"] {
                assert!(!loosens(&guards, name, value), "{value}");
            }
            for value in ["off", "false", "0", "no", "o", ""] {
                assert!(loosens(&guards, name, value), "{value}");
            }
            assert!(guards.loosened_by(name, Value::Computed).is_some());
        }
        assert!(guards.loosened_by("default_transaction_read_only", Value::Default).is_none());
        assert!(guards.loosened_by("transaction_read_only", Value::Default).is_some());
        assert!(loosens(&guards, "restrict_nonsystem_relation_kind", ""));
        assert!(!loosens(&guards, "restrict_nonsystem_relation_kind", "foreign-table, view"));
    }

    #[test]
    fn where_an_operator_has_set_nothing_there_is_nothing_to_loosen() {
        let guards = guards(&[
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("default_transaction_read_only", "off"),
            ("restrict_nonsystem_relation_kind", ""),
        ]);

        assert_eq!(guards, Guards::default());
        for (name, value) in [
            ("statement_timeout", "0"),
            ("default_transaction_read_only", "off"),
            ("transaction_read_only", "off"),
            ("work_mem", "1GB"),
        ] {
            assert!(!loosens(&guards, name, value), "{name}");
        }
        assert!(guards.loosened_by("transaction_read_only", Value::Default).is_none());
        assert!(guards.loosened_by("statement_timeout", Value::Computed).is_none());
    }
}
