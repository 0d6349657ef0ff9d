//! What comes in over a socket, read strictly.
//!
//! Slack wraps everything into an envelope that has to be acknowledged within three seconds. Only
//! what is needed is read, and what is needed must be there: a click without a team or a message is
//! not a click. slack-morphism's own reading is not used here, because it drops what it cannot read
//! after acknowledging it, hides the envelope's id, and knows no `user.team_id` that is required.

use std::collections::{BTreeSet, VecDeque};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::modal;

/// One text frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The connection works.
    Hello {
        /// The app that the connection belongs to.
        app: String,
    },
    /// Slack is about to close this connection.
    Disconnect {
        /// `warning`: in a few seconds. `refresh_requested`, `link_disabled`, ..: now.
        reason: String,
    },
    /// Somebody did something.
    Interaction {
        /// To be acknowledged.
        envelope: String,
        /// What.
        interaction: Box<Interaction>,
    },
    /// An envelope that is not for us, or that means nothing: acknowledged and forgotten.
    Other {
        /// To be acknowledged.
        envelope: String,
    },
    /// Nothing that could be read. Not acknowledged, so that Slack tells the user that
    /// it did not work.
    Unreadable,
}

/// Somebody did something.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Interaction {
    /// Pressed a button.
    Click(Click),
    /// Submitted a dialog.
    Submission(Submission),
}

impl Interaction {
    /// What makes it this one and no other, whatever envelope brings it.
    pub(super) fn trigger(&self) -> &str {
        match self {
            Self::Click(click) => &click.trigger,
            Self::Submission(submission) => &submission.trigger,
        }
    }
}

/// Who did something, as Slack tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The app that it was done to.
    pub(super) app: String,
    /// The workspace that it was done in.
    pub(super) team: String,
    pub(super) user: String,
    /// The workspace (`T..`) or organisation (`E..`) that the user is at home in.
    pub(super) home: String,
    /// The app is installed for a whole organisation, where a user may be of any of its workspaces.
    pub(super) org_wide: bool,
}

/// A pressed button.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Click {
    pub(super) by: Origin,
    pub(super) channel: String,
    /// The message that the button is on.
    pub(super) ts: String,
    pub(super) block: String,
    pub(super) action: String,
    pub(super) value: String,
    /// What a dialog can be opened with, for three seconds.
    pub(super) trigger: String,
}

/// A submitted dialog.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Submission {
    pub(super) by: Origin,
    pub(super) nonce: String,
    pub(super) reason: Option<String>,
    trigger: String,
}

/// Reads a frame.
pub(super) fn read(text: &str) -> Frame {
    let Ok(raw) = serde_json::from_str::<RawFrame<'_>>(text) else { return Frame::Unreadable };
    match (raw.kind.as_str(), raw.envelope_id) {
        ("hello", _) => match raw.connection_info {
            Some(info) => Frame::Hello { app: info.app_id },
            None => Frame::Unreadable,
        },
        ("disconnect", _) => Frame::Disconnect { reason: raw.reason.unwrap_or_default() },
        ("interactive", Some(envelope)) => match raw.payload.map(|payload| interaction(payload.get())) {
            Some(Payload::Interaction(interaction)) => Frame::Interaction { envelope, interaction },
            Some(Payload::Meaningless) => Frame::Other { envelope },
            Some(Payload::Unreadable) | None => Frame::Unreadable,
        },
        (_, Some(envelope)) => Frame::Other { envelope },
        (_, None) => Frame::Unreadable,
    }
}

/// The acknowledgement of an envelope. For a submitted dialog it also closes the dialog.
pub(super) fn acknowledgement(envelope: &str) -> String {
    serde_json::json!({ "envelope_id": envelope }).to_string()
}

enum Payload {
    Interaction(Box<Interaction>),
    Meaningless,
    Unreadable,
}

fn interaction(payload: &str) -> Payload {
    #[derive(Deserialize)]
    struct Kind {
        r#type: String,
    }
    let Ok(kind) = serde_json::from_str::<Kind>(payload) else { return Payload::Unreadable };
    match kind.r#type.as_str() {
        "block_actions" => match serde_json::from_str::<RawClick>(payload).ok().and_then(click) {
            Some(click) => Payload::Interaction(Box::new(Interaction::Click(click))),
            None => Payload::Unreadable,
        },
        "view_submission" => match serde_json::from_str::<RawSubmission>(payload) {
            Ok(raw) => Payload::Interaction(Box::new(Interaction::Submission(submission(raw)))),
            Err(_) => Payload::Unreadable,
        },
        _ => Payload::Meaningless,
    }
}

