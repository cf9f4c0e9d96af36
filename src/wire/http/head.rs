//! Request heads (RFC 9110, RFC 9112): tokenized by `httparse`, judged here.
//!
//! Owns the rules that keep two readers of one connection from disagreeing about where a request ends:
//! whatever is ambiguous is refused. Driven by the head phase of a connection. Never reads the body.

use std::fmt;
use std::mem::MaybeUninit;

/// The most fields a head can have, whatever the limits say.
pub const FIELDS_MAX: usize = 1024;

/// Room for the fields of one head, on the caller's stack. Never written as a whole: a head pays for the fields it has.
pub type FieldStore<'a> = [MaybeUninit<httparse::Header<'a>>; FIELDS_MAX];

/// An empty [`FieldStore`].
pub const fn field_store<'a>() -> FieldStore<'a> {
    [const { MaybeUninit::uninit() }; FIELDS_MAX]
}

/// How much head is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// The longest head, request line and last empty line included.
    pub bytes_max: usize,
    /// The most fields, at most [`FIELDS_MAX`].
    pub fields_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes_max: 8192, fields_max: 256 }
    }
}

/// How the body behind a head is framed (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// No body.
    None,
    /// This many bytes, possibly zero.
    Length(u64),
    /// Chunks up to an empty one.
    Chunked,
}

/// Why a head is refused. The connection cannot be used further: where the next request begins is
/// not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadError {
    /// A line that ends without CR, or a CR without LF.
    BareLineEnd,
    /// A control character.
    ControlCharacter,
    /// A request line of another shape than method, target, version.
    BadRequestLine,
    /// A target that is neither a path nor an absolute URL of a scheme served here.
    BadTarget,
    /// A field that is not a name, a colon and a value.
    BadField,
    /// A field continued on the next line.
    FoldedField,
    /// White space between a field's name and its colon.
    SpaceBeforeColon,
    /// No Host field in HTTP/1.1.
    MissingHost,
    /// More than one Host field.
    DuplicateHost,
    /// A Host that no host can have.
    BadHost,
    /// Both Content-Length and Transfer-Encoding.
    LengthAndEncoding,
    /// More than one Content-Length, equal or not.
    DuplicateLength,
    /// A Content-Length that is not a number.
    BadLength,
    /// Transfer-Encoding in HTTP/1.0.
    EncodingInHttp10,
    /// A Transfer-Encoding that does not end in one `chunked`.
    BadEncoding,
    /// A Transfer-Encoding other than `chunked`.
    UnknownEncoding,
    /// An Expect other than `100-continue`.
    UnknownExpectation,
    /// More bytes than the limits allow.
    TooLarge,
    /// More fields than the limits allow.
    TooManyFields,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    BadVersion,
}

impl HeadError {
    /// The status to answer with.
    pub const fn status(self) -> u16 {
        match self {
            Self::UnknownExpectation => 417,
            Self::TooLarge | Self::TooManyFields => 431,
            Self::UnknownEncoding => 501,
            Self::BadVersion => 505,
            _ => 400,
        }
    }

    /// The reason as one line.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BareLineEnd => "line does not end with CR LF",
            Self::ControlCharacter => "control character in head",
            Self::BadRequestLine => "malformed request line",
            Self::BadTarget => "unsupported request target",
            Self::BadField => "malformed field",
            Self::FoldedField => "field folded over lines",
            Self::SpaceBeforeColon => "white space before colon",
            Self::MissingHost => "Host missing",
            Self::DuplicateHost => "more than one Host",
            Self::BadHost => "malformed Host",
            Self::LengthAndEncoding => "both Content-Length and Transfer-Encoding",
            Self::DuplicateLength => "more than one Content-Length",
            Self::BadLength => "malformed Content-Length",
            Self::EncodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::BadEncoding => "Transfer-Encoding does not end in chunked",
            Self::UnknownEncoding => "unknown Transfer-Encoding",
            Self::UnknownExpectation => "unknown Expect",
            Self::TooLarge => "head too large",
            Self::TooManyFields => "too many header fields",
            Self::BadVersion => "HTTP version not supported",
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for HeadError {}

/// A request head, borrowed from the bytes it came in.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    /// The method, case-sensitive.
    pub method: &'a str,
    /// Path and query as they came, scheme and authority stripped; may begin with `?`.
    pub target: &'a str,
    /// The authority asked for: that of an absolute target, else the Host field, else empty.
    pub host: &'a str,
    /// 0 or 1.
    pub version_minor: u8,
    /// How the body is framed.
    pub body: Body,
    /// The client wants to go on after the answer.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Where the path ends in the target: it is asked for again and again, so it is looked for once.
    path_len: usize,
    fields: &'a [httparse::Header<'a>],
}

impl<'a> Head<'a> {
    /// The same request as the last one of its connection.
    #[must_use]
    pub fn as_last(&self) -> Self {
        Self { keep_alive: false, ..self.clone() }
    }

