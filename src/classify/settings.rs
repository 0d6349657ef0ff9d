//! Which settings an agent may change, to which values, without asking.
//!
//! An allow-list of names and values: a setting is on it when changing it can only make the agent's
//! own statements slower, shorter or differently printed. Whatever changes how later SQL is read
//! (`standard_conforming_strings`, `client_encoding`), where names are looked up (`search_path` with
//! `pg_catalog` or `pg_temp` in it), or what is checked (`session_replication_role`)
//! is not, and neither is a setting that nobody has heard of: row-level security often hangs on such. The
//! policy can name those ([`Declared::allows_setting`]).

use super::StatementClass::{self, Session, Settings};
use super::{Catalogue, Declared};
use crate::statement::Identity;

/// What a setting is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// One or more values; more than one for lists only.
    Given(&'a [&'a str]),
    /// `DEFAULT`, `RESET`, `set_config(.., NULL, ..)`.
    Default,
    /// An expression or a parameter: nobody knows.
    Computed,
}

enum Rule {
    /// Any value.
    Any,
    /// One of these, whatever their case.
    OneOf(&'static [&'static str]),
    /// A list of schemas.
    SearchPath,
    /// UTF8, as Postgres finds an encoding by its name: by its letters and digits.
    Encoding,
}

/// The encoding that texts are read in, by both its names.
const UTF8: [&str; 2] = ["utf8", "unicode"];
const TRUE: &[&str] = &["on", "true", "yes", "1", "t", "y"];

