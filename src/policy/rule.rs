//! One rule, and whether it speaks of a statement.
//!
//! The question is asked in two directions. A hold or a deny speaks of a statement when **any** part
//! of it is what the rule names: one table among five, one statement among three. An allow speaks of
//! it only when **all** of it is: otherwise `COPY (SELECT .. FROM products, customers)` would pass
//! under a rule for `products`.
//!
//! What cannot be told counts against the agent: [`Matched::Unknown`] holds where the rule holds or
//! denies, and does not allow where it allows.

use std::time::Duration;

use super::hours::Hours;
use super::{Approval, Assurance, InTransaction, Subject};
use crate::actor::GroupName;
use crate::classify::pattern::{Glob, TablePattern};
use crate::classify::{Classification, Effect, ObjectKind, SearchPath, StatementClass, Verb};
use crate::statement::RuleName;
use crate::toml_reader::Place;

/// A rule as it was meant.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name; unique in the set.
    pub name: RuleName,
    /// What it speaks of.
    pub when: When,
    /// What it says.
    pub then: Then,
    /// The file it stands in.
    pub file: std::sync::Arc<str>,
    /// Where it stands there.
    pub place: Place,
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// Run it.
    Allow,
    /// Let it wait for people.
    Hold(HoldTerms),
    /// Refuse it.
    Deny {
        /// What the agent is told.
        message: Option<String>,
    },
}

impl Then {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Hold(_) => "hold",
            Self::Deny { .. } => "deny",
        }
    }
}

/// One rule's part of the terms. What it leaves open is filled in from the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldTerms {
    /// Who must approve; empty for the default reviewers.
    pub approvals: Vec<Approval>,
    /// An answer must carry a reason.
    pub reason_required: bool,
    /// How sure we must be of each reviewer.
    pub assurance: Option<Assurance>,
    /// How long it waits.
    pub expires: Option<Duration>,
    /// What happens inside an open transaction.
    pub in_transaction: Option<InTransaction>,
    /// Who is asked when nobody answers: after how long, and which group.
    pub escalate: Vec<(Duration, GroupName)>,
    /// Whether it is deferred; `Some(false)` refuses the agent's own wish, too.
    pub defer: Option<bool>,
}

/// What a rule speaks of: all of these, each where it is given.
#[derive(Clone, Debug, Default)]
pub struct When {
    /// One of these statement classes.
    pub classes: Option<Vec<StatementClass>>,
    /// A table that one of these patterns matches.
    pub tables: Option<Vec<TablePattern>>,
    /// One of these agents.
    pub agents: Option<Vec<Glob>>,
    /// One of these databases.
    pub databases: Option<Vec<Glob>>,
    /// One of these upstreams.
    pub upstreams: Option<Vec<Glob>>,
    /// The upstream's login is one of these roles.
    pub roles: Option<Vec<Glob>>,
    /// It changes one of these settings.
    pub settings: Option<Vec<Glob>>,
    /// It makes the session act as one of these roles.
    pub set_roles: Option<Vec<Glob>>,
    /// One of these times of the week.
    pub hours: Option<Vec<Hours>>,
    /// Whether a transaction is open.
    pub in_transaction: Option<bool>,
}

