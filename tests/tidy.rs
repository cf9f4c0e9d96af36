//! The arrows between rooms as a test: which room may name which, where unsafe, libc and mio may be, and how long
//! files and functions may get. It reads the sources as text, and says file and line of every violation.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Which rooms the code of a room may name. Test code may name any. A new room needs a row.
///
/// `main` is `src/main.rs` and `loadtest` the load generator's sources; both name rooms as `fantail::ROOM`.
const EDGES: [(&str, &[&str]); 23] = [
    ("wire", &[]),
    ("sys", &[]),
    ("transport", &["sys"]),
    ("metrics", &["sys", "wire"]),
    ("config", &["auth", "service", "sys", "topic", "wire"]),
    ("auth", &["sys", "topic", "wire"]),
    ("topic", &["metrics", "wire"]),
    ("preflight", &["config"]),
    ("dialect", &["metrics", "topic", "wire"]),
    ("connection", &["config", "dialect", "metrics", "topic", "transport", "wire"]),
    (
        "edition",
        &["auth", "config", "connection", "dialect", "metrics", "service", "topic", "transport", "wire"],
    ),
    ("http", &["auth", "config", "connection", "dialect", "edition", "metrics", "topic", "wire"]),
    (
        "event_loop",
        &[
            "auth",
            "config",
            "connection",
            "dialect",
            "edition",
            "http",
            "metrics",
            "service",
            "sys",
            "topic",
            "transport",
            "wire",
        ],
    ),
    (
        "server",
        &[
            "auth",
            "config",
            "connection",
            "edition",
            "event_loop",
            "logging",
            "metrics",
            "preflight",
            "service",
            "sys",
            "topic",
            "transport",
            "wire",
        ],
    ),
    ("service", &["auth", "metrics", "sys", "topic"]),
    ("client", &["wire"]),
    ("dev_cert", &["client"]),
    (
        "cli",
        &["auth", "client", "config", "dev_cert", "logging", "preflight", "server", "service", "sys", "wire"],
    ),
    ("logging", &["config", "metrics"]),
    ("main", &["cli"]),
    ("build", &[]),
    ("lib", &[]),
    ("loadtest", &["sys", "wire"]),
];

/// The same for the folders of the load generator, which name each other as `crate::FOLDER`.
const LOADTEST_EDGES: [(&str, &[&str]); 10] = [
    ("base", &[]),
    ("net", &["base"]),
    ("tls", &["base", "net"]),
    ("result", &["base"]),
    ("observe", &["base", "net", "result", "tls"]),
    ("engine", &["base", "net", "observe", "result", "tls"]),
    ("publish", &["base", "engine", "net", "result", "tls"]),
    ("cli", &["base", "engine", "observe", "result", "tls"]),
    ("commands", &["base", "cli", "engine", "net", "observe", "publish", "result", "tls"]),
    ("main", &["base", "cli", "commands"]),
];

/// Words that belong to one room. The last column says whether the workspace's other programs may use them.
const RESERVED: [(&str, &[&str], bool); 3] = [
    ("unsafe", &["src/sys/", "tests/support/src/"], false),
    ("libc", &["src/sys/", "tests/support/src/"], false),
    ("mio", &["src/event_loop/"], true),
];

/// What an item or a statement begins with, behind its visibility.
const ITEM_WORDS: [&str; 16] = [
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "let",
    "macro_rules",
    "mod",
    "static",
    "struct",
    "trait",
    "type",
    "union",
    "unsafe",
    "use",
];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 80;
const ROOTS: [&str; 9] = [
    "src",
    "loadtest/src",
    "chat/src",
    "benches",
    "loadtest/benches",
    "loadtest/tests",
    "chat/tests",
    "fuzz/src",
    "tests",
];

