//! What upstream itself has said of the settings that decide what a statement means.
//!
//! Nothing here is worked out from what an agent's statements say. A statement that may change one of these
//! settings makes them unknown as soon as it is forwarded, and they stay unknown until upstream has said what
//! they are: in its answer to a probe (`session::probe`), or, for the search path, in a `ParameterStatus`
//! (Postgres 18 and later).
//!
//! Invariant: the settings are known only while nothing was forwarded since upstream's last word that may
//! have changed them.

use std::sync::Arc;

use super::names::Name;
use crate::statement::{Identity, SearchPath, SessionEffect, Step, TransactionStatus};

/// The schema of a session's temporary tables and views.
const TEMPORARY: &str = "pg_temp";

/// Settings by which a session acts as somebody else.
const IDENTITY: [&str; 2] = ["role", "session_authorization"];

/// What upstream says of a session right after its login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtLogin {
    /// `search_path`, with its quotes.
    pub search_path: Option<Arc<str>>,
    /// `role`.
    pub role: Option<Arc<str>>,
    /// `session_authorization`.
    pub session_authorization: Option<Arc<str>>,
}

impl AtLogin {
    /// A login as `user`, as nobody else.
    #[must_use]
    pub fn of(search_path: &str, user: &str) -> Self {
        Self {
            search_path: Some(search_path.into()),
            role: Some("none".into()),
            session_authorization: Some(user.into()),
        }
    }
}

/// By what a session acts as somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Acting {
    /// `role`, which is `none` until somebody sets it.
    role: Arc<str>,
    /// `session_authorization`.
    session_user: Arc<str>,
}

impl Acting {
    /// `current_user`.
    fn user(&self) -> Arc<str> {
        Arc::clone(if *self.role == *"none" { &self.session_user } else { &self.role })
    }
}

/// Which of the settings a statement may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// `search_path` alone, of which Postgres 18 tells each change.
    Path,
    /// All of them.
    All,
}

/// The settings of a session, as far as they are known.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `search_path`, while it is known.
    path: Option<Arc<str>>,
    /// Who the session acts as, while that is known.
    acting: Option<Acting>,
    /// The same at login: what `RESET` goes back to.
    at_login: Option<Acting>,
    /// What upstream last reported of the search path, where it reports each change (18 and later).
    reported_path: Option<Arc<str>>,
    /// Counts what was forwarded that may have changed something, so that an answer from before a change is
    /// not taken for one from behind it.
    changes: u64,
    /// What the open transaction may have changed, which its end may take back.
    in_transaction: Option<Change>,
    /// Code ran in the open transaction. It may have made triggers and the like that no catalogue shows yet,
    /// so that any statement may run code.
    code_in_transaction: bool,
    /// The session may have temporary tables and views.
    temporary: bool,
    /// A temporary view may exist.
    temporary_views: bool,
    /// Upstream's major version; 0 as long as it has not said it.
    server_version: u32,
    /// Upstream reads what the agent sends as UTF-8.
    is_utf8: bool,
    /// False once upstream reports that it reads strings otherwise than the parser.
    strings_standard: bool,
    /// A statement that may change that has been allowed, and upstream has not answered it.
    strings_may_change: bool,
}

impl Settings {
    /// The settings after login, as upstream has told them in this very session.
    #[must_use]
    pub fn new(told: &AtLogin) -> Self {
        let acting = told.role.clone().zip(told.session_authorization.clone());
        let acting = acting.map(|(role, session_user)| Acting { role, session_user });
        Self {
            path: told.search_path.clone(),
            at_login: acting.clone(),
            acting,
            reported_path: None,
            server_version: 0,
            changes: 0,
            in_transaction: None,
            code_in_transaction: false,
            temporary: false,
            temporary_views: false,
            is_utf8: true,
            strings_standard: true,
            strings_may_change: false,
        }
    }

