//! Settings, and what a statement leaves behind in the session.

use std::borrow::Cow;
use std::sync::Arc;

use super::Walk;
use crate::classify::settings::{self, Value};
use crate::classify::tree::{Field, Kind, Node};
use crate::classify::{BoundValue, Effect, ObjectKind, StatementClass, Verb};
use crate::statement::{SessionEffect, Step};

/// A constant of SET as text; `None` for anything that is computed.
fn constant(node: Node<'_>) -> Option<Cow<'_, str>> {
    if node.kind() != Kind::AConst {
        return None;
    }
    let text = |outer: Field, inner: Field| node.get(outer).map(|value| value.text(inner));
    if let Some(text) = text(Field::Sval, Field::Sval) {
        return Some(text.unwrap_or_default());
    }
    if let Some(number) = node.get(Field::Ival) {
        return Some(Cow::Owned(number.number(Field::Ival).to_string()));
    }
    if let Some(text) = text(Field::Fval, Field::Fval) {
        return text;
    }
    let flag = node.get(Field::Boolval)?;
    Some(Cow::Borrowed(if flag.flag(Field::Boolval) { "true" } else { "false" }))
}

/// What a SET gives: its values, or nothing that we can know.
fn given<'n>(node: Node<'n>) -> Option<Vec<Cow<'n, str>>> {
    node.list(Field::Args).map(constant).collect()
}

/// What is known of an argument.
enum Argument<'a> {
    Text(Cow<'a, str>),
    Null,
    /// Nobody knows before it runs.
    Computed,
}

/// `x::text` and `x::varchar`, which change no text.
fn is_text_cast(node: Node<'_>) -> bool {
    node.kind() == Kind::TypeCast
        && node.get(Field::TypeName).is_some_and(|to| {
            let names = to.names(Field::Names);
            matches!(names.last().map(|name| &**name), Some("text" | "varchar"))
                && !to.has(Field::Typmods)
                && !to.has(Field::ArrayBounds)
        })
}

/// Servers of a minor version that has it keep a session with this set from reading views and foreign tables.
const RESTRICT: &str = "restrict_nonsystem_relation_kind";

/// What every pg_dump since August 2024 asks first (CVE-2024-7348), the setting's name from the catalogue so
/// that older servers have nothing to complain of: `SELECT set_config(name, 'view, foreign-table', false)
/// FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'`. Nothing else may be in it, and no
/// setting has use for that value but this one, whatever `pg_settings` is.
fn restricts_itself(call: Node<'_>) -> bool {
    let column = |node: Option<Node<'_>>| {
        node.is_some_and(|node| node.kind() == Kind::ColumnRef && node.names(Field::Fields) == ["name"])
    };
    let literal = |node: Option<Node<'_>>, text: &str| {
        node.and_then(Node::literal).is_some_and(|literal| literal == text)
    };
    let Some(select) = call.parent().and_then(Node::holder) else { return false };
    let mut arguments = call.list(Field::Args);
    let mut tables = select.list(Field::FromClause);
    let condition = select.get(Field::WhereClause);
    column(arguments.next())
        && literal(arguments.next(), "view, foreign-table")
        && call.place() == (Kind::ResTarget, Field::Val)
        && select.kind() == Kind::SelectStmt
        && select.place() == (Kind::RawStmt, Field::Stmt)
        && select.children().all(|part| {
            matches!(
                part.field(),
                Field::TargetList | Field::FromClause | Field::WhereClause | Field::LimitOption | Field::Op
            )
        })
        && select.list(Field::TargetList).count() == 1
        && tables.next().is_some_and(|table| {
            table.kind() == Kind::RangeVar
                && table.text(Field::Relname).is_some_and(|name| name == "pg_settings")
                && !table.has(Field::Alias)
        })
        && tables.next().is_none()
        && condition.is_some_and(|condition| {
            condition.kind() == Kind::AExpr
                && condition.word(Field::Kind) == "AEXPR_OP"
                && condition.names(Field::Name) == ["="]
                && column(condition.get(Field::Lexpr))
                && literal(condition.get(Field::Rexpr), RESTRICT)
        })
}

