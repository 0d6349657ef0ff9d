//! Foreign keys: what a change of one table does to others.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::QualifiedName;
use crate::classify::Verb;

/// What becomes of rows whose referent goes or changes (`pg_constraint.confdeltype`, `confupdtype`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing: the statement fails.
    Refuse,
    /// They follow.
    Cascade,
    /// Their columns become NULL or their default.
    Reset,
}

impl Action {
    pub(super) fn of(letter: &str) -> Self {
        match letter {
            "c" => Self::Cascade,
            "n" | "d" => Self::Reset,
            _ => Self::Refuse,
        }
    }
}

/// A foreign key, as the table that it refers to sees it.
#[derive(Debug)]
pub(in crate::classify) struct ForeignKey {
    /// Schema and name of the table that has it.
    pub(in crate::classify) table: QualifiedName,
    pub(in crate::classify) name: Arc<str>,
    pub(super) on_delete: Action,
    pub(super) on_update: Action,
    /// The columns that it refers to; sorted.
    pub(super) referred: Box<[Arc<str>]>,
    /// Its own columns; sorted.
    pub(super) own: Box<[Arc<str>]>,
}

/// A change of a table that foreign keys may carry on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::classify) enum Change {
    Delete,
    /// With CASCADE.
    Truncate,
    /// Of these columns.
    Update(Vec<String>),
}

impl ForeignKey {
    /// What a change of the table that it refers to is to its own.
    fn carry(&self, change: &Change) -> Option<Change> {
        let reset = || Change::Update(self.own.iter().map(|column| column.to_string()).collect());
        let changes = |columns: &[String]| {
            columns.iter().any(|column| self.referred.iter().any(|own| **own == **column))
        };
        match (change, self.on_delete, self.on_update) {
            (Change::Truncate, _, _) => Some(Change::Truncate),
            (Change::Delete, Action::Cascade, _) => Some(Change::Delete),
            (Change::Delete, Action::Reset, _) => Some(reset()),
            (Change::Update(columns), _, Action::Cascade | Action::Reset) if changes(columns) => {
                Some(reset())
            }
            (Change::Delete | Change::Update(_), _, _) => None,
        }
    }
}

/// All of a database, by the tables that they refer to.
#[derive(Debug, Default)]
pub(super) struct ForeignKeys(HashMap<Box<str>, Vec<(Arc<str>, ForeignKey)>>);

impl ForeignKeys {
    pub(super) fn add(&mut self, referred: QualifiedName, key: ForeignKey) {
        self.0.entry((*referred.1).into()).or_default().push((referred.0, key));
    }

    /// Those that refer to a table, wherever it may be.
    pub(super) fn of(&self, schema: Option<&str>, name: &str) -> impl Iterator<Item = &ForeignKey> {
        let known = self.0.get(name).into_iter().flatten();
        known.filter(move |(known, _)| schema.is_none_or(|schema| **known == *schema)).map(|(_, key)| key)
    }

    /// What all of them do because of a change of `tables`, and of what they do.
    pub(super) fn follow<'t>(
        &self,
        tables: impl Iterator<Item = (Option<&'t str>, &'t str)>,
        change: Change,
    ) -> Vec<(Verb, &ForeignKey)> {
        let change = Arc::new(change);
        let mut open: VecDeque<_> = tables
            .flat_map(|(schema, name)| self.of(schema, name))
            .map(|key| (key, Arc::clone(&change)))
            .collect();
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        while let Some((key, change)) = open.pop_front() {
            let Some(carried) = key.carry(&change) else { continue };
            if !seen.insert((std::ptr::from_ref(key), carried.clone())) {
                continue;
            }
            let verb = match carried {
                Change::Delete => Verb::Delete,
                Change::Truncate => Verb::Truncate,
                Change::Update(_) => Verb::Update,
            };
            found.push((verb, key));
            let carried = Arc::new(carried);
            let (schema, name) = (&*key.table.0, &*key.table.1);
            open.extend(self.of(Some(schema), name).map(|key| (key, Arc::clone(&carried))));
        }
        found
    }
}