    /// Whether upstream has said what all of them are, and nothing that may change one was forwarded since.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.path.is_some() && self.acting.is_some()
    }

    /// Where names are looked up now: for tables, first among the session's temporary ones, where it may
    /// have some.
    #[must_use]
    pub fn search_path(&self) -> SearchPath {
        let (Some(path), Some(acting)) = (&self.path, &self.acting) else { return SearchPath::Unknown };
        match parse_search_path(path, &acting.user()) {
            SearchPath::Known(mut schemas) => {
                let said = schemas.iter().any(|schema| **schema == *TEMPORARY);
                if self.temporary && !said {
                    schemas.insert(0, TEMPORARY.into());
                }
                SearchPath::Known(schemas)
            }
            SearchPath::Unknown => SearchPath::Unknown,
        }
    }

    /// Who the session acts as; nothing while that is not known.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let acting = self.acting.as_ref()?;
        let at_login = self.at_login.as_ref()?;
        // `RESET ROLE` goes back to the role of the login, which is mostly none.
        let reset =
            Acting { role: Arc::clone(&at_login.role), session_user: Arc::clone(&acting.session_user) };
        Some(Identity {
            user: acting.user(),
            session_user: Arc::clone(&acting.session_user),
            reset_user: reset.user(),
            login_user: Arc::clone(&at_login.session_user),
            outlasts_transaction: self.in_transaction != Some(Change::All),
        })
    }

    /// What a statement with this effect may change. The end of a transaction may take back what the
    /// transaction changed.
    #[must_use]
    pub fn change_by(&self, effect: &SessionEffect) -> Option<Change> {
        match effect {
            SessionEffect::Set { name, .. } if &**name == "search_path" => Some(Change::Path),
            SessionEffect::Set { name, .. } => IDENTITY.contains(&&**name).then_some(Change::All),
            SessionEffect::ResetAll => Some(Change::Path),
            SessionEffect::DiscardAll
            | SessionEffect::PathUnknown
            | SessionEffect::MayChangeSettings
            // Event triggers run with it.
            | SessionEffect::CatalogueChange => Some(Change::All),
            SessionEffect::Commit { .. }
            | SessionEffect::Rollback { .. }
            | SessionEffect::RollbackToSavepoint => self.in_transaction,
            SessionEffect::Prepare(_)
            | SessionEffect::Execute(_)
            | SessionEffect::Deallocate(_)
            | SessionEffect::DeallocateAll
            | SessionEffect::Declare(_)
            // What runs by it is the business of whoever knows the cursor.
            | SessionEffect::Fetch(_)
            | SessionEffect::CloseCursor(_)
            | SessionEffect::CloseAllCursors
            | SessionEffect::Begin
            | SessionEffect::Savepoint
            | SessionEffect::CopyIn
            | SessionEffect::CopyOut
            | SessionEffect::CommitsByItself
            | SessionEffect::OwnCatalogueChange
            | SessionEffect::TemporaryRelation => None,
        }
    }

    /// Whether a statement of a text that is not its last may change them, so that those behind it mean
    /// something else. A schema change may run an event trigger, which is rare, and would be said of every
    /// migration.
    #[must_use]
    pub fn change_on_the_way(&self, steps: &[Step]) -> bool {
        let earlier = steps.split_last().map_or(&[][..], |(_, earlier)| earlier);
        let mut effects = earlier.iter().flat_map(|step| &step.effects);
        effects.any(|effect| *effect != SessionEffect::CatalogueChange && self.change_by(effect).is_some())
    }

    /// Something that may change settings goes upstream, or has done so unasked: they are unknown from now
    /// on.
    pub fn forget(&mut self, change: Change) {
        self.changes += 1;
        self.path = None;
        if change == Change::All {
            self.acting = None;
        }
        self.in_transaction = self.in_transaction.max(Some(change));
    }

    /// What any statement may change by what the open transaction has made.
    #[must_use]
    pub fn change_by_anything(&self) -> Option<Change> {
        self.code_in_transaction.then_some(Change::All)
    }

    /// Code, a statement that creates some among it, goes upstream.
    pub fn note_code(&mut self) {
        self.code_in_transaction = true;
    }

    /// A transaction, or a part of one, ends or has failed: what it changed may be taken back.
    pub fn forget_what_the_transaction_changed(&mut self) {
        if let Some(change) = self.in_transaction {
            self.forget(change);
        }
    }

    /// A temporary table or view may exist from now on. It may be gone when the transaction rolls back;
    /// nothing is lost by not knowing.
    pub fn may_have_temporary_relations(&mut self) {
        self.temporary = true;
    }

    /// A temporary view may exist from now on: what is written to a name without a schema may reach the
    /// table behind it.
    pub fn may_have_temporary_views(&mut self) {
        self.temporary_views = true;
    }

    /// Upstream says that there is none.
    pub fn has_no_temporary_views(&mut self) {
        self.temporary_views = false;
    }

    /// Whether one may exist.
    #[must_use]
    pub fn has_temporary_views(&self) -> bool {
        self.temporary_views
    }

    /// Whether upstream reads strings as the parser does.
    #[must_use]
    pub fn strings_standard(&self) -> bool {
        self.strings_standard && !self.strings_may_change
    }

    /// A statement with this effect is about to be forwarded. Upstream reports how it reads strings when it
    /// is ready; until then they may be read otherwise.
    pub fn note_strings(&mut self, effect: &SessionEffect) {
        /// What switches it on; anything else may switch it off.
        const ON: [&str; 6] = ["on", "true", "yes", "1", "t", "y"];
        if let SessionEffect::Set { name, value, .. } = effect
            && &**name == "standard_conforming_strings"
        {
            let is_on = |value: &Arc<str>| ON.iter().any(|on| on.eq_ignore_ascii_case(value));
            self.strings_may_change |= !value.as_ref().is_some_and(is_on);
        }
    }

    /// Whether upstream takes what the agent sends for UTF-8.
    #[must_use]
    pub fn is_utf8(&self) -> bool {
        self.is_utf8
    }

    /// Counts what may have changed the settings; compared with an earlier count when an answer comes.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Upstream's answer to a question that was sent when `changes` had been counted.
    pub fn learn(&mut self, changes: u64, search_path: &str, role: &str, session_authorization: &str) {
        if changes != self.changes {
            return;
        }
        self.path = Some(search_path.into());
        self.acting = Some(Acting { role: role.into(), session_user: session_authorization.into() });
    }

    /// Upstream is ready; `idle` says that it owes nothing more.
    pub fn ready(&mut self, status: TransactionStatus, idle: bool) {
        // Changes are reported before upstream says that it is ready. What was forwarded behind that may
        // change them again.
        if !idle {
            return;
        }
        self.strings_may_change = false;
        if let Some(path) = &self.reported_path {
            self.path = Some(Arc::clone(path));
        }
        if status == TransactionStatus::Idle {
            self.in_transaction = None;
            self.code_in_transaction = false;
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
            "client_encoding" => self.is_utf8 = value.eq_ignore_ascii_case("UTF8"),
            "server_version" => {
                let major = value.split(|c: char| !c.is_ascii_digit()).next();
                self.server_version = major.and_then(|major| major.parse().ok()).unwrap_or_default();
            }
            "standard_conforming_strings" => self.strings_standard &= value == "on",
            "search_path" => self.reported_path = Some(value.into()),
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

    fn settings() -> Settings {
        Settings::new(&AtLogin::of("public", "app"))
    }

    /// A statement with this effect is forwarded.
    fn forward(settings: &mut Settings, effect: &SessionEffect) {
        if let Some(change) = settings.change_by(effect) {
            settings.forget(change);
        }
    }

    fn learn(settings: &mut Settings, path: &str) {
        settings.learn(settings.changes(), path, "none", "app");
    }

    #[test]
    fn a_temporary_table_stands_in_front_of_others() {
        let mut settings = settings();

        settings.may_have_temporary_relations();

        assert_eq!(settings.search_path(), known(&["pg_temp", "public"]));
        learn(&mut settings, "app, pg_temp");
        assert_eq!(settings.search_path(), known(&["app", "pg_temp"]));
    }

    /// What a statement says that it sets is not looked at.
    #[test]
    fn what_may_change_the_path_makes_it_unknown_until_upstream_tells() {
        let discard = SessionEffect::DiscardAll;
        let unknown = SessionEffect::PathUnknown;
        for effect in [set("audit", false), set("audit", true), SessionEffect::ResetAll, discard, unknown] {
            let mut settings = settings();
            forward(&mut settings, &effect);
            assert_eq!(settings.search_path(), SearchPath::Unknown, "{effect:?}");
            assert!(!settings.are_known());
            settings.ready(TransactionStatus::Idle, true);
            assert_eq!(settings.search_path(), SearchPath::Unknown, "{effect:?}");

            learn(&mut settings, "\"Sales\", public");
            assert_eq!(settings.search_path(), known(&["Sales", "public"]));
        }
    }

    #[test]
    fn the_end_of_a_transaction_takes_back_what_it_changed() {
        let ends = [
            SessionEffect::Commit { chain: false },
            SessionEffect::Rollback { chain: false },
            SessionEffect::RollbackToSavepoint,
        ];
        for end in ends {
            let mut settings = settings();
            forward(&mut settings, &end);
            assert_eq!(settings.search_path(), known(&["public"]), "it has changed nothing");
            forward(&mut settings, &set("audit", true));
            settings.ready(TransactionStatus::InBlock, true);
            learn(&mut settings, "audit");
            assert_eq!(settings.search_path(), known(&["audit"]));

            forward(&mut settings, &end);
            assert_eq!(settings.search_path(), SearchPath::Unknown, "{end:?}");
        }
    }

    #[test]
    fn an_answer_from_before_a_change_says_nothing_of_what_is_behind_it() {
        let mut settings = settings();
        forward(&mut settings, &SessionEffect::PathUnknown);
        let asked = settings.changes();
        forward(&mut settings, &set("audit", false));

        settings.learn(asked, "public", "none", "app");

        assert_eq!(settings.search_path(), SearchPath::Unknown);
    }

    #[test]
    fn where_upstream_reports_the_path_nobody_needs_to_ask_for_it() {
        let mut settings = settings();
        settings.reported("search_path", "public");
        forward(&mut settings, &set("hidden", false));
        settings.reported("search_path", "\"Hidden\"");
        settings.ready(TransactionStatus::InBlock, false);
        assert_eq!(settings.search_path(), SearchPath::Unknown, "something is still in flight");

        settings.ready(TransactionStatus::InBlock, true);

        assert_eq!(settings.search_path(), known(&["Hidden"]));
        assert!(settings.are_known());
        forward(&mut settings, &SessionEffect::PathUnknown);
        settings.ready(TransactionStatus::InBlock, true);
        assert!(!settings.are_known(), "code may have changed the role, which nobody reports");
    }

    #[test]
    fn the_user_in_a_path_is_who_the_session_acts_as() {
        let mut settings = settings();

        settings.learn(settings.changes(), "\"$user\"", "owner", "app");

        assert_eq!(settings.search_path(), known(&["owner"]));
        let identity = settings.identity().unwrap();
        assert_eq!((&*identity.user, &*identity.reset_user), ("owner", "app"));
    }

    #[test]
    fn another_encoding_is_as_upstream_reports_it_and_another_strings_mode_is_never_forgotten() {
        let mut settings = settings();
        settings.reported("client_encoding", "SJIS");
        assert!(!settings.is_utf8());
        settings.reported("client_encoding", "UTF8");
        assert!(settings.is_utf8());

        settings.reported("standard_conforming_strings", "off");
        settings.reported("standard_conforming_strings", "on");

        assert!(!settings.strings_standard());
    }

    #[test]
    fn while_strings_may_be_read_otherwise_they_are_not_standard() {
        let mut settings = settings();
        let set = |value: &str| SessionEffect::Set {
            name: "standard_conforming_strings".into(),
            value: Some(value.into()),
            local: false,
        };
        settings.note_strings(&set("on"));
        assert!(settings.strings_standard());

        settings.note_strings(&set("off"));

        assert!(!settings.strings_standard());
        settings.ready(TransactionStatus::Idle, true);
        assert!(settings.strings_standard(), "it was rolled back, or upstream would have reported it");
    }
}