/// Whether a rule speaks of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// It does.
    Yes,
    /// It does not; the condition that says so.
    No(&'static str),
    /// It cannot be told, and why not.
    Unknown(&'static str),
}

impl Matched {
    /// Both of two conditions.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No(why), _) | (_, Self::No(why)) => Self::No(why),
            (Self::Unknown(why), _) | (_, Self::Unknown(why)) => Self::Unknown(why),
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

/// A set of classes, one bit each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ClassSet(u16);

impl ClassSet {
    /// Every class that occurs in `classification`, not only the most severe: `COPY ..; DO ..` is an
    /// export as well, whatever outranks it.
    pub(super) fn of(classification: &Classification) -> Self {
        let parts = classification.parts.iter().map(|part| part.class);
        let reasons = classification.reasons.iter().map(|reason| reason.class);
        Self::from_iter(parts.chain(reasons).chain([classification.class]))
    }

    pub(super) fn has(self, class: StatementClass) -> bool {
        self.0 & (1 << class as u16) != 0
    }

    fn iter(self) -> impl Iterator<Item = StatementClass> {
        StatementClass::ALL.into_iter().filter(move |class| self.has(*class))
    }
}

impl FromIterator<StatementClass> for ClassSet {
    fn from_iter<I: IntoIterator<Item = StatementClass>>(classes: I) -> Self {
        Self(classes.into_iter().fold(0, |set, class| set | 1 << class as u16))
    }
}

impl Rule {
    /// Whether the rule speaks of `subject`, whose classes are `classes`.
    pub(super) fn matches(&self, subject: &Subject<'_>, classes: ClassSet) -> Matched {
        // Cheap conditions first: most rules fall at the class, on every statement of every session.
        let class = match self.then {
            Then::Allow => self.allows_classes(classes),
            Then::Hold(_) | Then::Deny { .. } => self.names_a_class(classes),
        };
        if !class {
            return Matched::No("class");
        }
        let target = subject.target;
        let named = [
            ("agent", &self.when.agents, subject.agent.name.as_str()),
            ("database", &self.when.databases, target.database.as_str()),
            ("upstream", &self.when.upstreams, target.upstream.as_str()),
            ("role", &self.when.roles, target.role.as_str()),
        ];
        for (what, globs, name) in named {
            if globs.as_ref().is_some_and(|globs| !globs.iter().any(|glob| glob.matches(name))) {
                return Matched::No(what);
            }
        }
        if self.when.in_transaction.is_some_and(|wanted| wanted != subject.in_transaction) {
            return Matched::No("in_transaction");
        }
        if self.when.hours.as_ref().is_some_and(|hours| !hours.iter().any(|hours| hours.contain(subject.now)))
        {
            return Matched::No("hours");
        }
        let allows = self.then == Then::Allow;
        let named = [
            ("setting", ObjectKind::Setting, &self.when.settings),
            ("set_role", ObjectKind::Role, &self.when.set_roles),
        ];
        let mut answer = Matched::Yes;
        for (what, kind, patterns) in named {
            let Some(patterns) = patterns else { continue };
            answer = answer.and(if allows {
                allows_set(what, kind, patterns, subject, classes)
            } else {
                names_set(what, kind, patterns, subject, classes)
            });
        }
        if let Some(patterns) = &self.when.tables {
            answer = answer.and(if allows {
                allows_tables(patterns, subject, classes)
            } else {
                names_a_table(patterns, subject, classes)
            });
        }
        answer
    }

    fn names_a_class(&self, classes: ClassSet) -> bool {
        self.when.classes.as_ref().is_none_or(|named| named.iter().any(|class| classes.has(*class)))
    }

    /// Every class that is held by default must be named by the rule, and one class at least must
    /// be; a rule that names none allows nothing that would not run anyway.
    fn allows_classes(&self, classes: ClassSet) -> bool {
        match &self.when.classes {
            None => !classes.iter().any(StatementClass::is_privileged),
            Some(named) => {
                named.iter().any(|class| classes.has(*class))
                    && classes.iter().all(|class| !class.is_privileged() || named.contains(&class))
            }
        }
    }
}

/// Whether the effects of a statement do not tell all that it touches. Code and server access can
/// reach anything. Schema changes and grants may be on kinds of objects that stand for many tables
/// (`ALL TABLES IN SCHEMA`, `OWNED BY`, a type, a default), and then have no effect on a table; among
/// several statements nobody can say which of them the effects belong to.
fn is_opaque(classification: &Classification, classes: ClassSet) -> bool {
    if classes.iter().any(StatementClass::is_opaque) {
        return true;
    }
    // `FETCH ALL c`, `query_to_xml('..')`
    if classification.takes_unknown_rows() {
        return true;
    }
    // `DROP .. CASCADE`, where functions and the like go as well.
    if classification.drops_unknown_objects() {
        return true;
    }
    if classes.has(StatementClass::Invalid) {
        // What the grammar rejects is refused and touches nothing.
        return classification.syntax_error.is_none();
    }
    let defines = classes.has(StatementClass::Ddl) || classes.has(StatementClass::Grant);
    let names_some = classification
        .effects
        .iter()
        .any(|effect| matches!(effect.kind, ObjectKind::Relation | ObjectKind::Schema));
    defines && (!names_some || classification.parts.len() > 1)
}

fn names_a_table(patterns: &[TablePattern], subject: &Subject<'_>, classes: ClassSet) -> Matched {
    let named = subject.classification.effects.iter().any(|effect| {
        patterns.iter().any(|pattern| match effect.kind {
            ObjectKind::Relation => is_named(pattern, effect, subject.search_path),
            ObjectKind::Schema => pattern.may_match_in(&effect.name),
            ObjectKind::Function
            | ObjectKind::Operator
            | ObjectKind::Role
            | ObjectKind::Setting
            | ObjectKind::Type
            | ObjectKind::Other => false,
        })
    });
    if named {
        Matched::Yes
    } else if is_opaque(subject.classification, classes) {
        Matched::Unknown("which tables it touches cannot be seen")
    } else {
        Matched::No("table")
    }
}

/// Whether `effect` may be on a table that `pattern` matches. An unqualified name that the catalogue
/// does not know may be in any schema of the search path, or in the two that Postgres searches
/// unasked; where the path is not known, it may be anything.
fn is_named(pattern: &TablePattern, effect: &Effect, path: &SearchPath) -> bool {
    match (&effect.schema, path) {
        (Some(schema), _) => pattern.matches(schema, &effect.name),
        (None, SearchPath::Unknown) => true,
        (None, SearchPath::Known(schemas)) => schemas
            .iter()
            .map(|schema| &**schema)
            .chain(["pg_catalog", "pg_temp"])
            .any(|schema| pattern.matches(schema, &effect.name)),
    }
}

/// What a statement sets, of one kind. Several names may stand for one change: what it is set to counts as a
/// role only for the two settings that are roles.
fn set_by<'s>(kind: ObjectKind, subject: &'s Subject<'_>) -> impl Iterator<Item = &'s Effect> {
    let effects = subject.classification.effects.iter();
    effects.filter(move |effect| effect.verb == Verb::Set && effect.kind == kind)
}

/// Whether a statement may set more than its effects tell: an approved piece of code, an UPDATE of
/// `pg_settings`, a name or value that is computed.
fn sets_unknown(kind: ObjectKind, subject: &Subject<'_>, classes: ClassSet) -> bool {
    let writes_settings = subject.classification.effects.iter().any(|effect| {
        effect.kind == ObjectKind::Relation
            && *effect.name == *"pg_settings"
            && !matches!(effect.verb, Verb::Read | Verb::Use)
    });
    classes.iter().any(StatementClass::is_opaque)
        || writes_settings
        || set_by(kind, subject).any(|effect| *effect.name == *Effect::UNKNOWN_NAME)
        || set_by(ObjectKind::Setting, subject).any(|effect| *effect.name == *Effect::UNKNOWN_NAME)
}

/// Whether a statement sets one of these.
fn names_set(
    what: &'static str,
    kind: ObjectKind,
    patterns: &[Glob],
    subject: &Subject<'_>,
    classes: ClassSet,
) -> Matched {
    let named = |effect: &Effect| patterns.iter().any(|pattern| pattern.matches(&effect.name));
    if set_by(kind, subject).any(named) {
        Matched::Yes
    } else if sets_unknown(kind, subject, classes) {
        Matched::Unknown("what it sets cannot be seen")
    } else {
        Matched::No(what)
    }
}

/// Whether these cover everything that a statement sets.
fn allows_set(
    what: &'static str,
    kind: ObjectKind,
    patterns: &[Glob],
    subject: &Subject<'_>,
    classes: ClassSet,
) -> Matched {
    if sets_unknown(kind, subject, classes) {
        return Matched::Unknown("what it sets cannot be seen");
    }
    let mut all = set_by(kind, subject).peekable();
    let covered = |effect: &Effect| patterns.iter().any(|pattern| pattern.matches(&effect.name));
    if all.peek().is_some() && all.all(covered) { Matched::Yes } else { Matched::No(what) }
}

/// Whether `patterns` cover everything the statement touches. Only names with a schema can be
/// covered: an unqualified one is looked up in `pg_temp` first, where the agent may have put a table
/// of that name that holds something else.
fn allows_tables(patterns: &[TablePattern], subject: &Subject<'_>, classes: ClassSet) -> Matched {
    if is_opaque(subject.classification, classes) {
        return Matched::Unknown("which tables it touches cannot be seen");
    }
    let mut touches_one = false;
    // Who lets somebody have a view lets them have what it shows; but not what foreign keys change elsewhere.
    let direct = |effect: &&Effect| effect.through.is_none() || effect.cascades;
    for effect in subject.classification.effects.iter().filter(direct) {
        let covered = match effect.kind {
            ObjectKind::Relation => match &effect.schema {
                Some(schema) if effect.qualified => {
                    patterns.iter().any(|pattern| pattern.matches(schema, &effect.name))
                }
                Some(_) | None => return Matched::Unknown("an allow by table needs names with their schema"),
            },
            ObjectKind::Schema => patterns.iter().any(|pattern| pattern.matches_all_of(&effect.name)),
            ObjectKind::Function
            | ObjectKind::Operator
            | ObjectKind::Role
            | ObjectKind::Setting
            | ObjectKind::Type
            | ObjectKind::Other => continue,
        };
        if !covered {
            return Matched::No("table");
        }
        touches_one = true;
    }
    if touches_one { Matched::Yes } else { Matched::No("table") }
}
