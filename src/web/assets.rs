//! The console's own files, built into the program. Their names carry a digest of their bytes, so
//! that browsers may keep them for ever and yet never mix two versions.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use crate::statement::Digest;

struct Asset {
    name: String,
    content_type: &'static str,
    body: &'static str,
}

fn asset(stem: &str, extension: &str, content_type: &'static str, body: &'static str) -> Asset {
    let digest = Digest::of(body.as_bytes()).to_string();
    let short = digest.get(..12).unwrap_or_default();
    Asset { name: format!("{stem}.{short}.{extension}"), content_type, body }
}

struct Assets {
    style: Asset,
    script: Asset,
    icon: Asset,
}

static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: asset("console", "css", "text/css; charset=utf-8", include_str!("static/console.css")),
    script: asset("console", "js", "text/javascript; charset=utf-8", include_str!("static/console.js")),
    icon: asset("icon", "svg", "image/svg+xml", include_str!("static/icon.svg")),
});

/// Where a page finds them.
pub(super) struct Links {
    pub(super) style: &'static str,
    pub(super) script: &'static str,
    pub(super) icon: &'static str,
}

pub(super) fn links() -> Links {
    Links { style: &ASSETS.style.name, script: &ASSETS.script.name, icon: &ASSETS.icon.name }
}

pub(super) async fn serve(Path(file): Path<String>) -> Response {
    let assets = [&ASSETS.style, &ASSETS.script, &ASSETS.icon];
    match assets.into_iter().find(|asset| asset.name == file) {
        Some(asset) => {
            let kept = "public, max-age=31536000, immutable";
            let headers = [(header::CONTENT_TYPE, asset.content_type), (header::CACHE_CONTROL, kept)];
            (headers, asset.body).into_response()
        }
        None => (StatusCode::NOT_FOUND, "There is no such file.\n").into_response(),
    }
}
