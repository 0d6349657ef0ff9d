//! What a submission means in its session, before anybody asks whether it may run.
//!
//! [`meaning_of`] takes the statement and what is known of its session, and returns a classification or
//! the reason why there is none yet. It records nothing, asks nobody and reads no policy. What is about
//! to be used on a grant is looked at by it once more, so it depends on nothing that was found before.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Progress, shown};
use crate::classify::{
    BoundValue, Classification, Classifier, Context, Doubt, Here, LARGE, SearchPath, StatementClass,
    resolve_names,
};
use crate::proxy::catalogue::Known;
use crate::proxy::created;
use crate::refusal::Refusal;
use crate::session::names::Lookup;
use crate::session::{Purpose, Session, Submission};
use crate::statement::{Identity, SessionEffect, SqlText, Statement, Step, Target, Via};

/// The agent asks for another encoding. What is decided must be what the server reads: UTF-8.
const OTHER_ENCODING: Refusal = Refusal::Unsupported {
    feature: "a client_encoding other than UTF8",
    hint: "Leave client_encoding at UTF8 and convert in the client; RESET client_encoding goes back to UTF8.",
};

/// Something else has changed the encoding.
const OTHER_ENCODING_NOW: Refusal = Refusal::Unsupported {
    feature: "text outside ASCII while client_encoding is not UTF8",
    hint: "Send RESET client_encoding first, which goes back to UTF8.",
};

/// A call by OID of a function that is not known.
const UNKNOWN_CALL: Refusal =
    Refusal::Unsupported { feature: "a fast-path function call", hint: "Call the function with SELECT." };

/// A `FETCH` that would execute a portal whose statement has to be decided when it is executed.
const FETCH_RUNS_PORTAL: Refusal = Refusal::Unsupported {
    feature: "a FETCH or MOVE that would run a statement bound by the protocol",
    hint: "Send Execute for that portal, or DECLARE a cursor.",
};

/// The most prepared statements that one text may execute: each is looked up, shown and sealed.
const MOST_EXECUTED: usize = 1_000;
/// The most that all executions of one text may do to the session.
const MOST_EFFECTS: usize = 100_000;

/// A text that a statement refers to by a name.
pub(in crate::proxy) struct Referred {
    pub(in crate::proxy) name: Arc<str>,
    pub(in crate::proxy) sql: SqlText,
    /// The same without its secrets.
    pub(in crate::proxy) shown: SqlText,
    /// Types of its parameters, as its `Parse` gave them: they decide what its values mean.
    pub(in crate::proxy) types: Box<[u32]>,
}

/// What the meaning of a statement depends on.
#[derive(Clone, Copy)]
pub(super) struct SessionView<'a> {
    pub(super) classifier: &'a Classifier,
    pub(super) known: &'a Known,
    pub(super) session: &'a Session,
    pub(super) target: &'a Target,
    /// See [`super::Gate::created`].
    pub(super) created: &'a [Arc<str>],
    /// See [`super::Gate::has_changed_catalogue`].
    pub(super) has_changed_catalogue: bool,
    /// See [`super::Gate::takes_turns`].
    pub(super) takes_turns: bool,
    pub(super) progress: &'a Progress,
}

/// A statement and what it refers to.
pub(super) struct Meaning {
    pub(super) classification: Arc<Classification>,
    pub(super) refers_to: Vec<Referred>,
}

/// Why a statement is not looked at by the policy.
pub(in crate::proxy) enum NoMeaning {
    /// It is refused whatever the policy says.
    Refused(Arc<Classification>, Refusal),
    /// It depends on answers that upstream still owes.
    WhenIdle,
    /// A large text has to be read for it, and it is not its turn.
    Turn,
}

impl<'a> SessionView<'a> {
    /// What decides the meaning of a text in this session.
    pub(super) fn context(&self, search_path: &'a SearchPath) -> Context<'a> {
        Context {
            server_version: self.known.server_version,
            catalogue: &self.known.catalogue,
            search_path,
            database: self.target.database.as_str(),
            role: self.target.role.as_str(),
            strings_standard: self.session.settings().strings_standard(),
        }
    }

    /// A name behind a dot that is no known column, and so may be a function that was made a moment ago.
    /// What this very transaction has changed, only this session can see.
    pub(super) fn unknown_column<'c>(&self, classification: &'c Classification) -> Option<&'c Arc<str>> {
        let is_column = |doubt: &&Doubt| matches!(doubt, Doubt::Column(_));
        classification.doubts.iter().find(is_column).filter(|_| !self.has_changed_catalogue).map(Doubt::name)
    }
}

