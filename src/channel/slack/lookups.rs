//! What Slack says about who pressed a button, and about the channel it is in.
//!
//! That an account is enrolled is the operator's word; that there is a full member of the workspace
//! behind it, not a bot, a guest or somebody of another company, is Slack's. It is looked up ahead of
//! time, so that a click need not wait for it, and not relied on for long. What Slack does not say
//! counts against the account.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::client::{AppIdentity, CallError, Channel, User};

/// Why an account may not answer, though it may be enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AccountProblem {
    #[error("a bot cannot answer requests")]
    Bot,
    #[error("a guest of the workspace cannot answer requests")]
    Guest,
    #[error("somebody from another workspace cannot answer requests")]
    OtherWorkspace,
    #[error("the account is deactivated")]
    Deactivated,
    #[error("Slack does not say whether the account is a full member's")]
    Unclear,
}

/// Why a channel is not one that cards may be shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChannelProblem {
    #[error("the channel is shared with others")]
    Shared,
    #[error("the channel is archived")]
    Archived,
    #[error("the app is not a member of the channel")]
    NotAMember,
    #[error("Slack does not say whether the channel is shared")]
    Unclear,
}

/// Whether `user` is a full member of the workspace `me` is in.
pub(super) fn check_account(user: &User, asked: &str, me: &AppIdentity) -> Result<(), AccountProblem> {
    let at_home = user.team_id.as_deref() == Some(&me.team)
        || user.enterprise_user.as_ref().is_some_and(|user| user.teams.contains(&me.team));
    if user.id != asked || !at_home || user.is_stranger {
        return Err(AccountProblem::OtherWorkspace);
    }
    if user.deleted {
        return Err(AccountProblem::Deactivated);
    }
    if user.is_bot == Some(true) || user.is_workflow_bot || user.is_connector_bot {
        return Err(AccountProblem::Bot);
    }
    if user.is_restricted == Some(true) || user.is_ultra_restricted == Some(true) || user.is_invited_user {
        return Err(AccountProblem::Guest);
    }
    if [user.is_bot, user.is_restricted, user.is_ultra_restricted].contains(&None) {
        return Err(AccountProblem::Unclear);
    }
    Ok(())
}

/// Whether cards may be shown in `channel`.
pub(super) fn check_channel(channel: &Channel, asked: &str) -> Result<(), ChannelProblem> {
    let shared = [channel.is_shared, channel.is_ext_shared, channel.is_org_shared];
    if shared.contains(&Some(true)) || channel.is_pending_ext_shared {
        return Err(ChannelProblem::Shared);
    }
    if channel.id != asked || shared.contains(&None) {
        return Err(ChannelProblem::Unclear);
    }
    if channel.is_archived {
        return Err(ChannelProblem::Archived);
    }
    if channel.is_member { Ok(()) } else { Err(ChannelProblem::NotAMember) }
}

/// What was looked up, and when.
#[derive(Debug)]
pub(super) struct Lookups {
    rely: Duration,
    users: Mutex<BTreeMap<String, Lookup<AccountProblem>>>,
    channel: Mutex<Option<Lookup<ChannelProblem>>>,
}

/// What was found out, and when.
type Lookup<E> = (Result<(), E>, Instant);

/// More accounts are not remembered; there are only so many that are enrolled.
const KEPT: usize = 10_000;

impl Lookups {
    pub(super) fn new(rely: Duration) -> Self {
        Self { rely, users: Mutex::default(), channel: Mutex::default() }
    }

    /// What is known of an account, while it may be relied on.
    pub(super) fn user(&self, id: &str, now: Instant) -> Option<Result<(), AccountProblem>> {
        let (check_account, at) = *self.users.lock().get(id)?;
        (now.duration_since(at) < self.rely).then_some(check_account)
    }

    /// What is known of the channel, while it may be relied on.
    pub(super) fn channel(&self, now: Instant) -> Option<Result<(), ChannelProblem>> {
        let (check_channel, at) = (*self.channel.lock())?;
        (now.duration_since(at) < self.rely).then_some(check_channel)
    }

    /// Remembers what Slack said. That it knows no such account is an answer, too.
    pub(super) fn remember_user(
        &self,
        id: &str,
        answer: Result<User, CallError>,
        me: &AppIdentity,
        now: Instant,
    ) -> Result<Result<(), AccountProblem>, CallError> {
        let check_account = match answer {
            Ok(user) => check_account(&user, id, me),
            Err(CallError::ErrorCode(code))
                if matches!(code.as_str(), "user_not_found" | "user_not_visible") =>
            {
                Err(AccountProblem::OtherWorkspace)
            }
            Err(error) => return Err(error),
        };
        let mut users = self.users.lock();
        if users.len() >= KEPT {
            users.retain(|_, (_, at)| now.duration_since(*at) < self.rely);
        }
        if users.len() < KEPT {
            users.insert(id.to_owned(), (check_account, now));
        }
        Ok(check_account)
    }

