//! What all pages have in common: who is looking, the frame around them, and how they say no.

use askama::Template;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Form, RequestExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::warn;
use url::Url;

use crate::actor::Assurance;
use crate::web::api::ApiError;
use crate::web::caller::{Browser, Peer, ShownSession};
use crate::web::views::ViewError;
use crate::web::{Web, assets};

/// A page, or why there is none.
pub(super) type Answer = Result<Response, Problem>;

/// The frame around a page.
pub(super) struct Frame {
    /// For the window's title.
    pub(super) title: String,
    /// Which entry of the navigation it belongs to.
    pub(super) place: Place,
    /// Who is looking, once signed in.
    pub(super) viewer: Option<Viewer>,
    /// What the paths of the session's pages begin with; nothing for those who have not signed in.
    pub(super) base: String,
    /// The server's time: what countdowns go by.
    pub(super) now: String,
    pub(super) assets: assets::Links,
}

/// Who is looking.
pub(super) struct Viewer {
    pub(super) id: String,
    /// Their sign-in was long ago; it is as good as a click.
    pub(super) stale: bool,
    /// For every form.
    pub(super) csrf: String,
    /// How many requests wait.
    pub(super) waiting: usize,
}

/// The entries of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Requests,
    History,
    Sessions,
    Ledger,
    Policies,
    People,
    Elsewhere,
}

impl Place {
    /// The entries, in order: where they lead and what they are called.
    pub(super) const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Requests, "/requests", "Requests"),
        (Self::History, "/history", "History"),
        (Self::Sessions, "/sessions", "Sessions"),
        (Self::Ledger, "/ledger", "Ledger"),
        (Self::Policies, "/policies", "Policies"),
        (Self::People, "/people", "People"),
    ];
}

impl Frame {
    pub(super) fn new(web: &Web, browser: &Browser, place: Place, title: impl Into<String>) -> Self {
        let viewer = Viewer {
            id: browser.who.reviewer().id.to_string(),
            stale: browser.who.assurance() < Assurance::Login,
            csrf: web.form_token(browser),
            waiting: web.0.desk.counts().waiting,
        };
        Self {
            title: title.into(),
            place,
            viewer: Some(viewer),
            base: browser.at(""),
            now: web.now().to_string(),
            assets: assets::links(),
        }
    }

    /// The frame of a page for somebody who has not signed in, or of whom it is not known.
    pub(super) fn stranger(title: impl Into<String>, base: &str) -> Self {
        let (place, now) = (Place::Elsewhere, String::new());
        Self { title: title.into(), place, viewer: None, base: base.to_owned(), now, assets: assets::links() }
    }

    /// What every form on the page carries.
    pub(super) fn csrf(&self) -> &str {
        self.viewer.as_ref().map_or("", |viewer| &viewer.csrf)
    }

    /// The navigation: where each entry leads, what it is called, whether it is the current one.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        Place::ALL.into_iter().map(|(place, path, name)| (path, name, place == self.place))
    }
}

/// Renders a page.
pub(super) fn render(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "This page is broken; the server's log says why.\n")
                .into_response()
        }
    }
}

/// Somebody who has signed in. Who has not is sent to do so, and then comes back.
pub(super) struct SignedIn(pub(super) Browser);

impl FromRequestParts<Web> for SignedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Problem> {
        let by_itself = parts.headers.contains_key("x-console-refresh");
        let shown = ShownSession::of(web, &parts.extensions, &parts.headers);
        if let Some(browser) = web.browser(&shown, !by_itself) {
            return Ok(Self(browser));
        }
        if by_itself {
            return Err(Problem::signed_out());
        }
        let came_for = match parts.method {
            Method::GET => parts.uri.path_and_query().map(|path| path.as_str()),
            _ => None,
        };
        Err(Problem::sign_in_first(came_for, shown.within.is_some()))
    }
}

/// A form that one of our pages sent for somebody who has signed in.
pub(super) struct Posted<T>(pub(super) Browser, pub(super) T);

#[derive(Deserialize)]
struct WithToken<T> {
    csrf: String,
    #[serde(flatten)]
    form: T,
}

impl<T: DeserializeOwned + 'static> FromRequest<Web> for Posted<T> {
    type Rejection = Problem;

    async fn from_request(mut request: Request, web: &Web) -> Result<Self, Problem> {
        let SignedIn(browser) = request.extract_parts_with_state(web).await?;
        let from = Peer::of(request.extensions());
        let Form(posted) = Form::<WithToken<T>>::from_request(request, web).await.map_err(|rejection| {
            warn!(%from, status = %rejection.status(), "a form could not be read");
            match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(),
                _ => Problem::bad_form(),
            }
        })?;
        if web.check_form(&browser, &posted.csrf).is_err() {
            warn!(%from, reviewer = %browser.who.reviewer().id, "a form without its token was turned away");
            return Err(Problem::forged());
        }
        Ok(Self(browser, posted.form))
    }
}

