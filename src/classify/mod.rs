//! What a statement does: SQL text in, a [`Classification`] out.
//!
//! Classification cannot fail. What it does not understand it calls by a class that is held:
//! text that Postgres's grammar rejects is [`StatementClass::Invalid`], a node it was not told about
//! is [`StatementClass::Admin`], a function it does not know is [`StatementClass::Code`].
//!
//! ```text
//! classifier   checks before parsing -> cache -> parser (libpg_query) -> tree -> walk -> crosscheck
//! catalogue    what the upstream's database has beyond Postgres's own names
//! declared     what the operator says of them     pattern    how they write that
//! functions    Postgres's own, by version (fixtures/functions)     settings    which may be changed
//! lex          Postgres's lexical rules, for fingerprint, redact, bulk     names    EXECUTE, resolved
//! redact       which literals are secrets and may be hidden, and which secrets make a text unfit to run
//! ```
//!
//! `docs/classification.md` says the same to operators.

mod bulk;
mod cache;
pub mod catalogue;
mod class;
mod classifier;
mod crosscheck;
mod declared;
mod fingerprint;
mod functions;
pub mod guards;
mod lex;
mod names;
mod parser;
pub mod pattern;
mod read_only;
mod redact;
mod settings;
mod tree;
mod walk;

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::catalogue::{Catalogue, InstalledExtension};
pub use self::class::{Impact, StatementClass};
pub use self::classifier::{Classifier, Context, Limits};
pub use self::declared::{Declared, SensitiveName, reach_of};
pub use self::functions::SERVER_VERSIONS;
pub use self::guards::Guards;
pub use self::names::resolve_names;
pub use self::parser::LARGE;
pub use self::redact::{BoundSecret, Holds, Inseparable};
pub use self::settings::may_start_with;
pub use crate::statement::SearchPath;
use crate::statement::{Fingerprint, Identity, Parameter, RelationCheck, SessionEffect, Step};

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Rows are read.
    Read,
    /// Rows are inserted.
    Insert,
    /// Rows are updated.
    Update,
    /// Rows are deleted.
    Delete,
    /// All rows are removed.
    Truncate,
    /// Rows are locked.
    Lock,
    /// The object is copied out.
    Export,
    /// The object is created.
    Create,
    /// The object is altered.
    Alter,
    /// The object is dropped.
    Drop,
    /// The function, procedure or operator is called.
    Call,
    /// The setting is set.
    Set,
    /// Privileges on it, or membership in it, change.
    Grant,
    /// Anything else.
    Use,
}

/// What kind of object an effect is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A table, view, materialised view, foreign table, sequence or index: a row of `pg_class`.
    Relation,
    /// A function, procedure or aggregate.
    Function,
    /// An operator.
    Operator,
    /// A role.
    Role,
    /// A setting (GUC).
    Setting,
    /// A schema.
    Schema,
    /// A type or domain.
    Type,
    /// Anything else, named by its kind in the reason.
    Other,
}

/// One thing a statement does to one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Effect {
    /// What is done.
    pub verb: Verb,
    /// To what kind of object.
    pub kind: ObjectKind,
    /// Its schema as the statement names it, or as the catalogue resolved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
    /// The statement itself names the schema. An unqualified name may mean a temporary object that
    /// the agent put in front of the one that the catalogue knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub qualified: bool,
    /// The statement does not name it, but this view or partition, through which it is reached; or this is
    /// the foreign key that does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<Arc<str>>,
    /// A foreign key does it, because of what the statement does to the table that it refers to; or it is lost
    /// by the `CASCADE` of `through`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cascades: bool,
    /// The columns that the statement names, `*` for all of them. Told by [`Classifier::detail`] only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Arc<str>>,
    /// Whether policies of the table decide which of its rows the session sees; nothing where it has none.
    /// Told by [`Classifier::detail`] only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_security: Option<RowSecurity>,
}

impl Effect {
    /// Stands for the name of a setting or role that only the server will know.
    pub const UNKNOWN_NAME: &str = "(computed)";

    /// What a statement does to something that it names.
    #[must_use]
    pub fn of(verb: Verb, kind: ObjectKind, schema: Option<Arc<str>>, name: Arc<str>) -> Self {
        Self {
            verb,
            kind,
            qualified: schema.is_some(),
            schema,
            name,
            through: None,
            cascades: false,
            columns: Vec::new(),
            row_security: None,
        }
    }
}

