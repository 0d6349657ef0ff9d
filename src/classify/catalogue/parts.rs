//! What is behind views and partitions, and whatever else is collected while answers are read.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::QualifiedName;

/// What the rows of a view or partition are made of.
#[derive(Debug)]
pub(super) struct MadeOf {
    pub(super) schema: Arc<str>,
    pub(super) bases: Vec<Base>,
}

/// The columns of a table that a view shows or asks for; `None` for all of them.
pub(in crate::classify) type Shown = Option<BTreeSet<Arc<str>>>;

/// A table or view that another one shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::classify) struct Base {
    pub(in crate::classify) schema: Arc<str>,
    pub(in crate::classify) name: Arc<str>,
    pub(in crate::classify) columns: Shown,
}

/// Columns with a number each; sorted.
pub(super) type Sizes = Box<[(Arc<str>, u8)]>;

/// How a relation's rows come from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tie {
    /// A view shows them.
    Shows,
    /// They are some of its own.
    IsPartOf,
    /// It has them among its own.
    Has,
}

/// What is collected while answers are read.
#[derive(Default)]
pub(super) struct Parts {
    /// Views and partitions with what they are made of directly.
    ties: BTreeMap<QualifiedName, BTreeMap<(Tie, QualifiedName), Shown>>,
    /// Tables share names of columns.
    names: HashSet<Arc<str>>,
}

/// More tables behind one view are not followed: nobody's view is like that.
const MOST_BASES: usize = 1_000;

impl Parts {
    pub(super) fn add(
        &mut self,
        whole: QualifiedName,
        tie: Tie,
        part: QualifiedName,
        column: Option<Arc<str>>,
    ) {
        let parts = self.ties.entry(whole).or_default();
        let columns = parts.entry((tie, part)).or_insert_with(|| Some(BTreeSet::new()));
        match column {
            Some(column) => _ = columns.as_mut().map(|columns| columns.insert(column)),
            None => *columns = None,
        }
    }

    /// A list of columns, which comes as JSON.
    pub(super) fn columns(&mut self, json: &str) -> Option<Box<[Arc<str>]>> {
        let names: Vec<Cow<'_, str>> = serde_json::from_str(json).ok()?;
        let mut columns: Vec<Arc<str>> = names.iter().map(|name| self.shared(name)).collect();
        columns.sort_unstable();
        Some(columns.into())
    }

    /// Columns with a number each, which comes as JSON.
    pub(super) fn sizes(&mut self, json: &str) -> Option<Sizes> {
        let sizes: BTreeMap<Cow<'_, str>, u8> = serde_json::from_str(json).ok()?;
        Some(sizes.iter().map(|(name, size)| (self.shared(name), *size)).collect())
    }

    fn shared(&mut self, name: &str) -> Arc<str> {
        self.names.get(name).cloned().unwrap_or_else(|| {
            let name: Arc<str> = name.into();
            self.names.insert(Arc::clone(&name));
            name
        })
    }

    /// With what is behind views of views.
    pub(super) fn resolve(&self) -> HashMap<Box<str>, Vec<MadeOf>> {
        let mut all: HashMap<Box<str>, Vec<MadeOf>> = HashMap::new();
        for (schema, name) in self.ties.keys() {
            let bases = self.behind(&(Arc::clone(schema), Arc::clone(name)));
            all.entry((**name).into()).or_default().push(MadeOf { schema: Arc::clone(schema), bases });
        }
        all
    }

    fn behind(&self, whole: &QualifiedName) -> Vec<Base> {
        let mut found: BTreeMap<&QualifiedName, Shown> = BTreeMap::new();
        // A partition's table is looked at for its name and not for its other partitions.
        let mut seen = BTreeSet::from([(whole, true)]);
        let mut open = vec![(whole, true)];
        while let Some((next, all)) = open.pop() {
            for ((tie, part), columns) in self.ties.get(next).into_iter().flatten() {
                // A recursive view reads itself.
                if part == whole || (*tie == Tie::Has && !all) || found.len() >= MOST_BASES {
                    continue;
                }
                let known = found.entry(part).or_insert_with(|| Some(BTreeSet::new()));
                match (known.as_mut(), columns) {
                    (Some(known), Some(columns)) => known.extend(columns.iter().cloned()),
                    _ => *known = None,
                }
                let further = (part, all && *tie != Tie::IsPartOf);
                if seen.insert(further) {
                    open.push(further);
                }
            }
        }
        let base = |((schema, name), columns): (&QualifiedName, Shown)| Base {
            schema: Arc::clone(schema),
            name: Arc::clone(name),
            columns,
        };
        found.into_iter().map(base).collect()
    }
}
