//! Getting in and out.
//!
//! A link signs in when its button is pressed, not when it is opened: chat services and mail scanners
//! open links to show previews, and would use up what works once. A personal token works, too, and is
//! as good as a click; a link from the operator is as good as a login.

use askama::Template;
use axum::Form;
use axum::extract::{FromRequest as _, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use tracing::{info, warn};

use super::page::{Answer, Frame, Posted, Problem, render, safe_next, with_cookie};
use crate::identity::reviewer::PersonalTokens;
use crate::identity::secret::Kind;
use crate::identity::{NotRecognised, ReviewerIdentity as _};
use crate::web::Web;
use crate::web::caller::{Peer, seconds};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    /// A link that is to be used.
    link: Option<String>,
    /// Where to go afterwards.
    next: String,
    /// Why it did not work.
    refused: Option<Refused>,
}

struct Refused {
    what: &'static str,
    advice: &'static str,
}

#[derive(Debug, Deserialize)]
pub(super) struct Came {
    next: Option<String>,
    /// Somebody who has signed in wants to do so anew.
    again: Option<String>,
}

pub(super) async fn page(State(web): State<Web>, headers: HeaderMap, Query(came): Query<Came>) -> Response {
    let next = safe_next(came.next.as_deref());
    if came.again.is_none() && web.browser(&headers, true).is_some() {
        return Redirect::to(next).into_response();
    }
    let frame = Frame::stranger("Sign in");
    render(StatusCode::OK, &SignInPage { frame, link: None, next: next.to_owned(), refused: None })
}

/// The page that a link leads to. It does not look at the link: that is used up by the button.
pub(super) async fn with_link(Path(link): Path<String>) -> Response {
    let frame = Frame::stranger("Sign in");
    render(
        StatusCode::OK,
        &SignInPage { frame, link: Some(link), next: "/requests".to_owned(), refused: None },
    )
}

#[derive(Deserialize)]
struct SignIn {
    link: Option<String>,
    token: Option<String>,
    next: Option<String>,
}

pub(super) async fn sign_in(State(web): State<Web>, request: Request) -> Answer {
    let now = web.now();
    let from = Peer::of(request.extensions());
    // Signing in anew ends the session that this browser had.
    let before = web.session_secret(request.headers());
    let Form(form) = Form::<SignIn>::from_request(request, &web).await.map_err(|_| Problem::bad_form())?;
    let next = safe_next(form.next.as_deref());
    let directory = web.0.directory.load();
    let shown = form.link.as_deref().or(form.token.as_deref()).unwrap_or_default().trim();
    let found = if shown.starts_with(Kind::Link.prefix()) {
        web.0.links.recognise(&directory, shown, now)
    } else {
        PersonalTokens.recognise(&directory, shown, now)
    };
    match found {
        Ok(who) => {
            if let Some(before) = before {
                web.0.sessions.close(&before);
            }
            let secret = web.0.sessions.open(&who, now);
            info!(reviewer = %who.reviewer().id, assurance = who.assurance().as_str(), %from, "signed in to the console");
            Ok(with_cookie(Redirect::to(next).into_response(), &web.cookie(&secret)))
        }
        Err(why) => {
            warn!(%from, %why, "a sign-in was refused");
            web.0.failures.failed(from, now);
            if let Some(wait) = web.0.failures.wait(from, now) {
                let advice = format!("Wait {} seconds, and ask the operator for a new link.", seconds(wait));
                let what = "Too many sign-ins from your address were refused.";
                return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many attempts", what, advice));
            }
            let page = SignInPage {
                frame: Frame::stranger("Sign in"),
                link: None,
                next: next.to_owned(),
                refused: Some(explained(why)),
            };
            Ok(render(StatusCode::UNAUTHORIZED, &page))
        }
    }
}

/// Whoever has a link or a token that was good once may know what became of it.
fn explained(why: NotRecognised) -> Refused {
    let (what, advice) = match why {
        NotRecognised::Unknown => {
            ("That is no link or token of this console.", "Check that all of it was copied.")
        }
        NotRecognised::Expired => (
            "That link has expired.",
            "Links work for ten minutes, and not across a restart. Ask for a new one.",
        ),
        NotRecognised::Used => (
            "That link was used before. A link works once.",
            "If it was not you who used it, tell the operator now. Otherwise ask for a new one.",
        ),
        NotRecognised::AgentCredential => (
            "That is an agent's credential. An agent cannot sign in, and can never approve.",
            "Use your own personal token, or a link.",
        ),
        NotRecognised::NotEnrolled => ("You are not enrolled as a reviewer any more.", "Ask the operator."),
    };
    Refused { what, advice }
}

#[derive(Deserialize)]
pub(super) struct Nothing {}

pub(super) async fn sign_out(
    State(web): State<Web>,
    headers: HeaderMap,
    posted: Posted<Nothing>,
) -> Response {
    if let Some(secret) = web.session_secret(&headers) {
        web.0.sessions.close(&secret);
    }
    info!(reviewer = %posted.0.who.reviewer().id, "signed out of the console");
    with_cookie(Redirect::to("/sign-in").into_response(), &web.no_cookie())
}
