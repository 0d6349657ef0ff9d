//! What Postgres itself brings: its functions and their classes, types, operators and relations.
//!
//! The facts come from `fixtures/functions/*.tsv`, read from freshly initialised servers of each
//! version by `fixtures/functions/generate.py`. The judgement is one rule and a list of exceptions:
//! a function of `pg_catalog` or `information_schema` all of whose overloads are immutable or stable
//! and executable by everybody is `read`; [`exceptions`] names the others that we know; everything
//! else is `code`, because nobody can tell from a statement what it does.

mod exceptions;

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use super::StatementClass;

/// The oldest and the newest major version we have tables for.
pub const SERVER_VERSIONS: std::ops::RangeInclusive<u32> = 14..=18;

/// One of Postgres's own functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BuiltIn {
    /// What a call of it is.
    pub(super) class: StatementClass,
    /// Completes "calls f, which ..".
    pub(super) why: &'static str,
    /// Whether some overload takes one argument, so that `x.f` calls it.
    pub(super) takes_one: bool,
    /// Each call leaves something behind, or takes some of what the whole server shares. One call is what
    /// its class says; one for each row of a query is a mass write.
    pub(super) lasts: bool,
}

/// Who may read a relation of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SystemRelation {
    /// Whether it shows credentials or other people's data.
    pub(super) sensitive: bool,
}

/// How the names of the dangerous families start.
const FAMILIES: [&str; 3] = ["pg_", "lo_", "dblink"];

/// A table by name: looked up several times in each statement, so with a fast hash.
type ByName<T> = HashMap<&'static str, T, lru::DefaultHasher>;

/// Everything that one server version brings.
#[derive(Debug, Default)]
pub(super) struct BuiltIns {
    functions: ByName<BuiltIn>,
    information_functions: ByName<BuiltIn>,
    types: HashSet<&'static str, lru::DefaultHasher>,
    operators: HashSet<&'static str, lru::DefaultHasher>,
    relations: ByName<SystemRelation>,
    information_relations: ByName<SystemRelation>,
}

const FUNCTIONS: &str = include_str!("../../../fixtures/functions/functions.tsv");
const TYPES: &str = include_str!("../../../fixtures/functions/types.tsv");
const OPERATORS: &str = include_str!("../../../fixtures/functions/operators.tsv");
const RELATIONS: &str = include_str!("../../../fixtures/functions/relations.tsv");

const AGGREGATES: &str = include_str!("../../../fixtures/functions/aggregates.txt");
const SETS: &str = include_str!("../../../fixtures/functions/set_returning.txt");

/// Names of types that only the grammar knows; it turns them into others.
const GRAMMAR_TYPES: [&str; 8] =
    ["int", "integer", "smallint", "bigint", "real", "float", "decimal", "boolean"];

/// Public to all, yet of no use but for reading secrets: the options of user mappings hold passwords.
const SENSITIVE: [&str; 2] = ["pg_user_mappings", "user_mapping_options"];
/// For superusers only, yet without a secret.
const NOT_SENSITIVE: [&str; 2] = ["sql_parts", "transforms"];

static TABLES: [LazyLock<BuiltIns>; 5] = [
    LazyLock::new(|| BuiltIns::read(14)),
    LazyLock::new(|| BuiltIns::read(15)),
    LazyLock::new(|| BuiltIns::read(16)),
    LazyLock::new(|| BuiltIns::read(17)),
    LazyLock::new(|| BuiltIns::read(18)),
];

/// The tables of a server version; the nearest one we have for others.
pub(super) fn built_ins(server_version: u32) -> &'static BuiltIns {
    static NONE: LazyLock<BuiltIns> = LazyLock::new(BuiltIns::default);
    let version = server_version.clamp(*SERVER_VERSIONS.start(), *SERVER_VERSIONS.end());
    // Without a table every function is unknown, and so held.
    TABLES.get((version - SERVER_VERSIONS.start()) as usize).unwrap_or(&NONE)
}

