//! The seal: what a grant covers besides its expiry.
//!
//! The proxy makes a seal when the request is opened and again right before the statement is
//! forwarded. If the two differ in anything, the grant does not fit.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::actor::{AgentName, DatabaseName, RoleName, UpstreamName};
use crate::statement::{Digest, SessionId};

/// Everything that a grant covers besides its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// [`Statement::digest`](crate::statement::Statement::digest): bytes, parameters, declared types.
    pub statement: Digest,
    /// The agent.
    pub agent: AgentName,
    /// The session; `None` for a deferred hold, which any session of the agent may claim.
    pub session: Option<SessionId>,
    /// The operator's name for the upstream.
    pub upstream: UpstreamName,
    /// The database.
    pub database: DatabaseName,
    /// The role the proxy logged in with.
    pub role: RoleName,
    /// The settings that upstream reported, by name: `role`, `session_authorization`,
    /// `search_path`, and the others that change what the statement means.
    pub settings: BTreeMap<Arc<str>, SealedSetting>,
    /// Digest of the texts of the same batch that run before the statement; `None` where it is the
    /// first.
    pub batch_before: Option<Digest>,
    /// The prepared statements that it runs by name (`EXECUTE x`), by that name.
    pub prepared: BTreeMap<String, PreparedText>,
}

/// The value of a setting when the statement will run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedSetting {
    /// The value that upstream reported.
    Known(Arc<str>),
    /// Something that runs first may change it.
    Changing {
        /// The value that upstream reported, before that runs.
        before: Arc<str>,
        /// What may change it.
        by: SettingChange,
    },
}

/// What may change a setting between upstream's report and the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingChange {
    /// A statement that runs before it in the same batch.
    Batch,
    /// An earlier statement of the same text.
    SameText,
}

/// A prepared statement as the seal names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedText {
    /// Digest of its text.
    pub digest: Digest,
    /// The parameter types that the agent declared; empty where it declared none.
    pub types: Vec<u32>,
}

/// The first thing in which two seals differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealDifference {
    /// Other bytes, parameters or types.
    #[error("the statement differs from the approved one")]
    Statement,
    /// Another agent.
    #[error("the grant belongs to another agent")]
    Agent,
    /// Another session.
    #[error("the grant belongs to another session")]
    Session,
    /// Another upstream.
    #[error("the grant is for another upstream")]
    Upstream,
    /// Another database.
    #[error("the grant is for another database")]
    Database,
    /// Another role.
    #[error("the grant is for another role")]
    Role,
    /// A setting has another value.
    #[error("the setting \"{name}\" has changed since the request was opened")]
    Setting {
        /// The first that differs.
        name: Arc<str>,
    },
    /// Other statements run before it in the same batch.
    #[error("the statements before it in the same batch have changed since the request was opened")]
    BatchBefore,
    /// A prepared statement that it runs has another text.
    #[error("the prepared statement \"{name}\" has changed since the request was opened")]
    Prepared {
        /// The first that differs.
        name: String,
    },
}

impl SealedSetting {
    /// The value, where nothing that runs first may change it.
    #[must_use]
    pub fn known(&self) -> Option<&str> {
        match self {
            Self::Known(value) => Some(value),
            Self::Changing { .. } => None,
        }
    }
}

impl fmt::Display for SealedSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => f.write_str(value),
            Self::Changing { before, by } => {
                let by = match by {
                    SettingChange::Batch => "what runs before it in the same batch",
                    SettingChange::SameText => "an earlier statement of the same text",
                };
                write!(f, "(not known: {by} may change it; before that it is: {before})")
            }
        }
    }
}

impl fmt::Display for PreparedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.digest)?;
        if self.types.is_empty() {
            return Ok(());
        }
        let types: Vec<String> = self.types.iter().map(ToString::to_string).collect();
        write!(f, " ({})", types.join(", "))
    }
}

