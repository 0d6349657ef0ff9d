//! What the upstream's database has beyond Postgres's own: functions, operators, types, casts,
//! relations; and whether a name in a statement means one of them.
//!
//! The shell runs [`QUERIES`] and hands the answers to [`from_rows`]; nothing here does I/O. Without
//! them ([`Catalogue::built_in`]) every name that is not Postgres's own is unknown.
//!
//! Postgres picks among functions of one name by argument types, and an exact match in a user's schema
//! beats an inexact one in `pg_catalog`: `public.lower(varchar)` takes `lower(name)` away from the
//! built-in. We know no types, so a user's function counts wherever it *could* be meant.

mod by_type;
mod dependents;
mod keys;
mod parts;
mod queries;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use self::by_type::ByType;
use self::dependents::Dependents;
pub(super) use self::dependents::TakenAlong;
use self::keys::{Action, ForeignKeys};
pub(super) use self::keys::{Change, ForeignKey};
pub(super) use self::parts::Base;
use self::parts::{MadeOf, Parts, Sizes, Tie};
pub use self::queries::{QUERIES, Query, Row};
use super::classifier::reads_of_body;
use super::declared::{Declared, Sensitive};
use super::functions::{BuiltIn, BuiltIns, SystemRelation, built_ins, family};
use super::guards::Guards;
use super::{Effect, RowSecurity, SearchPath, StatementClass, Verb};

/// Why answers could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the catalogue query `{query}` answered {problem}")]
pub struct CatalogueError {
    query: &'static str,
    problem: String,
}

#[derive(Debug)]
struct UserFunction {
    schema: Arc<str>,
    /// How many arguments it takes at least and at most.
    arguments: (usize, usize),
    /// Its one argument can be a row, not only a scalar.
    takes_rows: bool,
    /// The extension that it came with.
    extension: Option<Box<str>>,
    /// Trust in its extension covers it: see [`is_covered_by_trust`].
    trustworthy: bool,
    /// Written in a language that can run any statement.
    procedural: bool,
    volatile: bool,
    /// `a volatile plpgsql function that runs as its owner, postgres`
    described: Box<str>,
    body: Option<Body>,
}

/// What a function in SQL does that may only read.
#[derive(Debug)]
struct Body {
    text: Box<str>,
    /// OIDs of the types that it takes and returns.
    types: Vec<u32>,
    /// What it reads, when somebody asked; `None` inside: perhaps it does more.
    reads: OnceLock<Option<Arc<[Effect]>>>,
}

thread_local! {
    /// How many bodies are being looked into, one inside the other.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// `anyelement` and its kin, by their OIDs: they may stand for a type whose values run somebody's function.
const POLYMORPHIC: [u32; 12] = [2276, 2277, 2283, 2776, 3500, 3831, 4537, 4538, 5077, 5078, 5079, 5080];

/// Functions that call functions are looked into so far.
const DEEPEST_BODY: u32 = 4;

/// Schema and name.
type QualifiedName = (Arc<str>, Arc<str>);

#[derive(Debug)]
struct UserOperator {
    schema: Arc<str>,
    function: QualifiedName,
    from_extension: bool,
}

/// A table, view or other relation.
#[derive(Debug)]
struct Relation {
    schema: Arc<str>,
    /// `ctid` and its kin, which views have not.
    has_system_columns: bool,
    /// Sorted.
    columns: Box<[Arc<str>]>,
    row_security: Option<RowSecurity>,
    /// Those that are never NULL; sorted.
    never_null: Box<[Arc<str>]>,
    /// Those that hold another value in each row, and never NULL; sorted.
    keys: Box<[Arc<str>]>,
    /// Those that are integers, with how many bytes they have; sorted.
    integers: Sizes,
}

/// What is known of the values of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Constraint {
    pub(super) never_null: bool,
    /// Another in each row, and never NULL.
    pub(super) is_key: bool,
    /// How many bytes it has, if it is an integer.
    pub(super) integer: Option<u8>,
}

/// Whether a relation or query has a column of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Has {
    Yes,
    No,
    Unknown,
}

/// Columns that tables have beside their own.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

#[derive(Debug)]
struct UserType {
    schema: Arc<str>,
    runs_code: bool,
}

/// What a name stands for, when it is called or used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) class: StatementClass,
    /// Completes "calls f, which ..".
    pub(super) why: String,
    /// The schema it is found in, where that is sure.
    pub(super) schema: Option<Arc<str>>,
    /// What it reads by itself.
    pub(super) reads: Vec<Effect>,
    /// Each call leaves something behind: see [`BuiltIn::lasts`].
    pub(super) lasts: bool,
    /// It may change a setting that decides what names mean, although it needs no approval.
    pub(super) may_change_settings: bool,
}

impl Meaning {
    fn built_in(function: BuiltIn) -> Self {
        Self {
            lasts: function.lasts,
            ..Self::of(function.class, function.why, Some(Arc::from("pg_catalog")))
        }
    }

