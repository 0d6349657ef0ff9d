//! Takes secrets out of a text before it is shown or stored, and nothing else.
//!
//! The rule: **what is hidden never runs.** Hidden are literals of which Postgres's own grammar, by way
//! of the parse tree, says that they are secrets: the password of a role, options and settings that are
//! called so, arguments of functions that take keys, and the passwords inside connection strings that
//! stand where a connection string is expected. So are likely secrets in comments, where the grammar
//! reads the same statement without them. Code is never touched: bodies, programs, statements given as
//! text.
//!
//! Where a secret stands inside code, it cannot be hidden without hiding code. Such a statement is
//! [`Inseparable`]: it is refused with what to do instead, nobody can approve it, and as it never runs,
//! all its literals are hidden where it is recorded.
//!
//! - `positions`: where in the tree secrets stand; `expression`: what an argument is put together of
//! - `code`: whether code holds a secret; `comments`: what is in comments; `unparsed`: texts that the grammar rejects

mod code;
mod comments;
mod expression;
mod positions;
mod unparsed;

use std::borrow::Cow;

use super::Classification;
use super::lex::Token;
use crate::secrets::{MASK, connection, is_opaque, names_a_secret};
use crate::statement::Parameter;

pub(super) use positions::{Surroundings, redact};
pub(super) use unparsed::{message_without_text, redact_rejected};

/// Why a secret in a statement cannot be hidden without hiding what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inseparable {
    /// It stands inside code: the body of a function or DO block, or SQL given as text.
    Code,
    /// It is an argument of a program.
    Program,
    /// It does not look like a secret: it could be a piece of code that runs elsewhere.
    LooksLikeCode,
    /// It is put together in a way that cannot be followed.
    Assembled,
    /// The statement, or code that it runs, can read its own text, or keeps the text for others to read.
    ReadBack,
    /// A call that sets it returns it to the statement, which uses it for something else.
    Returned,
}

impl Inseparable {
    /// What is not possible, to go before "is not supported".
    #[must_use]
    pub fn feature(self) -> &'static str {
        match self {
            Self::Code => "a password or key inside code",
            Self::Program => "a password or key among the arguments of a program",
            Self::LooksLikeCode => "a password or key that could be a piece of code",
            Self::Assembled => "a password or key that is put together by functions",
            Self::ReadBack => "a password or key in a text that is read back",
            Self::Returned => "a password or key that set_config returns to the rest of the statement",
        }
    }

    /// What to do instead.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Code => {
                "It could not be hidden from reviewers and the ledger without hiding what runs. Send the statement that sets it by itself, outside of functions, DO blocks and texts that are run."
            }
            Self::Program => {
                "It could not be hidden from reviewers and the ledger without hiding what runs. Let the program read it from a file on the server (~/.pgpass, curl --netrc-file)."
            }
            Self::LooksLikeCode => {
                "It could not be hidden from reviewers and the ledger without perhaps hiding what runs. Write it without spaces, quotes, parentheses, semicolons, comments and signs of a shell, or set it in a statement of its own (ALTER ROLE .. PASSWORD)."
            }
            Self::Assembled => {
                "Write the connection string or key as one literal, or bind it as a parameter."
            }
            Self::ReadBack => {
                "It could not be hidden from reviewers and the ledger without hiding what runs. Leave it out of comments, and send it apart from code, from PREPARE, and from what reads current_query() or pg_stat_activity."
            }
            Self::Returned => "Send SELECT set_config(..) by itself.",
        }
    }
}

/// A parameter whose value is, or may hold, a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BoundSecret {
    /// Its number, from 1.
    pub parameter: u32,
    /// What its value is.
    pub holds: Holds,
}

/// What the value of a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holds {
    /// A secret.
    Secret,
    /// A connection string, perhaps with a secret in it.
    Connection,
    /// Text that may run.
    Code,
    /// The value of the setting that this other parameter names.
    Setting(u32),
}

/// What was found in a text.
#[derive(Debug, Default)]
pub(super) struct Redaction {
    /// The text without its secrets; `None` when it has none.
    pub(super) text: Option<String>,
    pub(super) bound: Vec<BoundSecret>,
    pub(super) inseparable: Option<Inseparable>,
}

