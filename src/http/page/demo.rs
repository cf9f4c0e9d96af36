//! The live dashboard behind `GET /demo`, there only where `server.demo` is on: one document that shows the simulated
//! prices and sensors as they are pushed.
//!
//! Driven by the client port's routing. Knows nothing of the publisher (`server/demo.rs`) but the names of its topics.

use std::sync::LazyLock;

use super::parts::Document;
use crate::wire::http::head::Head;
use crate::wire::http::params::Params;
use crate::wire::http::response::ResponseBuffer;

static PAGE: LazyLock<Document> = LazyLock::new(|| {
    Document::new(
        include_str!("demo/head.html"),
        &[include_str!("theme.css"), include_str!("demo/page.css")],
        include_str!("demo/body.html"),
        &[include_str!("demo/chart.js"), include_str!("demo/feed.js"), include_str!("demo/main.js")],
    )
});

/// Writes the page; the method is GET or HEAD.
///
/// # Errors
/// One line on what is wrong with the query: there are no parameters.
pub(in crate::http) fn write(head: &Head<'_>, out: &mut ResponseBuffer) -> Result<(), String> {
    Params::read(head.query(), b"", &[])?;
    PAGE.write(head, &[], out);
    Ok(())
}
