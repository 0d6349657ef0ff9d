//! Slack's Web API: every call under a timeout, every answer one that says so itself.
//!
//! slack-morphism's client has no timeouts, takes an HTML page with status 200 for a success, and puts
//! whole response bodies into the texts of its errors; so calls go through here, where answers must
//! say `"ok": true` and errors are reduced to what may be logged. After a call that had no answer the
//! client is made anew: with HTTP/2, a connection that died silently would be used again and again.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use slack_morphism::errors::SlackClientError;
use slack_morphism::prelude::{
    SlackApiToken, SlackApiTokenValue, SlackBlock, SlackClientHyperConnector, SlackHyperClient, SlackView,
};

use super::card::Card;
use super::settings::{BadSettings, SlackSettings, Token};
use crate::channel::journal::MessageRef;

/// Why a call failed, in words that may be logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// Slack answered with this error code.
    #[error("{0}")]
    ErrorCode(String),
    /// Slack limits the rate of calls.
    #[error("too many calls")]
    RateLimited {
        /// How long to wait.
        wait: Duration,
    },
    /// Slack has a problem.
    #[error("HTTP status {0}")]
    Status(u16),
    /// No answer in time. Whether the call was carried out is not known.
    #[error("no answer in time")]
    Timeout,
    /// No connection, or one that broke.
    #[error("Slack cannot be reached")]
    Unreachable,
    /// The answer does not come from Slack.
    #[error("the answer does not come from Slack")]
    NotSlack,
}

/// Slack says so when it does not say how long to wait.
const USUAL_WAIT: Duration = Duration::from_secs(5);
/// Longer is not waited, whatever Slack says: a card is worth another try by then.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// How to make a client; made once, because reading the machine's certificates takes a while.
#[derive(Clone)]
pub(super) struct ClientFactory {
    tls: Arc<ClientConfig>,
    url: String,
    plain: bool,
}

impl ClientFactory {
    pub(super) fn new(settings: &SlackSettings) -> Result<Self, BadSettings> {
        let plain = settings.is_on_this_machine();
        let mut roots = RootCertStore::empty();
        if !plain {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(BadSettings::NoCertificates);
            }
        }
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let url = settings.api_url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { tls: Arc::new(tls), url, plain })
    }

    /// A client with connections of its own, which belong to the runtime that it is first used on.
    pub(super) fn make(&self) -> SlackHyperClient {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_secs(5)));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let builder = HttpsConnectorBuilder::new().with_tls_config((*self.tls).clone());
        let builder = if self.plain { builder.https_or_http() } else { builder.https_only() };
        let connector = builder.enable_http1().enable_http2().wrap_connector(tcp);
        SlackHyperClient::new(SlackClientHyperConnector::from(connector).with_slack_api_url(&self.url))
    }
}

/// The Web API.
pub(super) struct Api {
    clients: ClientFactory,
    client: ArcSwap<SlackHyperClient>,
    bot: SlackApiToken,
    app: SlackApiToken,
    timeout: Duration,
}

/// Who we are in Slack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AppIdentity {
    /// The app's id, which clicks must name.
    pub(super) app: String,
    /// The workspace that the app is installed in.
    pub(super) team: String,
    /// The organisation that the workspace belongs to.
    pub(super) organisation: Option<String>,
}

/// What Slack knows of a user.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) team_id: Option<String>,
    #[serde(default)]
    pub(super) deleted: bool,
    pub(super) is_bot: Option<bool>,
    #[serde(default)]
    pub(super) is_workflow_bot: bool,
    #[serde(default)]
    pub(super) is_connector_bot: bool,
    pub(super) is_restricted: Option<bool>,
    pub(super) is_ultra_restricted: Option<bool>,
    #[serde(default)]
    pub(super) is_stranger: bool,
    #[serde(default)]
    pub(super) is_invited_user: bool,
    #[serde(default)]
    pub(super) enterprise_user: Option<EnterpriseUser>,
}

/// What Slack knows of a user of an organisation with several workspaces.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct EnterpriseUser {
    #[serde(default)]
    pub(super) teams: Vec<String>,
}

