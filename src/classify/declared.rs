//! What only the operator knows of their database, and says in the policy: functions that are harmless, and
//! tables and columns whose rows in bulk are an export.

use std::fmt;

use super::pattern::{Glob, TablePattern, part};

/// Settings of extensions that run code, change what SQL means or guard something.
const GUARDING_SETTINGS: &[&str] = &[
    "anon.*",
    "auto_explain.*",
    "cron.*",
    "pg_cron.*",
    "pgaudit.*",
    "pljava.*",
    "plperl.*",
    "plpgsql.variable_conflict",
    "pltcl.*",
    "pltclu.*",
    "plv8.*",
    "safeupdate.*",
    "sepgsql.*",
    "set_user.*",
    "supautils.*",
];

/// What an extension reaches that no trust in its functions covers: files, the network, code or SQL that the
/// caller writes. `None` for all others.
#[must_use]
pub fn reach_of(extension: &str) -> Option<&'static str> {
    const FILES: &str = "reaches files of the server";
    const NETWORK: &str = "reaches other servers over the network";
    const CODE: &str = "runs code that its caller writes";
    const SQL: &str = "runs SQL given as a string";
    const SERVER: &str = "changes or shows what belongs to the server and to other sessions";
    Some(match extension {
        "adminpack" | "file_fdw" | "orafce" | "pg_read_file" | "pgcopydb" | "log_fdw" => FILES,
        "postgis_raster" => FILES,
        "dblink"
        | "postgres_fdw"
        | "http"
        | "pg_net"
        | "pgsql_http"
        | "aws_s3"
        | "aws_lambda"
        | "aws_commons"
        | "azure_storage"
        | "azure_ai"
        | "mysql_fdw"
        | "oracle_fdw"
        | "tds_fdw"
        | "mongo_fdw"
        | "redis_fdw"
        | "multicorn"
        | "wrappers"
        | "plproxy"
        | "ai"
        | "vectorize"
        | "google_ml_integration" => NETWORK,
        "plpgsql" | "plpython2u" | "plpython3u" | "plpythonu" | "plperl" | "plperlu" | "pltcl" | "pltclu"
        | "plv8" | "plcoffee" | "plls" | "pljava" | "pljavau" | "plr" | "plsh" | "pllua" | "plluau"
        | "plrust" | "pg_tle" | "pgtap" => CODE,
        "tablefunc"
        | "xml2"
        | "pgrouting"
        | "postgis_tiger_geocoder"
        | "postgis_topology"
        | "age"
        | "pg_ivm"
        | "hypopg"
        | "pg_background" => SQL,
        "pg_cron" | "pgagent" | "pg_partman" | "pg_repack" | "pg_squeeze" | "pg_surgery" | "pageinspect"
        | "pg_walinspect" | "pg_stat_statements" | "pg_stat_monitor" | "pg_buffercache" | "pgaudit"
        | "pg_prewarm" | "pgrowlocks" | "pg_visibility" | "pg_freespacemap" | "pgstattuple" | "amcheck"
        | "pglogical" | "citus" | "timescaledb" | "set_user" | "supautils" | "anon" | "pgsodium"
        | "supabase_vault" => SERVER,
        other if other.ends_with("_fdw") => NETWORK,
        other if other.starts_with("pl") && other.ends_with('u') => CODE,
        _ => return None,
    })
}

/// What an operator declares. Made once for each policy set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Functions whose calls are reads; sorted, without repeats.
    safe_functions: Vec<TablePattern>,
    /// Extensions whose functions are safe; sorted, without repeats.
    safe_extensions: Vec<String>,
    /// Custom settings that may be changed to anything; sorted, without repeats.
    safe_settings: Vec<Glob>,
    /// Sorted, without repeats.
    sensitive: Vec<SensitiveName>,
}

/// A table or column that is sensitive: `pii.*`, `public.users.email`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SensitiveName {
    table: TablePattern,
    /// The column, as the catalogue keeps its name; without one, the whole table.
    column: Option<Glob>,
}

/// What of a table is sensitive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sensitive<'a> {
    Nothing,
    /// These columns.
    Columns(Vec<&'a Glob>),
    Everything,
}

impl Declared {
    /// The same with functions whose calls are reads.
    #[must_use]
    pub fn with_safe_functions(mut self, functions: Vec<TablePattern>) -> Self {
        self.safe_functions = sorted(functions);
        self
    }

    /// The same with extensions whose functions are safe.
    #[must_use]
    pub fn with_safe_extensions(mut self, extensions: Vec<String>) -> Self {
        self.safe_extensions = sorted(extensions);
        self
    }

    /// The same with custom settings that may be changed to anything.
    #[must_use]
    pub fn with_safe_settings(mut self, settings: Vec<Glob>) -> Self {
        self.safe_settings = sorted(settings);
        self
    }

    /// The same with tables and columns that are sensitive.
    #[must_use]
    pub fn with_sensitive(mut self, sensitive: Vec<SensitiveName>) -> Self {
        self.sensitive = sorted(sensitive);
        self
    }

    /// Functions whose calls are reads.
    #[must_use]
    pub fn safe_functions(&self) -> &[TablePattern] {
        &self.safe_functions
    }

    /// Extensions whose functions are safe.
    #[must_use]
    pub fn safe_extensions(&self) -> &[String] {
        &self.safe_extensions
    }