/// Whether row security of a table binds a session's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowSecurity {
    /// Its policies decide which rows are seen and changed.
    Applies,
    /// It has policies, and they do not bind this role: its owner, a superuser, one with `BYPASSRLS`.
    Bypassed,
}

/// A name that the catalogue does not know, and that may mean something all the same by now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doubt {
    /// `t.name`, where `t` is a known relation that has no such column: upstream calls a function of that
    /// name, if there is one, and complains otherwise.
    Column(Arc<str>),
    /// `x.name`, where it is not known what columns `x` has.
    Attribute(Arc<str>),
    /// The same, where a type of that name is known: `name` may be a function besides.
    Call(Arc<str>),
    /// A table or view.
    Relation(Arc<str>),
    /// A type.
    Type(Arc<str>),
}

impl Doubt {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        let (Self::Column(name)
        | Self::Attribute(name)
        | Self::Call(name)
        | Self::Relation(name)
        | Self::Type(name)) = self;
        name
    }
}

/// Why a statement has its class, in words a reviewer understands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reason {
    /// The class this reason argues for.
    pub class: StatementClass,
    /// One sentence: what it does, to what, and the rule that says so.
    pub text: Arc<str>,
    /// The bytes of the text it comes from, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Range<u32>>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Classification {
    /// What all its statements do to the session, in their order.
    pub fn session_effects(&self) -> impl Iterator<Item = &SessionEffect> {
        self.steps.iter().flat_map(|step| &step.effects)
    }

    /// The same for a text that our grammar rejects and the server's takes: nothing is known of it. It
    /// may change the catalogue, and where names are looked up.
    #[must_use]
    pub fn of_unreadable(&self) -> Self {
        let class = StatementClass::Admin;
        let hidden = self.redacted_sql.is_some();
        let ours = self.syntax_error.as_ref().map_or("", |error| &error.message);
        let ours = redact::message_without_text(ours, hidden);
        let text = format!(
            "is accepted by this server's grammar and not by ours ({ours}), so nothing is known of it"
        );
        // In place of the reason why it is `invalid`: to allow it takes a rule for `admin`, as for
        // whatever else nothing is known of.
        let span = self.reasons.first().and_then(|reason| reason.span.clone());
        let reasons = vec![Reason { class, text: text.into(), span }];
        let steps = [Step { effects: vec![SessionEffect::CatalogueChange, SessionEffect::PathUnknown] }];
        // What runs is shown whole; where there is a secret in it, it does not run.
        let redacted_sql = self.redacted_sql.clone().filter(|_| self.inseparable.is_some());
        Self { class, reasons, steps: steps.into(), syntax_error: None, redacted_sql, ..self.clone() }
    }

    /// The same where upstream knows names behind a dot that are no columns for all that is known here: they
    /// are functions that were made a moment ago.
    #[must_use]
    pub fn with_unknown_calls(&self) -> Self {
        let unknown = |doubt: &&Doubt| matches!(doubt, Doubt::Column(_));
        let names: Vec<&str> = self.doubts.iter().filter(unknown).map(|doubt| &**doubt.name()).collect();
        let text =
            format!("may call {}: no column of this name is known, nor any function", names.join(", "));
        let mut all = self.with_code(&text);
        // Such a function may change the catalogue, and where names are looked up.
        let mut steps = all.steps.to_vec();
        for step in &mut steps {
            step.effects.extend([SessionEffect::CatalogueChange, SessionEffect::PathUnknown]);
        }
        all.steps = steps.into();
        all
    }

    /// The same with values that run somebody's functions before it does anything itself.
    #[must_use]
    pub fn with_values_that_run_code(&self) -> Self {
        self.with_code("takes a value of a type whose checks run functions that are not on the allow-list")
    }

    /// The names of relations whose rows it changes and which may be temporary ones: no other schema is
    /// written before them.
    #[must_use]
    pub fn written_without_schema(&self) -> Vec<Arc<str>> {
        let written = self.effects.iter().filter(|effect| {
            matches!(effect.verb, Verb::Insert | Verb::Update | Verb::Delete | Verb::Truncate)
                && effect.kind == ObjectKind::Relation
                && effect.through.is_none()
                && (!effect.qualified
                    || effect.schema.as_deref().is_some_and(|schema| schema.starts_with("pg_temp")))
        });
        let mut names: Vec<Arc<str>> = written.map(|effect| Arc::clone(&effect.name)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The same where one of these names may be that of a temporary view: the view passes writes on to the
    /// table behind it. With `can_ask`, upstream can be asked whether such a view exists.
    #[must_use]
    pub fn with_possible_views(self: &Arc<Self>, names: Vec<Arc<str>>, can_ask: bool) -> Self {
        let text = format!("may write to another table through a temporary view named {}", names.join(", "));
        let mut all = self.with_reason(StatementClass::MassWrite, &text);
        all.if_confirmed = can_ask.then(|| {
            let check = RelationCheck::NoTemporaryViews;
            Arc::new(IfConfirmed { check, names, classification: Arc::clone(self) })
        });
        all
    }

    /// The same with one more reason, for which it counts as code.
    fn with_code(&self, text: &str) -> Self {
        self.with_reason(StatementClass::Code, text)
    }

    /// The same with one more reason, for which it is of this class at least.
    fn with_reason(&self, class: StatementClass, text: &str) -> Self {
        let mut all = self.clone();
        all.reasons.insert(0, Reason { class, text: text.into(), span: None });
        all.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.class));
        all.class = all.class.max(class);
        if let Some(part) = all.parts.first_mut() {
            part.class = part.class.max(class);
        }
        all
    }

    /// Whether it calls a function that reads a cursor by its name (`cursor_to_xml`).
    #[must_use]
    pub fn reads_cursors_by_function(&self) -> bool {
        self.effects
            .iter()
            .any(|effect| effect.kind == ObjectKind::Function && effect.name.starts_with("cursor_to_xml"))
    }

    /// The same where it takes the rows of cursors with these queries: what they touch, it touches.
    /// `and_others` says that there are cursors whose queries nobody knows.
    #[must_use]
    pub fn with_rows_of(&self, queries: &[Arc<Self>], and_others: bool) -> Self {
        let mut all = self.clone();
        all.effects.extend(queries.iter().flat_map(|query| query.effects.iter().cloned()));
        if and_others {
            all.effects.push(Effect::of(Verb::Read, ObjectKind::Other, None, Self::UNKNOWN_ROWS.into()));
        }
        all.effects.sort_unstable();
        all.effects.dedup();
        all
    }

    /// Notes which columns it names. To read columns of a table that it changes is an effect of its own.
    fn add_columns(&mut self, touched: &walk::Touched) {
        for ((verb, schema, name), columns) in touched {
            let same = |effect: &Effect| {
                effect.kind == ObjectKind::Relation
                    && effect.through.is_none()
                    && *effect.name == **name
                    && effect.schema.as_deref() == schema.as_deref()
            };
            let columns: Vec<Arc<str>> = columns.iter().map(|column| column.as_str().into()).collect();
            if let Some(effect) = self.effects.iter_mut().find(|effect| same(effect) && effect.verb == *verb)
            {
                effect.columns.extend(columns);
            } else if let Some(other) =
                self.effects.iter().find(|effect| same(effect) && effect.verb != Verb::Use)
            {
                self.effects.push(Effect { verb: *verb, columns, ..other.clone() });
            }
        }
        self.effects.sort_unstable();
    }

    /// Stands for what `CASCADE` takes along where it is not known, or no relation.
    const UNKNOWN_LOSSES: &str = "what depends on it";

    /// Whether it drops more than its effects on relations tell.
    #[must_use]
    pub fn drops_unknown_objects(&self) -> bool {
        self.effects
            .iter()
            .any(|effect| effect.kind == ObjectKind::Other && *effect.name == *Self::UNKNOWN_LOSSES)
    }

    const UNKNOWN_ROWS: &str = "rows of a query that is not known";

    /// Whether it takes rows of which nobody here knows whose they are.
    #[must_use]
    pub fn takes_unknown_rows(&self) -> bool {
        let unknown =
            |effect: &Effect| effect.kind == ObjectKind::Other && *effect.name == *Self::UNKNOWN_ROWS;
        let by_text =
            |effect: &Effect| effect.kind == ObjectKind::Function && effect.name.contains("_to_xml");
        self.effects.iter().any(|effect| unknown(effect) || by_text(effect))
    }

    /// Whether upstream looks up what the statement names when it is executed rather than when it is
    /// bound. Queries and row writes are analysed and planned at Bind; transaction control, SET and
    /// SHOW name nothing; everything else is a utility statement, which runs from its raw tree
    /// (`PortalRunUtility`).
    #[must_use]
    pub fn is_bound_late(&self) -> bool {
        const EARLY: &[&str] = &[
            "SelectStmt",
            "InsertStmt",
            "UpdateStmt",
            "DeleteStmt",
            "MergeStmt",
            "TransactionStmt",
            "VariableSetStmt",
            "VariableShowStmt",
        ];
        self.parts.is_empty() || self.parts.iter().any(|part| !EARLY.contains(&&*part.kind))
    }
}

