//! The page: files that are built in, served with a policy that lets nothing else in.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::api::App;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, kind, text. The last four are the JavaScript client as it is.
const FILES: &[(&str, &str, &str)] = &[
    ("/style.css", "text/css; charset=utf-8", include_str!("../page/style.css")),
    ("/app.js", SCRIPT, include_str!("../page/app.js")),
    ("/room.js", SCRIPT, include_str!("../page/room.js")),
    ("/private.js", SCRIPT, include_str!("../page/private.js")),
    ("/opening.js", SCRIPT, include_str!("../page/opening.js")),
    ("/keys.js", SCRIPT, include_str!("../page/keys.js")),
    ("/seal.js", SCRIPT, include_str!("../page/seal.js")),
    ("/trust.js", SCRIPT, include_str!("../page/trust.js")),
    ("/api.js", SCRIPT, include_str!("../page/api.js")),
    ("/people.js", SCRIPT, include_str!("../page/people.js")),
    ("/account.js", SCRIPT, include_str!("../page/account.js")),
    ("/dom.js", SCRIPT, include_str!("../page/dom.js")),
    ("/fantail/fantail.js", SCRIPT, include_str!("../../clients/js/fantail.js")),
    ("/fantail/presence.js", SCRIPT, include_str!("../../clients/js/presence.js")),
    ("/fantail/link.js", SCRIPT, include_str!("../../clients/js/link.js")),
    ("/fantail/fallback.js", SCRIPT, include_str!("../../clients/js/fallback.js")),
];

/// Adds the page's paths.
pub(crate) fn routes(router: Router<Arc<App>>) -> Router<Arc<App>> {
    let router = router.route("/", get(index));
    FILES.iter().fold(router, |router, (path, kind, text)| {
        let fields = [
            (header::CONTENT_TYPE, *kind),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        router.route(path, get(move || async move { (fields, *text) }))
    })
}

async fn index(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let edge = app.edge.public.url(host);
    let socket = edge.replacen("http", "ws", 1);
    let policy = format!(
        "default-src 'none'; img-src data:; script-src 'self'; style-src 'self'; connect-src 'self' {edge} {socket}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let fields: [(HeaderName, String); 6] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin".to_owned()),
    ];
    (fields, include_str!("../page/index.html")).into_response()
}
