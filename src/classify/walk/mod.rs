//! From parse tree to findings: what each raw statement does, to what, and why that matters.
//!
//! One loop visits every node, wherever it stands, so that nothing can hide in a clause that nobody
//! thought of: a function call counts in a `COPY .. WHERE` as in a target list. What a node means in
//! its place is decided by looking up, never by descending. Each node kind is named in [`Walk::visit`];
//! the compiler demands an arm for a new one.
//!
//! - `statements`: what kind of statement; `definitions`: objects made, altered and dropped
//! - `expressions`: functions, operators, types, attributes; `conditions`: is a WHERE a real one
//! - `sources`: what stands in a FROM, and which columns that has; `detail`: which of them are named
//! - `relations`: tables and the names that only look like tables
//! - `repetition`: whether a call runs once, or for each row of something
//! - `patience`: how much is looked at for all that
//! - `sensitive`: tables that the operator calls so, read as a whole
//! - `session`: settings, and what the session will be like afterwards

mod conditions;
mod definitions;
mod detail;
mod expressions;
mod patience;
mod relations;
mod repetition;
mod sensitive;
mod session;
mod sources;
mod statements;

pub(super) use detail::{Touched, columns};
pub(super) use sources::Names;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use self::patience::Patience;
use super::lex::{Token, TokenKind};
use super::tree::{Field, Kind, Node, Tree};
use super::{
    Catalogue, Doubt, Effect, Here, NameUse, Notes, ObjectKind, Reason, SearchPath, StatementClass,
    StatementPart, Verb,
};
use crate::statement::{Identity, SessionEffect, Step};

/// More reasons than a person reads; the most severe of them are kept.
pub(super) const MOST_REASONS: usize = 64;

/// `AccessShareLock`.
const ACCESS_SHARE: i64 = 1;

/// What the walk found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) parts: Vec<StatementPart>,
    pub(super) effects: Vec<Effect>,
    pub(super) reasons: Vec<Reason>,
    pub(super) steps: Vec<Step>,
    pub(super) names: Vec<NameUse>,
    /// Names that the catalogue does not know.
    pub(super) doubts: BTreeSet<Doubt>,
    /// What an older server's grammar would say to syntax that it does not have.
    pub(super) too_new: Option<String>,
    /// The relations that were taken for temporary ones ([`Surroundings::assumes_temporary`]).
    pub(super) assumed_temporary: Vec<Arc<str>>,
    /// Rows of one of them are changed, so that it has to be a table of its own.
    pub(super) writes_assumed_temporary: bool,
    pub(super) notes: Notes,
}

/// What the walk needs to know beside the tree.
pub(super) struct Surroundings<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: &'a [Token],
    pub(super) catalogue: &'a Catalogue,
    pub(super) search_path: &'a SearchPath,
    /// Whether relations that are changed, named without a schema, are taken for temporary ones of the session.
    pub(super) assumes_temporary: bool,
    pub(super) here: &'a Here<'a>,
}

/// Visits the whole tree.
pub(super) fn walk(tree: &Tree<'_>, around: &Surroundings<'_>) -> Findings {
    let mut walk = Walk {
        around,
        path: around.search_path,
        found: Findings::default(),
        class: StatementClass::Session,
        otherwise: StatementClass::Session,
        part: 0,
        planned_until: 0,
        later_until: 0,
        scopes: Vec::new(),
        prepared: HashMap::new(),
        function_aliases: None,
        from_items: None,
        columns_seen: HashSet::new(),
        config_calls: Vec::new(),
        may_change_settings: false,
        identity: around.here.identity,
        temporary: false,
        assumed: HashSet::new(),
        patience: Patience::for_tree(tree.len()),
        limited: 0,
        part_range: 0..0,
        tree,
    };
    for statement in tree.statements() {
        walk.raw_statement(statement);
    }
    walk.found.effects.sort_unstable();
    walk.found.effects.dedup();
    walk.found.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.class));
    walk.found
}

