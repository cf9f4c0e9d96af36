//! Messages of rooms and notices among them: written, changed, read back. Whoever may not is told so, not answered.

use serde_json::{Value, json};
use sqlx::any::AnyRow;

use super::outbox::tell;
use super::rooms::{Refusal, Role, role_of};
use super::{Result, Row, Store, Writing, now_ms};
use crate::random;

/// Messages that one answer has at most.
pub(crate) const PAGE_MAX: i64 = 200;

const COLUMNS: &str = "SELECT m.room, m.seq, m.change, m.kind, COALESCE(m.author, '') AS author,
    COALESCE(p.name, '') AS name, m.body, m.client_id, m.sent, m.edited, m.deleted
    FROM messages m LEFT JOIN people p ON p.id = m.author";

/// What is done, or why not.
pub(crate) type Answer<T> = Result<std::result::Result<T, Refusal>>;

/// Some of a room's messages, oldest first, and up to which change they tell of it.
pub(crate) struct Page {
    pub(crate) messages: Vec<Value>,
    pub(crate) change: i64,
    /// There are more: before these of a history, behind these of changes.
    pub(crate) more: bool,
}

/// The numbers that a room's next change has.
pub(super) struct Place {
    pub(super) change: i64,
    /// Of the newest message.
    pub(super) newest: i64,
}

impl Store {
    /// Writes a message. Who sends it again, with the same `client_id`, gets the one that is there.
    pub(crate) async fn post(&self, room: &str, person: &str, client_id: &str, text: &str) -> Answer<Value> {
        if let Some(there) = self.sent_before(room, person, client_id).await? {
            return Ok(there);
        }
        let mut writing = self.begin().await?;
        let Some(place) = take_place(&mut writing, room, true).await? else {
            return Ok(Err(Refusal::NoRoom));
        };
        if !role_of(&mut writing, room, person).await?.is_some_and(Role::is_in) {
            return Ok(Err(Refusal::NotMember));
        }
        let insert =
            "INSERT INTO messages VALUES ($1, $2, $3, 'text', $4, $5, $6, $7, 0, 0) ON CONFLICT DO NOTHING";
        let query = sqlx::query(insert).bind(room).bind(place.newest).bind(place.change).bind(person);
        let done = query.bind(text).bind(client_id).bind(now_ms()).execute(&mut *writing).await?;
        if done.rows_affected() == 0 {
            // The same was sent over another connection at the same time.
            writing.rollback().await?;
            return Ok(self.sent_before(room, person, client_id).await?.unwrap_or(Err(Refusal::Repeated)));
        }
        let seen = "UPDATE members SET seen = $1 WHERE room = $2 AND person = $3";
        sqlx::query(seen).bind(place.newest).bind(room).bind(person).execute(&mut *writing).await?;
        let message = tell_of(&mut writing, room, &place, place.newest).await?;
        writing.commit().await?;
        Ok(Ok(message))
    }

