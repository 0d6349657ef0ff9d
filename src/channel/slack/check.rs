//! Whether a click is one on a card of ours, as it is shown.
//!
//! Everything that Slack says about a click is compared with what was stored when the card was
//! posted. Slack is trusted to tell the truth about who clicked; the rest guards against our own
//! mistakes, copies of cards, and somebody who got hold of the app's token.

use uuid::Uuid;

use super::card::{BUTTONS, Button};
use super::client::AppIdentity;
use super::envelope::{Click, Origin};
use crate::actor::ChannelName;
use crate::approval::Verdict;
use crate::channel::outbox::ShownCard;
use crate::identity::account::ChatAccount;
use crate::statement::RequestId;

/// Why somebody's click or submission is not looked at any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClickError {
    #[error("the click was for another app")]
    OtherApp,
    #[error("somebody from another workspace cannot answer requests")]
    OtherTeam,
    #[error("the app is installed for a whole organisation, which is not supported")]
    OrgWide,
    #[error("the click came from another channel than the card's")]
    OtherChannel,
    #[error("the click came from another message than the card")]
    OtherMessage,
    #[error("the card has no such button")]
    NoSuchButton,
    #[error("the card does not offer this answer")]
    NotOffered,
    #[error("what the button carried is not what the card carries")]
    OtherValue,
    #[error("the dialog is not one that was opened for you, or was open for too long")]
    OtherDialog,
}

/// Who it was: an account of our own workspace, in our own app.
pub(super) fn account(by: &Origin, me: &AppIdentity) -> Result<ChatAccount, ClickError> {
    if by.app != me.app {
        return Err(ClickError::OtherApp);
    }
    if by.org_wide {
        return Err(ClickError::OrgWide);
    }
    let at_home = by.home == me.team || me.organisation.as_ref().is_some_and(|home| by.home == *home);
    if by.team != me.team || !at_home {
        return Err(ClickError::OtherTeam);
    }
    Ok(chat_account(&by.team, &by.user))
}

/// An account in a workspace of Slack.
pub(super) fn chat_account(team: &str, user: &str) -> ChatAccount {
    ChatAccount { channel: ChannelName::Slack, team: team.to_owned(), user: user.to_owned() }
}

/// What a button's value says: which request, and the secret of the card.
pub(super) fn value(value: &str) -> Option<(RequestId, &str)> {
    let (id, key) = value.split_once('.')?;
    (!key.is_empty()).then_some((RequestId(Uuid::try_parse(id).ok()?), key))
}

/// What a button of a request's card carries.
pub(super) fn key(request: RequestId, secret: &str) -> String {
    format!("{}.{secret}", request.0)
}

/// Which button it was.
pub(super) fn button(click: &Click) -> Result<Button, ClickError> {
    if click.block != BUTTONS {
        return Err(ClickError::NoSuchButton);
    }
    Button::of_action_id(&click.action).ok_or(ClickError::NoSuchButton)
}

/// Whether the click is on the card that is shown, and on a button that it has.
pub(super) fn on_card(click: &Click, known: &ShownCard, verdict: Verdict) -> Result<(), ClickError> {
    let Some(place) = &known.place else { return Err(ClickError::OtherMessage) };
    if click.channel != place.channel {
        return Err(ClickError::OtherChannel);
    }
    if click.ts != place.message {
        return Err(ClickError::OtherMessage);
    }
    if !known.offered.contains(&verdict) {
        return Err(ClickError::NotOffered);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_counts_only_in_our_app_and_workspace() {
        let good = origin();
        assert!(account(&good, &me(None)).is_ok());

        let error = |change: fn(&mut Origin), organisation: Option<&str>| {
            let mut by = origin();
            change(&mut by);
            account(&by, &me(organisation)).err()
        };
        assert_eq!(error(|by| by.app = "A2".into(), None), Some(ClickError::OtherApp));
        assert_eq!(error(|by| by.team = "T2".into(), None), Some(ClickError::OtherTeam));
        assert_eq!(error(|by| by.home = "T2".into(), None), Some(ClickError::OtherTeam));
        assert_eq!(error(|by| by.home = "E1".into(), None), Some(ClickError::OtherTeam));
        assert_eq!(error(|by| by.home = "E1".into(), Some("E1")), None);
        assert_eq!(error(|by| by.org_wide = true, Some("E1")), Some(ClickError::OrgWide));
    }

    #[test]
    fn a_value_names_its_request_and_has_a_secret() {
        let id = RequestId(Uuid::from_u128(7));

        assert_eq!(value(&key(id, "abc")), Some((id, "abc")));
        for bad in ["", "abc", ".abc", &format!("{}.", id.0), &id.0.to_string()] {
            assert_eq!(value(bad), None, "{bad}");
        }
    }

    fn me(organisation: Option<&str>) -> AppIdentity {
        AppIdentity {
            app: "A1".to_owned(),
            team: "T1".to_owned(),
            organisation: organisation.map(str::to_owned),
        }
    }

    fn origin() -> Origin {
        Origin {
            app: "A1".to_owned(),
            team: "T1".to_owned(),
            user: "U1".to_owned(),
            home: "T1".to_owned(),
            org_wide: false,
        }
    }
}
