//! The page behind `GET /` of the admin port, put together from the files in `page/` when the program is built. The same
//! bytes for everybody: it asks for what it shows with the key that whoever looks at it types in; decision 0123.
//!
//! Driven by the admin port's routing. Never tells anything of the server's state.

use super::super::Answer;
use super::super::page::parts::nonce;
use crate::wire::http::head::Head;
use crate::wire::http::response::{Response, ResponseBuffer};

/// The document up to where the nonce of its style stands, from there to that of its script, and the rest: one
/// document, so that the browser asks for nothing else.
const PARTS: [&str; 3] = [
    concat!(include_str!("page/head.html"), "<style nonce=\""),
    concat!(
        "\">\n",
        include_str!("../page/theme.css"),
        include_str!("page/page.css"),
        "</style>\n</head>\n",
        include_str!("page/body.html"),
        "\n<script nonce=\"",
    ),
    concat!(
        "\">\n\"use strict\";\n",
        include_str!("page/text.js"),
        include_str!("page/server.js"),
        include_str!("page/ask.js"),
        include_str!("page/series.js"),
        include_str!("page/overview.js"),
        include_str!("page/paged.js"),
        include_str!("page/topics.js"),
        include_str!("page/connections.js"),
        include_str!("page/main.js"),
        "</script>\n</body>\n</html>\n",
    ),
];

/// Answers with the page; the method is GET or HEAD.
pub(super) fn respond(head: &Head<'_>, out: &mut ResponseBuffer) -> Answer {
    let nonce = nonce();
    // Names of topics are chosen by clients and shown here. Should one ever become markup, it still runs nothing: a
    // script needs the nonce of this answer, and no text becomes markup in the first place (Trusted Types).
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         require-trusted-types-for 'script'; trusted-types 'none'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let [before_style, before_script, rest] = PARTS;
    let body = [before_style, &nonce, before_script, &nonce, rest].concat();
    Response {
        status: 200,
        content_type: "text/html; charset=utf-8",
        headers: &[
            ("Content-Security-Policy", &policy),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ],
        body: body.as_bytes(),
        keep_alive: head.keep_alive,
        head_only: head.method == "HEAD",
    }
    .write_into(out);
    Answer::Done { keep_alive: head.keep_alive, refused: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_whole_and_asks_for_nothing_else() {
        let page = PARTS.join("n");
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        for tag in ["html", "head", "style", "body", "script"] {
            let count = |text: &str| page.matches(text).count();
            let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
            assert_eq!((opened, count(&format!("</{tag}>"))), (1, 1), "{tag}");
        }
        // No other file, no style or handler in an attribute (the policy would refuse them), no key kept for long or
        // shown in a URL.
        for part in
            ["src=", "<link", "@import", "url(", " style=\"", " onclick=", "localStorage", "innerHTML"]
        {
            assert!(!page.contains(part), "{part}");
        }
    }
}
