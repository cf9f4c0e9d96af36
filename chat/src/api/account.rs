//! Accounts: made, logged in to, left, deleted; who one is, and the token for the edge.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, response::AppendHeaders};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, Body, Failure, From, Session, Shared, cookies, csrf};
use crate::limits::{LOGIN_ACCOUNT, LOGIN_ADDRESS, LOGIN_DEVICE, REGISTER_ADDRESS};
use crate::names;
use crate::store::messages::topic;
use crate::store::people::Person;
use crate::store::rooms::{LOBBY, Role};

#[derive(Deserialize)]
pub(super) struct Credentials {
    name: String,
    password: String,
}

pub(super) async fn register(
    State(app): Shared,
    From(address): From,
    Body(asked): Body<Credentials>,
) -> Result<Response, Failure> {
    let name = names::person(&asked.name).map_err(|why| Failure::invalid("name", &why))?;
    names::check_password(&asked.password, &name).map_err(|why| Failure::invalid("password", &why))?;
    let taken = || Failure::taken("name", "there is somebody whose name looks like this: choose another");
    app.take(REGISTER_ADDRESS, &address)?;
    let key = names::key(&name);
    // Before the work of a hash, and once more by the database.
    if app.store.person_by_key(&key).await?.is_some() {
        return Err(taken());
    }
    let stored = app.passwords.stored(&asked.password).await?;
    let person = app.store.add_person(&name, &key, &stored).await?.ok_or_else(taken)?;
    // A lobby that is full keeps nobody from having an account.
    if let Ok(()) = app.store.join(LOBBY, &person.id).await? {
        app.written.notify_one();
    }
    logged_in(&app, &person, StatusCode::CREATED).await
}

pub(super) async fn login(
    State(app): Shared,
    From(address): From,
    headers: HeaderMap,
    Body(asked): Body<Credentials>,
) -> Result<Response, Failure> {
    let key = names::asked(&asked.name);
    let person = check(&app, &address, &headers, &key, &asked.password).await?;
    if let Some(before) = cookies::session(&headers, app.is_secure) {
        app.store.end_session(&before).await?;
    }
    logged_in(&app, &person, StatusCode::OK).await
}

/// Whose password it is, if it is the account's. A device that has been logged in to it has tries of its own, so that who is
/// attacked is not locked out; right ones are no tries of the account, and neither is what was not looked at, for want of a
/// turn or of the database: else whoever keeps all turns taken would lock everybody out. Of the address all are: nobody
/// makes hashes without end with an account of their own.
async fn check(
    app: &App,
    address: &str,
    headers: &HeaderMap,
    key: &str,
    password: &str,
) -> Result<Person, Failure> {
    let device = cookies::device(headers, app.is_secure, &app.device_key, key);
    app.take(LOGIN_ADDRESS, address)?;
    let (limit, who) = match &device {
        Some(device) => (LOGIN_DEVICE, &**device),
        None => (LOGIN_ACCOUNT, key),
    };
    app.take(limit, who)?;
    match look(app, key, password).await {
        Ok(None) => Err(Failure::wrong_password("there is no such name with this password: check both")),
        Ok(Some(person)) => {
            app.limits.give_back(limit, who);
            Ok(person)
        }
        Err(failure) => {
            app.limits.give_back(limit, who);
            Err(failure)
        }
    }
}

/// Whose password it is, if it is right.
async fn look(app: &App, key: &str, password: &str) -> Result<Option<Person>, Failure> {
    let person = app.store.person_by_key(key).await?;
    let stored = person.as_ref().map(|person| &*person.password);
    let is_right = app.passwords.is_right(password, stored).await?;
    Ok(person.filter(|_| is_right))
}

