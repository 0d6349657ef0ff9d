//! Getting in and out.
//!
//! Signing in makes a session with a path of its own ([`super`]). Whoever comes without that path, by a
//! link in a chat say, gets the sign-in page, which needs no cookie: with JavaScript it goes on to the
//! session that this browser has, which it finds in the storage of the origin (that is: of this port).
//!
//! A link signs in when its button is pressed, not when it is opened: chat services and mail scanners
//! open links to show previews, and would use up what works once. A personal token works, too, and is
//! as good as a click; a link from the operator is as good as a login.

use askama::Template;
use axum::Form;
use axum::extract::{FromRequest as _, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use tracing::{info, warn};

use super::page::{Answer, Frame, Posted, Problem, render, safe_next, with_cookie};
use crate::identity::reviewer::PersonalTokens;
use crate::identity::secret::{Kind, SecretHash};
use crate::identity::session::SignedInWith;
use crate::identity::{NotRecognised, ReviewerIdentity as _};
use crate::web::Web;
use crate::web::caller::{Peer, ShownSession, Within, seconds};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    /// A link that is to be used.
    link: Option<String>,
    /// Where to go afterwards.
    next: String,
    /// The page may go on to the session that this browser has.
    goes_on: bool,
    /// This browser's session has ended.
    has_ended: bool,
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
    /// The session that the browser had is over.
    ended: Option<String>,
}

impl SignInPage {
    fn new(shown: &ShownSession, next: &str) -> Self {
        let base = shown.within.as_ref().map(Within::base).unwrap_or_default();
        let frame = Frame::stranger("Sign in", &base);
        Self { frame, link: None, next: next.to_owned(), goes_on: false, has_ended: false, refused: None }
    }
}

pub(super) async fn page(shown: ShownSession, Query(came): Query<Came>) -> Response {
    let page = SignInPage {
        goes_on: shown.within.is_none() && came.again.is_none() && came.ended.is_none(),
        has_ended: came.ended.is_some(),
        ..SignInPage::new(&shown, safe_next(came.next.as_deref()))
    };
    render(StatusCode::OK, &page)
}

/// The page that a link leads to. It does not look at the link: that is used up by the button.
pub(super) async fn with_link(shown: ShownSession, Path(link): Path<String>) -> Response {
    render(StatusCode::OK, &SignInPage { link: Some(link), ..SignInPage::new(&shown, safe_next(None)) })
}

#[derive(Deserialize)]
struct SignIn {
    link: Option<String>,
    token: Option<String>,
    next: Option<String>,
}

pub(super) async fn sign_in(State(web): State<Web>, before: ShownSession, request: Request) -> Answer {
    let now = web.now();
    let from = Peer::of(request.extensions());
    let Form(form) = Form::<SignIn>::from_request(request, &web).await.map_err(|_| Problem::bad_form())?;
    let next = safe_next(form.next.as_deref());
    let directory = web.0.directory.load();
    let shown = form.link.as_deref().or(form.token.as_deref()).unwrap_or_default().trim();
    let found = if shown.starts_with(Kind::Link.prefix()) {
        web.0.links.recognise(&directory, shown, now).map(|who| (who, SignedInWith::Link))
    } else {
        let with = SignedInWith::Token(SecretHash::of(shown));
        PersonalTokens.recognise(&directory, shown, now).map(|who| (who, with))
    };
    match found {
        Ok((who, with)) => {
            // Signing in anew, from a page of a session, ends that session.
            web.close_session(&before);
            let (within, cookie) = web.entrance(&web.0.sessions.open(&who, with, now));
            info!(reviewer = %who.reviewer().id, assurance = who.assurance().as_str(), %from, "signed in to the console");
            let to = format!("{}{next}", within.base());
            Ok(with_cookie(Redirect::to(&to).into_response(), &cookie))
        }
        Err(why) => {
            warn!(%from, %why, "a sign-in was refused");
            web.0.failures.note(from, now);
            if let Some(wait) = web.0.failures.wait(&from, now) {
                let advice = format!("Wait {} seconds, and ask the operator for a new link.", seconds(wait));
                let what = "Too many sign-ins from your address were refused.";
                return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many attempts", what, advice));
            }
            let page = SignInPage { refused: Some(explained(why)), ..SignInPage::new(&before, next) };
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
    shown: ShownSession,
    posted: Posted<Nothing>,
) -> Response {
    web.close_session(&shown);
    info!(reviewer = %posted.0.who.reviewer().id, "signed out of the console");
    let answer = Redirect::to("/sign-in").into_response();
    match &shown.within {
        Some(within) => with_cookie(answer, &web.no_cookie(within)),
        None => answer,
    }
}