fn click(raw: RawClick) -> Option<Click> {
    let by = raw.origin.read();
    // One click is one action, on one message that everybody sees, in the channel it says it is in.
    let [action]: [RawAction; 1] = raw.actions.try_into().ok()?;
    let same_channel = raw.container.channel_id == raw.channel.id;
    let same_message = raw.message.ts == raw.container.message_ts;
    if raw.container.kind != "message" || raw.container.is_ephemeral || !same_channel || !same_message {
        return None;
    }
    Some(Click {
        by,
        channel: raw.channel.id,
        ts: raw.container.message_ts,
        block: action.block_id,
        action: action.action_id,
        value: action.value.unwrap_or_default(),
        trigger: raw.trigger_id,
    })
}

fn submission(raw: RawSubmission) -> Submission {
    let reason = raw.view.state.values.remove_entry();
    Submission {
        by: raw.origin.read(),
        nonce: if raw.view.callback_id == modal::CALLBACK {
            raw.view.private_metadata
        } else {
            String::new()
        },
        reason,
        trigger: raw.trigger_id.unwrap_or(raw.view.id),
    }
}

impl RawOrigin {
    fn read(self) -> Origin {
        Origin {
            app: self.api_app_id,
            team: self.team.id,
            user: self.user.id,
            home: self.user.team_id,
            org_wide: self.is_enterprise_install,
        }
    }
}

#[derive(Deserialize)]
struct RawFrame<'a> {
    #[serde(rename = "type")]
    kind: String,
    envelope_id: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    reason: Option<String>,
    connection_info: Option<RawConnection>,
}

#[derive(Deserialize)]
struct RawConnection {
    app_id: String,
}

#[derive(Deserialize)]
struct RawOrigin {
    api_app_id: String,
    team: RawId,
    user: RawUser,
    #[serde(default)]
    is_enterprise_install: bool,
}

#[derive(Deserialize)]
struct RawId {
    id: String,
}

#[derive(Deserialize)]
struct RawUser {
    id: String,
    team_id: String,
}

#[derive(Deserialize)]
struct RawClick {
    #[serde(flatten)]
    origin: RawOrigin,
    container: RawContainer,
    channel: RawId,
    message: RawMessage,
    actions: Vec<RawAction>,
    trigger_id: String,
}

#[derive(Deserialize)]
struct RawContainer {
    #[serde(rename = "type")]
    kind: String,
    message_ts: String,
    channel_id: String,
    #[serde(default)]
    is_ephemeral: bool,
}

#[derive(Deserialize)]
struct RawMessage {
    ts: String,
}

#[derive(Deserialize)]
struct RawAction {
    action_id: String,
    block_id: String,
    value: Option<String>,
}

#[derive(Deserialize)]
struct RawSubmission {
    #[serde(flatten)]
    origin: RawOrigin,
    view: RawView,
    trigger_id: Option<String>,
}

#[derive(Deserialize)]
struct RawView {
    id: String,
    callback_id: String,
    private_metadata: String,
    state: RawState,
}

#[derive(Deserialize)]
struct RawState {
    values: RawValues,
}

/// The one input that our dialogs have.
#[derive(Deserialize)]
struct RawValues {
    #[serde(rename = "countersign.reason")]
    reason: Option<RawInputs>,
}

#[derive(Deserialize)]
struct RawInputs {
    #[serde(rename = "countersign.reason.text")]
    text: Option<RawInput>,
}

#[derive(Deserialize)]
struct RawInput {
    value: Option<String>,
}

impl RawValues {
    fn remove_entry(self) -> Option<String> {
        self.reason?.text?.value
    }
}

/// What was seen already. Slack sends an envelope again when it did not see the acknowledgement,
/// over the same or another connection.
#[derive(Debug, Default)]
pub(super) struct SeenEnvelopes {
    known: BTreeSet<String>,
    order: VecDeque<String>,
}

const REMEMBERED: usize = 4_096;

impl SeenEnvelopes {
    /// Whether this envelope, or another one with the same contents, came before.
    pub(super) fn is_new(&mut self, envelope: &str, interaction: &Interaction) -> bool {
        let envelope = self.insert(format!("e{envelope}"));
        let trigger = self.insert(format!("t{}", interaction.trigger()));
        envelope && trigger
    }

    /// Forgets one that could not be taken in after all, so that it is taken in when it is repeated.
    pub(super) fn forget(&mut self, envelope: &str, interaction: &Interaction) {
        self.known.remove(&format!("e{envelope}"));
        self.known.remove(&format!("t{}", interaction.trigger()));
    }

