//! The fake Web API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::serve::Listener;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::world::{Call, Dialog, Failure, Message, World};
use super::{APP, APP_TOKEN, BOT_TOKEN, CHANNEL, TEAM, limits, texts};

#[derive(Clone)]
struct Shared {
    world: Arc<World>,
    sockets: SocketAddr,
}

/// Starts it; gives its address.
pub async fn serve(world: Arc<World>, sockets: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = SlackListener { listener, world: world.clone() };
    let router = Router::new().route("/api/{method}", any(call)).with_state(Shared { world, sockets });
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Accepts no connections while Slack is down.
struct SlackListener {
    listener: TcpListener,
    world: Arc<World>,
}

impl Listener for SlackListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if let Ok((stream, address)) = self.listener.accept().await
                && !self.world.with(|state| state.down)
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn call(
    State(shared): State<Shared>,
    Path(method): Path<String>,
    verb: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let world = &shared.world;
    if world.with(|state| state.down) {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::CONNECTION, "close")]).into_response();
    }
    let arguments = if verb == Method::GET {
        let pairs = url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
        Value::Object(
            pairs.map(|(name, value)| (name.into_owned(), Value::from(value.into_owned()))).collect(),
        )
    } else {
        let json = headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        match serde_json::from_slice(&body) {
            Ok(body) if json => body,
            _ => return record(world, &method, Value::Null, Err("invalid_post_type")),
        }
    };
    let failure =
        world.with(|state| state.failures.get_mut(&method).and_then(std::collections::VecDeque::pop_front));
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let outcome = |what: &str| {
        let (method, body, outcome) = (method.clone(), arguments.clone(), what.to_owned());
        world.with(|state| state.calls.push(Call { method, body, at: Instant::now(), outcome }));
    };
    match failure {
        None => {}
        Some(Failure::RateLimited { seconds }) => {
            outcome("429");
            let body = json!({"ok": false, "error": "ratelimited"}).to_string();
            let headers = [
                (header::RETRY_AFTER, seconds.to_string()),
                (header::CONTENT_TYPE, "application/json".to_owned()),
            ];
            return (StatusCode::TOO_MANY_REQUESTS, headers, body).into_response();
        }
        Some(Failure::Status(status)) => {
            outcome(&status.to_string());
            return (StatusCode::from_u16(status).unwrap(), "upstream connect error").into_response();
        }
        Some(Failure::Silence) => {
            outcome("silence");
            std::future::pending::<()>().await;
        }
        Some(Failure::Portal) => {
            outcome("portal");
            return ([(header::CONTENT_TYPE, "text/html")], "<html>please log in</html>").into_response();
        }
        Some(Failure::Says(code)) => return record(world, &method, arguments, Err(code)),
        Some(Failure::LostAnswer) => {
            let _ = carry_out(&shared, &method, &arguments);
            outcome("answer lost");
            std::future::pending::<()>().await;
        }
    }
    let answer = match authorise(world, &method, token) {
        Ok(()) => carry_out(&shared, &method, &arguments),
        Err(error) => Err((error, String::new())),
    };
    match answer {
        Ok(answer) => record(world, &method, arguments, Ok(answer)),
        Err((error, what)) => {
            outcome(&format!("{error}: {what}"));
            let messages = json!({"messages": [what]});
            respond(&json!({"ok": false, "error": error, "response_metadata": messages}))
        }
    }
}

fn record(world: &World, method: &str, body: Value, answer: Result<Value, &str>) -> Response {
    let outcome = answer.as_ref().map_or_else(|error| (*error).to_owned(), |_| "ok".to_owned());
    world.with(|state| {
        state.calls.push(Call { method: method.to_owned(), body, at: Instant::now(), outcome });
    });
    match answer {
        Ok(mut answer) => {
            answer["ok"] = Value::Bool(true);
            respond(&answer)
        }
        Err(error) => respond(&json!({"ok": false, "error": error})),
    }
}

fn respond(answer: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], answer.to_string()).into_response()
}

/// Each method takes one kind of token.
fn authorise(world: &World, method: &str, header: Option<&str>) -> Result<(), &'static str> {
    let Some(token) = header.and_then(|header| header.strip_prefix("Bearer ")) else {
        return Err("not_authed");
    };
    if world.with(|state| state.revoked) {
        return Err("token_revoked");
    }
    let (needed, other) = match method {
        "apps.connections.open" => (APP_TOKEN, BOT_TOKEN),
        _ => (BOT_TOKEN, APP_TOKEN),
    };
    match token {
        token if token == needed => Ok(()),
        token if token == other => Err("not_allowed_token_type"),
        _ => Err("invalid_auth"),
    }
}

