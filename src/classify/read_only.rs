//! Statements that Postgres refuses in a read-only transaction before it does anything of them.
//!
//! Two places in Postgres say which: `ClassifyUtilityCommandAsReadOnly` for utility commands, asked before
//! the command runs, and `ExecCheckXactReadOnly` for row writes, asked before the plan runs, of every
//! relation that is not temporary. What is not known here to be refused is not.

use super::{Classification, ObjectKind, SearchPath, Verb};

/// Utility commands that are not read-only, by their nodes' names: DDL, privileges, roles, TRUNCATE. Those
/// that write files, run code, move locks or maintain tables are not among them.
const REFUSED: &[&str] = &[
    "AlterCollationStmt",
    "AlterDatabaseSetStmt",
    "AlterDatabaseStmt",
    "AlterDefaultPrivilegesStmt",
    "AlterDomainStmt",
    "AlterEnumStmt",
    "AlterEventTrigStmt",
    "AlterExtensionContentsStmt",
    "AlterExtensionStmt",
    "AlterFdwStmt",
    "AlterForeignServerStmt",
    "AlterFunctionStmt",
    "AlterObjectDependsStmt",
    "AlterObjectSchemaStmt",
    "AlterOpFamilyStmt",
    "AlterOperatorStmt",
    "AlterOwnerStmt",
    "AlterPolicyStmt",
    "AlterPublicationStmt",
    "AlterRoleSetStmt",
    "AlterRoleStmt",
    "AlterSeqStmt",
    "AlterStatsStmt",
    "AlterTSConfigurationStmt",
    "AlterTSDictionaryStmt",
    "AlterTableMoveAllStmt",
    "AlterTableSpaceOptionsStmt",
    "AlterTableStmt",
    "AlterTypeStmt",
    "AlterUserMappingStmt",
    "CommentStmt",
    "CompositeTypeStmt",
    "CreateAmStmt",
    "CreateCastStmt",
    "CreateConversionStmt",
    "CreateDomainStmt",
    "CreateEnumStmt",
    "CreateEventTrigStmt",
    "CreateFdwStmt",
    "CreateForeignServerStmt",
    "CreateForeignTableStmt",
    "CreateFunctionStmt",
    "CreateOpClassStmt",
    "CreateOpFamilyStmt",
    "CreatePolicyStmt",
    "CreatePublicationStmt",
    "CreateRangeStmt",
    "CreateRoleStmt",
    "CreateSchemaStmt",
    "CreateSeqStmt",
    "CreateStatsStmt",
    "CreateStmt",
    "CreateTransformStmt",
    "CreateTrigStmt",
    "CreateUserMappingStmt",
    "DefineStmt",
    "DropOwnedStmt",
    "DropRoleStmt",
    "DropStmt",
    "DropUserMappingStmt",
    "GrantRoleStmt",
    "GrantStmt",
    "IndexStmt",
    "ReassignOwnedStmt",
    "RenameStmt",
    "RuleStmt",
    "SecLabelStmt",
    "TruncateStmt",
    "ViewStmt",
];

/// Row writes.
const WRITES: &[&str] = &["InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"];

impl Classification {
    /// Whether it is one statement that Postgres surely refuses in a read-only transaction (25006), before it
    /// does anything. `path` is where names are looked up, temporary tables among them.
    #[must_use]
    pub fn is_refused_when_read_only(&self, path: &SearchPath, has_parameters: bool) -> bool {
        let [part] = &*self.parts else { return false };
        if REFUSED.contains(&&*part.kind) {
            // The values of parameters are made before the command is looked at.
            return !has_parameters;
        }
        // What is more than a write may do something while it is planned.
        self.class.writes_rows_only() && WRITES.contains(&&*part.kind) && self.writes_a_lasting_table(path)
    }

    /// Whether one of the tables that it names and writes is surely not temporary.
    fn writes_a_lasting_table(&self, path: &SearchPath) -> bool {
        let is_temporary = |schema: &str| schema.starts_with("pg_temp");
        let finds_no_temporary = match path {
            SearchPath::Known(schemas) => !schemas.iter().any(|schema| is_temporary(schema)),
            SearchPath::Unknown => false,
        };
        self.effects.iter().any(|effect| {
            matches!(effect.verb, Verb::Insert | Verb::Update | Verb::Delete)
                && effect.kind == ObjectKind::Relation
                && effect.through.is_none()
                && !effect.cascades
                && (effect.qualified || finds_no_temporary)
                && effect.schema.as_deref().is_some_and(|schema| !is_temporary(schema))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Catalogue, Classifier, Context, Limits};
    use super::*;

    fn refused(sql: &str, schemas: &[&str]) -> bool {
        let catalogue = Catalogue::built_in(15);
        let path = SearchPath::Known(schemas.iter().map(|&schema| schema.into()).collect());
        let context = Context {
            server_version: 15,
            catalogue: &catalogue,
            search_path: &path,
            database: "app",
            role: "app",
            strings_standard: true,
        };
        let known = Classifier::new(Limits::default()).classify(&sql.into(), &context);
        known.is_refused_when_read_only(&path, false)
    }

    #[test]
    fn writes_of_lasting_tables_and_ddl_are_refused_in_a_read_only_transaction() {
        for sql in [
            "delete from public.t",
            "update public.t set a = 1",
            "insert into public.t select * from public.u",
            "truncate t",
            "create table t (a int)",
            "drop table t cascade",
            "alter table t add column b int",
            "create index concurrently on t (a)",
            "grant select on t to u",
            "create role r",
            "create view v as select 1",
            "comment on table t is 'x'",
        ] {
            assert!(refused(sql, &["public"]), "{sql}");
        }
    }

    #[test]
    fn whatever_may_do_something_is_not_counted_as_refused() {
        for sql in [
            "delete from pg_temp.t",
            "delete from public.t; select 1",
            "set transaction read write",
            "set transaction_read_only = off; delete from public.t",
            "begin read write",
            "do $$ begin end $$",
            "call p()",
            "select f()",
            "delete from public.t where f(a)",
            "copy public.t to program 'x'",
            "copy public.t from stdin",
            "vacuum public.t",
            "reindex table public.t",
            "explain analyze delete from public.t",
            "alter system set work_mem = '1MB'",
            "lock table public.t",
            "select setval('s', 1)",
            "select set_config('transaction_read_only', 'off', false)",
            "update pg_settings set setting = 'off' where name = 'transaction_read_only'",
            "execute p",
            "prepare p as delete from public.t",
            "load 'x'",
            "create extension x",
            "listen x",
            "select 1 into t",
        ] {
            assert!(!refused(sql, &["public"]), "{sql}");
        }
        assert!(!refused("delete from t", &["pg_temp", "public"]), "it may be a temporary table");
    }
}
