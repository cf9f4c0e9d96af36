//! Conversations between two: envelopes that only the two can open, in the order that the database gives them. Numbers and
//! changes are taken as those of rooms are; whoever may not is told so, not answered.

use serde_json::{Value, json};
use sqlx::any::AnyRow;

use super::devices::devices_of;
use super::messages::{Answer, PAGE_MAX, Page, Place, cut};
use super::outbox::tell;
use super::rooms::Refusal;
use super::{Result, Row, Store, Writing, now_ms};
use crate::random;

/// Conversations that one person may begin.
const BEGUN_MAX: i64 = 200;
/// Those that a list has, the ones with something new first; others are found by their name.
const LISTED_MAX: i64 = 200;

const COLUMNS: &str =
    "SELECT m.conversation, m.seq, m.change, m.author, COALESCE(p.name, '') AS name, m.envelope,
    m.client_id, m.sent, m.deleted FROM private_messages m LEFT JOIN people p ON p.id = m.author";

const LIST: &str = "SELECT c.id, c.change, c.newest, c.moved, p.seen, p.other, COALESCE(o.name, '') AS name,
      (SELECT COUNT(*) FROM blocks b WHERE b.person = p.person AND b.blocked = p.other) AS blocked,
      (SELECT COUNT(*) FROM (SELECT 1 FROM private_messages x WHERE x.conversation = c.id AND x.seq > p.seen
         AND x.deleted = 0 AND x.author <> p.person LIMIT 100) AS counted) AS unread
    FROM partners p JOIN conversations c ON c.id = p.conversation LEFT JOIN people o ON o.id = p.other
    WHERE p.person = $1 AND (c.newest > 0 OR p.begun = 1)";

/// A message to be written. Its envelope is one that `crate::api` has looked at.
pub(crate) struct Sealed<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) envelope: &'a str,
    /// Which of the author's devices has sealed it, and the key that it says is its own.
    pub(crate) device: &'a str,
    pub(crate) key: &'a str,
    /// To whom it says that it is.
    pub(crate) to: &'a str,
    /// For which devices, in order.
    pub(crate) devices: &'a [String],
}

impl Store {
    /// The conversation of two, which is begun if there is none.
    pub(crate) async fn converse(&self, person: &str, other: &str) -> Answer<Value> {
        if person == other {
            return Ok(Err(Refusal::Oneself));
        }
        let mut writing = self.begin().await?;
        let pair = if person < other { format!("{person} {other}") } else { format!("{other} {person}") };
        let count = sqlx::query("SELECT COUNT(*) AS begun FROM partners WHERE person = $1 AND begun = 1");
        let begun: i64 = count.bind(person).fetch_one(&mut *writing).await?.try_get("begun")?;
        let is_there = sqlx::query("SELECT id FROM conversations WHERE pair = $1").bind(&pair);
        let is_there = is_there.fetch_optional(&mut *writing).await?.is_some();
        if !is_there {
            if begun >= BEGUN_MAX {
                return Ok(Err(Refusal::TooManyConversations));
            }
            let id = random::id();
            let insert = "INSERT INTO conversations VALUES ($1, $2, 0, 0, $3) ON CONFLICT DO NOTHING";
            let query = sqlx::query(insert).bind(&id).bind(&pair).bind(now_ms());
            // The other one may have begun it at the same time.
            if query.execute(&mut *writing).await?.rows_affected() == 1 {
                for (mine, theirs) in [(person, other), (other, person)] {
                    let insert = "INSERT INTO partners VALUES ($1, $2, $3, 0, 0)";
                    let query = sqlx::query(insert).bind(&id).bind(mine).bind(theirs);
                    query.execute(&mut *writing).await?;
                }
            }
        }
        let query = "UPDATE partners SET begun = 1 WHERE person = $1 AND other = $2";
        sqlx::query(query).bind(person).bind(other).execute(&mut *writing).await?;
        let query = format!("{LIST} AND p.other = $2");
        let row = sqlx::query(&query).bind(person).bind(other).fetch_one(&mut *writing).await?;
        let told = listed(&row)?;
        writing.commit().await?;
        Ok(Ok(told))
    }

    /// Somebody's conversations, those with something new first.
    pub(crate) async fn conversations(&self, person: &str) -> Result<Vec<Value>> {
        let query = format!("{LIST} ORDER BY c.moved DESC, c.id LIMIT $2");
        let rows = sqlx::query(&query).bind(person).bind(LISTED_MAX).fetch_all(&self.pool).await?;
        rows.iter().map(listed).collect()
    }

