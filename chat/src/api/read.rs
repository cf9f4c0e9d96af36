//! What a request says, read within bounds of size and time: its head, the names in its path, its query, its body. What
//! can't be read is answered like any other error; NUL, which PostgreSQL's text can't have, is refused wherever it stands.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Failure;

/// The longest body: a message of 4,000 characters, each escaped.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;
/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(15);
/// The longest path with its query.
const URL_BYTES_MAX: usize = 4 << 10;

/// Refuses a head that nothing here could mean.
pub(super) async fn head(request: Request, next: Next) -> Response {
    let url = request.uri().path_and_query().map_or("", |url| url.as_str());
    if url.len() > URL_BYTES_MAX {
        return Failure::too_long("an address here has at most 4,096 bytes: ask for less").into_response();
    }
    if url.contains("%00") {
        return Failure::bad_request("an address has no NUL (%00): leave it out").into_response();
    }
    next.run(request).await
}

/// The names in a path.
pub(crate) struct At<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let read = Path::from_request_parts(parts, state).await;
        read.map(|Path(names)| Self(names)).map_err(|error| Failure::bad_request(&error.body_text()))
    }
}

/// The parameters of a query.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let read = Query::from_request_parts(parts, state).await;
        read.map(|Query(asked)| Self(asked)).map_err(|error| Failure::bad_request(&error.body_text()))
    }
}

/// A body of JSON.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = bytes(Bytes::from_request(request, state), BODY_TIME).await?;
        let wrong = |error: serde_json::Error| {
            Failure::bad_request(&format!("this is not what is asked for: {error}"))
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(wrong)?;
        if has_nul(&value) {
            return Err(Failure::bad_request("no text here has a NUL (\\u0000): leave it out"));
        }
        serde_json::from_value(value).map(Self).map_err(wrong)
    }
}

/// A body that is whole within a time.
async fn bytes(
    body: impl Future<Output = Result<Bytes, BytesRejection>>,
    time: Duration,
) -> Result<Bytes, Failure> {
    match tokio::time::timeout(time, body).await {
        Err(_) => Err(Failure::too_slow("what was sent took more than 15 s: send it again")),
        Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(Failure::too_large("what is sent has at most 64 KiB: send less"))
        }
        Ok(Err(error)) => Err(Failure::bad_request(&error.body_text())),
        Ok(Ok(bytes)) => Ok(bytes),
    }
}

/// Its depth is bounded by the reader of JSON.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let failure = bytes(std::future::pending(), Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(failure.into_response().status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[test]
    fn nul_is_found_however_deep_it_lies() {
        for value in [json!("a\0"), json!([1, ["\0"]]), json!({"a": {"b\0": 1}}), json!({"a": [{"b": "\0"}]})]
        {
            assert!(has_nul(&value), "{value}");
        }
        assert!(!has_nul(&json!({"a": ["\\u0000", 0, null]})));
    }
}