const RULES: &[(&str, Rule)] = &[
    ("application_name", Rule::Any),
    // How values are printed and read.
    ("bytea_output", Rule::Any),
    ("client_encoding", Rule::Encoding),
    ("datestyle", Rule::Any),
    ("default_text_search_config", Rule::Any),
    ("extra_float_digits", Rule::Any),
    ("intervalstyle", Rule::Any),
    ("lc_monetary", Rule::Any),
    ("lc_numeric", Rule::Any),
    ("lc_time", Rule::Any),
    ("quote_all_identifiers", Rule::Any),
    // `setseed()`
    ("seed", Rule::Any),
    ("timezone", Rule::Any),
    ("timezone_abbreviations", Rule::Any),
    ("xmlbinary", Rule::Any),
    ("xmloption", Rule::Any),
    // What the session is told.
    ("client_min_messages", Rule::Any),
    ("debug_pretty_print", Rule::Any),
    // The session's own patience. Zero is the server's default for all of them.
    ("idle_in_transaction_session_timeout", Rule::Any),
    ("idle_session_timeout", Rule::Any),
    ("lock_timeout", Rule::Any),
    ("statement_timeout", Rule::Any),
    ("transaction_timeout", Rule::Any),
    ("client_connection_check_interval", Rule::Any),
    // Transactions. READ WRITE is no privilege: the role's rights decide.
    ("default_transaction_deferrable", Rule::Any),
    ("default_transaction_isolation", Rule::Any),
    ("default_transaction_read_only", Rule::Any),
    ("transaction_deferrable", Rule::Any),
    ("transaction_isolation", Rule::Any),
    ("transaction_read_only", Rule::Any),
    // Only towards more durable: `off` may lose what was reported as committed.
    ("synchronous_commit", Rule::OneOf(&["on", "local", "remote_write", "remote_apply", "true", "yes", "1"])),
    // Guards of our own reading: only the values that we read by.
    ("backslash_quote", Rule::OneOf(&["safe_encoding"])),
    ("escape_string_warning", Rule::Any),
    ("standard_conforming_strings", Rule::OneOf(TRUE)),
    ("check_function_bodies", Rule::OneOf(TRUE)),
    ("transform_null_equals", Rule::OneOf(&["off", "false", "no", "0", "f", "n"])),
    ("array_nulls", Rule::OneOf(TRUE)),
    // `off` makes a statement fail that policies would filter; nobody sees a row more by it
    // (`check_enable_rls`). pg_dump sets both.
    ("restrict_nonsystem_relation_kind", Rule::Any),
    ("row_security", Rule::Any),
    ("search_path", Rule::SearchPath),
    ("default_table_access_method", Rule::OneOf(&["heap"])),
    ("default_tablespace", Rule::OneOf(&[""])),
    ("default_toast_compression", Rule::Any),
    // Memory and workers of the session.
    ("hash_mem_multiplier", Rule::Any),
    ("maintenance_work_mem", Rule::Any),
    ("max_parallel_maintenance_workers", Rule::Any),
    ("max_parallel_workers", Rule::Any),
    ("max_parallel_workers_per_gather", Rule::Any),
    ("temp_buffers", Rule::Any),
    ("work_mem", Rule::Any),
    ("effective_io_concurrency", Rule::Any),
    ("maintenance_io_concurrency", Rule::Any),
    // The planner.
    ("constraint_exclusion", Rule::Any),
    ("cpu_index_tuple_cost", Rule::Any),
    ("cpu_operator_cost", Rule::Any),
    ("cpu_tuple_cost", Rule::Any),
    ("cursor_tuple_fraction", Rule::Any),
    ("debug_parallel_query", Rule::Any),
    ("default_statistics_target", Rule::Any),
    ("effective_cache_size", Rule::Any),
    ("enable_async_append", Rule::Any),
    ("enable_bitmapscan", Rule::Any),
    ("enable_distinct_reordering", Rule::Any),
    ("enable_gathermerge", Rule::Any),
    ("enable_group_by_reordering", Rule::Any),
    ("enable_hashagg", Rule::Any),
    ("enable_hashjoin", Rule::Any),
    ("enable_incremental_sort", Rule::Any),
    ("enable_indexonlyscan", Rule::Any),
    ("enable_indexscan", Rule::Any),
    ("enable_material", Rule::Any),
    ("enable_memoize", Rule::Any),
    ("enable_mergejoin", Rule::Any),
    ("enable_nestloop", Rule::Any),
    ("enable_parallel_append", Rule::Any),
    ("enable_parallel_hash", Rule::Any),
    ("enable_partition_pruning", Rule::Any),
    ("enable_partitionwise_aggregate", Rule::Any),
    ("enable_partitionwise_join", Rule::Any),
    ("enable_presorted_aggregate", Rule::Any),
    ("enable_self_join_elimination", Rule::Any),
    ("enable_seqscan", Rule::Any),
    ("enable_sort", Rule::Any),
    ("enable_tidscan", Rule::Any),
    ("force_parallel_mode", Rule::Any),
    ("from_collapse_limit", Rule::Any),
    ("geqo", Rule::Any),
    ("geqo_effort", Rule::Any),
    ("geqo_generations", Rule::Any),
    ("geqo_pool_size", Rule::Any),
    ("geqo_seed", Rule::Any),
    ("geqo_selection_bias", Rule::Any),
    ("geqo_threshold", Rule::Any),
    ("gin_fuzzy_search_limit", Rule::Any),
    ("jit", Rule::Any),
    ("jit_above_cost", Rule::Any),
    ("jit_expressions", Rule::Any),
    ("jit_inline_above_cost", Rule::Any),
    ("jit_optimize_above_cost", Rule::Any),
    ("jit_tuple_deforming", Rule::Any),
    ("join_collapse_limit", Rule::Any),
    ("min_parallel_index_scan_size", Rule::Any),
    ("min_parallel_table_scan_size", Rule::Any),
    ("parallel_leader_participation", Rule::Any),
    ("parallel_setup_cost", Rule::Any),
    ("parallel_tuple_cost", Rule::Any),
    ("plan_cache_mode", Rule::Any),
    ("random_page_cost", Rule::Any),
    ("recursive_worktable_factor", Rule::Any),
    ("seq_page_cost", Rule::Any),
    ("stats_fetch_consistency", Rule::Any),
    ("synchronize_seqscans", Rule::Any),
    // How well-known extensions search an index or compare: the session's own queries only.
    ("diskann.query_rescore", Rule::Any),
    ("diskann.query_search_list_size", Rule::Any),
    ("hnsw.ef_search", Rule::Any),
    ("hnsw.iterative_scan", Rule::Any),
    ("hnsw.max_scan_tuples", Rule::Any),
    ("hnsw.scan_mem_multiplier", Rule::Any),
    ("ivfflat.iterative_scan", Rule::Any),
    ("ivfflat.max_probes", Rule::Any),
    ("ivfflat.probes", Rule::Any),
    ("pg_trgm.similarity_threshold", Rule::Any),
    ("pg_trgm.strict_word_similarity_threshold", Rule::Any),
    ("pg_trgm.word_similarity_threshold", Rule::Any),
    ("postgis.backend", Rule::Any),
    ("vchordrq.epsilon", Rule::Any),
    ("vchordrq.probes", Rule::Any),
];

/// Settings by which a session becomes somebody else.
const IDENTITY: [&str; 2] = ["role", "session_authorization"];

