//! Settings as the conversation tells them, read along.
//!
//! This is a hint, not the truth: a function can set what it likes, and `ALTER ROLE .. SET` acts at
//! the next login. It serves to resolve names for statements that are not held. Before a hold opens,
//! upstream itself is asked (`session::probe`), and its answer replaces what is here.

use std::sync::Arc;

use super::names::Name;
use crate::statement::SearchPath;
use crate::statement::{SessionEffect, TransactionStatus};

/// One setting with the scopes that Postgres gives it. `None` is "cannot be told".
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scoped {
    /// The session's value, as of the last commit.
    committed: Option<Arc<str>>,
    /// Set in the open transaction, lost when it rolls back.
    uncommitted: Option<Option<Arc<str>>>,
    /// `SET LOCAL`, lost when the transaction ends.
    local: Option<Option<Arc<str>>>,
}

impl Scoped {
    fn current(&self) -> Option<&Arc<str>> {
        self.local.as_ref().or(self.uncommitted.as_ref()).unwrap_or(&self.committed).as_ref()
    }
}

/// The schema of a session's temporary tables and views.
const TEMPORARY: &str = "pg_temp";

/// The tracked settings of a session.
#[derive(Clone, Debug)]
pub struct Settings {
    role: Arc<str>,
    initial_path: Option<Arc<str>>,
    search_path: Scoped,
    /// The session may have temporary tables and views.
    temporary: bool,
    /// What upstream last told of the search path, where it tells each change (18 and later).
    reported_path: Option<Arc<str>>,
    /// Upstream's major version; 0 as long as it has not said it.
    server_version: u32,
    /// False once upstream reports that strings or encoding are not what the parser assumes.
    as_assumed: bool,
}

impl Settings {
    /// The settings after login: `search_path` as upstream has it for this role and database.
    #[must_use]
    pub fn new(role: &str, search_path: Option<&str>) -> Self {
        let initial_path: Option<Arc<str>> = search_path.map(Arc::from);
        Self {
            role: role.into(),
            search_path: Scoped { committed: initial_path.clone(), uncommitted: None, local: None },
            initial_path,
            temporary: false,
            reported_path: None,
            server_version: 0,
            as_assumed: true,
        }
    }

    /// Where names are looked up now: for tables, first among the session's temporary ones, where it may
    /// have some.
    #[must_use]
    pub fn search_path(&self) -> SearchPath {
        let path = self.search_path.current().map(|text| parse_search_path(text, &self.role));
        match path {
            Some(SearchPath::Known(mut schemas)) => {
                let said = schemas.iter().any(|schema| **schema == *TEMPORARY);
                if self.temporary && !said {
                    schemas.insert(0, TEMPORARY.into());
                }
                SearchPath::Known(schemas)
            }
            Some(SearchPath::Unknown) | None => SearchPath::Unknown,
        }
    }

    /// Whether a statement with this effect may change where names are looked up. The end of a
    /// transaction does when the transaction has changed something, or (`behind`) when something that
    /// is still in flight may have.
    #[must_use]
    pub fn is_touched_by(&self, effect: &SessionEffect, behind: bool) -> bool {
        match effect {
            SessionEffect::Set { name, .. } => &**name == "search_path",
            SessionEffect::ResetAll | SessionEffect::DiscardAll => true,
            SessionEffect::Commit { .. }
            | SessionEffect::Rollback { .. }
            | SessionEffect::RollbackToSavepoint => {
                behind || self.search_path.local.is_some() || self.search_path.uncommitted.is_some()
            }
            SessionEffect::Prepare(_)
            | SessionEffect::Execute(_)
            | SessionEffect::Deallocate(_)
            | SessionEffect::DeallocateAll
            | SessionEffect::Declare(_)
            | SessionEffect::Fetch(_)
            | SessionEffect::CloseCursor(_)
            | SessionEffect::CloseAllCursors
            | SessionEffect::Begin
            | SessionEffect::Savepoint
            | SessionEffect::CopyIn
            | SessionEffect::CopyOut
            | SessionEffect::CommitsByItself
            | SessionEffect::CatalogueChange
            | SessionEffect::OwnCatalogueChange => false,
            SessionEffect::TemporaryRelation => !self.temporary,
            SessionEffect::PathUnknown => true,
        }
    }

