//! Header fields as flags give them. Pure.

/// Field names that the upgrade itself sets.
const OWN_FIELDS: [&str; 7] = [
    "host",
    "upgrade",
    "connection",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
];

/// Splits and checks `Name: value`, given by `flag`.
pub(crate) fn parse_header<'a>(flag: &str, header: &'a str) -> Result<(&'a str, &'a str), String> {
    let wrong = || format!("{flag} {header:?}: has to be 'Name: value'");
    let (name, value) = header.split_once(':').ok_or_else(wrong)?;
    let value = value.trim();
    // RFC 9110 section 5.5: no controls, or one header could become two.
    if name.is_empty() || !name.bytes().all(is_token) || value.bytes().any(|byte| byte < b' ' || byte == 0x7f)
    {
        return Err(wrong());
    }
    if OWN_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return Err(format!("{flag} {name}: the request sets this field itself"));
    }
    Ok((name, value))
}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