    /// The target up to the query, `/` if empty; not decoded.
    pub fn path(&self) -> &'a str {
        match self.target.get(..self.path_len) {
            None | Some("") => "/",
            Some(path) => path,
        }
    }

    /// The same request with another target.
    #[must_use]
    pub fn with_target<'b>(&self, target: &'b str) -> Head<'b>
    where
        'a: 'b,
    {
        Head { target, path_len: target.find('?').unwrap_or(target.len()), ..self.clone() }
    }

    /// What follows the first `?` of the target, empty if there is none; not decoded.
    pub fn query(&self) -> &'a str {
        self.target.get(self.path_len + 1..).unwrap_or_default()
    }

    /// The first field of this name, whatever its case; without white space around it.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// All fields of this name, in order.
    pub fn fields<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let matching = self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        matching.map(|field| field.value)
    }

    /// Whether one of the lists in all fields of this name has this element, whatever its case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.fields(name).any(|value| list_has(value, token))
    }
}

/// Parses the head at the front of `bytes`; returns it with its length, or `None` if it is not all there.
///
/// An incomplete head that has already reached the limit, or that is already wrong, is an error at once.
pub fn parse_head<'a>(
    bytes: &'a [u8],
    store: &'a mut FieldStore<'a>,
    limits: &HeadLimits,
) -> Result<Option<(Head<'a>, usize)>, HeadError> {
    let window = bytes.get(..limits.bytes_max).unwrap_or(bytes);
    let fields_max = limits.fields_max.min(FIELDS_MAX);
    let mut request = httparse::Request::new(&mut []);
    let room = store.get_mut(..fields_max).unwrap_or_default();
    let len = match request.parse_with_uninit_headers(window, room) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => {
            check_line_ends(window)?;
            if bytes.len() >= limits.bytes_max {
                return Err(HeadError::TooLarge);
            }
            return Ok(None);
        }
        Err(error) => return Err(diagnose(window, error)),
    };
    // The tokenizer accepts lines that end in LF alone; other readers may not see a line end there.
    check_line_ends(window.get(..len).unwrap_or_default())?;
    let (Some(method), Some(target), Some(version_minor)) = (request.method, request.path, request.version)
    else {
        return Err(HeadError::BadRequestLine);
    };
    let fields: &'a [httparse::Header<'a>] = request.headers;
    let facts = Facts::collect(fields)?;
    let body = facts.body(version_minor)?;
    let (authority, target) = split_target(target)?;
    let host = match facts.host {
        Some(host) => host,
        // RFC 9112 section 3.2: a request of HTTP/1.1 without Host is refused.
        None if version_minor >= 1 => return Err(HeadError::MissingHost),
        None => "",
    };
    let head = Head {
        method,
        target,
        // RFC 9112 section 3.2.2: the authority of an absolute target replaces Host.
        host: authority.unwrap_or(host),
        version_minor,
        body,
        // RFC 9112 section 9.3.
        keep_alive: !facts.close && (version_minor >= 1 || facts.keep_alive),
        // RFC 9110 section 10.1.1: an expectation in HTTP/1.0 is ignored.
        expect_continue: facts.expect_continue && version_minor >= 1,
        path_len: target.bytes().position(|byte| byte == b'?').unwrap_or(target.len()),
        fields,
    };
    Ok(Some((head, len)))
}

/// Whether a comma-separated list has this element, whatever its case.
pub(crate) fn list_has(list: &[u8], token: &str) -> bool {
    list.split(|&byte| byte == b',')
        .any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// What the fields that decide about framing and the connection say, found in one pass.
#[derive(Default)]
struct Facts<'a> {
    host: Option<&'a str>,
    length: Option<u64>,
    encoding: Option<Result<(), HeadError>>,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
}