    fn of(class: StatementClass, why: impl Into<String>, schema: Option<Arc<str>>) -> Self {
        Self { class, why: why.into(), schema, reads: Vec::new(), lasts: false, may_change_settings: false }
    }

    fn harmless(schema: Option<Arc<str>>) -> Self {
        Self::of(StatementClass::Read, "the operator declared safe", schema)
    }

    fn code(why: impl Into<String>) -> Self {
        Self::of(StatementClass::Code, why, None)
    }
}

/// What an attribute can be applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// The row of a table, view or subquery: functions of scalars are out of reach.
    Row,
    /// Anything.
    Anything,
}

/// Names that mean something in one database, as of some moment.
#[derive(Debug)]
pub struct Catalogue {
    /// Grows with every load in this process; part of the cache's key.
    pub generation: u64,
    server_version: u32,
    built_ins: &'static BuiltIns,
    functions: HashMap<Box<str>, Vec<UserFunction>>,
    operators: HashMap<Box<str>, Vec<UserOperator>>,
    types: ByType<UserType>,
    /// OIDs of types whose values run somebody's functions, and of their arrays.
    code_types: HashSet<u32>,
    /// Target type to the functions that casts to it run.
    casts: ByType<QualifiedName>,
    relations: HashMap<Box<str>, Vec<Relation>>,
    /// Relations are known as a database has them, not only those of every server.
    is_loaded: bool,
    /// View or partition, by name, to what its rows are made of.
    made_of: HashMap<Box<str>, Vec<MadeOf>>,
    foreign_keys: ForeignKeys,
    dependents: Dependents,
    /// Operator classes and access methods that are not Postgres's own, by name.
    extension_parts: HashMap<Box<str>, Vec<ExtensionPart>>,
    /// The extensions that are installed, with their versions.
    extensions: Vec<(Box<str>, Box<str>)>,
    /// Functions that may change a setting which decides what names mean: names, and their schemas.
    changing_functions: HashMap<Box<str>, Vec<Arc<str>>>,
    /// Names of tables and views by which such functions run.
    changing_relations: HashSet<Box<str>>,
    declared: Arc<Declared>,
    guards: Guards,
}

/// An extension of an upstream's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstalledExtension<'c> {
    /// Its name.
    pub name: &'c str,
    /// Its version.
    pub version: &'c str,
    /// How many of its functions trust in it covers.
    pub covered: usize,
    /// How many it does not, because they run as their owner or may write by statements that nobody sees.
    pub excluded: usize,
    /// The policy trusts it.
    pub trusted: bool,
    /// Why it cannot be trusted as a whole.
    pub reach: Option<&'static str>,
}

/// An operator class or access method.
#[derive(Debug)]
struct ExtensionPart {
    kind: Box<str>,
    /// Access methods have none.
    schema: Box<str>,
    extension: Option<Box<str>>,
}

/// Loaded catalogues count from here; the built-in ones are their server's version.
static GENERATION: AtomicU64 = AtomicU64::new(1000);

/// Interprets the answers to [`QUERIES`], in their order, together with what the operator declares.
///
/// # Errors
///
/// When an answer is missing or has another shape than its query.
pub fn from_rows(
    server_version: u32,
    answers: &[Vec<Row>],
    declared: &Arc<Declared>,
) -> Result<Catalogue, CatalogueError> {
    let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
    let mut catalogue = Catalogue::empty(server_version, generation, declared);
    let mut parts = Parts::default();
    for (place, query) in QUERIES.iter().enumerate() {
        let error = |problem: &str| CatalogueError { query: query.name, problem: problem.into() };
        let rows = answers.get(place).ok_or_else(|| error("nothing"))?;
        for row in rows {
            if row.len() != query.columns {
                return Err(error(&format!("{} columns instead of {}", row.len(), query.columns)));
            }
            catalogue.add(query.name, row, &mut parts).ok_or_else(|| error("a row that makes no sense"))?;
        }
    }
    catalogue.made_of = parts.resolve();
    catalogue.doubt_callers();
    catalogue.is_loaded = true;
    Ok(catalogue)
}

impl Catalogue {
    fn empty(server_version: u32, generation: u64, declared: &Arc<Declared>) -> Self {
        Self {
            generation,
            server_version,
            built_ins: built_ins(server_version),
            functions: HashMap::new(),
            operators: HashMap::new(),
            types: ByType::default(),
            code_types: HashSet::new(),
            casts: ByType::default(),
            relations: HashMap::new(),
            is_loaded: false,
            made_of: HashMap::new(),
            foreign_keys: ForeignKeys::default(),
            dependents: Dependents::default(),
            extension_parts: HashMap::new(),
            extensions: Vec::new(),
            changing_functions: HashMap::new(),
            changing_relations: HashSet::new(),
            declared: Arc::clone(declared),
            guards: Guards::default(),
        }
    }

    /// The same with the guards that an operator has set for the role, database or server.
    #[must_use]
    pub fn with_guards(mut self, guards: Guards) -> Self {
        self.guards = guards;
        self
    }