/// What a submission means, as everything stands now.
pub(super) fn meaning_of(
    submission: &Submission,
    view: &SessionView<'_>,
    search_path: &SearchPath,
) -> Result<Meaning, NoMeaning> {
    let reading = Reading {
        view,
        context: view.context(search_path),
        identity: view.session.identity(),
        classified: RefCell::default(),
    };
    let classification = reading.own_text(submission)?;
    let mut refers_to = reading.executed(&classification)?;
    let classification = reading.with_executed(submission, classification, &refers_to)?;
    reading.check_encoding_and_portals(submission, &classification, &refers_to)?;
    let classification = reading.with_types_that_run_code(submission, classification, &refers_to);
    let (classification, queries) = reading.with_cursor_rows(classification)?;
    refers_to.extend(queries);
    let classification = reading.with_session_objects(submission, classification);
    reading.check_what_is_known(submission, &classification)?;
    Ok(Meaning { classification, refers_to })
}

/// One look at a submission.
struct Reading<'v> {
    view: &'v SessionView<'v>,
    context: Context<'v>,
    identity: Option<Identity>,
    /// Texts behind names, by address and length: one text may have many names, and the classifier's cache
    /// does not keep all texts.
    classified: RefCell<HashMap<(*const u8, usize), Arc<Classification>>>,
}