/// The class of setting `name`, and what to say about it. The name must be in lower case.
pub(super) fn judge(
    name: &str,
    value: Value<'_>,
    declared: &Declared,
) -> (StatementClass, Option<&'static str>) {
    if IDENTITY.contains(&name) {
        return (StatementClass::Identity, Some("changes who the session acts as"));
    }
    // What the agent says about itself. These reach upstream as ordinary custom settings.
    if name.starts_with("countersign.") {
        return (Session, None);
    }
    // Back to what the session started with: the same as RESET ALL, which pools send all the time.
    if value == Value::Default {
        return (Session, None);
    }
    if declared.allows_setting(name) {
        return (Session, None);
    }
    let Some((_, rule)) = RULES.iter().find(|(known, _)| *known == name) else {
        let why = if name.contains('.') {
            "is not on the list of settings that may be changed; safe_settings in the policy can name it"
        } else {
            "is not on the list of settings that may be changed"
        };
        return (Settings, Some(why));
    };
    let allowed = match (rule, value) {
        (Rule::Any, _) => true,
        (_, Value::Computed) => return (Settings, Some("is set to a value that only the server will know")),
        (Rule::OneOf(values), Value::Given([given])) => {
            values.iter().any(|value| value.eq_ignore_ascii_case(given))
        }
        (Rule::SearchPath, Value::Given(schemas)) => schemas.iter().all(|schema| is_plain_schema(schema)),
        (Rule::Encoding, Value::Given([given])) => is_utf8(given),
        (Rule::OneOf(_) | Rule::SearchPath | Rule::Encoding, _) => false,
    };
    match (allowed, rule) {
        (true, _) => (Session, None),
        (false, Rule::SearchPath) => (Settings, Some("is set to a path that names a system schema")),
        (false, Rule::Any | Rule::OneOf(_) | Rule::Encoding) => {
            (Settings, Some("may not be changed to this value"))
        }
    }
}

/// Whether a session may start with setting `name` at `value`, as a start-up packet gives them: what `SET`
/// may do without being asked.
///
/// # Errors
///
/// Why it may not, behind the setting's name.
pub fn may_start_with(catalogue: &Catalogue, name: &str, value: &str) -> Result<(), String> {
    let name = name.to_ascii_lowercase();
    // In a start-up packet these are not settings.
    if matches!(&*name, "user" | "database" | "options" | "replication") || name.starts_with("_pq_.") {
        return Err("is not a setting".to_owned());
    }
    let (class, why) = if name == "search_path" {
        match split_search_path(value) {
            Some(schemas) => {
                let schemas: Vec<&str> = schemas.iter().map(String::as_str).collect();
                judge(&name, Value::Given(&schemas), catalogue.declared())
            }
            None => (Settings, Some("is set to something that is no list of schemas")),
        }
    } else {
        judge(&name, Value::Given(&[value]), catalogue.declared())
    };
    match (class, why) {
        (_, Some(why)) => Err(why.to_owned()),
        (Session, None) => catalogue.guards().loosened_by(&name, Value::Given(&[value])).map_or(Ok(()), Err),
        (_, None) => Err("may not be changed at start-up".to_owned()),
    }
}

/// Whether it is a setting that decides what names mean: upstream is asked for those.
pub(super) fn decides_names(name: &str) -> bool {
    name == "search_path" || IDENTITY.contains(&name)
}

/// Whether the session acts as the same user behind it as before.
pub(super) fn keeps_identity(name: &str, value: Value<'_>, identity: &Identity) -> bool {
    let Identity { user, session_user, reset_user, login_user, .. } = identity;
    if name == "role" {
        return match value {
            Value::Default => user == reset_user,
            Value::Given(["none"]) => user == session_user,
            Value::Given([role]) => **user == **role,
            Value::Given(_) | Value::Computed => false,
        };
    }
    // It takes back a role as well.
    let becomes = match value {
        Value::Default => &**login_user,
        Value::Given([user]) => user,
        Value::Given(_) | Value::Computed => return false,
    };
    **session_user == *becomes && **user == *becomes
}

/// Whether it asks for another encoding than UTF8, or for one that only the server will know.
pub(super) fn is_other_encoding(name: &str, value: Value<'_>) -> bool {
    name == "client_encoding"
        && match value {
            // The login has asked for UTF8, so that is what it goes back to.
            Value::Default => false,
            Value::Given([given]) => !is_utf8(given),
            Value::Given(_) | Value::Computed => true,
        }
}