struct Walk<'a> {
    around: &'a Surroundings<'a>,
    tree: &'a Tree<'a>,
    /// Where names are looked up now; unknown after a statement of the same text changed it.
    path: &'a SearchPath,
    found: Findings,
    /// The class of the raw statement so far.
    class: StatementClass,
    /// The same without what is unknown of a name that it executes.
    otherwise: StatementClass,
    part: u32,
    part_range: Range<u32>,
    /// Nodes before this one are inside a plain EXPLAIN: planned, not run.
    planned_until: u32,
    /// Nodes before this one run later, if at all: PREPARE, DECLARE, views.
    later_until: u32,
    /// The WITH clauses around the current node.
    scopes: Vec<relations::Scope<'a>>,
    /// Names prepared earlier in this text.
    prepared: HashMap<Arc<str>, StatementClass>,
    /// The names of FROM items that are functions, once somebody asked, and whether there are some whose
    /// names we do not know.
    function_aliases: Option<(HashSet<Cow<'a, str>>, bool)>,
    /// The tables, subqueries and functions of the whole text by the names that they go by, once somebody asked.
    from_items: Option<HashMap<Cow<'a, str>, Vec<Node<'a>>>>,
    /// Columns that were looked up: the name of a FROM item, and theirs.
    columns_seen: HashSet<(Cow<'a, str>, Cow<'a, str>)>,
    /// The calls of `set_config` in this raw statement.
    config_calls: Vec<u32>,
    /// It may change settings that decide what names mean, by functions that need no approval.
    may_change_settings: bool,
    /// Who the session acts as now; unknown after a statement of the same text may have changed it.
    identity: Option<&'a Identity>,
    /// This raw statement makes a temporary table or view.
    temporary: bool,
    /// The relations that are taken for temporary ones.
    assumed: HashSet<u32>,
    /// How many nodes may still be looked at to judge conditions, and what is read of sensitive tables.
    patience: Patience,
    /// How many rows of sensitive tables the LIMITs so far allow.
    limited: i64,
}

