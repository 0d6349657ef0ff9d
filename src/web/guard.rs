//! What every request must have and every answer gets, whatever route it takes.

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;
use url::{Host, Url};

use super::{Web, api, console};

/// No inline script, no inline style, nothing from elsewhere, no frames. Scripts may turn text into
/// markup in one named place only (the console's own pages, fetched again).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types console";

/// Sets the headers that keep browsers from doing what nobody asked for.
pub(super) async fn headers(State(web): State<Web>, request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    let headers = answer.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
        ),
        (HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if web.is_secure() {
        let a_year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, a_year);
    }
    // What is shown is somebody's and of this moment. Only the console's own files are kept.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// Gives up on requests that take too long, bodies that come in byte by byte included.
pub(super) async fn patience(State(web): State<Web>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    match tokio::time::timeout(web.0.settings.patience, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) if is_api => api::ApiError::timeout().into_response(),
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "This took too long. Please try again.\n").into_response(),
    }
}

/// Turns away what a browser sends to the console without its user having meant it: requests under
/// another name (DNS rebinding), from other sites, and forms that do not say where they come from.
pub(super) async fn same_site(State(web): State<Web>, request: Request, next: Next) -> Response {
    let url = &web.0.settings.url;
    match check(url, request.method(), request.headers(), request.uri().authority().map(|a| a.as_str())) {
        Ok(()) => next.run(request).await,
        Err(foreign) => {
            warn!(
                ?foreign,
                path = loggable(request.uri().path()),
                "a request to the console was turned away"
            );
            console::turned_away(&web, foreign, request.uri())
        }
    }
}

/// A path without the secret that a sign-in link is.
pub(super) fn loggable(path: &str) -> &str {
    const LINK: &str = "/sign-in/";
    if path.starts_with(LINK) { LINK } else { path }
}

/// Why a request to the console is not one that its user meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It was sent to another name than the console's.
    Host,
    /// It was sent to another of this machine's names for itself than the console's. `localhost` is
    /// two addresses, and another process may listen on the other one: its pages would be of the same
    /// origin as ours. So the console has one name, and the others lead to it.
    Alias,
    /// Another site made the browser send it.
    Site,
}

fn check(url: &Url, method: &Method, headers: &HeaderMap, authority: Option<&str>) -> Result<(), Foreign> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    // HTTP/2 has the authority in the request line.
    let host = authority.or_else(|| text(header::HOST)).ok_or(Foreign::Host)?;
    let reads = *method == Method::GET || *method == Method::HEAD;
    match named(url, host) {
        Named::Console => {}
        Named::Alias if reads => return Err(Foreign::Alias),
        Named::Alias | Named::Elsewhere => return Err(Foreign::Host),
    }
    let site = text(HeaderName::from_static("sec-fetch-site"));
    if reads {
        // Links from elsewhere may lead here; other sites may not pull our pages in. Older browsers
        // do not say, and send no cookie with what is not a link (SameSite).
        let navigates = text(HeaderName::from_static("sec-fetch-mode")) == Some("navigate")
            && text(HeaderName::from_static("sec-fetch-dest")) == Some("document");
        return match site {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) if navigates => Ok(()),
            Some(_) => Err(Foreign::Site),
        };
    }
    // Every browser says where a form comes from, by one of these at least. `null` is what our own
    // pages' forms say, too, because they are told to send no referrer.
    let origin = text(header::ORIGIN);
    match (site, origin) {
        (Some("same-origin"), None | Some("null")) => Ok(()),
        (Some("same-origin") | None, Some(origin)) if is_our_origin(url, origin) => Ok(()),
        (Some(_) | None, _) => Err(Foreign::Site),
    }
}

/// What a `Host` header names.
enum Named {
    Console,
    /// The same port of this machine, by another of its names for itself. People type any of them.
    Alias,
    Elsewhere,
}

