//! Patterns for names and for tables.

use std::fmt;

/// A name in which `*` stands for any run of characters, none included. Case matters, as it does in
/// Postgres's catalogue and in the names an operator gives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glob {
    /// What stands between the stars; one more than there are stars.
    parts: Vec<Box<str>>,
}

impl Glob {
    /// Reads a pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self { parts: pattern.split('*').map(Box::from).collect() }
    }

    /// A pattern that matches `name` only, stars and all.
    #[must_use]
    pub fn literal(name: &str) -> Self {
        Self { parts: vec![name.into()] }
    }

    /// As it is written in a pattern of several names.
    pub(super) fn quoted(&self) -> String {
        let text = self.to_string();
        let quoted = self.is_literal() && text.contains(['*', '.', ' ']);
        if quoted { format!("\"{text}\"") } else { text }
    }

    /// Whether every name matches.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.parts.len() > 1 && self.parts.iter().all(|part| part.is_empty())
    }

    /// Whether one name at most matches.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.parts.len() == 1
    }

    /// Whether `name` matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let [first, middle @ .., last] = self.parts.as_slice() else {
            return self.parts.first().is_some_and(|only| **only == *name);
        };
        let Some(rest) = name.strip_prefix(&**first) else { return false };
        let Some(mut rest) = rest.strip_suffix(&**last) else { return false };
        // Taking each part where it first occurs leaves the most room for those that follow.
        for part in middle {
            let Some((_, after)) = rest.split_once(&**part) else { return false };
            rest = after;
        }
        true
    }

    /// Whether every name that matches `other` surely matches this; says `false` when unsure.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.is_any()
            || self == other
            || (other.is_literal() && other.parts.iter().all(|name| self.matches(name)))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts.join("*"))
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// A pattern for tables: `public.customers`, `pii.*`, `*.audit_*`, `"Sales"."Q1.2026"`.
///
/// The schema must be given. A bare `customers` would have to mean either "in any schema", which
/// is too much for an allow, or "in `public`", which is too little for a hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TablePattern {
    /// The schema.
    pub schema: Glob,
    /// The table, view, sequence or whatever else is a relation.
    pub table: Glob,
}

impl TablePattern {
    /// Reads a pattern. Names are as the catalogue keeps them, so unquoted SQL names are in lower
    /// case. A part in double quotes is taken literally: dots and stars in it are part of the name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (schema, rest) = part(text)?;
        let Some(rest) = rest.strip_prefix('.') else {
            return Err(format!(
                "\"{text}\" does not name a schema; write \"public.{text}\", or \"*.{text}\" for every schema"
            ));
        };
        let (table, rest) = part(rest)?;
        if !rest.is_empty() {
            return Err(format!(
                "\"{text}\" has more than a schema and a table; put names with dots in double quotes"
            ));
        }
        Ok(Self { schema, table })
    }

    /// Whether the table `schema.table` matches.
    #[must_use]
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        self.schema.matches(schema) && self.table.matches(table)
    }

    /// Whether some table in `schema` can match: what is done to a schema is done to its tables.
    #[must_use]
    pub fn may_match_in(&self, schema: &str) -> bool {
        self.schema.matches(schema)
    }

    /// Whether every table in `schema` matches.
    #[must_use]
    pub fn matches_all_of(&self, schema: &str) -> bool {
        self.schema.matches(schema) && self.table.is_any()
    }

    /// Whether every table that matches `other` surely matches this.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.schema.covers(&other.schema) && self.table.covers(&other.table)
    }
}

/// The first name of `text` and what follows it.
pub(super) fn part(text: &str) -> Result<(Glob, &str), String> {
    if let Some(quoted) = text.strip_prefix('"') {
        let Some((name, rest)) = quoted.split_once('"') else {
            return Err(format!("the double quote in {text:?} is not closed"));
        };
        if name.is_empty() {
            return Err("a name is empty".to_owned());
        }
        return Ok((Glob::literal(name), rest));
    }
    let end = text.find('.').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '"') {
        return Err(format!("\"{text}\" is not a table pattern such as \"public.customers\" or \"pii.*\""));
    }
    Ok((Glob::new(name), rest))
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema.quoted(), self.table.quoted())
    }
}

impl fmt::Debug for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_stand_for_any_run_of_characters() {
        for (pattern, name) in
            [("*", ""), ("*", "x"), ("pii*", "pii"), ("*_bot", "a_bot"), ("a*b*c", "abbbc"), ("a*a", "aa")]
        {
            assert!(Glob::new(pattern).matches(name), "{pattern} {name}");
        }
        for (pattern, name) in [("a*a", "a"), ("pii", "PII"), ("a*b*c", "acb"), ("", "x"), ("*ab*ab*", "ab")]
        {
            assert!(!Glob::new(pattern).matches(name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_table_pattern_names_a_schema() {
        assert!(TablePattern::parse("customers").unwrap_err().contains("public.customers"));
        assert!(TablePattern::parse("a.b.c").is_err());
        assert!(TablePattern::parse("\"a.b").is_err());
        let quoted = TablePattern::parse("\"Sales\".\"Q1.*\"").unwrap();
        assert!(quoted.matches("Sales", "Q1.*"));
        assert!(!quoted.matches("Sales", "Q1.2026"));
        assert_eq!(quoted.to_string(), "Sales.\"Q1.*\"");
    }

    proptest! {
        #[test]
        fn a_glob_agrees_with_trying_every_split(pattern in "[ab*]{0,6}", name in "[ab]{0,6}") {
            fn slow(pattern: &[u8], name: &[u8]) -> bool {
                match pattern.split_first() {
                    None => name.is_empty(),
                    Some((b'*', rest)) => (0..=name.len()).any(|n| slow(rest, &name[n..])),
                    Some((c, rest)) => name.split_first().is_some_and(|(d, name)| c == d && slow(rest, name)),
                }
            }
            prop_assert_eq!(Glob::new(&pattern).matches(&name), slow(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