impl<'a> Walk<'a> {
    /// What names of tables mean now.
    fn names(&self) -> Names<'a> {
        Names { catalogue: self.around.catalogue, path: self.path }
    }

    fn raw_statement(&mut self, raw: Node<'a>) {
        let span = self.statement_span(raw);
        self.class = StatementClass::Session;
        self.otherwise = StatementClass::Read;
        self.part = self.found.parts.len() as u32;
        self.part_range = span.clone();
        (self.planned_until, self.later_until) = (0, 0);
        self.scopes.clear();
        self.config_calls.clear();
        self.columns_seen.clear();
        self.may_change_settings = false;
        self.temporary = false;
        let root = raw.get(Field::Stmt);
        let before = self.found.effects.len();
        for node in root.into_iter().flat_map(Node::within) {
            self.visit(node);
        }
        let (part, otherwise) = (self.part, self.otherwise);
        if let Some(used) = self.found.names.last_mut().filter(|used| used.part == part) {
            used.otherwise = otherwise;
        }
        let touched = self.found.effects.get(before..).unwrap_or_default().iter();
        self.may_change_settings |= touched
            .filter(|effect| effect.kind == ObjectKind::Relation)
            .any(|effect| self.around.catalogue.relation_may_change_settings(&effect.name));
        let Some(root) = root else { return };
        self.created_view(root);
        let step = self.step(root);
        self.found.steps.push(step);
        self.found.parts.push(StatementPart { kind: kind_name(root.kind()), class: self.class, span });
        self.after(root);
    }

    /// What the statements behind this one, in the same text, have to reckon with.
    fn after(&mut self, root: Node<'a>) {
        if root.kind() == Kind::PrepareStmt {
            let name: Arc<str> = root.text(Field::Name).unwrap_or_default().into();
            self.prepared.insert(name, self.class);
        }
        static UNKNOWN: SearchPath = SearchPath::Unknown;
        let effects = self.found.steps.last().map_or(&[][..], |step| &step.effects);
        for effect in effects {
            match effect {
                SessionEffect::Deallocate(name) => _ = self.prepared.remove(name),
                SessionEffect::DeallocateAll => self.prepared.clear(),
                SessionEffect::DiscardAll => {
                    self.prepared.clear();
                    self.path = &UNKNOWN;
                    self.identity = None;
                }
                // The session follows these when upstream confirms them; within one text we only
                // know that names may be looked up elsewhere from here on.
                SessionEffect::Set { name, .. } if **name == *"search_path" => self.path = &UNKNOWN,
                SessionEffect::PathUnknown | SessionEffect::MayChangeSettings => {
                    self.path = &UNKNOWN;
                    self.identity = None;
                }
                SessionEffect::Commit { .. }
                | SessionEffect::Rollback { .. }
                | SessionEffect::RollbackToSavepoint => {
                    self.path = &UNKNOWN;
                    self.identity = self.identity.filter(|identity| identity.outlasts_transaction);
                }
                SessionEffect::ResetAll | SessionEffect::TemporaryRelation => self.path = &UNKNOWN,
                SessionEffect::Prepare(_)
                | SessionEffect::Execute(_)
                | SessionEffect::Declare(_)
                | SessionEffect::Fetch(_)
                | SessionEffect::CloseCursor(_)
                | SessionEffect::CloseAllCursors
                | SessionEffect::Set { .. }
                | SessionEffect::Begin
                | SessionEffect::Savepoint
                | SessionEffect::CopyIn
                | SessionEffect::CopyOut
                | SessionEffect::CommitsByItself
                | SessionEffect::CatalogueChange
                | SessionEffect::OwnCatalogueChange => {}
            }
        }
    }

    /// Visits one node.
    fn visit(&mut self, node: Node<'a>) {
        match node.kind() {
            Kind::Items | Kind::Scalar => {}
            Kind::Empty => self.empty(node),

            // Rows and the parts of a query.
            Kind::SelectStmt => self.select(node),
            Kind::InsertStmt => self.insert(node),
            Kind::UpdateStmt => self.update(node),
            Kind::DeleteStmt => self.delete(node),
            Kind::MergeStmt => {
                self.merge(node);
                self.newer_merge(node);
            }
            Kind::CopyStmt => self.copy(node),
            Kind::TruncateStmt => self.truncate(node),
            Kind::RangeVar => self.relation(node),

            // Whatever runs or names a function.
            Kind::FuncCall => self.call(node),
            Kind::AExpr => self.operator_expression(node),
            Kind::ColumnRef => self.column(node),
            Kind::AIndirection => self.indirection(node),
            Kind::TypeName => self.type_name(node),
            Kind::SubLink => self.sublink(node),
            Kind::CaseExpr | Kind::JoinExpr => self.unwritten_equality(node),
            Kind::SortBy => self.qualified_operator(node, Field::UseOp),
            Kind::RangeTableSample => self.sample(node),
            Kind::IndexElem | Kind::PartitionElem => self.operator_class(node),
            Kind::Constraint => self.exclusion(node),
            // Syntax that an older server rejects outright.
            Kind::RangeSubselect if node.has(Field::Alias) => {}
            Kind::RangeSubselect => self.needs_version(16, "subquery in FROM must have an alias"),
            Kind::JsonIsPredicate => self.needs_version(16, "syntax error at or near \"JSON\""),
            Kind::ReturningOption => self.needs_version(18, "syntax error at or near \"WITH\""),
            Kind::MergeSupportFunc => self.newer_function(node, "merge_action", 17),
            Kind::JsonObjectConstructor => self.newer_function(node, "json_object", 16),
            Kind::JsonArrayConstructor | Kind::JsonArrayQueryConstructor => {
                self.newer_function(node, "json_array", 16);
            }
            Kind::JsonObjectAgg => self.newer_function(node, "json_objectagg", 16),
            Kind::JsonArrayAgg => self.newer_function(node, "json_arrayagg", 16),
            Kind::JsonParseExpr => self.newer_function(node, "json", 17),
            Kind::JsonScalarExpr => self.newer_function(node, "json_scalar", 17),
            Kind::JsonSerializeExpr => self.newer_function(node, "json_serialize", 17),
            Kind::JsonFuncExpr => self.newer_function(node, "json_exists, json_value or json_query", 17),
            Kind::JsonTable => self.newer_function(node, "json_table", 17),

            // Statements about statements, settings, transactions.
            Kind::ExplainStmt => self.explain(node),
            Kind::PrepareStmt | Kind::DeclareCursorStmt => self.deferred(node),
            Kind::ExecuteStmt => self.execute(node),
            Kind::FetchStmt => self.fetch(node),
            Kind::TransactionStmt => self.transaction(node),
            Kind::VariableSetStmt => self.set(node),
            Kind::VariableShowStmt
            | Kind::ClosePortalStmt
            | Kind::DeallocateStmt
            | Kind::DiscardStmt
            | Kind::ListenStmt
            | Kind::UnlistenStmt
            | Kind::ConstraintsSetStmt => {}
            Kind::NotifyStmt => self.does(StatementClass::Write, node, "sends a notification"),

            // Objects that may be temporary.
            Kind::CreateStmt => self.create_table(node),
            Kind::CreateTableAsStmt => self.create_table_as(node),
            Kind::CreateSeqStmt => self.temporary_or_ddl(node, Field::Sequence, "creates a sequence"),
            Kind::AlterSeqStmt => self.temporary_or_ddl(node, Field::Sequence, "alters a sequence"),
            Kind::IndexStmt => self.temporary_or_ddl(node, Field::Relation, "creates an index"),
            Kind::AlterTableStmt => self.alter_table(node),
            Kind::AlterTableCmd => self.alter_table_command(node),
            Kind::RenameStmt | Kind::AlterObjectSchemaStmt | Kind::AlterObjectDependsStmt => {
                self.alter_object(node)
            }
            Kind::DropStmt => self.drop_objects(node),
            Kind::VacuumStmt => self.vacuum(node),
            Kind::DefineStmt => self.define(node),
            Kind::CreateRangeStmt => self.create_range(node),
            Kind::CreateSchemaStmt => self.create_schema(node),
            Kind::ViewStmt => self.create_view(node),

            // The rest is one class each.
            Kind::RefreshMatViewStmt => self.does(StatementClass::Ddl, node, "refreshes a materialized view"),
            Kind::CommentStmt => self.comment(node),
            Kind::CreateStatsStmt | Kind::AlterStatsStmt => {
                self.does(StatementClass::Ddl, node, "changes extended statistics");
            }
            Kind::CompositeTypeStmt
            | Kind::CreateEnumStmt
            | Kind::AlterEnumStmt
            | Kind::CreateDomainStmt
            | Kind::AlterDomainStmt => self.does(StatementClass::Ddl, node, "changes a type"),
            Kind::AlterCollationStmt | Kind::AlterTSDictionaryStmt | Kind::AlterTSConfigurationStmt => {
                self.does(StatementClass::Ddl, node, "changes collations or text search");
            }

            Kind::CreateTableSpaceStmt
            | Kind::DropTableSpaceStmt
            | Kind::AlterTableSpaceOptionsStmt
            | Kind::AlterTableMoveAllStmt => self.does(StatementClass::Admin, node, "changes tablespaces"),
            Kind::CreatedbStmt
            | Kind::AlterDatabaseStmt
            | Kind::AlterDatabaseRefreshCollStmt
            | Kind::AlterDatabaseSetStmt
            | Kind::DropdbStmt => self.does(StatementClass::Admin, node, "changes a database"),
            Kind::AlterSystemStmt => {
                self.does(StatementClass::Admin, node, "changes the server's configuration");
            }
            Kind::ClusterStmt => self.does(StatementClass::Admin, node, "rewrites a table"),
            Kind::ReindexStmt => self.does(StatementClass::Admin, node, "rebuilds indexes"),
            Kind::CheckPointStmt => self.does(StatementClass::Admin, node, "forces a checkpoint"),
            // The lock that a SELECT takes, for as long.
            Kind::LockStmt if node.number(Field::Mode) == ACCESS_SHARE => {
                self.does(StatementClass::Read, node, "")
            }
            Kind::LockStmt => self.does(StatementClass::Admin, node, "locks a whole table"),
            Kind::CreatePublicationStmt | Kind::AlterPublicationStmt => {
                self.does(StatementClass::Admin, node, "changes what is replicated");
            }

            Kind::GrantStmt | Kind::GrantRoleStmt => {
                self.does(StatementClass::Grant, node, "changes privileges");
            }
            Kind::AlterDefaultPrivilegesStmt => {
                self.does(StatementClass::Grant, node, "changes default privileges");
            }
            Kind::CreateRoleStmt => {
                self.does(StatementClass::Grant, node, "changes roles");
                let name = node.text(Field::Role).unwrap_or_default();
                self.effect(Verb::Create, ObjectKind::Role, None, &name);
            }
            Kind::AlterRoleStmt | Kind::AlterRoleSetStmt | Kind::DropRoleStmt => {
                self.does(StatementClass::Grant, node, "changes roles");
            }
            Kind::RoleSpec => self.role(node),
            Kind::DropOwnedStmt | Kind::ReassignOwnedStmt | Kind::AlterOwnerStmt => {
                self.does(StatementClass::Grant, node, "changes ownership");
            }
            Kind::SecLabelStmt => self.does(StatementClass::Grant, node, "changes a security label"),
            Kind::CreatePolicyStmt | Kind::AlterPolicyStmt => {
                self.does(StatementClass::Grant, node, "changes a row security policy");
            }

            // A function or operator that is granted on, altered or dropped.
            Kind::ObjectWithArgs => {
                let place = node.place().0;
                let otherwise = if place == Kind::DropStmt { Verb::Drop } else { Verb::Alter };
                let verb = if place == Kind::GrantStmt { Verb::Grant } else { otherwise };
                self.names_function(verb, node, Field::Objname);
            }
            Kind::DoStmt => self.does(StatementClass::Code, node, "runs a block of code"),
            Kind::CallStmt => self.does(StatementClass::Code, node, "calls a procedure"),
            Kind::LoadStmt => self.does(StatementClass::Code, node, "loads a library"),
            Kind::CreateFunctionStmt | Kind::AlterFunctionStmt => {
                self.later_until = self.later_until.max(node.end());
                self.does(StatementClass::Code, node, "defines code");
                self.names_function(Verb::Create, node, Field::Funcname);
            }
            Kind::CreateTrigStmt | Kind::CreateEventTrigStmt | Kind::AlterEventTrigStmt => {
                self.does(StatementClass::Code, node, "changes a trigger");
            }
            Kind::RuleStmt => {
                self.later_until = self.later_until.max(node.end());
                self.does(StatementClass::Code, node, "changes a rule");
            }
            Kind::CreateExtensionStmt | Kind::AlterExtensionStmt | Kind::AlterExtensionContentsStmt => {
                self.does(StatementClass::Code, node, "changes an extension");
            }
            Kind::CreatePLangStmt | Kind::CreateTransformStmt => {
                self.does(StatementClass::Code, node, "changes a language");
            }
            Kind::CreateCastStmt | Kind::CreateConversionStmt => {
                self.does(StatementClass::Code, node, "changes conversions between types or encodings");
            }
            Kind::CreateOpClassStmt
            | Kind::CreateOpFamilyStmt
            | Kind::AlterOpFamilyStmt
            | Kind::AlterOperatorStmt
            | Kind::CreateAmStmt
            | Kind::AlterTypeStmt => {
                self.does(StatementClass::Code, node, "changes operators or access methods")
            }

            Kind::CreateFdwStmt
            | Kind::AlterFdwStmt
            | Kind::CreateForeignServerStmt
            | Kind::AlterForeignServerStmt
            | Kind::CreateForeignTableStmt
            | Kind::CreateUserMappingStmt
            | Kind::AlterUserMappingStmt
            | Kind::DropUserMappingStmt
            | Kind::ImportForeignSchemaStmt => {
                self.does(StatementClass::ServerIo, node, "changes access to foreign servers");
            }
            Kind::CreateSubscriptionStmt | Kind::AlterSubscriptionStmt | Kind::DropSubscriptionStmt => {
                self.does(StatementClass::ServerIo, node, "changes a subscription to another server");
            }

            // Parts of other nodes, which speak for them; their own parts are visited as well.
            Kind::ParseResult
            | Kind::RawStmt
            | Kind::Alias
            | Kind::IntoClause
            | Kind::GroupingFunc
            | Kind::NamedArgExpr
            | Kind::BoolExpr
            | Kind::CollateClause
            | Kind::CaseWhen
            | Kind::RowExpr
            | Kind::CoalesceExpr
            | Kind::MinMaxExpr
            | Kind::SQLValueFunction
            | Kind::XmlExpr
            | Kind::XmlSerialize
            | Kind::JsonFormat
            | Kind::JsonReturning
            | Kind::JsonValueExpr
            | Kind::JsonBehavior
            | Kind::JsonOutput
            | Kind::JsonArgument
            | Kind::JsonTablePathSpec
            | Kind::JsonTableColumn
            | Kind::JsonKeyValue
            | Kind::JsonAggConstructor
            | Kind::NullTest
            | Kind::BooleanTest
            | Kind::SetToDefault
            | Kind::CurrentOfExpr
            | Kind::ParamRef
            | Kind::TypeCast
            | Kind::AStar
            | Kind::AIndices
            | Kind::AArrayExpr
            | Kind::ResTarget
            | Kind::MultiAssignRef
            | Kind::WindowDef
            | Kind::RangeFunction
            | Kind::RangeTableFunc
            | Kind::RangeTableFuncCol
            | Kind::ColumnDef
            | Kind::TableLikeClause
            | Kind::DefElem
            | Kind::LockingClause
            | Kind::PartitionSpec
            | Kind::PartitionBoundSpec
            | Kind::PartitionRangeDatum
            | Kind::PartitionCmd
            | Kind::GroupingSet
            | Kind::WithClause
            | Kind::InferClause
            | Kind::OnConflictClause
            | Kind::CTESearchClause
            | Kind::CTECycleClause
            | Kind::CommonTableExpr
            | Kind::MergeWhenClause
            | Kind::ReturningClause
            | Kind::TriggerTransition
            | Kind::ATAlterConstraint
            | Kind::ReplicaIdentityStmt
            | Kind::AccessPriv
            | Kind::StatsElem
            | Kind::FunctionParameter
            | Kind::CreateOpClassItem
            | Kind::VacuumRelation
            | Kind::PublicationTable
            | Kind::PublicationObjSpec
            | Kind::ReturnStmt
            | Kind::Integer
            | Kind::Float
            | Kind::Boolean
            | Kind::String
            | Kind::BitString
            | Kind::List
            | Kind::IntList
            | Kind::OidList
            | Kind::AConst => {}

            // Postgres makes these after parsing; the grammar never does. One of them here means that
            // libpg_query does something that we were not told about.
            Kind::TableFunc
            | Kind::Var
            | Kind::Param
            | Kind::Aggref
            | Kind::WindowFunc
            | Kind::WindowFuncRunCondition
            | Kind::SubscriptingRef
            | Kind::FuncExpr
            | Kind::OpExpr
            | Kind::DistinctExpr
            | Kind::NullIfExpr
            | Kind::ScalarArrayOpExpr
            | Kind::SubPlan
            | Kind::AlternativeSubPlan
            | Kind::FieldSelect
            | Kind::FieldStore
            | Kind::RelabelType
            | Kind::CoerceViaIO
            | Kind::ArrayCoerceExpr
            | Kind::ConvertRowtypeExpr
            | Kind::CollateExpr
            | Kind::CaseTestExpr
            | Kind::ArrayExpr
            | Kind::RowCompareExpr
            | Kind::JsonConstructorExpr
            | Kind::JsonExpr
            | Kind::JsonTablePath
            | Kind::JsonTablePathScan
            | Kind::JsonTableSiblingJoin
            | Kind::MergeAction
            | Kind::CoerceToDomain
            | Kind::CoerceToDomainValue
            | Kind::NextValueExpr
            | Kind::InferenceElem
            | Kind::ReturningExpr
            | Kind::TargetEntry
            | Kind::RangeTblRef
            | Kind::FromExpr
            | Kind::OnConflictExpr
            | Kind::Query
            | Kind::RangeTblEntry
            | Kind::RTEPermissionInfo
            | Kind::RangeTblFunction
            | Kind::TableSampleClause
            | Kind::WithCheckOption
            | Kind::SortGroupClause
            | Kind::WindowClause
            | Kind::RowMarkClause
            | Kind::SetOperationStmt
            | Kind::PLAssignStmt
            | Kind::InlineCodeBlock
            | Kind::CallContext => {
                let text = format!("has a node of the unexpected kind {:?}", node.kind());
                self.finds(StatementClass::Admin, text, None);
            }
        }
    }

    /// `{}` stands for NULL in a few lists, and for a node that libpg_query could not write.
    fn empty(&mut self, node: Node<'a>) {
        match node.place() {
            (Kind::SelectStmt, Field::DistinctClause)
            | (Kind::DefineStmt, Field::Args)
            | (Kind::ObjectWithArgs, Field::Objargs | Field::Objfuncargs) => {}
            // A FROM function is a pair of the call and its column definitions, if any.
            (Kind::List, Field::Items)
                if node
                    .holder()
                    .is_some_and(|pair| pair.place() == (Kind::RangeFunction, Field::Functions)) => {}
            (kind, field) => {
                let text = format!("has a part that is not known ({field:?} of {kind:?})");
                self.finds(StatementClass::Admin, text, None);
            }
        }
    }

    /// Syntax that came with a version: the grammar we have is the newest.
    fn needs_version(&mut self, version: u32, complaint: &str) {
        if self.around.catalogue.server_version() < version && self.found.too_new.is_none() {
            self.found.too_new = Some(complaint.to_owned());
        }
    }

    fn newer_merge(&mut self, node: Node<'a>) {
        self.needs_version(15, "syntax error at or near \"MERGE\"");
        if node.has(Field::ReturningClause) {
            self.needs_version(17, "syntax error at or near \"RETURNING\"");
        }
        let by_source =
            |branch: Node<'_>| branch.word(Field::MatchKind) == "MERGE_WHEN_NOT_MATCHED_BY_SOURCE";
        if node.list(Field::MergeWhenClauses).any(by_source) {
            self.needs_version(17, "syntax error at or near \"BY\"");
        }
    }

    /// Whether a node is only planned, because it stands in a plain EXPLAIN.
    fn is_planned(&self, node: Node<'a>) -> bool {
        node.index() < self.planned_until
    }

    /// What a statement does by being the kind of statement it is. A plan does nothing of the kind.
    fn does(&mut self, class: StatementClass, node: Node<'a>, what: &str) {
        let class = if self.is_planned(node) { StatementClass::Read } else { class };
        if class.changes_nothing() {
            self.class = self.class.max(class);
            return;
        }
        self.finds(class, what.to_owned(), Some(self.part_range.clone()));
    }

    /// What a function, operator or type does, which planning may run.
    fn calls(&mut self, class: StatementClass, node: Node<'a>, what: String) {
        if class.changes_nothing() || (class == StatementClass::Write && self.is_planned(node)) {
            return;
        }
        let span = self.span_of(node);
        self.finds(class, what, span);
    }

    fn finds(&mut self, class: StatementClass, what: String, span: Option<Range<u32>>) {
        self.otherwise = self.otherwise.max(class);
        self.finds_for_now(class, what, span);
    }

    /// The same for what may turn out to be harmless, once a name is known.
    fn finds_for_now(&mut self, class: StatementClass, what: String, span: Option<Range<u32>>) {
        self.class = self.class.max(class);
        let reasons = &mut self.found.reasons;
        if reasons.iter().any(|reason| reason.class == class && *reason.text == *what) {
            return;
        }
        let reason = Reason { class, text: what.into(), span };
        if reasons.len() < MOST_REASONS {
            reasons.push(reason);
            return;
        }
        // Whatever is left out, a reason of every class that was found stays: a policy that allows
        // one class must see that there is another.
        let is_new = !reasons.iter().any(|other| other.class == class);
        if !is_new && reasons.iter().all(|other| other.class >= class) {
            return;
        }
        let times = |wanted: StatementClass, reasons: &[Reason]| {
            reasons.iter().filter(|other| other.class == wanted).count()
        };
        let least = (0..reasons.len())
            .filter(|place| reasons.get(*place).is_some_and(|other| times(other.class, reasons) > 1))
            .min_by_key(|place| reasons.get(*place).map(|other| other.class));
        if let Some(least) = least.and_then(|place| reasons.get_mut(place))
            && (is_new || least.class < class)
        {
            *least = reason;
        }
    }

    fn effect(&mut self, verb: Verb, kind: ObjectKind, schema: Option<&str>, name: &str) {
        self.found.effects.push(Effect::of(verb, kind, schema.map(Arc::from), Arc::from(name)));
    }

    /// The text a node came from: from its location to the end of the name that starts there.
    fn span_of(&self, node: Node<'a>) -> Option<Range<u32>> {
        let start = node.location()?;
        let first = self.around.tokens.partition_point(|token| token.start < start);
        let mut tokens = self.around.tokens.get(first..)?.iter();
        let mut end = tokens.next()?.end;
        // Take in the rest of a qualified name, and a call's brackets when they close on the way.
        let mut depth = 0_u32;
        for token in tokens.take(24) {
            match token.of(self.around.text) {
                "." => {}
                "(" => depth += 1,
                ")" if depth > 0 => depth -= 1,
                _ if depth > 0 => {}
                _ if is_name(token.kind) && self.ends_in_dot(end) => {}
                _ => break,
            }
            if depth == 0 || token.of(self.around.text) != "(" {
                end = token.end;
            }
            if depth == 0 && token.of(self.around.text) == ")" {
                break;
            }
        }
        (end <= self.around.text.len() as u32).then_some(start..end)
    }

    fn ends_in_dot(&self, end: u32) -> bool {
        self.around.text.as_bytes().get((end as usize).wrapping_sub(1)) == Some(&b'.')
    }

    /// A raw statement's text, without the white space and comments around it.
    fn statement_span(&self, raw: Node<'a>) -> Range<u32> {
        let start = raw.number(Field::StmtLocation).max(0) as u32;
        let length = raw.number(Field::StmtLen).max(0) as u32;
        let end = if length == 0 { self.around.text.len() as u32 } else { start + length };
        let tokens = self.around.tokens;
        let first = tokens.partition_point(|token| token.start < start);
        let last = tokens.partition_point(|token| token.end <= end);
        let inside = tokens.get(first..last).unwrap_or(&[]);
        let is_end = |token: &&Token| token.of(self.around.text) != ";";
        match (inside.first(), inside.iter().rev().find(is_end)) {
            (Some(first), Some(last)) => first.start..last.end.max(first.end),
            _ => start..end,
        }
    }
}

fn is_name(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Word | TokenKind::QuotedName | TokenKind::UnicodeName)
}

/// A node kind's name, shared: most statements are one of a few kinds.
fn kind_name(kind: Kind) -> Arc<str> {
    use std::sync::LazyLock;
    static SELECT: LazyLock<Arc<str>> = LazyLock::new(|| "SelectStmt".into());
    static INSERT: LazyLock<Arc<str>> = LazyLock::new(|| "InsertStmt".into());
    static UPDATE: LazyLock<Arc<str>> = LazyLock::new(|| "UpdateStmt".into());
    static TRANSACTION: LazyLock<Arc<str>> = LazyLock::new(|| "TransactionStmt".into());
    if kind == Kind::SelectStmt {
        SELECT.clone()
    } else if kind == Kind::InsertStmt {
        INSERT.clone()
    } else if kind == Kind::UpdateStmt {
        UPDATE.clone()
    } else if kind == Kind::TransactionStmt {
        TRANSACTION.clone()
    } else {
        kind.name().into()
    }
}
