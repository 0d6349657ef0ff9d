//! People in the fake workspace: they press buttons and fill in dialogs, and some of them cheat.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::world::{Order, Trigger};
use super::{APP, CHANNEL, FakeSlack, Message, TEAM, User};

/// What Slack saw of an acknowledgement.
#[derive(Clone, Debug, PartialEq)]
pub enum Ack {
    /// It came in time.
    Acknowledged { after: Duration, payload: Option<Value> },
    /// It did not: Slack tells the user that the app did not respond.
    Missing,
}

impl Ack {
    pub fn came(&self) -> bool {
        matches!(self, Self::Acknowledged { .. })
    }
}

/// A press of a button, as Slack would send it; tests that forge one change fields.
#[derive(Clone, Debug)]
pub struct Click {
    payload: Value,
    /// Sent so often, with the same envelope.
    pub copies: usize,
    /// Repeated under another envelope, as Slack does when it missed the acknowledgement.
    pub again: bool,
}

impl Click {
    /// `user` presses `action` on `message`. The button has to be there.
    pub fn on(fake: &FakeSlack, user: &str, message: &Message, action: &str) -> Self {
        let (button, block) = message.button(action).expect("the card has this button");
        Self::raw(fake, user, message, &button, &block)
    }

    /// `user` presses a button that may not be there.
    pub fn raw(fake: &FakeSlack, user: &str, message: &Message, button: &Value, block: &str) -> Self {
        let world = fake.world();
        let person = world.user(user).unwrap_or_else(|| User::member(user));
        let trigger = format!("{}.{}.trigger", world.number(), world.number());
        world.with(|state| {
            let ticket = Trigger { user: user.to_owned(), at: Instant::now(), used: false };
            state.triggers.insert(trigger.clone(), ticket);
        });
        let payload = json!({
            "type": "block_actions",
            "user": {"id": user, "username": user.to_lowercase(), "name": user.to_lowercase(), "team_id": person.home()},
            "api_app_id": APP, "token": "verification-token-of-old",
            "container": {
                "type": "message", "message_ts": message.ts, "channel_id": message.channel, "is_ephemeral": false
            },
            "trigger_id": trigger,
            "team": {"id": TEAM, "domain": "home"}, "enterprise": null, "is_enterprise_install": false,
            "channel": {"id": message.channel, "name": "approvals"},
            "message": {
                "type": "message", "ts": message.ts, "bot_id": "B0BOT00001", "app_id": APP, "team": TEAM,
                "user": "U0BOT00001", "text": message.text, "blocks": message.blocks,
            },
            "state": {"values": {}},
            "response_url": "https://hooks.slack.com/actions/T0/1/secret-response-url",
            "actions": [{
                "type": "button", "action_id": button["action_id"], "block_id": block, "text": button["text"],
                "value": button["value"], "style": button["style"], "action_ts": "1767607300.000001",
            }],
        });
        Self { payload, copies: 1, again: false }
    }

    /// Says something else at `pointer` than Slack would.
    pub fn forged(mut self, pointer: &str, value: Value) -> Self {
        *self.payload.pointer_mut(pointer).expect("the payload has this") = value;
        self
    }

    pub fn twice(mut self) -> Self {
        self.copies = 2;
        self
    }

    pub fn repeated(mut self) -> Self {
        self.again = true;
        self
    }
}

/// A submitted dialog.
#[derive(Clone, Debug)]
pub struct Submit {
    payload: Value,
}