impl Reading<'_> {
    fn classify_with(&self, sql: &SqlText, values: &[BoundValue]) -> Arc<Classification> {
        let here = Here { identity: self.identity.as_ref(), values };
        let classify = || self.view.classifier.classify_here(sql, &self.context, &here);
        // Parsing a large text may take long enough to keep other sessions of the thread waiting.
        if sql.len() > LARGE { tokio::task::block_in_place(classify) } else { classify() }
    }

    fn classify(&self, sql: &SqlText) -> Arc<Classification> {
        let key = (sql.as_bytes().as_ptr(), sql.len());
        if let Some(known) = self.classified.borrow().get(&key) {
            return Arc::clone(known);
        }
        let classification = self.classify_with(sql, &[]);
        self.classified.borrow_mut().insert(key, Arc::clone(&classification));
        classification
    }

    fn waits_for_turn(&self, sql: &SqlText) -> bool {
        sql.len() > LARGE && self.view.takes_turns && self.view.progress.turn.is_none()
    }

    /// What the text itself does, with its values where they matter.
    fn own_text(&self, submission: &Submission) -> Result<Arc<Classification>, NoMeaning> {
        let statement = &submission.statement;
        if self.waits_for_turn(&statement.sql) {
            return Err(NoMeaning::Turn);
        }
        let mut classification = self.classify_with(&statement.sql, &[]);
        if !self.view.session.settings().is_utf8() && !is_ascii(statement) {
            return Err(NoMeaning::Refused(classification, OTHER_ENCODING_NOW));
        }
        if classification.notes.needs_values {
            let values: Vec<BoundValue> = statement.parameters.iter().map(Into::into).collect();
            classification = self.classify_with(&statement.sql, &values);
        }
        if self.view.progress.confirmed
            && let Some(confirmed) = &classification.if_confirmed
        {
            classification = Arc::clone(&confirmed.classification);
        }
        if statement.via == Via::FunctionCall && classification.parts.is_empty() {
            return Err(NoMeaning::Refused(classification, UNKNOWN_CALL));
        }
        Ok(classification)
    }

    /// The prepared statements that a text executes.
    fn executed(&self, classification: &Arc<Classification>) -> Result<Vec<Referred>, NoMeaning> {
        let session = self.view.session;
        let mut seen = HashSet::new();
        let names: Vec<&Arc<str>> =
            executed_names(classification).filter(|name| seen.insert(*name)).collect();
        if names.len() > MOST_EXECUTED {
            return Err(too_many_executed(classification));
        }
        let mut executed = Vec::with_capacity(names.len());
        for name in names {
            match session.lookup(name) {
                Lookup::Known(prepared) => executed.push(Referred {
                    name: Arc::clone(name),
                    sql: prepared.sql.clone(),
                    shown: prepared.sql.clone(),
                    types: prepared.types.clone(),
                }),
                Lookup::Unsettled if session.settles() && !session.is_idle() => {
                    return Err(NoMeaning::WhenIdle);
                }
                // Where nobody can tell what the name means, it is held as an unknown one is.
                Lookup::Unknown | Lookup::Unsettled => {}
            }
        }
        if executed.iter().any(|known| self.waits_for_turn(&known.sql)) {
            return Err(NoMeaning::Turn);
        }
        for known in &mut executed {
            known.shown = shown(&known.sql, &self.classify(&known.sql));
        }
        Ok(executed)
    }

    /// The same with what the prepared statements do.
    fn with_executed(
        &self,
        submission: &Submission,
        classification: Arc<Classification>,
        executed: &[Referred],
    ) -> Result<Arc<Classification>, NoMeaning> {
        if executed_names(&classification).next().is_none() {
            return Ok(classification);
        }
        // Of several executions with different values none can speak for the others.
        let values_of = |name: &str| {
            let mut uses = classification.names.iter().filter(|used| *used.name == *name);
            uses.next().filter(|_| uses.next().is_none()).map_or(&[][..], |used| &used.values)
        };
        let meaning = |known: &Referred| {
            let meaning = self.classify(&known.sql);
            let values = values_of(&known.name);
            if meaning.notes.needs_values && !values.is_empty() {
                self.classify_with(&known.sql, values)
            } else {
                meaning
            }
        };
        let known: HashMap<&str, Arc<Classification>> =
            executed.iter().map(|known| (&*known.name, meaning(known))).collect();
        if count_effects(&classification, &known) > MOST_EFFECTS {
            return Err(too_many_executed(&classification));
        }
        let resolved = resolve_names(&classification, &|name| known.get(name).cloned());
        let secrets =
            |name: &str| known.get(name).map_or_else(Vec::new, |known| known.bound_secrets.to_vec());
        Ok(self.view.classifier.with_arguments(&submission.statement.sql, resolved, &secrets))
    }

    fn check_encoding_and_portals(
        &self,
        submission: &Submission,
        classification: &Arc<Classification>,
        refers_to: &[Referred],
    ) -> Result<(), NoMeaning> {
        if submission.purpose != Purpose::Run {
            return Ok(());
        }
        if classification.notes.other_encoding {
            return Err(NoMeaning::Refused(Arc::clone(classification), OTHER_ENCODING));
        }
        let mut referred = refers_to.iter().map(|known| self.classify(&known.sql));
        let runs_portal =
            self.fetches_late(classification) || referred.any(|meaning| self.fetches_late(&meaning));
        if runs_portal && !Session::is_doomed(submission, &classification.steps) {
            return Err(NoMeaning::Refused(Arc::clone(classification), FETCH_RUNS_PORTAL));
        }
        Ok(())
    }

    fn fetches_late(&self, classification: &Classification) -> bool {
        fetched(classification).any(|name| self.view.session.fetches_late(name))
    }

    /// A `Parse` declares its parameters' types by number; making their values runs what the types run.
    fn with_types_that_run_code(
        &self,
        submission: &Submission,
        classification: Arc<Classification>,
        refers_to: &[Referred],
    ) -> Arc<Classification> {
        let declared = submission.statement.parameters.iter().map(|parameter| parameter.type_oid);
        let named = refers_to.iter().flat_map(|known| known.types.iter().copied());
        if declared.chain(named).any(|oid| self.context.catalogue.type_runs_code(oid)) {
            Arc::new(classification.with_values_that_run_code())
        } else {
            classification
        }
    }

    /// Rows that are taken out of a cursor are those of its query: rules by table, reviewers and the grant
    /// are about them.
    fn with_cursor_rows(
        &self,
        classification: Arc<Classification>,
    ) -> Result<(Arc<Classification>, Vec<Referred>), NoMeaning> {
        if !classification.class.is_privileged() {
            return Ok((classification, Vec::new()));
        }
        let session = self.view.session;
        let mut queries = Vec::new();
        let mut unknown = false;
        // The same text may have declared them.
        let here: HashSet<&str> = declared_cursors(&classification).collect();
        let mut seen = HashSet::new();
        for name in fetched(&classification).filter(|name| seen.insert(*name)) {
            let texts = session.cursor_texts(name);
            unknown |= texts.is_empty() && !here.contains(&**name);
            queries.extend(texts.into_iter().map(|sql| (Arc::clone(name), sql)));
        }
        if classification.reads_cursors_by_function() {
            queries.extend(session.all_cursor_texts());
            unknown = true;
        }
        if queries.len() > MOST_EXECUTED {
            return Err(too_many_executed(&classification));
        }
        if queries.iter().any(|(_, sql)| self.waits_for_turn(sql)) {
            return Err(NoMeaning::Turn);
        }
        if !unknown && queries.is_empty() {
            return Ok((classification, Vec::new()));
        }
        let mut meanings: Vec<_> = queries.iter().map(|(_, sql)| self.classify(sql)).collect();
        meanings.sort_unstable_by_key(Arc::as_ptr);
        meanings.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let classification = Arc::new(classification.with_rows_of(&meanings, unknown));
        let referred = queries.into_iter().map(|(name, sql)| Referred {
            name: format!("cursor {name}").into(),
            shown: shown(&sql, &self.classify(&sql)),
            sql,
            types: Box::default(),
        });
        Ok((classification, referred.collect()))
    }

    /// The same with what only this session can name: functions of its open transaction, temporary views,
    /// and what upstream's own parser has accepted.
    fn with_session_objects(
        &self,
        submission: &Submission,
        mut classification: Arc<Classification>,
    ) -> Arc<Classification> {
        let view = self.view;
        if !view.created.is_empty() {
            classification = created::apply(&classification, view.created);
        }
        if submission.purpose == Purpose::Run && !view.progress.confirmed {
            classification = self.with_possible_views(classification);
        }
        if submission.upstream_parses && classification.class == StatementClass::Invalid {
            classification = Arc::new(classification.of_unreadable());
        }
        if submission.upstream_parses && view.unknown_column(&classification).is_some() {
            classification = Arc::new(classification.with_unknown_calls());
        }
        classification
    }

    /// A write to a name that a temporary view may have is held, unless upstream says that none has it.
    fn with_possible_views(&self, classification: Arc<Classification>) -> Arc<Classification> {
        let creates = |step: &Step| step.effects.contains(&SessionEffect::OwnCatalogueChange);
        let created_here = classification.steps.iter().any(creates);
        let may_exist = created_here || self.view.session.settings().has_temporary_views();
        if !may_exist || classification.class.is_privileged() {
            return classification;
        }
        let names = classification.written_without_schema();
        if names.is_empty() {
            return classification;
        }
        Arc::new(classification.with_possible_views(names, !created_here))
    }

    fn check_what_is_known(
        &self,
        submission: &Submission,
        classification: &Arc<Classification>,
    ) -> Result<(), NoMeaning> {
        let refused = |refusal| Err(NoMeaning::Refused(Arc::clone(classification), refusal));
        if self.view.progress.stale && classification.class != StatementClass::Session {
            let upstream = self.view.target.upstream.to_string();
            return refused(Refusal::CatalogueUnavailable { upstream });
        }
        let length = submission.statement.sql.len();
        if submission.purpose == Purpose::Run
            && let Some(refusal) = self.view.session.keeps_too_much(length, &classification.steps)
        {
            return refused(refusal);
        }
        // What is hidden must not run, and what runs must not be hidden.
        let hides_code = classification.hides_code(&submission.statement.parameters);
        if let Some(secret) = hides_code.filter(|_| classification.syntax_error.is_none()) {
            return refused(Refusal::Unsupported { feature: secret.feature(), hint: secret.hint() });
        }
        Ok(())
    }
}