    /// With whom somebody has this conversation.
    pub(crate) async fn partner(&self, conversation: &str, person: &str) -> Answer<String> {
        let query = sqlx::query("SELECT other FROM partners WHERE conversation = $1 AND person = $2");
        let row = query.bind(conversation).bind(person).fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.try_get("other")).transpose()?.ok_or(Refusal::NoConversation))
    }

    /// Writes a message. Who sends it again, with the same `client_id`, gets the one that is there.
    pub(crate) async fn post_private(
        &self,
        conversation: &str,
        person: &str,
        sealed: &Sealed<'_>,
    ) -> Answer<Value> {
        if let Some(there) = self.sealed_before(conversation, person, sealed.client_id).await? {
            return Ok(there);
        }
        let mut writing = self.begin().await?;
        let Some(place) = take_place(&mut writing, conversation, true).await? else {
            return Ok(Err(Refusal::NoConversation));
        };
        if let Err(refusal) = may_write(&mut writing, conversation, person, sealed).await? {
            return Ok(Err(refusal));
        }
        let insert =
            "INSERT INTO private_messages VALUES ($1, $2, $3, $4, $5, $6, $7, 0) ON CONFLICT DO NOTHING";
        let query = sqlx::query(insert).bind(conversation).bind(place.newest).bind(place.change).bind(person);
        let query = query.bind(sealed.envelope).bind(sealed.client_id).bind(now_ms());
        if query.execute(&mut *writing).await?.rows_affected() == 0 {
            // The same was sent over another connection at the same time.
            writing.rollback().await?;
            let there = self.sealed_before(conversation, person, sealed.client_id).await?;
            return Ok(there.unwrap_or(Err(Refusal::Repeated)));
        }
        let seen = "UPDATE partners SET seen = $1 WHERE conversation = $2 AND person = $3";
        let query = sqlx::query(seen).bind(place.newest).bind(conversation).bind(person);
        query.execute(&mut *writing).await?;
        let message = tell_both(&mut writing, conversation, &place, place.newest).await?;
        writing.commit().await?;
        Ok(Ok(message))
    }

    async fn sealed_before(
        &self,
        conversation: &str,
        person: &str,
        client_id: &str,
    ) -> Result<Option<std::result::Result<Value, Refusal>>> {
        let query = format!("{COLUMNS} WHERE m.author = $1 AND m.client_id = $2");
        let row = sqlx::query(&query).bind(person).bind(client_id).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(None) };
        let message = message(&row)?;
        let is_here = message["conversation"] == conversation;
        Ok(Some(if is_here { Ok(message) } else { Err(Refusal::Repeated) }))
    }

    /// Deletes one's own message: its envelope is gone, its place stays.
    pub(crate) async fn delete_private(&self, conversation: &str, seq: i64, person: &str) -> Answer<Value> {
        let mut writing = self.begin().await?;
        let Some(place) = take_place(&mut writing, conversation, false).await? else {
            return Ok(Err(Refusal::NoConversation));
        };
        if let Err(refusal) = other_of(&mut writing, conversation, person).await? {
            return Ok(Err(refusal));
        }
        let query = "SELECT author, deleted FROM private_messages WHERE conversation = $1 AND seq = $2";
        let row = sqlx::query(query).bind(conversation).bind(seq).fetch_optional(&mut *writing).await?;
        let Some(row) = row else { return Ok(Err(Refusal::NoMessage)) };
        let (author, deleted): (String, i64) = (row.try_get("author")?, row.try_get("deleted")?);
        if author != person {
            return Ok(Err(Refusal::NotYours));
        }
        if deleted != 0 {
            return Ok(Err(Refusal::NoMessage));
        }
        let update = "UPDATE private_messages SET envelope = '', deleted = 1, change = $1
                      WHERE conversation = $2 AND seq = $3";
        let query = sqlx::query(update).bind(place.change).bind(conversation).bind(seq);
        query.execute(&mut *writing).await?;
        // What was written and is still to be told is not told any more.
        let query = "DELETE FROM outbox WHERE seq = $1 AND payload LIKE $2 AND topic IN
            (SELECT 'people/' || person FROM partners WHERE conversation = $3)";
        let told = format!("%\"conversation\":\"{conversation}\"%");
        sqlx::query(query).bind(seq).bind(told).bind(conversation).execute(&mut *writing).await?;
        let message = tell_both(&mut writing, conversation, &place, seq).await?;
        writing.commit().await?;
        Ok(Ok(message))
    }

    /// The newest messages, or those before one; or with `after` those that are new or have changed behind a change.
    pub(crate) async fn private_page(
        &self,
        conversation: &str,
        person: &str,
        range: (Option<i64>, Option<i64>),
        most: i64,
    ) -> Answer<Page> {
        // Read before its messages: what comes in between is told again.
        let query = "SELECT c.change FROM conversations c JOIN partners p ON p.conversation = c.id
                     WHERE c.id = $1 AND p.person = $2";
        let row = sqlx::query(query).bind(conversation).bind(person).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(Err(Refusal::NoConversation)) };
        let head: i64 = row.try_get("change")?;
        let (before, after) = range;
        let most = if after.is_some() { PAGE_MAX } else { most.clamp(1, PAGE_MAX) };
        let (query, from) = match after {
            Some(after) => ("m.change > $2 ORDER BY m.change", after),
            None => ("m.seq < $2 ORDER BY m.seq DESC", before.unwrap_or(i64::MAX)),
        };
        let query = format!("{COLUMNS} WHERE m.conversation = $1 AND {query} LIMIT $3");
        let query = sqlx::query(&query).bind(conversation).bind(from).bind(most + 1);
        let mut rows = query.fetch_all(&self.pool).await?;
        let more = cut(&mut rows, most);
        let last = rows.last().map_or(Ok(0), |row| row.try_get("change"))?;
        if after.is_none() {
            rows.reverse();
        }
        let messages = rows.iter().map(message).collect::<Result<_>>()?;
        let change = match after {
            Some(_) if more => last,
            Some(_) => last.max(head),
            None => head,
        };
        Ok(Ok(Page { messages, change, more }))
    }

    /// Somebody has read a conversation up to a message.
    pub(crate) async fn seen_private(&self, conversation: &str, person: &str, seq: i64) -> Result<()> {
        let query = "UPDATE partners SET seen = $1 WHERE conversation = $2 AND person = $3 AND seen < $1
                     AND $1 <= (SELECT newest FROM conversations WHERE id = $2)";
        sqlx::query(query).bind(seq).bind(conversation).bind(person).execute(&self.pool).await?;
        Ok(())
    }

    /// Takes no messages from who is in this conversation any more, or does again. Gives who that is.
    pub(crate) async fn block(&self, conversation: &str, person: &str, blocks: bool) -> Answer<String> {
        let mut writing = self.begin().await?;
        let other = match other_of(&mut writing, conversation, person).await? {
            Ok(other) => other,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let query = if blocks {
            "INSERT INTO blocks SELECT $1, id FROM people WHERE id = $2 ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM blocks WHERE person = $1 AND blocked = $2"
        };
        sqlx::query(query).bind(person).bind(&other).execute(&mut *writing).await?;
        writing.commit().await?;
        Ok(Ok(other))
    }
}