/// Why there is no page.
#[derive(Clone)]
pub(super) struct Problem {
    status: StatusCode,
    /// Where to go instead.
    redirect: Option<String>,
    title: &'static str,
    message: String,
    /// What to do.
    advice: String,
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    frame: Frame,
    problem: &'a Problem,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        title: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { status, redirect: None, title, message: message.into(), advice: advice.into() }
    }

    fn sign_in_first(came_for: Option<&str>, session_ended: bool) -> Self {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if let Some(path) = came_for.filter(|path| *path != "/requests") {
            query.append_pair("next", path);
        }
        if session_ended {
            query.append_pair("ended", "1");
        }
        let query = query.finish();
        let path = if query.is_empty() { "/sign-in".to_owned() } else { format!("/sign-in?{query}") };
        Self { redirect: Some(path), ..Self::signed_out() }
    }

    pub(super) fn signed_out() -> Self {
        let advice = "Sign in again, then repeat what you did. Nothing was changed.";
        Self::new(StatusCode::UNAUTHORIZED, "You are signed out", "Your session has ended.", advice)
    }

    pub(super) fn wrong_host(url: &Url) -> Self {
        let message = "This console answers under its configured address only, so that no other name can be made to lead to it.";
        let advice = format!("Its address is {url} (`[console] url` in the configuration).");
        Self::new(StatusCode::MISDIRECTED_REQUEST, "This is not the console's address", message, advice)
    }

    pub(super) fn cross_site() -> Self {
        let message = "Another site, or a program, sent this in your browser's name. Nothing was done.";
        let advice = "If it was you: open the console itself and do it there. Programs use the API.";
        Self::new(StatusCode::FORBIDDEN, "Turned away", message, advice)
    }

    pub(super) fn forged() -> Self {
        let message =
            "This form was not made for your present session, so it does not count. Nothing was done.";
        let advice = "Go back, reload the page, and read it again. This happens when you signed in anew, or the server was restarted, after the page was opened.";
        Self::new(StatusCode::FORBIDDEN, "That form is out of date", message, advice)
    }

    pub(super) fn bad_form() -> Self {
        let message = "What was sent is not what the form on the page sends. Nothing was done.";
        Self::new(
            StatusCode::BAD_REQUEST,
            "That form is incomplete",
            message,
            "Reload the page and try again.",
        )
    }

    pub(super) fn too_large() -> Self {
        let message = "What was sent is too large. Nothing was done.";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "Too large", message, "Shorten it.")
    }

    pub(super) fn not_found(what: &str, advice: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", what, advice)
    }

    /// The page that says so, with links that begin with `base`.
    pub(super) fn page(&self, base: &str) -> Response {
        render(self.status, &ProblemPage { frame: Frame::stranger(self.title, base), problem: self })
    }

    pub(super) fn internal() -> Self {
        let advice =
            "The server's log says why. If you answered a request, look at it to see whether it counted.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Something broke", "This could not be done.", advice)
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let (status, message, hint) = error.told();
        let mut message = message.to_owned();
        if let Some(first) = message.get_mut(0..1) {
            first.make_ascii_uppercase();
        }
        Self::new(status, "That did not work", format!("{message}."), hint)
    }
}

impl From<ViewError> for Problem {
    fn from(error: ViewError) -> Self {
        ApiError::from(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if let Some(path) = &self.redirect {
            return Redirect::to(path).into_response();
        }
        let mut answer = self.page("");
        // For whoever knows the session that it belongs to.
        answer.extensions_mut().insert(self);
        answer
    }
}

/// The page for addresses that lead nowhere.
pub(super) async fn nothing_here() -> Problem {
    Problem::not_found("There is no such page.", "The navigation of the console has all there are.")
}

/// Where to go after signing in: a path of ours and nothing else.
pub(super) fn safe_next(next: Option<&str>) -> &str {
    let is_ours = |path: &&str| {
        path.starts_with('/')
            && !path.starts_with("//")
            && !path.contains(['\\', '\r', '\n', '\t'])
            && path.bytes().all(|byte| byte.is_ascii_graphic())
            && !path.starts_with("/sign-")
            && !path.starts_with("/s/")
    };
    next.filter(is_ours).unwrap_or("/requests")
}

/// Sets a cookie on an answer.
pub(super) fn with_cookie(mut answer: Response, cookie: &str) -> Response {
    if let Ok(value) = cookie.parse() {
        answer.headers_mut().append(header::SET_COOKIE, value);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_nobody_is_sent_elsewhere() {
        assert_eq!(safe_next(Some("/requests/7F3K-2Q?x=1")), "/requests/7F3K-2Q?x=1");
        for bad in [
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "javascript:x",
            "/a\nb",
            "/\tx",
            "",
            "/sign-in?link=x",
            "/s/somebody-elses/requests",
        ] {
            assert_eq!(safe_next(Some(bad)), "/requests", "{bad:?}");
        }
    }
}
