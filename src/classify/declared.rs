//! What only the operator knows of their database, and says in the policy: functions that are harmless, and
//! tables and columns whose rows in bulk are an export.

use std::fmt;

use super::pattern::{Glob, TablePattern, part};

/// What an operator declares. Made once for each policy set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// `schema.function` and `schema.*`, whose calls are reads; sorted, without repeats.
    safe_functions: Vec<String>,
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
    /// What these lists say, in any order.
    #[must_use]
    pub fn new(mut safe_functions: Vec<String>, mut sensitive: Vec<SensitiveName>) -> Self {
        safe_functions.sort();
        safe_functions.dedup();
        sensitive.sort();
        sensitive.dedup();
        Self { safe_functions, sensitive }
    }

    /// Functions whose calls are reads, as `schema.function` or `schema.*`.
    #[must_use]
    pub fn safe_functions(&self) -> &[String] {
        &self.safe_functions
    }

    /// Tables and columns that are sensitive.
    #[must_use]
    pub fn sensitive(&self) -> &[SensitiveName] {
        &self.sensitive
    }

    pub(super) fn is_safe(&self, schema: &str, function: &str) -> bool {
        let named = |declared: &&String| {
            declared.split_once('.').is_some_and(|(s, f)| s == schema && (f == "*" || f == function))
        };
        self.safe_functions.iter().find(named).is_some()
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
        Declared::new(Vec::new(), texts.iter().map(|text| SensitiveName::parse(text).unwrap()).collect())
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