    /// Custom settings that may be changed to anything.
    #[must_use]
    pub fn safe_settings(&self) -> &[Glob] {
        &self.safe_settings
    }

    /// Tables and columns that are sensitive.
    #[must_use]
    pub fn sensitive(&self) -> &[SensitiveName] {
        &self.sensitive
    }

    /// Whether calls of a function are reads because it is named.
    pub(super) fn is_safe(&self, schema: &str, function: &str) -> bool {
        self.safe_functions.iter().any(|declared| declared.matches(schema, function))
    }

    /// Whether an extension is trusted.
    pub(super) fn trusts(&self, extension: &str) -> bool {
        self.safe_extensions.iter().any(|trusted| trusted == extension) && reach_of(extension).is_none()
    }

    /// Whether a session may change a setting to anything without being asked. The server's own settings are
    /// never among them, whatever the patterns say, nor those by which an extension runs code or guards.
    #[must_use]
    pub fn allows_setting(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        name.contains('.')
            && !GUARDING_SETTINGS.iter().any(|guarding| Glob::new(guarding).matches(&name))
            && self.safe_settings.iter().any(|pattern| pattern.matches(&name))
    }

    /// What of the table `name` is sensitive, in whichever of the schemas that `is_meant` takes.
    pub(super) fn of_table(&self, is_meant: impl Fn(&Glob) -> bool, name: &str) -> Sensitive<'_> {
        let mut columns = Vec::new();
        for declared in &self.sensitive {
            if declared.table.table.matches(name) && is_meant(&declared.table.schema) {
                match &declared.column {
                    None => return Sensitive::Everything,
                    Some(column) => columns.push(column),
                }
            }
        }
        if columns.is_empty() { Sensitive::Nothing } else { Sensitive::Columns(columns) }
    }
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort();
    all.dedup();
    all
}

impl SensitiveName {
    /// Reads `schema.table` or `schema.table.column`, with `*` for any run of characters and double quotes
    /// as in [`TablePattern`].
    ///
    /// # Errors
    /// In words, when the text is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not of the form \"schema.table\" or \"schema.table.column\"");
        let (schema, rest) = part(text)?;
        let (table, rest) = part(rest.strip_prefix('.').ok_or_else(wrong)?)?;
        let (column, rest) = match rest.strip_prefix('.') {
            Some(rest) => {
                let (column, rest) = part(rest)?;
                (Some(column).filter(|column| !column.is_any()), rest)
            }
            None => (None, rest),
        };
        if rest.is_empty() {
            Ok(Self { table: TablePattern { schema, table }, column })
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for SensitiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "{}.{}", self.table, column.quoted()),
            None => self.table.fmt(f),
        }
    }
}

impl fmt::Debug for SensitiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sensitive(texts: &[&str]) -> Declared {
        Declared::default()
            .with_sensitive(texts.iter().map(|text| SensitiveName::parse(text).unwrap()).collect())
    }

    #[test]
    fn tables_and_columns_are_told_apart() {
        let declared = sensitive(&["pii.*", "public.users.email", "public.users.tax_*", "\"A.b\".t"]);
        let of = |schema: &'static str, table| declared.of_table(move |glob| glob.matches(schema), table);

        assert_eq!(of("pii", "people"), Sensitive::Everything);
        assert_eq!(of("A.b", "t"), Sensitive::Everything);
        assert_eq!(of("public", "orders"), Sensitive::Nothing);
        let Sensitive::Columns(columns) = of("public", "users") else { panic!("columns") };
        assert!(columns.iter().any(|column| column.matches("email")));
        assert!(columns.iter().any(|column| column.matches("tax_number")));
        assert!(!columns.iter().any(|column| column.matches("name")));
    }

    #[test]
    fn safe_settings_never_open_what_changes_meaning_or_guards() {
        let everything = ["*", "*.*", "app.*", "s*", "plv8.start_proc"].map(Glob::new).to_vec();
        let declared = Declared::default().with_safe_settings(everything);

        for name in ["app.tenant_id", "App.Tenant", "request.jwt.claims", "hnsw.anything"] {
            assert!(declared.allows_setting(name), "{name}");
        }
        for name in [
            "session_replication_role",
            "role",
            "search_path",
            "client_encoding",
            "standard_conforming_strings",
            "row_security",
            "plv8.start_proc",
            "PLV8.Start_Proc",
            "safeupdate.enabled",
            "plpgsql.variable_conflict",
        ] {
            assert!(!declared.allows_setting(name), "{name}");
        }
        let one = Declared::default().with_safe_settings(vec![Glob::new("*.tenant_*")]);
        assert!(one.allows_setting("app.tenant_id") && !one.allows_setting("app.user_id"));
    }

    #[test]
    fn what_is_written_otherwise_is_a_mistake() {
        for text in ["users", "users.", "a.b.c.d", ".b", "a..c", "\"a.b", "a. b"] {
            assert!(SensitiveName::parse(text).is_err(), "{text}");
        }
        for text in ["pii.*", "public.users.email", "\"A.b\".t.\"c*\""] {
            assert_eq!(SensitiveName::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(SensitiveName::parse("a.b.*").unwrap(), SensitiveName::parse("a.b").unwrap());
    }
}