/// Whether all of a statement is ASCII, which every encoding reads alike.
fn is_ascii(statement: &Statement) -> bool {
    let mut values = statement.parameters.iter().filter_map(|parameter| parameter.value.as_ref());
    statement.sql.as_bytes().is_ascii() && values.all(|value| value.is_ascii())
}

fn too_many_executed(classification: &Arc<Classification>) -> NoMeaning {
    let refusal = Refusal::TooManyExecuted { limit: MOST_EXECUTED };
    NoMeaning::Refused(Arc::clone(classification), refusal)
}

/// What all executions of a text do to the session: each does what its statement does.
fn count_effects(classification: &Classification, known: &HashMap<&str, Arc<Classification>>) -> usize {
    let prepares = |meaning: &Classification, name: &str| {
        let is_it = |effect: &SessionEffect| matches!(effect, SessionEffect::Prepare(prepared) if **prepared == *name);
        meaning.session_effects().any(is_it)
    };
    let does: HashMap<&str, usize> = known
        .iter()
        .filter(|(name, meaning)| !prepares(meaning, name))
        .map(|(name, meaning)| (*name, meaning.session_effects().count()))
        .collect();
    let all = classification.names.iter().filter_map(|used| does.get(&*used.name));
    all.fold(0_usize, |all, one| all.saturating_add(*one))
}

fn fetched(classification: &Classification) -> impl Iterator<Item = &Arc<str>> {
    classification.session_effects().filter_map(|effect| {
        let SessionEffect::Fetch(name) = effect else { return None };
        Some(name)
    })
}

fn declared_cursors(classification: &Classification) -> impl Iterator<Item = &str> {
    classification.session_effects().filter_map(|effect| {
        let SessionEffect::Declare(name) = effect else { return None };
        Some(&**name)
    })
}

fn executed_names(classification: &Classification) -> impl Iterator<Item = &Arc<str>> {
    classification.session_effects().filter_map(|effect| {
        let SessionEffect::Execute(name) = effect else { return None };
        Some(name)
    })
}