    fn insert(&mut self, key: String) -> bool {
        if !self.known.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_click_is_read_with_all_that_is_compared() {
        let Frame::Interaction { envelope, interaction } = read(&enveloped(&click())) else {
            panic!("not a click")
        };

        assert_eq!(envelope, "e1");
        let Interaction::Click(click) = *interaction else { panic!("not a click") };
        assert_eq!((click.channel.as_str(), click.ts.as_str()), ("C1", "1.2"));
        assert_eq!((click.block.as_str(), click.action.as_str(), click.value.as_str()), ("b", "a", "v"));
        assert_eq!((click.by.team.as_str(), click.by.home.as_str()), ("T1", "T1"));
    }

    #[test]
    fn what_is_missing_or_contradicts_itself_is_no_click() {
        for (pointer, value) in [
            ("/user/team_id", Value::Null),
            ("/team", Value::Null),
            ("/api_app_id", Value::Null),
            ("/message/ts", json!("9.9")),
            ("/container/channel_id", json!("C9")),
            ("/container/is_ephemeral", json!(true)),
            ("/container/type", json!("message_attachment")),
            ("/actions", json!([])),
            ("/trigger_id", Value::Null),
        ] {
            let mut forged = click();
            *forged.pointer_mut(pointer).unwrap() = value;

            assert_eq!(read(&enveloped(&forged)), Frame::Unreadable, "{pointer}");
        }
    }

    #[test]
    fn the_names_in_a_dialog_are_those_that_are_looked_for() {
        let payload = json!({
            "type": "view_submission", "team": {"id": "T1"}, "user": {"id": "U1", "team_id": "T1"},
            "api_app_id": "A1", "trigger_id": "t1",
            "view": {
                "id": "V1", "callback_id": modal::CALLBACK, "private_metadata": "nonce",
                "state": {"values": {modal::BLOCK: {modal::INPUT: {"type": "plain_text_input", "value": "why"}}}},
            },
        });

        let Frame::Interaction { interaction, .. } = read(&enveloped(&payload)) else { panic!("nothing") };
        let Interaction::Submission(submission) = *interaction else { panic!("no submission") };
        assert_eq!((submission.nonce.as_str(), submission.reason.as_deref()), ("nonce", Some("why")));
    }

    #[test]
    fn hello_disconnect_and_what_is_not_ours() {
        assert_eq!(
            read(r#"{"type":"hello","connection_info":{"app_id":"A1"},"num_connections":1}"#),
            Frame::Hello { app: "A1".to_owned() }
        );
        assert_eq!(
            read(r#"{"type":"disconnect","reason":"warning","debug_info":{}}"#),
            Frame::Disconnect { reason: "warning".to_owned() }
        );
        let other = Frame::Other { envelope: "e1".to_owned() };
        assert_eq!(read(r#"{"type":"events_api","envelope_id":"e1","payload":{}}"#), other);
        assert_eq!(read(&enveloped(&json!({"type": "shortcut"}))), other);
        for nothing in
            ["", "[]", "{}", "null", r#"{"type":"hello"}"#, r#"{"type":"interactive","envelope_id":"e1"}"#]
        {
            assert_eq!(read(nothing), Frame::Unreadable, "{nothing}");
        }
    }

    #[test]
    fn the_same_click_is_new_once_whatever_envelope_brings_it() {
        let Frame::Interaction { interaction, .. } = read(&enveloped(&click())) else { panic!("nothing") };
        let mut seen = SeenEnvelopes::default();

        assert!(seen.is_new("e1", &interaction));
        assert!(!seen.is_new("e1", &interaction));
        assert!(!seen.is_new("e2", &interaction));
        let mut later = click();
        later["trigger_id"] = json!("t2");
        let Frame::Interaction { interaction: later, .. } = read(&enveloped(&later)) else {
            panic!("nothing")
        };
        assert!(seen.is_new("e3", &later));
        seen.forget("e3", &later);
        assert!(seen.is_new("e3", &later), "it could not be taken in the first time");
    }

    fn enveloped(payload: &Value) -> String {
        json!({"type": "interactive", "envelope_id": "e1", "payload": payload, "accepts_response_payload": false})
            .to_string()
    }

    fn click() -> Value {
        json!({
            "type": "block_actions", "team": {"id": "T1"}, "user": {"id": "U1", "team_id": "T1"},
            "api_app_id": "A1", "trigger_id": "t1", "channel": {"id": "C1"}, "message": {"ts": "1.2"},
            "container": {"type": "message", "message_ts": "1.2", "channel_id": "C1", "is_ephemeral": false},
            "actions": [{"action_id": "a", "block_id": "b", "value": "v"}],
        })
    }
}