type Answer = Result<Value, (&'static str, String)>;

fn carry_out(shared: &Shared, method: &str, body: &Value) -> Answer {
    let world = &shared.world;
    match method {
        "auth.test" => Ok(world.with(|state| state.auth.clone()).unwrap_or_else(|| {
            json!({
                "url": "https://home.slack.com/", "team": "Home", "user": "countersign", "team_id": TEAM,
                "user_id": "U0BOT00001", "bot_id": "B0BOT00001", "is_enterprise_install": false,
            })
        })),
        "bots.info" if body["bot"] == "B0BOT00001" => Ok(json!({
            "bot": {"id": "B0BOT00001", "deleted": false, "name": "countersign", "app_id": APP, "user_id": "U0BOT00001"}
        })),
        "bots.info" => Err(("bot_not_found", String::new())),
        "apps.connections.open" => {
            let ticket = format!("ticket-{:032x}", world.number() as u128 * 0x9E37_79B9_7F4A_7C15);
            world.with(|state| state.tickets.push(ticket.clone()));
            Ok(json!({"url": format!("ws://{}/link/?ticket={ticket}&app_id={APP}", shared.sockets)}))
        }
        "users.info" => match body["user"].as_str().and_then(|id| world.user(id)) {
            Some(user) => Ok(json!({"user": user.facts})),
            None => Err(("user_not_found", String::new())),
        },
        "conversations.info" => {
            in_channel(body)?;
            Ok(json!({"channel": world.with(|state| state.channel.clone())}))
        }
        "chat.postMessage" => post(world, body),
        "chat.update" => update(world, body),
        "chat.postEphemeral" => whisper(world, body),
        "views.open" => open(world, body),
        _ => Err(("unknown_method", method.to_owned())),
    }
}

fn in_channel(body: &Value) -> Result<(), (&'static str, String)> {
    if body["channel"] == CHANNEL { Ok(()) } else { Err(("channel_not_found", body["channel"].to_string())) }
}

/// Fields that the chat methods have.
const CHAT: [&str; 14] = [
    "channel",
    "ts",
    "thread_ts",
    "user",
    "text",
    "blocks",
    "parse",
    "link_names",
    "unfurl_links",
    "unfurl_media",
    "mrkdwn",
    "metadata",
    "as_user",
    "reply_broadcast",
];

fn check_chat(body: &Value) -> Result<(), (&'static str, String)> {
    in_channel(body)?;
    let unknown = body.as_object().and_then(|body| body.keys().find(|key| !CHAT.contains(&key.as_str())));
    if let Some(unknown) = unknown {
        return Err(("invalid_arguments", unknown.clone()));
    }
    limits::message(body)
}

fn stored(world: &World, body: &Value, ts: String) -> Value {
    json!({
        "type": "message", "ts": ts, "bot_id": "B0BOT00001", "app_id": APP, "team": TEAM, "user": "U0BOT00001",
        "text": body["text"], "blocks": body["blocks"], "n": world.number(),
    })
}

fn post(world: &World, body: &Value) -> Answer {
    check_chat(body)?;
    let thread = body["thread_ts"].as_str().map(str::to_owned);
    if let Some(thread) = &thread
        && world.message(thread).is_none()
    {
        return Err(("thread_not_found", thread.clone()));
    }
    let ts = world.ts();
    world.with(|state| {
        state.messages.push(Message {
            channel: CHANNEL.to_owned(),
            ts: ts.clone(),
            thread,
            text: body["text"].as_str().unwrap_or_default().to_owned(),
            blocks: body["blocks"].clone(),
            edits: 0,
        });
    });
    Ok(json!({"channel": CHANNEL, "ts": ts, "message": stored(world, body, ts.clone())}))
}

fn update(world: &World, body: &Value) -> Answer {
    check_chat(body)?;
    let ts = body["ts"].as_str().unwrap_or_default().to_owned();
    let found = world.with(|state| match state.messages.iter_mut().find(|message| message.ts == ts) {
        Some(message) => {
            message.text = body["text"].as_str().unwrap_or_default().to_owned();
            message.blocks = body["blocks"].clone();
            message.edits += 1;
            true
        }
        None => false,
    });
    if !found {
        return Err(("message_not_found", ts));
    }
    Ok(
        json!({"channel": CHANNEL, "ts": ts, "text": body["text"], "message": stored(world, body, ts.clone())}),
    )
}

fn whisper(world: &World, body: &Value) -> Answer {
    check_chat(body)?;
    let user = body["user"].as_str().unwrap_or_default().to_owned();
    if world.user(&user).is_none() {
        return Err(("user_not_in_channel", user));
    }
    let says = texts(&body["blocks"]).into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n");
    world.with(|state| state.whispers.push((user, says)));
    Ok(json!({"message_ts": world.ts()}))
}

fn open(world: &World, body: &Value) -> Answer {
    limits::view(&body["view"])?;
    let ticket = body["trigger_id"].as_str().unwrap_or_default().to_owned();
    let life = world.with(|state| state.trigger_life).unwrap_or(Duration::from_secs(3));
    let user = world.with(|state| match state.triggers.get_mut(&ticket) {
        None => Err("invalid_trigger_id"),
        Some(trigger) if trigger.used => Err("exchanged_trigger_id"),
        Some(trigger) if trigger.at.elapsed() > life => Err("expired_trigger_id"),
        Some(trigger) => {
            trigger.used = true;
            Ok(trigger.user.clone())
        }
    });
    let user = user.map_err(|error| (error, ticket))?;
    let id = format!("V0{:08}", world.number());
    let mut view = body["view"].clone();
    view["id"] = Value::from(id.clone());
    view["team_id"] = Value::from(TEAM);
    view["app_id"] = Value::from(APP);
    view["hash"] = Value::from("1767607200.hash");
    view["state"] = json!({"values": {}});
    world.with(|state| state.dialogs.push(Dialog { id, user, view: view.clone() }));
    Ok(json!({"view": view}))
}