#[test]
fn the_sources_keep_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ROOTS {
        rust_files(&root.join(folder), &mut files);
    }
    assert!(files.len() > 10, "only {} files found under {}", files.len(), root.display());
    let mut report = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(root).unwrap().to_str().unwrap();
        for (line, problem) in violations(path, &text) {
            writeln!(report, "{path}:{line}: {problem}").unwrap();
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// All violations in one file, as line and sentence, in the order of lines.
fn violations(path: &str, text: &str) -> BTreeSet<(usize, String)> {
    let mut found = BTreeSet::new();
    if !text.starts_with("//!") {
        found.insert((1, "a module begins with `//!`, saying what it owns".to_owned()));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        found.insert((FILE_LINES_MAX + 1, format!("{lines} lines, more than {FILE_LINES_MAX}")));
    }
    let tokens = tokens(text);
    reserved_words(path, &tokens, &mut found);
    // Test modules may use any room and be as long as a table of cases needs.
    if !is_test_file(path) {
        let code = without_tests(&tokens);
        edges(path, &code, &mut found);
        loadtest_edges(path, &code, &mut found);
        function_lengths(&code, &mut found);
        dialects_named(path, &code, &mut found);
        secrets_compared(path, &code, &mut found);
    }
    found
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.ends_with("_tests.rs")
}

/// An identifier, or one character of punctuation, and its line.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// Splits source text into tokens, without comments and without what strings and characters hold.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut line = 1;
    while at < text.len() {
        let rest = &text[at..];
        let first = rest.chars().next().unwrap();
        let length = match first {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => block_comment_length(rest),
            '\'' => quote_length(rest),
            '"' => string_length(rest),
            _ if is_word(first) => {
                let word = rest.find(|other| !is_word(other)).unwrap_or(rest.len());
                match raw_string_length(rest, word) {
                    Some(length) => length,
                    None => {
                        tokens.push(Token { text: &rest[..word], line });
                        word
                    }
                }
            }
            _ => {
                if !first.is_whitespace() {
                    tokens.push(Token { text: &rest[..first.len_utf8()], line });
                }
                first.len_utf8()
            }
        };
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// A character literal, or only the quote of a lifetime or label.
fn quote_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((escaped, _))) => {
            // What is escaped may be a quote itself; the closing one is behind it.
            rest[escaped + 1..].find('\'').map_or(rest.len(), |end| escaped + end + 2)
        }
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 1,
    }
}

fn string_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a raw string whose prefix is the `word` bytes before its hashes; `None` if there is none.
fn raw_string_length(rest: &str, word: usize) -> Option<usize> {
    if !matches!(&rest[..word], "r" | "br" | "cr") {
        return None;
    }
    let hashes = rest[word..].bytes().take_while(|byte| *byte == b'#').count();
    let body = word + hashes + 1;
    if rest.as_bytes().get(body - 1) != Some(&b'"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    Some(rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()))
}

/// Leaves out every item behind `#[cfg(test)]`, `#[cfg(all(test, …))]` or `#[test]`.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut code = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let attribute = starts_with(&tokens[at..], &["#", "["]).then(|| closing(tokens, at + 1));
        match attribute {
            Some(end) if is_test_attribute(&tokens[at + 2..end]) => at = attributed_end(tokens, end + 1) + 1,
            _ => {
                code.push(tokens[at]);
                at += 1;
            }
        }
    }
    code
}