/// Somebody's account is deleted in this transaction: what they shared with nobody who is still there goes.
pub(super) async fn leave_conversations(writing: &mut Writing, person: &str) -> Result<()> {
    // Of two who leave at once the second waits here and sees that the first has left.
    let lock = "UPDATE conversations SET moved = moved WHERE id IN (SELECT conversation FROM partners WHERE person = $1)";
    sqlx::query(lock).bind(person).execute(&mut **writing).await?;
    let query = "DELETE FROM conversations WHERE id IN (SELECT conversation FROM partners WHERE person = $1)
        AND NOT EXISTS (SELECT 1 FROM partners p WHERE p.conversation = conversations.id AND p.person <> $1)";
    sqlx::query(query).bind(person).execute(&mut **writing).await?;
    super::devices::tell_partners(writing, person, r#"{"conversations":"changed"}"#).await
}

/// Whether somebody may write this: to whom it says, who has not left and blocks nobody, and for all devices of both.
async fn may_write(
    writing: &mut Writing,
    conversation: &str,
    person: &str,
    sealed: &Sealed<'_>,
) -> Answer<()> {
    let other = match other_of(writing, conversation, person).await? {
        Ok(other) if other == sealed.to => other,
        _ => return Ok(Err(Refusal::NoConversation)),
    };
    let query = "SELECT (SELECT COUNT(*) FROM people WHERE id = $2) AS there,
        (SELECT COUNT(*) FROM blocks WHERE person = $1 AND blocked = $2) AS mine,
        (SELECT COUNT(*) FROM blocks WHERE person = $2 AND blocked = $1) AS theirs";
    let row = sqlx::query(query).bind(person).bind(&other).fetch_one(&mut **writing).await?;
    let is = |name: &str| -> Result<bool> { Ok(row.try_get::<i64, _>(name)? != 0) };
    if !is("there")? {
        return Ok(Err(Refusal::HasLeft));
    }
    if is("mine")? {
        return Ok(Err(Refusal::Blocking));
    }
    if is("theirs")? {
        return Ok(Err(Refusal::Blocked));
    }
    let devices = devices_of(writing, person, &other).await?;
    let is_own = |(id, whose, key): &(String, String, String)| {
        id == sealed.device && whose == person && key == sealed.key
    };
    let for_all = devices.iter().map(|(id, ..)| id).eq(sealed.devices);
    let has_both = devices.iter().any(|(_, whose, _)| *whose == other);
    Ok(if for_all && has_both && devices.iter().any(is_own) { Ok(()) } else { Err(Refusal::OtherDevices) })
}

async fn other_of(writing: &mut Writing, conversation: &str, person: &str) -> Answer<String> {
    let query = sqlx::query("SELECT other FROM partners WHERE conversation = $1 AND person = $2");
    let row = query.bind(conversation).bind(person).fetch_optional(&mut **writing).await?;
    Ok(row.map(|row| row.try_get("other")).transpose()?.ok_or(Refusal::NoConversation))
}

/// The next numbers of a conversation, and its lock until the transaction ends.
async fn take_place(writing: &mut Writing, conversation: &str, is_message: bool) -> Result<Option<Place>> {
    let query = "UPDATE conversations SET change = change + 1, newest = newest + $1,
        moved = CASE WHEN $1 = 1 AND moved < $2 THEN $2 ELSE moved END WHERE id = $3 RETURNING change, newest";
    let query = sqlx::query(query).bind(i64::from(is_message)).bind(now_ms()).bind(conversation);
    let Some(row) = query.fetch_optional(&mut **writing).await? else { return Ok(None) };
    Ok(Some(Place { change: row.try_get("change")?, newest: row.try_get("newest")? }))
}

/// Puts a message as it is now into the outbox for the pages of both, and gives it.
async fn tell_both(writing: &mut Writing, conversation: &str, place: &Place, seq: i64) -> Result<Value> {
    let query = format!("{COLUMNS} WHERE m.conversation = $1 AND m.seq = $2");
    let row = sqlx::query(&query).bind(conversation).bind(seq).fetch_one(&mut **writing).await?;
    let message = message(&row)?;
    let payload = json!({"private": message}).to_string();
    let query = sqlx::query("SELECT person FROM partners WHERE conversation = $1").bind(conversation);
    for row in query.fetch_all(&mut **writing).await? {
        let person: String = row.try_get("person")?;
        tell(writing, &format!("people/{person}"), place.change, seq, &payload).await?;
    }
    Ok(message)
}

/// A message as pages get it. Its text is nowhere but in the envelope.
fn message(row: &AnyRow) -> Result<Value> {
    let text = |name: &str| -> Result<String> { Ok(row.try_get(name)?) };
    let number = |name: &str| -> Result<i64> { Ok(row.try_get(name)?) };
    let envelope = text("envelope")?;
    let envelope: Value = serde_json::from_str(&envelope).unwrap_or(Value::Null);
    Ok(json!({
        "conversation": text("conversation")?, "seq": number("seq")?, "change": number("change")?,
        "author": {"id": text("author")?, "name": text("name")?}, "envelope": envelope,
        "client_id": text("client_id")?, "sent": number("sent")?, "deleted": number("deleted")? != 0,
    }))
}

fn listed(row: &AnyRow) -> Result<Value> {
    let text = |name: &str| -> Result<String> { Ok(row.try_get(name)?) };
    let number = |name: &str| -> Result<i64> { Ok(row.try_get(name)?) };
    Ok(json!({
        "id": text("id")?, "with": {"id": text("other")?, "name": text("name")?}, "change": number("change")?,
        "newest": number("newest")?, "moved": number("moved")?, "seen": number("seen")?,
        "unread": number("unread")?, "blocked": number("blocked")? != 0,
    }))
}