/// The rows of a table that are there in `version`, without their last column.
fn rows<const N: usize>(table: &'static str, version: u32) -> impl Iterator<Item = [&'static str; N]> {
    // Some operators start with a `#` as well, so the header is known by its words.
    table.lines().filter(|line| !line.starts_with("# generated")).filter_map(move |line| {
        let (columns, versions) = line.rsplit_once('\t')?;
        if !includes(versions, version) {
            return None;
        }
        let mut row = [""; N];
        for (place, column) in row.iter_mut().zip(columns.split('\t')) {
            *place = column;
        }
        Some(row)
    })
}

/// Whether `14-16,18` holds a version.
fn includes(versions: &str, version: u32) -> bool {
    versions.split(',').any(|span| {
        let (from, to) = span.split_once('-').unwrap_or((span, span));
        let bound = |text: &str| text.parse::<u32>().ok();
        matches!((bound(from), bound(to)), (Some(from), Some(to)) if (from..=to).contains(&version))
    })
}

impl BuiltIns {
    fn read(version: u32) -> Self {
        let mut tables = Self::default();
        for [schema, name, volatility, acl, one] in rows(FUNCTIONS, version) {
            let function = judge(name, volatility, acl, one);
            if schema == "pg_catalog" {
                tables.functions.insert(name, function);
            } else {
                tables.information_functions.insert(name, function);
            }
        }
        tables.types.extend(rows(TYPES, version).map(|[_, name, _]: [&str; 3]| name).chain(GRAMMAR_TYPES));
        // An operator is only as harmless as the function behind it.
        tables.operators.extend(
            rows(OPERATORS, version)
                .filter(|[_, volatility]| !volatility.contains('v'))
                .map(|[name, _]| name),
        );
        for [schema, name, _, acl] in rows(RELATIONS, version) {
            let sensitive =
                (acl == "restricted" && !NOT_SENSITIVE.contains(&name)) || SENSITIVE.contains(&name);
            if schema == "pg_catalog" {
                tables.relations.insert(name, SystemRelation { sensitive });
            } else {
                tables.information_relations.insert(name, SystemRelation { sensitive });
            }
        }
        tables
    }

    /// A function of `pg_catalog`.
    pub(super) fn function(&self, name: &str) -> Option<BuiltIn> {
        self.functions.get(name).copied()
    }

    /// A function of `information_schema`.
    pub(super) fn information_function(&self, name: &str) -> Option<BuiltIn> {
        self.information_functions.get(name).copied()
    }

    /// Whether `pg_catalog` has a type of that name.
    pub(super) fn has_type(&self, name: &str) -> bool {
        self.types.contains(name)
    }

    /// Whether `pg_catalog` has an operator of that name.
    pub(super) fn has_operator(&self, name: &str) -> bool {
        self.operators.contains(name)
    }

    /// A relation of `pg_catalog`.
    pub(super) fn relation(&self, name: &str) -> Option<SystemRelation> {
        self.relations.get(name).copied()
    }

    /// A relation of `information_schema`.
    pub(super) fn information_relation(&self, name: &str) -> Option<SystemRelation> {
        self.information_relations.get(name).copied()
    }
}

fn judge(name: &'static str, volatility: &str, acl: &str, one: &str) -> BuiltIn {
    let takes_one = one == "one";
    if let Some((_, class, why)) = exceptions::exception(name) {
        return BuiltIn { class: *class, why, takes_one, lasts: exceptions::lasts(name) };
    }
    if !volatility.contains('v') && acl == "public" {
        return BuiltIn { class: StatementClass::Read, why: "only reads", takes_one, lasts: false };
    }
    let why = if acl == "public" { "is volatile and not on the allow-list" } else { "is not for everybody" };
    BuiltIn { class: StatementClass::Code, why, takes_one, lasts: false }
}

/// Whether a name is one of Postgres's own aggregates in every overload that it has.
pub(super) fn is_aggregate(name: &str) -> bool {
    AGGREGATES.split_ascii_whitespace().any(|known| known == name)
}

/// Whether a name is one of Postgres's own functions that return sets of rows.
pub(super) fn is_set_returning(name: &str) -> bool {
    SETS.split_ascii_whitespace().any(|known| known == name)
}

