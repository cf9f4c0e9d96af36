//! Pages are put together here, once, when somebody first asks for one: the JavaScript client as it is in its package,
//! which a page has no way to import without another request, and the page's own parts, without what only their readers
//! need.
//!
//! Driven by the pages' own files. Knows only as much JavaScript as the client's modules use, which tests hold it to.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::wire::http::head::Head;
use crate::wire::http::response::{Response, ResponseBuffer};

/// The modules of the client (`clients/js`), each behind those that it imports from.
const CLIENT: [&str; 3] = [
    include_str!("../../../clients/js/fallback.js"),
    include_str!("../../../clients/js/link.js"),
    include_str!("../../../clients/js/fantail.js"),
];

/// One document, so that the browser asks for nothing else: up to where the nonce of its style stands, from there to that
/// of its script, and the rest.
pub(super) struct Document([String; 3]);

impl Document {
    /// Of its head, styles, body and scripts; the client comes first of the scripts.
    pub(super) fn new(head: &str, styles: &[&str], body: &str, scripts: &[&str]) -> Document {
        let before = format!("{head}<style nonce=\"");
        let mut middle = "\">\n".to_owned();
        for style in styles {
            push_lean(style, &mut middle);
        }
        middle.push_str("</style>\n</head>\n");
        middle.push_str(body);
        middle.push_str("\n<script nonce=\"");
        let mut rest = "\">\n\"use strict\";\n".to_owned();
        push_client(&mut rest);
        for script in scripts {
            push_lean(script, &mut rest);
        }
        rest.push_str("</script>\n</body>\n</html>\n");
        Document([before, middle, rest])
    }

    /// Answers with the document and these fields besides its own; the method is GET or HEAD.
    pub(super) fn write(&self, head: &Head<'_>, fields: &[(&str, &str)], out: &mut ResponseBuffer) {
        let nonce = nonce();
        // What others publish is shown here. Should it ever become markup, it still runs nothing: a script needs the nonce
        // of this answer, and no text becomes markup in the first place (Trusted Types). Some browsers' 'self' is not
        // that of WebSockets.
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self' ws: wss:; \
             require-trusted-types-for 'script'; trusted-types 'none'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        );
        let mut headers = vec![
            ("Content-Security-Policy", policy.as_str()),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ];
        headers.extend_from_slice(fields);
        let [before, middle, rest] = &self.0;
        let body = [before, &nonce, middle, &nonce, rest].map(String::as_str).concat();
        Response {
            status: 200,
            content_type: "text/html; charset=utf-8",
            headers: &headers,
            body: body.as_bytes(),
            keep_alive: head.keep_alive,
            head_only: head.method == "HEAD",
        }
        .write_into(out);
    }
}

/// What nobody can guess, another one each time.
pub(in crate::http) fn nonce() -> String {
    // Each has keys of its own, which began as chance of the kernel's.
    let word = |seed: u8| RandomState::new().hash_one(seed);
    format!("{:016x}{:016x}", word(0), word(1))
}

/// Appends the client as a script that declares `connect` and `Link` and nothing else: a function around each module,
/// which returns what it exports to those that follow.
fn push_client(page: &mut String) {
    page.push_str("const { connect, Link } = (() => {\n");
    for module in CLIENT {
        let exports: Vec<&str> = module.lines().filter_map(exported).collect();
        let exports = exports.join(", ");
        page.push_str(&format!("const {{ {exports} }} = (() => {{\n"));
        for line in module.lines().filter(|line| !line.starts_with("import ")) {
            push_lean(line.strip_prefix("export ").unwrap_or(line), page);
        }
        page.push_str(&format!("return {{ {exports} }};\n}})();\n"));
    }
    page.push_str("return { connect, Link };\n})();\n");
}

/// The name that a line of a module exports.
fn exported(line: &str) -> Option<&str> {
    let declared = line.strip_prefix("export ")?;
    let (_, name) = declared.split_once(' ')?;
    name.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next()
}

/// Appends lines without their indentation, and without those that are only a comment.
fn push_lean(source: &str, page: &mut String) {
    let lines = source.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with("/**")) {
        page.push_str(line);
        page.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_the_client_become_one_script() {
        let mut script = String::new();
        push_client(&mut script);
        for line in script.lines() {
            assert!(!line.starts_with("import ") && !line.starts_with("export "), "{line}");
        }
        let lines: Vec<_> = script.lines().collect();
        let ends = lines.windows(2).filter(|pair| pair[1] == "})();");
        let returned: Vec<_> = ends.map(|pair| pair[0]).collect();
        assert_eq!(
            returned,
            [
                "return { eventStream, longPoll, place };",
                "return { Link, jitter };",
                "return { FantailError, Fantail, connect };",
                "return { connect, Link };",
            ]
        );
        // Whatever a module imports is exported by one before it.
        let mut known: Vec<&str> = Vec::new();
        for module in CLIENT {
            for names in module.lines().filter_map(|line| line.strip_prefix("import { ")) {
                let (names, _) = names.split_once(" }").expect("one line for an import");
                assert!(names.split(", ").all(|name| known.contains(&name)), "{names}");
            }
            known.extend(module.lines().filter_map(exported));
        }
    }

    #[test]
    fn nonces_differ() {
        let nonces: std::collections::BTreeSet<_> = (0..100).map(|_| nonce()).collect();
        assert_eq!(nonces.len(), 100);
        assert!(nonces.iter().all(|nonce| nonce.len() == 32));
    }

    #[test]
    fn only_indentation_and_comments_are_left_out() {
        let mut page = String::new();
        push_lean("// why\n\n  a { b: c }\n/** what */\n    return `x // y`;\n", &mut page);
        assert_eq!(page, "a { b: c }\nreturn `x // y`;\n");
        // What goes over lines would lose its indentation.
        for module in CLIENT {
            for line in module.lines() {
                assert_eq!(line.matches('`').count() % 2, 0, "{line}");
            }
        }
    }
}
