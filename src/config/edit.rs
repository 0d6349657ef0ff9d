//! Adding and changing agents and reviewers in the file, keeping the operator's comments.
//!
//! The file is edited as text with structure, not written anew, so everything that is not touched
//! stays byte for byte. It is replaced in one step, and only by one that reads no worse than before:
//! a command never leaves a configuration behind that does not load because of it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

use super::ConfigError;
use super::raw::RawConfig;
use crate::identity::account::ChatAccount;

/// Why the file was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// It is no TOML.
    #[error("{path}: {error}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        error: Box<toml_edit::TomlError>,
    },
    /// The section is written in a form that cannot be appended to.
    #[error("\"{0}\" is written as one value; write it as [[{0}]] sections to have it edited")]
    Inline(&'static str),
    /// There is one already.
    #[error("the {what} \"{name}\" exists already")]
    Exists {
        /// `agent` or `reviewer`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// There is none.
    #[error("there is no {what} \"{name}\"")]
    Missing {
        /// `agent` or `reviewer`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The file would not load afterwards.
    #[error("the configuration would be wrong:\n{}", list(.0))]
    Wrong(Vec<ConfigError>),
}

fn list(problems: &[ConfigError]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

/// A configuration file that is being edited. Others who edit it wait until this is dropped.
#[derive(Debug)]
pub struct Editor {
    path: PathBuf,
    before: String,
    document: DocumentMut,
    _lock: File,
}

impl Editor {
    /// Opens the file at `path`, following links to where it really is.
    pub fn open(path: &Path) -> Result<Self, EditError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| EditError::Io { path, error }
        };
        let path = path.canonicalize().map_err(io(path))?;
        let mut lock_path = path.clone().into_os_string();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io(&lock_path))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| EditError::Io { path: lock_path, error: error.into() })?;
        let before = std::fs::read_to_string(&path).map_err(io(&path))?;
        let document = before
            .parse()
            .map_err(|error| EditError::Syntax { path: path.clone(), error: Box::new(error) })?;
        Ok(Self { path, before, document, _lock: lock })
    }

    /// The configuration as it is written now; `Err` when it is wrong.
    pub fn read(&self) -> Result<RawConfig, Vec<ConfigError>> {
        RawConfig::read(&self.path.display().to_string(), &self.before)
    }

    /// Adds an agent.
    pub fn add_agent(
        &mut self,
        name: &str,
        owners: &[String],
        upstreams: &[String],
        verifier: &str,
    ) -> Result<(), EditError> {
        let mut table = Table::new();
        table.insert("name", value(name));
        match owners {
            [owner] => table.insert("owner", value(owner)),
            owners => table.insert("owners", value(array(owners))),
        };
        table.insert("upstreams", value(array(upstreams)));
        table.insert("verifier", value(verifier));
        self.add("agent", "name", name, table)
    }

    /// Gives an agent another verifier, and lets it in again if it was revoked.
    pub fn rotate_agent(&mut self, name: &str, verifier: &str) -> Result<(), EditError> {
        let agent = self.find("agent", "name", name)?;
        set(agent, "verifier", value(verifier));
        agent.remove("revoked");
        Ok(())
    }

    /// Keeps an agent out. Its entry stays, so that its name is not given to another by mistake.
    pub fn revoke_agent(&mut self, name: &str) -> Result<(), EditError> {
        set(self.find("agent", "name", name)?, "revoked", value(true));
        Ok(())
    }

    /// Removes an agent's entry.
    pub fn remove_agent(&mut self, name: &str) -> Result<(), EditError> {
        self.remove("agent", "name", name)
    }

    /// Adds a reviewer.
    pub fn add_reviewer(
        &mut self,
        id: &str,
        also: &[String],
        groups: &[String],
        accounts: &[ChatAccount],
        token_hash: &str,
    ) -> Result<(), EditError> {
        let mut table = Table::new();
        table.insert("id", value(id));
        if !also.is_empty() {
            table.insert("also", value(array(also)));
        }
        table.insert("groups", value(array(groups)));
        for ChatAccount { channel, team, user } in accounts {
            let mut account = InlineTable::new();
            account.insert("team", team.into());
            account.insert("user", user.into());
            table.insert(channel.as_str(), value(Value::InlineTable(account)));
        }
        table.insert("token_hash", value(token_hash));
        self.add("reviewer", "id", id, table)
    }

    /// Gives a reviewer another token; the ones before are no longer good.
    pub fn rotate_reviewer(&mut self, id: &str, token_hash: &str) -> Result<(), EditError> {
        set(self.find("reviewer", "id", id)?, "token_hash", value(token_hash));
        Ok(())
    }

    /// Removes a reviewer's entry.
    pub fn remove_reviewer(&mut self, id: &str) -> Result<(), EditError> {
        self.remove("reviewer", "id", id)
    }

    /// Replaces the file, if what would be in it is not wrong in any way that it was not before. (A
    /// configuration that is not finished yet may be added to.)
    pub fn save(self) -> Result<(), EditError> {
        let text = self.document.to_string();
        let file = self.path.display().to_string();
        let known: Vec<(String, String)> = match RawConfig::read(&file, &self.before) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.into_iter().map(|problem| (problem.key, problem.message)).collect(),
        };
        if let Err(problems) = RawConfig::read(&file, &text) {
            let new: Vec<ConfigError> = problems
                .into_iter()
                .filter(|problem| !known.iter().any(|(k, m)| *k == problem.key && *m == problem.message))
                .collect();
            if !new.is_empty() {
                return Err(EditError::Wrong(new));
            }
        }
        replace(&self.path, &text).map_err(|error| EditError::Io { path: self.path, error })
    }

    fn tables(&mut self, section: &'static str) -> Result<&mut ArrayOfTables, EditError> {
        let item = self.document.entry(section).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        item.as_array_of_tables_mut().ok_or(EditError::Inline(section))
    }

    fn add(
        &mut self,
        section: &'static str,
        key: &str,
        name: &str,
        mut table: Table,
    ) -> Result<(), EditError> {
        let tables = self.tables(section)?;
        if tables.iter().any(|other| is_named(other, key, name)) {
            return Err(EditError::Exists { what: section, name: name.to_owned() });
        }
        // One empty line before it, as between sections that people write. What stands at the end of
        // the file belongs to the section above it and stays there.
        let trailing = self.document.trailing().as_str().unwrap_or_default().trim_end().to_owned();
        let before = if trailing.is_empty() { "\n".to_owned() } else { format!("{trailing}\n\n") };
        table.decor_mut().set_prefix(before);
        self.document.set_trailing("");
        self.tables(section)?.push(table);
        Ok(())
    }

    fn find(&mut self, section: &'static str, key: &str, name: &str) -> Result<&mut Table, EditError> {
        let missing = EditError::Missing { what: section, name: name.to_owned() };
        self.tables(section)?.iter_mut().find(|table| is_named(table, key, name)).ok_or(missing)
    }

    fn remove(&mut self, section: &'static str, key: &str, name: &str) -> Result<(), EditError> {
        let tables = self.tables(section)?;
        let place = tables.iter().position(|table| is_named(table, key, name));
        let place = place.ok_or_else(|| EditError::Missing { what: section, name: name.to_owned() })?;
        let above = tables.get(place).and_then(|table| table.decor().prefix()?.as_str().map(str::to_owned));
        tables.remove(place);
        // Comments above it may be about something else; the operator knows.
        if let Some(above) = above.filter(|above| above.contains('#')) {
            let trailing = self.document.trailing().as_str().unwrap_or_default().to_owned();
            self.document.set_trailing(format!("{}\n{trailing}", above.trim_end()));
        }
        Ok(())
    }
}

/// Sets a key, keeping what is written around it: a comment behind a value is the operator's.
fn set(table: &mut Table, key: &str, new: Item) {
    match (table.get_mut(key).and_then(Item::as_value_mut), new) {
        (Some(old), Item::Value(mut new)) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        (_, new) => {
            table.insert(key, new);
        }
    }
}

fn is_named(table: &Table, key: &str, name: &str) -> bool {
    table.get(key).and_then(Item::as_str) == Some(name)
}

fn array(texts: &[String]) -> Array {
    texts.iter().map(String::as_str).collect()
}

/// Writes a new file beside the old one and puts it in its place, so that whoever reads sees the one
/// or the other, whole, also after a crash.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mode = std::fs::metadata(path)?.permissions().mode();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", hex::encode(crate::identity::secret::random::<8>())));
    let new = folder.join(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    write().inspect_err(|_| {
        // Best effort: what was begun is not left lying around.
        let _ = std::fs::remove_file(&new);
    })
}