/// What Slack knows of a channel. What it does not say counts as said: the flags are always there.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Channel {
    pub(super) id: String,
    #[serde(default)]
    pub(super) is_archived: bool,
    pub(super) is_shared: Option<bool>,
    pub(super) is_ext_shared: Option<bool>,
    pub(super) is_org_shared: Option<bool>,
    #[serde(default)]
    pub(super) is_pending_ext_shared: bool,
    #[serde(default)]
    pub(super) is_member: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_ts: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    text: &'a str,
    blocks: &'a [SlackBlock],
    // No names or addresses in the text become links, and no link shows a preview.
    parse: &'static str,
    link_names: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unfurl_links: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unfurl_media: Option<bool>,
}

impl<'a> Message<'a> {
    fn new(channel: &'a str, card: &'a Card) -> Self {
        Self {
            channel,
            ts: None,
            thread_ts: None,
            user: None,
            text: &card.text,
            blocks: &card.blocks,
            parse: "none",
            link_names: false,
            unfurl_links: None,
            unfurl_media: None,
        }
    }
}

/// An answer that says that it is one. slack-morphism has turned `"ok": false` into an error.
#[derive(Deserialize)]
struct Answered<T> {
    ok: bool,
    #[serde(flatten)]
    rest: T,
}

#[derive(Deserialize)]
struct Nothing {}

impl Api {
    pub(super) fn new(settings: &SlackSettings, clients: ClientFactory) -> Self {
        Self {
            client: ArcSwap::from_pointee(clients.make()),
            clients,
            bot: token(&settings.bot_token),
            app: token(&settings.app_token),
            timeout: settings.timing.call,
        }
    }

    /// Who we are, and whether the two tokens belong together.
    pub(super) async fn me(&self) -> Result<AppIdentity, CallError> {
        #[derive(Deserialize)]
        struct Auth {
            team_id: String,
            bot_id: Option<String>,
            enterprise_id: Option<String>,
            #[serde(default)]
            is_enterprise_install: bool,
        }
        #[derive(Deserialize)]
        struct Bot {
            app_id: String,
        }
        #[derive(Deserialize)]
        struct Bots {
            bot: Bot,
        }
        let auth: Auth = self.get("auth.test", &[]).await?;
        if auth.is_enterprise_install {
            return Err(CallError::ErrorCode("the app is installed for a whole organisation".to_owned()));
        }
        let bot = auth.bot_id.ok_or_else(|| CallError::ErrorCode("the token is not a bot's".to_owned()))?;
        let bots: Bots = self.get("bots.info", &[("bot", &bot)]).await?;
        Ok(AppIdentity { app: bots.bot.app_id, team: auth.team_id, organisation: auth.enterprise_id })
    }

    pub(super) async fn user(&self, id: &str) -> Result<User, CallError> {
        #[derive(Deserialize)]
        struct Found {
            user: User,
        }
        let found: Found = self.get("users.info", &[("user", id)]).await?;
        Ok(found.user)
    }

    pub(super) async fn channel(&self, id: &str) -> Result<Channel, CallError> {
        #[derive(Deserialize)]
        struct Found {
            channel: Channel,
        }
        let found: Found = self.get("conversations.info", &[("channel", id)]).await?;
        Ok(found.channel)
    }

    /// Posts a message, into the thread of another one when `thread` is given.
    pub(super) async fn post(
        &self,
        channel: &str,
        thread: Option<&str>,
        card: &Card,
    ) -> Result<MessageRef, CallError> {
        let message = Message {
            thread_ts: thread,
            unfurl_links: Some(false),
            unfurl_media: Some(false),
            ..Message::new(channel, card)
        };
        self.send("chat.postMessage", &message, self.timeout).await
    }

    /// Changes a message of ours.
    pub(super) async fn update(&self, place: &MessageRef, card: &Card) -> Result<(), CallError> {
        let message = Message { ts: Some(&place.message), ..Message::new(&place.channel, card) };
        let Nothing {} = self.send("chat.update", &message, self.timeout).await?;
        Ok(())
    }