impl Submit {
    /// The dialog that `user` looks at, with `reason` filled in.
    pub fn of(fake: &FakeSlack, user: &str, reason: Option<&str>) -> Self {
        let world = fake.world();
        let dialog = world.dialog(user).expect("a dialog is open");
        let person = world.user(user).unwrap_or_else(|| User::member(user));
        let input = dialog.view["blocks"]
            .as_array()
            .and_then(|blocks| blocks.iter().find(|block| block["type"] == "input"))
            .cloned()
            .expect("the dialog has an input");
        if input["optional"] == false {
            assert!(reason.is_some_and(|reason| !reason.is_empty()), "Slack does not submit without it");
        }
        let (block, action) =
            (input["block_id"].as_str().unwrap(), input["element"]["action_id"].as_str().unwrap());
        let mut view = dialog.view.clone();
        view["state"] = json!({"values": {block: {action: {"type": "plain_text_input", "value": reason}}}});
        let payload = json!({
            "type": "view_submission", "team": {"id": TEAM, "domain": "home"},
            "user": {"id": user, "username": user.to_lowercase(), "name": user.to_lowercase(), "team_id": person.home()},
            "api_app_id": APP, "token": "verification-token-of-old",
            "trigger_id": format!("{}.submit", world.number()),
            "view": view, "response_urls": [], "is_enterprise_install": false, "enterprise": null,
        });
        world.with(|state| state.dialogs.retain(|other| other.id != dialog.id));
        Self { payload }
    }

    /// Says something else at `pointer` than Slack would.
    pub fn forged(mut self, pointer: &str, value: Value) -> Self {
        *self.payload.pointer_mut(pointer).expect("the payload has this") = value;
        self
    }
}

impl FakeSlack {
    /// Somebody presses a button on a card.
    pub async fn click(&self, user: &str, message: &Message, action: &str) -> Ack {
        self.send(Click::on(self, user, message, action)).await
    }

    /// Sends a click over one of the sockets, and waits for its acknowledgement as long as Slack does.
    pub async fn send(&self, click: Click) -> Ack {
        let ack = self.deliver(&click.payload, click.copies).await;
        if click.again { self.deliver(&click.payload, 1).await } else { ack }
    }

    /// Submits the dialog that `user` looks at.
    pub async fn submit(&self, user: &str, reason: Option<&str>) -> Ack {
        let submit = Submit::of(self, user, reason);
        self.send_submission(submit).await
    }

    pub async fn send_submission(&self, submit: Submit) -> Ack {
        self.deliver(&submit.payload, 1).await
    }

    /// Waits for the dialog that `user` is shown.
    pub async fn dialog(&self, user: &str) -> Value {
        self.until(|fake| fake.world().dialog(user)).await.view
    }

    /// Sends any payload in an interactive envelope.
    pub async fn deliver(&self, payload: &Value, copies: usize) -> Ack {
        let envelope = format!("envelope-{}", self.world().number());
        let frame = json!({
            "type": "interactive", "envelope_id": envelope, "accepts_response_payload": true, "payload": payload,
        });
        self.deliver_frame(&envelope, &frame, copies).await
    }

    /// Sends any envelope, over as many sockets as there are copies.
    pub async fn deliver_frame(&self, envelope: &str, frame: &Value, copies: usize) -> Ack {
        let (sender, receiver) = oneshot::channel();
        let sent = Instant::now();
        let sockets = self.world().socket_ids();
        assert!(!sockets.is_empty(), "no socket to send over");
        self.world().with(|state| state.waiting_acks.insert(envelope.to_owned(), sender));
        let first = usize::try_from(self.world().number()).unwrap();
        for copy in 0..copies {
            self.world().order(sockets[(first + copy) % sockets.len()], Order::Send(frame.to_string()));
        }
        match tokio::time::timeout(Duration::from_secs(3), receiver).await {
            Ok(Ok(mut ack)) => {
                let payload = ack.as_object_mut().and_then(|ack| ack.remove("payload"));
                Ack::Acknowledged { after: sent.elapsed(), payload }
            }
            _ => Ack::Missing,
        }
    }

    /// A message that looks like a card, at another place.
    pub fn elsewhere(message: &Message, ts: &str) -> Message {
        Message { ts: ts.to_owned(), channel: CHANNEL.to_owned(), ..message.clone() }
    }
}