    /// The guards that an operator has set for the role, database or server.
    #[must_use]
    pub fn guards(&self) -> &Guards {
        &self.guards
    }

    /// What every server of that version has, and nothing else.
    #[must_use]
    pub fn built_in(server_version: u32) -> Arc<Self> {
        Self::built_in_with(server_version, &Arc::default())
    }

    /// The same, with what the operator declares.
    #[must_use]
    pub fn built_in_with(server_version: u32, declared: &Arc<Declared>) -> Arc<Self> {
        let generation = if **declared == Declared::default() {
            u64::from(server_version)
        } else {
            GENERATION.fetch_add(1, Ordering::Relaxed)
        };
        Arc::new(Self::empty(server_version, generation, declared))
    }

    /// The server's major version.
    #[must_use]
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// A function that is not volatile may still call one that is, and that one may write. Where an extension
    /// has some in procedural languages, trust in it covers nothing of that kind.
    fn doubt_callers(&mut self) {
        let all = || self.functions.values().flatten();
        let writing: HashSet<Box<str>> = all()
            .filter(|function| function.procedural && function.volatile)
            .filter_map(|function| function.extension.clone())
            .collect();
        for function in self.functions.values_mut().flatten() {
            let of_these = function.extension.as_ref().is_some_and(|extension| writing.contains(extension));
            function.trustworthy &= !(function.procedural && of_these);
        }
    }

    fn add(&mut self, query: &str, row: &[Option<String>], parts: &mut Parts) -> Option<()> {
        let text = |place: usize| row.get(place)?.as_deref();
        let shared = |place: usize| text(place).map(Arc::<str>::from);
        let yes = |place: usize| text(place) == Some("true") || text(place) == Some("t");
        match query {
            "functions" => self.functions.entry(text(1)?.into()).or_default().push(UserFunction {
                schema: shared(0)?,
                arguments: (text(2)?.parse::<i64>().ok()?.max(0) as usize, text(3)?.parse().ok()?),
                takes_rows: text(4) != Some("scalar"),
                extension: extension_of(text(5)),
                trustworthy: is_covered_by_trust(text(1)?, text(6)?, text(7)?, yes(8), text(10)?),
                procedural: !matches!(text(6)?, "c" | "internal" | "sql"),
                volatile: text(7)? == "v",
                described: describe(text(6)?, text(7)?, yes(8), text(9)?, text(10)?),
                body: text(11).map(|body| Body {
                    text: body.into(),
                    types: text(12)
                        .unwrap_or_default()
                        .split(|c: char| !c.is_ascii_digit())
                        .filter_map(|oid| oid.parse().ok())
                        .collect(),
                    reads: OnceLock::new(),
                }),
            }),
            "changers" if text(0)? == "relation" => {
                self.changing_relations.insert(text(2)?.into());
            }
            "changers" => {
                let schemas = self.changing_functions.entry(text(2)?.into()).or_default();
                schemas.push(shared(1)?);
            }
            "operators" => self.operators.entry(text(1)?.into()).or_default().push(UserOperator {
                schema: shared(0)?,
                function: (shared(2)?, shared(3)?),
                from_extension: extension_of(text(4)).is_some(),
            }),
            "types" => {
                let runs_code = yes(3);
                if runs_code {
                    let oids = [text(4)?, text(5)?].into_iter().filter_map(|oid| oid.parse::<u32>().ok());
                    self.code_types.extend(oids.filter(|oid| *oid != 0));
                }
                self.types.add(text(1)?, UserType { schema: shared(0)?, runs_code });
            }
            "casts" => self.casts.add(text(1)?, (shared(2)?, shared(3)?)),
            "relations" => self.relations.entry(text(1)?.into()).or_default().push(Relation {
                schema: shared(0)?,
                has_system_columns: !matches!(text(2)?, "v"),
                columns: parts.columns(text(3).unwrap_or("[]"))?,
                row_security: match text(4)? {
                    "applies" => Some(RowSecurity::Applies),
                    "bypassed" => Some(RowSecurity::Bypassed),
                    _ => None,
                },
                never_null: parts.columns(text(5).unwrap_or("[]"))?,
                keys: parts.columns(text(6).unwrap_or("[]"))?,
                integers: parts.sizes(text(7).unwrap_or("{}"))?,
            }),
            "views" => {
                let tie = match text(5)? {
                    "shows" => Tie::Shows,
                    "is part of" => Tie::IsPartOf,
                    _ => Tie::Has,
                };
                parts.add((shared(0)?, shared(1)?), tie, (shared(2)?, shared(3)?), shared(4));
            }
            "foreign keys" => self.foreign_keys.add(
                (shared(0)?, shared(1)?),
                ForeignKey {
                    table: (shared(2)?, shared(3)?),
                    name: shared(4)?,
                    on_delete: Action::of(text(5)?),
                    on_update: Action::of(text(6)?),
                    referred: parts.columns(text(7)?)?,
                    own: parts.columns(text(8)?)?,
                },
            ),
            "dependents" => self.dependents.add(row)?,
            "extensions" => match text(0)? {
                "extension" => self.extensions.push((text(2)?.into(), text(3)?.into())),
                kind => self.extension_parts.entry(text(2)?.into()).or_default().push(ExtensionPart {
                    kind: kind.into(),
                    schema: text(1).unwrap_or_default().into(),
                    extension: text(3).map(Into::into),
                }),
            },
            _ => return None,
        }
        Some(())
    }