/// One raw statement of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementPart {
    /// The parser's name for its node, for instance `SelectStmt`.
    pub kind: Arc<str>,
    /// Its own class.
    pub class: StatementClass,
    /// Its bytes within the text.
    pub span: Range<u32>,
}

/// An `EXECUTE` inside a text: what it does depends on what was prepared under the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameUse {
    /// The name, as Postgres keeps it.
    pub name: Arc<str>,
    /// The raw statement it stands in: an index into [`Classification::parts`].
    pub part: u32,
    /// Whether the same text prepares it before.
    pub known: bool,
    /// The class of that raw statement by everything else.
    pub otherwise: StatementClass,
    /// The values that it is given.
    pub values: Box<[BoundValue]>,
}

/// The value of a parameter, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundValue {
    /// This text.
    Text(Arc<str>),
    /// NULL.
    Null,
    /// A value that only the server can make out: of another type than text.
    Unknown,
}

impl From<&Parameter> for BoundValue {
    fn from(parameter: &Parameter) -> Self {
        /// `text`, `varchar`, `unknown`, and none: then the context makes it one of these, where it matters
        /// here. All of them are the same bytes in both formats.
        const TEXTS: [u32; 4] = [0, 25, 705, 1043];
        let Some(value) = &parameter.value else { return Self::Null };
        let text = std::str::from_utf8(value).ok().filter(|_| TEXTS.contains(&parameter.type_oid));
        text.map_or(Self::Unknown, |text| Self::Text(text.into()))
    }
}

