//! Values that are never printed, and where they come from.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// A secret text. It has no `Display`, and its `Debug` says nothing.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text. Hand it to what needs it and keep no copy.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// In a file, which ends with it.
    File(String),
    /// In an environment variable.
    Env(String),
}

/// Reads a secret. A line break at its end is an editor's, not the secret's.
pub(super) fn read(
    named: &Named,
    file: &dyn Fn(&str) -> PathBuf,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Secret, String> {
    let (text, source) = match named {
        Named::File(path) => {
            let path = file(path);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
            (Zeroizing::new(text), path.display().to_string())
        }
        Named::Env(name) => {
            let text = env(name).ok_or_else(|| format!("the environment variable {name} is not set"))?;
            (Zeroizing::new(text), format!("the environment variable {name}"))
        }
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(format!("{source} is empty"));
    }
    Ok(Secret::new(text.to_owned()))
}