impl<'a> Walk<'a> {
    /// SET and RESET. Inside ALTER ROLE, DATABASE, SYSTEM or FUNCTION they belong to that.
    pub(super) fn set(&mut self, node: Node<'a>) {
        if node.place() != (Kind::RawStmt, Field::Stmt) {
            return;
        }
        let name = node.text(Field::Name).unwrap_or_default().to_ascii_lowercase();
        match node.word(Field::Kind) {
            "VAR_SET_VALUE" => match given(node) {
                Some(values) => {
                    let values: Vec<&str> = values.iter().map(|value| &**value).collect();
                    self.sets(node, &name, Value::Given(&values));
                }
                None => self.sets(node, &name, Value::Computed),
            },
            "VAR_SET_DEFAULT" | "VAR_RESET" => self.sets(node, &name, Value::Default),
            // SET TRANSACTION, SET SESSION CHARACTERISTICS, SET TRANSACTION SNAPSHOT: the session's own
            // view of time.
            "VAR_SET_MULTI" => {
                let prefix = if name == "session characteristics" { "default_" } else { "" };
                self.sets_characteristics(node, Field::Args, prefix);
            }
            // Pools send it all the time, and it goes back to what the session started with.
            "VAR_RESET_ALL" => {}
            _ => self.sets(node, &name, Value::Computed),
        }
    }

    fn sets(&mut self, node: Node<'a>, name: &str, value: Value<'_>) {
        let (class, why) = self.judge(name, value);
        self.effect(Verb::Set, ObjectKind::Setting, None, name);
        self.becomes(name, value);
        if let Some(why) = why {
            self.does(class, node, &format!("sets {name}, which {why}"));
        } else if let Some(why) = self.around.catalogue.guards().loosened_by(name, value) {
            self.does(StatementClass::Settings, node, &format!("sets {name}, which {why}"));
        }
    }

    /// The characteristics of a transaction are settings.
    fn sets_characteristics(&mut self, node: Node<'a>, options: Field, prefix: &str) {
        for option in node.list(options) {
            let Some(name) = option.text(Field::Defname) else { continue };
            let name = format!("{prefix}{name}");
            let value = option.get(Field::Arg).and_then(constant);
            let value = value.as_deref();
            let loosened = match &value {
                Some(value) => self.around.catalogue.guards().loosened_by(&name, Value::Given(&[value])),
                None => self.around.catalogue.guards().loosened_by(&name, Value::Computed),
            };
            if let Some(why) = loosened {
                self.effect(Verb::Set, ObjectKind::Setting, None, &name);
                self.does(StatementClass::Settings, node, &format!("sets {name}, which {why}"));
            }
        }
    }

    /// The role that a session will act as, for rules by `set_role`.
    fn becomes(&mut self, name: &str, value: Value<'_>) {
        if matches!(name, "role" | "session_authorization") {
            let role = match value {
                Value::Given([role]) => *role,
                Value::Default => "none",
                Value::Given(_) | Value::Computed => Effect::UNKNOWN_NAME,
            };
            self.effect(Verb::Set, ObjectKind::Role, None, role);
        }
    }

    /// `set_config(name, value, is_local)`: SET as a function, so that name and value can be computed.
    pub(super) fn set_config(&mut self, node: Node<'a>) {
        if node.index() >= self.later_until && !self.is_planned(node) {
            self.config_calls.push(node.index());
        }
        if restricts_itself(node) {
            return self.effect(Verb::Set, ObjectKind::Setting, None, RESTRICT);
        }
        let (name, value) = (self.argument(node, 0), self.argument(node, 1));
        let Argument::Text(name) = name else {
            self.may_change_settings = true;
            self.effect(Verb::Set, ObjectKind::Setting, None, Effect::UNKNOWN_NAME);
            let what = "calls set_config for a setting that only the server will know".to_owned();
            return self.calls(StatementClass::Settings, node, what);
        };
        let name = name.to_ascii_lowercase();
        // In a cursor or a prepared statement it happens later, and in a plan never; to ask costs little.
        self.may_change_settings |= settings::decides_names(&name);
        self.effect(Verb::Set, ObjectKind::Setting, None, &name);
        match &value {
            Argument::Null => self.becomes(&name, Value::Default),
            Argument::Text(value) => self.becomes(&name, Value::Given(&[value])),
            Argument::Computed => self.becomes(&name, Value::Computed),
        }
        let (class, why) = match &value {
            Argument::Null => self.judge(&name, Value::Default),
            Argument::Computed => self.judge(&name, Value::Computed),
            Argument::Text(value) if name == "search_path" => match settings::split_search_path(value) {
                Some(schemas) => {
                    let schemas: Vec<&str> = schemas.iter().map(String::as_str).collect();
                    self.judge(&name, Value::Given(&schemas))
                }
                None => (StatementClass::Settings, Some("is set to something that is no list of schemas")),
            },
            Argument::Text(value) => self.judge(&name, Value::Given(&[value])),
        };
        let guards = self.around.catalogue.guards();
        let loosened = match &value {
            Argument::Null => guards.loosened_by(&name, Value::Default),
            Argument::Computed => guards.loosened_by(&name, Value::Computed),
            Argument::Text(value) => guards.loosened_by(&name, Value::Given(&[value])),
        };
        if let (None, Some(why)) = (why, loosened) {
            return self.calls(
                StatementClass::Settings,
                node,
                format!("calls set_config for {name}, which {why}"),
            );
        }
        if let Some(why) = why {
            return self.calls(class, node, format!("calls set_config for {name}, which {why}"));
        }
        // Where names are looked up must be known for every later statement, so it may only be changed
        // where it surely happens, once and now.
        if name == "search_path" && !self.surely_runs(node) {
            let what = "calls set_config for search_path where it may run never, later or often".to_owned();
            self.calls(StatementClass::Settings, node, what);
        }
    }