impl Seal {
    /// SHA-256 of everything sealed. The encoding, all integers big-endian, `text` being a u64
    /// length and that many bytes:
    ///
    /// ```text
    /// "countersign/seal/v2" 0x00  statement digest (32 bytes)
    /// text agent   u8 1 + session UUID (16 bytes) | u8 0 when deferred
    /// text upstream   text database   text role
    /// u32 number of settings, per setting, by name: text name, then
    ///     u8 0 + text value | u8 1 (changed by the batch) or 2 (by the same text) + text value before
    /// u8 1 + digest of the texts before it in the batch (32 bytes) | u8 0
    /// u32 number of prepared statements, per statement, by name:
    ///     text name, digest of its text (32 bytes), u32 number of types, u32 each
    /// ```
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        let text = |hash: &mut Sha256, text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        hash.update(b"countersign/seal/v2\0");
        hash.update(self.statement.as_bytes());
        text(&mut hash, self.agent.as_str());
        match &self.session {
            Some(session) => {
                hash.update([1]);
                hash.update(session.0.as_bytes());
            }
            None => hash.update([0]),
        }
        for name in [self.upstream.as_str(), self.database.as_str(), self.role.as_str()] {
            text(&mut hash, name);
        }
        hash.update((self.settings.len() as u32).to_be_bytes());
        for (name, setting) in &self.settings {
            text(&mut hash, name);
            let (tag, value) = match setting {
                SealedSetting::Known(value) => (0, value),
                SealedSetting::Changing { before, by: SettingChange::Batch } => (1, before),
                SealedSetting::Changing { before, by: SettingChange::SameText } => (2, before),
            };
            hash.update([tag]);
            text(&mut hash, value);
        }
        match &self.batch_before {
            Some(digest) => {
                hash.update([1]);
                hash.update(digest.as_bytes());
            }
            None => hash.update([0]),
        }
        hash.update((self.prepared.len() as u32).to_be_bytes());
        for (name, prepared) in &self.prepared {
            text(&mut hash, name);
            hash.update(prepared.digest.as_bytes());
            hash.update((prepared.types.len() as u32).to_be_bytes());
            for oid in &prepared.types {
                hash.update(oid.to_be_bytes());
            }
        }
        Digest::from_bytes(hash.finalize().into())
    }

    /// The seal with the session left out: equal for two requests that ask for the same thing, and
    /// what a deferred hold is claimed by.
    #[must_use]
    pub fn without_session(&self) -> Self {
        Self { session: None, ..self.clone() }
    }

    /// The first thing in which `now` differs from this seal. A seal without a session fits any
    /// session of its agent.
    #[must_use]
    pub fn difference(&self, now: &Self) -> Option<SealDifference> {
        let Self { statement, agent, session, upstream, database, role, settings, batch_before, prepared } =
            self;
        let parts = [
            (*statement == now.statement, SealDifference::Statement),
            (*agent == now.agent, SealDifference::Agent),
            (session.is_none() || *session == now.session, SealDifference::Session),
            (*upstream == now.upstream, SealDifference::Upstream),
            (*database == now.database, SealDifference::Database),
            (*role == now.role, SealDifference::Role),
            (*batch_before == now.batch_before, SealDifference::BatchBefore),
        ];
        let setting = || {
            let name = first_different(settings, &now.settings)?;
            Some(SealDifference::Setting { name: name.clone() })
        };
        let prepared = || {
            let name = first_different(prepared, &now.prepared)?;
            Some(SealDifference::Prepared { name: name.clone() })
        };
        let part = parts.into_iter().find(|(same, _)| !same).map(|(_, difference)| difference);
        part.or_else(setting).or_else(prepared)
    }

    /// The sealed values that are not shown elsewhere, as names and values for the ledger: settings,
    /// texts before it in the batch, and prepared statements.
    #[must_use]
    pub fn to_rows(&self) -> Vec<(String, String)> {
        let prepared =
            self.prepared.iter().map(|(name, text)| (format!("(prepared as {name})"), text.to_string()));
        let before =
            self.batch_before.iter().map(|digest| ("(runs before it)".to_owned(), digest.to_string()));
        let settings = self.settings.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        prepared.chain(before).chain(settings).collect()
    }
}

/// The first key whose value is not the same in both maps.
fn first_different<'a, K: Ord, V: PartialEq>(
    one: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
) -> Option<&'a K> {
    one.keys().chain(other.keys()).find(|name| one.get(name) != other.get(name))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn seal() -> Seal {
        Seal {
            statement: Digest::of(b"SELECT 1"),
            agent: "bot".into(),
            session: Some(SessionId(Uuid::from_u128(1))),
            upstream: "app".into(),
            database: "app".into(),
            role: "bot".into(),
            settings: BTreeMap::from([("search_path".into(), SealedSetting::Known("public".into()))]),
            batch_before: Some(Digest::of(b"SET x = 1")),
            prepared: BTreeMap::from([(
                "tidy".to_owned(),
                PreparedText { digest: Digest::of(b"DELETE FROM t"), types: vec![23] },
            )]),
        }
    }

    /// Every way to change one part of a seal, with the difference that it makes.
    #[expect(clippy::type_complexity, reason = "a table of changes")]
    fn changes() -> Vec<(fn(&mut Seal), SealDifference)> {
        let path = || SealDifference::Setting { name: "search_path".into() };
        let tidy = || SealDifference::Prepared { name: "tidy".to_owned() };
        vec![
            (|seal| seal.statement = Digest::of(b"SELECT 2"), SealDifference::Statement),
            (|seal| seal.agent = "other".into(), SealDifference::Agent),
            (|seal| seal.session = None, SealDifference::Session),
            (|seal| seal.upstream = "billing".into(), SealDifference::Upstream),
            (|seal| seal.database = "postgres".into(), SealDifference::Database),
            (|seal| seal.role = "postgres".into(), SealDifference::Role),
            (|seal| seal.batch_before = None, SealDifference::BatchBefore),
            (|seal| seal.settings.clear(), path()),
            (
                |seal| {
                    let changing =
                        SealedSetting::Changing { before: "public".into(), by: SettingChange::Batch };
                    seal.settings.insert("search_path".into(), changing);
                },
                path(),
            ),
            (|seal| seal.prepared.clear(), tidy()),
            (|seal| seal.prepared.values_mut().for_each(|text| text.types.clear()), tidy()),
        ]
    }

    #[test]
    fn every_part_of_a_seal_is_compared_and_is_part_of_the_digest() {
        for (change, expected) in changes() {
            let mut changed = seal();
            change(&mut changed);

            assert_eq!(seal().difference(&changed), Some(expected.clone()));
            assert_ne!(seal().digest(), changed.digest(), "{expected}");
        }
        assert_eq!(seal().difference(&seal()), None);
    }

    #[test]
    fn a_seal_without_a_session_fits_every_session() {
        assert_eq!(seal().without_session().difference(&seal()), None);
    }

    #[test]
    fn a_setting_cannot_look_like_one_that_may_change() {
        let changing = SealedSetting::Changing { before: "public".into(), by: SettingChange::SameText };
        let forged = SealedSetting::Known(changing.to_string().into());
        let with = |setting| Seal { settings: BTreeMap::from([("search_path".into(), setting)]), ..seal() };

        assert_ne!(with(changing.clone()).digest(), with(forged.clone()).digest());
        assert_eq!((changing.known(), forged.known().is_some()), (None, true));
    }
}