/// What a classification leaves open, and what is to be known of it beside its class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// It depends on who the session acts as ([`Here::identity`]).
    pub needs_identity: bool,
    /// It depends on the values of its parameters ([`Here::values`]).
    pub needs_values: bool,
    /// It asks for another encoding than UTF8, or for one that only the server will know.
    pub other_encoding: bool,
}

/// What beside the text and its [`Context`] may decide the meaning of a statement that is about to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Here<'a> {
    /// Who the session acts as, where that is known.
    pub identity: Option<&'a Identity>,
    /// The values of the parameters `$1`, `$2` ..
    pub values: &'a [BoundValue],
}

/// What Postgres says of a text that it does not read, for [`StatementClass::Invalid`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyntaxError {
    /// Postgres's message.
    pub message: Arc<str>,
    /// 1-based character position.
    pub position: Option<u32>,
    /// Its bytes are no UTF-8, so that the grammar does not come into it (22021 rather than 42601).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encoding: bool,
}

/// What a text does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classification {
    /// The most severe class among its statements.
    pub class: StatementClass,
    /// Its raw statements, in order. Empty for an empty text.
    pub parts: Vec<StatementPart>,
    /// What it does to which objects; sorted, without repeats.
    pub effects: Vec<Effect>,
    /// Why; the most severe first.
    pub reasons: Vec<Reason>,
    /// What each raw statement does to the session; as long as `parts`.
    pub steps: Arc<[Step]>,
    /// The prepared statements that it executes by name; [`resolve_names`] says what that means.
    pub names: Vec<NameUse>,
    /// Groups statements that differ in values only.
    pub fingerprint: Fingerprint,
    /// Set when the class is `Invalid` because Postgres would refuse to read it.
    pub syntax_error: Option<SyntaxError>,
    /// The text to show and store in place of the original: secrets replaced, which the grammar says are
    /// literals that do not run. `None` when nothing needs to be hidden.
    pub redacted_sql: Option<Arc<str>>,
    /// Names that the catalogue does not know: to be looked up before it passes. Sorted, without repeats.
    pub doubts: Vec<Doubt>,
    /// The parameters whose values are, or may hold, secrets.
    pub bound_secrets: Arc<[BoundSecret]>,
    /// It holds a secret that cannot be hidden without hiding what runs: it must not run.
    pub inseparable: Option<Inseparable>,
    /// What it leaves open.
    pub notes: Notes,
    /// What it does where the session's server confirms something about relations, if it then passes.
    pub if_confirmed: Option<Arc<IfConfirmed>>,
}

/// What a statement does if the server confirms something about relations that it names. Only the server
/// can tell: a temporary table or view may be gone, rolled back or shadowed by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfConfirmed {
    /// What has to be confirmed.
    pub check: RelationCheck,
    /// Of these relations, as Postgres keeps their names.
    pub names: Vec<Arc<str>>,
    /// What it does then.
    pub classification: Arc<Classification>,
}
