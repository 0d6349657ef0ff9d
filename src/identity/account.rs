//! Chat accounts.

use std::fmt;

use jiff::Timestamp;

use super::{AuthenticatedReviewer, Directory, NotRecognised, ReviewerIdentity};
use crate::actor::{Assurance, ChannelName};

/// An account in a chat workspace, as the chat service itself named it over a connection that it
/// authenticated. Names and e-mail addresses are no part of it, because people can change them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChatAccount {
    /// The channel that the account answers on.
    pub channel: ChannelName,
    /// The workspace (Slack: `T0..`).
    pub team: String,
    /// The user in it (Slack: `U0..`).
    pub user: String,
}

impl fmt::Display for ChatAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.team, self.user)
    }
}

/// Recognises reviewers by their chat accounts, which are as good as a click.
#[derive(Clone, Copy, Debug)]
pub struct ChatAccounts;

impl ReviewerIdentity for ChatAccounts {
    type Proof<'a> = &'a ChatAccount;

    fn recognise(
        &self,
        directory: &Directory,
        account: &ChatAccount,
        _: Timestamp,
    ) -> Result<AuthenticatedReviewer, NotRecognised> {
        if account.team.is_empty() || account.user.is_empty() {
            return Err(NotRecognised::Unknown);
        }
        directory
            .reviewers()
            .find(|entry| entry.accounts.contains(account))
            .map(|entry| {
                AuthenticatedReviewer::new(entry.reviewer.clone(), Assurance::Click, account.channel)
            })
            .ok_or(NotRecognised::NotEnrolled)
    }
}