    /// The extensions that are installed, and what trust in each means.
    pub fn extensions(&self) -> impl Iterator<Item = InstalledExtension<'_>> {
        self.extensions.iter().map(|(name, version)| {
            let all = self.functions.values().flatten();
            let of_it = all.filter(|function| function.extension.as_deref() == Some(name));
            let (mut covered, mut excluded) = (0, 0);
            for function in of_it {
                *if function.trustworthy { &mut covered } else { &mut excluded } += 1;
            }
            let trusted = self.declared.trusts(name);
            InstalledExtension { name, version, covered, excluded, trusted, reach: super::reach_of(name) }
        })
    }

    /// What the operator declares.
    pub(super) fn declared(&self) -> &Declared {
        &self.declared
    }

    /// Whether the operator calls a function safe: by its name, or with all of its extension.
    fn is_safe(&self, name: &str, function: &UserFunction) -> bool {
        let trusted = || {
            function.trustworthy
                && function.extension.as_deref().is_some_and(|extension| self.declared.trusts(extension))
        };
        self.declared.is_safe(&function.schema, name) || trusted()
    }

    /// The same of whatever function has a name in a schema: all of them have to be.
    fn all_safe(&self, schema: &str, name: &str) -> bool {
        let mut there = self.functions_in(schema, name).peekable();
        self.declared.is_safe(schema, name)
            || (there.peek().is_some() && there.all(|function| self.is_safe(name, function)))
    }

    fn functions_in(&self, schema: &str, name: &str) -> impl Iterator<Item = &UserFunction> {
        let overloads = self.functions.get(name).map_or(&[][..], Vec::as_slice);
        overloads.iter().filter(move |function| *function.schema == *schema)
    }

    /// Whether a TABLESAMPLE method, which is a function, is safe.
    pub(super) fn is_safe_method(&self, schema: Option<&str>, name: &str, path: &SearchPath) -> bool {
        let overloads = self.functions.get(name).map_or(&[][..], Vec::as_slice);
        let mut meant = overloads
            .iter()
            .filter(|f| schema.map_or_else(|| is_searched(path, &f.schema), |schema| *f.schema == *schema))
            .peekable();
        meant.peek().is_some() && meant.all(|function| self.is_safe(name, function))
    }

    /// Whether an operator class or access method is one of a trusted extension, and no other can be meant.
    pub(super) fn is_trusted_part(
        &self,
        kind: &str,
        schema: Option<&str>,
        name: &str,
        path: &SearchPath,
    ) -> bool {
        let parts = self.extension_parts.get(name).map_or(&[][..], Vec::as_slice);
        let mut meant = parts
            .iter()
            .filter(|part| {
                *part.kind == *kind
                    && (part.schema.is_empty()
                        || schema.map_or_else(
                            || is_searched(path, &part.schema),
                            |schema| *part.schema == *schema,
                        ))
            })
            .peekable();
        meant.peek().is_some()
            && meant.all(|part| {
                part.extension.as_deref().is_some_and(|extension| self.declared.trusts(extension))
            })
    }

    /// What a policy can say so that a function passes.
    fn remedy(&self, schema: &str, name: &str) -> String {
        let functions: Vec<_> = self.functions_in(schema, name).collect();
        let extension = functions
            .iter()
            .filter(|function| function.trustworthy)
            .find_map(|function| function.extension.as_deref())
            .filter(|extension| super::reach_of(extension).is_none());
        let or = extension.map(|extension| format!(", or the extension {extension}")).unwrap_or_default();
        format!("; if it is harmless, declare {schema}.{name} safe{or}")
    }

    /// Whether a table or view of that name may run a function that changes settings.
    pub(super) fn relation_may_change_settings(&self, name: &str) -> bool {
        self.changing_relations.contains(name)
    }

    /// Whether a function that a name may mean may change settings.
    fn may_change_settings(&self, schema: Option<&str>, name: &str, path: &SearchPath) -> bool {
        self.changing_functions
            .get(name)
            .into_iter()
            .flatten()
            .any(|found| schema.map_or_else(|| is_searched(path, found), |schema| **found == *schema))
    }

    /// What a call of `name` with so many arguments means. `None` as the schema: as written without one.
    pub(super) fn function(
        &self,
        schema: Option<&str>,
        name: &str,
        arguments: usize,
        path: &SearchPath,
    ) -> Meaning {
        let may_change_settings = self.may_change_settings(schema, name, path);
        Meaning { may_change_settings, ..self.function_called(schema, name, arguments, path) }
    }

    fn function_called(
        &self,
        schema: Option<&str>,
        name: &str,
        arguments: usize,
        path: &SearchPath,
    ) -> Meaning {
        let overloads = self.functions.get(name).map_or(&[][..], Vec::as_slice);
        let fits = |f: &&UserFunction| {
            (f.arguments.0..=f.arguments.1).contains(&arguments)
                && schema.map_or_else(|| is_searched(path, &f.schema), |schema| *f.schema == *schema)
        };
        let mut meant = overloads.iter().filter(fits).filter(|f| !self.is_safe(name, f));
        let built_in = match schema {
            None | Some("pg_catalog") => self.built_ins.function(name),
            Some("information_schema") => self.built_ins.information_function(name),
            Some(_) => None,
        };
        if let Some(function) = built_in {
            // Extensions overload Postgres's names for types of their own (citext's `replace`, pg_trgm's
            // `%`), and were installed by a statement that was held. Anybody else's could be meant.
            return match meant.find(|f| f.extension.is_none() && self.only_reads(f).is_none()) {
                Some(other) => Meaning::code(format!(
                    "may be the one in schema {} rather than Postgres's own",
                    other.schema
                )),
                None => Meaning::built_in(function),
            };
        }
        if let Some((class, why)) = family(name) {
            return Meaning::of(class, why, None);
        }
        let meant: Vec<&UserFunction> = meant.collect();
        if let Some(schema) = schema
            && self.declared.is_safe(schema, name)
        {
            return Meaning::harmless(Some(schema.into()));
        }
        let others = !meant.is_empty();
        let declared = overloads.iter().filter(fits).find(|f| self.is_safe(name, f));
        if let Some(schema) = schema {
            return match declared {
                Some(_) if !others => Meaning::harmless(Some(schema.into())),
                Some(_) | None => self.of_these(name, &meant),
            };
        }
        match declared {
            Some(function) if !others => Meaning::harmless(Some(function.schema.clone())),
            // `uuid('..')` with one argument is a cast where no such function exists.
            None if !others && arguments == 1 && self.built_ins.has_type(name) => {
                Meaning::of(StatementClass::Read, "is a cast", Some(Arc::from("pg_catalog")))
            }
            Some(_) if others => Meaning::code("may be another than the one that was declared safe"),
            _ => self.of_these(name, &meant),
        }
    }

    /// What a call means that may be of any of these functions.
    fn of_these(&self, name: &str, meant: &[&UserFunction]) -> Meaning {
        let Some((first, rest)) = meant.split_first() else {
            return Meaning::code("is not on the allow-list");
        };
        let all: Option<Vec<_>> = meant.iter().map(|function| self.only_reads(function)).collect();
        let schema = rest.iter().all(|other| other.schema == first.schema).then(|| first.schema.clone());
        if let Some(all) = all {
            let reads = all.concat();
            return Meaning {
                reads,
                ..Meaning::of(StatementClass::Read, "only reads, as its text says", schema)
            };
        }
        let remedy = self.remedy(&first.schema, name);
        let why = match rest {
            [] => format!("is not on the allow-list: it is {}{remedy}", first.described),
            [..] => format!(
                "is not on the allow-list: it is one of {} functions, such as {}{remedy}",
                meant.len(),
                first.described
            ),
        };
        Meaning { schema, ..Meaning::code(why) }
    }

    /// What a function reads that is written in SQL and surely does nothing else. Its names may mean
    /// whatever they can mean anywhere: the path is the caller's, or its own.
    fn only_reads(&self, function: &UserFunction) -> Option<Arc<[Effect]>> {
        let body = function.body.as_ref()?;
        if let Some(known) = body.reads.get() {
            return known.clone();
        }
        if INSIDE.get() >= DEEPEST_BODY {
            return None;
        }
        INSIDE.set(INSIDE.get() + 1);
        let runs_code =
            body.types.iter().any(|oid| self.code_types.contains(oid) || POLYMORPHIC.contains(oid));
        let reads = if runs_code { None } else { reads_of_body(&body.text, self) };
        INSIDE.set(INSIDE.get() - 1);
        // A call runs the body's text as often as there are rows around it, and with whatever it is given.
        let sensitive = |effect: &Effect| {
            effect.kind == super::ObjectKind::Relation
                && self.sensitive(effect.schema.as_deref(), &effect.name, &SearchPath::Unknown)
                    != Sensitive::Nothing
        };
        let reads = reads.filter(|reads| !reads.iter().any(sensitive)).map(Arc::from);
        // Somebody else may have been faster, and found the same.
        _ = body.reads.set(reads.clone());
        reads
    }

    /// What `x.name` means when no column has that name: a call of a function with one argument, or a
    /// cast. `None` when nothing is called that could do harm.
    pub(super) fn attribute(&self, name: &str, applied: Applied, path: &SearchPath) -> Option<Meaning> {
        let user = self.functions.get(name).into_iter().flatten().find(|f| {
            (f.arguments.0..=f.arguments.1).contains(&1)
                && is_searched(path, &f.schema)
                && (f.takes_rows || applied == Applied::Anything)
                && !self.is_safe(name, f)
        });
        if let Some(function) = user {
            let why = format!("is a function of schema {} if no column has this name", function.schema);
            return Some(Meaning::code(why));
        }
        let called = match self.built_ins.function(name) {
            Some(function) => (function.takes_one && (!function.class.changes_nothing() || function.lasts))
                .then(|| Meaning::built_in(function)),
            None => family(name).map(|(class, why)| Meaning::of(class, why, None)),
        };
        if called.is_none() && self.may_change_settings(None, name, path) {
            return Some(Meaning { may_change_settings: true, ..Meaning::harmless(None) });
        }
        // `('x'::text).domain` is a cast (`FuncNameAsType`). Asked for every column that is written with its
        // table, so names of no such type must cost next to nothing.
        let may_be_type = || self.types.may_know(name) || self.casts.may_know(name);
        called.or_else(|| if may_be_type() { self.of_type(None, name, path) } else { None })
    }

    /// Whether `x.name` may be a call where no column has the name.
    pub(super) fn may_be_called(&self, name: &str) -> bool {
        self.functions.contains_key(name)
            || self.built_ins.function(name).is_some()
            || family(name).is_some()
            || self.types.is_known(name)
    }

    /// Whether Postgres itself has a function of that name.
    pub(super) fn is_built_in(&self, name: &str) -> bool {
        self.built_ins.function(name).is_some()
    }

    /// Whether values of a type have no columns: one of Postgres's own that is no row.
    pub(super) fn is_scalar_type(&self, name: &str) -> bool {
        self.built_ins.has_type(name) && name != "record" && self.built_ins.relation(name).is_none()
    }

    /// What an operator means: `None` when it is harmless.
    pub(super) fn operator(&self, schema: Option<&str>, name: &str, path: &SearchPath) -> Option<Meaning> {
        let user = self.operators.get(name).map_or(&[][..], Vec::as_slice);
        let mut others = user.iter().filter(|o| {
            schema.map_or_else(|| is_searched(path, &o.schema), |schema| *o.schema == *schema)
                && !self.all_safe(&o.function.0, &o.function.1)
        });
        if matches!(schema, None | Some("pg_catalog")) && self.built_ins.has_operator(name) {
            return others.find(|o| !o.from_extension).map(|other| {
                Meaning::code(format!("may be the one in schema {} rather than Postgres's own", other.schema))
            });
        }
        let declared = user.iter().any(|o| {
            schema.map_or_else(|| is_searched(path, &o.schema), |schema| *o.schema == *schema)
                && self.all_safe(&o.function.0, &o.function.1)
        });
        match others.next() {
            None if declared => {
                let changes =
                    user.iter().any(|o| self.may_change_settings(Some(&o.function.0), &o.function.1, path));
                changes.then(|| Meaning { may_change_settings: true, ..Meaning::harmless(None) })
            }
            None => Some(Meaning::code("runs a function that is not on the allow-list")),
            Some(other) => {
                let (schema, function) = &other.function;
                Some(Meaning::code(format!(
                    "runs {schema}.{function}, which is not on the allow-list{}",
                    self.remedy(schema, function)
                )))
            }
        }
    }

    /// What a value of a type runs: `None` when nothing, or when the type is unknown. A type is made by
    /// a held statement, and an unknown one is nearly always an enum or a composite.
    pub(super) fn of_type(&self, schema: Option<&str>, name: &str, path: &SearchPath) -> Option<Meaning> {
        let mut casts = self.casts.named(name);
        if let Some((schema, function)) = casts.find(|(schema, function)| !self.all_safe(schema, function)) {
            return Some(Meaning::code(format!("may run the cast function {schema}.{function}")));
        }
        let mut safe = self.casts.named(name);
        if safe.any(|(schema, function)| self.may_change_settings(Some(schema), function, path)) {
            return Some(Meaning { may_change_settings: true, ..Meaning::harmless(None) });
        }
        // Postgres's own come first, unless the path says otherwise in so many words.
        let reordered = match path {
            SearchPath::Known(schemas) => schemas.iter().any(|schema| &**schema == "pg_catalog"),
            SearchPath::Unknown => true,
        };
        let own = self.built_ins.has_type(name);
        if own && (schema == Some("pg_catalog") || (schema.is_none() && !reordered)) {
            return None;
        }
        let mut meant = self
            .types
            .named(name)
            .filter(|t| schema.map_or_else(|| is_searched(path, &t.schema), |schema| *t.schema == *schema));
        meant.find(|t| t.runs_code).map(|t| {
            Meaning::code(format!(
                "is a type of schema {} whose checks run functions that are not on the allow-list",
                t.schema
            ))
        })
    }

    /// Whether a value of the type with this OID, as a `Parse` declares its parameters, runs somebody's
    /// function.
    #[must_use]
    pub fn type_runs_code(&self, oid: u32) -> bool {
        self.code_types.contains(&oid)
    }

    /// A relation of the system's own schemas.
    pub(super) fn system_relation(&self, schema: Option<&str>, name: &str) -> Option<SystemRelation> {
        match schema {
            None | Some("pg_catalog") => self.built_ins.relation(name),
            Some("information_schema") => self.built_ins.information_relation(name),
            Some(_) => None,
        }
    }

    /// The tables that a view or partition shows rows of, wherever `schema.name` may be one.
    pub(super) fn bases<'s>(&'s self, schema: Option<&'s str>, name: &str) -> impl Iterator<Item = &'s Base> {
        let meant = self.made_of.get(name).into_iter().flatten();
        // A session's own temporary schema has a number, which the alias does not tell.
        let is_meant = move |made: &&MadeOf| match schema {
            None => true,
            Some("pg_temp") => made.schema.starts_with("pg_temp"),
            Some(schema) => *made.schema == *schema,
        };
        meant.filter(is_meant).flat_map(|made| &made.bases)
    }

    /// Whether foreign keys refer to a table, wherever `schema.name` may be one.
    pub(super) fn is_referred_to(&self, schema: Option<&str>, name: &str) -> bool {
        let behind = self.bases(schema, name).map(|base| (Some(&*base.schema), &*base.name));
        behind
            .chain([(schema, name)])
            .any(|(schema, name)| self.foreign_keys.of(schema, name).next().is_some())
    }

    /// What foreign keys do because of a change of a table or of what is behind it.
    pub(super) fn cascades(
        &self,
        schema: Option<&str>,
        name: &str,
        change: Change,
    ) -> Vec<(Verb, &ForeignKey)> {
        let behind = self.bases(schema, name).map(|base| (Some(&*base.schema), &*base.name));
        self.foreign_keys.follow(behind.chain([(schema, name)]), change)
    }

    /// What `DROP .. CASCADE` of a relation, or of a part of it, takes along.
    pub(super) fn taken_along(&self, schema: Option<&str>, name: &str) -> TakenAlong {
        let mut taken = self.dependents.taken_along(schema, name);
        taken.others |= !self.is_loaded;
        taken
    }

    /// The same of a whole schema. What depends on its functions and types, nobody has listed.
    pub(super) fn taken_along_from(&self, schema: &str) -> TakenAlong {
        let mut taken = TakenAlong::default();
        for name in self.dependents.in_schema(schema) {
            let with = self.dependents.taken_along(Some(schema), name);
            taken.others |= with.others;
            taken.relations.extend(with.relations);
        }
        taken.relations.sort();
        taken.relations.dedup();
        taken.others |= !self.is_loaded
            || self.functions.values().flatten().any(|function| *function.schema == *schema)
            || self.types.any(|of_type| *of_type.schema == *schema);
        taken
    }

    /// The tables that inherit from one, wherever `schema.name` may be.
    pub(super) fn heirs(&self, schema: Option<&str>, name: &str) -> Vec<QualifiedName> {
        self.dependents.heirs(schema, name)
    }

    /// Whether the operator called anything sensitive.
    pub(super) fn knows_sensitive(&self) -> bool {
        !self.declared.sensitive().is_empty()
    }

    /// What of a table is sensitive. Where it cannot be told which table a name means, it is the one that is
    /// sensitive.
    pub(super) fn sensitive(&self, schema: Option<&str>, name: &str, path: &SearchPath) -> Sensitive<'_> {
        let found = schema.map(Arc::from).or_else(|| self.relation_schema(name, path));
        let own = self.declared.of_table(
            |glob| match (&found, path) {
                (Some(schema), _) => glob.matches(schema),
                (None, SearchPath::Known(schemas)) => schemas.iter().any(|schema| glob.matches(schema)),
                (None, SearchPath::Unknown) => true,
            },
            name,
        );
        let shows_some =
            |base: &Base| match self.declared.of_table(|glob| glob.matches(&base.schema), &base.name) {
                Sensitive::Nothing => false,
                Sensitive::Everything => true,
                Sensitive::Columns(sensitive) => base.columns.as_ref().is_none_or(|columns| {
                    columns.iter().any(|column| sensitive.iter().any(|glob| glob.matches(column)))
                }),
            };
        // By what names a view shows a column is not known here.
        if self.bases(found.as_deref(), name).any(shows_some) { Sensitive::Everything } else { own }
    }

    /// The schema in which a relation's name is found, where that is sure.
    pub(super) fn relation_schema(&self, name: &str, path: &SearchPath) -> Option<Arc<str>> {
        let SearchPath::Known(path) = path else { return None };
        let found = self.relations.get(name)?;
        path.iter().find_map(|schema| {
            found.iter().find(|relation| relation.schema == *schema).map(|found| Arc::clone(&found.schema))
        })
    }

    /// Whether somebody has made a function of that name.
    pub(super) fn has_function(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// Whether somebody has made a type of that name that is no table's.
    pub(super) fn has_own_type(&self, name: &str) -> bool {
        self.types.is_known(name)
    }

    /// Whether there is a type of that name, or a relation, whose rows are of a type of its name.
    pub(super) fn has_type(&self, name: &str) -> bool {
        self.built_ins.has_type(name)
            || self.types.is_known(name)
            || self.casts.is_known(name)
            || self.relations.contains_key(name)
            || self.built_ins.relation(name).is_some()
    }

    /// Whether there is a relation of that name, in the schema or in any.
    pub(super) fn has_relation(&self, schema: Option<&str>, name: &str) -> bool {
        let mut known = self.relations.get(name).into_iter().flatten();
        known.any(|relation| schema.is_none_or(|schema| *relation.schema == *schema))
    }

    /// Whether what is known of relations is all that the database has.
    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// Whether a relation has a column of that name. Where a temporary one may stand in front of it, nobody
    /// knows.
    pub(super) fn has_column(
        &self,
        schema: Option<&str>,
        name: &str,
        column: &str,
        path: &SearchPath,
    ) -> Has {
        let Some(relation) = self.surely(schema, name, path) else { return Has::Unknown };
        let own = relation.columns.binary_search_by(|known| (**known).cmp(column)).is_ok();
        if own || (relation.has_system_columns && SYSTEM_COLUMNS.contains(&column)) {
            Has::Yes
        } else {
            Has::No
        }
    }

    /// What a table's constraints say of a column; nothing where the table is not known.
    pub(super) fn constraint(
        &self,
        schema: Option<&str>,
        name: &str,
        column: &str,
        path: &SearchPath,
    ) -> Option<Constraint> {
        let relation = self.surely(schema, name, path)?;
        let lists = |columns: &[Arc<str>]| columns.binary_search_by(|known| (**known).cmp(column)).is_ok();
        let integers = &relation.integers;
        let integer = integers.binary_search_by(|(known, _)| (**known).cmp(column)).ok();
        Some(Constraint {
            never_null: lists(&relation.never_null),
            is_key: lists(&relation.keys),
            integer: integer.and_then(|place| integers.get(place)).map(|(_, bytes)| *bytes),
        })
    }

    /// Whether row security decides what a session sees of a table.
    pub(super) fn row_security(
        &self,
        schema: Option<&str>,
        name: &str,
        path: &SearchPath,
    ) -> Option<RowSecurity> {
        self.surely(schema, name, path)?.row_security
    }

    /// The relation that a name means, where that is sure.
    fn surely(&self, schema: Option<&str>, name: &str, path: &SearchPath) -> Option<&Relation> {
        let known = self.relations.get(name)?;
        let within = |schema: &str| known.iter().find(|relation| *relation.schema == *schema);
        if let Some(schema) = schema {
            return within(schema);
        }
        let SearchPath::Known(path) = path else { return None };
        if self.built_ins.relation(name).is_some() || path.iter().any(|schema| **schema == *"pg_temp") {
            return None;
        }
        path.iter().find_map(|schema| within(schema))
    }
}

