//! Private messages and the devices that they are for: sealed by pages, kept and passed on here. This side never has a key.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::envelope::{self, Envelope};
use super::failure::done;
use super::messages::{Range, Seen, check_client_id};
use super::rooms::written;
use super::{App, Asked, At, Body, Failure, Session, Shared};
use crate::limits::{LISTS, MESSAGES, ROOMS};
use crate::names;
use crate::store::private::Sealed;

type Told = Result<Json<Value>, Failure>;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/devices", get(devices).post(add_device))
        .route("/devices/{device}", delete(remove_device))
        .route("/conversations", get(list).post(begin))
        .route("/conversations/{conversation}/devices", get(devices_of_both))
        .route("/conversations/{conversation}/block", post(block))
        .route("/conversations/{conversation}/messages", get(messages).post(send))
        .route("/conversations/{conversation}/messages/{seq}", delete(remove))
        .route("/conversations/{conversation}/seen", post(seen))
}

async fn devices(State(app): Shared, session: Session) -> Told {
    Ok(Json(json!({"devices": app.store.devices(&session.person.id).await?})))
}

#[derive(Deserialize)]
struct NewDevice {
    /// Its public key: a point on P-256, uncompressed, base64url.
    key: String,
    /// What its owner and who writes to them call it.
    name: String,
}

async fn add_device(State(app): Shared, session: Session, Body(asked): Body<NewDevice>) -> Told {
    let no_key = || Failure::bad_request("key is a point on P-256: 65 bytes that begin with 4, base64url");
    let id = envelope::device_id(&asked.key).ok_or_else(no_key)?;
    app.take(ROOMS, &session.person.id)?;
    let name = names::device(&asked.name);
    done(app.store.add_device(&session.person.id, &id, &asked.key, &name)).await?;
    // Not under a name that answers of who somebody is have.
    Ok(written(&app, json!({"device": id, "name": name})))
}

async fn remove_device(State(app): Shared, session: Session, At(device): At<String>) -> Told {
    app.take(ROOMS, &session.person.id)?;
    done(app.store.remove_device(&session.person.id, &device)).await?;
    Ok(written(&app, json!({})))
}

async fn list(State(app): Shared, session: Session) -> Told {
    app.take(LISTS, &session.person.id)?;
    Ok(Json(json!({"conversations": app.store.conversations(&session.person.id).await?})))
}

#[derive(Deserialize)]
struct Partner {
    name: String,
}

/// Begins a conversation with whoever has this name, or finds it. They learn of it with the first message.
async fn begin(State(app): Shared, session: Session, Body(asked): Body<Partner>) -> Told {
    app.take(ROOMS, &session.person.id)?;
    let person = app.store.person_by_key(&names::asked(&asked.name)).await?;
    let nobody = || Failure::invalid("name", "there is nobody of this name: check how it is written");
    let person = person.ok_or_else(nobody)?;
    Ok(Json(done(app.store.converse(&session.person.id, &person.id)).await?))
}

/// For whom a message of this conversation has to be sealed.
async fn devices_of_both(State(app): Shared, session: Session, At(conversation): At<String>) -> Told {
    let mine = &session.person.id;
    let other = done(app.store.partner(&conversation, mine)).await?;
    let (own, theirs) = (app.store.devices(mine).await?, app.store.devices(&other).await?);
    Ok(Json(json!({"own": own, "theirs": theirs})))
}

#[derive(Deserialize)]
struct Block {
    block: bool,
}

async fn block(
    State(app): Shared,
    session: Session,
    At(conversation): At<String>,
    Body(asked): Body<Block>,
) -> Told {
    app.take(ROOMS, &session.person.id)?;
    done(app.store.block(&conversation, &session.person.id, asked.block)).await?;
    Ok(Json(json!({})))
}

async fn messages(
    State(app): Shared,
    session: Session,
    At(conversation): At<String>,
    Asked(range): Asked<Range>,
) -> Told {
    let range = (range.before, range.after_change);
    let page = done(app.store.private_page(&conversation, &session.person.id, range, app.history)).await?;
    Ok(Json(json!({"messages": page.messages, "change": page.change, "more": page.more})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMessage {
    client_id: String,
    envelope: Envelope,
}

/// Answered when it is in the database, as messages of rooms are.
async fn send(
    State(app): Shared,
    session: Session,
    At(conversation): At<String>,
    Body(asked): Body<NewMessage>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    check_client_id(&asked.client_id)?;
    let person = &session.person.id;
    let header = envelope::look(&asked.envelope, &conversation, person, &asked.client_id)
        .map_err(|why| Failure::bad_request(&format!("this is no sealed message: {why}")))?;
    app.take(MESSAGES, person)?;
    let text = serde_json::to_string(&asked.envelope)
        .map_err(|error| Failure::bad_request(&format!("this is no sealed message: {error}")))?;
    let sealed = Sealed {
        client_id: &asked.client_id,
        envelope: &text,
        device: &header.device,
        key: &header.key,
        to: &header.to,
        devices: &header.devices,
    };
    let message = done(app.store.post_private(&conversation, person, &sealed)).await?;
    Ok((StatusCode::CREATED, written(&app, message)))
}

async fn remove(State(app): Shared, session: Session, At((conversation, seq)): At<(String, i64)>) -> Told {
    app.take(MESSAGES, &session.person.id)?;
    let message = done(app.store.delete_private(&conversation, seq, &session.person.id)).await?;
    Ok(written(&app, message))
}

async fn seen(
    State(app): Shared,
    session: Session,
    At(conversation): At<String>,
    Body(asked): Body<Seen>,
) -> Told {
    app.store.seen_private(&conversation, &session.person.id, asked.seq).await?;
    Ok(Json(json!({})))
}
