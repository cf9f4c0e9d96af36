//! What is answered when something is wrong: a status, a word for programs, a sentence for people.

use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::passwords::Busy;
use crate::store::rooms::Refusal;
use crate::store::{Error, messages};

/// An error of a request.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The field of a form that it is about.
    field: Option<&'static str>,
    /// Seconds.
    retry_after: Option<u64>,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned(), field: None, retry_after: None }
    }

    pub(crate) fn bad_request(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(crate) fn invalid(field: &'static str, message: &str) -> Self {
        Self { field: Some(field), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message) }
    }

    pub(crate) fn taken(field: &'static str, message: &str) -> Self {
        Self { field: Some(field), ..Self::new(StatusCode::CONFLICT, "taken", message) }
    }

    pub(crate) fn logged_out() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "logged_out", "you are not logged in: log in again")
    }

    pub(crate) fn wrong_password(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "wrong_password", message)
    }

    pub(crate) fn forbidden(code: &'static str, message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    pub(crate) fn not_found(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(crate) fn wrong_method(message: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
    }

    pub(crate) fn too_slow(message: &str) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message)
    }

    pub(crate) fn too_large(message: &str) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(crate) fn too_long(message: &str) -> Self {
        Self::new(StatusCode::URI_TOO_LONG, "too_long", message)
    }

    pub(crate) fn too_often(wait: Duration) -> Self {
        let seconds = wait.as_secs().max(1);
        let message = format!("that was too often: try again in {seconds} s");
        let failure = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_often", &message);
        Self { retry_after: Some(seconds), ..failure }
    }

    pub(crate) fn away(code: &'static str, message: &str) -> Self {
        let failure = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        Self { retry_after: Some(2), ..failure }
    }

    /// What may be wrong with private messages and devices.
    fn of_private(refusal: Refusal) -> Self {
        let (status, code, message) = match refusal {
            Refusal::TooManyConversations => (
                StatusCode::CONFLICT,
                "too_many_conversations",
                "you have begun 200 conversations: others can write to you",
            ),
            Refusal::Oneself => {
                (StatusCode::UNPROCESSABLE_ENTITY, "oneself", "that is you: write to somebody else")
            }
            Refusal::HasLeft => (StatusCode::GONE, "has_left", "who you write to has no account any more"),
            Refusal::Blocking => (StatusCode::FORBIDDEN, "blocking", "you block them: stop that first"),
            Refusal::Blocked => (StatusCode::FORBIDDEN, "blocked", "they take no messages from you"),
            Refusal::OtherDevices => (
                StatusCode::CONFLICT,
                "other_devices",
                "the devices of one of you are others by now: seal it for those",
            ),
            Refusal::NoDevice => (StatusCode::NOT_FOUND, "not_found", "there is no such device of yours"),
            Refusal::DeviceTaken => (
                StatusCode::CONFLICT,
                "device_taken",
                "this device is somebody else's, or was removed: make another key",
            ),
            Refusal::TooManyDevices => {
                (StatusCode::CONFLICT, "too_many_devices", "you have 8 devices: remove one first")
            }
            _ => (StatusCode::NOT_FOUND, "not_found", "there is no such conversation of yours"),
        };
        Self::new(status, code, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Away(why) => {
                tracing::warn!("the database is away: {why}");
                Self::away("database_away", "the database can't be reached: try again in a moment")
            }
            Error::Broken(why) => {
                tracing::error!("the database: {why}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "broken", "this failed, and the log says why")
            }
        }
    }
}

impl From<Busy> for Failure {
    fn from(_: Busy) -> Self {
        Self::away("busy", "too many log in at the moment: try again in a moment")
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoRoom => Self::not_found("there is no such room, or it is by invitation"),
            Refusal::NoMessage => Self::not_found("there is no such message, or it was deleted"),
            Refusal::NoPerson => Self::not_found("there is nobody of this name here"),
            Refusal::NotMember => Self::forbidden("not_member", "you are not in this room: join it first"),
            Refusal::NotYours => Self::forbidden("not_yours", "this is somebody else's message"),
            Refusal::NotAllowed => {
                Self::forbidden("not_allowed", "your role in this room does not allow that")
            }
            Refusal::Banned => Self::forbidden("banned", "you were banned from this room: ask who leads it"),
            Refusal::NameTaken => {
                Self::taken("name", "there is a room whose name looks like this: choose another")
            }
            Refusal::Repeated => Self::new(
                StatusCode::CONFLICT,
                "repeated",
                "a message with this client_id was sent to another room",
            ),
            Refusal::TooManyRooms => {
                Self::new(StatusCode::CONFLICT, "too_many_rooms", "you are in 50 rooms: leave one first")
            }
            Refusal::InvitationsFull => Self::new(
                StatusCode::CONFLICT,
                "too_many_invitations",
                "too many invitations of this room or to this person wait for an answer: try again when some have one",
            ),
            Refusal::RoomFull => Self::new(StatusCode::CONFLICT, "room_full", "this room is full"),
            Refusal::NoConversation
            | Refusal::TooManyConversations
            | Refusal::Oneself
            | Refusal::HasLeft
            | Refusal::Blocking
            | Refusal::Blocked
            | Refusal::OtherDevices
            | Refusal::NoDevice
            | Refusal::DeviceTaken
            | Refusal::TooManyDevices => Self::of_private(refusal),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(field) = self.field {
            error["field"] = field.into();
        }
        let mut response = (self.status, Json(json!({"error": error}))).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// What the store says, for a handler.
pub(super) async fn done<T>(answer: impl Future<Output = messages::Answer<T>>) -> Result<T, Failure> {
    Ok(answer.await??)
}
