//! What `DROP .. CASCADE` takes along.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::QualifiedName;

/// Something that depends on a relation.
#[derive(Debug)]
enum Dependent {
    /// Another relation, or a constraint, default, trigger of one.
    Relation { name: QualifiedName, is_view: bool },
    /// A table that inherits its columns.
    Heir(QualifiedName),
    /// A partition, which goes without being asked for.
    Partition(QualifiedName),
    /// A function, or whatever else is no part of a relation.
    Other,
}

/// What is lost with a relation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::classify) struct TakenAlong {
    /// Other relations, and whether they are dropped rather than altered; sorted.
    pub(in crate::classify) relations: Vec<(QualifiedName, bool)>,
    /// More than relations, or nobody knows what.
    pub(in crate::classify) others: bool,
}

/// All of a database, by the relation on which they depend.
#[derive(Debug, Default)]
pub(super) struct Dependents(HashMap<Box<str>, Vec<(Arc<str>, Dependent)>>);

impl Dependents {
    /// Reads a row of the query of that name.
    pub(super) fn add(&mut self, row: &[Option<String>]) -> Option<()> {
        let text = |place: usize| row.get(place)?.as_deref();
        let dependent = match (text(2), text(3)) {
            (Some(schema), Some(name)) => {
                let name = (Arc::from(schema), Arc::from(name));
                match text(5)? {
                    "a" => Dependent::Partition(name),
                    "i" => Dependent::Heir(name),
                    _ => Dependent::Relation { name, is_view: matches!(text(4)?, "v" | "m") },
                }
            }
            _ => Dependent::Other,
        };
        self.0.entry(text(1)?.into()).or_default().push((text(0)?.into(), dependent));
        Some(())
    }

    /// The names of all relations of a schema that something depends on.
    pub(super) fn in_schema<'d>(&'d self, schema: &'d str) -> impl Iterator<Item = &'d str> {
        self.0
            .iter()
            .filter(move |(_, all)| all.iter().any(|(known, _)| **known == *schema))
            .map(|(name, _)| &**name)
    }

    /// The tables that inherit from one, by way of others as well.
    pub(super) fn heirs(&self, schema: Option<&str>, name: &str) -> Vec<QualifiedName> {
        let mut heirs: Vec<QualifiedName> = Vec::new();
        let mut open = vec![(schema, name)];
        let mut seen = HashSet::new();
        while let Some((schema, name)) = open.pop() {
            for (known, dependent) in self.0.get(name).into_iter().flatten() {
                if let Dependent::Heir(heir) = dependent
                    && schema.is_none_or(|schema| **known == *schema)
                    && seen.insert(heir)
                {
                    heirs.push(heir.clone());
                    open.push((Some(&*heir.0), &*heir.1));
                }
            }
        }
        heirs
    }

    /// What goes with a relation, wherever it may be, and with that.
    pub(super) fn taken_along(&self, schema: Option<&str>, name: &str) -> TakenAlong {
        let mut taken = TakenAlong::default();
        let mut seen: HashSet<(Option<&str>, &str)> = HashSet::new();
        let mut open = vec![(schema, name)];
        while let Some((schema, name)) = open.pop() {
            let there = self.0.get(name).into_iter().flatten();
            for (known, dependent) in there {
                if schema.is_some_and(|schema| **known != *schema) {
                    continue;
                }
                let (next, is_view) = match dependent {
                    Dependent::Other => {
                        taken.others = true;
                        continue;
                    }
                    Dependent::Partition(next) => (next, None),
                    Dependent::Relation { name, is_view } => (name, Some(*is_view)),
                    // It is dropped as well.
                    Dependent::Heir(name) => (name, Some(true)),
                };
                if let Some(is_view) = is_view {
                    taken.relations.push((next.clone(), is_view));
                }
                // Only what is dropped takes more along; a table that loses a constraint stays.
                let goes = is_view.unwrap_or(true);
                if goes && seen.insert((Some(&*next.0), &*next.1)) {
                    open.push((Some(&*next.0), &*next.1));
                }
            }
        }
        taken.relations.sort();
        taken.relations.dedup();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dependents(rows: &[&str]) -> Dependents {
        let mut all = Dependents::default();
        for row in rows {
            let row: Vec<Option<String>> =
                row.split('|').map(|column| (column != "-").then(|| column.to_owned())).collect();
            all.add(&row).unwrap();
        }
        all
    }

    #[test]
    fn views_take_their_own_views_along_and_tables_only_lose_a_part() {
        let all = dependents(&[
            "public|t|public|v|v|n",
            "public|v|app|w|m|n",
            "public|t|public|child|r|n",
            "public|child|public|of_child|v|n",
            "public|t|parts|p|r|a",
            "parts|p|public|of_p|v|n",
            "other|t|other|x|v|n",
        ]);
        let taken = all.taken_along(Some("public"), "t");
        let names: Vec<String> = taken
            .relations
            .iter()
            .map(|((schema, name), dropped)| format!("{schema}.{name} {dropped}"))
            .collect();

        assert_eq!(names, ["app.w true", "public.child false", "public.of_p true", "public.v true"]);
        assert!(!taken.others);
        assert_eq!(all.taken_along(None, "t").relations.len(), 5, "in whichever schema it is");
        assert_eq!(all.in_schema("other").collect::<Vec<_>>(), ["t"]);
    }

    #[test]
    fn heirs_are_told_and_go_with_their_table() {
        let all = dependents(&["public|t|app|heir|r|i", "app|heir|app|late|r|i", "public|t|public|p|r|a"]);
        let names: Vec<String> =
            all.heirs(Some("public"), "t").iter().map(|(schema, name)| format!("{schema}.{name}")).collect();

        assert_eq!(names, ["app.heir", "app.late"]);
        assert_eq!(all.taken_along(Some("public"), "t").relations.len(), 2);
    }

    #[test]
    fn what_is_no_relation_is_told_and_cycles_end() {
        let all = dependents(&["public|a|public|b|v|n", "public|b|public|a|v|n", "public|b|-|-|-|n"]);

        assert!(all.taken_along(Some("public"), "a").others);
        assert_eq!(all.taken_along(Some("public"), "none"), TakenAlong::default());
    }
}