    /// What a setting's new value means, for this session.
    fn judge(&mut self, name: &str, value: Value<'_>) -> (StatementClass, Option<&'static str>) {
        self.found.notes.other_encoding |= settings::is_other_encoding(name, value);
        let judged = settings::judge(name, value, self.around.catalogue.declared());
        if judged.0 == StatementClass::Identity {
            self.found.notes.needs_identity = true;
            if self.identity.is_some_and(|identity| settings::keeps_identity(name, value, identity)) {
                return (StatementClass::Session, None);
            }
        }
        judged
    }

    /// An argument of `set_config`: a literal, or a parameter whose value is known.
    fn argument(&mut self, call: Node<'a>, place: usize) -> Argument<'a> {
        let Some(mut node) = call.list(Field::Args).nth(place) else { return Argument::Computed };
        if let Some(text) = node.literal() {
            return Argument::Text(text);
        }
        if is_text_cast(node) {
            let Some(inner) = node.get(Field::Arg) else { return Argument::Computed };
            node = inner;
        }
        if node.flag(Field::Isnull) {
            return Argument::Null;
        }
        if node.kind() != Kind::ParamRef {
            return Argument::Computed;
        }
        self.found.notes.needs_values = true;
        let place = usize::try_from(node.number(Field::Number)).unwrap_or_default().wrapping_sub(1);
        match self.around.here.values.get(place) {
            Some(BoundValue::Text(text)) => Argument::Text(Cow::Borrowed(text)),
            Some(BoundValue::Null) => Argument::Null,
            Some(BoundValue::Unknown) | None => Argument::Computed,
        }
    }

    /// Whether a call is a column of a plain `SELECT ..;`.
    fn surely_runs(&self, call: Node<'a>) -> bool {
        let plain = |select: Node<'_>| {
            select.kind() == Kind::SelectStmt
                && select.place() == (Kind::RawStmt, Field::Stmt)
                // Nothing but columns; the other two are words that every SELECT has.
                && select
                    .children()
                    .all(|part| matches!(part.field(), Field::TargetList | Field::LimitOption | Field::Op))
        };
        let column = call.parent().filter(|parent| parent.kind() == Kind::ResTarget);
        call.index() >= self.later_until
            && !self.is_planned(call)
            && column.is_some_and(|column| column.holder().is_some_and(plain))
    }