/// As `pg_char_to_encoding` reads a name: whatever is no letter or digit does not count.
fn is_utf8(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    UTF8.iter().any(|known| known.eq_ignore_ascii_case(&plain)) && name.is_ascii()
}

/// Names that are looked up in system schemas last, or in somebody's temporary ones, mean something
/// else than they seem to. Postgres keeps the prefix `pg_` for such schemas.
fn is_plain_schema(schema: &str) -> bool {
    let start: String = schema.trim().chars().take(3).collect();
    !start.eq_ignore_ascii_case("pg_")
}

/// The schemas in a search path given as one string, as `set_config` takes it: like Postgres's
/// `SplitIdentifierString`. `None` when Postgres would call it invalid.
pub(super) fn split_search_path(list: &str) -> Option<Vec<String>> {
    let mut schemas = Vec::new();
    let mut rest = list.trim_start();
    if rest.is_empty() {
        return Some(schemas);
    }
    loop {
        let name;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut inside = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next()? {
                    (_, '"') if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                        inside.push('"');
                        chars.next();
                    }
                    (place, '"') => break place + 1,
                    (_, c) => inside.push(c),
                }
            };
            name = inside;
            rest = quoted.get(end..)?;
        } else {
            let end = rest.find(|c: char| c == ',' || c.is_ascii_whitespace()).unwrap_or(rest.len());
            name = rest.get(..end)?.to_ascii_lowercase();
            if name.is_empty() {
                return None;
            }
            rest = rest.get(end..)?;
        }
        schemas.push(truncated(&name).to_owned());
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None => return rest.is_empty().then_some(schemas),
        }
    }
}