/// What to do with the value of a parameter.
enum Value<'v> {
    Shown,
    Masked(Cow<'v, str>),
    Refused(Inseparable),
}

impl Classification {
    /// Why this statement must not run with these values: a secret in it, or in them, cannot be told
    /// from code.
    #[must_use]
    pub fn hides_code(&self, values: &[Parameter]) -> Option<Inseparable> {
        self.inseparable.or_else(|| {
            self.bound_secrets.iter().find_map(|secret| match self.judge(*secret, values) {
                Value::Refused(why) => Some(why),
                Value::Shown | Value::Masked(_) => None,
            })
        })
    }

    /// The values as they may be shown and stored, where they are not all shown as they are.
    #[must_use]
    pub fn without_secrets(&self, values: &[Parameter]) -> Option<Vec<Parameter>> {
        let mut shown: Option<Vec<Parameter>> = None;
        let mut mask = |number: u32, text: &str| {
            let place = number.checked_sub(1).map(|place| place as usize);
            let shown = shown.get_or_insert_with(|| values.to_vec());
            if let Some(value) = place.and_then(|place| shown.get_mut(place))
                && value.value.is_some()
            {
                value.format = 0;
                value.value = Some(text.as_bytes().to_vec().into());
            }
        };
        if self.hides_code(values).is_some() {
            // It never runs, so nobody has to see them.
            (1..=values.len() as u32).for_each(|number| mask(number, MASK));
            return shown;
        }
        for secret in self.bound_secrets.iter() {
            if let Value::Masked(text) = self.judge(*secret, values) {
                mask(secret.parameter, &text);
            }
        }
        shown
    }

    fn judge<'v>(&self, secret: BoundSecret, values: &'v [Parameter]) -> Value<'v> {
        let value = |number: u32| {
            let value = values.get(number.checked_sub(1)? as usize)?.value.as_deref()?;
            Some(String::from_utf8_lossy(value))
        };
        let Some(text) = value(secret.parameter).filter(|text| !text.is_empty()) else { return Value::Shown };
        // What only reads or writes rows runs nothing, whatever its values are.
        let may_be_anything = !self.class.is_privileged();
        let judged = |hidden: bool, opaque: bool, masked: Cow<'v, str>| match (hidden, opaque) {
            (false, _) => Value::Shown,
            (true, true) => Value::Masked(masked),
            (true, false) => Value::Refused(Inseparable::LooksLikeCode),
        };
        match secret.holds {
            Holds::Secret => judged(true, may_be_anything || is_opaque(&text), MASK.into()),
            Holds::Setting(name) => {
                let named = value(name).is_some_and(|name| names_a_secret(&name));
                judged(named && !crate::secrets::is_switch(&text), is_opaque(&text), MASK.into())
            }
            Holds::Connection => match connection::secrets_of(&text) {
                Some(ranges) => {
                    let opaque =
                        |range: &std::ops::Range<usize>| text.get(range.clone()).is_some_and(is_opaque);
                    let all = may_be_anything || ranges.iter().all(opaque);
                    judged(!ranges.is_empty(), all, crate::secrets::masked(&text, &ranges).into())
                }
                None if code::holds_a_secret(&text) => Value::Refused(Inseparable::Code),
                None => Value::Shown,
            },
            Holds::Code if !may_be_anything && code::holds_a_secret(&text) => {
                Value::Refused(Inseparable::Code)
            }
            Holds::Code => Value::Shown,
        }
    }
}

/// What there is to say of a text that was not read, and may run all the same once somebody has
/// approved it: nothing of it is hidden, unless it is refused because of what is in it.
pub(super) fn redact_unread(text: &str, tokens: &[Token]) -> Redaction {
    if code::holds_a_secret(text) {
        let text = Some(unparsed::without_literals(text, tokens));
        return Redaction { text, bound: Vec::new(), inseparable: Some(Inseparable::Code) };
    }
    Redaction::default()
}

#[cfg(test)]
mod tests;