    /// Says something to one user only.
    pub(super) async fn post_ephemeral(
        &self,
        channel: &str,
        user: &str,
        card: &Card,
    ) -> Result<(), CallError> {
        let message = Message { user: Some(user), ..Message::new(channel, card) };
        let Nothing {} = self.send("chat.postEphemeral", &message, self.timeout).await?;
        Ok(())
    }

    /// Opens a dialog for the user who has just pressed a button.
    pub(super) async fn open_dialog(
        &self,
        trigger: &str,
        view: &SlackView,
        within: Duration,
    ) -> Result<(), CallError> {
        #[derive(Serialize)]
        struct Open<'a> {
            trigger_id: &'a str,
            view: &'a SlackView,
        }
        let Nothing {} = self.send("views.open", &Open { trigger_id: trigger, view }, within).await?;
        Ok(())
    }

    /// Asks for a socket's address and throws it away: the answer says what is wrong when none opens.
    pub(super) async fn why_no_socket(&self) -> Result<(), CallError> {
        #[derive(Serialize)]
        struct Empty {}
        let client = self.client.load_full();
        let session = client.open_session(&self.app);
        let call = session.http_session_api.http_post("apps.connections.open", &Empty {}, None);
        let answered: Answered<Nothing> = self.timely(self.timeout, call).await?;
        if answered.ok { Ok(()) } else { Err(CallError::NotSlack) }
    }

    async fn get<T>(&self, method: &str, parameters: &[(&'static str, &str)]) -> Result<T, CallError>
    where
        T: DeserializeOwned + Send,
    {
        let parameters: Vec<(&str, Option<&str>)> =
            parameters.iter().map(|(name, value)| (*name, Some(*value))).collect();
        let client = self.client.load_full();
        let session = client.open_session(&self.bot);
        let call = session.http_session_api.http_get(method, &parameters, None);
        let answered: Answered<T> = self.timely(self.timeout, call).await?;
        if answered.ok { Ok(answered.rest) } else { Err(CallError::NotSlack) }
    }

    async fn send<T>(
        &self,
        method: &str,
        body: &(impl Serialize + Send + Sync),
        within: Duration,
    ) -> Result<T, CallError>
    where
        T: DeserializeOwned + Send,
    {
        let client = self.client.load_full();
        let session = client.open_session(&self.bot);
        let call = session.http_session_api.http_post(method, body, None);
        let answered: Answered<T> = self.timely(within, call).await?;
        if answered.ok { Ok(answered.rest) } else { Err(CallError::NotSlack) }
    }

    async fn timely<T>(
        &self,
        within: Duration,
        call: impl Future<Output = Result<T, SlackClientError>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(within, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(reduced(error)),
            Err(_) => {
                self.client.store(Arc::new(self.clients.make()));
                Err(CallError::Timeout)
            }
        }
    }
}

/// What of an error may be logged. Its text holds the response's body, which may hold anything.
fn reduced(error: SlackClientError) -> CallError {
    match error {
        SlackClientError::ApiError(error) => CallError::ErrorCode(code(&error.code)),
        SlackClientError::RateLimitError(error) => {
            CallError::RateLimited { wait: error.retry_after.unwrap_or(USUAL_WAIT).min(LONGEST_WAIT) }
        }
        SlackClientError::HttpError(error) => CallError::Status(error.status_code.as_u16()),
        SlackClientError::HttpProtocolError(_)
        | SlackClientError::SystemError(_)
        | SlackClientError::EndOfStream(_)
        | SlackClientError::SocketModeProtocolError(_) => CallError::Unreachable,
        SlackClientError::ProtocolError(_) => CallError::NotSlack,
    }
}

/// Slack's codes are words; anything else is not repeated.
fn code(code: &str) -> String {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if code.len() <= 64 && code.chars().all(is_word) { code.to_owned() } else { "unknown_error".to_owned() }
}

pub(super) fn token(token: &Token) -> SlackApiToken {
    SlackApiToken::new(SlackApiTokenValue(token.expose().to_owned()))
}