/// Names are cut to 63 bytes, at a character's border.
pub(super) fn truncated(name: &str) -> &str {
    let mut end = name.len().min(63);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, value: &str) -> StatementClass {
        judge(name, Value::Given(&[value]), &Declared::default()).0
    }

    #[test]
    fn what_drivers_send_is_allowed() {
        for (name, value) in [
            ("standard_conforming_strings", "on"),
            ("client_encoding", "UTF8"),
            ("client_encoding", "utf-8"),
            ("client_min_messages", "warning"),
            ("statement_timeout", "0"),
            ("jit", "off"),
            ("search_path", "app"),
            ("search_path", "$user"),
            ("search_path", ""),
            ("countersign.purpose", "cleaning up"),
        ] {
            assert_eq!(class(name, value), Session, "{name} = {value}");
        }
    }

    #[test]
    fn what_changes_meaning_or_checks_is_not() {
        for (name, value) in [
            ("standard_conforming_strings", "off"),
            ("client_encoding", "SJIS"),
            ("backslash_quote", "on"),
            ("search_path", "pg_catalog"),
            ("search_path", " PG_temp"),
            ("session_replication_role", "replica"),
            ("app.tenant", "7"),
            ("synchronous_commit", "off"),
        ] {
            assert_eq!(class(name, value), Settings, "{name} = {value}");
        }
        assert_eq!(class("role", "none"), StatementClass::Identity);
        assert_eq!(judge("client_encoding", Value::Computed, &Declared::default()).0, Settings);
        assert_eq!(judge("statement_timeout", Value::Computed, &Declared::default()).0, Session);
        assert_eq!(
            judge("client_encoding", Value::Given(&["UTF8", "SJIS"]), &Declared::default()).0,
            Settings
        );
    }

    #[test]
    fn utf8_is_known_by_every_name_that_postgres_takes_for_it() {
        for name in ["UTF8", "utf-8", "Unicode", " utf_8 ", "\"UTF8\""] {
            assert!(!is_other_encoding("client_encoding", Value::Given(&[name])), "{name}");
        }
        for name in ["SQL_ASCII", "latin1", "", "utf16", "utf8mb4", "ｕtf8", "UTF8é"] {
            assert!(is_other_encoding("client_encoding", Value::Given(&[name])), "{name}");
        }
        assert!(is_other_encoding("client_encoding", Value::Computed));
        assert!(!is_other_encoding("client_encoding", Value::Default));
    }

    #[test]
    fn whoever_stays_who_they_are_changes_nothing() {
        let identity = |user: &str, session_user: &str, reset_user: &str| Identity {
            user: user.into(),
            session_user: session_user.into(),
            reset_user: reset_user.into(),
            login_user: "app".into(),
            outlasts_transaction: true,
        };
        let (own, other) = (identity("app", "app", "app"), identity("owner", "app", "app"));
        // The login's own `ALTER ROLE .. SET role`.
        let lowered = identity("limited", "app", "limited");
        let keeps = |name, value, identity| keeps_identity(name, value, identity);

        for value in [Value::Default, Value::Given(&["none"]), Value::Given(&["app"])] {
            assert!(keeps("role", value, &own) && !keeps("role", value, &other), "{value:?}");
        }
        for value in [Value::Default, Value::Given(&["app"])] {
            assert!(keeps("session_authorization", value, &own), "{value:?}");
            assert!(!keeps("session_authorization", value, &other), "{value:?}");
            assert!(!keeps("session_authorization", value, &lowered), "{value:?}");
        }
        assert!(keeps("role", Value::Default, &lowered) && !keeps("role", Value::Given(&["none"]), &lowered));
        assert!(keeps("role", Value::Given(&["owner"]), &other));
        assert!(!keeps("role", Value::Given(&["App"]), &own) && !keeps("role", Value::Computed, &own));
        assert!(!keeps("session_authorization", Value::Given(&["owner"]), &other));
    }

    #[test]
    fn paths_split_as_postgres_splits_them() {
        let split = |text| split_search_path(text);

        assert_eq!(split(""), Some(vec![]));
        assert_eq!(split("A, \"B\"\"c\" ,d"), Some(vec!["a".into(), "B\"c".into(), "d".into()]));
        assert_eq!(split("a,,b"), None);
        assert_eq!(split("\"a"), None);
        assert_eq!(split("a b"), None);
    }

    #[test]
    fn a_session_may_start_with_what_set_may_do_without_asking() {
        let catalogue = Catalogue::built_in(15);
        let may = |name, value| may_start_with(&catalogue, name, value).is_ok();

        for (name, value) in [
            ("DateStyle", "ISO, MDY"),
            ("TimeZone", "Europe/Berlin"),
            ("extra_float_digits", "3"),
            ("client_min_messages", "warning"),
            ("jit", "off"),
            ("standard_conforming_strings", "on"),
            ("statement_timeout", "5s"),
            ("transaction_timeout", "30000"),
            ("search_path", "app, public"),
            ("search_path", "\"$user\", public"),
            ("search_path", ""),
            ("default_transaction_read_only", "on"),
            ("default_transaction_read_only", "off"),
            ("default_transaction_isolation", "serializable"),
            ("work_mem", "64MB"),
            ("plan_cache_mode", "force_custom_plan"),
            ("ENABLE_SEQSCAN", "off"),
            ("bytea_output", "hex"),
            ("row_security", "off"),
            ("synchronous_commit", "on"),
        ] {
            assert!(may(name, value), "{name} = {value}");
            assert_eq!(class(&name.to_ascii_lowercase(), value), Session, "{name} = {value}");
        }
        for (name, value) in [
            ("session_preload_libraries", "x"),
            ("local_preload_libraries", "x"),
            ("role", "postgres"),
            ("ROLE", "none"),
            ("session_authorization", "postgres"),
            ("session_replication_role", "replica"),
            ("is_superuser", "on"),
            ("default_tablespace", "x"),
            ("temp_tablespaces", "x"),
            ("backslash_quote", "on"),
            ("standard_conforming_strings", "off"),
            ("synchronous_commit", "off"),
            ("log_statement", "none"),
            ("dynamic_library_path", "/tmp"),
            ("search_path", "evil, pg_catalog"),
            ("search_path", "pg_temp"),
            ("search_path", "\"unterminated"),
            ("app.tenant", "7"),
            // Parameters of the packet that are no settings, by any spelling.
            ("user ", "x"),
            ("USER", "x"),
            ("user", "other"),
            ("Database", "x"),
            ("options", "-crole=x"),
            ("replication", "true"),
            ("_pq_.x", "1"),
        ] {
            assert!(!may(name, value), "{name} = {value}");
        }
    }

    #[test]
    fn every_name_on_the_list_is_a_setting_that_anybody_may_change() {
        let table = include_str!("../../fixtures/functions/settings.tsv");
        // `pg_settings` does not show `seed` (GUC_NO_SHOW_ALL).
        let of_extension = |name: &str| name.contains('.');
        for (name, _) in RULES.iter().filter(|(name, _)| *name != "seed" && !of_extension(name)) {
            let known = table.lines().any(|line| {
                let mut columns = line.split('\t');
                columns.next().is_some_and(|known| known.eq_ignore_ascii_case(name))
            });
            assert!(known, "{name}");
        }
    }
}