/// The class of a name that is dangerous in whatever schema it was installed: extensions go anywhere.
pub(super) fn family(name: &str) -> Option<(StatementClass, &'static str)> {
    // Asked for every column that is written with its table, so most must cost next to nothing.
    if !FAMILIES.iter().any(|start| name.starts_with(start)) {
        return None;
    }
    let (_, class, why) = exceptions::exception(name)?;
    (*class == StatementClass::ServerIo).then_some((*class, *why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_spans() {
        assert!(includes("14-16,18", 15) && includes("14-16,18", 18));
        assert!(!includes("14-16,18", 17) && !includes("", 14));
    }

    #[test]
    fn the_rule_and_its_exceptions_give_each_function_its_class() {
        use StatementClass::{Admin, Code, Export, Read, ServerIo, Settings, Write};
        let cases = [
            ("lower", Some(Read)),
            ("now", Some(Read)),
            ("jsonb_path_query", Some(Read)),
            ("nextval", Some(Write)),
            ("pg_read_file", Some(ServerIo)),
            ("lo_import", Some(ServerIo)),
            ("table_to_xml", Some(Export)),
            ("query_to_xml", Some(Code)),
            ("ts_rewrite", Some(Code)),
            ("set_config", Some(Settings)),
            ("pg_terminate_backend", Some(Admin)),
            ("plpgsql_call_handler", Some(Code)),
            ("no_such_function", None),
        ];
        for version in SERVER_VERSIONS {
            for (name, class) in cases {
                assert_eq!(built_ins(version).function(name).map(|f| f.class), class, "{name} on {version}");
            }
        }
        assert_eq!(built_ins(15).function("random_normal"), None);
        assert_eq!(built_ins(16).function("random_normal").map(|f| f.class), Some(Read));
    }

    #[test]
    fn each_dangerous_family_is_known_by_its_start() {
        let dangerous =
            exceptions::EXCEPTIONS.iter().filter(|(_, class, _)| *class == StatementClass::ServerIo);
        for (name, ..) in dangerous {
            assert!(FAMILIES.iter().any(|start| name.starts_with(start)), "{name}");
        }
        assert!(family("dblink_exec").is_some() && family("lower").is_none() && family("pg_sleep").is_none());
    }

    /// Whoever regenerates the tables sees here which functions the rule newly lets through.
    #[test]
    fn nothing_that_smells_of_files_or_sql_is_on_the_list() {
        let smells =
            ["read_file", "ls_dir", "import", "export", "exec", "dblink", "_to_xml", "slot_", "program"];
        let known = ["jsonb_exists", "pg_get_replication_slots", "pg_stat_get_replication_slot"];
        for version in SERVER_VERSIONS {
            for [_, name, ..] in rows::<5>(FUNCTIONS, version) {
                let smelly = smells.iter().any(|smell| name.contains(smell));
                let harmless = built_ins(version).function(name).is_some_and(|f| !f.class.is_privileged());
                let expected =
                    known.iter().any(|known| name.starts_with(known)) || name == "pg_export_snapshot";
                assert!(!smelly || !harmless || expected, "{name} on {version}");
            }
        }
    }

    #[test]
    fn secrets_are_known_by_their_privileges() {
        let tables = built_ins(15);
        let sensitive = |name| tables.relation(name).is_some_and(|relation| relation.sensitive);

        for name in ["pg_authid", "pg_shadow", "pg_user_mapping", "pg_user_mappings", "pg_subscription"] {
            assert!(sensitive(name), "{name}");
        }
        for name in ["pg_largeobject", "pg_statistic", "pg_statistic_ext_data", "pg_hba_file_rules"] {
            assert!(sensitive(name), "{name}");
        }
        for name in
            ["pg_class", "pg_stats", "pg_stat_activity", "pg_roles", "pg_user", "pg_largeobject_metadata"]
        {
            assert!(tables.relation(name).is_some() && !sensitive(name), "{name}");
        }
    }
}