/// The name of an extension, where there is one.
fn extension_of(column: Option<&str>) -> Option<Box<str>> {
    column.filter(|name| *name != "false").map(Box::from)
}

/// Whether trust in an extension covers one of its functions, as far as itself tells. One that runs as its owner
/// may do what the caller may not. One that may write and is not compiled runs statements that nobody sees:
/// PostGIS's `DropGeometryTable` drops tables.
fn is_covered_by_trust(name: &str, language: &str, volatility: &str, definer: bool, kind: &str) -> bool {
    /// Compiled, and makes a table all the same.
    const WRITE: [&str; 1] = ["st_fromflatgeobuftotable"];
    let compiled = matches!(language, "c" | "internal");
    !definer && kind != "p" && (compiled || volatility != "v") && !WRITE.contains(&name)
}

/// A function, for a reviewer.
fn describe(language: &str, volatility: &str, definer: bool, owner: &str, kind: &str) -> Box<str> {
    let what = match kind {
        "p" => "procedure",
        "a" => "aggregate",
        "w" => "window function",
        _ => "function",
    };
    let volatility = match volatility {
        "i" => "an immutable",
        "s" => "a stable",
        _ => "a volatile",
    };
    let language = if kind == "a" { "" } else { language };
    let space = if language.is_empty() { "" } else { " " };
    let runs = if definer { format!(" that runs as its owner, {owner}") } else { String::new() };
    format!("{volatility}{space}{language} {what}{runs}").into()
}

/// Whether an unqualified function, operator or type can be found in `schema`.
fn is_searched(path: &SearchPath, schema: &str) -> bool {
    match path {
        // pg_catalog is always searched; temporary schemas never are, for functions.
        SearchPath::Known(schemas) => schema == "pg_catalog" || schemas.iter().any(|s| **s == *schema),
        SearchPath::Unknown => true,
    }
}

#[cfg(test)]
mod tests;