    async fn sent_before(
        &self,
        room: &str,
        person: &str,
        client_id: &str,
    ) -> Result<Option<std::result::Result<Value, Refusal>>> {
        let query = format!("{COLUMNS} WHERE m.author = $1 AND m.client_id = $2");
        let row = sqlx::query(&query).bind(person).bind(client_id).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(None) };
        let message = message(&row)?;
        Ok(Some(if message["room"] == room { Ok(message) } else { Err(Refusal::Repeated) }))
    }

    /// Writes other words into one's own message, or with `None` none: then it is deleted, by whoever leads the room, too.
    pub(crate) async fn change(
        &self,
        room: &str,
        seq: i64,
        person: &str,
        text: Option<&str>,
    ) -> Answer<Value> {
        let mut writing = self.begin().await?;
        let Some(place) = take_place(&mut writing, room, false).await? else {
            return Ok(Err(Refusal::NoRoom));
        };
        let Some(role) = role_of(&mut writing, room, person).await?.filter(|role| role.is_in()) else {
            return Ok(Err(Refusal::NotMember));
        };
        let query =
            "SELECT COALESCE(author, '') AS author, kind, deleted FROM messages WHERE room = $1 AND seq = $2";
        let row = sqlx::query(query).bind(room).bind(seq).fetch_optional(&mut *writing).await?;
        let Some(row) = row else { return Ok(Err(Refusal::NoMessage)) };
        let (author, kind, deleted): (String, String, i64) =
            (row.try_get("author")?, row.try_get("kind")?, row.try_get("deleted")?);
        if kind != "text" || deleted != 0 {
            return Ok(Err(Refusal::NoMessage));
        }
        if author != person && (text.is_some() || !role.leads()) {
            return Ok(Err(Refusal::NotYours));
        }
        let update = "UPDATE messages SET body = $1, edited = $2, deleted = $3, change = $4 WHERE room = $5 AND seq = $6";
        let query = sqlx::query(update).bind(text.unwrap_or_default()).bind(now_ms());
        let query = query.bind(i64::from(text.is_none())).bind(place.change).bind(room).bind(seq);
        query.execute(&mut *writing).await?;
        // Words that are still to be told and are not the message's any more are not told; pages see that numbers are
        // missing.
        let query =
            sqlx::query("DELETE FROM outbox WHERE topic = $1 AND seq = $2").bind(topic(room)).bind(seq);
        query.execute(&mut *writing).await?;
        let message = tell_of(&mut writing, room, &place, seq).await?;
        writing.commit().await?;
        Ok(Ok(message))
    }

    /// The newest messages, or those before one.
    pub(crate) async fn history(
        &self,
        room: &str,
        person: &str,
        before: Option<i64>,
        most: i64,
    ) -> Answer<Page> {
        let change = match self.head(room, person).await? {
            Ok(change) => change,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let most = most.clamp(1, PAGE_MAX);
        let query = format!("{COLUMNS} WHERE m.room = $1 AND m.seq < $2 ORDER BY m.seq DESC LIMIT $3");
        let query = sqlx::query(&query).bind(room).bind(before.unwrap_or(i64::MAX)).bind(most + 1);
        let mut rows = query.fetch_all(&self.pool).await?;
        let more = cut(&mut rows, most);
        rows.reverse();
        let messages = rows.iter().map(message).collect::<Result<_>>()?;
        Ok(Ok(Page { messages, change, more }))
    }

    /// Messages that are new or have changed behind a change, in the order of their last changes.
    pub(crate) async fn changes(&self, room: &str, person: &str, after: i64) -> Answer<Page> {
        let head = match self.head(room, person).await? {
            Ok(change) => change,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let query = format!("{COLUMNS} WHERE m.room = $1 AND m.change > $2 ORDER BY m.change LIMIT $3");
        let query = sqlx::query(&query).bind(room).bind(after).bind(PAGE_MAX + 1);
        let mut rows = query.fetch_all(&self.pool).await?;
        let more = cut(&mut rows, PAGE_MAX);
        let last = rows.last().map_or(Ok(0), |row| row.try_get("change"))?;
        let messages = rows.iter().map(message).collect::<Result<_>>()?;
        Ok(Ok(Page { messages, change: if more { last } else { last.max(head) }, more }))
    }

    /// How far a room has come, for one of its members. Read before its messages: what comes in between is told again.
    async fn head(&self, room: &str, person: &str) -> Answer<i64> {
        let query = "SELECT r.change, COALESCE(m.role, '') AS role FROM rooms r
                     LEFT JOIN members m ON m.room = r.id AND m.person = $2 WHERE r.id = $1";
        let row = sqlx::query(query).bind(room).bind(person).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(Err(Refusal::NoRoom)) };
        let role: String = row.try_get("role")?;
        let is_in = Role::read(&role).is_some_and(Role::is_in);
        Ok(if is_in { Ok(row.try_get("change")?) } else { Err(Refusal::NotMember) })
    }

    /// Somebody has read a room up to a message.
    pub(crate) async fn seen(&self, room: &str, person: &str, seq: i64) -> Result<()> {
        let query = "UPDATE members SET seen = $1 WHERE room = $2 AND person = $3 AND seen < $1
                     AND $1 <= (SELECT newest FROM rooms WHERE id = $2)";
        sqlx::query(query).bind(seq).bind(room).bind(person).execute(&self.pool).await?;
        Ok(())
    }
}

/// The next numbers of a room, and its lock until the transaction ends. `None` if there is no such room.
pub(super) async fn take_place(writing: &mut Writing, room: &str, is_message: bool) -> Result<Option<Place>> {
    let query =
        "UPDATE rooms SET change = change + 1, newest = newest + $1 WHERE id = $2 RETURNING change, newest";
    let row =
        sqlx::query(query).bind(i64::from(is_message)).bind(room).fetch_optional(&mut **writing).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Place { change: row.try_get("change")?, newest: row.try_get("newest")? }))
}

/// Writes a notice at a place that was taken for it: what somebody has done, or somebody else with them.
pub(super) async fn notice(
    writing: &mut Writing,
    room: &str,
    place: &Place,
    kind: &str,
    person: &str,
    text: &str,
) -> Result<()> {
    let insert = "INSERT INTO messages VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0)";
    let query = sqlx::query(insert).bind(room).bind(place.newest).bind(place.change).bind(kind).bind(person);
    query.bind(text).bind(random::id()).bind(now_ms()).execute(&mut **writing).await?;
    tell_of(writing, room, place, place.newest).await.map(drop)
}

/// Puts a message as it is now into the outbox, and gives it.
async fn tell_of(writing: &mut Writing, room: &str, place: &Place, seq: i64) -> Result<Value> {
    let query = format!("{COLUMNS} WHERE m.room = $1 AND m.seq = $2");
    let row = sqlx::query(&query).bind(room).bind(seq).fetch_one(&mut **writing).await?;
    let message = message(&row)?;
    tell(writing, &topic(room), place.change, seq, &message.to_string()).await?;
    Ok(message)
}

/// The topic of a room.
pub(crate) fn topic(room: &str) -> String {
    format!("rooms/{room}")
}

pub(super) fn cut(rows: &mut Vec<AnyRow>, most: i64) -> bool {
    let most = usize::try_from(most).unwrap_or_default();
    let more = rows.len() > most;
    rows.truncate(most);
    more
}

/// A message as pages get it, from the database and from the edge alike.
fn message(row: &AnyRow) -> Result<Value> {
    let text = |name: &str| -> Result<String> { Ok(row.try_get(name)?) };
    let number = |name: &str| -> Result<i64> { Ok(row.try_get(name)?) };
    let author = text("author")?;
    let author = if author.is_empty() { Value::Null } else { json!({"id": author, "name": text("name")?}) };
    Ok(json!({
        "room": text("room")?, "seq": number("seq")?, "change": number("change")?, "kind": text("kind")?,
        "author": author, "text": text("body")?, "client_id": text("client_id")?, "sent": number("sent")?,
        "edited": number("edited")?, "deleted": number("deleted")? != 0,
    }))
}