    /// Whether strings and encoding are what the parser assumes.
    #[must_use]
    pub fn as_assumed(&self) -> bool {
        self.as_assumed
    }

    /// Upstream confirmed a statement that had this effect.
    pub fn apply(&mut self, effect: &SessionEffect) {
        match effect {
            SessionEffect::Set { name, value, local } if &**name == "search_path" => {
                let value = value.clone().or_else(|| self.initial_path.clone());
                if *local {
                    self.search_path.local = Some(value);
                } else {
                    self.search_path.uncommitted = Some(value);
                    self.search_path.local = None;
                }
            }
            SessionEffect::ResetAll | SessionEffect::DiscardAll => {
                self.search_path.uncommitted = Some(self.initial_path.clone());
                self.search_path.local = None;
            }
            SessionEffect::Commit { .. } => self.end(true),
            SessionEffect::Rollback { .. } => self.end(false),
            // What was set since the savepoint is undone, and nothing here remembers when that was.
            SessionEffect::RollbackToSavepoint => {
                if self.search_path.local.is_some() || self.search_path.uncommitted.is_some() {
                    self.search_path.local = None;
                    self.search_path.uncommitted = Some(None);
                }
            }
            // Its table may be gone when the transaction rolls back; nothing is lost by not knowing.
            SessionEffect::TemporaryRelation => self.temporary = true,
            SessionEffect::PathUnknown => {
                self.search_path.local = None;
                self.search_path.uncommitted = Some(None);
            }
            SessionEffect::Set { .. }
            | SessionEffect::Prepare(_)
            | SessionEffect::Execute(_)
            | SessionEffect::Deallocate(_)
            | SessionEffect::DeallocateAll
            | SessionEffect::Declare(_)
            | SessionEffect::Fetch(_)
            | SessionEffect::CloseCursor(_)
            | SessionEffect::CloseAllCursors
            | SessionEffect::Begin
            | SessionEffect::Savepoint
            | SessionEffect::CopyIn
            | SessionEffect::CopyOut
            | SessionEffect::CommitsByItself
            | SessionEffect::CatalogueChange
            | SessionEffect::OwnCatalogueChange => {}
        }
    }

    /// Upstream is ready: outside a block, whatever the transaction did has been kept or lost.
    /// `failed` says that the answers before this had an error.
    pub fn ready(&mut self, status: TransactionStatus, failed: bool) {
        if status == TransactionStatus::Idle {
            self.end(!failed);
        }
        // Changes are told before upstream says that it is ready.
        if let Some(path) = self.reported_path.clone() {
            self.learn_search_path(&path);
        }
    }

    fn end(&mut self, committed: bool) {
        self.search_path.local = None;
        if let (Some(value), true) = (self.search_path.uncommitted.take(), committed) {
            self.search_path.committed = value;
        }
    }

    /// Upstream itself told the value (a probe, or `ParameterStatus` on servers that report it).
    pub fn learn_search_path(&mut self, value: &str) {
        let value: Option<Arc<str>> = Some(value.into());
        if self.search_path.current() != value.as_ref() {
            if self.search_path.local.is_some() {
                self.search_path.local = Some(value);
            } else if self.search_path.uncommitted.is_some() {
                self.search_path.uncommitted = Some(value);
            } else {
                self.search_path.committed = value;
            }
        }
    }