    /// BEGIN and its kind; two-phase commit keeps locks beyond the session.
    pub(super) fn transaction(&mut self, node: Node<'a>) {
        if matches!(
            node.word(Field::Kind),
            "TRANS_STMT_PREPARE" | "TRANS_STMT_COMMIT_PREPARED" | "TRANS_STMT_ROLLBACK_PREPARED"
        ) {
            self.does(StatementClass::Admin, node, "uses two-phase commit");
        }
        self.sets_characteristics(node, Field::Options, "");
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most statements leave the session as it is")]
    /// What the whole raw statement does to the session, when upstream confirms it.
    pub(super) fn step(&mut self, root: Node<'a>) -> Step {
        let mut effects = Vec::new();
        let name = |field| -> Arc<str> { root.text(field).unwrap_or_default().into() };
        match root.kind() {
            Kind::PrepareStmt => effects.push(SessionEffect::Prepare(name(Field::Name))),
            Kind::DeallocateStmt if root.flag(Field::Isall) => effects.push(SessionEffect::DeallocateAll),
            Kind::DeallocateStmt => effects.push(SessionEffect::Deallocate(name(Field::Name))),
            Kind::DeclareCursorStmt => effects.push(SessionEffect::Declare(name(Field::Portalname))),
            Kind::FetchStmt => effects.push(SessionEffect::Fetch(name(Field::Portalname))),
            // No name is CLOSE ALL.
            Kind::ClosePortalStmt => effects.push(match root.text(Field::Portalname) {
                Some(name) => SessionEffect::CloseCursor(name.into()),
                None => SessionEffect::CloseAllCursors,
            }),
            Kind::DiscardStmt if root.word(Field::Target) == "DISCARD_ALL" => {
                effects.push(SessionEffect::DiscardAll)
            }
            Kind::TransactionStmt => transaction_effects(root, &mut effects),
            Kind::VariableSetStmt => set_effects(root, &mut effects),
            // A file or program is not the session's business.
            Kind::CopyStmt if !root.has(Field::Filename) => {
                effects.push(if root.flag(Field::IsFrom) {
                    SessionEffect::CopyIn
                } else {
                    SessionEffect::CopyOut
                });
            }
            _ => {}
        }
        self.set_config_effects(&mut effects);
        // EXECUTE may stand inside EXPLAIN and CREATE TABLE AS. One raw statement has at most one.
        let used = self.found.names.last().filter(|used| used.part == self.part);
        effects.extend(used.map(|used| SessionEffect::Execute(used.name.clone())));
        if self.changes_catalogue(root.kind()) {
            // What is in a temporary schema, no other session can name.
            let own = self.temporary && !self.class.is_privileged();
            if !own {
                effects.push(SessionEffect::CatalogueChange);
            }
            // A view of a temporary table is a temporary one, whatever it is called.
            if root.kind() == Kind::ViewStmt {
                effects.push(SessionEffect::OwnCatalogueChange);
            }
        }
        // Code may make some as well.
        if self.temporary || self.class == StatementClass::Code {
            effects.push(SessionEffect::TemporaryRelation);
        }
        if self.class == StatementClass::Code {
            effects.push(SessionEffect::PathUnknown);
        }
        if commits_by_itself(root) {
            effects.push(SessionEffect::CommitsByItself);
        }
        // So may whatever writes to `pg_settings`, and what nobody here knows.
        let unseen = matches!(self.class, StatementClass::Settings | StatementClass::Admin)
            && !matches!(root.kind(), Kind::VariableSetStmt | Kind::TransactionStmt);
        if self.may_change_settings || unseen {
            effects.push(SessionEffect::MayChangeSettings);
        }
        Step { effects }
    }

    /// Calls of set_config with known arguments, as far as they run now.
    fn set_config_effects(&mut self, effects: &mut Vec<SessionEffect>) {
        for index in self.config_calls.clone() {
            let Some(call) = self.tree.node(index) else { continue };
            let Argument::Text(name) = self.argument(call, 0) else { continue };
            let name = name.to_ascii_lowercase();
            // What decides names is asked for, and never read along.
            if settings::decides_names(&name) {
                continue;
            }
            let value = match self.argument(call, 1) {
                Argument::Text(value) => Some(value.into()),
                Argument::Null | Argument::Computed => None,
            };
            let local = call.list(Field::Args).nth(2).and_then(|local| local.get(Field::Boolval));
            effects.push(SessionEffect::Set {
                name: name.into(),
                value,
                // Anything but a literal `true` may be false, which lasts longer.
                local: local.is_some_and(|flag| flag.flag(Field::Boolval)),
            });
        }
    }

    fn changes_catalogue(&self, root: Kind) -> bool {
        // Neither do these, nor does dropping privileges or settings, change what names mean.
        let names_nothing = matches!(
            root,
            Kind::IndexStmt | Kind::CommentStmt | Kind::CreateStatsStmt | Kind::AlterStatsStmt
        );
        if names_nothing && self.class == StatementClass::Ddl {
            return false;
        }
        matches!(self.class, StatementClass::Ddl | StatementClass::Code | StatementClass::ServerIo)
            || matches!(
                root,
                Kind::CreateSchemaStmt
                    | Kind::DropOwnedStmt
                    | Kind::ReassignOwnedStmt
                    | Kind::ImportForeignSchemaStmt
                    // The search_path of the next session.
                    | Kind::AlterRoleSetStmt
                    | Kind::AlterDatabaseSetStmt
                    | Kind::AlterSystemStmt
            )
            || (root == Kind::ViewStmt || root == Kind::CreateDomainStmt || root == Kind::CreateStmt)
            || (self.class.is_privileged()
                && self.class != StatementClass::Ddl
                && matches!(
                    root,
                    Kind::DropStmt | Kind::AlterTableStmt | Kind::RenameStmt | Kind::CreateTableAsStmt
                ))
    }
}

/// Commands that end transactions of their own while they run, so that an error does not undo all of
/// them: those that Postgres refuses inside a block (`PreventInTransactionBlock`), procedures and `DO`.
#[expect(clippy::wildcard_enum_match_arm, reason = "few commands do")]
fn commits_by_itself(root: Node<'_>) -> bool {
    match root.kind() {
        Kind::CallStmt
        | Kind::DoStmt
        | Kind::VacuumStmt
        | Kind::ClusterStmt
        | Kind::ReindexStmt
        | Kind::CreatedbStmt
        | Kind::DropdbStmt
        | Kind::AlterDatabaseStmt
        | Kind::CreateTableSpaceStmt
        | Kind::DropTableSpaceStmt
        | Kind::AlterSystemStmt
        | Kind::CreateSubscriptionStmt
        | Kind::AlterSubscriptionStmt
        | Kind::DropSubscriptionStmt => true,
        Kind::IndexStmt | Kind::DropStmt => root.flag(Field::Concurrent),
        // DETACH PARTITION .. CONCURRENTLY
        Kind::AlterTableStmt => root.list(Field::Cmds).any(|command| {
            command
                .get(Field::Def)
                .is_some_and(|def| def.kind() == Kind::PartitionCmd && def.flag(Field::Concurrent))
        }),
        _ => false,
    }
}

fn transaction_effects(root: Node<'_>, effects: &mut Vec<SessionEffect>) {
    let chain = root.flag(Field::Chain);
    match root.word(Field::Kind) {
        "TRANS_STMT_BEGIN" | "TRANS_STMT_START" => {
            effects.push(SessionEffect::Begin);
            characteristics(root.list(Field::Options), "", true, effects);
        }
        "TRANS_STMT_COMMIT" => effects.push(SessionEffect::Commit { chain }),
        "TRANS_STMT_PREPARE" => effects.push(SessionEffect::Commit { chain: false }),
        "TRANS_STMT_ROLLBACK" => effects.push(SessionEffect::Rollback { chain }),
        "TRANS_STMT_SAVEPOINT" => effects.push(SessionEffect::Savepoint),
        "TRANS_STMT_ROLLBACK_TO" => effects.push(SessionEffect::RollbackToSavepoint),
        _ => {}
    }
}

/// `ISOLATION LEVEL ..`, `READ ONLY`, `DEFERRABLE`: options named like the settings they are.
fn characteristics<'n>(
    options: impl Iterator<Item = Node<'n>>,
    prefix: &str,
    local: bool,
    effects: &mut Vec<SessionEffect>,
) {
    for option in options {
        let Some(name) = option.text(Field::Defname) else { continue };
        effects.push(SessionEffect::Set {
            name: format!("{prefix}{name}").into(),
            value: option.get(Field::Arg).and_then(constant).map(Into::into),
            local,
        });
    }
}

fn set_effects(root: Node<'_>, effects: &mut Vec<SessionEffect>) {
    let name = root.text(Field::Name).unwrap_or_default().to_ascii_lowercase();
    let local = root.flag(Field::IsLocal);
    match root.word(Field::Kind) {
        "VAR_RESET_ALL" => effects.push(SessionEffect::ResetAll),
        "VAR_SET_MULTI" if name == "transaction" => {
            characteristics(root.list(Field::Args), "", true, effects);
        }
        "VAR_SET_MULTI" if name == "session characteristics" => {
            characteristics(root.list(Field::Args), "default_", false, effects);
        }
        "VAR_SET_MULTI" => {}
        "VAR_SET_VALUE" => {
            let values = given(root).unwrap_or_default();
            effects.push(SessionEffect::Set {
                name: name.into(),
                value: Some(values.join(", ").into()),
                local,
            });
        }
        _ => effects.push(SessionEffect::Set { name: name.into(), value: None, local }),
    }
}
