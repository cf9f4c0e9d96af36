//! Messages: sent, read, changed.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::done;
use super::rooms::written;
use super::{Asked, At, Body, Failure, Session, Shared};
use crate::limits::MESSAGES;
use crate::names;

type Told = Result<Json<Value>, Failure>;

#[derive(Deserialize)]
pub(super) struct Range {
    /// Messages before this one.
    pub(super) before: Option<i64>,
    /// Messages that are new or were changed behind this change.
    pub(super) after_change: Option<i64>,
}

pub(super) async fn list(
    State(app): Shared,
    session: Session,
    At(room): At<String>,
    Asked(range): Asked<Range>,
) -> Told {
    let person = &session.person.id;
    let page = match range.after_change {
        Some(after) => done(app.store.changes(&room, person, after)).await?,
        None => done(app.store.history(&room, person, range.before, app.history)).await?,
    };
    Ok(Json(json!({"messages": page.messages, "change": page.change, "more": page.more})))
}

#[derive(Deserialize)]
pub(super) struct NewMessage {
    client_id: String,
    text: String,
}

/// Answered when it is in the database. Everybody is told after that, and told again until the edge has it.
pub(super) async fn post(
    State(app): Shared,
    session: Session,
    At(room): At<String>,
    Body(asked): Body<NewMessage>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    check_client_id(&asked.client_id)?;
    let text = names::message(&asked.text).map_err(|why| Failure::invalid("text", &why))?;
    app.take(MESSAGES, &session.person.id)?;
    let message = done(app.store.post(&room, &session.person.id, &asked.client_id, &text)).await?;
    Ok((StatusCode::CREATED, written(&app, message)))
}

pub(super) fn check_client_id(id: &str) -> Result<(), Failure> {
    if (8..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Failure::bad_request("client_id names a message: 8 to 64 visible characters, another each time"))
}

#[derive(Deserialize)]
pub(super) struct OtherWords {
    text: String,
}

pub(super) async fn edit(
    State(app): Shared,
    session: Session,
    At((room, seq)): At<(String, i64)>,
    Body(asked): Body<OtherWords>,
) -> Told {
    let text = names::message(&asked.text).map_err(|why| Failure::invalid("text", &why))?;
    app.take(MESSAGES, &session.person.id)?;
    let message = done(app.store.change(&room, seq, &session.person.id, Some(&text))).await?;
    Ok(written(&app, message))
}

pub(super) async fn delete(State(app): Shared, session: Session, At((room, seq)): At<(String, i64)>) -> Told {
    app.take(MESSAGES, &session.person.id)?;
    let message = done(app.store.change(&room, seq, &session.person.id, None)).await?;
    Ok(written(&app, message))
}

#[derive(Deserialize)]
pub(super) struct Seen {
    pub(super) seq: i64,
}

pub(super) async fn seen(
    State(app): Shared,
    session: Session,
    At(room): At<String>,
    Body(asked): Body<Seen>,
) -> Told {
    app.store.seen(&room, &session.person.id, asked.seq).await?;
    Ok(Json(json!({})))
}
