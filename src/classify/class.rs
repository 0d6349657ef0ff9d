//! The classes of statements, and what each of them implies.
//!
//! Whoever wants to know something of a class asks a method here. Every method matches all classes, so
//! that the compiler asks about each of them when one is added. The order of the classes is used for one
//! thing only: of several, the most severe speaks for the whole message.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of effect that a statement has, from harmless to severe: of several, the greatest
/// speaks for the whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatementClass {
    /// Transaction control, allow-listed settings, `LISTEN`, housekeeping of names.
    Session,
    /// Reads rows or plans.
    Read,
    /// Writes rows it names, or touches temporary objects.
    Write,
    /// Changes the persistent schema.
    Ddl,
    /// Writes or removes whole tables' rows.
    MassWrite,
    /// Takes bulk data out.
    Export,
    /// Changes settings that alter what later statements mean or are checked against.
    Settings,
    /// Reads credentials or other people's secrets from the catalogue.
    SensitiveRead,
    /// Administers the server; also every node the classifier was not told about.
    Admin,
    /// Changes privileges, roles, ownership, policies.
    Grant,
    /// Changes who the session acts as.
    Identity,
    /// Defines or runs code whose effects cannot be seen.
    Code,
    /// Reaches the server's files, programs or network.
    ServerIo,
    /// Not accepted by Postgres's grammar.
    Invalid,
}

/// How much a class can do, in three steps, for people who look through many statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impact {
    /// It runs without approval unless a rule says otherwise.
    Low,
    /// It changes or takes out much, within what the role may do.
    Middle,
    /// It reaches beyond the data, or cannot be judged.
    High,
}

impl StatementClass {
    /// Every class, from harmless to severe.
    pub const ALL: [Self; 14] = [
        Self::Session,
        Self::Read,
        Self::Write,
        Self::Ddl,
        Self::MassWrite,
        Self::Export,
        Self::Settings,
        Self::SensitiveRead,
        Self::Admin,
        Self::Grant,
        Self::Identity,
        Self::Code,
        Self::ServerIo,
        Self::Invalid,
    ];

    /// How much it can do.
    #[must_use]
    pub fn impact(self) -> Impact {
        match self {
            Self::Session | Self::Read | Self::Write => Impact::Low,
            Self::Ddl | Self::MassWrite | Self::Export | Self::Settings => Impact::Middle,
            Self::SensitiveRead
            | Self::Admin
            | Self::Grant
            | Self::Identity
            | Self::Code
            | Self::ServerIo
            | Self::Invalid => Impact::High,
        }
    }

    /// Whether the class is held when no rule says otherwise.
    #[must_use]
    pub fn is_privileged(self) -> bool {
        match self.impact() {
            Impact::Low => false,
            Impact::Middle | Impact::High => true,
        }
    }

    /// Whether it changes no rows and nothing that outlasts the session.
    #[must_use]
    pub fn changes_nothing(self) -> bool {
        match self {
            Self::Session | Self::Read => true,
            Self::Write
            | Self::Ddl
            | Self::MassWrite
            | Self::Export
            | Self::Settings
            | Self::SensitiveRead
            | Self::Admin
            | Self::Grant
            | Self::Identity
            | Self::Code
            | Self::ServerIo
            | Self::Invalid => false,
        }
    }

    /// Whether it writes rows and does nothing else.
    #[must_use]
    pub fn writes_rows_only(self) -> bool {
        match self {
            Self::Write | Self::MassWrite => true,
            Self::Session
            | Self::Read
            | Self::Ddl
            | Self::Export
            | Self::Settings
            | Self::SensitiveRead
            | Self::Admin
            | Self::Grant
            | Self::Identity
            | Self::Code
            | Self::ServerIo
            | Self::Invalid => false,
        }
    }

    /// Whether a statement of it can reach more than it names: any table, setting or role.
    #[must_use]
    pub fn is_opaque(self) -> bool {
        match self {
            Self::Admin | Self::Code | Self::ServerIo => true,
            Self::Session
            | Self::Read
            | Self::Write
            | Self::Ddl
            | Self::MassWrite
            | Self::Export
            | Self::Settings
            | Self::SensitiveRead
            | Self::Grant
            | Self::Identity
            | Self::Invalid => false,
        }
    }

    /// Whether to allow it amounts to allowing everything.
    #[must_use]
    pub fn is_sweeping(self) -> bool {
        // Whoever becomes another role may do what that one may.
        self.is_opaque() || self == Self::Identity
    }

    /// Whether a statement of it ever names a table.
    #[must_use]
    pub fn names_tables(self) -> bool {
        match self {
            Self::Session | Self::Settings | Self::Identity | Self::Invalid => false,
            Self::Read
            | Self::Write
            | Self::Ddl
            | Self::MassWrite
            | Self::Export
            | Self::SensitiveRead
            | Self::Admin
            | Self::Grant
            | Self::Code
            | Self::ServerIo => true,
        }
    }

    /// The stable spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Read => "read",
            Self::Write => "write",
            Self::Ddl => "ddl",
            Self::MassWrite => "mass_write",
            Self::Export => "export",
            Self::Settings => "settings",
            Self::SensitiveRead => "sensitive_read",
            Self::Admin => "admin",
            Self::Grant => "grant",
            Self::Identity => "identity",
            Self::Code => "code",
            Self::ServerIo => "server_io",
            Self::Invalid => "invalid",
        }
    }

    /// Reads the stable spelling.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

impl fmt::Display for StatementClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
