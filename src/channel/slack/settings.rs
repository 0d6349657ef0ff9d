//! What has to be known to talk to Slack.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::{Host, Url};
use zeroize::Zeroizing;

use crate::channel::outbox::RetryTiming;

/// A Slack token. It has no `Display`, and its `Debug` says nothing.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Wraps a token.
    #[must_use]
    pub fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The settings of the Slack channel.
#[derive(Clone, Debug)]
pub struct SlackSettings {
    /// Where the Web API is: [`SLACK_API`], but for tests.
    pub api_url: Url,
    /// `xapp-..`, with the scope `connections:write`.
    pub app_token: Token,
    /// `xoxb-..`, with the scopes of `docs/slack.md`.
    pub bot_token: Token,
    /// The id of the channel that cards are posted to.
    pub channel: String,
    /// How browsers reach the console, for the Open button. Without it there is none.
    pub console_url: Option<Url>,
    /// Where it is kept which cards are shown, so that they can be closed after a crash. It holds
    /// ids only. Without it a leftover card stays as it is until somebody presses a button on it.
    pub cards_file: Option<PathBuf>,
    /// How long things may take.
    pub timing: Timing,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// One call of the Web API.
    pub call: Duration,
    /// Opening a dialog: Slack takes the click's ticket for three seconds only.
    pub dialog: Duration,
    /// From opening a socket to Slack's hello.
    pub hello: Duration,
    /// How often a socket is pinged, in whole seconds; it is dead after three that had no answer.
    pub ping: Duration,
    /// The waits before something is tried again.
    pub retry: RetryTiming,
    /// How often the channel and the enrolled accounts are looked up.
    pub look_up: Duration,
    /// How long a result of a look-up may be used.
    pub rely: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(10),
            dialog: Duration::from_millis(2_500),
            hello: Duration::from_secs(20),
            ping: Duration::from_secs(5),
            retry: RetryTiming::default(),
            look_up: Duration::from_mins(5),
            rely: Duration::from_mins(15),
        }
    }
}

/// Where Slack's Web API is.
pub const SLACK_API: &str = "https://slack.com/api";

/// What is wrong with the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// The API's address is not one that tokens may be sent to.
    #[error("the API's address must begin with https:// (http:// only on this machine)")]
    ApiUrl,
    /// Not an app-level token.
    #[error("the app token must begin with xapp-")]
    AppToken,
    /// Not a bot's token.
    #[error("the bot token must begin with xoxb-")]
    BotToken,
    /// A channel's name, or nothing like it.
    #[error("the channel must be an id such as C0123456789, not a name")]
    Channel,
    /// The certificates of this machine cannot be read, so no TLS connection can be trusted.
    #[error("no trusted certificates were found on this machine")]
    NoCertificates,
}

impl SlackSettings {
    /// Finds what is wrong at once, rather than when the first card is due.
    pub fn check(&self) -> Result<(), BadSettings> {
        if self.api_url.scheme() != "https" && !self.is_on_this_machine() {
            return Err(BadSettings::ApiUrl);
        }
        // The two are easily mixed up, and Slack's answer to that ("not_allowed_token_type") comes late.
        if !self.app_token.expose().starts_with("xapp-") {
            return Err(BadSettings::AppToken);
        }
        if !self.bot_token.expose().starts_with("xoxb-") {
            return Err(BadSettings::BotToken);
        }
        let mut id = self.channel.chars();
        let is_id = id.next().is_some_and(|first| matches!(first, 'C' | 'G'))
            && self.channel.len() >= 9
            && id.all(|c| c.is_ascii_digit() || c.is_ascii_uppercase());
        if is_id { Ok(()) } else { Err(BadSettings::Channel) }
    }

    /// Whether the API is on this machine, where there is nobody to encrypt against.
    pub(super) fn is_on_this_machine(&self) -> bool {
        self.api_url.scheme() == "http"
            && match self.api_url.host() {
                Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
                Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
                Some(Host::Domain(name)) => name == "localhost",
                None => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_sent_in_the_clear_to_other_machines() {
        for (url, good) in [
            ("https://slack.com/api", true),
            ("http://127.0.0.1:4000/api", true),
            ("http://[::1]:4000/api", true),
            ("http://localhost:4000/api", true),
            ("http://slack.com/api", false),
            ("http://127.0.0.1.evil.example/api", false),
            ("ftp://127.0.0.1/api", false),
        ] {
            let settings = SlackSettings { api_url: Url::parse(url).unwrap(), ..settings() };

            assert_eq!(settings.check().is_ok(), good, "{url}");
        }
    }

    #[test]
    fn mixed_up_tokens_and_channel_names_are_found_at_once() {
        let app = SlackSettings { app_token: Token::new("xoxb-1"), ..settings() };
        let bot = SlackSettings { bot_token: Token::new("xapp-1"), ..settings() };
        let channel = SlackSettings { channel: "#approvals".to_owned(), ..settings() };

        assert_eq!(app.check(), Err(BadSettings::AppToken));
        assert_eq!(bot.check(), Err(BadSettings::BotToken));
        assert_eq!(channel.check(), Err(BadSettings::Channel));
    }

    #[test]
    fn debug_output_shows_no_token() {
        let shown = format!("{:?}", settings());

        assert!(!shown.contains("xapp") && !shown.contains("xoxb"), "{shown}");
    }

    fn settings() -> SlackSettings {
        SlackSettings {
            api_url: Url::parse(SLACK_API).unwrap(),
            app_token: Token::new("xapp-1-A1-2-3"),
            bot_token: Token::new("xoxb-1-2"),
            channel: "C0123456789".to_owned(),
            console_url: None,
            cards_file: None,
            timing: Timing::default(),
        }
    }
}