fn named(url: &Url, host: &str) -> Named {
    let Ok(asked) = Url::parse(&format!("{}://{host}/", url.scheme())) else { return Named::Elsewhere };
    if url.port_or_known_default() != asked.port_or_known_default() {
        return Named::Elsewhere;
    }
    match (url.host(), asked.host()) {
        (Some(ours), Some(theirs)) if ours == theirs => Named::Console,
        (Some(ours), Some(theirs)) if is_loopback(&ours) && is_loopback(&theirs) => Named::Alias,
        (_, Some(_) | None) => Named::Elsewhere,
    }
}

fn is_our_origin(url: &Url, origin: &str) -> bool {
    match origin.split_once("://") {
        Some((scheme, host)) => scheme == url.scheme() && matches!(named(url, host), Named::Console),
        None => false,
    }
}

fn is_loopback<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Domain(name) => name.as_ref() == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str, method: Method, headers: &[(&'static str, &str)]) -> Result<(), Foreign> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        check(&Url::parse(url).unwrap(), &method, &headers, None)
    }

    const LOCAL: &str = "http://127.0.0.1:6480";
    const PUBLIC: &str = "https://approve.example.com";

    #[test]
    fn a_form_must_come_from_the_console_itself() {
        let post = |headers: &[(&'static str, &str)]| asked(PUBLIC, Method::POST, headers);
        let host = ("host", "approve.example.com");
        let ours = ("origin", "https://approve.example.com");

        assert_eq!(post(&[host, ours, ("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(post(&[host, ("origin", "null"), ("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(post(&[host, ours]), Ok(()));
        for refused in [
            vec![host],
            vec![host, ("sec-fetch-site", "cross-site")],
            vec![host, ("sec-fetch-site", "same-site"), ours],
            vec![host, ("sec-fetch-site", "none"), ours],
            vec![host, ("origin", "null")],
            vec![host, ("origin", "https://evil.example")],
            vec![host, ("origin", "http://approve.example.com")],
            vec![host, ("origin", "https://approve.example.com.evil.example")],
            vec![host, ("origin", "https://approve.example.com:444")],
            vec![host, ("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
        ] {
            assert_eq!(post(&refused), Err(Foreign::Site), "{refused:?}");
        }
    }

    #[test]
    fn other_sites_may_link_here_and_nothing_else() {
        let get = |headers: &[(&'static str, &str)]| asked(PUBLIC, Method::GET, headers);
        let host = ("host", "approve.example.com");
        let cross = ("sec-fetch-site", "cross-site");

        assert_eq!(get(&[host]), Ok(()));
        assert_eq!(
            get(&[host, cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]),
            Ok(())
        );
        assert_eq!(get(&[host, cross, ("sec-fetch-mode", "no-cors")]), Err(Foreign::Site));
        let framed = [host, cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        assert_eq!(get(&framed), Err(Foreign::Site));
    }

    #[test]
    fn another_name_is_not_the_console() {
        let get = |url, host| asked(url, Method::GET, &[("host", host)]);

        assert_eq!(get(LOCAL, "127.0.0.1:6480"), Ok(()));
        for bad in
            ["evil.example:6480", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:6480", "a b", ""]
        {
            assert_eq!(get(LOCAL, bad), Err(Foreign::Host), "{bad}");
        }
        for other_local_name in ["localhost:6480", "[::1]:6480", "127.0.0.2:6480"] {
            assert_eq!(get(LOCAL, other_local_name), Err(Foreign::Alias), "{other_local_name}");
            let form = [("host", other_local_name), ("sec-fetch-site", "same-origin")];
            assert_eq!(asked(LOCAL, Method::POST, &form), Err(Foreign::Host), "{other_local_name}");
        }
        let origin = [("host", "127.0.0.1:6480"), ("origin", "http://localhost:6480")];
        assert_eq!(asked(LOCAL, Method::POST, &origin), Err(Foreign::Site));
        assert_eq!(get(PUBLIC, "APPROVE.example.com"), Ok(()));
        assert_eq!(get(PUBLIC, "approve.example.com:443"), Ok(()));
        assert_eq!(get(PUBLIC, "127.0.0.1:6480"), Err(Foreign::Host));
        assert_eq!(get(PUBLIC, "approve.example.com@evil.example"), Err(Foreign::Host));
    }
}