    /// Remembers what Slack said of the channel.
    pub(super) fn remember_channel(&self, check_channel: Result<(), ChannelProblem>, now: Instant) {
        *self.channel.lock() = Some((check_channel, now));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_full_members_of_the_workspace_may_answer() {
        for (change, expected) in [
            (json!({}), Ok(())),
            (json!({"is_bot": true}), Err(AccountProblem::Bot)),
            (json!({"is_workflow_bot": true}), Err(AccountProblem::Bot)),
            (json!({"is_restricted": true}), Err(AccountProblem::Guest)),
            (json!({"is_restricted": true, "is_ultra_restricted": true}), Err(AccountProblem::Guest)),
            (json!({"is_invited_user": true}), Err(AccountProblem::Guest)),
            (json!({"is_stranger": true}), Err(AccountProblem::OtherWorkspace)),
            (json!({"team_id": "T2"}), Err(AccountProblem::OtherWorkspace)),
            (json!({"team_id": null}), Err(AccountProblem::OtherWorkspace)),
            (json!({"team_id": "E1", "enterprise_user": {"teams": ["T1", "T2"]}}), Ok(())),
            (
                json!({"team_id": "E1", "enterprise_user": {"teams": ["T2"]}}),
                Err(AccountProblem::OtherWorkspace),
            ),
            (json!({"id": "U2"}), Err(AccountProblem::OtherWorkspace)),
            (json!({"deleted": true}), Err(AccountProblem::Deactivated)),
            (json!({"is_bot": null}), Err(AccountProblem::Unclear)),
            (json!({"is_restricted": null}), Err(AccountProblem::Unclear)),
        ] {
            assert_eq!(check_account(&user(&change), "U1", &me()), expected, "{change}");
        }
    }

    #[test]
    fn cards_are_shown_only_where_nobody_else_listens() {
        for (change, expected) in [
            (json!({}), Ok(())),
            (json!({"is_shared": true}), Err(ChannelProblem::Shared)),
            (json!({"is_ext_shared": true}), Err(ChannelProblem::Shared)),
            (json!({"is_org_shared": true}), Err(ChannelProblem::Shared)),
            (json!({"is_pending_ext_shared": true}), Err(ChannelProblem::Shared)),
            (json!({"is_ext_shared": null}), Err(ChannelProblem::Unclear)),
            (json!({"is_archived": true}), Err(ChannelProblem::Archived)),
            (json!({"is_member": false}), Err(ChannelProblem::NotAMember)),
        ] {
            let channel = channel(&change);

            assert_eq!(check_channel(&channel, "C1"), expected, "{change}");
        }
    }

    #[test]
    fn what_was_looked_up_is_not_relied_on_for_ever() {
        #![expect(clippy::disallowed_methods, reason = "a moment to begin with")]
        let start = Instant::now();
        let lookups = Lookups::new(Duration::from_secs(60));

        lookups.remember_user("U1", Ok(user(&json!({}))), &me(), start).unwrap().unwrap();

        assert_eq!(lookups.user("U1", start + Duration::from_secs(59)), Some(Ok(())));
        assert_eq!(lookups.user("U1", start + Duration::from_secs(60)), None);
        assert_eq!(lookups.user("U2", start), None);
    }

    fn me() -> AppIdentity {
        AppIdentity { app: "A1".to_owned(), team: "T1".to_owned(), organisation: None }
    }

    fn merged(mut value: serde_json::Value, change: &serde_json::Value) -> serde_json::Value {
        for (key, changed) in change.as_object().unwrap() {
            value[key] = changed.clone();
        }
        value
    }

    fn user(change: &serde_json::Value) -> User {
        let member = json!({
            "id": "U1", "team_id": "T1", "is_bot": false, "is_restricted": false, "is_ultra_restricted": false,
        });
        serde_json::from_value(merged(member, change)).unwrap()
    }

    fn channel(change: &serde_json::Value) -> Channel {
        let channel = json!({
            "id": "C1", "is_shared": false, "is_ext_shared": false, "is_org_shared": false, "is_member": true,
        });
        serde_json::from_value(merged(channel, change)).unwrap()
    }
}