impl<'a> Facts<'a> {
    fn collect(fields: &[httparse::Header<'a>]) -> Result<Self, HeadError> {
        let mut facts = Self::default();
        for field in fields {
            // Most fields differ in length from all of these, so most cost one comparison.
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            match field.name.len() {
                4 if is("host") => facts.host(field.value)?,
                6 if is("expect") => {
                    if !field.value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(HeadError::UnknownExpectation);
                    }
                    facts.expect_continue = true;
                }
                10 if is("connection") => {
                    facts.close |= list_has(field.value, "close");
                    facts.keep_alive |= list_has(field.value, "keep-alive");
                }
                14 if is("content-length") => {
                    if facts.length.is_some() {
                        return Err(HeadError::DuplicateLength);
                    }
                    facts.length = Some(parse_length(field.value)?);
                }
                17 if is("transfer-encoding") => {
                    // A second field would make a list of two (RFC 9110 section 5.3).
                    let again = facts.encoding.is_some();
                    facts.encoding =
                        Some(if again { Err(HeadError::BadEncoding) } else { judge_encoding(field.value) });
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    fn host(&mut self, value: &'a [u8]) -> Result<(), HeadError> {
        if self.host.is_some() {
            return Err(HeadError::DuplicateHost);
        }
        let host = core::str::from_utf8(value).map_err(|_| HeadError::BadHost)?;
        if !host.bytes().all(is_host_byte) {
            return Err(HeadError::BadHost);
        }
        self.host = Some(host);
        Ok(())
    }

    /// RFC 9112 sections 6.1 and 6.3, taking the refusal wherever they leave a choice.
    fn body(&self, version_minor: u8) -> Result<Body, HeadError> {
        match (self.encoding, self.length) {
            (Some(_), Some(_)) => Err(HeadError::LengthAndEncoding),
            (Some(_), None) if version_minor == 0 => Err(HeadError::EncodingInHttp10),
            (Some(judged), None) => judged.map(|()| Body::Chunked),
            (None, Some(length)) => Ok(Body::Length(length)),
            (None, None) => Ok(Body::None),
        }
    }
}

fn parse_length(value: &[u8]) -> Result<u64, HeadError> {
    // A list of equal numbers may be repaired by RFC 9112 section 6.3; it is refused like any other.
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::BadLength);
    }
    let digits = core::str::from_utf8(value).map_err(|_| HeadError::BadLength)?;
    digits.parse().map_err(|_| HeadError::BadLength)
}

fn judge_encoding(value: &[u8]) -> Result<(), HeadError> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let last_is_chunked = codings.next_back().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let chunked_before = codings.any(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    // RFC 9112 section 6.1: chunked is applied last and once; what it is applied to is not known here.
    if (value.contains(&b',') && !last_is_chunked) || chunked_before || value.is_empty() {
        return Err(HeadError::BadEncoding);
    }
    Err(HeadError::UnknownEncoding)
}

/// Splits a target into its authority, if it is absolute, and path and query.
fn split_target(target: &str) -> Result<(Option<&str>, &str), HeadError> {
    // RFC 3986: a target is visible ASCII; a fragment is never sent.
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(HeadError::BadTarget);
    }
    if target.starts_with('/') {
        return Ok((None, target));
    }
    // RFC 9112 section 3.2.2: the absolute form must be accepted. `*` and a lone authority are for
    // methods not served here.
    let (scheme, rest) = target.split_once("://").ok_or(HeadError::BadTarget)?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(HeadError::BadTarget);
    }
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || !authority.bytes().all(is_host_byte) {
        return Err(HeadError::BadTarget);
    }
    Ok((Some(authority), if target.is_empty() { "/" } else { target }))
}

/// The bytes of `uri-host [ ":" port ]` (RFC 3986 section 3.2.2); `@`, `/`, `?` and spaces are not among them.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// RFC 9112 section 2.2 lets a reader accept LF alone; here it is refused, as is CR alone.
fn check_line_ends(head: &[u8]) -> Result<(), HeadError> {
    for line in head.split_inclusive(|&byte| byte == b'\n') {
        let line = match line {
            [text @ .., b'\r', b'\n'] => text,
            [.., b'\n'] => return Err(HeadError::BareLineEnd),
            // The last one is not whole; its CR may still get its LF.
            [text @ .., b'\r'] => text,
            text => text,
        };
        if line.contains(&b'\r') {
            return Err(HeadError::BareLineEnd);
        }
    }
    Ok(())
}

/// Finds what the tokenizer stumbled over; runs only for heads that are refused.
fn diagnose(window: &[u8], error: httparse::Error) -> HeadError {
    if error == httparse::Error::TooManyHeaders {
        return HeadError::TooManyFields;
    }
    let mut lines =
        window.split_inclusive(|&byte| byte == b'\n').skip_while(|line| line.trim_ascii().is_empty());
    let request_line = lines.next().unwrap_or_default();
    if let Err(error) = judge_line(request_line) {
        return error;
    }
    let in_request_line =
        matches!(error, httparse::Error::Token | httparse::Error::Version | httparse::Error::Status);
    if in_request_line {
        let mut words = request_line.trim_ascii_end().split(|&byte| byte == b' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        let named = method.is_some_and(|method| !method.is_empty()) && target.is_some();
        let versioned = named && words.next().is_none() && version.is_some_and(|v| v.starts_with(b"HTTP/"));
        return match error {
            httparse::Error::Version if versioned => HeadError::BadVersion,
            _ => HeadError::BadRequestLine,
        };
    }
    for line in lines {
        if let Err(error) = judge_line(line) {
            return error;
        }
        if line == b"\r\n" {
            break;
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return HeadError::FoldedField;
        }
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        if name.len() < line.len() && matches!(name.last(), Some(b' ' | b'\t')) {
            return HeadError::SpaceBeforeColon;
        }
    }
    HeadError::BadField
}

/// A line's end and its control characters.
fn judge_line(line: &[u8]) -> Result<(), HeadError> {
    check_line_ends(line)?;
    let text = line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line));
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    match text.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
        true => Err(HeadError::ControlCharacter),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