fn is_test_attribute(inside: &[Token<'_>]) -> bool {
    let names = |word: &str| inside.iter().any(|token| token.text == word);
    starts_with(inside, &["test"]) || (starts_with(inside, &["cfg"]) && names("test") && !names("not"))
}

fn starts_with(tokens: &[Token<'_>], words: &[&str]) -> bool {
    tokens.len() >= words.len() && tokens.iter().zip(words).all(|(token, word)| token.text == *word)
}

/// The index of the bracket that closes the one at `open`, of whatever kind; the last index if none does.
fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    tokens.len() - 1
}

/// The index of an item's last token: its closing brace, or the semicolon of one without a body.
fn item_end(tokens: &[Token<'_>], start: usize) -> usize {
    let mut at = start;
    while at < tokens.len() {
        match tokens[at].text {
            ";" => return at,
            "{" => return closing(tokens, at),
            "(" | "[" => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    tokens.len() - 1
}

/// The index of the last token of what an attribute stands on: an item, or a field, variant, argument or arm.
fn attributed_end(tokens: &[Token<'_>], start: usize) -> usize {
    let mut at = start;
    while starts_with(&tokens[at..], &["#", "["]) {
        at = closing(tokens, at + 1) + 1;
    }
    if starts_with(&tokens[at..], &["pub"]) {
        at += 1;
        if starts_with(&tokens[at..], &["("]) {
            at = closing(tokens, at) + 1;
        }
    }
    if tokens.get(at).is_some_and(|token| ITEM_WORDS.contains(&token.text)) {
        return item_end(tokens, at);
    }
    // It ends at its comma or, as the last of its list, before the bracket that closes the list.
    while at < tokens.len() {
        match tokens[at].text {
            "," | ";" => return at,
            ")" | "]" | "}" => return at - 1,
            "(" | "[" | "{" => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    tokens.len() - 1
}

fn reserved_words(path: &str, tokens: &[Token<'_>], found: &mut BTreeSet<(usize, String)>) {
    for (word, rooms, free_elsewhere) in RESERVED {
        if rooms.iter().any(|room| path.starts_with(room)) || (free_elsewhere && !path.starts_with("src/")) {
            continue;
        }
        for (at, token) in tokens.iter().enumerate() {
            // A crate's name counts as the start of a path or an import, not as part of another name.
            let is_path = || tokens.get(at + 1).is_some_and(|next| matches!(next.text, ":" | ";" | "as"));
            let inside_path = || at >= 2 && tokens[at - 1].text == ":" && tokens[at - 2].text == ":";
            if token.text == word && (word == "unsafe" || (is_path() && !inside_path())) {
                found.insert((token.line, format!("`{word}` outside {}", rooms.join(" and "))));
            }
        }
    }
}

/// Secrets are compared by these functions, which take as long whatever differs, and only where docs/security.md says so.
const COMPARED: [(&[&str], &str); 2] = [
    (&["verify_slices_are_equal"], "src/auth/admin_keys.rs"),
    (&["hmac", ":", ":", "verify"], "src/auth/token/"),
];

fn secrets_compared(path: &str, code: &[Token<'_>], found: &mut BTreeSet<(usize, String)>) {
    for (words, place) in COMPARED {
        if path.starts_with("src/") && !path.starts_with(place) {
            let at = (0..code.len()).filter(|at| starts_with(&code[*at..], words));
            found.extend(at.map(|at| (code[at].line, format!("a secret is compared outside {place}"))));
        }
    }
    // What is signed only to be compared is compared by hand.
    let signs = ["hmac", ":", ":", "sign"];
    if path.starts_with("src/") && !path.starts_with("src/auth/token/") {
        let at = (0..code.len()).filter(|at| starts_with(&code[*at..], &signs));
        found.extend(at.map(|at| (code[at].line, "an HMAC outside src/auth/token/".to_owned())));
    }
}

/// Outside its own room no dialect is told from another: one that was not thought of there would be forgotten without a
/// word of the compiler. What speaks HTTP still is none yet.
fn dialects_named(path: &str, code: &[Token<'_>], found: &mut BTreeSet<(usize, String)>) {
    if !path.starts_with("src/") || path.starts_with("src/dialect/") {
        return;
    }
    for (at, token) in code.iter().enumerate() {
        let behind = |by: usize| code.get(at + by).map_or("", |token| token.text);
        let named = behind(3);
        let variant = named.starts_with(char::is_uppercase) && !matches!(named, "ALL" | "Http");
        if token.text == "Dialect" && (behind(1), behind(2)) == (":", ":") && variant {
            found.insert((token.line, format!("`Dialect::{named}` is told apart outside src/dialect/")));
        }
    }
}

/// The room a file belongs to, and how many `super::` lead from it to the crate's root.
fn room_of(path: &str) -> Option<(&str, usize)> {
    if path.starts_with("loadtest/src/") {
        return Some(("loadtest", usize::MAX));
    }
    let inside = path.strip_prefix("src/")?;
    let room = inside.split('/').next()?.trim_end_matches(".rs");
    let folders = inside.matches('/').count();
    Some((room, if inside.ends_with("/mod.rs") { folders } else { folders + 1 }))
}

fn edges(path: &str, code: &[Token<'_>], found: &mut BTreeSet<(usize, String)>) {
    let Some((room, depth)) = room_of(path) else { return };
    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == room) else {
        found.insert((1, format!("the room `{room}` has no row in EDGES of tests/tidy.rs")));
        return;
    };
    for (line, named) in rooms_named(code, room, depth) {
        let is_room = EDGES.iter().any(|(name, _)| *name == named);
        if is_room && named != room && !allowed.contains(&named) {
            found.insert((line, format!("`{room}` must not use `{named}`")));
        }
    }
}

fn loadtest_edges(path: &str, code: &[Token<'_>], found: &mut BTreeSet<(usize, String)>) {
    let Some(inside) = path.strip_prefix("loadtest/src/") else { return };
    let folder = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let Some((_, allowed)) = LOADTEST_EDGES.iter().find(|(name, _)| *name == folder) else {
        found.insert((1, format!("`{folder}` has no row in LOADTEST_EDGES of tests/tidy.rs")));
        return;
    };
    for (line, named) in rooms_named(code, folder, usize::MAX) {
        let is_folder = LOADTEST_EDGES.iter().any(|(name, _)| *name == named);
        if is_folder && named != folder && !allowed.contains(&named) {
            found.insert((line, format!("the load generator's `{folder}` must not use its `{named}`")));
        }
    }
}

/// Every first step below the crate's root: `crate::ROOM`, `crate::{ROOM, …}`, `super::…::ROOM` and, from the
/// other programs, `fantail::ROOM`.
fn rooms_named<'a>(code: &[Token<'a>], room: &str, depth: usize) -> Vec<(usize, &'a str)> {
    let root = if matches!(room, "main" | "loadtest") { "fantail" } else { "crate" };
    let mut named = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let mut next = at;
        if code[at].text == root && starts_with(&code[at + 1..], &[":", ":"]) {
            next = at + 3;
        } else {
            let mut steps = 0;
            while steps < depth && starts_with(&code[next..], &["super", ":", ":"]) {
                (steps, next) = (steps + 1, next + 3);
            }
            if steps < depth {
                at = next.max(at + 1);
                continue;
            }
        }
        first_steps(code, next, &mut named);
        at = next;
    }
    named
}

/// The name at `at`, or the first name of each branch of the group that opens there.
fn first_steps<'a>(code: &[Token<'a>], at: usize, named: &mut Vec<(usize, &'a str)>) {
    let Some(first) = code.get(at) else { return };
    if first.text != "{" {
        named.push((first.line, first.text));
        return;
    }
    let end = closing(code, at);
    let (mut depth, mut expects) = (0, true);
    for token in &code[at + 1..end] {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 0 => expects = true,
            name if depth == 0 && expects => {
                named.push((token.line, name));
                expects = false;
            }
            _ => {}
        }
    }
}

fn function_lengths(code: &[Token<'_>], found: &mut BTreeSet<(usize, String)>) {
    for at in 0..code.len() {
        // `fn` before a parenthesis is a type.
        let Some(name) = code.get(at + 1).filter(|next| code[at].text == "fn" && next.text != "(") else {
            continue;
        };
        let lines = code[item_end(code, at)].line - code[at].line + 1;
        if lines > FUNCTION_LINES_MAX {
            let problem = format!("`fn {}` has {lines} lines, more than {FUNCTION_LINES_MAX}", name.text);
            found.insert((code[at].line, problem));
        }
    }
}

/// The rooms of docs/architecture.md, each with those it may name.
fn told_edges<'a>(page: &'a str, of: &str) -> Vec<(&'a str, Vec<&'a str>)> {
    let head = format!("| {of} | what it owns | may name |");
    let (_, table) = page.split_once(&head).expect("the table of rooms");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<_> = line.split(" | ").collect();
        let room = cells[0].trim_matches(['|', ' ', '`']);
        let named = cells[2].split('`').skip(1).step_by(2).collect();
        (room, named)
    })
    .collect()
}

#[test]
fn the_page_tells_the_same_edges() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md"));
    let page = page.expect("the page");
    let mut told = told_edges(&page, "room");
    told.sort();
    // What only names the crate itself is no room.
    let mut held: Vec<_> = EDGES
        .iter()
        .filter(|(room, _)| !["main", "build", "lib"].contains(room))
        .map(|(room, named)| (*room, named.to_vec()))
        .collect();
    held.sort();
    assert_eq!(told, held, "docs/architecture.md and EDGES differ");
    let held = LOADTEST_EDGES.iter().filter(|(folder, _)| *folder != "main");
    let held: Vec<_> = held.map(|(folder, named)| (*folder, named.to_vec())).collect();
    assert_eq!(told_edges(&page, "folder"), held, "docs/architecture.md and LOADTEST_EDGES differ");
}

/// What the checker says about a planted file, as `line: problem`.
fn planted(path: &str, body: &str) -> Vec<String> {
    let text = format!("//! Planted.\n{body}");
    violations(path, &text).into_iter().map(|(line, problem)| format!("{line}: {problem}")).collect()
}

#[test]
fn planted_edges_are_caught() {
    let refused = ["2: `wire` must not use `sys`"];
    for body in [
        "use crate::sys;",
        "use crate::sys::clock;",
        "use crate::{wire::frame, sys::clock};",
        "pub use super::super::sys::clock;",
        "fn now() -> u64 { crate::sys::clock::monotonic_ms() }",
        "fn now() -> u64 { super::super::sys::clock::monotonic_ms() }",
    ] {
        assert_eq!(planted("src/wire/frame.rs", body), refused, "{body}");
    }
    assert_eq!(planted("src/wire/mod.rs", "use super::sys;"), refused);
    assert_eq!(planted("src/wire.rs", "use super::sys;"), refused);
    assert_eq!(
        planted("src/main.rs", "fn main() { fantail::server::run() }"),
        ["2: `main` must not use `server`"]
    );
    assert_eq!(
        planted("loadtest/src/base/b.rs", "use fantail::{\n  wire,\n  topic\n};"),
        ["4: `loadtest` must not use `topic`"]
    );
    assert_eq!(
        planted("loadtest/src/result/report.rs", "use crate::base::note;\nuse crate::engine::run::Run;"),
        ["3: the load generator's `result` must not use its `engine`"]
    );
    assert_eq!(
        planted("loadtest/src/odd.rs", ""),
        ["1: `odd` has no row in LOADTEST_EDGES of tests/tidy.rs"]
    );
    assert_eq!(
        planted("src/gateway/mod.rs", ""),
        ["1: the room `gateway` has no row in EDGES of tests/tidy.rs"]
    );
}

#[test]
fn allowed_edges_and_look_alikes_are_not() {
    for body in [
        "use crate::wire::{frame, sys};",
        "use super::sys;",
        "use self::sys::clock;",
        "// use crate::sys;",
        "/* use crate::sys; /* nested */ use crate::sys; */",
        "/// See [`crate::sys`].\nfn documented() {}",
        "const TEXT: &str = \"crate::sys \\\" crate::sys\";",
        "const TEXT: &str = r#\"crate::sys \" crate::sys\"#;",
        "const QUOTE: (char, char, char) = ('\"', '\\'', '\\\\'); // crate::sys \"",
        "fn life<'a>(text: &'a str) -> &'a str { text } // 'crate::sys",
        "#[cfg(test)]\nmod tests {\n    use crate::sys::clock;\n    fn f() {}\n}",
        "#[cfg(test)]\nuse crate::sys;",
    ] {
        assert_eq!(planted("src/wire/frame.rs", body), [""; 0], "{body}");
    }
    assert_eq!(planted("src/wire/tests.rs", "use crate::sys;"), [""; 0]);
    assert_eq!(planted("src/transport/tcp.rs", "use crate::sys::socket;"), [""; 0]);
    // Behind a test module the rules hold again.
    let behind = "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::sys;";
    assert_eq!(planted("src/wire/frame.rs", behind), ["4: `wire` must not use `sys`"]);
    // A field or an argument for tests ends at its comma or with its list.
    for inside in [
        "struct A { #[cfg(test)] probe: B<u8>, real: u8 }",
        "fn f() -> A { A { real: 1, #[cfg(test)] probe: b(1, 2) } }",
        "enum A { #[cfg(test)] Probe(u8, u8), Real }",
        "#[cfg(test)]\n#[derive(Debug)]\npub(super) struct A<B, C> { b: B, c: C }",
        "#[test]\nfn f<A, B>() { crate::sys::f(); }",
    ] {
        let text = format!("{inside}\nuse crate::sys;");
        let line = 3 + inside.matches('\n').count();
        assert_eq!(
            planted("src/wire/frame.rs", &text),
            [format!("{line}: `wire` must not use `sys`")],
            "{inside}"
        );
        assert_eq!(planted("src/wire/frame.rs", inside), [""; 0], "{inside}");
    }
    let not_test = "#[cfg(not(test))]\nuse crate::sys;";
    assert_eq!(planted("src/wire/frame.rs", not_test), ["3: `wire` must not use `sys`"]);
}

#[test]
fn planted_words_are_caught_in_tests_too() {
    let hidden = "#[cfg(test)]\nmod tests {\n    fn f() { unsafe { g() } }\n}";
    assert_eq!(planted("src/wire/frame.rs", hidden), ["4: `unsafe` outside src/sys/ and tests/support/src/"]);
    assert_eq!(
        planted("src/wire/frame.rs", "use libc::c_int;"),
        ["2: `libc` outside src/sys/ and tests/support/src/"]
    );
    assert_eq!(
        planted("benches/floor.rs", "use libc;"),
        ["2: `libc` outside src/sys/ and tests/support/src/"]
    );
    assert_eq!(planted("src/transport/tcp.rs", "use mio::net;"), ["2: `mio` outside src/event_loop/"]);
    for (path, body) in [
        ("src/event_loop/mod.rs", "use mio::Poll;"),
        ("loadtest/src/engine/worker.rs", "use mio::Poll;"),
        ("benches/floor.rs", "use mio::Poll;"),
        ("src/sys/tables.rs", "fn f() { unsafe { libc::close(0) }; }"),
        ("src/wire/frame.rs", "const UNSAFE: &str = \"unsafe libc::close mio::Poll\"; // unsafe"),
    ] {
        assert_eq!(planted(path, body), [""; 0], "{body}");
    }
}

#[test]
fn planted_comparisons_of_secrets_are_caught() {
    let by_hand = "fn f() -> bool { hmac::sign(&key, text).as_ref() == tag }";
    assert_eq!(planted("src/service/webhook/post.rs", by_hand), ["2: an HMAC outside src/auth/token/"]);
    assert_eq!(planted("src/auth/token/crypto.rs", by_hand), [""; 0]);
    let elsewhere = "fn f() { hmac::verify(&key, text, tag) }";
    assert_eq!(planted("src/http/admin.rs", elsewhere), ["2: a secret is compared outside src/auth/token/"]);
    assert_eq!(planted("src/auth/token/issuer.rs", elsewhere), [""; 0]);
    let slices = "use aws_lc_rs::constant_time::verify_slices_are_equal;";
    assert_eq!(
        planted("src/http/admin.rs", slices),
        ["2: a secret is compared outside src/auth/admin_keys.rs"]
    );
    assert_eq!(planted("src/auth/admin_keys.rs", slices), [""; 0]);
}

#[test]
fn planted_dialects_are_caught() {
    let asks = "fn f(dialect: Dialect) -> bool { dialect == Dialect::Poll }";
    assert_eq!(
        planted("src/event_loop/fanout_turn.rs", asks),
        ["2: `Dialect::Poll` is told apart outside src/dialect/"]
    );
    for (path, body) in [
        ("src/dialect/mod.rs", asks),
        ("src/event_loop/poll_turn.rs", "fn f(slot: &mut Slot) { slot.dialect = Dialect::Http; }"),
        ("src/http/mod.rs", "fn f() { Dialect::opening(Dialect::ALL) }"),
        ("src/connection/deadline.rs", "#[cfg(test)]\nmod tests { const A: Dialect = Dialect::Plain; }"),
    ] {
        assert_eq!(planted(path, body), [""; 0], "{body}");
    }
}

#[test]
fn planted_lengths_are_caught() {
    let function =
        |lines: usize| format!("pub fn long(x: [u8; 3]) {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    assert_eq!(planted("src/wire/frame.rs", &function(80)), [""; 0]);
    assert_eq!(planted("src/wire/frame.rs", &function(81)), ["2: `fn long` has 81 lines, more than 80"]);
    let tested = format!("#[cfg(test)]\nmod tests {{\n{}}}", function(81));
    assert_eq!(planted("src/wire/frame.rs", &tested), [""; 0]);
    // Only the method is long: neither its declaration without a body nor a function type counts.
    let inside =
        format!("trait A {{ fn short(&self); }}\nstruct F(fn(u8) -> u8);\nimpl B {{\n{}}}", function(90));
    assert_eq!(planted("src/wire/frame.rs", &inside), ["5: `fn long` has 90 lines, more than 80"]);

    let file = "// A line.\n".repeat(FILE_LINES_MAX);
    assert_eq!(planted("src/wire/frame.rs", &file), ["801: 801 lines, more than 800"]);
    assert_eq!(planted("src/wire/frame.rs", &file[11..]), [""; 0]);
}

#[test]
fn a_missing_head_is_caught() {
    let found = violations("src/wire/frame.rs", "use std::io;\n//! Too late.\n");
    assert_eq!(found.len(), 1);
    assert!(found.iter().all(|(line, problem)| *line == 1 && problem.contains("//!")));
}