    /// Upstream's major version; 0 as long as it has not said it.
    #[must_use]
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// A `ParameterStatus` passed by.
    pub fn reported(&mut self, name: &str, value: &str) {
        match name {
            "client_encoding" => self.as_assumed &= value.eq_ignore_ascii_case("UTF8"),
            "server_version" => {
                let major = value.split(|c: char| !c.is_ascii_digit()).next();
                self.server_version = major.and_then(|major| major.parse().ok()).unwrap_or_default();
            }
            "standard_conforming_strings" => self.as_assumed &= value == "on",
            "search_path" => {
                self.reported_path = Some(value.into());
                self.learn_search_path(value);
            }
            _ => {}
        }
    }
}

/// Splits a `search_path` as `SplitIdentifierString` does: comma-separated identifiers, folded to
/// lower case unless quoted; `"$user"` is the role. What cannot be split, and what is folded or cut
/// differently from one server's encoding to another's, is [`SearchPath::Unknown`].
#[must_use]
pub fn parse_search_path(text: &str, role: &str) -> SearchPath {
    let mut schemas: Vec<Arc<str>> = Vec::new();
    // `scanner_isspace`; a vertical tab is one of them only since 16, and nothing outside ASCII is.
    let blank = [' ', '\t', '\n', '\r', '\x0c'];
    let mut rest = text.trim_matches(blank);
    while !rest.is_empty() {
        let schema: String;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut name = String::new();
            let mut characters = quoted.char_indices().peekable();
            let mut end = None;
            while let Some((at, character)) = characters.next() {
                if character != '"' {
                    name.push(character);
                } else if characters.peek().is_some_and(|(_, next)| *next == '"') {
                    name.push('"');
                    characters.next();
                } else {
                    end = Some(at + 1);
                    break;
                }
            }
            let Some(after) = end.and_then(|end| quoted.get(end..)) else { return SearchPath::Unknown };
            rest = after.trim_start_matches(blank);
            schema = name;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            let name = name.trim_matches(blank);
            let folds = |c: char| !c.is_ascii() && !c.to_lowercase().eq([c]);
            if name.is_empty() || name.contains(char::is_whitespace) || name.contains(['"', '\0']) {
                return SearchPath::Unknown;
            }
            if name.contains(folds) {
                return SearchPath::Unknown;
            }
            schema = name.to_ascii_lowercase();
            rest = after;
        }
        if let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_start_matches(blank);
            if rest.is_empty() {
                return SearchPath::Unknown;
            }
        } else if !rest.is_empty() {
            return SearchPath::Unknown;
        }
        if schema.len() > Name::LONGEST {
            return SearchPath::Unknown;
        }
        schemas.push(if schema == "$user" { role.into() } else { schema.into() });
    }
    SearchPath::Known(schemas)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(schemas: &[&str]) -> SearchPath {
        SearchPath::Known(schemas.iter().map(|&schema| schema.into()).collect())
    }

    fn set(value: &str, local: bool) -> SessionEffect {
        SessionEffect::Set { name: "search_path".into(), value: Some(value.into()), local }
    }

    #[test]
    fn a_search_path_is_split_as_postgres_does() {
        assert_eq!(parse_search_path("\"$user\", public", "app"), known(&["app", "public"]));
        assert_eq!(parse_search_path("Audit,\"My \"\"Schema\"", "app"), known(&["audit", "My \"Schema"]));
        assert_eq!(parse_search_path("", "app"), known(&[]));
        assert_eq!(parse_search_path("\"open", "app"), SearchPath::Unknown);
        assert_eq!(parse_search_path("a,", "app"), SearchPath::Unknown);
        assert_eq!(parse_search_path("a b", "app"), SearchPath::Unknown);
        assert_eq!(parse_search_path(" a ,\n\tb ", "app"), known(&["a", "b"]));
    }

    /// Postgres's blanks are ASCII's, its folding depends on the database's encoding, and it cuts names.
    #[test]
    fn a_search_path_that_servers_read_differently_is_unknown() {
        assert_eq!(parse_search_path("\u{a0}public", "app"), SearchPath::Unknown);
        assert_eq!(parse_search_path("public\u{3000}", "app"), SearchPath::Unknown);
        assert_eq!(parse_search_path("public\u{b}", "app"), SearchPath::Unknown);
        assert_eq!(parse_search_path("\"public\"\u{a0}", "app"), SearchPath::Unknown);
        assert_eq!(parse_search_path("ÄRGER", "app"), SearchPath::Unknown);
        assert_eq!(parse_search_path("ärger", "app"), known(&["ärger"]));
        assert_eq!(parse_search_path("\"ÄRGER\"", "app"), known(&["ÄRGER"]));
        assert_eq!(parse_search_path(&"n".repeat(64), "app"), SearchPath::Unknown);
        assert_eq!(parse_search_path(&"n".repeat(63), "app"), known(&[&"n".repeat(63)]));
    }

    #[test]
    fn a_temporary_table_stands_in_front_of_others() {
        let mut settings = Settings::new("app", Some("public"));
        assert!(settings.is_touched_by(&SessionEffect::TemporaryRelation, false));

        settings.apply(&SessionEffect::TemporaryRelation);

        assert_eq!(settings.search_path(), known(&["pg_temp", "public"]));
        assert!(!settings.is_touched_by(&SessionEffect::TemporaryRelation, false));
        settings.apply(&set("app, pg_temp", false));
        assert_eq!(settings.search_path(), known(&["app", "pg_temp"]));
    }

    #[test]
    fn a_rollback_undoes_what_the_transaction_set() {
        let mut settings = Settings::new("app", Some("public"));

        settings.apply(&SessionEffect::Begin);
        settings.apply(&set("audit", false));
        assert_eq!(settings.search_path(), known(&["audit"]));
        settings.apply(&SessionEffect::Rollback { chain: false });
        assert_eq!(settings.search_path(), known(&["public"]));

        settings.apply(&set("audit", true));
        settings.ready(TransactionStatus::Idle, false);
        assert_eq!(settings.search_path(), known(&["public"]));

        settings.apply(&set("audit", false));
        settings.ready(TransactionStatus::Idle, false);
        assert_eq!(settings.search_path(), known(&["audit"]));
    }

    #[test]
    fn after_a_partial_rollback_the_path_is_unknown_until_upstream_tells() {
        let mut settings = Settings::new("app", Some("public"));
        settings.apply(&SessionEffect::Savepoint);
        settings.apply(&set("audit", false));

        settings.apply(&SessionEffect::RollbackToSavepoint);
        assert_eq!(settings.search_path(), SearchPath::Unknown);

        settings.learn_search_path("public");
        assert_eq!(settings.search_path(), known(&["public"]));
    }

    #[test]
    fn after_code_the_path_is_unknown_until_upstream_tells_that_it_is_not() {
        let ready = |settings: &mut Settings| {
            settings.apply(&SessionEffect::PathUnknown);
            assert_eq!(settings.search_path(), SearchPath::Unknown);
            settings.ready(TransactionStatus::Idle, false);
        };
        let mut older = Settings::new("app", Some("public"));
        ready(&mut older);
        assert_eq!(older.search_path(), SearchPath::Unknown);
        older.apply(&set("audit", false));
        assert_eq!(older.search_path(), known(&["audit"]));

        let mut newer = Settings::new("app", Some("public"));
        newer.reported("search_path", "public");
        ready(&mut newer);
        assert_eq!(newer.search_path(), known(&["public"]), "it would have told");
        newer.apply(&SessionEffect::PathUnknown);
        newer.reported("search_path", "hidden");
        newer.ready(TransactionStatus::InBlock, false);
        assert_eq!(newer.search_path(), known(&["hidden"]));
    }

    #[test]
    fn another_encoding_or_strings_mode_is_never_forgotten() {
        let mut settings = Settings::new("app", None);
        settings.reported("standard_conforming_strings", "on");
        assert!(settings.as_assumed());

        settings.reported("client_encoding", "SJIS");
        settings.reported("client_encoding", "UTF8");

        assert!(!settings.as_assumed());
    }
}
