//! What is left out of results, because they are passed on: whatever authorizes a client. Pure.

/// Parameters of a query whose values are no secret; of any other only the name is kept.
const PLAIN: [&str; 14] = [
    "topic",
    "topics",
    "room",
    "channel",
    "echo",
    "binary",
    "history",
    "since",
    "transport",
    "eio",
    "protocol",
    "version",
    "vsn",
    "client",
];
/// Stands for what was left out.
const MASK: &str = "…";

/// A URL without the values of its query.
pub(crate) fn url(url: &str) -> String {
    let Some((place, query)) = url.split_once('?') else { return url.to_owned() };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) if !is_plain(name, value) => format!("{name}={MASK}"),
        _ => pair.to_owned(),
    });
    format!("{place}?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// A header with its name alone.
pub(crate) fn header(header: &str) -> String {
    format!("{}: {MASK}", header.split(':').next().unwrap_or_default())
}

/// `NAME=VALUE` with its name alone.
pub(crate) fn value(pair: &str) -> String {
    format!("{}={MASK}", pair.split('=').next().unwrap_or_default())
}

/// Something said of which nothing is kept.
pub(crate) fn all(_: &str) -> String {
    MASK.to_owned()
}

/// A template without the keys by which it signs.
pub(crate) fn template(text: &str) -> String {
    const SIGNS: &str = "{hmac_sha256(";
    let mut parts = text.split(SIGNS);
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept += SIGNS;
        kept += MASK;
        kept += &part.split_once(',').map_or_else(String::new, |(_, rest)| format!(",{rest}"));
    }
    kept
}

fn is_plain(name: &str, value: &str) -> bool {
    // What is filled in stands in a file, and not here.
    let name_alone = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let filled_in = name_alone.is_some_and(|name| !name.contains(['{', '}']) && !name.contains("hmac"));
    filled_in || value.is_empty() || PLAIN.iter().any(|plain| name.eq_ignore_ascii_case(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_may_be_secret_are_left_out() {
        for (given, kept) in [
            ("ws://h/ws/a", "ws://h/ws/a"),
            ("ws://h/?token=SECRET", "ws://h/?token=…"),
            ("ws://h/ws?topic=a&echo=0&sig=x%3D&k={token}", "ws://h/ws?topic=a&echo=0&sig=…&k={token}"),
            ("ws://h/socket.io/?EIO=4&transport=websocket", "ws://h/socket.io/?EIO=4&transport=websocket"),
            ("ws://h/?flag", "ws://h/?flag"),
            ("ws://h/?s={hmac_sha256(SECRET,{i})}", "ws://h/?s=…"),
            ("ws://h/?s={i}SECRET{seq}&a={i}", "ws://h/?s=…&a={i}"),
        ] {
            assert_eq!(url(given), kept);
        }
        assert_eq!(header("Authorization: Bearer SECRET"), "Authorization: …");
        assert_eq!(
            template("a {hmac_sha256(SECRET,{i}:x)} b {hmac_sha256(OTHER,y)}"),
            "a {hmac_sha256(…,{i}:x)} b {hmac_sha256(…,y)}"
        );
        assert_eq!(template("{\"a\":1}"), "{\"a\":1}");
    }
}
