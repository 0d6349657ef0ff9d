//! What Slack says about who pressed a button, and about the channel it is in.
//!
//! That an account is enrolled is the operator's word; that there is a full member of the workspace
//! behind it, not a bot, a guest or somebody of another company, is Slack's. It is looked up ahead of
//! time, so that a click need not wait for it, and not relied on for long. What Slack does not say
//! counts against the account.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::client::{CallError, Channel, Me, User};

/// Why an account may not answer, though it may be enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("a bot cannot answer requests")]
    Bot,
    #[error("a guest of the workspace cannot answer requests")]
    Guest,
    #[error("somebody from another workspace cannot answer requests")]
    Foreign,
    #[error("the account is deactivated")]
    Deactivated,
    #[error("Slack does not say whether the account is a full member's")]
    Unclear,
}

/// Why a channel is not one that cards may be shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsuitable {
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
pub(super) fn fitness(user: &User, asked: &str, me: &Me) -> Result<(), Unfit> {
    let at_home = user.team_id.as_deref() == Some(&me.team)
        || user.enterprise_user.as_ref().is_some_and(|user| user.teams.contains(&me.team));
    if user.id != asked || !at_home || user.is_stranger {
        return Err(Unfit::Foreign);
    }
    if user.deleted {
        return Err(Unfit::Deactivated);
    }
    if user.is_bot == Some(true) || user.is_workflow_bot || user.is_connector_bot {
        return Err(Unfit::Bot);
    }
    if user.is_restricted == Some(true) || user.is_ultra_restricted == Some(true) || user.is_invited_user {
        return Err(Unfit::Guest);
    }
    if [user.is_bot, user.is_restricted, user.is_ultra_restricted].contains(&None) {
        return Err(Unfit::Unclear);
    }
    Ok(())
}

/// Whether cards may be shown in `channel`.
pub(super) fn suitability(channel: &Channel, asked: &str) -> Result<(), Unsuitable> {
    let shared = [channel.is_shared, channel.is_ext_shared, channel.is_org_shared];
    if shared.contains(&Some(true)) || channel.is_pending_ext_shared {
        return Err(Unsuitable::Shared);
    }
    if channel.id != asked || shared.contains(&None) {
        return Err(Unsuitable::Unclear);
    }
    if channel.is_archived {
        return Err(Unsuitable::Archived);
    }
    if channel.is_member { Ok(()) } else { Err(Unsuitable::NotAMember) }
}

/// What was looked up, and when.
#[derive(Debug)]
pub(super) struct Facts {
    rely: Duration,
    users: Mutex<BTreeMap<String, Learnt<Unfit>>>,
    channel: Mutex<Option<Learnt<Unsuitable>>>,
}

/// What was found out, and when.
type Learnt<E> = (Result<(), E>, Instant);

/// More accounts are not remembered; there are only so many that are enrolled.
const KEPT: usize = 10_000;

impl Facts {
    pub(super) fn new(rely: Duration) -> Self {
        Self { rely, users: Mutex::default(), channel: Mutex::default() }
    }

    /// What is known of an account, while it may be relied on.
    pub(super) fn user(&self, id: &str, now: Instant) -> Option<Result<(), Unfit>> {
        let (fitness, at) = *self.users.lock().get(id)?;
        (now.duration_since(at) < self.rely).then_some(fitness)
    }

    /// What is known of the channel, while it may be relied on.
    pub(super) fn channel(&self, now: Instant) -> Option<Result<(), Unsuitable>> {
        let (suitability, at) = (*self.channel.lock())?;
        (now.duration_since(at) < self.rely).then_some(suitability)
    }

    /// Remembers what Slack said. That it knows no such account is an answer, too.
    pub(super) fn learn_user(
        &self,
        id: &str,
        answer: Result<User, CallError>,
        me: &Me,
        now: Instant,
    ) -> Result<Result<(), Unfit>, CallError> {
        let fitness = match answer {
            Ok(user) => fitness(&user, id, me),
            Err(CallError::Said(code)) if matches!(code.as_str(), "user_not_found" | "user_not_visible") => {
                Err(Unfit::Foreign)
            }
            Err(error) => return Err(error),
        };
        let mut users = self.users.lock();
        if users.len() >= KEPT {
            users.retain(|_, (_, at)| now.duration_since(*at) < self.rely);
        }
        if users.len() < KEPT {
            users.insert(id.to_owned(), (fitness, now));
        }
        Ok(fitness)
    }

    /// Remembers what Slack said of the channel.
    pub(super) fn learn_channel(&self, suitability: Result<(), Unsuitable>, now: Instant) {
        *self.channel.lock() = Some((suitability, now));
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
            (json!({"is_bot": true}), Err(Unfit::Bot)),
            (json!({"is_workflow_bot": true}), Err(Unfit::Bot)),
            (json!({"is_restricted": true}), Err(Unfit::Guest)),
            (json!({"is_restricted": true, "is_ultra_restricted": true}), Err(Unfit::Guest)),
            (json!({"is_invited_user": true}), Err(Unfit::Guest)),
            (json!({"is_stranger": true}), Err(Unfit::Foreign)),
            (json!({"team_id": "T2"}), Err(Unfit::Foreign)),
            (json!({"team_id": null}), Err(Unfit::Foreign)),
            (json!({"team_id": "E1", "enterprise_user": {"teams": ["T1", "T2"]}}), Ok(())),
            (json!({"team_id": "E1", "enterprise_user": {"teams": ["T2"]}}), Err(Unfit::Foreign)),
            (json!({"id": "U2"}), Err(Unfit::Foreign)),
            (json!({"deleted": true}), Err(Unfit::Deactivated)),
            (json!({"is_bot": null}), Err(Unfit::Unclear)),
            (json!({"is_restricted": null}), Err(Unfit::Unclear)),
        ] {
            assert_eq!(fitness(&user(&change), "U1", &me()), expected, "{change}");
        }
    }

    #[test]
    fn cards_are_shown_only_where_nobody_else_listens() {
        for (change, expected) in [
            (json!({}), Ok(())),
            (json!({"is_shared": true}), Err(Unsuitable::Shared)),
            (json!({"is_ext_shared": true}), Err(Unsuitable::Shared)),
            (json!({"is_org_shared": true}), Err(Unsuitable::Shared)),
            (json!({"is_pending_ext_shared": true}), Err(Unsuitable::Shared)),
            (json!({"is_ext_shared": null}), Err(Unsuitable::Unclear)),
            (json!({"is_archived": true}), Err(Unsuitable::Archived)),
            (json!({"is_member": false}), Err(Unsuitable::NotAMember)),
        ] {
            let channel = channel(&change);

            assert_eq!(suitability(&channel, "C1"), expected, "{change}");
        }
    }

    #[test]
    fn what_was_looked_up_is_not_relied_on_for_ever() {
        #![expect(clippy::disallowed_methods, reason = "a moment to begin with")]
        let start = Instant::now();
        let facts = Facts::new(Duration::from_secs(60));

        facts.learn_user("U1", Ok(user(&json!({}))), &me(), start).unwrap().unwrap();

        assert_eq!(facts.user("U1", start + Duration::from_secs(59)), Some(Ok(())));
        assert_eq!(facts.user("U1", start + Duration::from_secs(60)), None);
        assert_eq!(facts.user("U2", start), None);
    }

    fn me() -> Me {
        Me { app: "A1".to_owned(), team: "T1".to_owned(), organisation: None }
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