/// A new session, whatever was shown before: nobody can give somebody else one of theirs.
async fn logged_in(app: &App, person: &Person, status: StatusCode) -> Result<Response, Failure> {
    let session = app.store.add_session(person).await?.ok_or_else(Failure::logged_out)?;
    let cookies = AppendHeaders([
        (header::SET_COOKIE, cookies::set_session(Some(&session), app.is_secure)),
        (header::SET_COOKIE, cookies::set_device(&app.device_key, &names::key(&person.name), app.is_secure)),
    ]);
    Ok((status, cookies, Json(told(app, person, &session).await?)).into_response())
}

fn logged_out(app: &App) -> Response {
    let cookie = [(header::SET_COOKIE, cookies::set_session(None, app.is_secure))];
    (StatusCode::OK, cookie, Json(json!({}))).into_response()
}

pub(super) async fn logout(State(app): Shared, session: Session) -> Result<Response, Failure> {
    app.store.end_session(&session.id).await?;
    Ok(logged_out(&app))
}

pub(super) async fn logout_everywhere(State(app): Shared, session: Session) -> Result<Response, Failure> {
    app.store.end_sessions(&session.person.id).await?;
    app.written.notify_one();
    Ok(logged_out(&app))
}

#[derive(Deserialize)]
pub(super) struct NewPassword {
    old: String,
    new: String,
}

pub(super) async fn password(
    State(app): Shared,
    From(address): From,
    session: Session,
    headers: HeaderMap,
    Body(asked): Body<NewPassword>,
) -> Result<Response, Failure> {
    let mut person = session.person;
    names::check_password(&asked.new, &person.name).map_err(|why| Failure::invalid("new", &why))?;
    is_own(&app, &address, &headers, &person, &asked.old).await?;
    let stored = app.passwords.stored(&asked.new).await?;
    if !app.store.set_password(&person.id, &person.password, &stored).await? {
        return Err(Failure::logged_out());
    }
    app.written.notify_one();
    person.password = stored;
    logged_in(&app, &person, StatusCode::OK).await
}

async fn is_own(
    app: &App,
    address: &str,
    headers: &HeaderMap,
    person: &Person,
    password: &str,
) -> Result<(), Failure> {
    check(app, address, headers, &names::key(&person.name), password).await.map(drop)
}

#[derive(Deserialize)]
pub(super) struct Farewell {
    password: String,
}

pub(super) async fn delete(
    State(app): Shared,
    From(address): From,
    session: Session,
    headers: HeaderMap,
    Body(asked): Body<Farewell>,
) -> Result<Response, Failure> {
    let person = session.person;
    is_own(&app, &address, &headers, &person, &asked.password).await?;
    if !app.store.delete_person(&person).await? {
        return Err(Failure::logged_out());
    }
    app.written.notify_one();
    Ok(logged_out(&app))
}

pub(super) async fn me(State(app): Shared, session: Session) -> Result<Json<Value>, Failure> {
    Ok(Json(told(&app, &session.person, &session.id).await?))
}

async fn told(app: &App, person: &Person, session: &str) -> Result<Value, Failure> {
    let rooms = app.store.rooms(&person.id).await?;
    Ok(json!({
        "id": person.id, "name": person.name, "csrf": csrf(session), "rooms": rooms, "history": app.history,
        "message_characters_max": names::MESSAGE_CHARS_MAX,
    }))
}

/// A token for the edge, for the rooms that somebody is in now, and where it is.
pub(super) async fn edge(
    State(app): Shared,
    session: Session,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    let person = &session.person.id;
    let issued = app.issuable(person).await?;
    let rooms = app.store.rooms(person).await?;
    let is_in = |room: &&Value| room["role"].as_str().and_then(Role::read).is_some_and(Role::is_in);
    let mut topics: Vec<_> =
        rooms.iter().filter(is_in).filter_map(|room| room["id"].as_str()).map(topic).collect();
    topics.push(format!("people/{person}"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    Ok(Json(
        json!({"url": app.edge.public.url(host), "token": app.edge.signer.token(person, &topics, issued)}),
    ))
}
